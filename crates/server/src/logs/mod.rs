//! CloudWatch Logs: groups, streams and events.

mod events;
mod filter_pattern;
mod groups;
mod json_pattern;
mod streams;
mod tags;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::logs::{GROUP_KIND, GroupKey};

use crate::{Cx, Error, Registry, Result};

/// Items on a page of groups or streams, unless the caller wants fewer.
const PAGE_ITEMS: usize = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    groups::routes(registry);
    streams::routes(registry);
    events::routes(registry);
    tags::routes(registry);
}

/// The group that a request names by its name, or by name or ARN.
fn group_key(cx: &Cx, name: Option<String>, identifier: Option<String>) -> Result<GroupKey> {
    match (name, identifier) {
        (Some(name), None) => Ok(named_group(cx, name)),
        (None, Some(identifier)) => identified_group(cx, &identifier),
        (None, None) => Err(Error::invalid_parameter("Give logGroupName or logGroupIdentifier.")),
        (Some(_), Some(_)) => {
            Err(Error::invalid_parameter("Give logGroupName or logGroupIdentifier, but not both."))
        }
    }
}

/// The caller's group of this name.
fn named_group(cx: &Cx, name: String) -> GroupKey {
    GroupKey::new(&cx.caller.account, &cx.caller.region, name)
}

/// The group with this name or ARN. What belongs to another account or region is not there for this caller.
fn identified_group(cx: &Cx, identifier: &str) -> Result<GroupKey> {
    if !identifier.starts_with("arn:") {
        return Ok(named_group(cx, identifier.to_owned()));
    }
    let arn = GroupArn::parse(identifier).ok_or_else(|| {
        Error::invalid_parameter(format!(
            "{identifier} is not the ARN of a log group; one looks like arn:aws:logs:REGION:ACCOUNT:log-group:NAME."
        ))
    })?;
    if arn.account != cx.caller.account || arn.region != cx.caller.region {
        return Err(Error::not_found(GROUP_KIND, arn.name));
    }
    Ok(named_group(cx, arn.name.to_owned()))
}

/// The parts of the ARN of a log group.
#[derive(Debug, PartialEq, Eq)]
struct GroupArn<'a> {
    region: &'a str,
    account: &'a str,
    name: &'a str,
}

impl GroupArn<'_> {
    /// Reads `arn:PARTITION:logs:REGION:ACCOUNT:log-group:NAME`, with or without `:*` behind.
    fn parse(arn: &str) -> Option<GroupArn<'_>> {
        let mut parts = arn.splitn(7, ':');
        let (_, _, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let name = name.strip_suffix(":*").unwrap_or(name);
        let whole = service == "logs" && kind == "log-group" && !name.is_empty() && !name.contains(':');
        whole.then_some(GroupArn { region, account, name })
    }
}

/// The ARN of a group, without the `:*` that stands for its streams.
fn group_arn(key: &GroupKey) -> String {
    format!("arn:aws:logs:{}:{}:log-group:{}", key.region, key.account, key.group)
}

/// The service's words for what the log store answers.
fn refusal(error: store::Error) -> Error {
    match error {
        store::Error::Missing { kind, name } => Error::not_found(known_kind(&kind), name),
        store::Error::Exists { kind, .. } => {
            Error::exists(known_kind(&kind), format!("The specified {kind} already exists"))
        }
        store::Error::BadToken => bad_token(),
        other => other.into(),
    }
}

fn known_kind(kind: &str) -> &'static str {
    if kind == GROUP_KIND { GROUP_KIND } else { store::logs::STREAM_KIND }
}

fn bad_token() -> Error {
    Error::invalid_parameter("The specified nextToken is invalid.")
}

/// Refuses the first field that was given and is not honoured.
fn refuse_fields(fields: &[(&str, bool)]) -> Result<()> {
    match fields.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::field(name)),
        None => Ok(()),
    }
}

/// The size of a page; the model has checked that a given limit is in its range.
fn page_limit(given: Option<i32>, most: usize) -> usize {
    given.and_then(|limit| usize::try_from(limit).ok()).map_or(most, |limit| limit.clamp(1, most))
}

fn encode_token(position: &impl Serialize) -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).map_err(Error::internal)?))
}

fn decode_token<T: DeserializeOwned>(token: &str) -> Result<T> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    serde_json::from_slice(&bytes).map_err(|_| bad_token())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_arns_are_read_with_and_without_the_star() {
        let wanted = Some(GroupArn { region: "eu-west-1", account: "123456789012", name: "/aws/x" });
        assert_eq!(GroupArn::parse("arn:aws:logs:eu-west-1:123456789012:log-group:/aws/x"), wanted);
        assert_eq!(GroupArn::parse("arn:aws-cn:logs:eu-west-1:123456789012:log-group:/aws/x:*"), wanted);
        for other in [
            "arn:aws:logs:eu-west-1:123456789012:log-group",
            "arn:aws:logs:eu-west-1:123456789012:log-group:",
            "arn:aws:s3:eu-west-1:123456789012:log-group:x",
            "arn:aws:logs:eu-west-1:123456789012:log-group:x:log-stream:y",
        ] {
            assert_eq!(GroupArn::parse(other), None, "{other}");
        }
    }

    #[test]
    fn limits_stay_within_the_page() {
        assert_eq!(page_limit(None, 50), 50);
        assert_eq!(page_limit(Some(7), 50), 7);
        assert_eq!(page_limit(Some(700), 50), 50);
        assert_eq!(page_limit(Some(0), 50), 1);
    }
}
