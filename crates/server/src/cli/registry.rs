//! `modelyard registry`: model package groups, and the versions of one with who approved them and why.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard registry`.
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
    /// List the model package groups (what the command does by itself)
    List,
    /// Show the versions of a group: their approvals with who and why, and the hashes of their artifacts
    Show {
        /// Name of the group, or its ARN
        group: String,
    },
}

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn registry(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => list(&client, flags.output).await,
            Command::Show { group } => show(&client, &group, flags.output).await,
        }
    })
}

async fn list(client: &Client, format: Format) -> Result<(), String> {
    let input = json!({"MaxResults": 100});
    let found =
        client.list("SageMaker.ListModelPackageGroups", input, "ModelPackageGroupSummaryList").await?;
    if format == Format::Json {
        output::json(&Value::Array(found));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|group| {
            vec![
                text(&group["ModelPackageGroupName"]),
                output::time(group["CreationTime"].as_f64()),
                text(&group["ModelPackageGroupDescription"]),
            ]
        })
        .collect();
    output::table(&["GROUP", "CREATED (UTC)", "DESCRIPTION"], &rows);
    Ok(())
}

async fn show(client: &Client, group: &str, format: Format) -> Result<(), String> {
    let input = json!({"ModelPackageGroupName": group, "MaxResults": 100, "SortBy": "Name"});
    let versions = client.list("SageMaker.ListModelPackages", input, "ModelPackageSummaryList").await?;
    let mut shown = Vec::new();
    for mut version in versions {
        let asked = json!({"ModelPackageName": version["ModelPackageArn"]});
        let mut answer = client.call("Modelyard.DescribeModelPackageHistory", &asked).await?;
        version["History"] = answer["History"].take();
        shown.push(version);
    }
    if format == Format::Json {
        output::json(&Value::Array(shown));
        return Ok(());
    }
    if shown.is_empty() {
        output::line(&format!("{group} has no versions."));
    }
    for version in &shown {
        show_version(version);
    }
    Ok(())
}

fn show_version(version: &Value) {
    let kind = text(&version["ModelPackageRegistrationType"]);
    let kind = if kind == "Logged" { " (Logged)" } else { "" };
    let (number, status) = (&version["ModelPackageVersion"], text(&version["ModelApprovalStatus"]));
    output::line(&format!("Version {number}: {status}{kind}  {}", text(&version["ModelPackageDescription"])));
    let none = Vec::new();
    for step in version["History"]["Approvals"].as_array().unwrap_or(&none) {
        let why = step["Why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        let by = text(&step["By"]);
        let by = by.rsplit('/').next().unwrap_or(&by);
        output::line(&format!(
            "  {}  {}  by {by}{why}",
            output::time(step["At"].as_f64()),
            text(&step["To"])
        ));
    }
    for artifact in version["History"]["Artifacts"].as_array().unwrap_or(&none) {
        output::line(&format!("  {}  sha256 {}", text(&artifact["Uri"]), text(&artifact["Sha256"])));
    }
}
