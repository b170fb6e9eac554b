//! What the numbers say, in one word and in sentences.

use serde::Serialize;

use super::comparison::Comparison;
use crate::statistics::{paired_chance, rate_interval};

/// Fewer pairs say nothing.
pub const LEAST_PAIRS: u64 = 30;
/// What is less likely than this is not taken for chance.
const CHANCE: f64 = 0.05;
/// A latency within this factor is about the same.
const LATENCY_FACTOR: f64 = 1.1;
/// More different answers than this share make a model another one.
const DIFFERENT_SHARE: f64 = 0.01;

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Word {
    /// There is not enough to say anything.
    TooFew,
    /// It fails more often or is slower.
    Worse,
    /// It works as well, and answers differently.
    Different,
    /// Nothing was found that chance does not explain.
    Same,
}

/// The word and its reasons.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verdict {
    /// The word.
    pub verdict: Word,
    /// The sentence.
    pub sentence: String,
}

/// Judges a shadow.
pub fn verdict(comparison: &Comparison) -> Verdict {
    let (pairs, answered) = (comparison.pairs(), comparison.answered());
    if pairs < LEAST_PAIRS {
        let sentence = format!(
            "{} so far; from {LEAST_PAIRS} on there is a verdict.",
            counted(pairs, "request was compared", "requests were compared")
        );
        return Verdict { verdict: Word::TooFew, sentence };
    }
    let (failures, fails_more) = failures(comparison);
    let (latency, is_slower) = latency(comparison);
    let (answers, differs) = answers(comparison, answered);
    let word = match (fails_more || is_slower, differs) {
        (true, _) => Word::Worse,
        (false, true) => Word::Different,
        (false, false) => Word::Same,
    };
    let end = match word {
        Word::Worse if fails_more => "Do not promote it before its failures are understood.",
        Word::Worse => "It is slower than production: promote it only if that is acceptable.",
        Word::Different => {
            "It works as well as production and answers differently: promote it if those answers are better."
        }
        Word::Same | Word::TooFew => "Nothing speaks against promoting it.",
    };
    let compared = counted(pairs, "request was compared", "requests were compared");
    let mut sentence = format!("{compared}: {answers}. {failures}");
    for part in [latency, end.to_owned()] {
        if !part.is_empty() {
            sentence.push(' ');
            sentence.push_str(&part);
        }
    }
    Verdict { verdict: word, sentence }
}

fn answers(comparison: &Comparison, answered: u64) -> (String, bool) {
    if answered == 0 {
        return ("none was answered by both".into(), false);
    }
    let (low, high) = rate_interval(comparison.different as f64, answered as f64);
    let verb = if comparison.different == 1 { "differs" } else { "differ" };
    let mut text = format!(
        "{} of {} answers {verb} ({}; with 95 % confidence {} to {})",
        grouped(comparison.different),
        grouped(answered),
        percent(comparison.different as f64 / answered as f64),
        percent(low),
        percent(high)
    );
    if comparison.labels_apart > 0 {
        text.push_str(&format!(
            ", {} of the labels disagree",
            percent(comparison.labels_apart as f64 / comparison.labels.max(1) as f64)
        ));
    }
    if comparison.absolute_max > 0.0 {
        text.push_str(&format!(
            ", numbers are {} apart on average and {} at most",
            short(comparison.absolute_sum / comparison.numbers.max(1) as f64),
            short(comparison.absolute_max)
        ));
    }
    (text, low > DIFFERENT_SHARE)
}

fn failures(comparison: &Comparison) -> (String, bool) {
    let (shadow, production) = (comparison.shadow_failed, comparison.production_failed);
    let chance = paired_chance(shadow, production);
    let alone = format!(
        "the shadow alone failed {}, production alone {}",
        counted(shadow, "time", "times"),
        counted(production, "time", "times")
    );
    if shadow == 0 && production == 0 {
        return ("Neither failed where the other did not.".into(), false);
    }
    let text = match (chance < CHANCE, shadow > production) {
        (true, true) => format!("The shadow fails more often: {alone}."),
        (true, false) => format!("The shadow fails less often: {alone}."),
        (false, _) => format!("The failures may be chance: {alone}."),
    };
    (text, chance < CHANCE && shadow > production)
}

fn latency(comparison: &Comparison) -> (String, bool) {
    let Some((low, high)) = comparison.ratio.interval() else { return (String::new(), false) };
    let (mean, low, high) = (comparison.ratio.mean.exp(), low.exp(), high.exp());
    let is_slower = low > LATENCY_FACTOR;
    let word = match (is_slower, high < 1.0 / LATENCY_FACTOR) {
        (true, _) => "It is slower",
        (false, true) => "It is faster",
        (false, false) => "It is about as fast",
    };
    let text = format!(
        "{word}: it takes {mean:.2} times as long as production (with 95 % confidence {low:.2} to {high:.2})."
    );
    (text, is_slower)
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A number with commas between its thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

fn short(number: f64) -> String {
    if (1e-3..1e6).contains(&number) { format!("{number:.4}") } else { format!("{number:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Mean;

    fn ratio(factor: f64, count: u64) -> Mean {
        let mut mean = Mean::default();
        for number in 0..count {
            // A little noise, so that there is an interval.
            mean.add(factor.ln() + if number % 2 == 0 { 0.05 } else { -0.05 });
        }
        mean
    }

    #[test]
    fn each_verdict_has_its_reasons() {
        let fine = Comparison { equal: 1000, ratio: ratio(1.0, 1000), ..Comparison::default() };
        let cases = [
            (Comparison { equal: 29, ..fine.clone() }, Word::TooFew, "29 requests were compared so far"),
            (
                fine.clone(),
                Word::Same,
                "0 of 1,000 answers differ (0.0 %; with 95 % confidence 0.0 % to 0.4 %)",
            ),
            (Comparison { different: 5, ..fine.clone() }, Word::Same, "5 of 1,005 answers differ"),
            (
                Comparison {
                    equal: 500,
                    different: 500,
                    labels: 1000,
                    labels_apart: 250,
                    numbers: 10,
                    absolute_sum: 5.0,
                    absolute_max: 2.0,
                    ..fine.clone()
                },
                Word::Different,
                "25.0 % of the labels disagree, numbers are 0.5000 apart on average and 2.0000 at most",
            ),
            (Comparison { shadow_failed: 20, ..fine.clone() }, Word::Worse, "The shadow fails more often"),
            (
                Comparison { shadow_failed: 3, production_failed: 2, ..fine.clone() },
                Word::Same,
                "may be chance",
            ),
            (Comparison { production_failed: 20, ..fine.clone() }, Word::Same, "fails less often"),
            (
                Comparison { ratio: ratio(1.5, 1000), ..fine.clone() },
                Word::Worse,
                "it takes 1.50 times as long",
            ),
            (Comparison { ratio: ratio(0.5, 1000), ..fine.clone() }, Word::Same, "It is faster"),
            (
                Comparison { equal: 0, both_failed: 40, ratio: Mean::default(), ..fine },
                Word::Same,
                "none was answered by both",
            ),
        ];
        for (comparison, word, reason) in cases {
            let found = verdict(&comparison);
            assert_eq!(found.verdict, word, "{}", found.sentence);
            assert!(found.sentence.contains(reason), "{reason}: {}", found.sentence);
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.25, 1e-7, 3e9].map(short), ["0.2500", "1.00e-7", "3.00e9"]);
    }
}
