//! Why an alarm is in its state: a sentence for people and a document for programs, in the words of the service.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::State;
use super::judge::{Condition, Missing};
use super::plan::Plan;

/// Longest document, in bytes.
const MOST_BYTES: usize = 4_000;

/// Longest sentence, in characters.
const MOST_CHARACTERS: usize = 1_023;

/// Data points that a sentence or a document shows.
const MOST_POINTS: usize = 20;

/// A data point that was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Start of its period, seconds since 1970.
    pub(super) at_seconds: i64,
    pub(super) value: f64,
    /// How many values it stands for, where that is known.
    pub(super) samples: Option<f64>,
}

/// The sentence for a new state.
pub(super) fn sentence(condition: &Condition, state: State, judged: &[Point], filled: usize) -> String {
    if state == State::InsufficientData {
        let were = if filled == 1 { "datapoint was" } else { "datapoints were" };
        return format!("Insufficient Data: {filled} {were} unknown.");
    }
    let treated = match condition.missing {
        Missing::Breaching => "Breaching",
        Missing::NotBreaching => "NonBreaching",
        Missing::Unknown => "Missing",
        Missing::Ignore => "Ignored",
    };
    let missing = |filled: usize| {
        let were = if filled == 1 { "datapoint was" } else { "datapoints were" };
        format!("{filled} missing {were} treated as [{treated}]")
    };
    if judged.is_empty() {
        let periods = if filled == 1 { "period" } else { "periods" };
        return format!(
            "Threshold Crossed: no datapoints were received for {filled} {periods} and {}.",
            missing(filled)
        );
    }
    let is_alarm = state == State::Alarm;
    let telling: Vec<&Point> =
        judged.iter().filter(|point| condition.breaches(point.value) == is_alarm).collect();
    // An OK for lack of breaching data points may have nothing but those.
    let telling = if telling.is_empty() { judged.iter().collect() } else { telling };
    let first = telling.len().saturating_sub(MOST_POINTS);
    let shown: Vec<String> = telling[first..].iter().rev().map(|point| shown(point)).collect();
    let were = if telling.len() == 1 { "was" } else { "were" };
    let not = if condition.breaches(telling[0].value) { "" } else { "not " };
    let total = judged.len();
    let count = telling.len();
    let points = if total == 1 { "datapoint" } else { "datapoints" };
    let (least, change) = match is_alarm {
        true => (condition.datapoints_to_alarm, "OK -> ALARM"),
        false => (condition.evaluation_periods - condition.datapoints_to_alarm + 1, "ALARM -> OK"),
    };
    let needed = if least == 1 { "datapoint" } else { "datapoints" };
    let also = if filled > 0 { format!(" and {}", missing(filled)) } else { String::new() };
    let text = format!(
        "Threshold Crossed: {count} out of the last {total} {points} [{}] {were} {not}{} the threshold ({:?}){also} \
         (minimum {least} {needed} for {change} transition).",
        shown.join(", "),
        condition.comparison.words(),
        condition.threshold,
    );
    text.chars().take(MOST_CHARACTERS).collect()
}

fn shown(point: &Point) -> String {
    let format = format_description!("[day]/[month]/[year repr:last_two] [hour]:[minute]:[second]");
    let at = at(point.at_seconds * 1000).format(format).unwrap_or_default();
    format!("{:?} ({at})", point.value)
}

/// The document for a new state of an alarm over metrics.
pub(super) fn data(plan: &Plan, start_seconds: i64, judged: &[Point], now_ms: i64) -> String {
    let judged = &judged[judged.len().saturating_sub(MOST_POINTS)..];
    let mut data = json!({
        "version": "1.0",
        "queryDate": moment(now_ms),
        "startDate": moment(judged.first().map_or(start_seconds, |point| point.at_seconds) * 1000),
        "period": plan.period_seconds,
        "recentDatapoints": judged.iter().map(|point| point.value).collect::<Vec<_>>(),
        "threshold": plan.condition.threshold,
    });
    if !plan.is_math {
        let metric = &plan.metrics[0];
        data["statistic"] = json!(metric.statistic_name);
        if let Some(unit) = &metric.unit {
            data["unit"] = json!(unit);
        }
    }
    let evaluated = judged.iter().rev().map(|point| {
        let mut one = json!({"timestamp": moment(point.at_seconds * 1000), "value": point.value});
        if let Some(samples) = point.samples {
            one["sampleCount"] = json!(samples);
        }
        one
    });
    let evaluated: Vec<Value> = evaluated.collect();
    if !evaluated.is_empty() {
        data["evaluatedDatapoints"] = json!(evaluated);
    }
    let text = data.to_string();
    if text.len() <= MOST_BYTES {
        return text;
    }
    if let Some(members) = data.as_object_mut() {
        members.remove("evaluatedDatapoints");
    }
    data.to_string()
}

/// The sentence for a new state of a composite alarm, by the alarm that moved last.
pub(super) fn of_child(arn: &str, state: State, at_ms: i64) -> String {
    let format =
        format_description!("[weekday] [day] [month repr:long], [year] [hour]:[minute]:[second] UTC");
    format!("{arn} transitioned to {} at {}", state.as_str(), at(at_ms).format(format).unwrap_or_default())
}

/// The document for a new state of a composite alarm: the alarms that it follows, the newest first.
pub(super) fn of_children(children: &[(String, State, i64)]) -> String {
    let mut shown = Vec::new();
    let mut length = 0;
    for (arn, state, at_ms) in children {
        let one = json!({"arn": arn, "state": {"value": state.as_str(), "timestamp": moment(*at_ms)}});
        length += one.to_string().len() + 1;
        if length > MOST_BYTES - 100 {
            break;
        }
        shown.push(one);
    }
    json!({"triggeringAlarms": shown}).to_string()
}

/// A moment as documents of alarms have it.
pub(super) fn moment(ms: i64) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]+0000");
    at(ms).format(format).unwrap_or_default()
}

fn at(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::super::judge::Comparison;
    use super::*;

    fn condition(evaluation_periods: usize, datapoints_to_alarm: usize, missing: Missing) -> Condition {
        let comparison = Comparison::Greater;
        Condition { comparison, threshold: 50.0, evaluation_periods, datapoints_to_alarm, missing }
    }

    fn point(at_seconds: i64, value: f64) -> Point {
        Point { at_seconds, value, samples: Some(1.0) }
    }

    #[test]
    fn sentences_are_those_of_the_service() {
        let one = condition(1, 1, Missing::Unknown);
        let at = 1_570_035_540;
        assert_eq!(
            sentence(&one, State::Alarm, &[point(at, 99.501_602_296_934_34)], 0),
            "Threshold Crossed: 1 out of the last 1 datapoint [99.50160229693434 (02/10/19 16:59:00)] was greater than the \
             threshold (50.0) (minimum 1 datapoint for OK -> ALARM transition)."
        );
        assert_eq!(
            sentence(&one, State::Ok, &[point(at, 0.5)], 0),
            "Threshold Crossed: 1 out of the last 1 datapoint [0.5 (02/10/19 16:59:00)] was not greater than the threshold (50.0) \
             (minimum 1 datapoint for ALARM -> OK transition)."
        );
        assert_eq!(
            sentence(&one, State::InsufficientData, &[], 1),
            "Insufficient Data: 1 datapoint was unknown."
        );
        let three = condition(3, 2, Missing::Breaching);
        assert_eq!(
            sentence(&three, State::Alarm, &[], 3),
            "Threshold Crossed: no datapoints were received for 3 periods and 3 missing datapoints were treated as [Breaching]."
        );
        let text = sentence(&three, State::Alarm, &[point(at - 60, 1.0), point(at, 60.0)], 1);
        assert!(
            text.contains("1 out of the last 2 datapoints [60.0 (02/10/19 16:59:00)] was greater than"),
            "{text}"
        );
        assert!(
            text.contains("and 1 missing datapoint was treated as [Breaching] (minimum 2 datapoints"),
            "{text}"
        );
    }

    #[test]
    fn moments_have_milliseconds() {
        assert_eq!(moment(1_570_035_880_989), "2019-10-02T17:04:40.989+0000");
        assert_eq!(
            of_child("arn", State::Alarm, 1_658_505_465_394),
            "arn transitioned to ALARM at Friday 22 July, 2022 15:57:45 UTC"
        );
    }
}
