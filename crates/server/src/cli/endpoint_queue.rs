//! `modelyard endpoints queue`: who waits at an asynchronous endpoint.

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Shows the line of an endpoint.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn show(client: &Client, name: &str, format: Format) -> Result<(), String> {
    let input = json!({"EndpointName": name});
    let queue = client.call("Modelyard.DescribeAsyncQueue", &input).await?["Queue"].take();
    if format == Format::Json {
        output::json(&queue);
        return Ok(());
    }
    output::fields(&[
        ("Waiting", queue["Waiting"].to_string()),
        ("Running", queue["Running"].to_string()),
        ("Longest wait", queue["OldestRequestAgeSeconds"].as_f64().map(seconds).unwrap_or_default()),
        ("Instances", rows(&queue["Variants"], instances).join(", ")),
    ]);
    let shown = rows(&queue["Requests"], |request| {
        vec![
            request["Position"]
                .as_i64()
                .map_or_else(|| "running".to_owned(), |position| position.to_string()),
            text(&request["InferenceId"]),
            output::time(request["AcceptedAt"].as_f64()),
            request["ExpiresInSeconds"].as_f64().map(seconds).unwrap_or_default(),
            text(&request["OutputLocation"]),
        ]
    });
    if !shown.is_empty() {
        output::line("");
        output::table(&["POSITION", "INFERENCE ID", "ACCEPTED (UTC)", "EXPIRES IN", "OUTPUT"], &shown);
    }
    Ok(())
}

fn rows<T>(list: &Value, row: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn instances(variant: &Value) -> String {
    format!(
        "{} of {} with {} at once",
        variant["Instances"],
        text(&variant["VariantName"]),
        variant["MaxConcurrentInvocationsPerInstance"]
    )
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.0} s")
}
