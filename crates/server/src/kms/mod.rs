//! KMS: symmetric keys of an account, and encryption with them. The material never leaves the store.

mod aliases;
mod encryption;
mod error;
mod keys;
mod policies;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use store::keys::{Key, KeyReference, KeyState};

use crate::{App, Cx, Error, Registry};
use error::{Problem, Result};

/// How often keys whose time has come are removed. They stop working at their time.
const PURGE_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Entries on a page, unless the caller wants another number.
const PAGE_ENTRIES: i32 = 100;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    aliases::routes(registry);
    encryption::routes(registry);
    keys::routes(registry);
    policies::routes(registry);
    tags::routes(registry);
}

/// Removes keys whose time has come, now and then, for as long as the process state lives.
pub fn purge_hourly(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut hours = tokio::time::interval(PURGE_PAUSE);
        loop {
            hours.tick().await;
            let Some(app) = app.upgrade() else { return };
            if let Err(error) = app.keys.purge().await {
                tracing::error!(%error, "deleted keys could not be removed");
            }
        }
    });
}

/// The ARN of a key.
pub fn key_arn(region: &str, account: &str, id: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{id}")
}

fn arn(key: &Key) -> String {
    key_arn(&key.region, &key.account, &key.id)
}

/// The key that a caller names, as the store knows it.
async fn find(cx: &Cx, text: &str) -> Result<Key> {
    let reference = reference(cx, text)?;
    let found = cx.state.keys.find(&cx.caller.account, &cx.caller.region, &reference).await;
    found.map_err(|error| Problem::of_key(cx, error))
}

/// Refuses a field that names a key which cannot encrypt now.
///
/// # Errors
/// [`Error::Validation`] with the name of the field.
pub async fn check_usable(cx: &Cx, field: &str, text: &str) -> Result<(), Error> {
    let problem = match find(cx, text).await {
        Ok(key) if key.state == KeyState::Enabled => return Ok(()),
        Ok(key) => format!("its state is {}", key.state.as_str()),
        Err(Problem::Code(_, text) | Problem::Arn(text) | Problem::Denied(text)) => text,
        Err(Problem::Other(error)) => return Err(error),
    };
    Err(Error::Validation(format!("{field}: the key {text:?} cannot be used: {problem}")))
}

/// A key by id or ARN; for operations that take no alias.
fn id_reference(cx: &Cx, text: &str) -> Result<KeyReference> {
    match reference(cx, text)? {
        KeyReference::Alias(_) => {
            Err(Problem::Arn(format!("{text} is an alias; name the key by its id or ARN")))
        }
        reference => Ok(reference),
    }
}

fn reference(cx: &Cx, text: &str) -> Result<KeyReference> {
    let invalid = || Problem::Arn(format!("Invalid arn {text}"));
    let (reference, place) = KeyReference::parse(text).ok_or_else(invalid)?;
    match place {
        Some((region, _)) if region != cx.caller.region => Err(Problem::Arn(format!("Invalid arn {region}"))),
        Some((_, account)) if account != cx.caller.account => {
            let caller = &cx.caller.principal_arn;
            Err(Problem::Denied(format!(
                "User: {caller} is not authorized to use {text}: it belongs to another account."
            )))
        }
        _ => Ok(reference),
    }
}

/// The number of entries that a page may have, and one more to see whether others follow.
fn page_size(limit: Option<i32>) -> usize {
    limit.unwrap_or(PAGE_ENTRIES).unsigned_abs() as usize
}

/// A page of entries, and the marker that the next one begins after.
fn page<T>(mut entries: Vec<T>, size: usize, name: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let truncated = entries.len() > size;
    entries.truncate(size);
    let marker = entries.last().filter(|_| truncated).map(name);
    (entries, marker)
}
