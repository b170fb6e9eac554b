//! STS: who am I, and short-lived credentials for a role.

use std::collections::BTreeSet;

use api::sts::{
    AssumeRole, AssumeRoleInput, AssumeRoleOutput, AssumedRoleUser, Credentials, GetCallerIdentity,
    GetCallerIdentityInput, GetCallerIdentityOutput, GetSessionToken, GetSessionTokenInput,
    GetSessionTokenOutput, Tag,
};
use wire::SessionTags;

use crate::identity::Session;
use crate::{Cx, Error, Registry, Result};

/// Lifetime of an assumed role when the caller names none.
const DEFAULT_ROLE_SECONDS: i64 = 3_600;
/// Lifetime of GetSessionToken when the caller names none.
const DEFAULT_SESSION_SECONDS: i64 = 43_200;
/// Most tags of a session.
const MOST_TAGS: usize = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetCallerIdentity, _, _, _>(get_caller_identity);
    registry.on::<AssumeRole, _, _, _>(assume_role);
    registry.on::<GetSessionToken, _, _, _>(get_session_token);
}

async fn get_caller_identity(cx: Cx, _input: GetCallerIdentityInput) -> Result<GetCallerIdentityOutput> {
    Ok(GetCallerIdentityOutput {
        user_id: Some(cx.caller.principal_id.clone()),
        account: Some(cx.caller.account.clone()),
        arn: Some(cx.caller.principal_arn.clone()),
    })
}

async fn assume_role(cx: Cx, input: AssumeRoleInput) -> Result<AssumeRoleOutput> {
    for (name, given) in [
        ("PolicyArns", input.policy_arns.is_some()),
        ("Policy", input.policy.is_some()),
        ("ExternalId", input.external_id.is_some()),
        ("SerialNumber", input.serial_number.is_some()),
        ("TokenCode", input.token_code.is_some()),
        ("SourceIdentity", input.source_identity.is_some()),
        ("ProvidedContexts", input.provided_contexts.is_some()),
    ] {
        if given {
            return Err(Error::field(name));
        }
    }
    let denied = || {
        let caller = &cx.caller.principal_arn;
        Error::AccessDenied(format!(
            "User: {caller} is not authorized to perform: sts:AssumeRole on resource: {}",
            input.role_arn
        ))
    };
    let (account, name) = crate::iam::split_role_arn(&input.role_arn).ok_or_else(denied)?;
    if account != cx.caller.account {
        return Err(denied());
    }
    let (account, name) = (account.to_owned(), name.to_owned());
    let role =
        cx.state.database.read(move |session| session.role(&account, &name)).await?.ok_or_else(denied)?;
    let seconds = i64::from(input.duration_seconds.unwrap_or(DEFAULT_ROLE_SECONDS as i32));
    if seconds > role.max_session_seconds {
        return Err(Error::Validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.".into(),
        ));
    }
    let session_tags = session_tags(
        &cx.caller.session_tags,
        input.tags.unwrap_or_default(),
        &input.transitive_tag_keys.unwrap_or_default(),
    )?;
    let session_name = &input.role_session_name;
    let arn = format!("arn:aws:sts::{}:assumed-role/{}/{session_name}", role.account, role.name);
    let id = format!("{}:{session_name}", role.role_id);
    let session = cx.state.identity.sessions().issue(&role.account, &arn, &id, seconds, session_tags);
    Ok(AssumeRoleOutput {
        assumed_role_user: Some(AssumedRoleUser { assumed_role_id: Some(id), arn: Some(arn) }),
        credentials: Some(credentials(session)),
        ..Default::default()
    })
}

/// The tags of a new session: its own, and those that the caller's session hands on.
fn session_tags(callers: &SessionTags, tags: Vec<Tag>, transitive_keys: &[String]) -> Result<SessionTags> {
    let mut session = callers.inherited();
    let inherited = names(session.tags.keys());
    let own = names(tags.iter().map(|tag| &tag.key));
    if own.len() < tags.len() {
        return Err(Error::Validation(
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.".into(),
        ));
    }
    if own.iter().any(|key| inherited.contains(key)) {
        return Err(Error::Validation(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the \
             calling session."
                .into(),
        ));
    }
    if names(transitive_keys.iter()).iter().any(|key| !own.contains(key)) {
        return Err(Error::Validation(
            "The specified transitive tag key must be included in the requested tags.".into(),
        ));
    }
    let transitive = names(transitive_keys.iter());
    for Tag { key, value } in tags {
        if crate::tags::is_reserved(&key) {
            return Err(Error::Validation(format!(
                "Tags: the key {key} begins with aws:, which is reserved."
            )));
        }
        if transitive.contains(&key.to_lowercase()) {
            session.transitive_keys.insert(key.clone());
        }
        session.tags.insert(key, value);
    }
    if session.tags.len() > MOST_TAGS {
        return Err(Error::Validation(format!(
            "A session has at most {MOST_TAGS} tags, those of the calling session that are transitive among them."
        )));
    }
    Ok(session)
}

/// Keys in the spelling in which they are compared.
fn names<'a>(keys: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    keys.map(|key| key.to_lowercase()).collect()
}

async fn get_session_token(cx: Cx, input: GetSessionTokenInput) -> Result<GetSessionTokenOutput> {
    for (name, given) in
        [("SerialNumber", input.serial_number.is_some()), ("TokenCode", input.token_code.is_some())]
    {
        if given {
            return Err(Error::field(name));
        }
    }
    let seconds = input.duration_seconds.map_or(DEFAULT_SESSION_SECONDS, i64::from);
    let caller = &cx.caller;
    let session = cx.state.identity.sessions().issue(
        &caller.account,
        &caller.principal_arn,
        &caller.principal_id,
        seconds,
        caller.session_tags.clone(),
    );
    Ok(GetSessionTokenOutput { credentials: Some(credentials(session)), ..Default::default() })
}

fn credentials(session: Session) -> Credentials {
    Credentials {
        access_key_id: Some(session.access_key_id),
        secret_access_key: Some(session.secret_access_key),
        session_token: Some(session.session_token),
        expiration: Some(api::Timestamp::from_millis(session.expires_at_ms)),
    }
}
