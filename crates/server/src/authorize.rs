//! The authorization hook. Policy evaluation will live here; until then an identity acts within its own account only.

use futures::future::BoxFuture;
use serde_json::Value;
use wire::{Authorize, Caller, Error};

/// Denies what names another account.
pub struct WithinAccount;

impl Authorize for WithinAccount {
    fn authorize<'a>(
        &'a self,
        caller: &'a Caller,
        action: &'a str,
        input: &'a Value,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            // AssumeRole answers for foreign roles itself: its error names the role.
            if action.starts_with("sts:") {
                return Ok(());
            }
            // A model package may be another account's: the policy of its group decides, which the handler asks.
            if action == "sagemaker:UpdateModelPackage" {
                return Ok(());
            }
            match foreign_arn(input, &caller.account) {
                None => Ok(()),
                Some(arn) => Err(Error::new(
                    refusal(action).0,
                    refusal(action).1,
                    format!(
                        "User: {} is not authorized to perform: {action} on resource: {arn}",
                        caller.principal_arn
                    ),
                )),
            }
        })
    }
}

/// Code and status of a refusal.
fn refusal(action: &str) -> (&'static str, u16) {
    match action.split(':').next() {
        Some("iam") => ("AccessDenied", 403),
        Some("sns") => ("AuthorizationError", 403),
        _ => ("AccessDeniedException", 400),
    }
}

/// The first ARN in a member whose name ends in `Arn` (or `ARN`) that belongs to another twelve-digit account.
fn foreign_arn<'a>(input: &'a Value, account: &str) -> Option<&'a str> {
    match input {
        Value::Object(members) => members.iter().find_map(|(name, value)| match value {
            Value::String(text) if is_of_arn(name) => {
                let owner = text.strip_prefix("arn:")?.split(':').nth(3)?;
                let numbered = owner.len() == 12 && owner.bytes().all(|byte| byte.is_ascii_digit());
                (numbered && owner != account).then_some(text.as_str())
            }
            Value::Object(_) | Value::Array(_) => foreign_arn(value, account),
            _ => None,
        }),
        Value::Array(elements) => elements.iter().find_map(|element| foreign_arn(element, account)),
        _ => None,
    }
}

/// Whether a member of this name has an ARN.
fn is_of_arn(name: &str) -> bool {
    name.len().checked_sub(3).and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case("arn"))
}

#[cfg(test)]
mod tests {
    use super::foreign_arn;
    use serde_json::json;

    #[test]
    fn arns_of_other_accounts_are_found_at_any_depth() {
        let own = "123456789012";
        let input = json!({"RoleArn": "arn:aws:iam::123456789012:role/R", "Deep": [{"KeyArn": "arn:aws:kms:r:999999999999:key/k"}]});
        assert_eq!(foreign_arn(&input, own), Some("arn:aws:kms:r:999999999999:key/k"));
        let input =
            json!({"RoleArn": "arn:aws:iam::123456789012:role/R", "PolicyArn": "arn:aws:iam::aws:policy/P"});
        assert_eq!(foreign_arn(&input, own), None);
    }
}
