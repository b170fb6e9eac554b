//! Finds model packages and their groups by name or ARN, and says whether the caller may use them.
//!
//! An account may do everything with its own groups, but for what a group's policy denies. Another account may do what
//! the policy allows, and gets one and the same answer for what it may not use and for what is not there.

use store::resources::{Resource, ResourceKey};
use wire::Caller;

use super::kinds::{MODEL_PACKAGE, MODEL_PACKAGE_GROUP};
use super::records;
use crate::registry::package::{self, GroupRecord};
use crate::registry::policy::{Decision, Policy, package_prefix};
use crate::{Cx, Error, Result};

/// What a reference means: a name in the caller's account, or an ARN of any account.
enum Reference<'a> {
    Name(&'a str),
    Arn { account: &'a str, arn: String },
}

impl<'a> Reference<'a> {
    fn read(text: &'a str) -> Reference<'a> {
        let mut parts = text.splitn(6, ':');
        let is_arn = parts.next() == Some("arn");
        match (parts.nth(3), parts.next()) {
            (Some(account), Some(resource)) if is_arn => {
                let head = &text[..text.len() - resource.len()];
                Reference::Arn { account, arn: format!("{head}{}", resource.to_lowercase()) }
            }
            _ => Reference::Name(text),
        }
    }
}

/// A model package group that the caller may do `action` to.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::AccessDenied`].
pub async fn group(cx: &Cx, reference: &str, action: &str) -> Result<Resource> {
    let (found, arn, account) = find(cx, reference, MODEL_PACKAGE_GROUP).await?;
    let Some(found) = found else { return Err(absent(cx, MODEL_PACKAGE_GROUP, arn, &account, action)) };
    // Actions on all packages of a group may be allowed on the group or on its packages.
    let packages = format!("{}/*", package_prefix(&found.arn));
    let decisions = [decide(cx, &found, action, &found.arn)?, decide(cx, &found, action, &packages)?];
    allow(cx, &found.key, action, &found.arn, decisions)?;
    Ok(found)
}

/// A model package that the caller may do `action` to: by its name, `GROUP/VERSION`, or its ARN.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::AccessDenied`].
pub async fn package(cx: &Cx, reference: &str, action: &str) -> Result<Resource> {
    let (found, arn, account) = find(cx, reference, MODEL_PACKAGE).await?;
    let Some(found) = found else { return Err(absent(cx, MODEL_PACKAGE, arn, &account, action)) };
    let decision = match group_key(&found.key) {
        None => Decision::Silent,
        Some(key) => {
            let group = cx.state.database.read(move |session| session.find_resource(&key)).await?;
            group.map_or(Ok(Decision::Silent), |group| decide(cx, &group, action, &found.arn))?
        }
    };
    allow(cx, &found.key, action, &found.arn, [decision, Decision::Silent])?;
    Ok(found)
}

/// Key of the group that a version belongs to.
pub fn group_key(package: &ResourceKey) -> Option<ResourceKey> {
    let (group, _) = package.name.split_once('/')?;
    Some(ResourceKey::new(&*package.account, &*package.region, MODEL_PACKAGE_GROUP, group))
}

async fn find(cx: &Cx, reference: &str, kind: &'static str) -> Result<(Option<Resource>, String, String)> {
    match Reference::read(reference) {
        Reference::Name(name) => {
            let key = match name.split_once('/') {
                Some((group, version)) if kind == MODEL_PACKAGE => {
                    let group = records::key(cx, MODEL_PACKAGE_GROUP, group);
                    package::version_key(&group, version.parse().unwrap_or(0))
                }
                _ => records::key(cx, kind, name),
            };
            let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
            Ok((found, records::arn(cx, kind, name), cx.caller.account.clone()))
        }
        Reference::Arn { account, arn } => {
            let wanted = arn.clone();
            let found = cx.state.database.read(move |session| session.find_resource_by_arn(&wanted)).await?;
            // An ARN of another kind or region means nothing here.
            let found = found.filter(|found| found.key.kind == kind && found.key.region == cx.caller.region);
            Ok((found, arn, account.to_owned()))
        }
    }
}

fn decide(cx: &Cx, group: &Resource, action: &str, arn: &str) -> Result<Decision> {
    match GroupRecord::read(&group.document)?.policy {
        None => Ok(Decision::Silent),
        Some(text) => {
            let policy = Policy::parse(&text, &group.arn).map_err(|problem| {
                Error::internal(store::Error::Invalid(format!(
                    "the policy of {} is damaged: {problem}",
                    group.arn
                )))
            })?;
            Ok(policy.decide(&cx.caller, action, arn))
        }
    }
}

fn allow(cx: &Cx, key: &ResourceKey, action: &str, arn: &str, decisions: [Decision; 2]) -> Result<()> {
    if decisions.contains(&Decision::Denied) {
        let text =
            format!("{} with an explicit deny in a resource-based policy", refusal(&cx.caller, action, arn));
        return Err(Error::AccessDenied(text));
    }
    if key.account == cx.caller.account || decisions.contains(&Decision::Allowed) {
        return Ok(());
    }
    Err(denied(&cx.caller, action, arn))
}

fn absent(cx: &Cx, kind: &'static str, arn: String, account: &str, action: &str) -> Error {
    if account == cx.caller.account {
        Error::not_found(kind, arn)
    } else {
        // Whether it is there is nobody else's business.
        denied(&cx.caller, action, &arn)
    }
}

fn denied(caller: &Caller, action: &str, arn: &str) -> Error {
    let because = format!("because no resource-based policy allows the {action} action");
    Error::AccessDenied(format!("{} {because}", refusal(caller, action, arn)))
}

fn refusal(caller: &Caller, action: &str, arn: &str) -> String {
    format!("User: {} is not authorized to perform: {action} on resource: {arn}", caller.principal_arn)
}
