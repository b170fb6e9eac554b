//! Policies of keys: checked for form, stored and shown. They grant nothing; an identity acts within its account.

use api::kms::{
    GetKeyPolicy, GetKeyPolicyInput, GetKeyPolicyOutput, GetKeyRotationStatus, GetKeyRotationStatusInput,
    GetKeyRotationStatusOutput, ListKeyPolicies, ListKeyPoliciesInput, ListKeyPoliciesOutput, PutKeyPolicy,
    PutKeyPolicyInput, PutKeyPolicyOutput,
};
use serde_json::{Value, json};

use super::error::{Problem, Result};
use super::{arn, find, id_reference, keys};
use crate::{Cx, Registry};

/// The only name that a policy has.
const NAME: &str = "default";

/// Longest policy, in bytes.
const LONGEST_POLICY_BYTES: usize = 32 * 1024;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetKeyPolicy, _, _, _>(get_key_policy);
    registry.on::<PutKeyPolicy, _, _, _>(put_key_policy);
    registry.on::<ListKeyPolicies, _, _, _>(list_key_policies);
    registry.on::<GetKeyRotationStatus, _, _, _>(get_key_rotation_status);
}

/// The policy of a key that was made without one: the account may do everything.
pub fn default(account: &str) -> String {
    let statement = json!({
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
        "Action": "kms:*",
        "Resource": "*",
    });
    json!({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}).to_string()
}

/// A policy that has the form of one.
pub fn checked(policy: String) -> Result<String> {
    let malformed = |text: &str| Problem::Code("MalformedPolicyDocumentException", text.to_owned());
    if policy.len() > LONGEST_POLICY_BYTES {
        let text = format!("The policy has more than {LONGEST_POLICY_BYTES} bytes.");
        return Err(Problem::Code("LimitExceededException", text));
    }
    let document: Value =
        serde_json::from_str(&policy).map_err(|_| malformed("The new key policy is not valid JSON."))?;
    match &document["Statement"] {
        Value::Array(statements) if !statements.is_empty() => Ok(policy),
        Value::Object(_) => Ok(policy),
        _ => Err(malformed("The new key policy needs a Statement.")),
    }
}

async fn get_key_policy(cx: Cx, input: GetKeyPolicyInput) -> Result<GetKeyPolicyOutput> {
    check_name(input.policy_name.as_deref())?;
    id_reference(&cx, &input.key_id)?;
    let key = find(&cx, &input.key_id).await?;
    let policy = if key.is_managed { default(&key.account) } else { key.policy };
    Ok(GetKeyPolicyOutput { policy: Some(policy), policy_name: Some(NAME.into()) })
}

async fn put_key_policy(cx: Cx, input: PutKeyPolicyInput) -> Result<PutKeyPolicyOutput> {
    check_name(input.policy_name.as_deref())?;
    let policy = checked(input.policy)?;
    keys::update(&cx, &input.key_id, move |key, _| {
        key.policy = policy;
        Ok(())
    })
    .await?;
    Ok(PutKeyPolicyOutput::default())
}

async fn list_key_policies(cx: Cx, input: ListKeyPoliciesInput) -> Result<ListKeyPoliciesOutput> {
    id_reference(&cx, &input.key_id)?;
    find(&cx, &input.key_id).await?;
    let is_first_page = input.marker.is_none();
    let names = if is_first_page { vec![NAME.to_owned()] } else { Vec::new() };
    Ok(ListKeyPoliciesOutput { policy_names: Some(names), next_marker: None, truncated: Some(false) })
}

/// Material is never rotated by itself; EnableKeyRotation is not done.
async fn get_key_rotation_status(
    cx: Cx,
    input: GetKeyRotationStatusInput,
) -> Result<GetKeyRotationStatusOutput> {
    id_reference(&cx, &input.key_id)?;
    let key = find(&cx, &input.key_id).await?;
    Ok(GetKeyRotationStatusOutput {
        key_rotation_enabled: Some(false),
        key_id: Some(arn(&key)),
        ..Default::default()
    })
}

fn check_name(name: Option<&str>) -> Result<()> {
    match name {
        None | Some(NAME) => Ok(()),
        Some(other) => Err(Problem::Code("NotFoundException", format!("No such policy exists: {other}"))),
    }
}
