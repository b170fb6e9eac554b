//! Labels of results, with what `${…}` in them stands for.

use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use wire::Caller;

use super::data::MetricQuery;
use super::math::Points;
use super::refusal::{Refusal, Result};

/// What a label can tell beside its series.
pub(super) struct Properties<'a> {
    /// The query, where it is a metric.
    pub(super) metric: Option<&'a MetricQuery>,
    /// Whose it is.
    pub(super) caller: &'a Caller,
    /// Time zone of moments, in minutes east of UTC.
    pub(super) offset_minutes: i32,
}

/// Reads a time zone such as `+0130`.
pub(super) fn offset_minutes(text: &str) -> Result<i32> {
    let wrong = || {
        Refusal::Validation(format!(
            "The value {text} for parameter LabelOptions.Timezone is invalid; it must look like +0130."
        ))
    };
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return Err(wrong()),
    };
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i32 = digits.parse().map_err(|_| wrong())?;
    let (hours, minutes) = (number / 100, number % 100);
    if hours > 23 || minutes > 59 { Err(wrong()) } else { Ok(sign * (hours * 60 + minutes)) }
}

/// Replaces every `${…}`; `default` is what `${LABEL}` stands for.
pub(super) fn fill(
    template: &str,
    default: &str,
    points: &Points,
    properties: &Properties<'_>,
) -> Result<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            return Err(Refusal::Validation(format!("The label {template:?} has a ${{ without a }}.")));
        };
        filled.push_str(before);
        filled.push_str(&value(name.trim(), default, points, properties)?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(name: &str, default: &str, points: &Points, properties: &Properties<'_>) -> Result<String> {
    let by_value = |left: &&(i64, f64), right: &&(i64, f64)| left.1.total_cmp(&right.1);
    let point = |name: &str| match name {
        "FIRST" => points.first(),
        "LAST" => points.last(),
        "MIN" => points.iter().min_by(by_value),
        "MAX" => points.iter().max_by(by_value),
        _ => None,
    };
    let sum = || points.iter().map(|(_, value)| value).sum::<f64>();
    let known = match name {
        "LABEL" => default.to_owned(),
        "DATAPOINT_COUNT" => points.len().to_string(),
        "SUM" => number(sum()),
        "AVG" if points.is_empty() => "-".into(),
        "AVG" => number(sum() / points.len() as f64),
        "FIRST" | "LAST" | "MIN" | "MAX" => point(name).map_or("-".into(), |(_, value)| number(*value)),
        "FIRST_TIME" | "LAST_TIME" | "MIN_TIME" | "MAX_TIME" => {
            let found = point(name.trim_end_matches("_TIME"));
            found.map_or("-".into(), |(at, _)| moment(*at, properties.offset_minutes))
        }
        _ => match name.strip_prefix("PROP('").and_then(|rest| rest.strip_suffix("')")) {
            Some(property) => return prop(property, properties),
            None => {
                return Err(Refusal::Validation(format!(
                    "Modelyard does not know ${{{name}}} in a label; leave it out."
                )));
            }
        },
    };
    Ok(known)
}

fn prop(name: &str, properties: &Properties<'_>) -> Result<String> {
    let metric = properties.metric;
    let dimension = |wanted: &str| {
        let dimensions = &metric?.metric.dimensions;
        dimensions.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    };
    let found = match name {
        "AccountId" => Some(properties.caller.account.clone()),
        "Region" => Some(properties.caller.region.clone()),
        "MetricName" => metric.map(|metric| metric.metric.name.clone()),
        "Namespace" => metric.map(|metric| metric.metric.namespace.clone()),
        "Period" => metric.map(|metric| metric.period_seconds.to_string()),
        "Stat" => metric.map(|metric| metric.statistic_name.clone()),
        _ => match name.strip_prefix("Dim.") {
            Some(wanted) => dimension(wanted),
            None => {
                return Err(Refusal::Validation(format!(
                    "There is no property {name:?}; a label can show AccountId, Region, MetricName, Namespace, Period, Stat and Dim.NAME."
                )));
            }
        },
    };
    Ok(found.unwrap_or_default())
}

/// At most three digits behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn moment(seconds: i64, offset_minutes: i32) -> String {
    let format = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory]:[offset_minute]"
    );
    let offset = UtcOffset::from_whole_seconds(offset_minutes * 60).unwrap_or(UtcOffset::UTC);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.to_offset(offset).format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, points: &[(i64, f64)]) -> Result<String> {
        let caller = Caller {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            principal_arn: String::new(),
            principal_id: String::new(),
            access_key_id: String::new(),
            session_tags: Default::default(),
        };
        let properties = Properties { metric: None, caller: &caller, offset_minutes: 90 };
        fill(template, "loss", &points.to_vec(), &properties)
    }

    #[test]
    fn labels_tell_of_their_series() {
        let points = [(0, 4.0), (60, 1.0 / 3.0), (120, 2.0)];
        for (template, expected) in [
            ("plain", "plain"),
            ("${LABEL} in ${PROP('Region')}", "loss in eu-west-1"),
            ("${MIN}..${MAX}, last ${LAST}", "0.333..4, last 2"),
            ("${SUM} of ${DATAPOINT_COUNT}", "6.333 of 3"),
            ("${MIN_TIME}", "1970-01-01 01:31:00 +01:30"),
            ("${PROP('Dim.x')}", ""),
        ] {
            assert_eq!(filled(template, &points).unwrap(), expected);
        }
        assert_eq!(filled("${AVG} ${MAX}", &[]).unwrap(), "- -");
        for wrong in ["${", "${NOSUCH}", "${PROP('Color')}"] {
            assert!(filled(wrong, &points).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_zones_are_hours_and_minutes() {
        assert_eq!(offset_minutes("+0130").ok(), Some(90));
        assert_eq!(offset_minutes("-0800").ok(), Some(-480));
        for wrong in ["", "0130", "+130", "+2400", "+0160", "+ 130", "é0000"] {
            assert!(offset_minutes(wrong).is_err(), "{wrong}");
        }
    }
}
