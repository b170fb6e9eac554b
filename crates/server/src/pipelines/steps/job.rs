//! Steps that are a job: made under a name of its own, watched until its status is final.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::resources::ResourceKey;
use tokio::sync::Notify;

use super::{Ended, Failure, Run, arn_metadata, exists_already, refused};
use crate::pipelines::definition::StepKind;
use crate::pipelines::retry;
use crate::pipelines::step_arguments;
use crate::sagemaker::kinds;

/// Time after which a job is looked at again even if nothing was told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Pause before a job is asked again to stop when the server could not do it.
const STOP_AGAIN: Duration = Duration::from_secs(1);

/// How the operations of a kind of job are called.
struct Job {
    /// What comes after `Create`, `Describe` and `Stop`.
    noun: &'static str,
    /// Member with its name.
    name: &'static str,
    /// Member with its status.
    status: &'static str,
    /// Kind of its resource.
    kind: &'static str,
    /// Member of a step's metadata.
    metadata: &'static str,
    /// Whether it can be put into an experiment.
    has_experiment: bool,
}

const TRAINING: Job = Job {
    noun: "TrainingJob",
    name: "TrainingJobName",
    status: "TrainingJobStatus",
    kind: kinds::TRAINING_JOB,
    metadata: "TrainingJob",
    has_experiment: true,
};
const PROCESSING: Job = Job {
    noun: "ProcessingJob",
    name: "ProcessingJobName",
    status: "ProcessingJobStatus",
    kind: "processing-job",
    metadata: "ProcessingJob",
    has_experiment: true,
};
const TRANSFORM: Job = Job {
    noun: "TransformJob",
    name: "TransformJobName",
    status: "TransformJobStatus",
    kind: "transform-job",
    metadata: "TransformJob",
    has_experiment: true,
};
const TUNING: Job = Job {
    noun: "HyperParameterTuningJob",
    name: "HyperParameterTuningJobName",
    status: "HyperParameterTuningJobStatus",
    kind: "hyper-parameter-tuning-job",
    metadata: "TuningJob",
    has_experiment: false,
};
const AUTO_ML: Job = Job {
    noun: "AutoMLJob",
    name: "AutoMLJobName",
    status: "AutoMLJobStatus",
    kind: "automl-job",
    metadata: "AutoMLJob",
    has_experiment: false,
};

fn job(kind: StepKind) -> Option<&'static Job> {
    Some(match kind {
        StepKind::Training | StepKind::NotebookJob => &TRAINING,
        StepKind::Processing | StepKind::QualityCheck | StepKind::ClarifyCheck => &PROCESSING,
        StepKind::Transform => &TRANSFORM,
        StepKind::Tuning => &TUNING,
        StepKind::AutoMl => &AUTO_ML,
        _ => return None,
    })
}

/// The member of the arguments in which the SDK may leave a prefix of the job's name.
pub fn name_member(kind: StepKind) -> Option<&'static str> {
    job(kind).map(|job| job.name)
}

/// Makes the job, or finds it; answers the metadata.
pub async fn start(run: &Run) -> Result<Value, Failure> {
    let kind = run.step().kind;
    let Some(job) = job(kind) else { return Err(super::failed("The step has no job.")) };
    let operation = step_arguments::operation(kind, &run.arguments).unwrap_or_default();
    let mut input = run.arguments.clone();
    input[job.name] = run.job.clone().into();
    if let Some((experiment, trial)) = run.execution.experiment.as_ref().filter(|_| job.has_experiment)
        && input["ExperimentConfig"].is_null()
    {
        let component = &run.step().name;
        input["ExperimentConfig"] =
            json!({"ExperimentName": experiment, "TrialName": trial, "TrialComponentDisplayName": component});
    }
    match run.sagemaker(operation, input).await {
        Ok(_) => {}
        // A server that was killed had made it.
        Err(error) if exists_already(&error) => {}
        Err(error) => return Err(refused("sagemaker", operation, &error)),
    }
    Ok(metadata(run, job))
}

fn metadata(run: &Run, job: &Job) -> Value {
    let key = &run.execution.key;
    let arn = kinds::arn(&key.region, &key.account, job.kind, &run.job);
    match run.step().kind {
        StepKind::QualityCheck | StepKind::ClarifyCheck => super::check::metadata(run, &arn),
        _ => arn_metadata(job.metadata, &arn),
    }
}

/// Describes the job until its status is final.
pub async fn wait(run: &Run) -> Ended {
    let Some(job) = job(run.step().kind) else { return super::failed("The step has no job.").into() };
    let woken = Arc::new(Notify::new());
    let execution = &run.execution.key;
    let key = ResourceKey::new(&*execution.account, &*execution.region, job.kind, &*run.job);
    let _watch = run.app.database.watch(&key, woken.clone());
    let operation = describe_operation(run, job);
    loop {
        match run.sagemaker(&operation, json!({job.name: run.job})).await {
            Ok(described) => {
                if let Some(ended) = ended(job, described) {
                    return ended;
                }
            }
            Err(error) if error.status >= 500 => {
                tracing::warn!(job = run.job, %error, "a job of a pipeline could not be looked at; it will be again");
            }
            // It was to stop before it was made.
            Err(_) if run.stopping => return Ended::Stopped { properties: Value::Null },
            Err(error) => return refused("sagemaker", &operation, &error).into(),
        }
        tokio::select! {
            () = woken.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

fn describe_operation(run: &Run, job: &Job) -> String {
    let version = if step_arguments::operation(run.step().kind, &run.arguments) == Some("CreateAutoMLJobV2") {
        "V2"
    } else {
        ""
    };
    format!("Describe{}{version}", job.noun)
}

fn ended(job: &Job, described: Value) -> Option<Ended> {
    let reason = described["FailureReason"].as_str().map(str::to_owned);
    match described[job.status].as_str() {
        Some("Completed") => Some(super::done(Value::Null, described)),
        Some("Failed") => {
            let reason = reason.unwrap_or_else(|| "The job failed without a reason.".to_owned());
            Some(Ended::Failed {
                exception: retry::exception(None, 0, &reason),
                reason,
                metadata: Value::Null,
                properties: described,
            })
        }
        Some("Stopped") => Some(Ended::Stopped { properties: described }),
        _ => None,
    }
}

/// Stops the job; one that has ended or was not made yet stays as it is.
pub async fn stop(run: &Run) {
    let Some(job) = job(run.step().kind) else { return };
    let operation = format!("Stop{}", job.noun);
    loop {
        match run.sagemaker(&operation, json!({job.name: run.job})).await {
            // A stop that is lost would leave the step waiting for the job's own end.
            Err(error) if error.status >= 500 => {
                tracing::warn!(job = run.job, %error, "a job of a pipeline could not be stopped; it is asked again");
                tokio::time::sleep(STOP_AGAIN).await;
            }
            Err(error) => {
                tracing::debug!(job = run.job, %error, "a job of a pipeline was not stopped");
                return;
            }
            Ok(_) => return,
        }
    }
}
