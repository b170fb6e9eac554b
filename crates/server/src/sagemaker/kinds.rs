//! Kinds of resources, as they stand in the database and in ARNs.

/// A training job.
pub const TRAINING_JOB: &str = "training-job";
/// A processing job.
pub const PROCESSING_JOB: &str = "processing-job";
/// A transform job.
pub const TRANSFORM_JOB: &str = "transform-job";
/// A model.
pub const MODEL: &str = "model";
/// An endpoint configuration.
pub const ENDPOINT_CONFIG: &str = "endpoint-config";
/// An endpoint.
pub const ENDPOINT: &str = "endpoint";
/// An inference component: a model with a share of an endpoint's instances.
pub const INFERENCE_COMPONENT: &str = "inference-component";
/// An inference experiment: a shadow test.
pub const INFERENCE_EXPERIMENT: &str = "inference-experiment";
/// An experiment.
pub const EXPERIMENT: &str = "experiment";
/// A trial: a group of components within an experiment.
pub const TRIAL: &str = "experiment-trial";
/// A trial component: a run, or a job.
pub const TRIAL_COMPONENT: &str = "experiment-trial-component";
/// A vertex of the lineage: something with a URI.
pub const ARTIFACT: &str = "artifact";
/// A vertex of the lineage: something that was done.
pub const ACTION: &str = "action";
/// A vertex of the lineage: what others belong to.
pub const CONTEXT: &str = "context";
/// All vertices of the lineage of an account.
pub const LINEAGE_GROUP: &str = "lineage-group";

/// A model package group.
pub const MODEL_PACKAGE_GROUP: &str = "model-package-group";
/// A model package; the name of a version is its group's, a slash and the version.
pub const MODEL_PACKAGE: &str = "model-package";

/// A model card.
pub const MODEL_CARD: &str = "model-card";
/// A version of a model card; its name is the card's, a slash and the version.
pub const MODEL_CARD_VERSION: &str = "model-card-version";
/// An export of a model card; its name is the card's, a slash and the job's.
pub const MODEL_CARD_EXPORT_JOB: &str = "model-card-export-job";

/// A pipeline.
pub const PIPELINE: &str = "pipeline";
/// An execution of a pipeline.
pub const PIPELINE_EXECUTION: &str = "pipeline-execution";

/// ARN of a SageMaker resource. The service writes names in lower case there.
pub fn arn(region: &str, account: &str, kind: &str, name: &str) -> String {
    format!("arn:aws:sagemaker:{region}:{account}:{kind}/{}", name.to_lowercase())
}
