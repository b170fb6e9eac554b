//! The end of a request: one object, then one transaction that takes it out of the line and tells the topic.
//!
//! Both objects of a request have keys of their own. A crash between the two steps leaves the object and the row; whoever
//! takes the row up finds the object, and only the second step is done again.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use failpoint::Point;
use serde_json::{Value, json};
use serving::InvokeError;
use store::async_requests::AsyncRequest;
use store::objects::{Attributes, Condition, Protection, RemoteProblem};
use store::resources::ResourceKey;

use super::metrics::{self, Spent};
use super::request::RequestDocument;
use super::{RETRY_PAUSE, notice};
use crate::app::App;
use crate::job_log::JobLog;
use crate::training::bucket_and_key;

/// How much of a failed model's answer its failure carries.
const ORIGINAL_CHARACTERS: usize = 65_536;

/// How a request ends.
#[derive(Debug, Clone)]
pub enum End {
    /// The model answered.
    Answered(Answer),
    /// It did not, or its answer could not be put down.
    Failed(Failure),
}

/// What a model answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its type.
    pub content_type: Option<String>,
    /// Its bytes.
    pub body: Bytes,
    /// Whether it is in S3 already.
    pub is_stored: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    code: String,
    /// A sentence for people.
    pub message: String,
    /// Status and text of the model's own answer.
    original: Option<(u16, String)>,
    is_stored: bool,
}

impl Failure {
    fn new(code: &str, message: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), message: message.into(), original: None, is_stored: false }
    }

    /// The endpoint was deleted before the request had its turn.
    pub fn of_deletion(endpoint: &str) -> Failure {
        Failure::new(
            "EndpointDeleted",
            format!("Endpoint {endpoint} was deleted before it came to this request."),
        )
    }

    /// It waited too long.
    pub fn of_expiry(request: &AsyncRequest) -> Failure {
        let seconds = (request.expires_at - request.accepted_at) / 1000;
        let text = format!(
            "The request waited for {seconds} seconds (RequestTTLSeconds) without its turn and expired."
        );
        Failure::new("RequestExpired", text)
    }

    /// The model took too long.
    pub fn of_time(limit_seconds: u32, variant: &str) -> Failure {
        let text = format!(
            "Received server error (0) from {variant}: the model did not answer within {limit_seconds} seconds \
             (InvocationTimeoutSeconds)."
        );
        Failure::new("InvocationTimeout", text)
    }

    /// What the model should get cannot be had.
    pub fn of_input(text: String) -> Failure {
        Failure::new("InputError", text)
    }

    /// The model failed, or its worker.
    pub fn of_model(key: &ResourceKey, error: &InvokeError) -> Failure {
        let InvokeError::ModelError { answer, body, .. } = error else {
            return Failure::new("ModelError", error.to_string());
        };
        let text = String::from_utf8_lossy(body);
        let shown: String = text.chars().take(1024).collect();
        let kind = if answer.status < 500 { "client" } else { "server" };
        let message = format!(
            "Received {kind} error ({}) from {} with message \"{shown}\". See the log group /aws/sagemaker/Endpoints/{} in account \
             {}, or run: modelyard logs {}",
            answer.status, answer.invoked_variant, key.name, key.account, key.name
        );
        let original = Some((answer.status, text.chars().take(ORIGINAL_CHARACTERS).collect()));
        Failure { original, ..Failure::new("ModelError", message) }
    }

    fn of_output(uri: &str, text: &str) -> Failure {
        Failure::new("OutputError", format!("The answer cannot be stored as {uri}: {text}."))
    }

    /// In the shape that the runtime answers a failed invocation in.
    pub fn to_json(&self) -> Value {
        let mut shown = json!({"ErrorCode": self.code, "Message": self.message});
        if let Some((status, text)) = &self.original {
            shown["OriginalStatusCode"] = json!(status);
            shown["OriginalMessage"] = json!(text);
        }
        shown
    }

    fn of_json(stored: &Value) -> Failure {
        let text = |name: &str| stored[name].as_str().unwrap_or_default().to_owned();
        let original = stored["OriginalStatusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
        Failure {
            code: text("ErrorCode"),
            message: text("Message"),
            original: original.map(|status| (status, text("OriginalMessage"))),
            is_stored: true,
        }
    }
}

/// Whether another try may do what failed.
pub fn is_passing(error: &store::Error) -> bool {
    use store::Error::{Database, File, NotCommitted, Remote};
    matches!(error, File { .. } | Database(_) | NotCommitted(_) | Remote(RemoteProblem::Unavailable(_)))
}

/// What was asked. A row that cannot be read is nobody's: it is taken out of the line, and the log says so.
pub async fn document(app: &App, key: &ResourceKey, request: &AsyncRequest) -> Option<RequestDocument> {
    match serde_json::from_str(&request.document) {
        Ok(document) => Some(document),
        Err(error) => {
            tracing::error!(endpoint = key.name, request = request.id, %error, "a damaged request is dropped");
            let (id, owner, now_ms) =
                (request.id.clone(), app.endpoints.queues.owner.clone(), app.clock.now_ms());
            let ended =
                app.database.write(move |session| session.end_async_request(&id, &owner, now_ms)).await;
            if let Err(error) = ended {
                tracing::error!(request = request.id, %error, "a damaged request could not be dropped");
            }
            None
        }
    }
}

/// The end that an earlier try has put down, when there was one.
pub async fn found(
    app: &App,
    key: &ResourceKey,
    request: &AsyncRequest,
    document: &RequestDocument,
) -> Option<End> {
    // Only a request that had a place before can have an object.
    request.started_at?;
    if let Some((content_type, body)) = object(app, key, request, &document.output).await {
        return Some(End::Answered(Answer { content_type, body, is_stored: true }));
    }
    let (_, body) = object(app, key, request, &document.failure).await?;
    Some(End::Failed(Failure::of_json(&serde_json::from_slice(&body).unwrap_or_default())))
}

/// Type and bytes of an object that was made after the request was accepted. The bytes are only for notices: of a large
/// object there are none.
async fn object(
    app: &App,
    key: &ResourceKey,
    request: &AsyncRequest,
    uri: &str,
) -> Option<(Option<String>, Bytes)> {
    let (bucket, name) = bucket_and_key(uri)?;
    loop {
        match app.objects.open_version(&key.account, bucket, name).await {
            Ok((object, mut file)) => {
                // Other stores tell whole seconds.
                if object.modified_at + 1000 < request.accepted_at {
                    return None;
                }
                let content_type = object.attributes.headers.get("content-type").cloned();
                if object.size > notice::MOST_RESPONSE_BYTES as u64 {
                    return Some((content_type, Bytes::new()));
                }
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut file, &mut bytes).map(|_| bytes)
                });
                let bytes = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                return Some((content_type, Bytes::from(bytes.unwrap_or_default())));
            }
            Err(error) if is_passing(&error) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(_) => return None,
        }
    }
}

/// Puts the end down and takes the request out of the line.
pub async fn finish(
    app: &Arc<App>,
    key: &ResourceKey,
    request: &AsyncRequest,
    document: &RequestDocument,
    mut end: End,
    mut spent: Option<Spent>,
) {
    let protection = || document.settings.protection();
    if let End::Answered(answer) = &end
        && !answer.is_stored
    {
        let began = Instant::now();
        let content_type = answer.content_type.as_deref();
        let put = put(app, key, &document.output, &answer.body, content_type, protection()).await;
        if let Err(text) = put {
            metrics::count(app, key, "ResponseUploadFailures");
            end = End::Failed(Failure::of_output(&document.output, &text));
        } else if let Some(spent) = &mut spent {
            spent.upload_ms = Some(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    if let End::Failed(failure) = &end
        && !failure.is_stored
    {
        let body = Bytes::from(failure.to_json().to_string());
        let put = put(app, key, &document.failure, &body, Some("application/json"), protection()).await;
        if let Err(text) = put {
            metrics::count(app, key, "ResponseUploadFailures");
            tracing::error!(
                endpoint = key.name,
                request = request.id,
                text,
                "a failure could not be stored; only the log and the topic have it"
            );
        }
        log(app, key, document, failure).await;
    }
    failpoint::pass(Point::AsyncStored);
    settle(app, key, request, document, &end).await;
    metrics::ended(app, key, &end, request, spent);
}

/// Takes the request out of the line and tells the topic, in one transaction.
async fn settle(
    app: &Arc<App>,
    key: &ResourceKey,
    request: &AsyncRequest,
    document: &RequestDocument,
    end: &End,
) {
    loop {
        let (id, owner, now_ms) =
            (request.id.clone(), app.endpoints.queues.owner.clone(), app.clock.now_ms());
        let notice = notice::of(key, request, document, end, now_ms);
        let account = key.account.clone();
        let settled = app.database.write(move |session| {
            if !session.end_async_request(&id, &owner, now_ms)? {
                return Ok(None);
            }
            let Some(notice) = notice else { return Ok(Some(true)) };
            crate::sns::publish(session, &account, &notice, now_ms).map(Some)
        });
        match settled.await {
            Ok(published) => {
                if published == Some(false) {
                    metrics::count(app, key, "NotificationFailures");
                    tracing::warn!(
                        endpoint = key.name,
                        request = request.id,
                        "the topic of an endpoint does not exist"
                    );
                }
                app.deliveries.ring();
                return;
            }
            Err(error) => {
                tracing::error!(endpoint = key.name, request = request.id, %error, "a request could not be ended");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Makes bytes the object of that URI, as often as it takes; the error is a text that no other try would change.
async fn put(
    app: &App,
    key: &ResourceKey,
    uri: &str,
    body: &Bytes,
    content_type: Option<&str>,
    protection: Option<Protection>,
) -> Result<(), String> {
    loop {
        match put_once(app, key, uri, body.clone(), content_type, protection.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if is_passing(&error) => {
                tracing::warn!(endpoint = key.name, uri, %error, "an output could not be stored and is tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn put_once(
    app: &App,
    key: &ResourceKey,
    uri: &str,
    body: Bytes,
    content_type: Option<&str>,
    protection: Option<Protection>,
) -> store::Result<()> {
    let (bucket, name) = bucket_and_key(uri).unwrap_or_default();
    let mut incoming = app.objects.begin_protected(&key.account, bucket, protection).await?;
    let written = tokio::task::spawn_blocking(move || incoming.write(&body).map(|()| incoming));
    let written = written
        .await
        .map_err(|error| store::Error::file(format!("write {uri}"))(std::io::Error::other(error)))?;
    let headers =
        content_type.map(|value| ("content-type".to_owned(), value.to_owned())).into_iter().collect();
    let attributes = Attributes { headers, ..Attributes::default() };
    app.objects.commit(&key.account, bucket, name, written?, attributes, Condition::default()).await.map(drop)
}

/// Says in the endpoint's log what failed.
async fn log(app: &App, key: &ResourceKey, document: &RequestDocument, failure: &Failure) {
    let group = format!("/aws/sagemaker/Endpoints/{}", key.name);
    let stream = "async-inference/data-log";
    if let Err(error) = app.logs.ensure_stream(&key.account, &key.region, &group, stream).await {
        return tracing::error!(endpoint = key.name, %error, "the log of an endpoint cannot be written");
    }
    let line = format!("Inference {} failed: {} {}", document.inference_id, failure.code, failure.message);
    JobLog::new(app, &key.account, &key.region, &group, stream).line(&line).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_it_was_written() {
        let answer = serving::ModelAnswer {
            status: 500,
            invoked_variant: "AllTraffic".into(),
            ..serving::ModelAnswer::default()
        };
        let error = InvokeError::ModelError {
            answer: Box::new(answer),
            body: Bytes::from_static(b"no such row"),
            replica: String::new(),
        };
        let key = ResourceKey::new("123456789012", "us-east-1", "endpoint", "e");
        let failure = Failure::of_model(&key, &error);
        let stored = failure.to_json();
        assert_eq!(stored["ErrorCode"], "ModelError");
        assert_eq!(stored["OriginalStatusCode"], 500);
        assert_eq!(stored["OriginalMessage"], "no such row");
        assert!(
            failure.message.starts_with("Received server error (500) from AllTraffic"),
            "{}",
            failure.message
        );
        let read = Failure::of_json(&stored);
        assert_eq!(read.to_json(), stored);
        assert!(read.is_stored);
    }
}
