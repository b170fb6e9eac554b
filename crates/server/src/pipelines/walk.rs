//! One execution on its way: asks the engine what is next, does it, and records each transition in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join_all;
use serde_json::{Value, json};
use store::Session;
use store::pipelines::PipelineResult;
use store::resources::ResourceKey;
use store::work::Work;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::Caller;

use super::definition::{Definition, RetryPolicy, Step, StepKind};
use super::engine::{self, Action, End, Phase, View};
use super::record::{ExecutionRecord, ExecutionSpec, StepRecord};
use super::steps::{self, Ended, Run, StepEvent};
use super::{begin, cache, experiment, restart, retry, selective, state_events};
use crate::app::App;
use crate::internal_call;
use crate::sagemaker::kinds::PIPELINE;

/// Longest pause without a look at the clock, which tests set.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Longest reason of a failed step, as in the service.
const REASON_CHARACTERS: usize = 1_024;

/// What does not change while an execution runs.
pub struct Execution {
    /// Its resource.
    pub key: ResourceKey,
    /// Its ARN.
    pub arn: String,
    /// Its pipeline.
    pub pipeline: ResourceKey,
    /// Its request.
    pub spec: ExecutionSpec,
    /// Its definition.
    pub definition: Definition,
    /// As whom its steps call.
    pub caller: Caller,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Names of experiment and trial that jobs are put into.
    pub experiment: Option<(String, String)>,
}

pub(super) struct Walk<'a> {
    pub(super) app: Arc<App>,
    pub(super) execution: Arc<Execution>,
    pub(super) records: Vec<Option<StepRecord>>,
    work: &'a Work,
    owner: &'a str,
    left_out: BTreeSet<usize>,
    most_parallel: Option<usize>,
    stop_wanted: bool,
    under_way: JoinSet<(usize, StepEvent)>,
    /// Ends of steps that are written together with what begins after them: each transaction waits for the disk.
    unwritten: Vec<Writing>,
}

/// What a transaction does for one step.
type Writing = Box<dyn FnOnce(&Session<'_>) -> store::Result<()> + Send + Sync>;

/// Walks an execution to its end.
///
/// # Errors
/// When the database fails or the lease is lost; whoever walks it next goes on from what is recorded.
pub async fn walk(app: Arc<App>, work: &Work, owner: &str, poke: &Notify) -> store::Result<()> {
    let key = work.key.clone();
    let found = app.database.read(move |session| {
        let resource = session.resource(&key)?;
        let spec = ExecutionSpec::read(&resource)?;
        let pipeline = ResourceKey::new(&*key.account, &*key.region, PIPELINE, &*spec.pipeline);
        let version = session.pipeline_version(&pipeline, Some(spec.version))?;
        Ok((resource, spec, pipeline, version, session.pipeline_steps(&key)?, session.stop_wanted(&key)?))
    });
    let (resource, spec, pipeline, version, rows, stop_wanted) = found.await?;
    let read = version.ok_or_else(|| "the version of its definition is gone".to_owned());
    let read =
        read.and_then(|version| Definition::parse(&version.definition).map_err(|flaw| flaw.to_string()));
    let role = internal_call::as_role(&app, &work.key.account, &work.key.region, &spec.role_arn, "SageMaker");
    let (definition, caller) = match (read, role.await) {
        (Ok(definition), Ok(caller)) => (definition, caller),
        (Err(problem), _) => return fail(&app, work, owner, problem).await,
        // The database did not answer; that says nothing about the role.
        (_, Err(error)) if error.status >= 500 => return Err(store::Error::NotCommitted(error.message)),
        (_, Err(error)) => return fail(&app, work, owner, error.message).await,
    };
    let mut records: Vec<Option<StepRecord>> = vec![None; definition.steps.len()];
    for row in rows {
        if let Some(at) = definition.position(&row.name) {
            records[at] = Some(StepRecord::read(&row.document)?);
        }
    }
    let left_out =
        spec.selective.as_ref().map(|one| selective::left_out(&definition, &one.steps)).unwrap_or_default();
    let most_parallel = spec.most_parallel;
    let mut execution = Execution {
        key: work.key.clone(),
        arn: resource.arn.clone(),
        pipeline,
        spec,
        definition,
        caller,
        created_at: resource.created_at,
        experiment: None,
    };
    execution.experiment = experiment::enter(&app, &execution, &resource, work, owner).await?;
    let execution = Arc::new(execution);
    let under_way = JoinSet::new();
    let mut walk = Walk {
        app,
        execution,
        records,
        work,
        owner,
        left_out,
        most_parallel,
        stop_wanted,
        under_way,
        unwritten: Vec::new(),
    };
    walk.take_up();
    walk.run(poke).await
}

/// Ends an execution that cannot be walked.
async fn fail(app: &App, work: &Work, owner: &str, problem: String) -> store::Result<()> {
    end(app, work, owner, "Failed", Some(problem)).await
}

async fn end(
    app: &App,
    work: &Work,
    owner: &str,
    status: &str,
    failure: Option<String>,
) -> store::Result<()> {
    let (work, owner, status, now_ms) =
        (work.clone(), owner.to_owned(), status.to_owned(), app.clock.now_ms());
    let ended = app.database.write(move |session| {
        session.finish_work(&work, &owner)?;
        let before = session.resource(&work.key)?.status;
        let changed = session.update_resource(&work.key, now_ms, |resource| {
            let mut record = ExecutionRecord::read(resource)?;
            record.failure = failure;
            record.ended_at = Some(now_ms);
            resource.document = record.to_document();
            resource.status = status;
            Ok(())
        })?;
        state_events::execution(session, &changed, Some(&before), now_ms)
    });
    ended.await
}

impl Walk<'_> {
    /// Takes up the steps that an earlier server left under way.
    fn take_up(&mut self) {
        for at in 0..self.records.len() {
            let phase = self.records[at].as_ref().map(|record| record.phase);
            match phase {
                Some(Phase::Starting) => self.launch(at, true),
                Some(Phase::Executing) => self.launch(at, false),
                Some(Phase::Stopping) => {
                    self.ask_to_stop(at);
                    self.launch(at, false);
                }
                _ => {}
            }
        }
    }

    async fn run(&mut self, poke: &Notify) -> store::Result<()> {
        loop {
            let mut wake_at = None;
            let mut begins = Vec::new();
            let mut acted = false;
            let actions = engine::next(&self.view(&self.progress()));
            if !actions.iter().all(|action| matches!(action, Action::Begin(_))) {
                self.write_all(Vec::new()).await?;
            }
            for action in actions {
                match action {
                    Action::Begin(at) => begins.push(at),
                    Action::Stop(at) => {
                        self.stop(at).await?;
                        acted = true;
                    }
                    Action::WakeAt(at_ms) => wake_at = Some(at_ms),
                    Action::End(reached) => return self.finish(reached).await,
                }
            }
            if !begins.is_empty() {
                self.begin(begins).await?;
                acted = true;
            }
            if acted {
                continue;
            }
            self.write_all(Vec::new()).await?;
            let pause = wake_at.map_or(Duration::MAX, |at_ms| {
                let left_ms = u64::try_from(at_ms - self.app.clock.now_ms()).unwrap_or(0);
                Duration::from_millis(left_ms.max(1)).min(LONGEST_PAUSE)
            });
            tokio::select! {
                Some(Ok((at, event))) = self.under_way.join_next() => self.apply(at, event).await?,
                () = poke.notified() => self.look()?,
                () = tokio::time::sleep(pause), if wake_at.is_some() => {}
            }
        }
    }

    fn progress(&self) -> Vec<Option<engine::Progress>> {
        self.records.iter().map(|record| record.as_ref().map(StepRecord::progress)).collect()
    }

    fn view<'v>(&'v self, progress: &'v [Option<engine::Progress>]) -> View<'v> {
        View {
            definition: &self.execution.definition,
            progress,
            left_out: &self.left_out,
            stop_wanted: self.stop_wanted,
            most_parallel: self.most_parallel,
            now_ms: self.app.clock.now_ms(),
        }
    }

    /// Reads what somebody may have changed.
    fn look(&mut self) -> store::Result<()> {
        let key = &self.work.key;
        let (spec, stop_wanted) = self
            .app
            .database
            .look(|session| Ok((ExecutionSpec::read(&session.resource(key)?)?, session.stop_wanted(key)?)))?;
        self.most_parallel = spec.most_parallel;
        self.stop_wanted = stop_wanted;
        Ok(())
    }

    /// Begins steps together, in one transaction.
    async fn begin(&mut self, begins: Vec<usize>) -> store::Result<()> {
        let this = &*self;
        let begun = try_join_all(begins.iter().map(|at| async move {
            let record = begin::record(this, *at).await?;
            Ok::<_, store::Error>((*at, record))
        }));
        let begun = begun.await?;
        self.write_all(begun.iter().map(|(at, record)| self.writing(*at, record)).collect()).await?;
        for (at, record) in begun {
            let goes_on = record.phase == Phase::Starting;
            self.records[at] = Some(record);
            if goes_on {
                self.launch(at, true);
            }
        }
        Ok(())
    }

    fn run_of(&self, at: usize) -> Option<Arc<Run>> {
        let record = self.records[at].as_ref()?;
        Some(Arc::new(Run::new(self.app.clone(), self.execution.clone(), at, record)))
    }

    fn launch(&mut self, at: usize, from_the_start: bool) {
        let Some(run) = self.run_of(at) else { return };
        self.under_way.spawn(async move {
            let going = async {
                if from_the_start {
                    steps::start(&run).await
                } else {
                    StepEvent::Ended(steps::wait(&run).await)
                }
            };
            let event = std::panic::AssertUnwindSafe(going).catch_unwind().await;
            (at, event.unwrap_or_else(|_| StepEvent::Ended(steps::broken())))
        });
    }

    /// Passes a stop on; what waits for the step's end sees what comes of it.
    fn ask_to_stop(&self, at: usize) {
        if let Some(run) = self.run_of(at) {
            tokio::spawn(async move { steps::stop(&run).await });
        }
    }

    async fn stop(&mut self, at: usize) -> store::Result<()> {
        let Some(mut record) = self.records[at].clone() else { return Ok(()) };
        // Nobody but its caller knows whether a callback ends; it is not waited for any more.
        let is_callback = self.execution.definition.steps[at].kind == StepKind::Callback;
        if matches!(record.phase, Phase::Retrying(_)) || (is_callback && record.phase == Phase::Executing) {
            record.phase = Phase::Stopped;
            record.ended_at = Some(self.app.clock.now_ms());
        } else {
            record.phase = Phase::Stopping;
        }
        self.write_all(vec![self.writing(at, &record)]).await?;
        self.records[at] = Some(record);
        self.ask_to_stop(at);
        Ok(())
    }

    /// Records what became of a step.
    async fn apply(&mut self, at: usize, event: StepEvent) -> store::Result<()> {
        let Some(mut record) = self.records[at].clone() else { return Ok(()) };
        if record.phase.is_final() {
            return Ok(());
        }
        let stopping = record.phase == Phase::Stopping;
        let now_ms = self.app.clock.now_ms();
        match event {
            StepEvent::Executing(metadata) => {
                record.metadata = metadata;
                if !stopping {
                    record.phase = Phase::Executing;
                }
            }
            StepEvent::Ended(Ended::Succeeded { metadata, properties }) => {
                record.phase = Phase::Succeeded;
                record.properties = properties;
                record.failure = None;
                merge(&mut record.metadata, metadata);
            }
            StepEvent::Ended(Ended::Stopped { properties }) => {
                record.phase = Phase::Stopped;
                record.properties = properties;
            }
            StepEvent::Ended(Ended::Failed { reason, exception, metadata, properties }) => {
                let policies = with_defaults(&self.execution.definition.steps[at]);
                let again = if stopping || self.stop_wanted {
                    None
                } else {
                    retry::next_attempt_at(&policies, exception, &mut record.used, now_ms)
                };
                record.phase = again.map_or(Phase::Failed, Phase::Retrying);
                record.failure = Some(shortened(&reason));
                record.properties = properties;
                merge(&mut record.metadata, metadata);
            }
        }
        if record.phase.is_final() {
            record.ended_at = Some(now_ms);
        }
        let writing = self.writing(at, &record);
        let goes_on = matches!(record.phase, Phase::Executing | Phase::Stopping);
        self.records[at] = Some(record);
        self.unwritten.push(writing);
        if goes_on {
            self.write_all(Vec::new()).await?;
            if stopping {
                // The stop came before there was anything to stop.
                self.ask_to_stop(at);
            }
            self.launch(at, false);
        }
        Ok(())
    }

    /// Writes what is not written yet, and more, in one transaction.
    async fn write_all(&mut self, more: Vec<Writing>) -> store::Result<()> {
        let mut writings = std::mem::take(&mut self.unwritten);
        writings.extend(more);
        if writings.is_empty() {
            return Ok(());
        }
        let (work, owner) = (self.work.clone(), self.owner.to_owned());
        let written = self.app.database.write(move |session| {
            session.check_lease(&work, &owner)?;
            writings.into_iter().try_for_each(|write| write(session))
        });
        written.await
    }

    /// What writes a step with its event, and its result where later executions may reuse it.
    fn writing(&self, at: usize, record: &StepRecord) -> Writing {
        let record = record.clone();
        let before = self.records[at].as_ref().map(|before| before.phase.status());
        let (execution, now_ms) = (self.execution.clone(), self.app.clock.now_ms());
        let token = steps::callback_token(&execution, at, &record);
        let kept_answer = steps::kept_answer(&execution, at, &record);
        Box::new(move |session| {
            let step = &execution.definition.steps[at];
            session.put_pipeline_step(&execution.key, &restart::step_row(&step.name, &record))?;
            if let Some(token) = token.filter(|_| record.phase == Phase::Starting) {
                session.put_pipeline_callback(&token, &execution.key, &step.name)?;
            }
            if let Some(id) = kept_answer {
                session.forget_effect(&id)?;
            }
            let reusable = record.facts.as_ref().filter(|_| {
                record.phase == Phase::Succeeded && record.cached_from.is_none() && step.cache.is_some()
            });
            if let Some(facts) = reusable {
                let result = PipelineResult {
                    execution: execution.key.name.clone(),
                    fingerprint: cache::fingerprint(facts),
                    facts: json!(facts),
                    ended_at: now_ms,
                };
                session.put_pipeline_result(&execution.pipeline, &step.name, &result)?;
            }
            if before != Some(record.phase.status()) {
                state_events::step(session, &execution, step, before, &record, now_ms)?;
            }
            Ok(())
        })
    }

    async fn finish(&mut self, reached: End) -> store::Result<()> {
        let steps = self.execution.definition.steps.iter().zip(&self.records);
        let failed = steps.filter_map(|(step, record)| {
            let record =
                record.as_ref().filter(|record| matches!(record.phase, Phase::Failed | Phase::Stopped))?;
            let reason = record.failure.as_deref().unwrap_or("the step was stopped.");
            Some((step.kind == StepKind::Fail, record.ended_at, format!("{}: {reason}", step.name)))
        });
        // A Fail step speaks for the execution; else the step that failed first does.
        let first = failed.min_by_key(|(is_fail, ended_at, _)| (!is_fail, *ended_at));
        let failure = first
            .filter(|_| reached == End::Failed)
            .map(|(_, _, text)| shortened(&format!("Step failure: One or multiple steps failed. {text}")));
        end(&self.app, self.work, self.owner, reached.status(), failure).await
    }
}

/// The policies of a step, and the service's own for faults and throttling that they do not name.
fn with_defaults(step: &Step) -> Vec<RetryPolicy> {
    let mut policies = step.retries.clone();
    policies.push(RetryPolicy {
        exceptions: vec!["Step.SERVICE_FAULT".into(), "Step.THROTTLING".into()],
        interval_seconds: 1.0,
        backoff_rate: 2.0,
        max_attempts: None,
        expire_after_minutes: None,
    });
    policies
}

fn merge(metadata: &mut Value, more: Value) {
    match (metadata, more) {
        (_, Value::Null) => {}
        (Value::Object(members), Value::Object(more)) => members.extend(more),
        (metadata, more) => *metadata = more,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(REASON_CHARACTERS).collect()
}
