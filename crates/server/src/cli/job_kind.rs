//! The kinds of jobs, as the command line asks for them.

use serde_json::{Value, json};

use super::client::{Client, Failure};

/// Code of a failure that says that jobs of several kinds have a name.
pub const SEVERAL: &str = "SeveralJobs";

/// A kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum JobKind {
    /// Training.
    Training,
    /// Processing.
    Processing,
    /// Batch transform.
    Transform,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [JobKind; 3] = [JobKind::Training, JobKind::Processing, JobKind::Transform];

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            JobKind::Training => "training",
            JobKind::Processing => "processing",
            JobKind::Transform => "transform",
        }
    }

    /// The member of this ending: `JobKind::Training.member("Status")` is `TrainingJobStatus`.
    pub fn member(self, ending: &str) -> String {
        match self {
            JobKind::Training => format!("TrainingJob{ending}"),
            JobKind::Processing => format!("ProcessingJob{ending}"),
            JobKind::Transform => format!("TransformJob{ending}"),
        }
    }

    /// The member with the time of the job's end.
    pub fn end_time(self) -> &'static str {
        match self {
            JobKind::Training => "TrainingEndTime",
            JobKind::Processing => "ProcessingEndTime",
            JobKind::Transform => "TransformEndTime",
        }
    }

    /// Where its logs are.
    pub fn log_group(self) -> &'static str {
        match self {
            JobKind::Training => crate::training::kind::log_group(crate::sagemaker::kinds::TRAINING_JOB),
            JobKind::Processing => crate::training::kind::log_group(crate::sagemaker::kinds::PROCESSING_JOB),
            JobKind::Transform => crate::training::kind::log_group(crate::sagemaker::kinds::TRANSFORM_JOB),
        }
    }

    /// Calls the operation of this verb on one job.
    ///
    /// # Errors
    /// The server's error, or why it was not reached.
    pub async fn call(self, client: &Client, verb: &str, name: &str) -> Result<Value, Failure> {
        let target = format!("SageMaker.{verb}{}", self.member(""));
        client.call(&target, &json!({self.member("Name"): name})).await
    }

    /// The job of this name with its kind, which `wanted` may say.
    ///
    /// # Errors
    /// The server's error, or why it was not reached; for a name that no job has, the server's word for the first kind that was
    /// looked for; for one that jobs of several kinds have, which those are.
    pub async fn find(
        client: &Client,
        name: &str,
        wanted: Option<JobKind>,
    ) -> Result<(JobKind, Value), Failure> {
        let (mut found, mut first) = (Vec::new(), None);
        for kind in JobKind::ALL.into_iter().filter(|kind| wanted.is_none_or(|wanted| wanted == *kind)) {
            match kind.call(client, "Describe", name).await {
                Ok(job) => found.push((kind, job)),
                Err(failure) => first = first.or(Some(failure)),
            }
        }
        if found.len() > 1 {
            let words: Vec<&str> = found.iter().map(|(kind, _)| kind.word()).collect();
            let message = crate::own_service::same_name(name, &words);
            return Err(Failure { code: SEVERAL.into(), message });
        }
        found.pop().ok_or_else(|| first.expect("at least one kind was asked for, and none has the job"))
    }

    /// The input of the product's own operations on a job.
    pub fn own_input(name: &str, kind: Option<JobKind>) -> Value {
        let mut input = json!({"TrainingJobName": name});
        if let Some(kind) = kind {
            input["Kind"] = kind.word().into();
        }
        input
    }
}
