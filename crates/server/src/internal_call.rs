//! Operations called from inside the server, as a role: the same checks, authorization and handler as over the wire.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use wire::Caller;

use crate::app::{self, App};
use crate::authorize::WithinAccount;

/// Every handler; the same table that requests find theirs in.
static REGISTRY: LazyLock<crate::Registry> = LazyLock::new(app::registry);

/// What a client would get in place of an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Code, for example `ValidationException`.
    pub code: String,
    /// One clear sentence.
    pub message: String,
    /// HTTP status that a client would see; 500 and above is the server's own fault.
    pub status: u16,
}

impl From<wire::Error> for CallError {
    fn from(error: wire::Error) -> CallError {
        CallError { code: error.code.into_owned(), message: error.message, status: error.status }
    }
}

/// Calls `operation` of `service` (an id of `models/`) as `caller`. Input and answer are keyed by the names of the model, with
/// timestamps as seconds since 1970 and blobs as base64.
///
/// # Errors
/// The code and message that a client would get.
pub async fn call(
    app: &Arc<App>,
    caller: &Caller,
    service: &str,
    operation: &str,
    input: Value,
) -> Result<Value, CallError> {
    call_once(app, caller, service, operation, input, None).await
}

/// As [`call`]; the effect of an operation that keeps its answers (Invoke of Lambda does) happens once for an `effect_id`,
/// however often it is called, and the answer is the same.
///
/// # Errors
/// As [`call`].
pub async fn call_once(
    app: &Arc<App>,
    caller: &Caller,
    service: &str,
    operation: &str,
    input: Value,
    effect_id: Option<String>,
) -> Result<Value, CallError> {
    let own_values = app.config.capacity.instance_types.keys().cloned().collect();
    let internal = wire::Internal {
        state: app.clone(),
        registry: &REGISTRY,
        authorize: &WithinAccount,
        services: app::services(),
        own_values: &own_values,
        effect_id,
    };
    Ok(internal.call(caller.clone(), service, operation, input).await?)
}

/// The caller that acts as the role `role_arn` in an account and region, as AssumeRole with `session_name` would make it.
///
/// # Errors
/// `AccessDeniedException` when the role is of another account or is not there; `ServiceUnavailable` when nobody knows now.
pub async fn as_role(
    app: &Arc<App>,
    account: &str,
    region: &str,
    role_arn: &str,
    session_name: &str,
) -> Result<Caller, CallError> {
    let denied = |why: &str| CallError {
        code: "AccessDeniedException".into(),
        message: format!("The role {role_arn} cannot be assumed: {why}."),
        status: 400,
    };
    let (owner, name) =
        crate::iam::split_role_arn(role_arn).ok_or_else(|| denied("this is not the ARN of a role"))?;
    if owner != account {
        return Err(denied("it belongs to another account"));
    }
    let (owner, wanted) = (owner.to_owned(), name.to_owned());
    let found = app.database.read(move |session| session.role(&owner, &wanted)).await;
    let found = found.map_err(|error| {
        tracing::error!(%error, "a role could not be looked up");
        CallError {
            code: "ServiceUnavailable".into(),
            message: "The role could not be looked up; try again.".into(),
            status: 503,
        }
    })?;
    let role = found.ok_or_else(|| denied("there is no such role"))?;
    Ok(Caller {
        account: account.to_owned(),
        region: region.to_owned(),
        principal_arn: format!("arn:aws:sts::{account}:assumed-role/{name}/{session_name}"),
        principal_id: format!("{}:{session_name}", role.role_id),
        access_key_id: String::new(),
        session_tags: wire::SessionTags::default(),
    })
}
