//! Event patterns: which events a rule wants.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Deepest nesting that is read.
const MOST_DEPTH: usize = 32;
/// Most combinations that `$or` may ask for.
const MOST_ALTERNATIVES: usize = 1000;

/// A pattern, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    fields: Vec<(String, Wanted)>,
    /// Each list asks for at least one of its patterns.
    either: Vec<Vec<Pattern>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Inside(Pattern),
    AnyOf(Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
enum Filter {
    Equal(Value),
    Text(TextTest),
    AnythingBut(Vec<Value>),
    AnythingButText(Vec<TextTest>),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
    Cidr(IpAddr, u8),
}

#[derive(Debug, Clone, PartialEq)]
enum TextTest {
    Prefix(String),
    Suffix(String),
    PrefixIgnoringCase(String),
    SuffixIgnoringCase(String),
    EqualIgnoringCase(String),
    Wildcard(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// Why a pattern is none; a text for people.
pub type Reason = String;

impl Pattern {
    /// Reads a pattern from its JSON text.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(text: &str) -> Result<Pattern, Reason> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
        let Value::Object(members) = value else { return Err("Filter is not an object".into()) };
        let pattern = Pattern::read(&members, 0)?;
        if pattern.alternatives() > MOST_ALTERNATIVES {
            return Err(format!("$or asks for more than {MOST_ALTERNATIVES} combinations"));
        }
        Ok(pattern)
    }

    fn read(members: &Map<String, Value>, depth: usize) -> Result<Pattern, Reason> {
        if members.is_empty() {
            return Err("Empty objects are not allowed".into());
        }
        if depth > MOST_DEPTH {
            return Err(format!("it is nested more than {MOST_DEPTH} deep"));
        }
        let mut pattern = Pattern { fields: Vec::new(), either: Vec::new() };
        for (name, value) in members {
            if let ("$or", Some(alternatives)) = (name.as_str(), alternatives_of(value)) {
                let read = alternatives.into_iter().map(|members| Pattern::read(members, depth + 1));
                pattern.either.push(read.collect::<Result<_, _>>()?);
                continue;
            }
            let wanted = match value {
                Value::Object(members) => Wanted::Inside(Pattern::read(members, depth + 1)?),
                Value::Array(filters) if filters.is_empty() => {
                    return Err(format!("Empty arrays are not allowed: {name}"));
                }
                Value::Array(filters) => {
                    let read = filters
                        .iter()
                        .map(|filter| Filter::read(filter).map_err(|why| format!("{name}: {why}")));
                    Wanted::AnyOf(read.collect::<Result<_, _>>()?)
                }
                _ => return Err(format!("{name:?} must be an object or an array")),
            };
            pattern.fields.push((name.clone(), wanted));
        }
        Ok(pattern)
    }

    fn alternatives(&self) -> usize {
        let own =
            self.either.iter().map(|patterns| patterns.iter().map(Pattern::alternatives).sum::<usize>());
        let inner = self.fields.iter().map(|(_, wanted)| match wanted {
            Wanted::Inside(pattern) => pattern.alternatives(),
            Wanted::AnyOf(_) => 1,
        });
        own.chain(inner).fold(1, |all: usize, one| all.saturating_mul(one.max(1)))
    }

    /// Whether an event, or a part of one, is wanted.
    pub fn matches(&self, event: &Value) -> bool {
        let own = self.fields.iter().all(|(name, wanted)| {
            let value = event.get(name);
            match wanted {
                Wanted::Inside(pattern) => match value {
                    Some(Value::Array(elements)) => elements.iter().any(|element| pattern.matches(element)),
                    Some(value) => pattern.matches(value),
                    None => pattern.matches(&Value::Null),
                },
                Wanted::AnyOf(filters) => filters.iter().any(|filter| filter.accepts(value)),
            }
        });
        own && self.either.iter().all(|patterns| patterns.iter().any(|pattern| pattern.matches(event)))
    }
}

/// The patterns of a `$or`; without two objects in a list, it is a field like any other.
fn alternatives_of(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    let elements = value.as_array().filter(|elements| elements.len() > 1)?;
    elements.iter().map(Value::as_object).collect()
}

impl Filter {
    fn read(value: &Value) -> Result<Filter, Reason> {
        let Value::Object(members) = value else {
            return if value.is_array() {
                Err("arrays cannot be nested".into())
            } else {
                Ok(Filter::Equal(value.clone()))
            };
        };
        let mut entries = members.iter();
        let (Some((word, value)), None) = (entries.next(), entries.next()) else {
            return Err("Only one key allowed in match expression".into());
        };
        match word.as_str() {
            "anything-but" => Filter::anything_but(value),
            "exists" => value
                .as_bool()
                .map(Filter::Exists)
                .ok_or_else(|| "exists match pattern must be either true or false.".into()),
            "numeric" => Filter::numeric(value),
            "cidr" => Filter::cidr(value),
            word => TextTest::read(word, value).map(Filter::Text),
        }
    }

    fn anything_but(value: &Value) -> Result<Filter, Reason> {
        match value {
            Value::Object(members) => {
                let mut entries = members.iter();
                let (Some((word, value)), None) = (entries.next(), entries.next()) else {
                    return Err("Only one key allowed in match expression".into());
                };
                let values = match value {
                    Value::Array(values) if !values.is_empty() => values.clone(),
                    value => vec![value.clone()],
                };
                let tests =
                    values.iter().map(|value| TextTest::read(word, value)).collect::<Result<_, _>>()?;
                Ok(Filter::AnythingButText(tests))
            }
            Value::Array(values)
                if values.iter().all(|one| one.is_string() || one.is_number()) && !values.is_empty() =>
            {
                Ok(Filter::AnythingBut(values.clone()))
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {
                Ok(Filter::AnythingBut(vec![value.clone()]))
            }
            Value::Array(_) => Err("Inside anything-but array, only texts and numbers are allowed".into()),
        }
    }

    fn numeric(value: &Value) -> Result<Filter, Reason> {
        let parts = value.as_array().filter(|parts| matches!(parts.len(), 2 | 4));
        let parts = parts.ok_or("Value of numeric must be an array of comparisons and numbers.")?;
        let read = parts.chunks(2).map(|pair| {
            let comparison = match pair[0].as_str() {
                Some("<") => Comparison::Less,
                Some("<=") => Comparison::AtMost,
                Some("=") => Comparison::Equal,
                Some(">=") => Comparison::AtLeast,
                Some(">") => Comparison::More,
                _ => return Err(format!("Unrecognized numeric range operator: {}", pair[0])),
            };
            let number = pair[1].as_f64().ok_or_else(|| format!("Value of {} must be numeric", pair[0]))?;
            Ok((comparison, number))
        });
        Ok(Filter::Numeric(read.collect::<Result<_, _>>()?))
    }

    fn cidr(value: &Value) -> Result<Filter, Reason> {
        let text = value.as_str().unwrap_or_default();
        let (address, bits) = text.split_once('/').unwrap_or((text, "255"));
        let address: IpAddr = address.parse().map_err(|_| format!("Malformed CIDR: {value}"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().map_err(|_| format!("Malformed CIDR: {value}"))?;
        Ok(Filter::Cidr(address, bits.min(most)))
    }

    fn accepts(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Filter::Exists(wanted), value) => *wanted == value.is_some_and(|value| !value.is_object()),
            (_, None | Some(Value::Object(_))) => false,
            (_, Some(Value::Array(elements))) => elements.iter().any(|element| self.accepts_one(element)),
            (_, Some(value)) => self.accepts_one(value),
        }
    }

    fn accepts_one(&self, value: &Value) -> bool {
        match self {
            Filter::Equal(wanted) => same(wanted, value),
            Filter::Text(test) => value.as_str().is_some_and(|text| test.accepts(text)),
            Filter::AnythingBut(unwanted) => !unwanted.iter().any(|one| same(one, value)),
            Filter::AnythingButText(tests) => {
                value.as_str().is_some_and(|text| !tests.iter().any(|test| test.accepts(text)))
            }
            Filter::Numeric(bounds) => value.as_f64().is_some_and(|number| {
                bounds.iter().all(|(comparison, bound)| match comparison {
                    Comparison::Less => number < *bound,
                    Comparison::AtMost => number <= *bound,
                    Comparison::Equal => number == *bound,
                    Comparison::AtLeast => number >= *bound,
                    Comparison::More => number > *bound,
                })
            }),
            Filter::Cidr(network, bits) => value
                .as_str()
                .and_then(|text| text.parse().ok())
                .is_some_and(|address| in_network(address, *network, *bits)),
            Filter::Exists(_) => false,
        }
    }
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

impl TextTest {
    fn read(word: &str, value: &Value) -> Result<TextTest, Reason> {
        let ignoring = value.get("equals-ignore-case").and_then(Value::as_str).map(str::to_lowercase);
        let text = value.as_str().map(str::to_owned);
        let wrong = || format!("{word} match pattern must be a string");
        match (word, text, ignoring) {
            ("prefix", Some(text), _) => Ok(TextTest::Prefix(text)),
            ("suffix", Some(text), _) => Ok(TextTest::Suffix(text)),
            ("prefix", None, Some(text)) => Ok(TextTest::PrefixIgnoringCase(text)),
            ("suffix", None, Some(text)) => Ok(TextTest::SuffixIgnoringCase(text)),
            ("equals-ignore-case", Some(text), _) => Ok(TextTest::EqualIgnoringCase(text.to_lowercase())),
            ("wildcard", Some(text), _) => wildcard(&text).map(TextTest::Wildcard),
            ("prefix" | "suffix" | "equals-ignore-case" | "wildcard", None, _) => Err(wrong()),
            _ => Err(format!("Unrecognized match type {word}")),
        }
    }

    fn accepts(&self, text: &str) -> bool {
        match self {
            TextTest::Prefix(prefix) => text.starts_with(prefix.as_str()),
            TextTest::Suffix(suffix) => text.ends_with(suffix.as_str()),
            TextTest::PrefixIgnoringCase(prefix) => text.to_lowercase().starts_with(prefix.as_str()),
            TextTest::SuffixIgnoringCase(suffix) => text.to_lowercase().ends_with(suffix.as_str()),
            TextTest::EqualIgnoringCase(wanted) => text.to_lowercase() == *wanted,
            TextTest::Wildcard(parts) => fits(parts, text),
        }
    }
}

/// The texts between the stars; a backslash takes the meaning from a star or a backslash.
fn wildcard(text: &str) -> Result<Vec<String>, Reason> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\\', Some(next @ ('*' | '\\'))) => {
                let next = *next;
                letters.next();
                parts.last_mut().into_iter().for_each(|part| part.push(next));
            }
            ('\\', _) => return Err("Invalid escape character in wildcard".into()),
            ('*', Some('*')) => return Err("Consecutive wildcard characters are not allowed".into()),
            ('*', _) => parts.push(String::new()),
            (letter, _) => parts.last_mut().into_iter().for_each(|part| part.push(letter)),
        }
    }
    Ok(parts)
}

fn fits(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.first().is_some_and(|whole| whole == text) };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "tests make their values in place")]
    fn matches(pattern: Value, event: Value) -> bool {
        Pattern::parse(&pattern.to_string()).unwrap().matches(&event)
    }

    #[test]
    fn all_fields_must_fit_and_any_value_will_do() {
        let event = json!({"source": "aws.sagemaker", "detail": {"State": "Completed", "Tags": ["a", "b"], "Size": 3}});
        assert!(matches(json!({"source": ["aws.s3", "aws.sagemaker"]}), event.clone()));
        assert!(matches(json!({"detail": {"State": ["Completed"], "Tags": ["b"]}}), event.clone()));
        assert!(!matches(json!({"detail": {"State": ["Failed"]}}), event.clone()));
        assert!(!matches(json!({"detail": {"Other": ["x"]}}), event.clone()));
        assert!(matches(json!({"detail": {"Size": [3.0]}}), event.clone()));
        assert!(matches(
            json!({"$or": [{"source": ["x"]}, {"detail": {"Size": [{"numeric": [">", 2]}]}}]}),
            event.clone()
        ));
        assert!(!matches(json!({"$or": [{"source": ["x"]}, {"source": ["y"]}]}), event));
        assert!(matches(json!({"list": {"a": [1]}}), json!({"list": [{"a": 2}, {"a": 1}]})));
    }

    #[test]
    fn every_kind_of_filter() {
        let fits = |filter: Value, value: Value| matches(json!({"f": [filter]}), json!({"f": value}));
        assert!(fits(json!({"prefix": "ab"}), json!("abc")) && !fits(json!({"prefix": "b"}), json!("abc")));
        assert!(
            fits(json!({"suffix": ".csv"}), json!("a.csv"))
                && !fits(json!({"suffix": ".csv"}), json!("a.txt"))
        );
        assert!(fits(json!({"prefix": {"equals-ignore-case": "AB"}}), json!("abc")));
        assert!(fits(json!({"equals-ignore-case": "ABC"}), json!("aBc")));
        assert!(
            fits(json!({"anything-but": ["a", "b"]}), json!("c"))
                && !fits(json!({"anything-but": "a"}), json!("a"))
        );
        assert!(
            fits(json!({"anything-but": {"prefix": "x"}}), json!("a"))
                && !fits(json!({"anything-but": {"prefix": ["x", "a"]}}), json!("a"))
        );
        assert!(
            fits(json!({"numeric": [">", 0, "<=", 5]}), json!(5))
                && !fits(json!({"numeric": [">", 0, "<", 5]}), json!(5))
        );
        assert!(
            fits(json!({"wildcard": "a*c*e"}), json!("abcde"))
                && !fits(json!({"wildcard": "a*c"}), json!("abcd"))
        );
        assert!(
            fits(json!({"wildcard": "a\\*c"}), json!("a*c"))
                && !fits(json!({"wildcard": "a\\*c"}), json!("abc"))
        );
        assert!(!fits(json!({"wildcard": "ab*ba"}), json!("aba")), "the star is no overlap");
        assert!(
            fits(json!({"cidr": "10.0.0.0/24"}), json!("10.0.0.255"))
                && !fits(json!({"cidr": "10.0.0.0/24"}), json!("10.0.1.0"))
        );
        assert!(fits(json!({"exists": true}), Value::Null) && !fits(json!({"exists": false}), json!(1)));
        assert!(matches(json!({"g": [{"exists": false}]}), json!({"f": 1})));
        assert!(matches(json!({"d": {"g": [{"exists": false}]}}), json!({"f": 1})));
        assert!(!matches(json!({"g": [{"anything-but": "a"}]}), json!({"f": 1})));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("{", "JSON"),
            ("[]", "not an object"),
            ("{}", "Empty objects"),
            (r#"{"a": "b"}"#, "must be an object or an array"),
            (r#"{"a": []}"#, "Empty arrays"),
            (r#"{"a": [{"like": "b"}]}"#, "Unrecognized match type like"),
            (r#"{"a": [{"prefix": 1}]}"#, "must be a string"),
            (r#"{"a": [{"numeric": ["~", 1]}]}"#, "Unrecognized numeric range operator"),
            (r#"{"a": [{"wildcard": "**"}]}"#, "Consecutive"),
        ] {
            let reason = Pattern::parse(text).unwrap_err();
            assert!(reason.contains(why), "{text}: {reason}");
        }
    }
}
