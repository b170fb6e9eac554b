//! The guards of a deployment, pure: counts of two fleets go in, what each guard finds comes out.

use serde::{Deserialize, Serialize};
use serving::{FleetReading, LatencyClass};

use super::outputs::{self, Outputs};
use super::settings::GuardSettings;
use crate::statistics::{self, Weighted};

/// A difference that comes by chance once in a hundred times is none.
const SIGNIFICANCE: f64 = 0.01;
/// Outputs are looked at again and again.
const OUTPUT_SIGNIFICANCE: f64 = 1e-4;

/// What was seen of one fleet.
#[derive(Debug, Default)]
pub struct Watched {
    /// Counts.
    pub reading: FleetReading,
    /// Answers.
    pub outputs: Outputs,
}

/// What a guard finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// Its name.
    pub guard: String,
    /// What it measures of the new fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The same of the fleet before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// What the value must not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Of how many requests or answers.
    pub samples: u64,
    /// Whether it is against the new fleet.
    pub is_breached: bool,
    /// The same in a sentence.
    pub text: String,
}

/// Asks the guards. After an update without a `DeploymentConfig` only errors are looked at, and only when most requests fail.
pub fn judge(settings: &GuardSettings, before: &Watched, after: &Watched, is_plain: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(errors(settings, &before.reading, &after.reading, is_plain));
    if !is_plain {
        findings.extend(latency(settings, &before.reading, &after.reading));
        findings.extend(drift(settings, &before.outputs, &after.outputs));
    }
    findings
}

/// Why the new fleet must go, when a guard says so.
pub fn breach(findings: &[Finding]) -> Option<String> {
    findings.iter().find(|finding| finding.is_breached).map(|finding| finding.text.clone())
}

fn waiting(guard: &str, samples: u64, needed: u32, what: &str) -> Finding {
    Finding {
        guard: guard.to_owned(),
        value: None,
        before: None,
        limit: None,
        samples,
        is_breached: false,
        text: format!("{samples} of {needed} {what}: too few to judge."),
    }
}

fn errors(
    settings: &GuardSettings,
    before: &FleetReading,
    after: &FleetReading,
    is_plain: bool,
) -> Option<Finding> {
    const GUARD: &str = "5XX rate";
    let is_off = if is_plain { settings.max_error_rate } else { settings.max_error_rate_increase } == 0.0;
    if is_off {
        return None;
    }
    let least = u64::from(settings.min_requests);
    if after.ended < least {
        return Some(waiting(GUARD, after.ended, settings.min_requests, "requests to the new fleet"));
    }
    let counts = |reading: &FleetReading| (reading.errors_5xx as f64, reading.ended as f64);
    let rate = after.errors_5xx as f64 / after.ended as f64;
    let compared = (before.ended >= least).then(|| before.errors_5xx as f64 / before.ended as f64);
    let (limit, is_breached) = match compared {
        Some(old) if !is_plain => {
            let limit = old + settings.max_error_rate_increase;
            let chance = statistics::rates(counts(before), counts(after)).map_or(1.0, |rates| rates.p_value);
            (limit, rate > limit && chance < SIGNIFICANCE)
        }
        // One that fails as the fleet before did makes nothing worse.
        Some(old) => (settings.max_error_rate.max(old), rate > settings.max_error_rate.max(old)),
        None => (settings.max_error_rate, rate > settings.max_error_rate),
    };
    let against = compared.map_or_else(String::new, |old| format!("; {} before", percent(old)));
    Some(Finding {
        guard: GUARD.into(),
        value: Some(rate),
        before: compared,
        limit: Some(limit),
        samples: after.ended,
        is_breached,
        text: format!(
            "Guard {GUARD}: {} of {} requests to the new fleet failed, the limit is {}{against}.",
            percent(rate),
            after.ended,
            percent(limit)
        ),
    })
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Latencies as values with their counts, in milliseconds.
pub fn milliseconds(classes: &[LatencyClass]) -> Weighted {
    classes.iter().map(|class| (class.mean_microseconds() / 1000.0, class.count as f64)).collect()
}

fn latency(settings: &GuardSettings, before: &FleetReading, after: &FleetReading) -> Option<Finding> {
    const GUARD: &str = "p99 latency";
    if settings.max_p99_ratio == 0.0 {
        return None;
    }
    let least = u64::from(settings.min_answers);
    let samples = after.latencies.count().min(before.latencies.count());
    if samples < least {
        return Some(waiting(GUARD, samples, settings.min_answers, "answers of each fleet"));
    }
    let p99 = |reading: &FleetReading| statistics::quantile(&milliseconds(&reading.latencies.classes), 0.99);
    let (old, new) = (p99(before)?, p99(after)?);
    let limit = (old * settings.max_p99_ratio).max(old + settings.min_p99_increase_milliseconds);
    // A few slow answers of a hundred come by chance, such as the first ones of a new process.
    let above = |reading: &FleetReading| {
        let values = milliseconds(&reading.latencies.classes);
        let slow = values.iter().filter(|(value, _)| *value > limit);
        (slow.map(|(_, count)| count).sum::<f64>(), statistics::count(&values))
    };
    let more = statistics::rates(above(before), above(after)).map_or(0.0, |rates| rates.interval.0);
    Some(Finding {
        guard: GUARD.into(),
        value: Some(new),
        before: Some(old),
        limit: Some(limit),
        samples: after.latencies.count(),
        is_breached: new > limit && more > 0.01,
        text: format!(
            "Guard {GUARD}: {new:.1} ms over {} answers of the new fleet, the limit is {limit:.1} ms; {old:.1} ms before.",
            after.latencies.count()
        ),
    })
}

fn drift(settings: &GuardSettings, before: &Outputs, after: &Outputs) -> Option<Finding> {
    const GUARD: &str = "output drift";
    if settings.max_output_distance == 0.0 {
        return None;
    }
    let samples = before.answers().min(after.answers());
    if samples < u64::from(settings.min_answers) {
        return Some(waiting(
            GUARD,
            samples,
            settings.min_answers,
            "answers of each fleet that can be compared",
        ));
    }
    let (distance, p_value, what) = outputs::distance(before, after)?;
    let limit = settings.max_output_distance;
    Some(Finding {
        guard: GUARD.into(),
        value: Some(distance),
        before: None,
        limit: Some(limit),
        samples: after.answers(),
        is_breached: distance > limit && p_value < OUTPUT_SIGNIFICANCE,
        text: format!(
            "Guard {GUARD}: the {what} in {} answers of the new fleet is {distance:.2} away from before, the limit is {limit:.2}.",
            after.answers()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serving::{LatencySnapshot, SampledOutput};

    fn watched(ended: u64, errors_5xx: u64, slow: u64) -> Watched {
        let class = |class, count, microseconds: u64| LatencyClass {
            class,
            count,
            microseconds: count * microseconds,
        };
        let classes = vec![class(100, ended - slow, 5_000), class(200, slow, 80_000)];
        let latencies = LatencySnapshot { classes };
        Watched { reading: FleetReading { ended, errors_5xx, latencies }, outputs: Outputs::default() }
    }

    fn found(before: &Watched, after: &Watched, is_plain: bool) -> Vec<(String, bool)> {
        let findings = judge(&GuardSettings::default(), before, after, is_plain);
        findings.into_iter().map(|finding| (finding.guard, finding.is_breached)).collect()
    }

    #[test]
    fn errors_count_against_the_fleet_before() {
        let breached = |before: &Watched, after: &Watched, is_plain| found(before, after, is_plain)[0].1;
        for (before, after, is_plain, expected) in [
            (watched(1_000, 0, 0), watched(19, 19, 0), false, false),
            (watched(1_000, 0, 0), watched(20, 5, 0), false, true),
            (watched(1_000, 0, 0), watched(20, 1, 0), false, false),
            (watched(1_000, 200, 0), watched(100, 22, 0), false, false),
            (watched(1_000, 200, 0), watched(100, 60, 0), false, true),
            (watched(5, 0, 0), watched(100, 40, 0), false, false),
            (watched(5, 0, 0), watched(100, 60, 0), false, true),
            (watched(1_000, 0, 0), watched(100, 40, 0), true, false),
            (watched(1_000, 0, 0), watched(100, 60, 0), true, true),
            (watched(1_000, 900, 0), watched(100, 60, 0), true, false),
        ] {
            let words = format!("{before:?} {after:?} {is_plain}");
            assert_eq!(breached(&before, &after, is_plain), expected, "{words}");
        }
    }

    #[test]
    fn latency_is_compared_where_there_is_enough() {
        let breached = |before: Watched, after: Watched| found(&before, &after, false)[1].1;
        assert!(!breached(watched(1_000, 0, 0), watched(1_000, 0, 5)), "half a percent is slow");
        assert!(breached(watched(1_000, 0, 0), watched(1_000, 0, 50)));
        assert!(!breached(watched(1_000, 0, 50), watched(1_000, 0, 50)));
        assert!(!breached(watched(1_000, 0, 0), watched(100, 0, 3)), "three of a hundred come by chance");
        assert!(!breached(watched(99, 0, 0), watched(1_000, 0, 50)));
        assert_eq!(
            found(&watched(1_000, 0, 0), &watched(1_000, 0, 50), true).len(),
            1,
            "a plain update looks at errors only"
        );
    }

    #[test]
    fn drift_says_what_and_how_far() {
        let with = |shift: f64| {
            let mut watched = watched(200, 0, 0);
            let output = |at: u32| SampledOutput {
                content_type: Some("text/csv".into()),
                body: (f64::from(at) / 200.0 + shift).to_string().into(),
            };
            watched.outputs.add(&(0..200).map(output).collect::<Vec<_>>());
            watched
        };
        let findings = judge(&GuardSettings::default(), &with(0.0), &with(0.6), false);
        let text = breach(&findings).unwrap();
        assert!(text.contains("output drift") && text.contains("0.60") && text.contains("0.35"), "{text}");
        assert_eq!(breach(&judge(&GuardSettings::default(), &with(0.0), &with(0.1), false)), None);
    }

    #[test]
    fn guards_can_be_turned_off() {
        let off = GuardSettings {
            max_error_rate: 0.0,
            max_error_rate_increase: 0.0,
            max_p99_ratio: 0.0,
            max_output_distance: 0.0,
            ..GuardSettings::default()
        };
        assert_eq!(judge(&off, &watched(100, 0, 0), &watched(100, 100, 100), false), []);
        assert_eq!(judge(&off, &watched(100, 0, 0), &watched(100, 100, 100), true), []);
    }
}
