//! `modelyard events`: what happened, in the shape of EventBridge.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard events`.
#[derive(clap::Args)]
pub struct Flags {
    /// Keep printing what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// Table for people, or one JSON document a line
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Pause between two looks at an event log that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(300);

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn events(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(print(&client, flags))
}

async fn print(client: &Client, flags: &Flags) -> Result<(), String> {
    let mut position = if flags.follow {
        client.call("Modelyard.ListEvents", &json!({})).await?["Position"].take()
    } else {
        json!(0)
    };
    loop {
        let page = client.call("Modelyard.ListEvents", &json!({"After": position})).await?;
        let none = Vec::new();
        let events = page["Events"].as_array().unwrap_or(&none);
        for event in events {
            match flags.output {
                Format::Json => output::line(&event.to_string()),
                Format::Table => output::line(&row(event)),
            }
        }
        position = page["Position"].clone();
        if !events.is_empty() {
            continue;
        }
        if !flags.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
}

fn row(event: &Value) -> String {
    let detail = &event["detail"];
    if text(&event["source"]) == "aws.s3" {
        let (bucket, key) = (text(&detail["bucket"]["name"]), text(&detail["object"]["key"]));
        let (time, kind) = (text(&event["time"]), text(&event["detail-type"]));
        return format!("{time}  s3://{bucket}/{key}  {kind}  {}", text(&detail["reason"]));
    }
    if !detail["ModelPackageArn"].is_null() {
        let (package, why) = (text(&detail["ModelPackageArn"]), text(&detail["ApprovalDescription"]));
        let package = package.rsplit_once(":model-package/").map_or(&*package, |(_, name)| name);
        let status = text(&detail["ModelApprovalStatus"]);
        return format!("{}  {package}  {status}  {why}", text(&event["time"])).trim_end().to_owned();
    }
    if !detail["alarmName"].is_null() {
        let (name, state) = (text(&detail["alarmName"]), text(&detail["state"]["value"]));
        let why = text(&detail["state"]["reason"]);
        return format!("{}  {name}  {state}  {why}", text(&event["time"])).trim_end().to_owned();
    }
    let (name, status) = (text(&detail["TrainingJobName"]), text(&detail["TrainingJobStatus"]));
    let secondary = text(&detail["SecondaryStatus"]);
    let reason = text(&detail["FailureReason"]);
    let shown = format!("{}  {name}  {status}  {secondary}  {reason}", text(&event["time"]));
    shown.trim_end().to_owned()
}
