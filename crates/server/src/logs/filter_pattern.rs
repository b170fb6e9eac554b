//! Filter patterns over the text of an event: terms, phrases, `?optional`, `-excluded`, `%regular expressions%`, and `{ JSON }`.

use regex::{Regex, RegexBuilder};

use super::json_pattern::JsonPattern;

/// Largest compiled form of a regular expression.
const MOST_REGEX_BYTES: usize = 1 << 20;

/// A pattern, ready to be matched.
#[derive(Debug)]
pub enum FilterPattern {
    /// Conditions on the text.
    Terms {
        /// All must be there.
        required: Vec<Term>,
        /// One must be there, unless there are required ones.
        optional: Vec<Term>,
        /// None may be there.
        excluded: Vec<Term>,
    },
    /// A condition on the fields of a JSON text.
    Json(JsonPattern),
}

/// Something to find in a text.
#[derive(Debug)]
pub enum Term {
    /// These characters, in this case.
    Text(String),
    /// A match of this expression.
    Regex(Regex),
}

impl Term {
    fn is_in(&self, text: &str) -> bool {
        match self {
            Term::Text(wanted) => text.contains(wanted.as_str()),
            Term::Regex(regex) => regex.is_match(text),
        }
    }
}

impl FilterPattern {
    /// Reads a pattern; an empty one matches everything.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(pattern: &str) -> Result<FilterPattern, String> {
        let pattern = pattern.trim();
        if pattern.starts_with('{') {
            return JsonPattern::parse(pattern).map(FilterPattern::Json);
        }
        if pattern.starts_with('[') {
            return Err(
                "space-delimited patterns ([a, b, ...]) are not supported; use terms or a JSON pattern."
                    .into(),
            );
        }
        let (mut required, mut optional, mut excluded) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = pattern;
        while !rest.is_empty() {
            let (list, term) = match rest.chars().next() {
                Some('?') => (&mut optional, &rest[1..]),
                Some('-') => (&mut excluded, &rest[1..]),
                _ => (&mut required, rest),
            };
            let (term, after) = read_term(term)?;
            list.push(term);
            rest = after.trim_start();
        }
        Ok(FilterPattern::Terms { required, optional, excluded })
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            FilterPattern::Json(pattern) => pattern.matches(text),
            FilterPattern::Terms { required, optional, excluded } => {
                let wanted = match (required.is_empty(), optional.is_empty()) {
                    (true, false) => optional.iter().any(|term| term.is_in(text)),
                    _ => required.iter().all(|term| term.is_in(text)),
                };
                wanted && !excluded.iter().any(|term| term.is_in(text))
            }
        }
    }
}

/// Reads one term and returns what follows it.
fn read_term(rest: &str) -> Result<(Term, &str), String> {
    match rest.chars().next() {
        None => Err("a term is missing after ? or -.".into()),
        Some('"') => {
            let (text, after) = quoted(rest)?;
            ended(after)?;
            Ok((Term::Text(text), after))
        }
        Some('%') => {
            let (regex, after) = delimited_regex(rest)?;
            ended(after)?;
            Ok((Term::Regex(regex), after))
        }
        Some(first) if first.is_whitespace() => Err("a term is missing after ? or -.".into()),
        Some(_) => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            Ok((Term::Text(rest[..end].to_owned()), &rest[end..]))
        }
    }
}

fn ended(after: &str) -> Result<(), String> {
    match after.chars().next() {
        Some(next) if !next.is_whitespace() => Err(format!("a space is missing before {after}.")),
        _ => Ok(()),
    }
}

/// Reads a string in double quotes, in which `\"` and `\\` stand for `"` and `\`; returns what follows it.
pub(super) fn quoted(rest: &str) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((text, &rest[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err("a quotation mark is not closed.".into())
}

/// Reads `%regular expression%`; returns what follows it.
pub(super) fn delimited_regex(rest: &str) -> Result<(Regex, &str), String> {
    let inside = &rest[1..];
    let end = inside.find('%').ok_or("a regular expression is not closed with %.")?;
    let regex = RegexBuilder::new(&inside[..end])
        .size_limit(MOST_REGEX_BYTES)
        .build()
        .map_err(|_| format!("%{}% is not a regular expression.", &inside[..end]))?;
    Ok((regex, &inside[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::FilterPattern;

    fn matching<'a>(pattern: &str, texts: &[&'a str]) -> Vec<&'a str> {
        let pattern = FilterPattern::parse(pattern).unwrap();
        texts.iter().copied().filter(|text| pattern.matches(text)).collect()
    }

    const TEXTS: &[&str] = &[
        "[ERROR 400] bad request",
        "[ERROR 419] missing",
        "[WARN] slow",
        "Error lower",
        "say \"hi\" to 10.0.0.7",
    ];

    #[test]
    fn terms_are_all_required_and_case_sensitive() {
        assert_eq!(matching("", TEXTS), TEXTS);
        assert_eq!(matching("ERROR", TEXTS), TEXTS[..2]);
        assert_eq!(matching("ERROR  missing", TEXTS), TEXTS[1..2]);
        assert_eq!(matching("\"bad request\"", TEXTS), TEXTS[..1]);
        assert_eq!(matching(r#""say \"hi\"""#, TEXTS), TEXTS[4..]);
    }

    #[test]
    fn optional_excluded_and_regex_terms_combine() {
        assert_eq!(matching("?400 ?WARN", TEXTS), [TEXTS[0], TEXTS[2]]);
        assert_eq!(matching("ERROR -400", TEXTS), TEXTS[1..2]);
        assert_eq!(matching("-ERROR -\"hi\"", TEXTS), TEXTS[2..4]);
        assert_eq!(matching("%[0-9]+\\.[0-9]+%", TEXTS), TEXTS[4..]);
        assert_eq!(matching("?%^say% ?\"[WARN]\" -slow", TEXTS), TEXTS[4..]);
    }

    #[test]
    fn patterns_that_cannot_be_read_say_why() {
        for (pattern, words) in [
            ("\"open", "not closed"),
            ("%open", "not closed"),
            ("%(%", "not a regular expression"),
            ("a -", "missing after"),
            ("? b", "missing after"),
            ("\"a\"b", "space is missing"),
            ("[ip, user]", "space-delimited"),
            ("{ $.x }", "comparison"),
        ] {
            let problem = FilterPattern::parse(pattern).unwrap_err();
            assert!(problem.contains(words), "{pattern}: {problem}");
        }
    }

    #[test]
    fn json_patterns_are_recognised() {
        assert_eq!(
            matching("{ $.level = \"ERROR\" }", &["{\"level\":\"ERROR\"}", "level ERROR"]),
            ["{\"level\":\"ERROR\"}"]
        );
    }
}
