//! RegisterModel steps: CreateModelPackage, with a group that is made when it is missing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Ended, Failure, Run, StepEvent, arn_metadata, done, exists_already, refused};
use crate::internal_call::CallError;
use crate::sagemaker::kinds;

/// Time after which a package is looked at again even if nothing was told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Makes the package. Its client token is the attempt's, so that making it again answers the same version.
pub async fn start(run: &Run) -> Result<StepEvent, Failure> {
    let mut input = run.arguments.clone();
    let group = input["ModelPackageGroupName"].as_str().map(str::to_owned);
    input["ClientToken"] = run.client_token.clone().into();
    if group.is_none() && input["ModelPackageName"].is_null() {
        input["ModelPackageName"] = run.job.clone().into();
    }
    if let Some(group) = &group
        && let Some(tags) = input.as_object_mut().and_then(|members| members.shift_remove("Tags"))
        && tags.as_array().is_some_and(|tags| !tags.is_empty())
    {
        tag_group(run, group, &tags).await?;
    }
    let mut made = run.sagemaker("CreateModelPackage", input.clone()).await;
    if let (Err(error), Some(group)) = (&made, &group)
        && is_missing(error)
    {
        let grouped = run.sagemaker("CreateModelPackageGroup", json!({"ModelPackageGroupName": group})).await;
        match grouped {
            Err(error) if !exists_already(&error) => {
                return Err(refused("sagemaker", "CreateModelPackageGroup", &error));
            }
            _ => made = run.sagemaker("CreateModelPackage", input).await,
        }
    }
    let arn = match made {
        Ok(answer) => answer["ModelPackageArn"].as_str().unwrap_or_default().to_owned(),
        Err(error) if group.is_none() && exists_already(&error) => {
            let key = &run.execution.key;
            kinds::arn(&key.region, &key.account, kinds::MODEL_PACKAGE, &run.job)
        }
        Err(error) => return Err(refused("sagemaker", "CreateModelPackage", &error)),
    };
    Ok(StepEvent::Executing(arn_metadata("RegisterModel", &arn)))
}

/// Gives the tags of the step to the group, which is made where it is missing: its versions have no tags of their own.
async fn tag_group(run: &Run, group: &str, tags: &Value) -> Result<(), Failure> {
    let key = &run.execution.key;
    let arn = match group.starts_with("arn:") {
        true => group.to_owned(),
        false => kinds::arn(&key.region, &key.account, kinds::MODEL_PACKAGE_GROUP, group),
    };
    if !group.starts_with("arn:") {
        let input = json!({"ModelPackageGroupName": group, "Tags": tags});
        match run.sagemaker("CreateModelPackageGroup", input).await {
            Ok(_) => return Ok(()),
            Err(error) if exists_already(&error) => {}
            Err(error) => return Err(refused("sagemaker", "CreateModelPackageGroup", &error)),
        }
    }
    let tagged = run.sagemaker("AddTags", json!({"ResourceArn": arn, "Tags": tags})).await;
    tagged.map(drop).map_err(|error| refused("sagemaker", "AddTags", &error))
}

fn is_missing(error: &CallError) -> bool {
    error.code == "ResourceNotFound" || error.message.contains("does not exist")
}

/// Describes the package until its status is final.
pub async fn wait(run: &Run) -> Ended {
    let arn = run.metadata["RegisterModel"]["Arn"].as_str().unwrap_or_default().to_owned();
    let woken = Arc::new(Notify::new());
    let wanted = arn.clone();
    let found = run.app.database.read(move |session| session.find_resource_by_arn(&wanted)).await;
    // One that cannot be found now is looked at from time to time.
    let _watch = found.ok().flatten().map(|package| run.app.database.watch(&package.key, woken.clone()));
    loop {
        let described = run.sagemaker("DescribeModelPackage", json!({"ModelPackageName": arn})).await;
        match described {
            Err(_) if run.stopping => return Ended::Stopped { properties: Value::Null },
            Err(error) if error.status < 500 => {
                return refused("sagemaker", "DescribeModelPackage", &error).into();
            }
            Err(error) => {
                tracing::warn!(arn, %error, "a model package could not be looked at; it will be again")
            }
            Ok(described) => match described["ModelPackageStatus"].as_str() {
                Some("Completed") => return done(Value::Null, described),
                Some("Failed") => {
                    let details = &described["ModelPackageStatusDetails"];
                    let statuses = ["ValidationStatuses", "ImageScanStatuses"]
                        .iter()
                        .flat_map(|list| details[*list].as_array());
                    let reason = statuses.flatten().find_map(|status| status["FailureReason"].as_str());
                    let reason = reason.unwrap_or("The model package failed.").to_owned();
                    return super::failed(reason).into();
                }
                _ => {}
            },
        }
        tokio::select! {
            () = woken.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
