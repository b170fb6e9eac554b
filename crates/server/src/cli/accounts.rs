//! `modelyard accounts`: more accounts and keys, written to the data directory itself.

use std::path::Path;

use serde_json::json;
use store::identity::AccessKey;
use store::{Clock, Database};

use super::output::{self, Format};

/// Flags of `modelyard accounts`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List accounts (what `modelyard accounts` does by itself)
    List,
    /// Add an account with an execution role and a first key
    Add {
        /// Twelve-digit id
        id: String,
        /// Name for people
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Add a key for a user of an account; the key acts as a session of the execution role
    AddKey {
        /// Twelve-digit id
        account: String,
        /// Name of the user
        user: String,
    },
}

/// Runs the command; a running server sees the result at once.
///
/// # Errors
/// When the database cannot be opened, or the account is taken or missing.
pub fn accounts(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let path = data_dir.join("modelyard.db");
    if !path.exists() {
        let shown = data_dir.display();
        return Err(format!(
            "{shown} holds no data yet; start a server with: modelyard serve --data-dir {shown}"
        ));
    }
    let database = Database::open(&path).map_err(|error| error.to_string())?;
    let now_ms = Clock::system().now_ms();
    super::block_on(async {
        let text = |error: store::Error| error.to_string();
        match flags.command.unwrap_or(Command::List) {
            Command::List => {
                let accounts = database.read(|session| session.accounts()).await.map_err(text)?;
                if flags.output == Format::Json {
                    let shown: Vec<_> =
                        accounts.iter().map(|(id, name)| json!({"Id": id, "Name": name})).collect();
                    output::json(&shown.into());
                } else {
                    let rows: Vec<Vec<String>> =
                        accounts.into_iter().map(|(id, name)| vec![id, name]).collect();
                    output::table(&["ACCOUNT", "NAME"], &rows);
                }
            }
            Command::Add { id, name } => {
                let key = crate::identity::create_account(&database, id, name, now_ms).await.map_err(text)?;
                show_key(&key, flags.output);
            }
            Command::AddKey { account, user } => {
                let key =
                    crate::identity::create_key(&database, account, user, now_ms).await.map_err(text)?;
                show_key(&key, flags.output);
            }
        }
        Ok(())
    })
}

fn show_key(key: &AccessKey, format: Format) {
    if format == Format::Json {
        output::json(&json!({
            "Account": key.account,
            "AccessKeyId": key.access_key_id,
            "SecretAccessKey": key.secret_access_key,
            "Arn": key.principal_arn,
        }));
    } else {
        output::fields(&[
            ("Account", key.account.clone()),
            ("Identity", key.principal_arn.clone()),
            ("AWS_ACCESS_KEY_ID", key.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", key.secret_access_key.clone()),
        ]);
    }
}
