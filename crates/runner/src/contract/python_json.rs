//! JSON as Python reads and writes it: user code compares these texts, so that every digit and escape must be Python's.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Deepest nesting that is read; deeper text counts as no JSON.
const MAX_DEPTH: usize = 100;

/// A value as Python's `json` module sees it: integers of any size, `NaN` and infinities.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `None`.
    Null,
    /// `True` or `False`.
    Bool(bool),
    /// An integer in decimal digits.
    Integer(String),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// A dictionary; kept sorted, since all that is written of it is.
    Dictionary(BTreeMap<String, Json>),
}

impl Json {
    /// JSON where it is JSON, else the text itself.
    pub fn decode(text: &str) -> Json {
        let mut reader = Reader { rest: text };
        reader.whole().unwrap_or_else(|| Json::Text(text.to_owned()))
    }

    /// A dictionary of the pairs.
    pub fn dictionary<N: Into<String>>(pairs: impl IntoIterator<Item = (N, Json)>) -> Json {
        Json::Dictionary(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// A list of strings.
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Json {
        Json::List(texts.into_iter().map(|text| Json::Text(text.into())).collect())
    }

    /// What `str(value)` gives in Python.
    pub fn display(&self) -> String {
        match self {
            Json::Text(text) => text.clone(),
            other => other.repr(),
        }
    }

    /// What `repr(value)` gives in Python.
    fn repr(&self) -> String {
        match self {
            Json::Null => "None".into(),
            Json::Bool(true) => "True".into(),
            Json::Bool(false) => "False".into(),
            Json::Integer(digits) => digits.clone(),
            Json::Float(float) => float_text(*float, "inf", "nan"),
            Json::Text(text) => text_repr(text),
            Json::List(elements) => {
                let shown: Vec<String> = elements.iter().map(Json::repr).collect();
                format!("[{}]", shown.join(", "))
            }
            Json::Dictionary(members) => {
                let shown: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{}: {}", text_repr(name), value.repr()))
                    .collect();
                format!("{{{}}}", shown.join(", "))
            }
        }
    }

    /// What `json.dumps(value, sort_keys=True, separators=(",", ":"))` gives in Python: ASCII, compact.
    pub fn dumps(&self) -> String {
        match self {
            Json::Null => "null".into(),
            Json::Bool(value) => value.to_string(),
            Json::Integer(digits) => digits.clone(),
            Json::Float(float) => float_text(*float, "Infinity", "NaN"),
            Json::Text(text) => quoted(text),
            Json::List(elements) => {
                let shown: Vec<String> = elements.iter().map(Json::dumps).collect();
                format!("[{}]", shown.join(","))
            }
            Json::Dictionary(members) => {
                let shown: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", quoted(name), value.dumps()))
                    .collect();
                format!("{{{}}}", shown.join(","))
            }
        }
    }

    /// Whether Python counts the value as true.
    pub fn is_truthy(&self) -> bool {
        match self {
            Json::Null => false,
            Json::Bool(value) => *value,
            Json::Integer(digits) => digits.bytes().any(|digit| (b'1'..=b'9').contains(&digit)),
            Json::Float(float) => *float != 0.0,
            Json::Text(text) => !text.is_empty(),
            Json::List(elements) => !elements.is_empty(),
            Json::Dictionary(members) => !members.is_empty(),
        }
    }
}

/// Python switches to an exponent below 1e-4 and from 1e16 on, with at least two digits.
fn float_text(float: f64, infinity: &str, not_a_number: &str) -> String {
    if float.is_nan() {
        return not_a_number.to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { infinity.to_owned() } else { format!("-{infinity}") };
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let shown = format!("{float:e}");
        let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let shown = float.to_string();
    if shown.contains('.') { shown } else { format!("{shown}.0") }
}

fn text_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            _ if character == quote => {
                shown.push('\\');
                shown.push(quote);
            }
            _ if character.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => shown.push(character),
        }
    }
    shown.push(quote);
    shown
}

fn quoted(text: &str) -> String {
    let mut shown = String::from('"');
    for character in text.chars() {
        match character {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\u{8}' => shown.push_str("\\b"),
            '\u{c}' => shown.push_str("\\f"),
            ' '..='~' => shown.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(shown, "\\u{unit:04x}").expect("a String takes all that is written");
                }
            }
        }
    }
    shown.push('"');
    shown
}

/// Reads JSON as Python's `json.loads` does.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn whole(&mut self) -> Option<Json> {
        let value = self.value(0)?;
        self.skip_space();
        self.rest.is_empty().then_some(value)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn takes(&mut self, token: &str) -> bool {
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        const WORDS: [(&str, Json); 6] = [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        if self.takes("[") {
            return self.list(depth);
        }
        if self.takes("{") {
            return self.members(depth);
        }
        if self.takes("\"") {
            return self.text().map(Json::Text);
        }
        for (word, value) in WORDS {
            if self.takes(word) {
                return Some(value);
            }
        }
        self.number()
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        let mut elements = Vec::new();
        self.skip_space();
        if self.takes("]") {
            return Some(Json::List(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            if self.takes("]") {
                return Some(Json::List(elements));
            }
            self.takes(",").then_some(())?;
        }
    }

    fn members(&mut self, depth: usize) -> Option<Json> {
        let mut members = BTreeMap::new();
        self.skip_space();
        if self.takes("}") {
            return Some(Json::Dictionary(members));
        }
        loop {
            self.skip_space();
            self.takes("\"").then_some(())?;
            let name = self.text()?;
            self.skip_space();
            self.takes(":").then_some(())?;
            members.insert(name, self.value(depth + 1)?);
            self.skip_space();
            if self.takes("}") {
                return Some(Json::Dictionary(members));
            }
            self.takes(",").then_some(())?;
        }
    }

    /// The rest of a string whose opening quote has been taken.
    fn text(&mut self) -> Option<String> {
        let mut units = String::new();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            let plain = &self.rest[..end];
            if plain.chars().any(|character| character < ' ') {
                return None;
            }
            units.push_str(plain);
            self.rest = &self.rest[end..];
            if self.takes("\"") {
                return Some(units);
            }
            self.takes("\\");
            let escape = self.rest.chars().next()?;
            self.rest = &self.rest[escape.len_utf8()..];
            units.push(match escape {
                '"' | '\\' | '/' => escape,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => self.escaped_character()?,
                _ => return None,
            });
        }
    }

    /// The character of `\uXXXX`, or of a pair of them. Half a pair is no character.
    fn escaped_character(&mut self) -> Option<char> {
        let first = self.code_unit()?;
        let second = if (0xD800..0xDC00).contains(&first) && self.takes("\\u") {
            Some(self.code_unit()?)
        } else {
            None
        };
        char::decode_utf16([first].into_iter().chain(second)).next()?.ok()
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits =
            self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.rest = &self.rest[4..];
        u16::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Option<Json> {
        let is_part = |character: char| character.is_ascii_digit() || "+-.eE".contains(character);
        let end = self.rest.find(|character| !is_part(character)).unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        is_number(text).then_some(())?;
        self.rest = &self.rest[end..];
        if text.contains(['.', 'e', 'E']) {
            return text.parse().ok().map(Json::Float);
        }
        Some(Json::Integer(if text == "-0" { "0".into() } else { text.to_owned() }))
    }
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (integer, fraction) = match mantissa.split_once('.') {
        Some((integer, fraction)) => (integer, Some(fraction)),
        None => (mantissa, None),
    };
    digits(integer)
        && (integer == "0" || !integer.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_python_writes_them() {
        let text = |json: &str| Json::decode(json).display();
        assert_eq!(text("\"quoted\""), "quoted");
        assert_eq!(text("plain text"), "plain text");
        assert_eq!(text("0.001"), "0.001");
        assert_eq!(text("1e-05"), "1e-05");
        assert_eq!(text("1e300"), "1e+300");
        assert_eq!(text("1e16"), "1e+16");
        assert_eq!(text("2.0"), "2.0");
        assert_eq!(text("10"), "10");
        assert_eq!(text("007"), "007");
        assert_eq!(text("123456789012345678901234567890"), "123456789012345678901234567890");
        assert_eq!(text("true"), "True");
        assert_eq!(text("NaN"), "nan");
        assert_eq!(text("-Infinity"), "-inf");
        assert_eq!(text("1e400"), "inf");
        for odd in ["1.", ".5", "+1", "01", "1e", "--1", "1.e5", "1_000", "0x10", "-"] {
            assert_eq!(Json::decode(odd), Json::Text(odd.to_owned()));
        }
        assert_eq!(text("[1, \"a\", null]"), "[1, 'a', None]");
        assert_eq!(text("{\"k\": \"it's\"}"), "{'k': \"it's\"}");
        assert_eq!(text("[1,]"), "[1,]");
        assert_eq!(text("1 2"), "1 2");
        assert_eq!(text("'a'"), "'a'");
    }

    #[test]
    fn written_json_is_ascii_sorted_and_compact() {
        let written = |json: &str| Json::decode(json).dumps();
        assert_eq!(written("{\"b\": [1, 2.50], \"a\": null}"), "{\"a\":null,\"b\":[1,2.5]}");
        assert_eq!(written("\"é😀\\u0007\""), "\"\\u00e9\\ud83d\\ude00\\u0007\"");
        assert_eq!(written("\"\\ud83d\\ude00\""), "\"\\ud83d\\ude00\"");
        assert_eq!(written("[NaN, Infinity, 1E-7]"), "[NaN,Infinity,1e-07]");
    }

    #[test]
    fn deep_nesting_is_text() {
        let deep = "[".repeat(100_000);
        assert_eq!(Json::decode(&deep), Json::Text(deep.clone()));
    }
}
