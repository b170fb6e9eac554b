//! Filter patterns over the fields of a JSON text, for example `{ ($.status = 5*) && ($.latency > 100) }`.

use regex::Regex;
use serde_json::Value;

use super::filter_pattern::{delimited_regex, quoted};

/// Deepest nesting of brackets.
const MOST_DEPTH: usize = 32;

/// A condition on the fields of a JSON text.
#[derive(Debug)]
pub struct JsonPattern {
    condition: Condition,
}

#[derive(Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Field(Vec<Step>, Test),
}

/// One step of a selector such as `$.users[0].name`.
#[derive(Debug)]
enum Step {
    Member(String),
    Element(usize),
    EachElement,
}

#[derive(Debug)]
enum Test {
    Equal(Wanted),
    NotEqual(Wanted),
    Less(f64),
    LessOrEqual(f64),
    Greater(f64),
    GreaterOrEqual(f64),
    IsNull,
    Is(bool),
    NotExists,
}

#[derive(Debug)]
enum Wanted {
    Number(f64),
    /// A text in which `*` stands for any characters.
    Text(String),
    Regex(Regex),
}

impl JsonPattern {
    /// Reads a pattern in braces.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(pattern: &str) -> Result<JsonPattern, String> {
        let inside = pattern.strip_prefix('{').and_then(|rest| rest.trim_end().strip_suffix('}'));
        let mut parser = Parser { rest: inside.ok_or("a JSON pattern must stand in { }.")?, depth: 0 };
        let condition = parser.any()?;
        match parser.peek() {
            None => Ok(JsonPattern { condition }),
            Some(_) => Err(format!("{} is not expected after a condition.", parser.rest)),
        }
    }

    /// Whether a text is JSON and its fields match.
    pub fn matches(&self, text: &str) -> bool {
        // Most texts are not JSON, and most of them show it at once.
        text.trim_start().starts_with(['{', '['])
            && serde_json::from_str(text).is_ok_and(|value: Value| self.condition.holds(&value))
    }
}

impl Condition {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Condition::All(conditions) => conditions.iter().all(|condition| condition.holds(value)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.holds(value)),
            Condition::Field(steps, test) => {
                let found = select(value, steps);
                match test {
                    Test::NotExists => found.is_empty(),
                    test => found.into_iter().any(|value| test.holds(value)),
                }
            }
        }
    }
}

fn select<'a>(value: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = match step {
            Step::Member(name) => found.into_iter().filter_map(|value| value.get(name)).collect(),
            Step::Element(index) => found.into_iter().filter_map(|value| value.get(*index)).collect(),
            Step::EachElement => found.into_iter().filter_map(Value::as_array).flatten().collect(),
        };
    }
    found
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        let number = |holds: &dyn Fn(f64) -> bool| value.as_f64().is_some_and(holds);
        match self {
            Test::Equal(wanted) => wanted.is(value),
            Test::NotEqual(wanted) => !wanted.is(value),
            Test::Less(bound) => number(&|value| value < *bound),
            Test::LessOrEqual(bound) => number(&|value| value <= *bound),
            Test::Greater(bound) => number(&|value| value > *bound),
            Test::GreaterOrEqual(bound) => number(&|value| value >= *bound),
            Test::IsNull => value.is_null(),
            Test::Is(wanted) => value.as_bool() == Some(*wanted),
            // Nothing was selected, or this would not be asked.
            Test::NotExists => false,
        }
    }
}

impl Wanted {
    fn is(&self, value: &Value) -> bool {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        };
        match self {
            Wanted::Number(number) => value.as_f64() == Some(*number),
            Wanted::Text(wanted) => fits(wanted, &text),
            Wanted::Regex(regex) => regex.is_match(&text),
        }
    }
}

/// Whether a text fits one in which `*` stands for any characters.
fn fits(wanted: &str, text: &str) -> bool {
    let mut parts = wanted.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Reads conditions from left to right; `rest` is what is still to be read.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a word whatever its case.
    fn take_word(&mut self, word: &str) -> bool {
        self.peek();
        let end = self.rest.find(|next: char| !next.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let found = self.rest[..end].eq_ignore_ascii_case(word);
        if found {
            self.rest = &self.rest[end..];
        }
        found
    }

    fn any(&mut self) -> Result<Condition, String> {
        let mut conditions = vec![self.all()?];
        while self.take("||") {
            conditions.push(self.all()?);
        }
        Ok(Condition::Any(conditions))
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut conditions = vec![self.one()?];
        while self.take("&&") {
            conditions.push(self.one()?);
        }
        Ok(Condition::All(conditions))
    }

    fn one(&mut self) -> Result<Condition, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MOST_DEPTH {
                return Err(format!("conditions are nested more than {MOST_DEPTH} deep."));
            }
            let condition = self.any()?;
            self.depth -= 1;
            return if self.take(")") { Ok(condition) } else { Err("a bracket is not closed.".into()) };
        }
        let steps = self.selector()?;
        Ok(Condition::Field(steps, self.test()?))
    }

    fn selector(&mut self) -> Result<Vec<Step>, String> {
        if !self.take("$") {
            return Err(format!("a selector such as $.field is missing before {:?}.", self.rest));
        }
        let mut steps = Vec::new();
        loop {
            // No spaces within a selector: what follows one is the comparison.
            if let Some(rest) = self.rest.strip_prefix('.') {
                let ends = |next: char| {
                    !(next.is_alphanumeric() || matches!(next, '_' | '-' | '@' | '#' | ':' | '/'))
                };
                let end = rest.find(ends).unwrap_or(rest.len());
                if end == 0 {
                    return Err(format!("the name of a field is missing before {rest:?}."));
                }
                steps.push(Step::Member(rest[..end].to_owned()));
                self.rest = &rest[end..];
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                let step = if rest.starts_with('"') {
                    let (name, after) = quoted(rest)?;
                    self.rest = after;
                    Step::Member(name)
                } else {
                    let end = rest.find(']').ok_or("a square bracket is not closed.")?;
                    self.rest = &rest[end..];
                    match rest[..end].trim() {
                        "*" => Step::EachElement,
                        index => Step::Element(
                            index
                                .parse()
                                .map_err(|_| format!("[{index}] must be a number, * or a quoted name."))?,
                        ),
                    }
                };
                steps.push(step);
                if !self.take("]") {
                    return Err("a square bracket is not closed.".into());
                }
            } else {
                return Ok(steps);
            }
        }
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.take_word("IS") {
            return match () {
                () if self.take_word("NULL") => Ok(Test::IsNull),
                () if self.take_word("TRUE") => Ok(Test::Is(true)),
                () if self.take_word("FALSE") => Ok(Test::Is(false)),
                () => Err("IS must be followed by NULL, TRUE or FALSE.".into()),
            };
        }
        if self.take_word("NOT") {
            return if self.take_word("EXISTS") {
                Ok(Test::NotExists)
            } else {
                Err("NOT must be followed by EXISTS.".into())
            };
        }
        // The longer sign first: `<=` starts with `<`.
        for (sign, test) in [
            ("<=", Test::LessOrEqual as fn(f64) -> Test),
            (">=", Test::GreaterOrEqual),
            ("<", Test::Less),
            (">", Test::Greater),
        ] {
            if self.take(sign) {
                return match self.wanted()? {
                    Wanted::Number(number) => Ok(test(number)),
                    _ => Err(format!("{sign} compares numbers only.")),
                };
            }
        }
        if self.take("!=") {
            return Ok(Test::NotEqual(self.wanted()?));
        }
        if self.take("=") {
            return Ok(Test::Equal(self.wanted()?));
        }
        Err("a comparison is missing: =, !=, <, <=, >, >=, IS NULL, IS TRUE, IS FALSE or NOT EXISTS.".into())
    }

    fn wanted(&mut self) -> Result<Wanted, String> {
        match self.peek() {
            Some('"') => {
                let (text, after) = quoted(self.rest)?;
                self.rest = after;
                Ok(Wanted::Text(text))
            }
            Some('%') => {
                let (regex, after) = delimited_regex(self.rest)?;
                self.rest = after;
                Ok(Wanted::Regex(regex))
            }
            _ => {
                let ends = |next: char| {
                    next.is_whitespace() || matches!(next, ')' | '(' | '&' | '|' | '"' | '}' | '=')
                };
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                let (word, after) = self.rest.split_at(end);
                self.rest = after;
                match word.parse::<f64>() {
                    _ if word.is_empty() => Err("a value is missing after a comparison.".into()),
                    Ok(number) if number.is_finite() => Ok(Wanted::Number(number)),
                    _ => Ok(Wanted::Text(word.to_owned())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"level":"ERROR","status":503,"user":{"name":"ann","admin":true,"team":null},
        "ips":["10.0.0.1","10.0.0.2"],"a.b":"dot","ratio":0.25}"#;

    fn holds(pattern: &str) -> bool {
        JsonPattern::parse(pattern).unwrap().matches(EVENT)
    }

    #[test]
    fn comparisons_hold_as_they_should() {
        for pattern in [
            "{ $.level = \"ERROR\" }",
            "{$.level=ERR*}",
            "{ $.level != \"INFO\" }",
            "{ $.status = 503 }",
            "{ $.status = 5* }",
            "{ $.status >= 500 && $.status < 600 }",
            "{ $.ratio <= 2.5e-1 }",
            "{ $.user.name = %^a.n$% }",
            "{ $.user.admin IS TRUE }",
            "{ $.user.team is null }",
            "{ $.user.age NOT EXISTS }",
            "{ $.ips[1] = \"*.2\" }",
            "{ $.ips[*] = \"10.0.0.1\" }",
            "{ $[\"a.b\"] = dot }",
            "{ ($.status = 1) || ($.level = \"E*R*R\" && $.ratio > 0) }",
        ] {
            assert!(holds(pattern), "{pattern}");
        }
        for pattern in [
            "{ $.level = \"error\" }",
            "{ $.level != \"ERROR\" }",
            "{ $.none != 1 }",
            "{ $.status > 503 }",
            "{ $.level > 1 }",
            "{ $.user.admin IS FALSE }",
            "{ $.level NOT EXISTS }",
            "{ $.ips[2] = \"*\" }",
            "{ $.user = \"*\" }",
            "{ $.status = 503 && $.level = INFO }",
            "{ $.level = \"ERROR*R\" }",
            "{ $.none IS NULL }",
        ] {
            assert!(!holds(pattern), "{pattern}");
        }
        let pattern = JsonPattern::parse("{ $.level = * }").unwrap();
        assert!(!pattern.matches("level ERROR") && !pattern.matches("{\"level\":"));
    }

    #[test]
    fn patterns_that_cannot_be_read_say_why() {
        let deep = format!("{{ {}$.a = 1{} }}", "(".repeat(40), ")".repeat(40));
        for (pattern, words) in [
            ("{ $.a = 1", "must stand in"),
            ("{ }", "selector"),
            ("{ a = 1 }", "selector"),
            ("{ $.a }", "comparison"),
            ("{ $.a < \"x\" }", "numbers only"),
            ("{ $.a = }", "value is missing"),
            ("{ ($.a = 1 }", "not closed"),
            ("{ $.a = 1 $.b = 2 }", "not expected"),
            ("{ $.a IS 5 }", "NULL"),
            ("{ $.a NOT 5 }", "EXISTS"),
            ("{ $.a[x] = 1 }", "must be a number"),
            ("{ $. = 1 }", "name of a field"),
            (deep.as_str(), "nested"),
        ] {
            let problem = JsonPattern::parse(pattern).unwrap_err();
            assert!(problem.contains(words), "{pattern}: {problem}");
        }
    }

    #[test]
    fn stars_stand_for_any_characters() {
        assert!(
            fits("*", "") && fits("a*", "a") && fits("*b*", "abc") && fits("a*b*c", "a-b-c") && fits("", "")
        );
        assert!(!fits("a*a", "a") && !fits("a*b", "ac") && !fits("", "x") && !fits("a*b*c", "acb"));
    }
}
