//! `modelyard endpoints` and `modelyard models`: list, show, delete.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard endpoints`.
#[derive(clap::Args)]
pub struct EndpointFlags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

/// Flags of `modelyard models`.
#[derive(clap::Args)]
pub struct ModelFlags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List all (what the command does by itself)
    List,
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// Delete one
    Delete {
        /// Its name
        name: String,
    },
}

/// Runs `modelyard endpoints`.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn endpoints(data_dir: &Path, flags: EndpointFlags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => {
                let found =
                    client.list("SageMaker.ListEndpoints", json!({"MaxResults": 100}), "Endpoints").await?;
                list(found, flags.output, &["NAME", "STATUS", "CREATED (UTC)"], |row| {
                    vec![
                        text(&row["EndpointName"]),
                        text(&row["EndpointStatus"]),
                        output::time(row["CreationTime"].as_f64()),
                    ]
                });
            }
            Command::Show { name } => {
                let shown = client.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": name})).await?;
                if flags.output == Format::Json {
                    output::json(&shown);
                } else {
                    show_endpoint(&shown);
                }
            }
            Command::Delete { name } => {
                client.call("SageMaker.DeleteEndpoint", &json!({"EndpointName": name})).await?;
                output::line(&format!("{name} is being deleted"));
            }
        }
        Ok(())
    })
}

fn show_endpoint(shown: &Value) {
    output::fields(&[
        ("Name", text(&shown["EndpointName"])),
        ("Status", text(&shown["EndpointStatus"])),
        ("Configuration", text(&shown["EndpointConfigName"])),
        ("Created", output::time(shown["CreationTime"].as_f64())),
        ("Why it failed", text(&shown["FailureReason"])),
    ]);
    let none = Vec::new();
    let variants = shown["ProductionVariants"].as_array().unwrap_or(&none);
    let rows: Vec<Vec<String>> = variants
        .iter()
        .map(|variant| {
            vec![
                text(&variant["VariantName"]),
                variant["CurrentWeight"].to_string(),
                format!("{} of {}", variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]),
            ]
        })
        .collect();
    output::line("");
    output::table(&["VARIANT", "WEIGHT", "INSTANCES"], &rows);
}

/// Runs `modelyard models`.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn models(data_dir: &Path, flags: ModelFlags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => {
                let found = client.list("SageMaker.ListModels", json!({"MaxResults": 100}), "Models").await?;
                list(found, flags.output, &["NAME", "CREATED (UTC)"], |row| {
                    vec![text(&row["ModelName"]), output::time(row["CreationTime"].as_f64())]
                });
            }
            Command::Show { name } => {
                let shown = client.call("SageMaker.DescribeModel", &json!({"ModelName": name})).await?;
                if flags.output == Format::Json {
                    output::json(&shown);
                } else {
                    let container = crate::sagemaker::models::container(&shown);
                    output::fields(&[
                        ("Name", text(&shown["ModelName"])),
                        ("Image", text(&container["Image"])),
                        (
                            "Data",
                            crate::sagemaker::models::model_data(container).unwrap_or_default().to_owned(),
                        ),
                        ("Role", text(&shown["ExecutionRoleArn"])),
                        ("Created", output::time(shown["CreationTime"].as_f64())),
                    ]);
                }
            }
            Command::Delete { name } => {
                client.call("SageMaker.DeleteModel", &json!({"ModelName": name})).await?;
                output::line(&format!("{name} is deleted"));
            }
        }
        Ok(())
    })
}

fn list(found: Vec<Value>, format: Format, headings: &[&str], row: impl Fn(&Value) -> Vec<String>) {
    if format == Format::Json {
        output::json(&Value::Array(found));
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        output::table(headings, &rows);
    }
}
