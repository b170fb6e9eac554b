//! What is kept of an accepted request, and how one is accepted.

use api::sagemaker_runtime::InvokeEndpointAsyncInput;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::async_requests::NewAsyncRequest;
use store::objects::Condition;
use store::resources::ResourceKey;

use super::AsyncSettings;
use crate::endpoints::EndpointRecord;
use crate::training::bucket_and_key;
use crate::{Cx, Error, Result};

/// How long a request may wait when it does not say; also the longest time.
const DEFAULT_TTL_SECONDS: i64 = 21_600;
/// How long the model may take when the request does not say.
const DEFAULT_TIMEOUT_SECONDS: u32 = 900;

/// What is kept of an accepted request beside its body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RequestDocument {
    /// The caller's name for it, or one that was made.
    pub inference_id: String,
    /// S3 URI of what the model gets, unless it came with the request.
    pub input_location: Option<String>,
    /// Type of what the model gets.
    pub content_type: Option<String>,
    /// Types that the caller takes.
    pub accept: Option<String>,
    /// Free text for the model.
    pub custom_attributes: Option<String>,
    /// How long the model may take.
    pub timeout_seconds: u32,
    /// S3 URI of the answer.
    pub output: String,
    /// S3 URI of the failure.
    pub failure: String,
    /// What the endpoint's configuration said when the request was accepted.
    pub settings: AsyncSettings,
}

/// Accepts a request into the line of its endpoint; it is durable when this returns.
///
/// # Errors
/// [`Error::Validation`] in the words of the runtime.
pub async fn accept(cx: &Cx, key: &ResourceKey, input: InvokeEndpointAsyncInput) -> Result<RequestDocument> {
    let body = input.body.map(|body| body.0).filter(|body| !body.is_empty());
    check_input(input.input_location.as_deref(), body.is_some())?;
    let record = endpoint(cx, key).await?;
    let name = &key.name;
    let settings = record.asynchronous.ok_or_else(|| {
        Error::Validation(format!(
            "Endpoint {name} of account {} is not asynchronous: its configuration has no AsyncInferenceConfig. Use InvokeEndpoint.",
            key.account
        ))
    })?;
    let id = uuid::Uuid::new_v4().to_string();
    let (output, failure) =
        locations(&settings, &id, input.s3_output_path_extension.as_deref(), input.filename.as_deref());
    check_location(cx, "S3OutputPath", &output).await?;
    check_location(cx, "S3FailurePath", &failure).await?;
    let now_ms = cx.state.clock.now_ms();
    let ttl_seconds = input.request_ttl_seconds.map_or(DEFAULT_TTL_SECONDS, i64::from);
    let asked = json!([
        input.input_location,
        input.content_type,
        input.accept,
        input.custom_attributes,
        input.s3_output_path_extension,
        input.filename,
        input.request_ttl_seconds,
        input.invocation_timeout_seconds,
    ]);
    let document = RequestDocument {
        inference_id: input.inference_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        input_location: input.input_location,
        content_type: input.content_type,
        accept: input.accept,
        custom_attributes: input.custom_attributes,
        timeout_seconds: input
            .invocation_timeout_seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        output,
        failure,
        settings,
    };
    let request = NewAsyncRequest {
        id,
        endpoint: key.clone(),
        inference_id: input.inference_id,
        digest: digest(&asked.to_string(), body.as_deref()),
        document: serde_json::to_string(&document).expect("texts and numbers always serialize"),
        body,
        accepted_at: now_ms,
        expires_at: now_ms + ttl_seconds * 1000,
    };
    let key = key.clone();
    let accepted = cx.state.database.write(move |session| {
        // A deletion that came meanwhile has ended the line; nobody would look at the request again.
        match session.find_resource(&key)? {
            Some(endpoint) if takes_requests(&endpoint.status) => {
                session.accept_async_request(&request).map(|(_, document)| Ok(document))
            }
            found => Ok(Err(not_in_service(&key, found.map(|endpoint| endpoint.status)))),
        }
    });
    serde_json::from_str(&accepted.await??).map_err(Error::internal)
}

fn check_input(location: Option<&str>, has_body: bool) -> Result<()> {
    match (location, has_body) {
        (None, false) => Err(Error::Validation(
            "InputLocation is missing: say which object of S3 the model gets, or send it as Body (up to 128,000 bytes).".into(),
        )),
        (Some(_), true) => Err(Error::Validation(
            "InputLocation and Body exclude each other: leave one of them out.".into(),
        )),
        (None, true) => Ok(()),
        (Some(location), false) => match bucket_and_key(location) {
            Some((_, key)) if !key.is_empty() => Ok(()),
            _ => Err(Error::Validation(format!(
                "InputLocation: {location:?} is not the S3 URI of an object, such as s3://bucket/key."
            ))),
        },
    }
}

/// The record of an endpoint that takes requests.
async fn endpoint(cx: &Cx, key: &ResourceKey) -> Result<EndpointRecord> {
    let sought = key.clone();
    let found = cx.state.database.read(move |session| session.find_resource(&sought)).await?;
    match found {
        Some(found) if takes_requests(&found.status) => Ok(EndpointRecord::read(&found.document)?),
        found => Err(not_in_service(key, found.map(|found| found.status))),
    }
}

/// An endpoint that is being updated goes on serving; one without instances keeps requests until it has some.
fn takes_requests(status: &str) -> bool {
    matches!(status, "InService" | "Updating" | "SystemUpdating" | "RollingBack" | "UpdateRollbackFailed")
}

fn not_in_service(key: &ResourceKey, status: Option<String>) -> Error {
    let (name, account) = (&key.name, &key.account);
    Error::Validation(match status {
        None => format!("Endpoint {name} of account {account} not found."),
        Some(status) => {
            format!("Endpoint {name} of account {account} is not in service: its status is {status}.")
        }
    })
}

/// Where the answer and the failure of a request go.
fn locations(
    settings: &AsyncSettings,
    id: &str,
    extension: Option<&str>,
    filename: Option<&str>,
) -> (String, String) {
    let path = |path: &str| match extension.map(|extension| extension.trim_matches('/')) {
        None | Some("") => path.to_owned(),
        Some(extension) => format!("{path}/{extension}"),
    };
    let answer = filename.map_or_else(|| format!("{id}.out"), str::to_owned);
    let failures = settings.failure_path.as_deref().unwrap_or(&settings.output_path);
    (format!("{}/{answer}", path(&settings.output_path)), format!("{}/{id}-error.out", path(failures)))
}

/// Refuses a request whose answer could not be put down.
async fn check_location(cx: &Cx, name: &str, uri: &str) -> Result<()> {
    let (bucket, key) = bucket_and_key(uri).unwrap_or_default();
    let checked = cx.state.objects.check(&cx.caller.account, bucket, key, &Condition::default()).await;
    checked.map_err(|error| match error {
        store::Error::Missing { .. } | store::Error::Denied(_) | store::Error::Refused(_) => {
            Error::Validation(format!(
                "{name} of the endpoint's configuration: {uri} cannot be written: {error}."
            ))
        }
        error => error.into(),
    })
}

fn digest(asked: &str, body: Option<&[u8]>) -> String {
    let mut hash = Sha256::new();
    hash.update((asked.len() as u64).to_be_bytes());
    hash.update(asked);
    hash.update(body.unwrap_or_default());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_failures_have_places_of_their_own() {
        let mut settings = AsyncSettings { output_path: "s3://b/out".into(), ..AsyncSettings::default() };
        let of =
            |settings: &AsyncSettings, extension, filename| locations(settings, "id", extension, filename);
        let beside = ("s3://b/out/id.out".into(), "s3://b/out/id-error.out".into());
        assert_eq!(of(&settings, None, None), beside);
        settings.failure_path = Some("s3://f/bad".into());
        let named = ("s3://b/out/day/1/mine.json".into(), "s3://f/bad/day/1/id-error.out".into());
        assert_eq!(of(&settings, Some("/day/1/"), Some("mine.json")), named);
    }

    #[test]
    fn what_the_model_gets_is_said_once() {
        let refused = |location, has_body| check_input(location, has_body).unwrap_err().to_string();
        assert!(refused(None, false).contains("InputLocation is missing"));
        assert!(refused(Some("s3://b/k"), true).contains("exclude"));
        assert!(refused(Some("s3://b/"), false).contains("S3 URI"));
        assert!(refused(Some("https://b.s3.amazonaws.com/k"), false).contains("S3 URI"));
        assert!(check_input(Some("s3://b/k"), false).is_ok() && check_input(None, true).is_ok());
        assert_ne!(digest("a", Some(b"b")), digest("ab", None));
    }
}
