//! JSON: lists in lists, rows as objects, or an array for each input by its name. `null` and `NaN` are missing values.

use std::borrow::Cow;

use crate::engine::onnx::cells::{Array, Body, Cell};
use crate::engine::refusal::RequestError;

/// The deepest lists.
const MOST_DIMENSIONS: usize = 16;
/// Members that hold what is asked, in the forms of the prediction protocols.
const WRAPPERS: [&str; 2] = ["instances", "inputs"];

/// Reads a body.
pub(super) fn read(text: &str) -> Result<Body<'_>, RequestError> {
    let mut reader = Reader { text, at: 0 };
    let body = reader.body()?;
    match reader.next() {
        None => Ok(body),
        Some(_) => Err(reader.error("something follows the values")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// An array that is being read.
#[derive(Default)]
struct Draft<'a> {
    /// Lengths of the lists of each depth, known once the first one has ended.
    lengths: Vec<Option<usize>>,
    /// Depth of the values.
    depth: Option<usize>,
    cells: Vec<Cell<'a>>,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: &str) -> RequestError {
        RequestError::unreadable("json", &format!("{problem} (byte {})", self.at))
    }

    /// The next byte that is no space, which is not taken.
    fn next(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.next() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn body(&mut self) -> Result<Body<'a>, RequestError> {
        match self.next() {
            Some(b'{') => {
                let mut members = self.members()?;
                match members.as_slice() {
                    [(name, _)] if WRAPPERS.contains(&name.as_ref()) => Ok(members.remove(0).1),
                    _ => members
                        .into_iter()
                        .map(|(name, body)| Ok((name, self.plain(body)?)))
                        .collect::<Result<_, _>>()
                        .map(Body::Named),
                }
            }
            Some(b'[') => self.rows_or_array(),
            _ => Err(self.error("a list or an object was expected")),
        }
    }

    /// What is named cannot have names in it.
    fn plain(&self, body: Body<'a>) -> Result<Array<'a>, RequestError> {
        match body {
            Body::Unnamed(array) => Ok(array),
            Body::Named(_) => Err(self.error("an input is an object, not a list")),
        }
    }

    /// The members of an object, each of them a body.
    fn members(&mut self) -> Result<Vec<(Cow<'a, str>, Body<'a>)>, RequestError> {
        self.object(|reader, name| match reader.next() {
            Some(b'[') => reader.rows_or_array(),
            Some(b'{') if WRAPPERS.contains(&name) => {
                let members = reader.object(|reader, _| reader.array())?;
                Ok(Body::Named(members))
            }
            Some(b'{') => Err(reader.error("an input is an object, not a list")),
            _ => reader.array().map(Body::Unnamed),
        })
    }

    fn object<T>(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Result<T, RequestError>,
    ) -> Result<Vec<(Cow<'a, str>, T)>, RequestError> {
        self.at += 1;
        let mut members: Vec<(Cow<'a, str>, T)> = Vec::new();
        if self.take(b'}') {
            return Ok(members);
        }
        loop {
            if self.next() != Some(b'"') {
                return Err(self.error("a name in quotes was expected"));
            }
            let name = self.string()?;
            if members.iter().any(|(known, _)| *known == name) {
                return Err(self.error("a name comes twice"));
            }
            if !self.take(b':') {
                return Err(self.error("a colon was expected"));
            }
            let value = value(self, &name)?;
            members.push((name, value));
            if self.take(b'}') {
                return Ok(members);
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of the object was expected"));
            }
        }
    }

    /// A list of rows that are objects, or else an array.
    fn rows_or_array(&mut self) -> Result<Body<'a>, RequestError> {
        let start = self.at;
        if self.take(b'[') && self.next() == Some(b'{') {
            return self.rows().map(Body::Named);
        }
        self.at = start;
        self.array().map(Body::Unnamed)
    }

    /// Rows that are objects, whose opening bracket has been read.
    fn rows(&mut self) -> Result<Vec<(Cow<'a, str>, Array<'a>)>, RequestError> {
        let mut columns: Vec<(Cow<'a, str>, Array<'a>)> = Vec::new();
        let mut rows = 0_usize;
        loop {
            if self.next() != Some(b'{') {
                return Err(self.error("a row is not an object, as the first one is"));
            }
            let row = self.object(|reader, _| reader.array())?;
            if rows == 0 {
                columns = row.iter().map(|(name, _)| (name.clone(), Array::default())).collect();
            }
            if row.len() != columns.len() {
                return Err(self.error("a row has other names than the first one"));
            }
            for (name, value) in row {
                let known = columns.iter_mut().find(|(known, _)| *known == name);
                let Some((_, column)) = known else {
                    return Err(self.error(&format!("a row has {name:?}, which the first one has not")));
                };
                if rows == 0 {
                    column.shape = value.shape;
                } else if column.shape != value.shape {
                    return Err(self.error(&format!("{name:?} has other dimensions than in the first row")));
                }
                column.cells.extend(value.cells);
            }
            rows += 1;
            if self.take(b']') {
                break;
            }
            if !self.take(b',') {
                return Err(self.error("a comma or the end of the list was expected"));
            }
        }
        for (_, column) in &mut columns {
            column.shape.insert(0, rows);
        }
        Ok(columns)
    }

    fn array(&mut self) -> Result<Array<'a>, RequestError> {
        let mut draft = Draft::default();
        self.fill(&mut draft, 0)?;
        let lengths = draft.lengths.into_iter().map(|length| length.unwrap_or(0)).collect();
        Ok(Array { shape: lengths, cells: draft.cells })
    }

    /// Reads a value, or a list of them, at a depth.
    fn fill(&mut self, draft: &mut Draft<'a>, depth: usize) -> Result<(), RequestError> {
        if self.next() != Some(b'[') {
            if *draft.depth.get_or_insert(depth) != depth {
                return Err(self.error("lists and values stand side by side"));
            }
            let cell = self.cell()?;
            draft.cells.push(cell);
            return Ok(());
        }
        if depth == MOST_DIMENSIONS || draft.depth.is_some_and(|values| values <= depth) {
            let problem = if depth == MOST_DIMENSIONS {
                "lists are too deep"
            } else {
                "lists and values stand side by side"
            };
            return Err(self.error(problem));
        }
        if draft.lengths.len() == depth {
            draft.lengths.push(None);
        }
        self.at += 1;
        let mut length = 0;
        if !self.take(b']') {
            loop {
                self.fill(draft, depth + 1)?;
                length += 1;
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.error("a comma or the end of a list was expected"));
                }
            }
        }
        match draft.lengths[depth] {
            None => draft.lengths[depth] = Some(length),
            Some(first) if first != length => {
                return Err(
                    self.error(&format!("a list has {length} values, the first one like it has {first}"))
                );
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn cell(&mut self) -> Result<Cell<'a>, RequestError> {
        if self.next() == Some(b'"') {
            return self.string().map(Cell::Text);
        }
        let rest = &self.text[self.at..];
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':') || byte.is_ascii_whitespace();
        let length = rest.as_bytes().iter().position(ends).unwrap_or(rest.len());
        let word = &rest[..length];
        let cell = match word {
            "null" | "NaN" => Cell::Missing,
            "true" => Cell::Integer(1),
            "false" => Cell::Integer(0),
            "Infinity" => Cell::Number(f64::INFINITY),
            "-Infinity" => Cell::Number(f64::NEG_INFINITY),
            _ => number(word).ok_or_else(|| self.error("a value was expected"))?,
        };
        self.at += length;
        Ok(cell)
    }

    /// The string whose opening quote comes next.
    fn string(&mut self) -> Result<Cow<'a, str>, RequestError> {
        let inner = &self.text[self.at + 1..];
        let bytes = inner.as_bytes();
        let mut end = 0;
        let mut has_escape = false;
        loop {
            match bytes.get(end) {
                None => return Err(self.error("a text does not end")),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escape = true;
                    end += 2;
                }
                Some(_) => end += 1,
            }
        }
        let text = if has_escape {
            let quoted = &self.text[self.at..self.at + end + 2];
            Cow::Owned(
                serde_json::from_str(quoted)
                    .map_err(|_| self.error("a text has an escape that JSON has not"))?,
            )
        } else {
            Cow::Borrowed(&inner[..end])
        };
        self.at += end + 2;
        Ok(text)
    }
}

/// Only what JSON has: the standard library also reads words, and numbers that begin with a plus.
fn number(word: &str) -> Option<Cell<'static>> {
    if !word.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    if let Ok(integer) = word.parse() {
        return Some(Cell::Integer(integer));
    }
    let is_number = word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    word.parse().ok().filter(|_| is_number).map(Cell::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unnamed(text: &str) -> (Vec<usize>, String) {
        match read(text).expect("the body can be read") {
            Body::Unnamed(array) => {
                (array.shape, format!("{:?}", array.cells.iter().map(Cell::text).collect::<Vec<_>>()))
            }
            Body::Named(_) => panic!("{text} has names"),
        }
    }

    fn named(text: &str) -> Vec<(String, Vec<usize>, Vec<String>)> {
        match read(text).expect("the body can be read") {
            Body::Named(arrays) => arrays
                .into_iter()
                .map(|(name, array)| {
                    (name.into_owned(), array.shape, array.cells.iter().map(Cell::text).collect())
                })
                .collect(),
            Body::Unnamed(_) => panic!("{text} has no names"),
        }
    }

    #[test]
    fn lists_have_any_number_of_dimensions() {
        assert_eq!(
            unnamed("[[1, 2.5], [null, \"a\\n\"]]"),
            (vec![2, 2], r#"["1", "2.5", "", "a\n"]"#.into())
        );
        assert_eq!(unnamed(" [1,-2e3,true] "), (vec![3], r#"["1", "-2000", "1"]"#.into()));
        assert_eq!(unnamed("[[[1],[2]],[[3],[4]]]").0, [2, 2, 1]);
        assert_eq!(unnamed("{\"instances\": [[1,2]]}").0, [1, 2]);
        assert_eq!(unnamed("[]").0, [0]);
        assert_eq!(unnamed("[[],[]]").0, [2, 0]);
        assert_eq!(unnamed("[NaN, Infinity]"), (vec![2], r#"["", "inf"]"#.into()));
        assert_eq!(unnamed(&format!("[{}]", i64::MAX)).1, format!("[\"{}\"]", i64::MAX));
    }

    #[test]
    fn arrays_come_by_name_by_column_or_by_row() {
        let expected = vec![
            ("age".to_owned(), vec![2], vec!["1".to_owned(), "2".to_owned()]),
            ("color".to_owned(), vec![2], vec!["red".to_owned(), "b,\"".to_owned()]),
        ];
        for text in [
            r#"{"age": [1, 2], "color": ["red", "b,\""]}"#,
            r#"{"inputs": {"age": [1, 2], "color": ["red", "b,\""]}}"#,
            r#"[{"age": 1, "color": "red"}, {"color": "b,\"", "age": 2}]"#,
            r#"{"instances": [{"age": 1, "color": "red"}, {"age": 2, "color": "b,\""}]}"#,
        ] {
            assert_eq!(named(text), expected, "{text}");
        }
        assert_eq!(named(r#"[{"x": [1, 2]}, {"x": [3, 4]}]"#)[0].1, [2, 2]);
        assert_eq!(named(r#"{"x": 1, "y": [[2]]}"#)[0].1, Vec::<usize>::new());
    }

    #[test]
    fn broken_bodies_are_refused() {
        for broken in [
            "5",
            "\"a\"",
            "[1,[2]]",
            "[[1],2]",
            "[[1,2],[3]]",
            "[1,,2]",
            "[1 2]",
            "[1]x",
            "[01x]",
            "[+1]",
            "[inf]",
            "[\"a]",
            "[\"\\q\"]",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a: 1}",
            "{\"a\": [1], \"a\": [2]}",
            "[{\"a\": 1}, 2]",
            "[{\"a\": 1}, {\"b\": 1}]",
            "[{\"a\": 1}, {\"a\": 1, \"b\": 2}]",
            "[{\"a\": 1}, {\"a\": [1]}]",
            "{\"a\": {\"b\": 1}}",
            "[[{\"a\": 1}]]",
            "[\"\\",
            "[",
        ] {
            assert_eq!(read(broken).expect_err(broken).status, 415, "{broken}");
        }
        assert!(read(&"[".repeat(1_000_000)).is_err());
    }
}
