//! `modelyard bucket`: folders of the machine and buckets of other S3 stores as buckets, written to the data directory itself.

use std::path::{Path, PathBuf};

use serde_json::json;
use store::objects::{Bucket, Folder, Remote};
use store::{Clock, Database, Session};

use super::output::{self, Format};
use super::remotes::{self, RemoteFlags};
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
    /// Make an existing folder a bucket: its plain files are the objects; or use a bucket of another S3 store
    Add {
        /// Name of the bucket
        name: String,
        /// The folder
        #[arg(long, required_unless_present = "remote", conflicts_with = "remote")]
        path: Option<PathBuf>,
        /// Refuse to write and remove objects
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        remote: RemoteFlags,
    },
    /// Give a remote bucket new credentials, from --credentials or the environment as with `add`
    Credentials {
        /// Name of the bucket
        name: String,
        /// File with aws_access_key_id and aws_secret_access_key; `-` for standard input
        #[arg(long, value_name = "FILE")]
        credentials: Option<PathBuf>,
    },
    /// Forget a bucket that is a folder or a remote one; its files and objects stay
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
            Command::Credentials { name, credentials } => {
                remotes::set_credentials(&database, data_dir, account, name, credentials.as_deref()).await
            }
            Command::Add { name, path: None, read_only, remote } => {
                let place =
                    remotes::Place { account, region: connection.region, name, is_read_only: read_only };
                remotes::add(&database, data_dir, place, &remote).await
            }
            Command::Add { name, path: Some(path), read_only, .. } => {
                let folder = Folder::check(&path, data_dir, read_only).map_err(|error| error.to_string())?;
                let line = format!("{name} is {} now", folder.path.display());
                let bucket = Bucket {
                    name,
                    account,
                    region: connection.region,
                    created_at: Clock::system().now_ms(),
                    folder: Some(folder),
                    remote: None,
                };
                let added = database.write(move |session| {
                    check_account(session, &bucket.account)?;
                    session.insert_folder_bucket(&bucket)
                });
                added.await.map_err(|error| error.to_string())?;
                output::line(&line);
                Ok(())
            }
            Command::Remove { name } => {
                let line = format!("{name} is no bucket any more; what was in it is where it was");
                let removed = database.write(move |session| match session.owned_remote(&account, &name) {
                    Ok(_) => session.delete_remote_bucket(&account, &name),
                    Err(store::Error::Invalid(_)) => session.delete_folder_bucket(&account, &name),
                    Err(error) => Err(error),
                });
                removed.await.map_err(|error| error.to_string())?;
                output::line(&line);
                Ok(())
            }
        }
    })
}

/// A bucket belongs to an account that is there.
pub fn check_account(session: &Session<'_>, account: &str) -> store::Result<()> {
    if session.accounts()?.iter().any(|(id, _)| id == account) {
        return Ok(());
    }
    Err(store::Error::Invalid(format!("there is no account {account}; see: modelyard accounts")))
}

async fn list(database: &Database, account: String, format: Format) -> Result<(), String> {
    let buckets = database.read(move |session| session.buckets(&account)).await;
    let buckets = buckets.map_err(|error| error.to_string())?;
    let path = |bucket: &Bucket| bucket.folder.as_ref().map(|folder| folder.path.display().to_string());
    let url = |bucket: &Bucket| bucket.remote.as_ref().map(Remote::url);
    let is_read_only = |bucket: &Bucket| {
        bucket.folder.as_ref().is_some_and(|folder| folder.is_read_only)
            || bucket.remote.as_ref().is_some_and(|remote| remote.is_read_only)
    };
    if format == Format::Json {
        let shown = buckets.iter().map(|bucket| {
            json!({
                "Name": bucket.name,
                "Region": bucket.region,
                "Path": path(bucket),
                "Remote": url(bucket),
                "ReadOnly": is_read_only(bucket),
            })
        });
        output::json(&shown.collect());
        return Ok(());
    }
    let row = |bucket: &Bucket| {
        let access = if is_read_only(bucket) { "read only" } else { "" };
        let place = path(bucket).or_else(|| url(bucket)).unwrap_or_default();
        vec![bucket.name.clone(), bucket.region.clone(), place, access.into()]
    };
    output::table(&["BUCKET", "REGION", "PLACE", "ACCESS"], &buckets.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
