//! One request on its way: what the model gets is read, the model is asked, and the end is put down.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serving::{InvokeError, InvokeRequest};
use store::async_requests::AsyncRequest;
use store::resources::ResourceKey;

use super::RETRY_PAUSE;
use super::ending::{self, Answer, End, Failure, is_passing};
use super::line::Place;
use super::metrics::{self, Spent};
use super::request::RequestDocument;
use crate::app::App;
use crate::training::bucket_and_key;

/// Most bytes that a model gets or answers, as in the service.
const MOST_BYTES: u64 = 1 << 30;
/// How many workers may be lost that had a request, before it fails.
const MOST_LOSSES: i64 = 3;
/// How often an input is read when the disk or another store fails.
const MOST_READS: u32 = 5;
/// Pause before a request goes back to the line because nobody could take it.
const NOBODY_PAUSE: Duration = Duration::from_millis(200);
/// Types that say nothing of what an object is: those that stores give it by themselves.
const SAYS_NOTHING: &[&str] = &["binary/octet-stream", "application/octet-stream"];

/// How a try came out.
enum Tried {
    /// The request is at its end.
    Ended(End),
    /// It goes back to the line; perhaps because its worker was lost.
    Again { lost: bool },
}

/// Drives a request that has a place until it ends or goes back to the line.
pub async fn run(app: Arc<App>, place: Place, request: AsyncRequest) {
    let key = &place.line().key;
    let Some(document) = ending::document(&app, key, &request).await else { return };
    if let Some(end) = ending::found(&app, key, &request, &document).await {
        return ending::finish(&app, key, &request, &document, end, None).await;
    }
    let mut spent = Spent { waited_ms: app.clock.now_ms() - request.accepted_at, ..Spent::default() };
    match tried(&app, &place, &request, &document, &mut spent).await {
        Tried::Ended(end) => ending::finish(&app, key, &request, &document, end, Some(spent)).await,
        Tried::Again { lost } => {
            if !lost {
                tokio::time::sleep(NOBODY_PAUSE).await;
            }
            give_back(&app, key, &request, lost).await;
        }
    }
}

/// Ends a request that is not tried, unless an earlier try has ended it already.
pub async fn end(app: &Arc<App>, key: &ResourceKey, request: AsyncRequest, end: End) {
    let Some(document) = ending::document(app, key, &request).await else { return };
    let end = ending::found(app, key, &request, &document).await.unwrap_or(end);
    ending::finish(app, key, &request, &document, end, None).await;
}

async fn tried(
    app: &Arc<App>,
    place: &Place,
    request: &AsyncRequest,
    document: &RequestDocument,
    spent: &mut Spent,
) -> Tried {
    let key = &place.line().key;
    let began = Instant::now();
    let (body, found_type) = match input(app, key, request, document).await {
        Ok(input) => input,
        Err(failure) => {
            metrics::count(app, key, "RequestDownloadFailures");
            return Tried::Ended(End::Failed(failure));
        }
    };
    spent.download_ms = document.input_location.is_some().then(|| began.elapsed().as_secs_f64() * 1000.0);
    let limit = Duration::from_secs(document.timeout_seconds.into());
    let invocation = InvokeRequest {
        target_variant: Some(place.variant.clone()),
        content_type: document.content_type.clone().or(found_type),
        accept: document.accept.clone(),
        custom_attributes: document.custom_attributes.clone(),
        inference_id: Some(document.inference_id.clone()),
        request_id: Some(request.id.clone()),
        time_limit: Some(limit),
        body,
        ..InvokeRequest::default()
    };
    let invoked = app.endpoints.invoke_large(key, invocation, MOST_BYTES);
    // When the limit is over, the connection is dropped, and the host ends a worker that goes on.
    let answered = match tokio::time::timeout(limit, invoked).await {
        Ok(answered) => answered,
        Err(_) => {
            return Tried::Ended(End::Failed(Failure::of_time(document.timeout_seconds, &place.variant)));
        }
    };
    let error = match answered {
        Ok(response) => {
            let content_type = response.answer.content_type;
            return Tried::Ended(End::Answered(Answer {
                content_type,
                body: response.body,
                is_stored: false,
            }));
        }
        Err(error) => error,
    };
    match error {
        InvokeError::ContainerLost { .. } if request.losses + 1 < MOST_LOSSES => Tried::Again { lost: true },
        InvokeError::Overloaded { .. }
        | InvokeError::NotInService { .. }
        | InvokeError::NoSuchVariant { .. }
        | InvokeError::NoSuchEndpoint { .. } => Tried::Again { lost: false },
        error => Tried::Ended(End::Failed(Failure::of_model(key, &error))),
    }
}

async fn give_back(app: &App, key: &ResourceKey, request: &AsyncRequest, lost: bool) {
    loop {
        let (id, owner) = (request.id.clone(), app.endpoints.queues.owner.clone());
        let given =
            app.database.write(move |session| session.give_back_async_request(&id, &owner, lost)).await;
        let Err(error) = given else { return };
        tracing::error!(endpoint = key.name, request = request.id, %error, "a request could not be given back to its line");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// What the model gets, and the type that its object has.
async fn input(
    app: &App,
    key: &ResourceKey,
    request: &AsyncRequest,
    document: &RequestDocument,
) -> Result<(Bytes, Option<String>), Failure> {
    let Some(location) = &document.input_location else {
        return Ok((Bytes::from(request.body.clone().unwrap_or_default()), None));
    };
    let mut reads = 0;
    loop {
        reads += 1;
        match read(app, key, location).await {
            Ok(Ok(input)) => return Ok(input),
            Ok(Err(bytes)) => {
                return Err(Failure::of_input(format!(
                    "The input {location} has {bytes} bytes; a model gets at most {MOST_BYTES}."
                )));
            }
            Err(error) if is_passing(&error) && reads < MOST_READS => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => {
                return Err(Failure::of_input(format!("The input {location} cannot be read: {error}.")));
            }
        }
    }
}

/// The bytes and type of an object, or its size when it is too large.
async fn read(
    app: &App,
    key: &ResourceKey,
    location: &str,
) -> store::Result<Result<(Bytes, Option<String>), u64>> {
    let (bucket, name) = bucket_and_key(location).unwrap_or_default();
    let (object, file) = app.objects.open_version(&key.account, bucket, name).await?;
    if object.size > MOST_BYTES {
        return Ok(Err(object.size));
    }
    let size = object.size;
    let context = format!("read {location}");
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let bytes = read.map_err(store::Error::file(context))?;
    let content_type = object.attributes.headers.get("content-type").cloned();
    let content_type = content_type.filter(|content_type| !SAYS_NOTHING.contains(&content_type.as_str()));
    Ok(Ok((Bytes::from(bytes), content_type)))
}
