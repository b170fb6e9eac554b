//! `modelyard alarms`: how alarms stand, what they watch, and what happened to them.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard alarms`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the alarms with their states and newest values (what the command does by itself)
    List,
    /// Say what happened to an alarm, or to all of them, newest first
    History {
        /// Name of the alarm
        name: Option<String>,
    },
}

/// Periods that a sparkline shows.
const SPARKS: i64 = 20;

/// From the least value to the greatest.
const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Longest reason in a table, in characters.
const REASON_CHARACTERS: usize = 100;

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn alarms(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => list(&client, flags.output).await,
            Command::History { name } => history(&client, name, flags.output).await,
        }
    })
}

async fn list(client: &Client, format: Format) -> Result<(), String> {
    let target = "GraniteServiceVersion20100801.DescribeAlarms";
    let of = |kind: &str| json!({"AlarmTypes": [kind], "MaxRecords": 100});
    let mut found = client.list(target, of("MetricAlarm"), "MetricAlarms").await?;
    found.extend(client.list(target, of("CompositeAlarm"), "CompositeAlarms").await?);
    if format == Format::Json {
        output::json(&Value::Array(found));
        return Ok(());
    }
    let mut rows = Vec::with_capacity(found.len());
    for alarm in &found {
        let values = values(client, alarm).await?;
        let last = values.last().map(|value| short(*value)).unwrap_or_default();
        rows.push(vec![
            text(&alarm["AlarmName"]),
            text(&alarm["StateValue"]),
            output::time(alarm["StateTransitionedTimestamp"].as_f64()),
            condition(alarm),
            last,
            sparkline(&values),
            text(&alarm["StateReason"]).chars().take(REASON_CHARACTERS).collect(),
        ]);
    }
    output::table(&["ALARM", "STATE", "SINCE", "CONDITION", "LAST", "", "REASON"], &rows);
    Ok(())
}

/// The newest values of what an alarm over metrics watches, oldest first.
async fn values(client: &Client, alarm: &Value) -> Result<Vec<f64>, String> {
    let metrics = match alarm["Metrics"].as_array() {
        Some(metrics) => metrics.clone(),
        None if alarm["MetricName"].is_null() => return Ok(Vec::new()),
        None => {
            let statistic = if alarm["Statistic"].is_null() { "ExtendedStatistic" } else { "Statistic" };
            let metric = json!({
                "Namespace": alarm["Namespace"], "MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"],
            });
            let mut stat = json!({"Metric": metric, "Period": alarm["Period"], "Stat": alarm[statistic]});
            if !alarm["Unit"].is_null() {
                stat["Unit"] = alarm["Unit"].clone();
            }
            vec![json!({"Id": "m", "MetricStat": stat})]
        }
    };
    let periods = metrics.iter().filter_map(|one| one["MetricStat"]["Period"].as_i64());
    let period_seconds = periods.min().unwrap_or(60);
    let now_seconds = store::Clock::system().now_ms() / 1000;
    let input = json!({
        "MetricDataQueries": metrics,
        "StartTime": now_seconds - now_seconds % period_seconds - SPARKS * period_seconds,
        "EndTime": now_seconds,
        "ScanBy": "TimestampAscending",
    });
    let answer = client.call("GraniteServiceVersion20100801.GetMetricData", &input).await?;
    let values = answer["MetricDataResults"][0]["Values"].as_array().cloned().unwrap_or_default();
    Ok(values.iter().filter_map(Value::as_f64).collect())
}

fn condition(alarm: &Value) -> String {
    if !alarm["AlarmRule"].is_null() {
        return text(&alarm["AlarmRule"]);
    }
    let operator = match alarm["ComparisonOperator"].as_str().unwrap_or_default() {
        "GreaterThanOrEqualToThreshold" => ">=",
        "GreaterThanThreshold" => ">",
        "LessThanThreshold" => "<",
        _ => "<=",
    };
    let periods = alarm["EvaluationPeriods"].as_i64().unwrap_or(1);
    let points = alarm["DatapointsToAlarm"].as_i64().unwrap_or(periods);
    let threshold = short(alarm["Threshold"].as_f64().unwrap_or_default());
    let metrics = alarm["Metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
    let returned = metrics.iter().find(|one| one["ReturnData"] != json!(false));
    let watched = match returned {
        Some(one) if !one["Expression"].is_null() => text(&one["Expression"]),
        Some(one) => text(&one["MetricStat"]["Metric"]["MetricName"]),
        None => text(&alarm["MetricName"]),
    };
    format!("{watched} {operator} {threshold}, {points} of {periods}")
}

/// At most three digits behind the point.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A mark for each value, from the least to the greatest of them.
fn sparkline(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mark = |value: &f64| {
        let part = if greatest > least { (value - least) / (greatest - least) } else { 0.0 };
        MARKS[((part * (MARKS.len() - 1) as f64).round() as usize).min(MARKS.len() - 1)]
    };
    values.iter().map(mark).collect()
}

async fn history(client: &Client, name: Option<String>, format: Format) -> Result<(), String> {
    let mut input = json!({"MaxRecords": 100});
    if let Some(name) = name {
        input["AlarmName"] = name.into();
    }
    let target = "GraniteServiceVersion20100801.DescribeAlarmHistory";
    let found = client.list(target, input, "AlarmHistoryItems").await?;
    if format == Format::Json {
        output::json(&Value::Array(found));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|item| {
            let data: Value =
                serde_json::from_str(item["HistoryData"].as_str().unwrap_or_default()).unwrap_or_default();
            vec![
                output::time(item["Timestamp"].as_f64()),
                text(&item["AlarmName"]),
                text(&item["HistorySummary"]),
                text(&data["newState"]["stateReason"]).chars().take(REASON_CHARACTERS).collect(),
            ]
        })
        .collect();
    output::table(&["TIME", "ALARM", "WHAT", "REASON"], &rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_go_from_the_least_to_the_greatest_value() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[3.0, 3.0]), "▁▁");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0, 2.0]), "▁▃▅█");
    }

    #[test]
    fn conditions_say_what_is_watched() {
        let alarm = json!({
            "MetricName": "loss", "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0.5, "EvaluationPeriods": 3,
            "DatapointsToAlarm": 2,
        });
        assert_eq!(condition(&alarm), "loss > 0.5, 2 of 3");
        assert_eq!(condition(&json!({"AlarmRule": "ALARM(a)"})), "ALARM(a)");
    }
}
