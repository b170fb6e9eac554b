//! `modelyard logs`: the log of a job or endpoint, followed while it grows.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::job_kind::{JobKind, SEVERAL};
use super::jobs::text;
use super::output;

/// Flags of `modelyard logs`.
#[derive(clap::Args)]
pub struct Flags {
    /// Name of a training, processing or transform job, of an endpoint, or of an inference component
    name: String,
    /// Kind of the job, where jobs of several kinds have the name
    #[arg(long, value_enum)]
    kind: Option<JobKind>,
    /// Keep printing new lines until the job ends
    #[arg(long, short)]
    follow: bool,
    /// Begin each line with its time
    #[arg(long, short)]
    timestamps: bool,
}

/// Pause between two looks at a log that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(300);

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn logs(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(print(&client, flags))
}

async fn print(client: &Client, flags: &Flags) -> Result<(), String> {
    let name = &flags.name;
    let (group, prefix, job) = match JobKind::find(client, name, flags.kind).await {
        Ok((kind, _)) => (kind.log_group().to_owned(), format!("{name}/"), Some(kind)),
        Err(failure) if flags.kind.is_some() || failure.code == SEVERAL => return Err(failure.into()),
        Err(_) => {
            let endpoint = client.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": name})).await;
            let asked = json!({"InferenceComponentName": name});
            let group = if endpoint.is_ok() {
                "Endpoints"
            } else if client.call("SageMaker.DescribeInferenceComponent", &asked).await.is_ok() {
                "InferenceComponents"
            } else {
                return Err(format!(
                    "there is no training, processing or transform job, endpoint or inference component named {name}"
                ));
            };
            (format!("/aws/sagemaker/{group}/{name}"), String::new(), None)
        }
    };
    let mut tokens: Vec<(String, Option<String>)> = Vec::new();
    loop {
        // Asked before the lines are read, so that none is missed after the end.
        let ended = match job {
            Some(kind) if flags.follow => ended(client, kind, name).await?,
            _ => !flags.follow,
        };
        for stream in streams(client, &group, &prefix).await? {
            if !tokens.iter().any(|(known, _)| *known == stream) {
                tokens.push((stream, None));
            }
        }
        let several = tokens.len() > 1;
        for (stream, token) in &mut tokens {
            print_new(client, &group, stream, token, flags.timestamps, several).await?;
        }
        if ended {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
}

async fn ended(client: &Client, kind: JobKind, name: &str) -> Result<bool, Failure> {
    let job = kind.call(client, "Describe", name).await?;
    Ok(!matches!(job[kind.member("Status")].as_str(), Some("InProgress" | "Stopping")))
}

async fn streams(client: &Client, group: &str, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut input = json!({"logGroupName": group});
    if !prefix.is_empty() {
        input["logStreamNamePrefix"] = prefix.into();
    }
    match client.call("Logs_20140328.DescribeLogStreams", &input).await {
        Ok(answer) => {
            let none = Vec::new();
            let streams = answer["logStreams"].as_array().unwrap_or(&none);
            Ok(streams.iter().map(|stream| text(&stream["logStreamName"])).collect())
        }
        // Nothing has been logged yet.
        Err(failure) if failure.code.ends_with("ResourceNotFoundException") => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

async fn print_new(
    client: &Client,
    group: &str,
    stream: &str,
    token: &mut Option<String>,
    timestamps: bool,
    several: bool,
) -> Result<(), Failure> {
    loop {
        let mut input = json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
        if let Some(token) = token {
            input["nextToken"] = token.as_str().into();
        }
        let page = client.call("Logs_20140328.GetLogEvents", &input).await?;
        let none: Vec<Value> = Vec::new();
        let events = page["events"].as_array().unwrap_or(&none);
        for event in events {
            let mut shown = text(&event["message"]);
            if timestamps {
                let at = output::time(event["timestamp"].as_f64().map(|ms| ms / 1000.0));
                shown = format!("{at} {shown}");
            }
            if several {
                shown = format!("{stream} | {shown}");
            }
            output::line(&shown);
        }
        *token = Some(text(&page["nextForwardToken"]));
        if events.is_empty() {
            return Ok(());
        }
    }
}
