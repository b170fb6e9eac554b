//! What is known of a shadow: counts, differences, latencies and the last examples, of all pairs since it began.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serving::{InvokeError, InvokeResponse, Latencies, ShadowAnswer, ShadowPair};

use crate::capture::Body;
use crate::capture::compare::{Difference, Measures, measure};
use crate::statistics::Mean;

/// How far apart two numbers of equal answers may be, relative to the greater one.
pub const TOLERANCE: f64 = 1e-6;
/// Examples that are kept.
const KEPT_EXAMPLES: usize = 20;
/// Most characters of a body that an example shows.
const SHOWN_CHARACTERS: usize = 300;

/// All that is known; kept in the database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Comparison {
    /// What is compared; other models begin another comparison.
    pub models: Value,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// Pairs of answers that are the same.
    pub equal: u64,
    /// Pairs of answers that are not.
    pub different: u64,
    /// Requests that only production failed at.
    pub production_failed: u64,
    /// Requests that only the shadow failed at.
    pub shadow_failed: u64,
    /// Requests that both failed at.
    pub both_failed: u64,
    /// Requests that were to be copied while the shadow was too slow.
    pub dropped: u64,
    /// Numbers that were compared.
    pub numbers: u64,
    /// Sum of their absolute differences.
    pub absolute_sum: f64,
    /// The greatest absolute difference.
    pub absolute_max: f64,
    /// Labels that were compared.
    pub labels: u64,
    /// Labels that are not the same.
    pub labels_apart: u64,
    /// How long production took, in classes.
    #[serde(with = "as_text")]
    pub production_latencies: Latencies,
    /// How long the shadow took, in classes.
    #[serde(with = "as_text")]
    pub shadow_latencies: Latencies,
    /// Logarithm of the shadow's latency over production's, of pairs that both answered.
    pub ratio: Mean,
    /// The last pairs that are not the same, the newest first.
    pub examples: VecDeque<Example>,
}

/// A pair that is not the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Example {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `different`, `shadow failed` or `production failed`.
    pub outcome: String,
    /// The greatest relative difference of two numbers, when only numbers differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// What it is.
    pub text: String,
    /// Begin of the request.
    pub input: String,
    /// Begin of production's answer.
    pub production: String,
    /// Begin of the shadow's.
    pub shadow: String,
}

/// A pair, judged.
pub struct Judged {
    outcome: Outcome,
    measures: Measures,
    production: Duration,
    shadow: Duration,
    example: Option<Example>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Equal,
    Different,
    ProductionFailed,
    ShadowFailed,
    BothFailed,
}

impl Judged {
    /// Compares the answers of a pair; large ones take their time.
    pub fn of(pair: &ShadowPair, at_ms: i64) -> Judged {
        let mut measures = Measures::default();
        let (outcome, difference) = match (&pair.production.outcome, &pair.shadow.outcome) {
            (Ok(production), Ok(shadow)) => {
                let difference = match production.answer.status == shadow.answer.status {
                    false => Some(other(format!(
                        "the status was {} and is {}",
                        production.answer.status, shadow.answer.status
                    ))),
                    true => {
                        let (difference, measured) = measure(&body(production), &body(shadow), TOLERANCE);
                        measures = measured;
                        difference
                    }
                };
                match difference {
                    None => (Outcome::Equal, None),
                    difference => (Outcome::Different, difference),
                }
            }
            // More than was expected is an answer, and another one.
            (Ok(_), Err(error @ InvokeError::TooLarge { .. })) => {
                (Outcome::Different, Some(other(error.to_string())))
            }
            (Ok(_), Err(error)) => (Outcome::ShadowFailed, Some(other(error.to_string()))),
            (Err(error), Ok(_)) => (Outcome::ProductionFailed, Some(other(error.to_string()))),
            (Err(_), Err(_)) => (Outcome::BothFailed, None),
        };
        let example = difference.map(|difference| Example {
            at_ms,
            request_id: pair.request.request_id.clone(),
            outcome: match outcome {
                Outcome::ShadowFailed => "shadow failed",
                Outcome::ProductionFailed => "production failed",
                _ => "different",
            }
            .into(),
            // JSON has no infinity.
            relative: difference.relative.map(|relative| relative.min(f64::MAX)),
            text: difference.text,
            input: shown(&pair.request.body),
            production: shown_answer(&pair.production),
            shadow: shown_answer(&pair.shadow),
        });
        let (production, shadow) = (pair.production.latency, pair.shadow.latency);
        Judged { outcome, measures, production, shadow, example }
    }
}

fn other(text: String) -> Difference {
    Difference { relative: None, text }
}

fn body(response: &InvokeResponse) -> Body {
    Body { content_type: response.answer.content_type.clone(), data: response.body.clone() }
}

fn shown_answer(answer: &ShadowAnswer) -> String {
    match &answer.outcome {
        Ok(response) => shown(&response.body),
        Err(InvokeError::ModelError { answer, body, .. }) => format!("{}: {}", answer.status, shown(body)),
        Err(error) => error.to_string(),
    }
}

fn shown(body: &[u8]) -> String {
    // Four bytes hold any character.
    let begin = &body[..body.len().min(4 * SHOWN_CHARACTERS)];
    let text = String::from_utf8_lossy(begin);
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

impl Comparison {
    /// One of these models that begins now.
    pub fn begin(models: Value, since_ms: i64) -> Comparison {
        Comparison { models, since_ms, ..Comparison::default() }
    }

    /// Adds a pair.
    pub fn add(&mut self, judged: Judged) {
        let count = match judged.outcome {
            Outcome::Equal => &mut self.equal,
            Outcome::Different => &mut self.different,
            Outcome::ProductionFailed => &mut self.production_failed,
            Outcome::ShadowFailed => &mut self.shadow_failed,
            Outcome::BothFailed => &mut self.both_failed,
        };
        *count += 1;
        let measures = judged.measures;
        self.numbers += measures.numbers;
        self.absolute_sum += measures.absolute_sum;
        self.absolute_max = self.absolute_max.max(measures.absolute_max);
        self.labels += measures.labels;
        self.labels_apart += measures.labels_apart;
        if matches!(judged.outcome, Outcome::Equal | Outcome::Different) {
            let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
            let (production, shadow) = (microseconds(judged.production), microseconds(judged.shadow));
            self.production_latencies.add(production);
            self.shadow_latencies.add(shadow);
            self.ratio.add((shadow as f64 / production as f64).ln());
        }
        if let Some(example) = judged.example {
            self.examples.push_front(example);
            self.examples.truncate(KEPT_EXAMPLES);
        }
    }

    /// Requests that both were asked.
    pub fn pairs(&self) -> u64 {
        self.answered() + self.production_failed + self.shadow_failed + self.both_failed
    }

    /// Requests that both answered.
    pub fn answered(&self) -> u64 {
        self.equal + self.different
    }

    /// What has become of the requests that were to be copied.
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("equal", self.equal),
            ("different", self.different),
            ("production_failed", self.production_failed),
            ("shadow_failed", self.shadow_failed),
            ("both_failed", self.both_failed),
            ("dropped", self.dropped),
        ]
    }

    /// As it is stored.
    pub fn to_document(&self) -> Value {
        json!(self)
    }
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use serving::Latencies;

    pub fn serialize<S: Serializer>(latencies: &Latencies, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(latencies)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Latencies, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serving::{InvokeRequest, ModelAnswer};

    use super::*;

    fn answer(status: u16, body: &str, milliseconds: u64) -> ShadowAnswer {
        let answer =
            ModelAnswer { status, content_type: Some("application/json".into()), ..ModelAnswer::default() };
        let body = Bytes::copy_from_slice(body.as_bytes());
        let outcome = match status {
            200 => Ok(InvokeResponse { answer, body }),
            _ => Err(InvokeError::ModelError { answer: Box::new(answer), body, replica: String::new() }),
        };
        ShadowAnswer { latency: Duration::from_millis(milliseconds), outcome }
    }

    fn pair(production: ShadowAnswer, shadow: ShadowAnswer) -> ShadowPair {
        let request = InvokeRequest {
            request_id: Some("r".into()),
            body: "é".repeat(400).into(),
            ..Default::default()
        };
        ShadowPair { request, production, shadow }
    }

    #[test]
    fn every_pair_is_counted_once_and_a_stored_comparison_goes_on() {
        let mut comparison = Comparison::begin(json!(["a", "b"]), 5);
        for (production, shadow) in [
            (answer(200, "[1.0]", 10), answer(200, "[1.0]", 20)),
            (answer(200, "[1.0]", 10), answer(200, "[1.5]", 20)),
            (answer(200, "[1.0]", 10), answer(500, "broken", 20)),
            (answer(400, "no", 10), answer(200, "[1.0]", 20)),
            (answer(400, "no", 10), answer(400, "no", 20)),
        ] {
            comparison.add(Judged::of(&pair(production, shadow), 7));
        }
        let counts = [
            comparison.equal,
            comparison.different,
            comparison.shadow_failed,
            comparison.production_failed,
            comparison.both_failed,
        ];
        assert_eq!((counts, comparison.pairs(), comparison.answered()), ([1; 5], 5, 2));
        assert_eq!((comparison.numbers, comparison.absolute_sum, comparison.absolute_max), (2, 0.5, 0.5));
        let outcomes: Vec<&str> = comparison.examples.iter().map(|one| one.outcome.as_str()).collect();
        assert_eq!(outcomes, ["production failed", "shadow failed", "different"], "the newest first");
        assert_eq!(comparison.examples[1].shadow, "500: broken");
        assert_eq!(comparison.examples[0].input.chars().count(), SHOWN_CHARACTERS + 1);
        assert!((comparison.ratio.mean - 2.0_f64.ln()).abs() < 1e-9, "twice as long");
        let mut read: Comparison = serde_json::from_value(comparison.to_document()).unwrap();
        assert_eq!(read, comparison);
        for _ in 0..100 {
            read.add(Judged::of(&pair(answer(200, "[1]", 1), answer(200, "[2]", 1)), 8));
        }
        assert_eq!((read.different, read.examples.len(), read.labels_apart), (101, KEPT_EXAMPLES, 100));
    }
}
