//! Bucket policies: checked for form, stored and shown. They grant nothing yet: an identity acts within its account.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use serde_json::Value;

use super::Front;
use super::auth::account;
use super::errors::answer;

/// Most bytes of a policy, as in S3.
const MOST_BYTES: usize = 20 * 1024;

/// Kind of the document that holds the policy of a bucket.
const DOCUMENT: &str = "policy";

/// Stores the policy of a bucket.
pub async fn put_bucket_policy(
    front: &Front,
    request: S3Request<PutBucketPolicyInput>,
) -> S3Result<S3Response<PutBucketPolicyOutput>> {
    let account = account(&request)?;
    let input = request.input;
    front.objects.bucket(&account, &input.bucket).await.map_err(answer)?;
    if let Err(problem) = check(&input.policy, &input.bucket) {
        return Err(s3_error!(MalformedPolicy, "{problem}"));
    }
    let set = front.objects.set_bucket_document(&account, &input.bucket, DOCUMENT, Some(input.policy)).await;
    set.map_err(answer)?;
    Ok(S3Response::new(PutBucketPolicyOutput::default()))
}

/// Answers the policy of a bucket, as it was given.
pub async fn get_bucket_policy(
    front: &Front,
    request: S3Request<GetBucketPolicyInput>,
) -> S3Result<S3Response<GetBucketPolicyOutput>> {
    let account = account(&request)?;
    let found = front.objects.bucket_document(&account, &request.input.bucket, DOCUMENT).await;
    let policy = found.map_err(answer)?;
    let policy = policy.ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))?;
    Ok(S3Response::new(GetBucketPolicyOutput { policy: Some(policy) }))
}

/// Removes the policy of a bucket.
pub async fn delete_bucket_policy(
    front: &Front,
    request: S3Request<DeleteBucketPolicyInput>,
) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
    let account = account(&request)?;
    let removed = front.objects.set_bucket_document(&account, &request.input.bucket, DOCUMENT, None).await;
    removed.map_err(answer)?;
    Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
}

/// What is wrong with the form of a policy.
fn check(policy: &str, bucket: &str) -> Result<(), &'static str> {
    if policy.len() > MOST_BYTES {
        return Err("Policies must not be larger than 20480 bytes");
    }
    let document: Value = serde_json::from_str(policy)
        .map_err(|_| "Policies must be valid JSON and the first byte must be '{'")?;
    let document =
        document.as_object().ok_or("Policies must be valid JSON and the first byte must be '{'")?;
    if document.keys().any(|name| !["Version", "Id", "Statement"].contains(&name.as_str())) {
        return Err("Unknown field in the policy");
    }
    if document.get("Version").is_some_and(|version| version != "2012-10-17" && version != "2008-10-17") {
        return Err("The policy must contain a valid version string");
    }
    let statements = match document.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return Err("Missing required field Statement"),
    };
    if statements.is_empty() {
        return Err("Could not parse the policy: Statement is empty!");
    }
    statements.into_iter().try_for_each(|statement| check_statement(statement, bucket))
}

fn check_statement(statement: &Value, bucket: &str) -> Result<(), &'static str> {
    let one_of = |name: &str, opposite: &str| match (statement.get(name), statement.get(opposite)) {
        (Some(value), None) | (None, Some(value)) => Some(value),
        _ => None,
    };
    if !statement.is_object() {
        return Err("Statement must be an object");
    }
    if !matches!(statement.get("Effect").and_then(Value::as_str), Some("Allow" | "Deny")) {
        return Err("Invalid effect: Effect must be Allow or Deny");
    }
    let principal = one_of("Principal", "NotPrincipal").ok_or("Missing required field Principal")?;
    if !(principal == "*" || principal.is_object()) {
        return Err("Invalid principal in policy");
    }
    let actions = one_of("Action", "NotAction").and_then(texts).ok_or("Missing required field Action")?;
    if !actions.iter().all(|action| *action == "*" || action.to_ascii_lowercase().starts_with("s3:")) {
        return Err("Policy has invalid action");
    }
    let resources =
        one_of("Resource", "NotResource").and_then(texts).ok_or("Missing required field Resource")?;
    let within = |resource: &&str| {
        let path = resource.strip_prefix("arn:aws:s3:::");
        path.is_some_and(|path| path.split('/').next() == Some(bucket))
    };
    if !resources.iter().all(within) {
        return Err("Policy has invalid resource");
    }
    if statement.get("Condition").is_some_and(|condition| !condition.is_object()) {
        return Err("Policy has an invalid condition");
    }
    Ok(())
}

/// One text or a list of at least one.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) if !list.is_empty() => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::json;

    #[test]
    fn policies_of_the_right_form_are_taken() {
        let statement = json!({
            "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
            "Action": ["s3:GetObject", "s3:List*"], "Resource": ["arn:aws:s3:::mine", "arn:aws:s3:::mine/*"],
        });
        for policy in
            [json!({"Version": "2012-10-17", "Statement": [statement]}), json!({"Statement": statement})]
        {
            assert_eq!(check(&policy.to_string(), "mine"), Ok(()), "{policy}");
        }
        let other = json!({"Statement": statement});
        assert_eq!(check(&other.to_string(), "other"), Err("Policy has invalid resource"));
    }

    #[test]
    fn the_first_fault_is_named() {
        let good = json!({
            "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::mine/*",
        });
        let with = |name: &str, value: serde_json::Value| {
            let mut statement = good.clone();
            statement[name] = value;
            json!({"Statement": [statement]}).to_string()
        };
        assert_eq!(check(&json!({"Statement": [good]}).to_string(), "mine"), Ok(()));
        for policy in [
            "no json".to_owned(),
            "[]".into(),
            "{}".into(),
            json!({"Statement": []}).to_string(),
            json!({"Statement": [good], "Other": 1}).to_string(),
            json!({"Statement": [good], "Version": "2020"}).to_string(),
            with("Effect", json!("Maybe")),
            with("Principal", json!("me")),
            with("NotPrincipal", json!("*")),
            with("Action", json!("ec2:Run")),
            with("Action", json!([])),
            with("Resource", json!("arn:aws:s3:::minefield/*")),
            with("Condition", json!("x")),
            " ".repeat(30_000),
        ] {
            assert!(check(&policy, "mine").is_err(), "{policy}");
        }
    }
}
