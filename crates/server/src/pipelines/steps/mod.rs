//! What each type of step does: begin its effect so that it can be begun again, wait for its end, stop it.

mod callback;
mod check;
mod emr;
mod emr_serverless;
mod job;
mod lambda;
mod model;
mod register_model;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::definition::{Step, StepKind};
use super::record::StepRecord;
use super::retry;
use super::walk::Execution;
use crate::app::App;
use crate::internal_call::{self, CallError};

/// One attempt of a step.
pub struct Run {
    app: Arc<App>,
    execution: Arc<Execution>,
    at: usize,
    /// Arguments with every reference replaced by its value.
    arguments: Value,
    settings: BTreeMap<String, Value>,
    metadata: Value,
    stopping: bool,
    /// Name of its job or resource; the same whenever the attempt is begun.
    job: String,
    token: String,
    /// The attempt's token for operations that take one; they take at most 36 characters.
    client_token: String,
}

/// What happens to a step.
pub enum StepEvent {
    /// Its effect exists and goes on; with the metadata that it has by now.
    Executing(Value),
    /// It has ended.
    Ended(Ended),
}

/// Why an attempt failed.
pub struct Failure {
    /// One sentence or the job's own words.
    reason: String,
    /// Name by which retry policies know it.
    exception: Option<&'static str>,
}

impl From<Failure> for Ended {
    fn from(Failure { reason, exception }: Failure) -> Ended {
        Ended::Failed { reason, exception, metadata: Value::Null, properties: Value::Null }
    }
}

/// How an attempt ended.
pub enum Ended {
    /// Well.
    Succeeded {
        /// More of what its listing shows.
        metadata: Value,
        /// What references lead into.
        properties: Value,
    },
    /// It failed.
    Failed {
        /// One sentence or the job's own words.
        reason: String,
        /// Name by which retry policies know it.
        exception: Option<&'static str>,
        /// More of what its listing shows.
        metadata: Value,
        /// What describes it.
        properties: Value,
    },
    /// It was stopped.
    Stopped {
        /// What describes it.
        properties: Value,
    },
}

impl Run {
    /// The attempt that a record is about.
    pub fn new(app: Arc<App>, execution: Arc<Execution>, at: usize, record: &StepRecord) -> Run {
        Run {
            job: job_name(&execution, at, record.attempt, &record.arguments),
            token: token(&execution, at, record.attempt),
            client_token: client_token(&execution, at, record.attempt),
            app,
            execution,
            at,
            arguments: record.arguments.clone(),
            settings: record.settings.clone(),
            metadata: record.metadata.clone(),
            stopping: record.phase == super::engine::Phase::Stopping,
        }
    }

    fn step(&self) -> &Step {
        &self.execution.definition.steps[self.at]
    }

    async fn call(&self, service: &str, operation: &str, input: Value) -> Result<Value, CallError> {
        internal_call::call(&self.app, &self.execution.caller, service, operation, input).await
    }

    /// As [`Run::call`], for an operation that keeps its answers by the attempt's token.
    async fn call_once(&self, service: &str, operation: &str, input: Value) -> Result<Value, CallError> {
        let id = Some(self.client_token.clone());
        internal_call::call_once(&self.app, &self.execution.caller, service, operation, input, id).await
    }

    async fn sagemaker(&self, operation: &str, input: Value) -> Result<Value, CallError> {
        self.call("sagemaker", operation, input).await
    }

    fn setting(&self, name: &str) -> Option<&Value> {
        self.settings.get(name).filter(|value| !value.is_null())
    }
}

/// Begins a step's effect. May be called again for the same attempt, and then finds what is there.
pub async fn start(run: &Run) -> StepEvent {
    let begun = match run.step().kind {
        StepKind::Model => model::start(run).await.map(StepEvent::Ended),
        StepKind::Lambda => lambda::start(run).await.map(StepEvent::Ended),
        StepKind::Callback => callback::start(run).await.map(StepEvent::Executing),
        StepKind::RegisterModel => register_model::start(run).await,
        StepKind::Emr => emr::start(run).await.map(StepEvent::Executing),
        StepKind::EmrServerless => emr_serverless::start(run).await.map(StepEvent::Executing),
        // Conditions and Fail steps end as they begin.
        StepKind::Condition | StepKind::Fail => Ok(StepEvent::Ended(done(Value::Null, Value::Null))),
        _ => job::start(run).await.map(StepEvent::Executing),
    };
    begun.unwrap_or_else(|failure| StepEvent::Ended(failure.into()))
}

/// Waits for the end of a step whose effect exists.
pub async fn wait(run: &Run) -> Ended {
    match run.step().kind {
        StepKind::Callback => callback::wait(run).await,
        StepKind::RegisterModel => register_model::wait(run).await,
        StepKind::QualityCheck | StepKind::ClarifyCheck => check::wait(run).await,
        // What ends as it begins is begun again when an answer was lost.
        StepKind::Model | StepKind::Lambda if run.stopping => Ended::Stopped { properties: Value::Null },
        StepKind::Model | StepKind::Lambda => match start(run).await {
            StepEvent::Ended(ended) => ended,
            StepEvent::Executing(_) => Ended::Stopped { properties: Value::Null },
        },
        StepKind::Emr => emr::wait(run).await,
        StepKind::EmrServerless => emr_serverless::wait(run).await,
        StepKind::Condition | StepKind::Fail => done(Value::Null, Value::Null),
        _ => job::wait(run).await,
    }
}

/// Asks a step to stop.
pub async fn stop(run: &Run) {
    match run.step().kind {
        StepKind::Callback => callback::stop(run).await,
        StepKind::Emr => emr::stop(run).await,
        StepKind::EmrServerless => emr_serverless::stop(run).await,
        StepKind::Processing
        | StepKind::Training
        | StepKind::NotebookJob
        | StepKind::Tuning
        | StepKind::Transform
        | StepKind::AutoMl
        | StepKind::QualityCheck
        | StepKind::ClarifyCheck => job::stop(run).await,
        _ => {}
    }
}

/// The name of a step's job or resource: the same for the same attempt, and of no other.
pub fn job_name(execution: &Execution, at: usize, attempt: u32, arguments: &Value) -> String {
    let step = &execution.definition.steps[at];
    let id = &execution.key.name;
    let longest = if matches!(step.kind, StepKind::Tuning | StepKind::AutoMl) { 32 } else { 63 };
    let suffix = digest(execution, at, attempt, 10);
    let own = job::name_member(step.kind).and_then(|member| arguments[member].as_str());
    let head = match own {
        // The SDK leaves a prefix there when it is told to.
        Some(prefix) => format!("{prefix}-{id}"),
        None if longest < 63 => format!("{id}-{}", step.name),
        None => format!("pipelines-{id}-{}", step.name),
    };
    let room = longest - suffix.len() - 1;
    let head: String =
        head.chars().map(|letter| if letter == '_' { '-' } else { letter }).take(room).collect();
    // ARNs are in lower case, and clients take names from them.
    format!("{}-{suffix}", head.trim_end_matches('-')).to_ascii_lowercase()
}

/// The ten letters and digits by which a Callback step is answered.
fn token(execution: &Execution, at: usize, attempt: u32) -> String {
    digest(execution, at, attempt, 10)
}

/// The token of a step that waits to be told its result.
pub fn callback_token(execution: &Execution, at: usize, record: &StepRecord) -> Option<String> {
    let is_callback = execution.definition.steps[at].kind == StepKind::Callback;
    is_callback.then(|| token(execution, at, record.attempt))
}

/// The id under which the answer of an attempt's call is kept, once that is recorded.
pub fn kept_answer(execution: &Execution, at: usize, record: &StepRecord) -> Option<String> {
    let keeps = matches!(execution.definition.steps[at].kind, StepKind::Lambda | StepKind::Callback);
    let is_recorded = record.phase != super::engine::Phase::Starting;
    (keeps && is_recorded).then(|| client_token(execution, at, record.attempt))
}

/// The token of an attempt for operations that take one; they take at most 36 characters.
fn client_token(execution: &Execution, at: usize, attempt: u32) -> String {
    digest(execution, at, attempt, 32)
}

/// The token of an attempt, for who knows only its execution's ARN.
pub fn token_of(execution_arn: &str, step: &str, attempt: u32) -> String {
    letters(execution_arn, step, attempt, 10)
}

/// Letters and digits that follow from an attempt, and that nobody can guess who does not know the execution's ARN.
fn digest(execution: &Execution, at: usize, attempt: u32, length: usize) -> String {
    letters(&execution.arn, &execution.definition.steps[at].name, attempt, length)
}

fn letters(execution_arn: &str, step: &str, attempt: u32, length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bytes = Sha256::digest(format!("{execution_arn}\n{step}\n{attempt}"));
    bytes.iter().take(length).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

fn done(metadata: Value, properties: Value) -> Ended {
    Ended::Succeeded { metadata, properties }
}

fn failed(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), exception: None }
}

/// The end of a step whose code panicked; the server's log has the cause.
pub fn broken() -> Ended {
    failed("InternalServerError: the step could not be run; the server's log has the cause.").into()
}

/// A call that was refused, in the service's words.
fn refused(service: &str, operation: &str, error: &CallError) -> Failure {
    let whose = if error.status >= 500 { "ServerError" } else { "ClientError" };
    Failure {
        reason: format!("{whose}: Failed to invoke {service}:{operation}. Error Details: {}", error.message),
        exception: retry::exception(Some(&error.code), error.status, &error.message),
    }
}

fn exists_already(error: &CallError) -> bool {
    let message = error.message.to_ascii_lowercase();
    message.contains("already exist")
}

/// An ARN as most types show it.
fn arn_metadata(member: &str, arn: &str) -> Value {
    json!({member: {"Arn": arn}})
}
