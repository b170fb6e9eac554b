//! Failures at a service: which object is missing, which action on which resource was denied.

use std::sync::LazyLock;

use regex::Regex;
use runner::diagnosis::{Cause, Diagnosis, last_frame};

/// `An error occurred (CODE) when calling the OPERATION operation: MESSAGE`, as the AWS SDK for Python says it.
static SDK_ERROR: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"An error occurred \(([\w.]+)\) when calling the (\w+) operation(?: \([^)]*\))?: ?([^\n]*)")
});
/// `not authorized to perform: ACTION on resource: RESOURCE because REASON`, as the services say it.
static NOT_AUTHORIZED: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?:User: (\S+) is )?not authorized to perform: ([\w*:-]+)(?: on resource: (\S+))?(?: (because [^\n]*))?",
    )
});
static S3_URI: LazyLock<Regex> =
    LazyLock::new(|| expression(r#"s3://[a-z0-9][a-z0-9.-]*(?:/[^\s"'<>|,;)\]}]*)?"#));
static MISSING_BUCKET: LazyLock<Regex> = LazyLock::new(|| expression(r"\bbucket (\S+) does not exist"));
static BUCKET_ARGUMENT: LazyLock<Regex> = LazyLock::new(|| expression(r#"\bBucket=["']([^"']+)["']"#));
static KEY_ARGUMENT: LazyLock<Regex> = LazyLock::new(|| expression(r#"\bKey=["']([^"']+)["']"#));

fn expression(text: &str) -> Regex {
    Regex::new(text).expect("a constant expression compiles")
}

const DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "403",
    "Forbidden",
    "UnauthorizedOperation",
    "AuthorizationError",
    "AllAccessDisabled",
];
const CREDENTIALS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
];
const MISSING: &[&str] = &[
    "NoSuchKey",
    "NoSuchBucket",
    "NoSuchUpload",
    "NoSuchVersion",
    "404",
    "NotFound",
    "ResourceNotFound",
    "ResourceNotFoundException",
];

/// Judges the exception with which the user's program ended; `None` when it is not a service's answer.
pub fn of_program(traceback: &str, exception: &str) -> Option<Diagnosis> {
    let found = SDK_ERROR.captures(exception)?;
    let (code, operation, message) = (&found[1], &found[2], found[3].trim());
    let frame = last_frame(traceback);
    let at = frame.as_ref().map(|frame| format!(" in {frame}")).unwrap_or_default();
    let place = frame.map(|frame| frame.function).unwrap_or_default();
    let evidence = vec![exception.lines().next().unwrap_or_default().to_owned()];
    let object = object_in(traceback);
    let named = object.as_deref().unwrap_or("which the line above names");
    if CREDENTIALS.contains(&code) {
        return Some(Diagnosis::new(
            Cause::AccessDenied,
            format!("The credentials with which the program called {operation}{at} are not valid: {message}"),
            "A job has credentials of its role in its environment: do not replace them. They end with the job's time limit.",
            evidence,
            &[code, operation, &place],
        ));
    }
    if DENIED.contains(&code) {
        let (action, resource, because) = denied(message);
        let action = action.unwrap_or_else(|| operation.to_owned());
        let resource =
            resource.or(object).unwrap_or_else(|| "a resource that the answer does not name".to_owned());
        return Some(Diagnosis::new(
            Cause::AccessDenied,
            format!("{action} on {resource} was denied{because}{at}."),
            "The job acts as its role (RoleArn): use a role of the account that owns the resource, or have the policy that denies it changed.",
            evidence,
            &[&action, &resource],
        ));
    }
    if MISSING.contains(&code) {
        let what = if code == "NoSuchBucket" { "bucket" } else { "object or resource" };
        return Some(Diagnosis::new(
            Cause::MissingObject,
            format!("{operation}{at} asked for something that does not exist ({code}): the {what} {named}."),
            "Compare the name with `aws s3 ls`; keys are exact, with capitals and slashes.",
            evidence,
            &[code, operation, &place, object.as_deref().unwrap_or_default()],
        ));
    }
    None
}

/// Judges a text of our own: what kept input away or results from being stored. `action` is what was being done to the object.
pub fn of_own_text(text: &str, action: &str) -> Option<Diagnosis> {
    let uri = S3_URI.find(text).map(|uri| uri.as_str().trim_end_matches(['.', ':', '?']).to_owned());
    let evidence = vec![text.lines().next().unwrap_or_default().to_owned()];
    if text.contains("belongs to another account")
        || text.contains("AccessDenied")
        || NOT_AUTHORIZED.is_match(text)
    {
        let (named, resource, because) = denied(text);
        let resource =
            resource.or_else(|| uri.as_deref().map(arn)).unwrap_or_else(|| "the object".to_owned());
        let action = named.unwrap_or_else(|| action.to_owned());
        let because = if because.is_empty() && text.contains("another account") {
            " because the bucket belongs to another account".to_owned()
        } else {
            because
        };
        return Some(Diagnosis::new(
            Cause::AccessDenied,
            format!("{action} on {resource} was denied{because}."),
            "Use a bucket of the job's own account, or have its owner allow it.",
            evidence,
            &[&action, &resource],
        ));
    }
    if let Some(bucket) = MISSING_BUCKET.captures(text) {
        let wanted = uri.map(|uri| format!(" (wanted for {uri})")).unwrap_or_default();
        return Some(Diagnosis::new(
            Cause::MissingObject,
            format!("The bucket {} does not exist{wanted}.", &bucket[1]),
            "Create it (`aws s3 mb`), or correct the URI in the request.",
            evidence,
            &["bucket", &bucket[1]],
        ));
    }
    let is_missing = ["does not exist", "No S3 objects found", "was deleted", "NoSuchKey"]
        .iter()
        .any(|said| text.contains(said));
    let uri = uri.filter(|_| is_missing)?;
    let (bucket, key) = super::bucket_and_key(&uri)?;
    let sentence = if text.contains("No S3 objects found") {
        format!("There is no object in bucket {bucket} whose key begins with {key:?} ({uri}).")
    } else {
        format!("The object {key:?} does not exist in bucket {bucket} ({uri}).")
    };
    let hint = format!(
        "List what is there with `aws s3 ls s3://{bucket}/ --recursive`, then correct the URI or upload the object."
    );
    Some(Diagnosis::new(Cause::MissingObject, sentence, hint, evidence, &[bucket, key]))
}

/// Action, resource and reason of a denial, as far as the message has them.
fn denied(message: &str) -> (Option<String>, Option<String>, String) {
    let Some(found) = NOT_AUTHORIZED.captures(message) else { return (None, None, String::new()) };
    let part = |at: usize| {
        found.get(at).map(|part| part.as_str().trim_end_matches(['.', ',']).trim_matches('"').to_owned())
    };
    let who = part(1).map(|who| format!(" to {who}")).unwrap_or_default();
    let because = part(4).map(|why| format!(" {why}")).unwrap_or_default();
    (part(2), part(3), format!("{who}{because}"))
}

/// The object that the lines of a traceback name, when they do.
fn object_in(traceback: &str) -> Option<String> {
    if let Some(uri) = S3_URI.find_iter(traceback).last() {
        return Some(uri.as_str().to_owned());
    }
    let bucket = BUCKET_ARGUMENT.captures_iter(traceback).last().map(|found| found[1].to_owned());
    let key = KEY_ARGUMENT.captures_iter(traceback).last().map(|found| found[1].to_owned());
    match (bucket, key) {
        (Some(bucket), Some(key)) => Some(format!("s3://{bucket}/{key}")),
        (Some(bucket), None) => Some(format!("s3://{bucket}")),
        (None, key) => key.map(|key| format!("with key {key:?}")),
    }
}

fn arn(uri: &str) -> String {
    format!("arn:aws:s3:::{}", uri.trim_start_matches("s3://").trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(source: &str, exception: &str) -> Option<Diagnosis> {
        let traceback = format!(
            "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 7, in load\n    {source}\n  File \
             \"/usr/lib/python3/botocore/client.py\", line 1009, in _make_api_call\n    raise error_class(parsed_response, \
             operation_name)\n{exception}"
        );
        of_program(&traceback, exception)
    }

    #[test]
    fn a_missing_object_of_the_program_is_named() {
        let found = program(
            "s3.get_object(Bucket='data', Key=\"raw/2024.csv\")",
            "botocore.errorfactory.NoSuchKey: An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does \
             not exist.",
        );
        let found = found.unwrap();
        assert_eq!(found.cause, Cause::MissingObject);
        assert!(
            found.sentence.contains("s3://data/raw/2024.csv") && found.sentence.contains("in load"),
            "{}",
            found.sentence
        );
        let head = "botocore.exceptions.ClientError: An error occurred (404) when calling the HeadObject operation: Not Found";
        assert_eq!(program("pd.read_csv(uri)", head).unwrap().cause, Cause::MissingObject);
        assert!(program("x", "ValueError: An error of mine").is_none());
        let other = "botocore.exceptions.ClientError: An error occurred (SlowDown) when calling the PutObject operation: Reduce";
        assert!(program("x", other).is_none());
    }

    #[test]
    fn a_denial_names_action_and_resource() {
        let found = program(
            "s3.get_object(**place)",
            "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the GetObject operation: User: \
             arn:aws:sts::123456789012:assumed-role/R/s is not authorized to perform: s3:GetObject on resource: \
             \"arn:aws:s3:::data/a.csv\" because no identity-based policy allows the s3:GetObject action",
        );
        let found = found.unwrap();
        assert_eq!(found.cause, Cause::AccessDenied);
        assert_eq!(
            found.sentence,
            "s3:GetObject on arn:aws:s3:::data/a.csv was denied to arn:aws:sts::123456789012:assumed-role/R/s because no identity-based \
             policy allows the s3:GetObject action in load (/opt/ml/code/train.py, line 7)."
        );
        let bare = "botocore.exceptions.ClientError: An error occurred (403) when calling the HeadObject operation: Forbidden";
        let found = program("s3.head_object(Bucket='theirs', Key='k')", bare).unwrap();
        assert!(found.sentence.starts_with("HeadObject on s3://theirs/k was denied"), "{}", found.sentence);
    }

    #[test]
    fn our_own_texts_give_bucket_and_key() {
        let text = "ClientError: No S3 objects found under S3 URL \"s3://data/raw/x\" given in input data source. Please ensure that the \
                    bucket exists, and that objects exist under that prefix.";
        let found = of_own_text(text, "s3:GetObject").unwrap();
        assert_eq!(
            found.sentence,
            "There is no object in bucket data whose key begins with \"raw/x\" (s3://data/raw/x)."
        );
        let text = "ClientError: the source archive s3://data/a/sourcedir.tar.gz cannot be read: object a/sourcedir.tar.gz does not exist";
        let found = of_own_text(text, "s3:GetObject").unwrap();
        assert_eq!(
            found.sentence,
            "The object \"a/sourcedir.tar.gz\" does not exist in bucket data (s3://data/a/sourcedir.tar.gz)."
        );
        let text = "ClientError: the objects under \"s3://nothere/x\" cannot be listed: bucket nothere does not exist.";
        assert!(
            of_own_text(text, "")
                .unwrap()
                .sentence
                .starts_with("The bucket nothere does not exist (wanted for s3://nothere/x)")
        );
        let text = "ClientError: Artifact upload failed: s3://theirs/j/output/model.tar.gz: bucket theirs belongs to another account";
        let found = of_own_text(text, "s3:PutObject").unwrap();
        assert_eq!(
            found.sentence,
            "s3:PutObject on arn:aws:s3:::theirs/j/output/model.tar.gz was denied because the bucket belongs to another account."
        );
        assert!(of_own_text("ClientError: s3://a/b cannot be unpacked: not a tar file", "").is_none());
    }
}
