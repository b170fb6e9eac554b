//! One attempt to bring a transform job to its end. Every step can be repeated: what is done is in the job's folder.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api::sagemaker::CreateTransformJobInput;
use failpoint::Point;
use futures::StreamExt;
use runner::diagnosis::Cause;
use serde_json::{Value, json};
use store::resources::Resource;
use store::work::Work;
use tokio::sync::{Notify, Semaphore};

use super::capture::Capture;
use super::ledger::{self, Ledger};
use super::object::Transform;
use super::plan::Plan;
use super::record::{Progress, TransformState};
use super::stamp::Stamp;
use super::{data, execution_parameters, failure, fleet, listing, progress, spool, usage};
use crate::app::App;
use crate::capacity::{Allocation, Claim};
use crate::capture::protection;
use crate::job_log::JobLog;
use crate::sagemaker::lineage;
use crate::training::record::{FailureCard, HostRecord, TrainingRecord};
use crate::training::{admission, bucket_and_key, kind};

/// Pause before a step is repeated that failed for no fault of the job.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// How an attempt ends.
#[expect(clippy::large_enum_variant, reason = "there is one for each job, at its end")]
enum End {
    Completed,
    Stopped,
    Failed(FailureCard),
}

/// What the steps of an attempt share.
pub struct Attempt<'a> {
    /// The process state.
    pub app: &'a Arc<App>,
    /// The claimed work.
    pub work: &'a Work,
    owner: &'a str,
    request: CreateTransformJobInput,
    created_at: i64,
    state: TransformState,
    folder: PathBuf,
    /// Whether an earlier server had it already.
    pub is_taken_up: bool,
    /// Its part of the machine, kept until its replicas are gone.
    allocation: Mutex<Option<Allocation>>,
}

/// Drives the job until it ends, repeating after faults of the database and the disk.
pub async fn run(app: &Arc<App>, work: Work, owner: &str, stop: &Notify) {
    loop {
        let driven = drive(app, &work, owner, stop).await;
        // Whatever came in the way of finding out.
        app.capacity.does_not_run(&work.key);
        match driven {
            Ok(()) | Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => return,
            Err(error) => {
                tracing::error!(job = work.key.name, %error, "a transform job is repeated from its last step");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn drive(app: &Arc<App>, work: &Work, owner: &str, stop: &Notify) -> store::Result<()> {
    let key = work.key.clone();
    let resource = app.database.read(move |session| session.resource(&key)).await?;
    let record = TrainingRecord::read(&resource.document)?;
    let request: CreateTransformJobInput = serde_json::from_value(resource.spec.clone())?;
    let state =
        record.transform.clone().ok_or_else(|| store::Error::Invalid("it is no transform job".into()))?;
    let folder = super::folders_directory(&app.config).join(&state.folder);
    let (created_at, is_taken_up) = (resource.created_at, !record.grant.is_empty());
    let allocation = Mutex::default();
    let attempt = Attempt { app, work, owner, request, created_at, state, folder, is_taken_up, allocation };
    let end = tokio::select! {
        end = attempt.to_the_end(&record) => end?,
        () = attempt.stopped(stop) => End::Stopped,
    };
    app.transform.plane.remove(&fleet::name(&work.key)).await;
    drop(attempt.hold(None));
    attempt.finish(end).await
}

impl Attempt<'_> {
    async fn to_the_end(&self, record: &TrainingRecord) -> store::Result<End> {
        let plan = match Plan::of(&self.request) {
            Ok(plan) => plan,
            Err(text) => {
                return Ok(failed(Cause::Request, &format!("ClientError: {text}"), "Correct the request."));
            }
        };
        let grant = match self.admitted(record).await? {
            Ok(allocation) => {
                let grant = allocation.grant.clone();
                drop(self.hold(Some(allocation)));
                grant
            }
            Err(end) => return Ok(end),
        };
        let before = match self.listed().await? {
            Ok(progress) => progress,
            Err(end) => return Ok(end),
        };
        let key = &self.work.key;
        let plane = &app_plane(self.app);
        let (model, engine) = (&self.state.model, self.state.engine());
        let brought_up = fleet::bring_up(self.app, plane, key, model, engine, &plan, &grant).await;
        if let Err(reason) = brought_up {
            return Ok(End::Failed(failure::of_model(&reason, self.logs())));
        }
        tokio::spawn(lineage::transform::record_inputs(self.app.clone(), key.clone()));
        let replicas = plane.replicas(&fleet::name(key));
        let hosts = replicas.iter().enumerate().map(|(at, replica)| HostRecord {
            name: format!("algo-{}", at + 1),
            workload: replica.clone(),
            log_stream: format!("{}/{replica}", key.name),
            exit: None,
            ended_at: None,
            run: None,
        });
        let hosts: Vec<HostRecord> = hosts.collect();
        let engines = self.app.transform.engines(&replicas).await;
        self.update(move |record, now_ms| {
            record.hosts = hosts;
            if let Some(state) = record.transform.as_mut().filter(|state| state.engines.is_empty()) {
                state.engines = engines;
            }
            record.training_started_at.get_or_insert(now_ms);
            record.enter("Transforming", "Transforming the objects", now_ms);
        })
        .await?;
        let group = kind::log_group(&key.kind);
        self.app.logs.ensure_stream(&key.account, &key.region, group, &self.data_stream()).await?;
        let name = fleet::name(key);
        let plan = match execution_parameters::filled_in(plane, &name, plan, &self.data_log()).await {
            Ok(plan) => Arc::new(plan),
            Err(text) => {
                let hint = "Correct the container's answer, or say MaxConcurrentTransforms, MaxPayloadInMB and BatchStrategy in the request.";
                return Ok(failed(Cause::Request, &format!("AlgorithmError: {text}"), hint));
            }
        };
        let workers = fleet::workers(&self.state.model, &plan, &grant);
        let at_once = fleet::requests_at_once(&plan, workers) as usize * grant.len().max(1);
        self.data_log()
            .line(&format!(
                "[sagemaker logs]: MaxConcurrentTransforms={}, MaxPayloadInMB={}, BatchStrategy={}",
                fleet::requests_at_once(&plan, workers),
                plan.payload_mb,
                plan.strategy()
            ))
            .await;
        self.transformed(plan, before, at_once, &replicas).await
    }

    /// Puts another part of the machine in the place of the one that is kept.
    fn hold(&self, allocation: Option<Allocation>) -> Option<Allocation> {
        // A poisoned lock only says that another thread panicked; the place is still a place.
        std::mem::replace(&mut *self.allocation.lock().unwrap_or_else(PoisonError::into_inner), allocation)
    }

    /// The part of the machine that the job gets.
    async fn admitted(&self, record: &TrainingRecord) -> store::Result<Result<Allocation, End>> {
        let hint = "Use an instance type that fits this machine, or give it what it asks for under [capacity] in the settings.";
        let resources = serde_json::to_value(&self.request.transform_resources)?;
        let types = self.app.capacity.instance_types();
        let hosts = match admission::hosts(&json!({"ResourceConfig": resources}), types) {
            Ok(hosts) => hosts,
            Err(text) => return Ok(Err(failed(Cause::Capacity, &format!("CapacityError: {text}"), hint))),
        };
        let claim = Claim {
            key: self.work.key.clone(),
            hosts,
            queue: record.queue.clone(),
            priority: record.priority,
            spot: false,
            enqueued_at: self.work.enqueued_at,
        };
        if self.is_taken_up {
            return Ok(Ok(self.app.capacity.enter(claim, record.grant.clone())));
        }
        if let Some(reason) = self.app.capacity.never_fits(&claim) {
            return Ok(Err(failed(Cause::Capacity, &format!("CapacityError: {reason}"), hint)));
        }
        let mut written = Ok(());
        let waits = async {
            let pending =
                self.update(|record, now_ms| record.enter("Pending", "Waiting for capacity", now_ms));
            written = pending.await.map(drop);
        };
        let allocation = self.app.capacity.admit(claim, waits).await;
        written?;
        let grant = allocation.grant.clone();
        self.update(move |record, now_ms| {
            record.grant = grant;
            record.enter("Starting", "Starting the model", now_ms);
        })
        .await?;
        Ok(Ok(allocation))
    }

    /// The list of the objects, made by the first attempt.
    async fn listed(&self) -> store::Result<Result<Progress, End>> {
        if ledger::is_listed(&self.folder) {
            return Ok(Ok(self.state.progress.clone()));
        }
        let source = &self.request.transform_input.data_source.s3_data_source;
        let (data_type, uri) = (source.s3_data_type.as_str(), &source.s3_uri);
        let listed = listing::write(self.app, &self.work.key.account, data_type, uri, &self.folder).await;
        let (objects, bytes) = match listed {
            Ok(listed) => listed,
            Err(text) => {
                let hint = "Correct TransformInput.DataSource.S3DataSource, or put the objects there.";
                return Ok(Err(failed(Cause::Input, &text, hint)));
            }
        };
        let progress = Progress { objects, bytes, ..Progress::default() };
        self.note(progress.clone()).await?;
        Ok(Ok(progress))
    }

    /// Sends all objects that are left through the model.
    async fn transformed(
        &self,
        plan: Arc<Plan>,
        before: Progress,
        at_once: usize,
        replicas: &[String],
    ) -> store::Result<End> {
        let io = || store::Error::file("read the list of a transform job");
        let ledger = Arc::new(Ledger::open(&self.folder).map_err(io())?);
        let (bucket, prefix) =
            bucket_and_key(&self.request.transform_output.s3_output_path).unwrap_or_default();
        let prefix = prefix.trim_end_matches('/');
        let known = ledger.known().values();
        let (failed, done): (Vec<_>, Vec<_>) = known.partition(|outcome| outcome.failure.is_some());
        let bytes_before = failed.iter().chain(&done).map(|outcome| outcome.bytes).sum();
        let transform = Transform {
            app: self.app,
            account: &self.work.key.account,
            plan,
            plane: &app_plane(self.app),
            fleet: fleet::name(&self.work.key),
            folder: self.folder.clone(),
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            protection: protection(self.request.transform_output.kms_key_id.as_deref()),
            stamp: self.stamp(),
            permits: Semaphore::new(at_once),
            records: AtomicU64::new(done.iter().map(|outcome| outcome.records).sum()),
            bytes: Arc::new(AtomicU64::new(bytes_before)),
        };
        let ended = [AtomicU64::new(done.len() as u64), AtomicU64::new(failed.len() as u64)];
        let before = Progress { bytes_before, since: self.app.clock.now_ms(), ..before };
        let look = || {
            let [done, failed] = &ended;
            progress::now(&transform, &before, (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed)))
        };
        let sources = ledger.sources().map_err(io())?;
        let left = sources.filter(|source| {
            !source.as_ref().is_ok_and(|source| ledger.known().contains_key(&source.number))
        });
        let mut objects = futures::stream::iter(left)
            .map(|source| {
                let transform = &transform;
                async move { transform.object(&source.map_err(io())?).await }
            })
            .buffer_unordered(at_once);
        let all = async {
            while let Some(outcome) = objects.next().await {
                let outcome = outcome?;
                ended[usize::from(outcome.failure.is_some())].fetch_add(1, Ordering::Relaxed);
                if let Some(failure) = &outcome.failure {
                    self.data_log()
                        .line(&format!("[sagemaker logs]: {}: {}", failure.uri, failure.sentence))
                        .await;
                }
                let (ledger, number) = (ledger.clone(), outcome.number);
                let noted = tokio::task::spawn_blocking(move || ledger.note(&outcome)).await;
                let noted = noted.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                noted.map_err(store::Error::file("note the end of an object"))?;
                spool::remove(&self.folder, number);
            }
            Ok::<(), store::Error>(())
        };
        let mut places = usage::Places::default();
        tokio::select! {
            all = all => all?,
            never = progress::follow(self, look) => match never {},
            never = usage::forward(self, replicas, &mut places) => match never {},
        }
        usage::put(self, replicas, &mut places).await;
        let last = look();
        self.note(last.clone()).await?;
        let sentence = last.sentence(self.app.clock.now_ms());
        self.data_log().line(&format!("[modelyard]: {sentence}")).await;
        let ledger = Ledger::open(&self.folder).map_err(io())?;
        if let Err(text) = self.capture(&ledger).await {
            let hint = "Correct DataCaptureConfig; the outputs are stored.";
            return Ok(self::failed(Cause::Output, &text, hint));
        }
        let failed = ledger.known().values().filter(|outcome| outcome.failure.is_some());
        let count = failed.clone().count() as u64;
        let first = failed.min_by_key(|outcome| outcome.number).and_then(|outcome| outcome.failure.clone());
        Ok(match first {
            None => End::Completed,
            Some(first) => End::Failed(failure::of_objects(&first, count, last.objects, self.logs())),
        })
    }

    fn stamp(&self) -> Option<Stamp> {
        let wanted = self.request.data_capture_config.as_ref()?.generate_inference_id == Some(true);
        let output = &self.request.transform_output;
        let input = &self.request.transform_input;
        let media_type = output.accept.as_deref().or(input.content_type.as_deref()).unwrap_or_default();
        let is_whole = input.split_type.as_ref().is_none_or(|split| split.as_str() == "None");
        data::Format::of(media_type).filter(|_| wanted).map(|format| Stamp { format, is_whole })
    }

    async fn capture(&self, ledger: &Ledger) -> Result<(), String> {
        let Some(config) = &self.request.data_capture_config else { return Ok(()) };
        let with_slash = |uri: &str| format!("{}/", uri.trim_end_matches('/'));
        let source = &self.request.transform_input.data_source.s3_data_source.s3_uri;
        let first = ledger.sources().map_err(|error| error.to_string())?.next().transpose();
        let first = first.map_err(|error| error.to_string())?;
        // What stands before the path of an object is the same for all of them.
        let inputs = first.and_then(|first| first.uri().strip_suffix(&first.path).map(str::to_owned));
        let capture = Capture {
            account: &self.work.key.account,
            destination: &config.destination_s3_uri,
            protection: protection(config.kms_key_id.as_deref()),
            name: &self.state.folder,
            at_ms: self.created_at,
        };
        let inputs = inputs.unwrap_or_else(|| with_slash(source));
        capture
            .write(self.app, ledger, &inputs, &with_slash(&self.request.transform_output.s3_output_path))
            .await
    }

    /// Returns once a stop is wanted.
    async fn stopped(&self, stop: &Notify) {
        loop {
            let key = self.work.key.clone();
            match self.app.database.read(move |session| session.stop_wanted(&key)).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "a stop request could not be read"),
            }
            stop.notified().await;
        }
    }

    /// Notes how far the job is.
    pub async fn note(&self, progress: Progress) -> store::Result<()> {
        let noted = self.update(move |record, _| {
            if let Some(state) = &mut record.transform {
                state.progress = progress;
            }
        });
        noted.await.map(drop)
    }

    /// Changes the record while the lease is held; `change` also gets the time.
    async fn update(
        &self,
        change: impl FnOnce(&mut TrainingRecord, i64) + Send + 'static,
    ) -> store::Result<Resource> {
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let changed = self.app.database.write(move |session| {
            session.check_lease(&work, &owner)?;
            let mut entered = None;
            let changed = session.update_resource(&work.key, now_ms, |resource| {
                let mut record = TrainingRecord::read(&resource.document)?;
                let before = record.secondary_status().to_owned();
                change(&mut record, now_ms);
                if record.secondary_status() != before {
                    entered = record.transitions.last().cloned();
                }
                resource.document = record.to_document();
                Ok(())
            })?;
            if let Some(transition) = entered {
                let detail = json!({"message": transition.message});
                session.append_event(&work.key, &transition.status, &detail, now_ms)?;
            }
            Ok(changed)
        });
        changed.await
    }

    async fn finish(&self, end: End) -> store::Result<()> {
        let (status, message, card) = match end {
            End::Completed => ("Completed", "Transform job completed".to_owned(), None),
            End::Stopped => ("Stopped", "Transform job stopped".to_owned(), None),
            End::Failed(card) => ("Failed", card.reason.clone(), Some(card)),
        };
        failpoint::at(Point::JobFinish).map_err(store::Error::file("record the end of a job"))?;
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let written = self.app.database.write(move |session| {
            let changed = session.update_resource(&work.key, now_ms, |resource| {
                let mut record = TrainingRecord::read(&resource.document)?;
                record.enter(status, &message, now_ms);
                if let Some(last) = record.transitions.last_mut() {
                    last.ended_at = Some(now_ms);
                }
                record.training_ended_at.get_or_insert(now_ms);
                record.failure.clone_from(&card);
                resource.document = record.to_document();
                resource.status = status.into();
                Ok(())
            })?;
            let detail = card.as_ref().map_or(Value::Null, |card| json!({"cause": card.cause}));
            session.append_event(&work.key, status, &detail, now_ms)?;
            crate::events::append_state(session, &changed, now_ms)?;
            lineage::transform::ended(session, &changed, now_ms)?;
            if let Some(card) = card {
                session.record_failure(&card.noted(&work.key, now_ms))?;
            }
            session.finish_work(&work, &owner)
        });
        written.await?;
        failpoint::pass(Point::JobCleanUp);
        tokio::spawn(lineage::transform::record_outputs(self.app.clone(), self.work.key.clone()));
        crate::workloads::remove_directory(&self.folder).await;
        Ok(())
    }

    /// Where the job says what it does with the data.
    pub fn data_log(&self) -> JobLog {
        let key = &self.work.key;
        JobLog::new(self.app, &key.account, &key.region, kind::log_group(&key.kind), &self.data_stream())
    }

    fn data_stream(&self) -> String {
        format!("{}/{}/data-log", self.work.key.name, self.state.folder)
    }

    fn logs(&self) -> String {
        format!("{} {}/", kind::log_group(&self.work.key.kind), self.work.key.name)
    }
}

fn app_plane(app: &App) -> Arc<serving::DataPlane> {
    app.transform.plane.clone()
}

fn failed(cause: Cause, reason: &str, hint: &str) -> End {
    End::Failed(failure::of_step(cause, reason, hint))
}
