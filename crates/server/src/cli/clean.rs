//! `modelyard clean`: remove what is older than the settings keep it, or say what would go.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::output::{self, Format};
use crate::retention::Kind;

/// Flags of `modelyard clean`.
#[derive(clap::Args)]
pub struct Flags {
    /// What to remove: executions, jobs, logs, events, metrics, uploads, environments, folders [default: all of them]
    kinds: Vec<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Keep so many days, whatever the settings say; what to remove must be named
    #[arg(long, value_name = "DAYS", requires = "kinds")]
    older_than_days: Option<u32>,
    /// Table for people, or JSON
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn clean(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(clean_all(&client, flags))
}

async fn clean_all(client: &Client, flags: &Flags) -> Result<(), String> {
    let kinds = match flags.kinds.is_empty() {
        true => Kind::ALL.map(|kind| kind.name().to_owned()).to_vec(),
        false => flags.kinds.clone(),
    };
    let mut rows = Vec::new();
    for kind in kinds {
        rows.push(clean_kind(client, &kind, flags).await?);
    }
    let total: u64 = rows.iter().filter_map(|row| row["Bytes"].as_u64()).sum();
    if flags.output == Format::Json {
        output::json(&json!({"DryRun": flags.dry_run, "Kinds": rows, "Bytes": total}));
        return Ok(());
    }
    let headings = ["KIND", "KEPT", if flags.dry_run { "WOULD GO" } else { "WENT" }, "BYTES"];
    let shown: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let kept =
                row["Days"].as_u64().map_or_else(|| "always".to_owned(), |days| format!("{days} days"));
            let kind = row["Kind"].as_str().unwrap_or_default().to_owned();
            vec![kind, kept, row["Items"].to_string(), bytes(row["Bytes"].as_u64().unwrap_or_default())]
        })
        .collect();
    output::table(&headings, &shown);
    let verb = if flags.dry_run { "would be freed; nothing was removed" } else { "freed" };
    output::line(&format!("{} {verb}", bytes(total)));
    Ok(())
}

async fn clean_kind(client: &Client, kind: &str, flags: &Flags) -> Result<Value, String> {
    let mut input = json!({"Kind": kind, "DryRun": flags.dry_run});
    if let Some(days) = flags.older_than_days {
        input["Days"] = json!(days);
    }
    let (mut items, mut freed) = (0, 0);
    loop {
        let mut step = client.call("Modelyard.Clean", &input).await?;
        items += step["Items"].as_u64().unwrap_or_default();
        freed += step["Bytes"].as_u64().unwrap_or_default();
        match step["After"].take() {
            Value::Null => {
                let days = step["Days"].take();
                return Ok(json!({"Kind": kind, "Days": days, "Items": items, "Bytes": freed}));
            }
            after => input["After"] = after,
        }
    }
}

/// A number of bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = (count as f64, "B");
    for unit in UNITS {
        if shown.0 < 1024.0 {
            break;
        }
        shown = (shown.0 / 1024.0, unit);
    }
    match shown.1 {
        "B" => format!("{count} B"),
        unit => format!("{:.1} {unit}", shown.0),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        let shown = [0, 1023, 1024, 1_572_864, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"]);
    }
}
