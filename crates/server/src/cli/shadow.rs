//! `modelyard endpoints shadow`: what a shadow variant answers beside production.

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Shows the shadow of an endpoint.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn show(client: &Client, name: &str, format: Format) -> Result<(), String> {
    let input = json!({"EndpointName": name});
    let shadow = client.call("Modelyard.DescribeShadow", &input).await?["Shadow"].take();
    if format == Format::Json {
        output::json(&shadow);
        return Ok(());
    }
    let since = output::time(shadow["Since"].as_f64());
    let state = match shadow["IsRunning"].as_bool().unwrap_or_default() {
        true => format!("{} of the requests are copied", percent(&shadow["SharePercent"], 1.0)),
        false => "ended".to_owned(),
    };
    output::fields(&[
        ("State", state),
        ("Since (UTC)", since),
        ("Compared", shadow["Requests"].to_string()),
        ("Equal", shadow["Equal"].to_string()),
        ("Different", format!("{} ({})", shadow["Different"], percent(&shadow["DifferentRate"], 100.0))),
        ("Failed", failed(&shadow)),
        ("Dropped", shadow["Dropped"].to_string()),
        ("Labels apart", percent(&shadow["LabelDisagreementRate"], 100.0)),
        ("Numbers apart", apart(&shadow)),
    ]);
    output::line("");
    let rows: Vec<Vec<String>> = each(&shadow["Latencies"])
        .map(|one| {
            let of = |name: &str| {
                one[name].as_f64().map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} ms"))
            };
            vec![
                text(&one["VariantName"]),
                of("P50Milliseconds"),
                of("P95Milliseconds"),
                of("P99Milliseconds"),
            ]
        })
        .collect();
    output::table(&["LATENCY OF", "P50", "P95", "P99"], &rows);
    let examples: Vec<Vec<String>> = each(&shadow["Examples"])
        .map(|one| {
            vec![
                output::time(one["AtMs"].as_f64().map(|at| at / 1000.0)),
                text(&one["RequestId"]),
                text(&one["Outcome"]),
                text(&one["Text"]),
            ]
        })
        .collect();
    if !examples.is_empty() {
        output::line("");
        output::table(&["AT (UTC)", "REQUEST", "OUTCOME", "WHAT"], &examples);
    }
    output::line("");
    output::line(&text(&shadow["Sentence"]));
    Ok(())
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn failed(shadow: &Value) -> String {
    format!(
        "the shadow alone {}, production alone {}, both {}",
        shadow["ShadowFailed"], shadow["ProductionFailed"], shadow["BothFailed"]
    )
}

fn apart(shadow: &Value) -> String {
    let of = |name: &str| shadow[name].as_f64();
    match of("MeanAbsoluteDifference").zip(of("MaxAbsoluteDifference")) {
        Some((mean, most)) => format!("{mean:.4e} on average, {most:.4e} at most"),
        None => "no numbers were compared".to_owned(),
    }
}

fn percent(share: &Value, factor: f64) -> String {
    share.as_f64().map_or_else(|| "unknown".to_owned(), |share| format!("{:.1} %", share * factor))
}
