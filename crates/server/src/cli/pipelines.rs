//! `modelyard pipelines`: an execution as a tree with what each step waits for, and the differences of two.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};
use crate::pipelines::diff;

/// Flags of `modelyard pipelines`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
    /// Text for people, or JSON
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show every step of an execution, what it waits for, and why a result was reused or not
    Show {
        /// ARN or id of the execution
        execution: String,
    },
    /// Show what differs between two executions
    Diff {
        /// ARN or id of the first execution
        left: String,
        /// ARN or id of the second execution
        right: String,
    },
}

/// Runs `modelyard pipelines`.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn pipelines(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command {
            Command::Show { execution } => {
                let explanation = explain(&client, &execution).await?;
                match flags.output {
                    Format::Json => output::json(&explanation),
                    Format::Table => show(&explanation),
                }
            }
            Command::Diff { left, right } => {
                let (left, right) = (explain(&client, &left).await?, explain(&client, &right).await?);
                let lines = diff::differences(&left, &right);
                match flags.output {
                    Format::Json => output::json(&json!(lines)),
                    Format::Table if lines.is_empty() => output::line("The executions are alike."),
                    Format::Table => lines.iter().for_each(|line| output::line(line)),
                }
            }
        }
        Ok(())
    })
}

async fn explain(client: &Client, execution: &str) -> Result<Value, String> {
    let input = json!({"Execution": execution});
    Ok(client.call("Modelyard.ExplainPipelineExecution", &input).await?["Explanation"].take())
}

fn show(explanation: &Value) {
    let version = &explanation["PipelineVersionId"];
    let (name, status) = (text(&explanation["PipelineName"]), text(&explanation["Status"]));
    output::line(&format!("{name}, version {version}: {status}"));
    if let Some(reason) = explanation["FailureReason"].as_str() {
        output::line(&format!("  {reason}"));
    }
    let steps = explanation["Steps"].as_array().cloned().unwrap_or_default();
    for step in steps.iter().filter(|step| step["Branch"].is_null()) {
        show_step(&steps, step, 1);
    }
}

/// A step, and below a Condition the steps of its branches.
fn show_step(steps: &[Value], step: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let status = step["Status"].as_str().filter(|status| !status.is_empty()).unwrap_or("Pending");
    let mut notes = Vec::new();
    if step["Attempt"].as_u64().is_some_and(|attempt| attempt > 1) {
        notes.push(format!("attempt {}", step["Attempt"]));
    }
    if let Some(outcome) = step["Metadata"]["Condition"]["Outcome"].as_str() {
        notes.push(format!("came to {outcome}"));
    }
    if !step["CachedFrom"].is_null() {
        notes.push("reused".to_owned());
    }
    if !step["SelectedFrom"].is_null() {
        notes.push("taken from the source execution".to_owned());
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    output::line(&format!("{indent}{} [{}] {status}{notes}", text(&step["Name"]), text(&step["Type"])));
    let why = text(&step["Why"]);
    if !why.is_empty() {
        output::line(&format!("{indent}    {why}"));
    }
    for reason in step["Receipt"]["reasons"].as_array().into_iter().flatten() {
        output::line(&format!("{indent}    cache: {}", text(reason)));
    }
    let name = &step["Name"];
    for (side, word) in [(true, "if"), (false, "else")] {
        let inner: Vec<&Value> = steps.iter().filter(|one| one["Branch"] == json!([name, side])).collect();
        if !inner.is_empty() {
            output::line(&format!("{indent}  {word}:"));
            inner.into_iter().for_each(|one| show_step(steps, one, depth + 2));
        }
    }
}
