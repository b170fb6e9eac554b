//! The part of JSONPath that `InputFilter` and `OutputFilter` know: `$`, names, indexes, slices and the wildcard.

use serde_json::{Map, Value};

/// The longest expression, as in the service.
const MOST_CHARACTERS: usize = 63;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Name(String),
    /// Several names of one object; always the last step.
    Names(Vec<String>),
    /// One element.
    Index(i64),
    /// Elements in the order in which they are named.
    Elements(Vec<Range>),
    All,
}

/// One part of `[0, 3:5, -1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Range {
    One(i64),
    Slice(Option<i64>, Option<i64>),
}

impl Path {
    /// Parses an expression; an empty one means all.
    ///
    /// # Errors
    /// The end of a sentence that names what is wrong.
    pub fn parse(text: &str) -> Result<Path, String> {
        if text.chars().count() > MOST_CHARACTERS {
            return Err(format!("it is longer than {MOST_CHARACTERS} characters"));
        }
        if text.is_empty() {
            return Ok(Path(Vec::new()));
        }
        let mut rest = text.strip_prefix('$').ok_or("a JSONPath begins with $")?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if matches!(steps.last(), Some(Step::Names(_))) {
                return Err("nothing may follow a list of several names".into());
            }
            let (step, left) = step(rest)?;
            steps.push(step);
            rest = left;
        }
        Ok(Path(steps))
    }

    /// Whether it selects all there is.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// What it selects.
    ///
    /// # Errors
    /// The end of a sentence when there is no such member or element.
    pub fn select(&self, value: &Value) -> Result<Value, String> {
        select(&self.0, value)
    }

    /// The columns that it selects of a row with `width` columns.
    ///
    /// # Errors
    /// When it asks for names, or for a column that the row does not have.
    pub fn columns(&self, width: usize) -> Result<Vec<usize>, String> {
        match self.0.as_slice() {
            [] | [Step::All] => Ok((0..width).collect()),
            [Step::Index(index)] => Ok(vec![position(*index, width)?]),
            [Step::Elements(ranges)] => positions(ranges, width),
            _ => Err("a row of CSV has columns only, such as $[0] or $[1:]".into()),
        }
    }
}

fn step(text: &str) -> Result<(Step, &str), String> {
    if let Some(inside) = text.strip_prefix(".[").or_else(|| text.strip_prefix('[')) {
        return bracket(inside);
    }
    let Some(name) = text.strip_prefix('.') else {
        return Err(format!("{text:?} cannot stand there"));
    };
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (name, rest) = name.split_at(end);
    match name {
        "" => Err("a name is missing after a dot".into()),
        "*" => Ok((Step::All, rest)),
        name if name.contains([']', '\'', '"', '(', '?', '@', '*', ',']) => {
            Err(format!("{name:?} is no plain name"))
        }
        name => Ok((Step::Name(name.to_owned()), rest)),
    }
}

/// What stands between brackets, and what follows them.
fn bracket(text: &str) -> Result<(Step, &str), String> {
    let trimmed = text.trim_start();
    if trimmed.starts_with(['\'', '"']) {
        return names(trimmed);
    }
    let end = text.find(']').ok_or("a bracket is not closed")?;
    let (inside, rest) = (text[..end].trim(), &text[end + 1..]);
    if inside == "*" {
        return Ok((Step::All, rest));
    }
    let ranges = inside.split(',').map(|part| range(part.trim())).collect::<Result<Vec<_>, _>>()?;
    Ok(match ranges.as_slice() {
        [Range::One(index)] => (Step::Index(*index), rest),
        _ => (Step::Elements(ranges), rest),
    })
}

fn names(mut text: &str) -> Result<(Step, &str), String> {
    let mut names = Vec::new();
    loop {
        let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let quote = quote.ok_or("a list of names has names in quotes only")?;
        let end = text[1..].find(quote).ok_or("a quote is not closed")? + 1;
        names.push(text[1..end].to_owned());
        text = text[end + 1..].trim_start();
        if let Some(rest) = text.strip_prefix(']') {
            return Ok(match names.as_slice() {
                [name] => (Step::Name(name.clone()), rest),
                _ => (Step::Names(names), rest),
            });
        }
        text = text.strip_prefix(',').ok_or("names are parted by commas")?.trim_start();
    }
}

fn range(text: &str) -> Result<Range, String> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text:?} is no whole number"));
    match text.split_once(':') {
        None => number(text).map(Range::One),
        Some((start, end)) => {
            let bound = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
            Ok(Range::Slice(bound(start)?, bound(end)?))
        }
    }
}

fn position(index: i64, width: usize) -> Result<usize, String> {
    let at = if index < 0 { width as i64 + index } else { index };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < width)
        .ok_or_else(|| format!("there is no element {index} among {width}"))
}

fn positions(ranges: &[Range], width: usize) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    for range in ranges {
        match range {
            Range::One(index) => found.push(position(*index, width)?),
            Range::Slice(start, end) => {
                let bound = |bound: &Option<i64>, default: usize| match *bound {
                    None => default,
                    Some(at) if at < 0 => usize::try_from(width as i64 + at).unwrap_or(0),
                    Some(at) => usize::try_from(at).unwrap_or(width).min(width),
                };
                found.extend(bound(start, 0)..bound(end, width));
            }
        }
    }
    Ok(found)
}

fn select(steps: &[Step], value: &Value) -> Result<Value, String> {
    let Some((step, rest)) = steps.split_first() else { return Ok(value.clone()) };
    let member = |name: &str| value.get(name).ok_or_else(|| format!("there is no member {name:?}"));
    let elements = || value.as_array().ok_or("what it takes elements of is no array");
    match step {
        Step::Name(name) => select(rest, member(name)?),
        Step::Names(names) => {
            let mut chosen = Map::new();
            for name in names {
                chosen.insert(name.clone(), member(name)?.clone());
            }
            Ok(Value::Object(chosen))
        }
        Step::Index(index) => {
            let elements = elements()?;
            select(rest, &elements[position(*index, elements.len())?])
        }
        Step::Elements(ranges) => {
            let elements = elements()?;
            let chosen = positions(ranges, elements.len())?;
            chosen.into_iter().map(|at| select(rest, &elements[at])).collect()
        }
        Step::All => match value {
            Value::Array(elements) => elements.iter().map(|element| select(rest, element)).collect(),
            Value::Object(members) => members.values().map(|member| select(rest, member)).collect(),
            _ => Err("what it takes all of is neither an array nor an object".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selected(path: &str, value: &Value) -> Result<Value, String> {
        Path::parse(path).and_then(|path| path.select(value))
    }

    #[test]
    fn the_operators_of_the_service() {
        let row = json!(["a", "b", "c", "d"]);
        for (path, expected) in [
            ("$", row.clone()),
            ("", row.clone()),
            ("$[0]", json!("a")),
            ("$[-1]", json!("d")),
            ("$[1:]", json!(["b", "c", "d"])),
            ("$[:2]", json!(["a", "b"])),
            ("$[:-1]", json!(["a", "b", "c"])),
            ("$[-2:]", json!(["c", "d"])),
            ("$[0,-1]", json!(["a", "d"])),
            ("$[ 3 , 0:2 ]", json!(["d", "a", "b"])),
            ("$[5:9]", json!([])),
            ("$[*]", row.clone()),
        ] {
            assert_eq!(selected(path, &row), Ok(expected), "{path}");
        }
        let record =
            json!({"id": 7, "features": [1.5, 2.0], "deep": {"x": [{"y": 1}, {"y": 2}]}, "a b": null});
        for (path, expected) in [
            ("$.features", json!([1.5, 2.0])),
            ("$.features[1]", json!(2.0)),
            ("$['features']", json!([1.5, 2.0])),
            ("$.['id']", json!(7)),
            ("$['id','features']", json!({"id": 7, "features": [1.5, 2.0]})),
            ("$['features', 'id']", json!({"features": [1.5, 2.0], "id": 7})),
            ("$.deep.['x']", json!([{"y": 1}, {"y": 2}])),
            ("$.deep.x[*].y", json!([1, 2])),
            ("$.deep.x[1:].y", json!([2])),
            ("$.deep.*", json!([[{"y": 1}, {"y": 2}]])),
            ("$['a b']", Value::Null),
        ] {
            assert_eq!(selected(path, &record), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let record = json!({"a": [1]});
        for path in ["$.b", "$.a[1]", "$.a[-2]", "$['a','b']", "$[0]", "$.a[0][*]"] {
            assert!(selected(path, &record).is_err(), "{path}");
        }
    }

    #[test]
    fn other_expressions_are_refused() {
        for path in [
            "a",
            "x$",
            "$x",
            "$.",
            "$..a",
            "$[",
            "$[a]",
            "$['a'",
            "$['a' 'b']",
            "$['a',1]",
            "$['a','b'].c",
            "$[?(@.x > 1)]",
            "$[1:2:3]",
            "$[]",
            "$.a]",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
        assert!(Path::parse(&format!("$.{}", "a".repeat(62))).is_err());
    }

    #[test]
    fn columns_of_rows() {
        let columns = |path: &str| Path::parse(path).unwrap().columns(3);
        assert_eq!(columns("$[1:]"), Ok(vec![1, 2]));
        assert_eq!(columns("$[0,-1]"), Ok(vec![0, 2]));
        assert_eq!(columns("$"), Ok(vec![0, 1, 2]));
        assert!(columns("$[3]").is_err());
        assert!(columns("$.name").is_err());
    }
}
