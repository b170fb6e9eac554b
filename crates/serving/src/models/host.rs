//! The processes of a replica that load models: a container by its `/models` paths, or the workers of a model host.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::workers::{Lease, Role, WorkerSlot, Workers};
use crate::connection::{AnswerBody, Chunk, ExchangeError};
use crate::frame::ResponseHeader;
use crate::http::{Answering, HttpReplica};
use crate::invocation::InvokeRequest;
use crate::refused::Refused;

/// What loads the models that this process does not answer for.
#[derive(Debug)]
pub(crate) enum Host {
    /// Nothing.
    Nothing,
    /// A container, and whether nothing was loaded here yet: an earlier server may have left models there.
    Container(Arc<HttpReplica>, AtomicBool),
    /// The workers of a model host.
    Workers(Arc<Workers>),
}

/// A model in a process of the replica.
#[derive(Debug)]
pub(super) struct Hosted {
    /// As the process knows it.
    name: String,
    inside: String,
    folder: PathBuf,
    /// The worker that has it.
    slot: OnceLock<Arc<WorkerSlot>>,
}

/// Why a model was not loaded.
#[derive(Debug)]
pub(super) enum LoadProblem {
    /// There is no room for it.
    Full(String),
    /// It cannot be.
    Failed(String),
}

/// The rest of a streamed answer.
#[derive(Debug)]
pub(super) enum HostedAnswer {
    Container(Arc<HttpReplica>, Option<Answering>),
    Worker(Option<Lease>),
}

impl Hosted {
    pub(super) fn new(name: String, inside: String, folder: PathBuf) -> Hosted {
        Hosted { name, inside, folder, slot: OnceLock::new() }
    }

    /// What its files take.
    pub(super) async fn folder_bytes(&self) -> u64 {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || bytes_below(&folder)).await.unwrap_or_default()
    }

    pub(super) async fn remove_folder(&self) {
        if let Err(error) = tokio::fs::remove_dir_all(&self.folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.folder.display(), %error, "the folder of a model is left behind");
        }
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    });
    sizes.sum()
}

type Answered = Option<(ResponseHeader, AnswerBody, Option<HostedAnswer>)>;

impl Host {
    /// What it is called in reports.
    pub(super) fn engine(&self) -> &'static str {
        match self {
            Host::Nothing => "",
            Host::Container(..) => "container",
            Host::Workers(_) => "python",
        }
    }

    /// Loads a model, and gives the memory that it takes where that is measured.
    pub(super) async fn load(&self, hosted: &Hosted, limit: Duration) -> Result<Option<u64>, LoadProblem> {
        let loading = async {
            match self {
                Host::Nothing => Err(LoadProblem::Failed(
                    "The model is for Python, and MODELYARD_ENGINE asks for the native engine.".into(),
                )),
                Host::Container(container, is_fresh) => {
                    if is_fresh.swap(false, Ordering::AcqRel) {
                        unload_strangers(container).await;
                    }
                    load_in_container(container, hosted).await.map(|()| None)
                }
                Host::Workers(workers) => {
                    workers.load(&hosted.name, &hosted.inside).await.map(|(slot, bytes)| {
                        // Loaded once: a model that is loaded anew is another one.
                        let _ = hosted.slot.set(slot);
                        Some(bytes)
                    })
                }
            }
        };
        tokio::time::timeout(limit, loading).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f64();
            Err(LoadProblem::Failed(format!("The model was not loaded within {seconds} seconds.")))
        })
    }

    /// Unloads a model and removes its files.
    pub(super) async fn unload(&self, hosted: &Hosted, limit: Duration) {
        let unloading = async {
            match self {
                Host::Nothing => {}
                Host::Container(container, _) => unload_from_container(container, &hosted.name).await,
                Host::Workers(_) => {
                    if let Some(slot) = hosted.slot.get() {
                        slot.unload(&hosted.name).await;
                    }
                }
            }
        };
        if tokio::time::timeout(limit, unloading).await.is_err() {
            tracing::warn!(model = hosted.name, "a model was not unloaded in time");
        }
        hosted.remove_folder().await;
    }

    /// Answers a request; `None` when the process has the model no more.
    pub(super) async fn invoke(
        &self,
        hosted: &Hosted,
        request: &InvokeRequest,
        max_body_bytes: u64,
        limit: Duration,
    ) -> Result<Answered, ExchangeError> {
        let late = |_| ExchangeError::Refused(Refused::TimedOut);
        match self {
            Host::Nothing => Ok(None),
            Host::Container(container, _) => {
                let path = format!("{}/invoke", path(hosted));
                let invoked = container.invoke_at(&path, request, max_body_bytes);
                let (header, body, rest) = tokio::time::timeout(limit, invoked).await.map_err(late)??;
                // A model may well answer 404 itself.
                if header.status == 404 && !is_loaded(container, hosted).await {
                    return Ok(None);
                }
                let rest = rest.map(|rest| HostedAnswer::Container(Arc::clone(container), Some(rest)));
                Ok(Some((header, body, rest)))
            }
            Host::Workers(_) => {
                let Some(slot) = hosted.slot.get() else { return Ok(None) };
                let Some(mut lease) = slot.lease(Role::Invoke).await else { return Ok(None) };
                let invoked = lease.connection().invoke_model(request, &hosted.name, max_body_bytes);
                let (header, body) = match tokio::time::timeout(limit, invoked).await.map_err(late)? {
                    Ok(answered) => answered,
                    // The worker was gone before it had read the request.
                    Err(ExchangeError::NotRead) => {
                        slot.give_up();
                        return Ok(None);
                    }
                    Err(error) => {
                        slot.give_up();
                        return Err(error);
                    }
                };
                if matches!(body, AnswerBody::Chunked) {
                    return Ok(Some((header, body, Some(HostedAnswer::Worker(Some(lease))))));
                }
                lease.give_back();
                let is_forgotten = header.status == 404 && header.error.is_some();
                Ok((!is_forgotten).then_some((header, body, None)))
            }
        }
    }
}

impl HostedAnswer {
    pub(super) async fn next_chunk(&mut self, max_chunk_bytes: u64) -> Result<Chunk, ExchangeError> {
        match self {
            HostedAnswer::Container(container, rest) => container.next_chunk(rest, max_chunk_bytes).await,
            HostedAnswer::Worker(lease) => {
                let Some(held) = lease else { return Ok(Chunk::End) };
                let chunk = held.connection().read_chunk(max_chunk_bytes).await?;
                if !matches!(chunk, Chunk::Data(_))
                    && let Some(lease) = lease.take()
                {
                    lease.give_back();
                }
                Ok(chunk)
            }
        }
    }
}

fn path(hosted: &Hosted) -> String {
    format!("/models/{}", hosted.name)
}

async fn unload_from_container(container: &HttpReplica, name: &str) {
    let asked = container.ask(Method::DELETE, &format!("/models/{name}"), Bytes::new()).await;
    if !matches!(asked, Ok((200..=299 | 404, _))) {
        tracing::warn!(model = name, ?asked, "a container did not unload a model");
    }
}

/// Unloads what the container has loaded for an earlier server.
async fn unload_strangers(container: &HttpReplica) {
    let Ok((200, answer)) = container.ask(Method::GET, "/models", Bytes::new()).await else { return };
    let listed: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    for model in listed["models"].as_array().into_iter().flatten() {
        // It goes into a path: what is no name of ours is left alone.
        let name = model["modelName"].as_str().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            unload_from_container(container, name).await;
        }
    }
}

async fn is_loaded(container: &HttpReplica, hosted: &Hosted) -> bool {
    !matches!(container.ask(Method::GET, &path(hosted), Bytes::new()).await, Ok((404, _)))
}

async fn load_in_container(container: &HttpReplica, hosted: &Hosted) -> Result<(), LoadProblem> {
    let body = serde_json::json!({"model_name": hosted.name, "url": hosted.inside}).to_string();
    let (status, answer) = container.ask(Method::POST, "/models", body.into()).await.map_err(|error| {
        LoadProblem::Failed(format!("The container did not answer POST /models: {error:?}"))
    })?;
    let said = String::from_utf8_lossy(&answer);
    match status {
        // It has it already.
        200..=299 | 409 => Ok(()),
        507 => Err(LoadProblem::Full(format!("The container has no memory for the model: {said}"))),
        status => Err(LoadProblem::Failed(format!(
            "The container did not load the model (status {status}): {said}"
        ))),
    }
}
