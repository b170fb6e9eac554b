//! What models answered, as numbers or as labels: bounded samples of two fleets that can be compared.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use serving::SampledOutput;

use crate::statistics::{self, Weighted};

/// Values that are kept of each fleet; older ones go.
const KEPT_VALUES: usize = 2_000;
/// Values that one answer gives at most, so that one large batch does not stand for all.
const VALUES_PER_ANSWER: usize = 32;
/// A longer text is no label.
const LABEL_BYTES: usize = 64;
/// More labels than that are no classes.
const MOST_LABELS: usize = 100;

/// The last answers of one fleet.
#[derive(Debug, Default)]
pub struct Outputs {
    numbers: VecDeque<f64>,
    labels: VecDeque<String>,
    answers: u64,
}

impl Outputs {
    /// Adds answers.
    pub fn add(&mut self, outputs: &[SampledOutput]) {
        for output in outputs {
            let mut found = Found::default();
            found.read(output);
            self.answers += u64::from(!found.numbers.is_empty() || !found.labels.is_empty());
            self.numbers.extend(found.numbers);
            self.labels.extend(found.labels);
        }
        let surplus = self.numbers.len().saturating_sub(KEPT_VALUES);
        self.numbers.drain(..surplus);
        let surplus = self.labels.len().saturating_sub(KEPT_VALUES);
        self.labels.drain(..surplus);
    }

    /// Answers in which there was a number or a label.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    fn weighted(&self) -> Weighted {
        statistics::weighted(self.numbers.iter().copied())
    }

    fn shares(&self) -> BTreeMap<&str, f64> {
        let mut shares = BTreeMap::new();
        for label in &self.labels {
            *shares.entry(label.as_str()).or_insert(0.0) += 1.0 / self.labels.len() as f64;
        }
        shares
    }
}

/// How far two fleets' outputs are apart: distance from 0 to 1, the probability of it when there is none, and what was compared.
/// `None` where they have nothing to compare.
pub fn distance(before: &Outputs, after: &Outputs) -> Option<(f64, f64, String)> {
    let numbers = statistics::kolmogorov_smirnov(&before.weighted(), &after.weighted())
        .map(|(distance, p_value)| (distance, p_value, "distribution of numbers".to_owned()));
    let labels = label_distance(before, after);
    match (numbers, labels) {
        (Some(numbers), Some(labels)) => Some(if labels.0 > numbers.0 { labels } else { numbers }),
        (numbers, labels) => numbers.or(labels),
    }
}

/// The label whose share changed the most.
fn label_distance(before: &Outputs, after: &Outputs) -> Option<(f64, f64, String)> {
    let (shares, other_shares) = (before.shares(), after.shares());
    let labels: std::collections::BTreeSet<&str> =
        shares.keys().chain(other_shares.keys()).copied().collect();
    if labels.len() > MOST_LABELS {
        return None;
    }
    let (many, others) = (before.labels.len() as f64, after.labels.len() as f64);
    let of = |label: &str| {
        let (one, other) =
            (shares.get(label).copied().unwrap_or(0.0), other_shares.get(label).copied().unwrap_or(0.0));
        let rates = statistics::rates((one * many, many), (other * others, others))?;
        Some((rates.difference.abs(), rates.p_value, format!("share of {label:?}")))
    };
    labels.into_iter().filter_map(of).max_by(|one, other| one.0.total_cmp(&other.0))
}

#[derive(Default)]
struct Found {
    numbers: Vec<f64>,
    labels: Vec<String>,
}

impl Found {
    fn read(&mut self, output: &SampledOutput) {
        let Ok(text) = std::str::from_utf8(&output.body) else { return };
        let kind = output.content_type.as_deref().unwrap_or_default();
        if kind.contains("jsonl") {
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line| self.json(&line));
        } else if kind.contains("json") {
            // Only what is the answer: a text that is not JSON says nothing.
            serde_json::from_str(text).into_iter().for_each(|value| self.json(&value));
        } else if kind.starts_with("text/") {
            text.split([',', '\n']).map(str::trim).for_each(|cell| self.cell(cell));
        }
    }

    fn is_full(&self) -> bool {
        self.numbers.len() + self.labels.len() >= VALUES_PER_ANSWER
    }

    fn cell(&mut self, cell: &str) {
        match cell.parse::<f64>() {
            Ok(number) => self.number(number),
            Err(_) => self.label(cell),
        }
    }

    fn number(&mut self, number: f64) {
        if number.is_finite() && !self.is_full() {
            self.numbers.push(number);
        }
    }

    fn label(&mut self, label: &str) {
        if !label.is_empty() && label.len() <= LABEL_BYTES && !self.is_full() {
            self.labels.push(label.to_owned());
        }
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Number(number) => number.as_f64().into_iter().for_each(|number| self.number(number)),
            Value::String(text) => self.label(text),
            Value::Bool(answer) => self.label(if *answer { "true" } else { "false" }),
            Value::Array(elements) => elements.iter().for_each(|element| self.json(element)),
            Value::Object(members) => members.values().for_each(|member| self.json(member)),
            Value::Null => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(kind: &str, bodies: impl IntoIterator<Item = String>) -> Outputs {
        let mut outputs = Outputs::default();
        let sampled = bodies
            .into_iter()
            .map(|body| SampledOutput { content_type: Some(kind.to_owned()), body: body.into() });
        outputs.add(&sampled.collect::<Vec<_>>());
        outputs
    }

    #[test]
    fn numbers_are_found_in_csv_and_json() {
        let csv = outputs("text/csv; charset=utf-8", ["0.5,1\n2".into(), "oops".into()]);
        assert_eq!((csv.numbers.len(), csv.labels.len(), csv.answers()), (3, 1, 2));
        let json = outputs("application/json", [r#"{"predictions":[{"score":0.25,"label":"cat"}]}"#.into()]);
        assert_eq!(json.numbers, [0.25]);
        assert_eq!(json.labels, ["cat"]);
        let lines = outputs("application/jsonlines", ["{\"score\":1}\n{\"score\":2}".into()]);
        assert_eq!(lines.numbers, [1.0, 2.0]);
        let other = outputs("application/x-npy", ["1".into()]);
        assert_eq!(other.answers(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let large = vec!["1"; 1_000].join(",");
        let many = outputs("text/csv", (0..200).map(|_| large.clone()));
        assert_eq!((many.numbers.len(), many.answers()), (KEPT_VALUES, 200));
    }

    #[test]
    fn shifted_numbers_and_changed_labels_are_far_apart() {
        let scores = |shift: f64| {
            outputs("text/csv", (0..300).map(|number| (f64::from(number) / 300.0 + shift).to_string()))
        };
        let (same, ..) = distance(&scores(0.0), &scores(0.0)).unwrap();
        assert_eq!(same, 0.0);
        let (far, p_value, _) = distance(&scores(0.0), &scores(0.5)).unwrap();
        assert!((far - 0.5).abs() < 0.01 && p_value < 1e-9, "{far} {p_value}");
        let labels = |cats: usize| {
            outputs(
                "application/json",
                (0..200).map(move |at| if at < cats { "\"cat\"".into() } else { "\"dog\"".into() }),
            )
        };
        let (far, p_value, what) = distance(&labels(100), &labels(190)).unwrap();
        assert!((far - 0.45).abs() < 1e-9 && p_value < 1e-9 && what.starts_with("share of"), "{far} {what}");
        assert_eq!(distance(&scores(0.0), &labels(3)), None, "numbers and labels have nothing in common");
        assert_eq!(distance(&Outputs::default(), &scores(0.0)), None);
    }
}
