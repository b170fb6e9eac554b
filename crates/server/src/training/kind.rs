//! The kinds of jobs that are driven, and what differs between them.

use std::path::Path;

use api::sagemaker::{CreateProcessingJobInput, CreateTrainingJobInput};
use runner::contract::{ContainerCommand, ContractError, Prepared, ProcessingContract, TrainingContract};
use runner::environment::Environment;
use runner::workload::Access;
use store::metrics::FollowedJob;
use store::resources::{Resource, ResourceKey};

use super::processing;
use crate::sagemaker::kinds::{PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};

/// The kinds of resources that are jobs.
pub const KINDS: [&str; 2] = [TRAINING_JOB, PROCESSING_JOB];

/// Log group of all jobs of a kind, and namespace of the metrics of their hosts.
pub fn log_group(kind: &str) -> &'static str {
    match kind {
        PROCESSING_JOB => "/aws/sagemaker/ProcessingJobs",
        TRANSFORM_JOB => "/aws/sagemaker/TransformJobs",
        _ => "/aws/sagemaker/TrainingJobs",
    }
}

/// The job under which it is noted how far logs and samples have been read: of two kinds, jobs may have one name.
pub fn followed(key: &ResourceKey) -> FollowedJob {
    let mut job = FollowedJob::of(key);
    if key.kind != TRAINING_JOB {
        job.name = format!("{}/{}", key.kind, key.name);
    }
    job
}

/// What a job was asked for in the words of its own kind.
pub enum JobKind {
    /// Training: all of it is in the common part.
    Training,
    /// Processing.
    Processing(Box<CreateProcessingJobInput>),
}

impl JobKind {
    /// The kind of a stored job with its own request, and what it asks of whoever runs it: a training job's words for both.
    ///
    /// # Errors
    /// When the stored request does not fit any more.
    pub fn read(resource: &Resource) -> store::Result<(JobKind, CreateTrainingJobInput)> {
        if resource.key.kind == TRAINING_JOB {
            return Ok((JobKind::Training, serde_json::from_value(resource.spec.clone())?));
        }
        let input: CreateProcessingJobInput = serde_json::from_value(resource.spec.clone())?;
        let request = processing::as_training(&input)?;
        Ok((JobKind::Processing(Box::new(input)), request))
    }

    /// The request of a processing job.
    pub fn processing(&self) -> Option<&CreateProcessingJobInput> {
        match self {
            JobKind::Training => None,
            JobKind::Processing(input) => Some(input),
        }
    }

    /// The beginning of a sentence about the job.
    pub fn title(&self) -> &'static str {
        match self {
            JobKind::Training => "Training job",
            JobKind::Processing(_) => "Processing job",
        }
    }

    /// Whether its description shows what it does within its status.
    pub fn has_secondary_status(&self) -> bool {
        matches!(self, JobKind::Training)
    }

    /// Status and message of a job while its instances are made ready.
    pub fn starting(&self) -> (&'static str, &'static str) {
        match self {
            JobKind::Training => ("Starting", "Preparing the instances for training"),
            JobKind::Processing(_) => ("Starting", "Preparing the instances for processing"),
        }
    }

    /// Status and message of a job whose program runs.
    pub fn running(&self) -> (&'static str, &'static str) {
        match self {
            JobKind::Training => ("Training", "Training image download completed. Training in progress."),
            JobKind::Processing(_) => ("Processing", "Processing in progress"),
        }
    }

    /// The message of a job whose results are stored.
    pub fn uploading(&self) -> &'static str {
        match self {
            JobKind::Training => "Uploading generated training model",
            JobKind::Processing(_) => "Uploading outputs",
        }
    }
}

/// What a host is told, by the kind of its job.
pub enum Contract {
    /// Of a training job.
    Training(Box<TrainingContract>),
    /// Of a processing job.
    Processing(Box<ProcessingContract>),
}

/// What a training container may write, below `/opt/ml`. The rest of that folder is the image's own: many keep their code there.
const TRAINING_FOLDERS: [&str; 4] = ["input", "model", "output", "checkpoints"];

impl Contract {
    /// Writes the files of the contract and says what to run in an environment.
    ///
    /// # Errors
    /// As the contracts of the kinds.
    pub fn prepare(&self, opt_ml: &Path, environment: &Environment) -> Result<Prepared, ContractError> {
        match self {
            Contract::Training(contract) => contract.prepare(opt_ml, environment),
            Contract::Processing(contract) => contract.prepare(opt_ml, environment),
        }
    }

    /// Writes the files of the contract and says how a container is run.
    ///
    /// # Errors
    /// As the contracts of the kinds.
    pub fn prepare_container(&self, opt_ml: &Path) -> Result<ContainerCommand, ContractError> {
        match self {
            Contract::Training(contract) => contract.prepare_container(opt_ml),
            Contract::Processing(contract) => contract.prepare_container(opt_ml),
        }
    }

    /// The folders below `/opt/ml` that a container is shown, those within others later.
    pub fn container_folders(&self) -> Vec<(String, Access)> {
        let writable = |name: &&str| ((*name).to_owned(), Access::ReadWrite);
        match self {
            Contract::Training(contract) => {
                // A channel that is a stream has FIFOs, which the job opens and the server fills.
                let channels = contract.channels.iter().filter(|channel| channel.input_mode != "Pipe");
                let channels =
                    channels.map(|channel| (format!("input/data/{}", channel.name), Access::ReadOnly));
                TRAINING_FOLDERS.iter().map(writable).chain(channels).collect()
            }
            Contract::Processing(_) => {
                let writable = ["processing", "output"].iter().map(writable);
                std::iter::once(("config".to_owned(), Access::ReadOnly)).chain(writable).collect()
            }
        }
    }
}
