//! `modelyard endpoints key`: a key for clients of the open inference protocols.

use std::path::Path;

use super::output;
use crate::data_dir::Connection;
use crate::open_protocols::key::inference_key;

const SECONDS_PER_DAY: i64 = 86_400;

/// Flags of `modelyard endpoints key`.
#[derive(clap::Args)]
pub struct Flags {
    /// Days until it ends; 0 for a key that ends only with the access key it is made from
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i64).range(0..=36_500))]
    days: i64,
    /// Region of the endpoints that it opens [default: the server's]
    #[arg(long)]
    region: Option<String>,
    /// Access key to make it from, of any account [default: the one that `modelyard env` prints]
    #[arg(long, value_name = "ID", requires = "secret_access_key")]
    access_key_id: Option<String>,
    /// Secret of --access-key-id
    #[arg(long, value_name = "SECRET", env = "MODELYARD_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: Option<String>,
}

/// Prints a key.
///
/// # Errors
/// When no server has used the data directory yet.
pub fn print(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let connection = Connection::read(data_dir)?;
    let (id, secret) = match (&flags.access_key_id, &flags.secret_access_key) {
        (Some(id), Some(secret)) => (id, secret),
        _ => (&connection.access_key_id, &connection.secret_access_key),
    };
    let region = flags.region.as_ref().unwrap_or(&connection.region);
    let expires_at_seconds = match flags.days {
        0 => 0,
        days => store::Clock::system().now_ms() / 1000 + days * SECONDS_PER_DAY,
    };
    output::line(&inference_key(id, secret, None, region, expires_at_seconds));
    Ok(())
}
