//! One object on its way through the model: requests in flight, answers in order, the output durable in parts and stored once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use failpoint::Point;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use serde_json::Value;
use serving::{DataPlane, InvokeError, InvokeRequest};
use store::objects::Protection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::batches::{self, Batch};
use super::ledger::{ObjectFailure, Outcome, Source};
use super::plan::Plan;
use super::spool::{self, Spool};
use super::stamp::Stamp;
use crate::app::App;

/// Time between two commits of an output.
const COMMIT_PAUSE: Duration = Duration::from_secs(1);
/// An answer from this size on is not worked on by a thread that serves others.
const LARGE_BYTES: usize = 64 << 10;
/// Pause before a request is repeated for the first time; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the objects of a job share.
pub struct Transform<'a> {
    /// The process state.
    pub app: &'a Arc<App>,
    /// Whose objects they are.
    pub account: &'a str,
    /// What is to be done.
    pub plan: Arc<Plan>,
    /// Where the model is served.
    pub plane: &'a DataPlane,
    /// Under which name.
    pub fleet: String,
    /// The job's folder.
    pub folder: PathBuf,
    /// Bucket of the outputs.
    pub bucket: String,
    /// What the keys of outputs begin with.
    pub prefix: String,
    /// How outputs are encrypted.
    pub protection: Option<Protection>,
    /// What is appended to each record of the output.
    pub stamp: Option<Stamp>,
    /// Requests that may be under way at once.
    pub permits: Semaphore,
    /// Records that were answered.
    pub records: AtomicU64,
    /// Bytes that were read.
    pub bytes: Arc<AtomicU64>,
}

/// Why an object did not come to an end.
pub enum Interruption {
    /// It failed; the others go on.
    Failed(ObjectFailure),
    /// The disk or the database failed; the job is repeated.
    Store(store::Error),
}

/// An answer in its place.
struct Answered<'a> {
    batch: Batch,
    answer: Result<Vec<u8>, ObjectFailure>,
    _permit: SemaphorePermit<'a>,
}

impl Transform<'_> {
    /// Transforms an object and stores its output.
    pub async fn object(&self, source: &Source) -> Result<Outcome, store::Error> {
        match self.whole(source).await {
            Ok(records) => Ok(Outcome { number: source.number, records, bytes: source.size, failure: None }),
            Err(Interruption::Store(error)) => Err(error),
            Err(Interruption::Failed(failure)) => {
                Ok(Outcome { number: source.number, records: 0, bytes: source.size, failure: Some(failure) })
            }
        }
    }

    async fn whole(&self, source: &Source) -> Result<u64, Interruption> {
        let (folder, number) = (self.folder.clone(), source.number);
        let spool = blocking(move || Spool::open(&folder, number)).await?;
        let position = spool.position();
        self.records.fetch_add(position.records, Ordering::Relaxed);
        let spool = if position.is_end { spool } else { self.answered(source, spool).await? };
        let records = spool.position().records;
        drop(spool);
        self.store(source).await?;
        Ok(records)
    }

    /// Sends what is left of the object, and appends the answers.
    async fn answered(&self, source: &Source, spool: Spool) -> Result<Spool, Interruption> {
        let failed = |sentence: String, record: Option<u64>| {
            Interruption::Failed(ObjectFailure {
                uri: source.uri(),
                records: record.map(|record| (record, record)),
                is_of_client: true,
                sentence,
                traceback: None,
            })
        };
        let opened = self.app.objects.open_version(self.account, &source.bucket, &source.key).await;
        let (object, file) =
            opened.map_err(|error| failed(format!("the object cannot be read: {error}"), None))?;
        if object.etag != source.etag {
            return Err(failed("the object was replaced while the job ran".into(), None));
        }
        let mut batches = batches::read(file, self.plan.clone(), spool.position(), self.bytes.clone());
        let mut spool = Some(spool);
        let mut committed_at = Instant::now();
        let mut under_way = FuturesOrdered::new();
        let mut waiting: Option<Batch> = None;
        let mut is_read = false;
        loop {
            tokio::select! {
                biased;
                Some(answered) = under_way.next() => {
                    let Answered { batch, answer, _permit } = answered;
                    let answer = answer.map_err(Interruption::Failed)?;
                    self.records.fetch_add(batch.records, Ordering::Relaxed);
                    let mut growing = spool.take().expect("it is put back below");
                    let commits = committed_at.elapsed() >= COMMIT_PAUSE;
                    let grown = blocking(move || {
                        growing.append(&answer, batch.input_end, batch.records)?;
                        if commits {
                            growing.sync()?;
                        }
                        Ok(growing)
                    });
                    spool = Some(grown.await?);
                    if commits {
                        committed_at = Instant::now();
                    }
                }
                permit = self.permits.acquire(), if waiting.is_some() => {
                    let permit = permit.expect("the permits are never closed");
                    let batch = waiting.take().expect("the branch says so");
                    under_way.push_back(self.ask(source, batch, permit));
                }
                batch = batches.recv(), if waiting.is_none() && !is_read => match batch {
                    None => is_read = true,
                    Some(Ok(batch)) => waiting = Some(batch),
                    Some(Err(error)) => return Err(failed(error.sentence, Some(error.record))),
                },
                else => break,
            }
        }
        let mut spool = spool.take().expect("it is put back after each answer");
        blocking(move || {
            spool.end();
            spool.sync()?;
            Ok(spool)
        })
        .await
    }

    async fn ask<'b>(&'b self, source: &Source, batch: Batch, permit: SemaphorePermit<'b>) -> Answered<'b> {
        let answer = match self.invoke(source, &batch).await {
            Ok(answer) => self.shaped(source, &batch, answer).await,
            Err(failure) => Err(failure),
        };
        Answered { batch, answer, _permit: permit }
    }

    /// The answer of the model, after as many attempts as it may have.
    async fn invoke(&self, source: &Source, batch: &Batch) -> Result<Bytes, ObjectFailure> {
        let mut attempt = 0;
        loop {
            let request = InvokeRequest {
                content_type: self.plan.content_type.clone(),
                accept: self.plan.accept.clone(),
                request_id: Some(format!("{}:{}", source.path, batch.first_record)),
                body: batch.payload.clone(),
                ..InvokeRequest::default()
            };
            let error = match self.plane.invoke(&self.fleet, request).await {
                Ok(response) => return Ok(response.body),
                Err(error) => error,
            };
            let is_of_client = match &error {
                InvokeError::ModelError { answer, .. } => (400..500).contains(&answer.status),
                InvokeError::TooLarge { .. } => true,
                _ => false,
            };
            if is_of_client || attempt == self.plan.retries {
                return Err(failure(source, batch, &error, is_of_client));
            }
            tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempt)).await;
            attempt += 1;
        }
    }

    /// What is stored of an answer.
    async fn shaped(&self, source: &Source, batch: &Batch, answer: Bytes) -> Result<Vec<u8>, ObjectFailure> {
        let (plan, stamp) = (self.plan.clone(), self.stamp.clone());
        let sources = batch.sources.clone();
        let size = answer.len();
        let now_ms = self.app.clock.now_ms();
        let shape = move || {
            let mut stored = match &plan.data {
                Some(data) => data.stored(&sources, &answer)?,
                None => answer.to_vec(),
            };
            if let Some(stamp) = stamp {
                stored = stamp.put(&stored, now_ms)?;
            }
            if plan.ends_lines && !stored.is_empty() && !stored.ends_with(b"\n") {
                stored.push(b'\n');
            }
            Ok(stored)
        };
        let shaped = if size < LARGE_BYTES {
            shape()
        } else {
            tokio::task::spawn_blocking(shape).await.unwrap_or_else(|error| Err(error.to_string()))
        };
        shaped.map_err(|sentence: String| ObjectFailure {
            uri: source.uri(),
            records: Some((batch.first_record, batch.first_record + batch.records - 1)),
            is_of_client: true,
            sentence,
            traceback: None,
        })
    }

    /// Makes the finished output an object.
    async fn store(&self, source: &Source) -> Result<(), Interruption> {
        let key = format!("{}{}.out", self.prefix, source.path);
        let path = spool::path_of(&self.folder, source.number);
        let (bucket, accept) = (&self.bucket, self.plan.accept.as_deref());
        let put = self.app.objects.put_from_path(
            self.account,
            bucket,
            &key,
            &path,
            accept,
            self.protection.clone(),
        );
        put.await.map_err(|error| match error {
            store::Error::Missing { .. } | store::Error::Denied(_) | store::Error::Refused(_) => {
                Interruption::Failed(ObjectFailure {
                    uri: source.uri(),
                    records: None,
                    is_of_client: true,
                    sentence: format!("the output s3://{bucket}/{key} cannot be stored: {error}"),
                    traceback: None,
                })
            }
            error => Interruption::Store(error),
        })?;
        failpoint::pass(Point::TransformStored);
        Ok(())
    }
}

fn failure(source: &Source, batch: &Batch, error: &InvokeError, is_of_client: bool) -> ObjectFailure {
    let (mut sentence, mut traceback) = (error.to_string(), None);
    if let InvokeError::ModelError { answer, body, .. } = error {
        let text = String::from_utf8_lossy(body);
        let told: Option<Value> = serde_json::from_slice(body).ok();
        let member = |name: &str| told.as_ref().and_then(|told| told[name].as_str()).map(str::to_owned);
        traceback = member("traceback");
        let what = match (member("type"), member("message")) {
            (Some(kind), Some(message)) => format!("{kind}: {message}"),
            (_, Some(message)) => message,
            _ => text.chars().take(500).collect(),
        };
        sentence = format!("the model answered with status {}: {what}", answer.status);
    }
    ObjectFailure {
        uri: source.uri(),
        records: Some((batch.first_record, batch.first_record + batch.records - 1)),
        is_of_client,
        sentence,
        traceback,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Interruption> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| {
        Interruption::Store(store::Error::file("spool the output of a transform job")(error))
    })
}
