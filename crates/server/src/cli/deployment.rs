//! `modelyard endpoints deployment` and `compare`: where a new fleet stands, and which variant is better.

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Characters that stand for all of the traffic.
const WIDTH: f64 = 20.0;

/// Flags of `modelyard endpoints compare`.
#[derive(clap::Args)]
pub struct CompareFlags {
    /// Its name
    name: String,
    /// How far back
    #[arg(long, default_value_t = 24)]
    hours: u32,
    /// Name of an outcome that you put as a CloudWatch metric with the dimension `VariantName`
    #[arg(long, requires = "namespace")]
    metric: Option<String>,
    /// Its namespace
    #[arg(long, requires = "metric")]
    namespace: Option<String>,
}

/// Shows the deployment of an endpoint that goes on, and the last one.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn show(client: &Client, name: &str, format: Format) -> Result<(), String> {
    let asked = json!({"EndpointName": name});
    let shown = client.call("Modelyard.DescribeEndpointDeployment", &asked).await?["Deployment"].take();
    if format == Format::Json {
        output::json(&shown);
        return Ok(());
    }
    output::fields(&[
        ("Endpoint", text(&shown["EndpointName"])),
        ("Status", text(&shown["EndpointStatus"])),
        ("Configuration", text(&shown["EndpointConfigName"])),
    ]);
    let (current, last) = (&shown["Current"], &shown["Last"]);
    if current.is_object() {
        let title = format!(
            "NOW: {} takes over from {}",
            text(&current["EndpointConfigName"]),
            text(&current["PreviousEndpointConfigName"])
        );
        section(&title, current);
        let rows = rows(&current["Alarms"], |alarm| vec![text(&alarm["AlarmName"]), text(&alarm["State"])]);
        if !rows.is_empty() {
            output::line("");
            output::table(&["ALARM", "STATE"], &rows);
        }
    }
    if last.is_object() {
        let outcome = if last["Outcome"] == "Deployed" { "was deployed" } else { "was rolled back" };
        section(&format!("LAST: {} {outcome}", text(&last["EndpointConfigName"])), last);
    }
    if !current.is_object() && !last.is_object() {
        output::line("Nothing was deployed since the endpoint was made.");
    }
    Ok(())
}

fn section(title: &str, deployment: &Value) {
    output::line("");
    output::line(title);
    if let Some(reason) = deployment["Reason"].as_str() {
        output::line(reason);
    }
    let steps = rows(&deployment["Steps"], |step| {
        let percent = |member: &str| format!("{:.0} %", step[member].as_f64().unwrap_or_default() * 100.0);
        vec![
            output::time(step["StartTime"].as_f64()),
            text(&step["Stage"]),
            bar(step["TrafficShare"].as_f64().unwrap_or_default()),
            percent("TrafficShare"),
            percent("NewCapacity"),
            percent("OldCapacity"),
        ]
    });
    output::table(
        &["SINCE (UTC)", "STAGE", "TRAFFIC TO THE NEW FLEET", "", "NEW FLEET", "OLD FLEET"],
        &steps,
    );
    let guards = rows(&deployment["Guards"], |guard| {
        let state = match (guard["IsBreached"] == true, guard["Value"].is_null()) {
            (true, _) => "BREACHED",
            (false, true) => "waits",
            (false, false) => "ok",
        };
        vec![text(&guard["Guard"]), state.to_owned(), text(&guard["Text"])]
    });
    if !guards.is_empty() {
        output::line("");
        output::table(&["GUARD", "STATE", "WHAT IT SEES"], &guards);
    }
}

fn bar(share: f64) -> String {
    let full = (share * WIDTH).round() as usize;
    format!("{}{}", "#".repeat(full), ".".repeat((WIDTH as usize).saturating_sub(full)))
}

/// Compares the variants of an endpoint.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn compare(client: &Client, flags: &CompareFlags, format: Format) -> Result<(), String> {
    let mut asked = json!({"EndpointName": flags.name, "Hours": flags.hours});
    if let (Some(metric), Some(namespace)) = (&flags.metric, &flags.namespace) {
        asked["MetricName"] = metric.as_str().into();
        asked["Namespace"] = namespace.as_str().into();
    }
    let found = client.call("Modelyard.CompareEndpointVariants", &asked).await?["Comparison"].take();
    if format == Format::Json {
        output::json(&found);
        return Ok(());
    }
    let number = |value: &Value, digits: usize, unit: &str| {
        value.as_f64().map_or_else(String::new, |number| format!("{number:.digits$}{unit}"))
    };
    let percent =
        |value: &Value| value.as_f64().map_or_else(String::new, |part| format!("{:.2} %", part * 100.0));
    let variants = rows(&found["Variants"], |variant| {
        vec![
            text(&variant["VariantName"]),
            variant["Weight"].to_string(),
            number(&variant["Requests"], 0, ""),
            percent(&variant["Rate4XX"]),
            percent(&variant["Rate5XX"]),
            number(&variant["MedianMilliseconds"], 2, " ms"),
            number(&variant["P99Milliseconds"], 2, " ms"),
            number(&variant["OutcomeMean"], 4, ""),
        ]
    });
    output::table(&["VARIANT", "WEIGHT", "REQUESTS", "4XX", "5XX", "MEDIAN", "P99", "OUTCOME"], &variants);
    output::line("");
    let verdicts = rows(&found["Comparisons"], |one| text(&one["Verdict"]));
    if verdicts.is_empty() {
        output::line("The endpoint has one variant: there is nothing to compare it with.");
    }
    verdicts.iter().for_each(|verdict| output::line(verdict));
    Ok(())
}

fn rows<T>(list: &Value, row: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(row).collect()
}
