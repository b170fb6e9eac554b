//! `modelyard endpoints models`: which models of a multi-model endpoint are loaded.

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Shows the loaded models of an endpoint.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn show(client: &Client, name: &str, format: Format) -> Result<(), String> {
    let shown = client.call("Modelyard.DescribeEndpointModels", &json!({"EndpointName": name})).await?;
    if format == Format::Json {
        output::json(&shown);
        return Ok(());
    }
    let variants = rows(&shown["Variants"], |variant| {
        let wait = |share: &str| milliseconds(&variant["LoadingWaitSeconds"][share]);
        vec![
            text(&variant["VariantName"]),
            variant["LoadedModels"].to_string(),
            size(&variant["LoadedBytes"]),
            variant["Hits"].to_string(),
            variant["Misses"].to_string(),
            format!("{} / {}", wait("P50"), wait("P99")),
        ]
    });
    if variants.is_empty() {
        output::line("The endpoint has no variant of many models.");
        return Ok(());
    }
    output::table(&["VARIANT", "LOADED", "SIZE", "HITS", "MISSES", "COLD LOAD P50 / P99"], &variants);
    let models = rows(&shown["Models"], |model| {
        vec![
            text(&model["Model"]),
            text(&model["Status"]).to_lowercase(),
            text(&model["Engine"]),
            size(&model["Bytes"]),
            model["Hits"].to_string(),
            format!("{:.0} s", model["IdleSeconds"].as_f64().unwrap_or_default()),
        ]
    });
    if !models.is_empty() {
        output::line("");
        output::table(&["MODEL", "STATUS", "ENGINE", "SIZE", "HITS", "IDLE"], &models);
    }
    Ok(())
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn milliseconds(seconds: &Value) -> String {
    format!("{:.1} ms", seconds.as_f64().unwrap_or_default() * 1e3)
}

fn size(bytes: &Value) -> String {
    let bytes = bytes.as_f64().unwrap_or_default();
    if bytes < 1024.0 * 1024.0 {
        format!("{:.1} KiB", bytes / 1024.0)
    } else {
        format!("{:.1} MiB", bytes / (1024.0 * 1024.0))
    }
}
