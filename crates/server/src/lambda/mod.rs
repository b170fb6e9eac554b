//! Lambda: Python functions of an account, each run in a sandbox like a job's, kept warm between invocations.

mod code;
mod error;
mod functions;
mod host;
mod invoke;
mod once;
mod policy;
mod pool;
mod record;
mod tags;

use std::sync::Arc;

use store::resources::{Resource, ResourceKey};

use crate::app::{App, StartError};
use crate::{Cx, Registry};
use error::{Problem, Result};

pub use invoke::{Ended, Invocation, invoke};
pub use pool::Functions;
pub use record::FunctionRecord;

/// Kind of a function in the store.
pub const FUNCTION: &str = "lambda-function";

/// The one version that there is.
pub const LATEST: &str = "$LATEST";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    functions::routes(registry);
    invoke::routes(registry);
    policy::routes(registry);
    tags::routes(registry);
}

/// Ends what an earlier server's functions left, but for invocations that happen once; and begins to end those that nobody calls.
///
/// # Errors
/// When the database cannot be read, or the folder of the functions not be removed.
pub async fn resume(app: &Arc<App>) -> std::result::Result<(), StartError> {
    let busy = app.database.read(|session| session.busy_effect_instances()).await;
    let busy = busy.map_err(|error| StartError::new(error.to_string()))?;
    pool::end_leftovers(app, &busy).map_err(|error| StartError::new(error.to_string()))?;
    pool::end_idle(app);
    Ok(())
}

/// The ARN of a function.
pub fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:lambda:{}:{}:function:{}", key.region, key.account, key.name)
}

/// The function that an ARN names, with or without its version; `None` for anything else.
pub fn key_of_arn(arn: &str) -> Option<ResourceKey> {
    let mut parts = arn.strip_prefix("arn:aws:lambda:")?.split(':');
    let (region, account, word, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let latest = parts.next().is_none_or(|qualifier| qualifier == LATEST) && parts.next().is_none();
    (word == "function" && latest).then(|| ResourceKey::new(account, region, FUNCTION, name))
}

/// The key that a request names: by name, by part of an ARN or by a whole one, perhaps with its version.
fn key(cx: &Cx, text: &str, qualifier: Option<&str>) -> Result<ResourceKey> {
    let (account, region) = (cx.caller.account.as_str(), cx.caller.region.as_str());
    let parts: Vec<&str> = text.split(':').collect();
    let (place, name, version) = match parts.as_slice() {
        [name] => ((account, region), *name, None),
        ["arn", _, "lambda", region, account, "function", name] => ((*account, *region), *name, None),
        ["arn", _, "lambda", region, account, "function", name, version] => {
            ((*account, *region), *name, Some(*version))
        }
        [owner, "function", name] => ((*owner, region), *name, None),
        [owner, "function", name, version] => ((*owner, region), *name, Some(*version)),
        ["function", name] => ((account, region), *name, None),
        [name, version] => ((account, region), *name, Some(*version)),
        _ => return Err(Problem::invalid(format!("FunctionName: {text:?} names no function."))),
    };
    if place.0 != account {
        return Err(Problem::Denied(format!(
            "User: {} is not authorized to use {text}: it belongs to another account.",
            cx.caller.principal_arn
        )));
    }
    let key = ResourceKey::new(place.0, place.1, FUNCTION, name);
    match version.or(qualifier) {
        None | Some(LATEST) if place.1 == region => Ok(key),
        None | Some(LATEST) => Err(Problem::missing(arn(&key))),
        Some(version) => Err(Problem::missing(format!("{}:{version}", arn(&key)))),
    }
}

/// The function that a request names.
async fn find(cx: &Cx, text: &str, qualifier: Option<&str>) -> Result<Resource> {
    let key = key(cx, text, qualifier)?;
    let arn = arn(&key);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| Problem::missing(arn))
}
