//! Roles: create, read, attach policies.

use api::iam::{
    AttachRolePolicy, AttachRolePolicyInput, AttachRolePolicyOutput, AttachedPolicy, CreateRole,
    CreateRoleInput, CreateRoleOutput, GetRole, GetRoleInput, GetRoleOutput, ListAttachedRolePolicies,
    ListAttachedRolePoliciesInput, ListAttachedRolePoliciesOutput,
};
use store::identity::Role;

use crate::identity::random_id;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetRole, _, _, _>(get_role);
    registry.on::<CreateRole, _, _, _>(create_role);
    registry.on::<AttachRolePolicy, _, _, _>(attach_role_policy);
    registry.on::<ListAttachedRolePolicies, _, _, _>(list_attached_role_policies);
}

async fn get_role(cx: Cx, input: GetRoleInput) -> Result<GetRoleOutput> {
    let role = find(&cx, &input.role_name).await?;
    Ok(GetRoleOutput { role: Some(described(role)) })
}

async fn create_role(cx: Cx, input: CreateRoleInput) -> Result<CreateRoleOutput> {
    for (name, given) in
        [("PermissionsBoundary", input.permissions_boundary.is_some()), ("Tags", input.tags.is_some())]
    {
        if given {
            return Err(Error::field(name));
        }
    }
    let trust: std::result::Result<serde_json::Value, _> =
        serde_json::from_str(&input.assume_role_policy_document);
    if !trust.is_ok_and(|policy| policy.get("Statement").is_some()) {
        return Err(Error::Validation("AssumeRolePolicyDocument is not a policy document in JSON.".into()));
    }
    let role = Role {
        account: cx.caller.account.clone(),
        name: input.role_name.clone(),
        path: input.path.unwrap_or_else(|| "/".into()),
        role_id: format!("AROA{}", random_id(17)),
        trust_policy: input.assume_role_policy_document,
        description: input.description,
        max_session_seconds: input.max_session_duration.map_or(3_600, i64::from),
        created_at: cx.state.clock.now_ms(),
    };
    let stored = role.clone();
    cx.state.database.write(move |session| session.insert_role(&stored)).await.map_err(
        |error| match error {
            store::Error::Exists { name, .. } => {
                Error::exists("role", format!("Role with name {name} already exists."))
            }
            other => other.into(),
        },
    )?;
    Ok(CreateRoleOutput { role: Some(described(role)) })
}

async fn attach_role_policy(cx: Cx, input: AttachRolePolicyInput) -> Result<AttachRolePolicyOutput> {
    let role = find(&cx, &input.role_name).await?;
    let now_ms = cx.state.clock.now_ms();
    cx.state
        .database
        .write(move |session| {
            session.attach_role_policy(&role.account, &role.name, &input.policy_arn, now_ms)
        })
        .await?;
    Ok(AttachRolePolicyOutput::default())
}

async fn list_attached_role_policies(
    cx: Cx,
    input: ListAttachedRolePoliciesInput,
) -> Result<ListAttachedRolePoliciesOutput> {
    for (name, given) in [("PathPrefix", input.path_prefix.is_some()), ("Marker", input.marker.is_some())] {
        if given {
            return Err(Error::field(name));
        }
    }
    let role = find(&cx, &input.role_name).await?;
    let policies =
        cx.state.database.read(move |session| session.role_policies(&role.account, &role.name)).await?;
    let attached = policies.into_iter().map(|arn| AttachedPolicy {
        policy_name: arn.rsplit('/').next().map(str::to_owned),
        policy_arn: Some(arn),
    });
    Ok(ListAttachedRolePoliciesOutput {
        attached_policies: Some(attached.collect()),
        is_truncated: Some(false),
        ..Default::default()
    })
}

async fn find(cx: &Cx, name: &str) -> Result<Role> {
    let (account, wanted) = (cx.caller.account.clone(), name.to_owned());
    let found = cx.state.database.read(move |session| session.role(&account, &wanted)).await?;
    found.ok_or_else(|| Error::not_found("role", name))
}

fn described(role: Role) -> api::iam::Role {
    api::iam::Role {
        arn: Some(role.arn()),
        path: Some(role.path),
        role_name: Some(role.name),
        role_id: Some(role.role_id),
        create_date: Some(api::Timestamp::from_millis(role.created_at)),
        assume_role_policy_document: Some(url_encoded(&role.trust_policy)),
        description: role.description,
        max_session_duration: Some(role.max_session_seconds as i32),
        ..Default::default()
    }
}

/// IAM answers policy documents URL-encoded (RFC 3986).
fn url_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Whether this is the ARN of a role of the caller's account that is there.
///
/// # Errors
/// When the database fails.
pub fn is_assumable(cx: &Cx, role_arn: &str) -> Result<bool> {
    let own = split_role_arn(role_arn).filter(|(account, _)| *account == cx.caller.account);
    let Some((account, name)) = own else { return Ok(false) };
    Ok(cx.state.database.look(|session| session.role(account, name))?.is_some())
}

/// Refuses a role that is not there or of another account, in SageMaker's words.
///
/// # Errors
/// [`Error::Validation`] naming the role.
pub async fn check_assumable(cx: &Cx, role_arn: &str) -> Result<()> {
    if is_assumable(cx, role_arn)? {
        return Ok(());
    }
    Err(Error::Validation(format!(
        "Could not assume role {role_arn}. Please ensure that the role exists and allows principal \
         'sagemaker.amazonaws.com' to assume the role."
    )))
}

/// Account and name of a role ARN; the path is left out, as role names are unique without it.
pub fn split_role_arn(arn: &str) -> Option<(&str, &str)> {
    let rest = arn.strip_prefix("arn:aws:iam::")?;
    let (account, resource) = rest.split_once(':')?;
    let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
    (account.len() == 12 && !name.is_empty()).then_some((account, name))
}

#[cfg(test)]
mod tests {
    use super::split_role_arn;

    #[test]
    fn role_arns_split_into_account_and_name() {
        assert_eq!(split_role_arn("arn:aws:iam::123456789012:role/a/b/Name"), Some(("123456789012", "Name")));
        assert_eq!(split_role_arn("arn:aws:iam::123456789012:user/Name"), None);
        assert_eq!(split_role_arn("Name"), None);
    }
}
