//! Model steps: CreateModel, which ends as it begins.

use serde_json::json;

use super::{Ended, Failure, Run, arn_metadata, done, exists_already, refused};

/// Makes the model, or finds it.
pub async fn start(run: &Run) -> Result<Ended, Failure> {
    let mut input = run.arguments.clone();
    input["ModelName"] = run.job.clone().into();
    match run.sagemaker("CreateModel", input).await {
        Ok(_) => {}
        Err(error) if exists_already(&error) => {}
        Err(error) => return Err(refused("sagemaker", "CreateModel", &error)),
    }
    let described = run.sagemaker("DescribeModel", json!({"ModelName": run.job})).await;
    let described = described.map_err(|error| refused("sagemaker", "DescribeModel", &error))?;
    let arn = described["ModelArn"].as_str().unwrap_or_default().to_owned();
    Ok(done(arn_metadata("Model", &arn), described))
}
