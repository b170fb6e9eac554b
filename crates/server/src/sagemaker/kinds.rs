//! Kinds of resources, as they stand in the database and in ARNs.

/// A training job.
pub const TRAINING_JOB: &str = "training-job";
/// A model.
pub const MODEL: &str = "model";
/// An endpoint configuration.
pub const ENDPOINT_CONFIG: &str = "endpoint-config";
/// An endpoint.
pub const ENDPOINT: &str = "endpoint";

/// ARN of a SageMaker resource. The service writes names in lower case there.
pub fn arn(region: &str, account: &str, kind: &str, name: &str) -> String {
    format!("arn:aws:sagemaker:{region}:{account}:{kind}/{}", name.to_lowercase())
}
