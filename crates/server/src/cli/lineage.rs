//! `modelyard lineage`: what came from an object of S3.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard lineage`.
#[derive(clap::Args)]
pub struct Flags {
    /// URI of an object, or of a folder, for example s3://bucket/data/train.csv
    uri: String,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn lineage(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        let answer = client.call("Modelyard.TraceObject", &json!({"Uri": flags.uri})).await?;
        match flags.output {
            Format::Json => output::json(&answer["Traces"]),
            Format::Table => print(&flags.uri, &answer),
        }
        Ok(())
    })
}

fn print(uri: &str, answer: &Value) {
    let traces = answer["Traces"].as_array().map_or(&[][..], Vec::as_slice);
    if traces.is_empty() {
        return output::line(&format!("No recorded job or model has seen {uri}."));
    }
    for (at, trace) in traces.iter().enumerate() {
        if at > 0 {
            output::line("");
        }
        let version = match trace["Version"].as_str() {
            Some("current") => "as the object is now",
            Some("earlier") => "as the object was before it was written again",
            _ => "whether the object has changed since is not known",
        };
        output::line(&format!("In {} ({version}):", text(&trace["Source"]["Source"])));
        let descendants = trace["Descendants"].as_array().map_or(&[][..], Vec::as_slice);
        let rows: Vec<Vec<String>> = descendants
            .iter()
            .map(|one| {
                vec![
                    text(&one["Type"]),
                    match one["Source"].as_str() {
                        Some(source) => source.to_owned(),
                        None => text(&one["Arn"]),
                    },
                    output::time(one["CreationTime"].as_f64()),
                ]
            })
            .collect();
        match rows.is_empty() {
            true => output::line("Nothing came from it."),
            false => output::table(&["WHAT CAME FROM IT", "WHICH", "RECORDED (UTC)"], &rows),
        }
    }
}
