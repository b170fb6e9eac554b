//! Compares two answers: numbers of JSON and CSV within a tolerance, everything else byte by byte; and says how far apart they are. Replays
//! and shadow variants ask here.

use serde_json::Value;

use super::format::media_type;
use super::traffic::Body;

/// Most characters that are shown of a value.
const SHOWN_CHARACTERS: usize = 60;

/// How far apart two answers are.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The greatest relative difference of two numbers; none when something else differs.
    pub relative: Option<f64>,
    /// Where, and what was found there.
    pub text: String,
}

/// What was found in the parts of two answers that are comparable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures {
    /// Numbers that were compared.
    pub numbers: u64,
    /// Sum of their absolute differences.
    pub absolute_sum: f64,
    /// The greatest absolute difference.
    pub absolute_max: f64,
    /// Labels that were compared: texts, truth values and whole numbers.
    pub labels: u64,
    /// Labels that are not the same.
    pub labels_apart: u64,
}

/// Compares answers. Numbers are equal when they are no further apart than `tolerance` times the greater of them, or than
/// `tolerance` when both are below one.
///
/// # Errors
/// The greatest difference.
pub fn compare(expected: &Body, found: &Body, tolerance: f64) -> Result<(), Difference> {
    if expected.data == found.data && kind_of(expected) == kind_of(found) {
        return Ok(());
    }
    measure(expected, found, tolerance).0.map_or(Ok(()), Err)
}

/// As [`compare`], with how far apart the answers are, which is looked at even where they are the same.
pub fn measure(expected: &Body, found: &Body, tolerance: f64) -> (Option<Difference>, Measures) {
    let mut comparison = Comparison { tolerance, worst: None, label: None, measures: Measures::default() };
    let compared = comparison.bodies(expected, found);
    let label = comparison.label.map(|text| Difference { relative: None, text });
    (compared.err().or(label).or(comparison.worst), comparison.measures)
}

fn kind_of(body: &Body) -> String {
    body.content_type.as_deref().map(media_type).unwrap_or_default()
}

fn other<T>(text: String) -> Result<T, Difference> {
    Err(Difference { relative: None, text })
}

struct Comparison {
    tolerance: f64,
    worst: Option<Difference>,
    /// The first label that is not the same.
    label: Option<String>,
    measures: Measures,
}

impl Comparison {
    fn bodies(&mut self, expected: &Body, found: &Body) -> Result<(), Difference> {
        let (kind, found_kind) = (kind_of(expected), kind_of(found));
        if kind != found_kind {
            return other(format!("the content type was {kind:?} and is {found_kind:?}"));
        }
        let texts = std::str::from_utf8(&expected.data).ok().zip(std::str::from_utf8(&found.data).ok());
        match texts {
            Some((expected, found)) if kind.ends_with("csv") => self.csv(expected, found),
            Some((expected, found)) if kind.contains("jsonl") => self.json_lines(expected, found),
            Some((expected, found)) if kind.contains("json") => self.json(expected, found),
            _ if expected.data == found.data => Ok(()),
            _ => other(format!("{} bytes differ from {} bytes", expected.data.len(), found.data.len())),
        }
    }

    fn csv(&mut self, expected: &str, found: &str) -> Result<(), Difference> {
        let (expected, found): (Vec<&str>, Vec<&str>) =
            (expected.trim_end().lines().collect(), found.trim_end().lines().collect());
        if expected.len() != found.len() {
            return other(format!("there were {} lines and are {}", expected.len(), found.len()));
        }
        for (line, (expected, found)) in (1..).zip(expected.iter().zip(&found)) {
            let (expected, found): (Vec<&str>, Vec<&str>) =
                (expected.split(',').collect(), found.split(',').collect());
            if expected.len() != found.len() {
                return other(format!("line {line} had {} cells and has {}", expected.len(), found.len()));
            }
            for (cell, (expected, found)) in (1..).zip(expected.iter().zip(&found)) {
                let (expected, found) = (expected.trim(), found.trim());
                let place = || format!("line {line}, cell {cell}");
                match expected.parse::<f64>().ok().zip(found.parse::<f64>().ok()) {
                    Some((expected, found)) => self.numbers(place, expected, found),
                    None => self.labels(place, expected, found, expected == found),
                }
            }
        }
        Ok(())
    }

    fn json(&mut self, expected: &str, found: &str) -> Result<(), Difference> {
        let parsed = serde_json::from_str(expected).ok().zip(serde_json::from_str(found).ok());
        let Some((expected, found)): Option<(Value, Value)> = parsed else {
            if expected == found {
                return Ok(());
            }
            return other("one of them is not JSON, and their bytes differ".into());
        };
        self.values("$", &expected, &found)
    }

    fn json_lines(&mut self, expected: &str, found: &str) -> Result<(), Difference> {
        let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
        if expected.len() != found.len() {
            return other(format!("there were {} lines and are {}", expected.len(), found.len()));
        }
        expected.iter().zip(&found).try_for_each(|(expected, found)| self.json(expected, found))
    }

    fn values(&mut self, path: &str, expected: &Value, found: &Value) -> Result<(), Difference> {
        match (expected, found) {
            (Value::Number(expected), Value::Number(found)) => {
                // Integers beyond the precision of a float are compared as they are written.
                let floats = expected.as_f64().zip(found.as_f64());
                match floats.filter(|_| expected != found) {
                    Some((expected, found)) => self.numbers(|| path.to_owned(), expected, found),
                    None => self.same_numbers(floats.is_none_or(|(one, _)| one.fract() == 0.0)),
                }
                Ok(())
            }
            (Value::Array(expected), Value::Array(found)) => {
                if expected.len() != found.len() {
                    return other(format!("{path} had {} elements and has {}", expected.len(), found.len()));
                }
                let mut pairs = expected.iter().zip(found).enumerate();
                pairs.try_for_each(|(at, (expected, found))| {
                    self.values(&format!("{path}[{at}]"), expected, found)
                })
            }
            (Value::Object(expected), Value::Object(found)) => {
                let missing = expected.keys().find(|name| !found.contains_key(*name));
                let added = found.keys().find(|name| !expected.contains_key(*name));
                if let Some(name) = missing.or(added) {
                    let what = if missing.is_some() { "is missing" } else { "is new" };
                    return other(format!("{path}.{name} {what}"));
                }
                expected.iter().try_for_each(|(name, expected)| {
                    self.values(&format!("{path}.{name}"), expected, &found[name])
                })
            }
            (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => {
                let is_same = expected == found;
                self.labels(|| path.to_owned(), &expected.to_string(), &found.to_string(), is_same);
                Ok(())
            }
            (expected, found) if expected == found => Ok(()),
            (expected, found) => other(format!(
                "{path}: was {} and is {}",
                short(&expected.to_string()),
                short(&found.to_string())
            )),
        }
    }

    fn labels(&mut self, place: impl FnOnce() -> String, expected: &str, found: &str, is_same: bool) {
        self.measures.labels += 1;
        if is_same {
            return;
        }
        self.measures.labels_apart += 1;
        self.label
            .get_or_insert_with(|| format!("{}: was {} and is {}", place(), short(expected), short(found)));
    }

    fn same_numbers(&mut self, are_whole: bool) {
        self.measures.numbers += 1;
        self.measures.labels += u64::from(are_whole);
    }

    fn numbers(&mut self, place: impl FnOnce() -> String, expected: f64, found: f64) {
        let are_whole = expected.fract() == 0.0 && found.fract() == 0.0;
        self.same_numbers(are_whole);
        if expected == found || (expected.is_nan() && found.is_nan()) {
            return;
        }
        self.measures.labels_apart += u64::from(are_whole);
        let absolute = (expected - found).abs();
        // What is not a number on one side only has no distance that could be summed up.
        if absolute.is_finite() {
            self.measures.absolute_sum += absolute;
            self.measures.absolute_max = self.measures.absolute_max.max(absolute);
        }
        let apart = (expected - found).abs() / expected.abs().max(found.abs()).max(1.0);
        // What is not a number on one side only is as far apart as can be.
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        let worst = self.worst.as_ref().and_then(|worst| worst.relative).unwrap_or(self.tolerance);
        if apart > worst {
            let text = format!("{}: was {expected} and is {found}", place());
            self.worst = Some(Difference { relative: Some(apart), text });
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn compared(kind: &str, expected: &str, found: &str) -> Result<(), Difference> {
        let body = |text: &str| Body {
            content_type: Some(kind.to_owned()),
            data: Bytes::copy_from_slice(text.as_bytes()),
        };
        compare(&body(expected), &body(found), 1e-3)
    }

    #[test]
    fn numbers_may_differ_by_the_tolerance() {
        for (kind, one, same) in [
            ("text/csv; charset=utf-8", "1.0,a\n2000,b\n", "1.0005, a\n2001,b"),
            ("application/json", r#"{"a": [1, 0.0], "b": null}"#, r#"{"b":null,"a":[1.0009,0.0005]}"#),
            ("application/jsonlines", "[1]\n[2]\n", "[1.0]\n[2.0]\n"),
            ("application/json", "12345678901234567890", "12345678901234567890.0"),
            ("text/csv", "nan", "NaN"),
        ] {
            assert_eq!(compared(kind, one, same), Ok(()), "{one}");
        }
    }

    #[test]
    fn the_greatest_difference_is_told() {
        let worst = compared("application/json", r#"{"a":[1,2,3]}"#, r#"{"a":[1.01,4,3.1]}"#).unwrap_err();
        assert_eq!((worst.relative, worst.text.as_str()), (Some(0.5), "$.a[1]: was 2 and is 4"));
        let worst = compared("text/csv", "1,5\n2,5", "1,5\n2,7").unwrap_err();
        assert_eq!(worst.text, "line 2, cell 2: was 5 and is 7");
        assert_eq!(compared("text/csv", "1", "nan").unwrap_err().relative, Some(f64::INFINITY));
    }

    #[test]
    fn it_is_measured_how_far_apart_answers_are() {
        let body = |text: &str| Body {
            content_type: Some("application/json".into()),
            data: Bytes::copy_from_slice(text.as_bytes()),
        };
        let measured = |one: &str, two: &str| measure(&body(one), &body(two), 1e-6);
        let (difference, measures) = measured(
            r#"[{"label": "a", "score": 0.5, "class": 1}, {"label": "b", "score": 0.5, "class": 1}]"#,
            r#"[{"label": "a", "score": 0.75, "class": 1}, {"label": "c", "score": 1.5, "class": 0}]"#,
        );
        let text = difference.unwrap().text;
        assert_eq!(text, r#"$[1].label: was "b" and is "c""#, "labels are told before numbers");
        let expected =
            Measures { numbers: 4, absolute_sum: 2.25, absolute_max: 1.0, labels: 4, labels_apart: 2 };
        assert_eq!(measures, expected);
        let (same, measures) = measured("[1, 0.5, true]", "[1, 0.5, true]");
        assert_eq!((same, measures.numbers, measures.labels, measures.labels_apart), (None, 2, 2, 0));
    }

    #[test]
    fn what_is_no_number_must_be_the_same() {
        for (kind, one, two, told) in [
            ("text/csv", "a", "b", "line 1, cell 1"),
            ("text/csv", "1", "1\n2", "lines"),
            ("text/csv", "1", "1,2", "cells"),
            ("application/json", r#"{"a":1}"#, r#"{"b":1}"#, "$.a is missing"),
            ("application/json", "[1]", "[1,2]", "elements"),
            ("application/json", r#""1""#, "1", "$: was"),
            ("application/json", "1", "one", "not JSON"),
            ("application/x-npy", "1", "2", "bytes"),
        ] {
            let difference = compared(kind, one, two).unwrap_err();
            assert!(difference.relative.is_none() && difference.text.contains(told), "{difference:?}");
        }
        let body = |kind: &str| Body { content_type: Some(kind.into()), data: Bytes::new() };
        assert!(
            compare(&body("text/csv"), &body("application/json"), 0.0)
                .unwrap_err()
                .text
                .contains("content type")
        );
    }
}
