//! `modelyard endpoints` and `modelyard models`: list, show, delete.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Client;
use super::endpoint_queue;
use super::jobs::text;
use super::output::{self, Format};
use super::replay;

/// Flags of `modelyard endpoints`.
#[derive(clap::Args)]
pub struct EndpointFlags {
    #[command(subcommand)]
    command: Option<EndpointCommand>,
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
enum EndpointCommand {
    #[command(flatten)]
    Plain(Command),
    /// Show what scales an endpoint, what it did lately, and why it did not
    Scaling {
        /// Its name
        name: String,
    },
    /// Show which models of a multi-model endpoint are loaded, what they take, and how long others waited for theirs
    Models {
        /// Its name
        name: String,
    },
    /// Show who waits at an asynchronous endpoint, and since when
    Queue {
        /// Its name
        name: String,
    },
    /// Show where a deployment stands, what its guards say, and how the last one ended
    Deployment {
        /// Its name
        name: String,
    },
    /// Say whether the variants of an endpoint differ in errors, latency or an outcome of yours
    Compare(super::deployment::CompareFlags),
    /// Ask a candidate what the users of an endpoint asked, and compare the answers
    ///
    /// The endpoint must capture data, requests and answers. Code 1 says that answers differ or fail.
    Replay(replay::Flags),
    /// Show what the shadow variant of an endpoint answers beside production, and what that says
    Shadow {
        /// Its name
        name: String,
    },
    /// Print a key for clients of the open inference protocols
    Key(super::inference_key::Flags),
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
pub fn endpoints(data_dir: &Path, flags: EndpointFlags) -> Result<ExitCode, String> {
    let client = Client::open(data_dir)?;
    let command = match flags.command {
        Some(EndpointCommand::Replay(given)) => {
            return super::block_on(replay::replay(&client, &given, flags.output));
        }
        Some(EndpointCommand::Scaling { name }) => {
            super::block_on(super::scaling::show(&client, &name, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Deployment { name }) => {
            super::block_on(super::deployment::show(&client, &name, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Compare(given)) => {
            super::block_on(super::deployment::compare(&client, &given, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Models { name }) => {
            super::block_on(super::endpoint_models::show(&client, &name, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Key(flags)) => {
            super::inference_key::print(data_dir, &flags)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Queue { name }) => {
            super::block_on(endpoint_queue::show(&client, &name, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Shadow { name }) => {
            super::block_on(super::shadow::show(&client, &name, flags.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(EndpointCommand::Plain(command)) => command,
        None => Command::List,
    };
    super::block_on(async {
        match command {
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
                let asked = json!({"EndpointName": name});
                let mut shown = client.call("SageMaker.DescribeEndpoint", &asked).await?;
                let mut engines = client.call("Modelyard.DescribeEndpointEngines", &asked).await?;
                shown["Engines"] = engines["Engines"].take();
                shown["Batches"] = engines["Batches"].take();
                super::components::add(&client, &mut shown).await?;
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
        Ok(ExitCode::SUCCESS)
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
            let weight = variant["CurrentWeight"].as_f64().map(|weight| weight.to_string());
            vec![text(&variant["VariantName"]), weight.unwrap_or_default(), instances(variant)]
        })
        .collect();
    output::line("");
    output::table(&["VARIANT", "WEIGHT", "INSTANCES"], &rows);
    super::components::show(&shown["InferenceComponents"]);
    let engines = shown["Engines"].as_array().unwrap_or(&none);
    let rows: Vec<Vec<String>> = engines
        .iter()
        .map(|engine| vec![text(&engine["VariantName"]), text(&engine["Engine"]), text(&engine["Reason"])])
        .collect();
    if !rows.is_empty() {
        output::line("");
        output::table(&["VARIANT", "ENGINE", "WHY"], &rows);
    }
    let batches = shown["Batches"].as_array().unwrap_or(&none);
    let rows: Vec<Vec<String>> = batches
        .iter()
        .map(|one| {
            let mean = one["MeanSize"].as_f64().map_or_else(String::new, |size| format!("{size:.1}"));
            vec![
                text(&one["VariantName"]),
                format!("up to {}", one["Limit"]),
                one["Requests"].to_string(),
                one["Batches"].to_string(),
                mean,
            ]
        })
        .collect();
    if !rows.is_empty() {
        output::line("");
        output::table(&["VARIANT", "ANSWERED TOGETHER", "REQUESTS", "BATCHES", "MEAN SIZE"], &rows);
    }
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
                    let containers = crate::sagemaker::models::containers(&shown);
                    let each = |said: &dyn Fn(&Value) -> String| {
                        let said: Vec<String> = containers.iter().map(|container| said(container)).collect();
                        said.join(", ")
                    };
                    let data = |container: &Value| {
                        crate::sagemaker::models::model_data(container).unwrap_or_default().to_owned()
                    };
                    output::fields(&[
                        ("Name", text(&shown["ModelName"])),
                        ("Image", each(&|container| text(&container["Image"]))),
                        ("Data", each(&data)),
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

/// How many instances of a variant there are, of those that are wanted; of a serverless one, how many are awake.
pub fn instances(variant: &Value) -> String {
    let (current, wanted) = (&variant["CurrentInstanceCount"], &variant["DesiredInstanceCount"]);
    match variant["CurrentServerlessConfig"]["MaxConcurrency"].as_u64() {
        None => format!("{current} of {wanted}"),
        Some(most) => format!("serverless: {current} awake, up to {most} requests at once"),
    }
}
