//! How long a training job may run and wait: what the model cannot say of `StoppingCondition`.

use api::sagemaker::CreateTrainingJobInput;

use crate::{Error, Result};

/// Checks the times of a request.
///
/// # Errors
/// A refusal in the words of the service.
pub fn check(input: &CreateTrainingJobInput) -> Result<()> {
    let condition = input.stopping_condition.as_ref();
    let Some(runtime) = condition.and_then(|condition| condition.max_runtime_in_seconds) else {
        return Err(Error::Validation("StoppingCondition.MaxRuntimeInSeconds must be given.".into()));
    };
    let wait_time = condition.and_then(|condition| condition.max_wait_time_in_seconds);
    let problem = match (input.enable_managed_spot_training == Some(true), wait_time) {
        (true, Some(wait_time)) if wait_time >= runtime => return Ok(()),
        (false, None) => return Ok(()),
        (true, _) => "It must be present and be greater than or equal to MaxRuntimeInSeconds",
        (false, Some(_)) => "It is only supported when EnableManagedSpotTraining is set to true",
    };
    Err(Error::Validation(format!("Invalid MaxWaitTimeInSeconds. {problem}")))
}
