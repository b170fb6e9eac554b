//! `modelyard bucket`: folders of the machine as buckets, written to the data directory itself.

use std::path::{Path, PathBuf};

use serde_json::json;
use store::objects::{Bucket, Folder};
use store::{Clock, Database};

use super::output::{self, Format};
use crate::data_dir::Connection;

/// Flags of `modelyard bucket`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Account that owns the buckets; the first one unless given
    #[arg(long, global = true)]
    account: Option<String>,
    /// Table for people, or JSON
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List buckets (what `modelyard bucket` does by itself)
    List,
    /// Make an existing folder a bucket: its plain files are the objects
    Add {
        /// Name of the bucket
        name: String,
        /// The folder
        #[arg(long)]
        path: PathBuf,
        /// Refuse to write and remove objects
        #[arg(long)]
        read_only: bool,
    },
    /// Make a bucket a mere folder again; its files stay
    Remove {
        /// Name of the bucket
        name: String,
    },
}

/// Runs the command; a running server sees the result at once.
///
/// # Errors
/// When the database cannot be opened, or the folder or the name cannot be used.
pub fn buckets(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let connection = Connection::read(data_dir)?;
    let account = flags.account.unwrap_or(connection.account);
    let database = Database::open(&data_dir.join("modelyard.db")).map_err(|error| error.to_string())?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => list(&database, account, flags.output).await,
            Command::Add { name, path, read_only } => {
                let folder = Folder::check(&path, data_dir, read_only).map_err(|error| error.to_string())?;
                let line = format!("{name} is {} now", folder.path.display());
                let bucket = Bucket {
                    name,
                    account,
                    region: connection.region,
                    created_at: Clock::system().now_ms(),
                    folder: Some(folder),
                };
                let added = database.write(move |session| {
                    if !session.accounts()?.iter().any(|(id, _)| *id == bucket.account) {
                        let text = format!("there is no account {}; see: modelyard accounts", bucket.account);
                        return Err(store::Error::Invalid(text));
                    }
                    session.insert_folder_bucket(&bucket)
                });
                added.await.map_err(|error| error.to_string())?;
                output::line(&line);
                Ok(())
            }
            Command::Remove { name } => {
                let line = format!("{name} is no bucket any more; its files are where they were");
                let removed = database.write(move |session| session.delete_folder_bucket(&account, &name));
                removed.await.map_err(|error| error.to_string())?;
                output::line(&line);
                Ok(())
            }
        }
    })
}

async fn list(database: &Database, account: String, format: Format) -> Result<(), String> {
    let buckets = database.read(move |session| session.buckets(&account)).await;
    let buckets = buckets.map_err(|error| error.to_string())?;
    let path = |bucket: &Bucket| bucket.folder.as_ref().map(|folder| folder.path.display().to_string());
    let is_read_only = |bucket: &Bucket| bucket.folder.as_ref().is_some_and(|folder| folder.is_read_only);
    if format == Format::Json {
        let shown = buckets.iter().map(|bucket| {
            json!({
                "Name": bucket.name,
                "Region": bucket.region,
                "Path": path(bucket),
                "ReadOnly": is_read_only(bucket),
            })
        });
        output::json(&shown.collect());
        return Ok(());
    }
    let row = |bucket: &Bucket| {
        let access = if is_read_only(bucket) { "read only" } else { "" };
        vec![bucket.name.clone(), bucket.region.clone(), path(bucket).unwrap_or_default(), access.into()]
    };
    output::table(&["BUCKET", "REGION", "FOLDER", "ACCESS"], &buckets.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
