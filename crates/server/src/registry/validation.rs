//! Validation of model packages: the transform job of each profile runs before a package counts as completed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::resources::{Resource, ResourceKey};
use store::work::Work;
use tokio::sync::Notify;
use wire::Caller;

use super::package::{PackageRecord, Profile, ProfileStatus};
use crate::app::App;
use crate::internal_call::{self, CallError};
use crate::sagemaker::kinds::{MODEL_PACKAGE, TRANSFORM_JOB};

/// Pause before the database is asked again after it failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Time after which a job is looked at again even if nothing was told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Longest reason of a profile that failed.
const REASON_CHARACTERS: usize = 1_024;

/// Claims packages that are to be validated and validates each in a task of its own.
pub struct ValidationDriver {
    app: Weak<App>,
    owner: String,
    queued: Arc<Notify>,
}

impl ValidationDriver {
    /// A driver of the packages of `app`.
    pub fn new(app: Weak<App>) -> ValidationDriver {
        ValidationDriver { app, owner: uuid::Uuid::new_v4().to_string(), queued: Arc::default() }
    }

    /// Starts claiming; packages that an earlier server left come first.
    pub fn start(&self) {
        let (app, owner, queued) = (self.app.clone(), self.owner.clone(), self.queued.clone());
        tokio::spawn(async move {
            while let Some(app) = app.upgrade() {
                let claimant = owner.clone();
                let claimed =
                    app.database.write(move |session| session.claim_work(MODEL_PACKAGE, &claimant)).await;
                match claimed {
                    Ok(Some(work)) => spawn(&app, work, owner.clone()),
                    Ok(None) => {
                        drop(app);
                        queued.notified().await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the queue could not be read; validations of model packages wait");
                        drop(app);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    /// Call after a package was queued.
    pub fn wake(&self) {
        self.queued.notify_one();
    }
}

fn spawn(app: &Arc<App>, work: Work, owner: String) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        while let Some(app) = app.upgrade() {
            match validate(&app, &work, &owner).await {
                Ok(()) | Err(store::Error::LeaseLost { .. }) => break,
                Err(error) => {
                    let package = &work.key.name;
                    tracing::error!(%error, package, "the validation of a model package was interrupted; it goes on soon");
                    drop(app);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
}

/// Runs the profiles that have no result yet, and records what came of all.
async fn validate(app: &Arc<App>, work: &Work, owner: &str) -> store::Result<()> {
    let key = work.key.clone();
    let package = app.database.read(move |session| session.resource(&key)).await?;
    for (at, profile) in PackageRecord::read(&package.document)?.profiles.into_iter().enumerate() {
        if matches!(profile.status, ProfileStatus::Completed | ProfileStatus::Failed) {
            continue;
        }
        note(app, work, owner, at, ProfileStatus::InProgress, None).await?;
        let (status, reason) = match run(app, &package, &profile, at).await {
            Ok(()) => (ProfileStatus::Completed, None),
            Err(reason) => (ProfileStatus::Failed, Some(reason.chars().take(REASON_CHARACTERS).collect())),
        };
        note(app, work, owner, at, status, reason).await?;
    }
    let (work, owner, now_ms) = (work.clone(), owner.to_owned(), app.clock.now_ms());
    let finished = app.database.write(move |session| {
        session.finish_work(&work, &owner)?;
        let package = session.resource(&work.key)?;
        session.append_event(&work.key, "Validated", &Value::Null, now_ms)?;
        crate::events::append_state(session, &package, now_ms)
    });
    finished.await
}

/// Records how far a profile is.
async fn note(
    app: &App,
    work: &Work,
    owner: &str,
    at: usize,
    status: ProfileStatus,
    reason: Option<String>,
) -> store::Result<()> {
    let (work, owner, now_ms) = (work.clone(), owner.to_owned(), app.clock.now_ms());
    let noted = app.database.write(move |session| {
        session.check_lease(&work, &owner)?;
        session.update_resource(&work.key, now_ms, |package| {
            let mut record = PackageRecord::read(&package.document)?;
            if let Some(profile) = record.profiles.get_mut(at) {
                profile.status = status;
                profile.failure_reason = reason;
            }
            package.document = record.to_document();
            Ok(())
        })
    });
    noted.await.map(drop)
}

/// Runs the job of one profile on a model of its own. What was made before a crash is found again by its name.
async fn run(app: &Arc<App>, package: &Resource, profile: &Profile, at: usize) -> Result<(), String> {
    let specification = &package.spec["ValidationSpecification"];
    let role = specification["ValidationRole"].as_str().unwrap_or_default();
    let key = &package.key;
    let caller = internal_call::as_role(app, &key.account, &key.region, role, "SageMaker").await;
    let caller = caller.map_err(|error| error.message)?;
    let name = job_name(&package.arn, &profile.name, package.created_at);
    let definition = &specification["ValidationProfiles"][at]["TransformJobDefinition"];
    made(app, &caller, "CreateModel", model_request(package, &name, role)).await?;
    let ended = match made(app, &caller, "CreateTransformJob", job_request(definition, &name)).await {
        Ok(()) => wait(app, &caller, key, &name).await,
        Err(problem) => Err(problem),
    };
    let deleted = call(app, &caller, "DeleteModel", json!({"ModelName": name})).await;
    if let Err(error) = deleted {
        tracing::debug!(%error, name, "the model of a validation was not deleted");
    }
    ended
}

/// Name of the job of a profile, and of its model: the same whenever it is begun.
fn job_name(package_arn: &str, profile: &str, created_at: i64) -> String {
    let digest = hex::encode(Sha256::digest(format!("{package_arn}\n{profile}\n{created_at}")));
    let profile: String = profile.chars().take(30).collect();
    format!("validation-{}-{}", profile.trim_end_matches('-'), &digest[..16])
}

/// CreateModel of what the package is made of.
fn model_request(package: &Resource, name: &str, role: &str) -> Value {
    let registered = &package.spec["InferenceSpecification"]["Containers"][0];
    let mut container = json!({});
    for member in ["Image", "ModelDataUrl", "Environment"] {
        if !registered[member].is_null() {
            container[member] = registered[member].clone();
        }
    }
    let source = &registered["ModelDataSource"]["S3DataSource"];
    if !source.is_null() {
        let mut taken = json!({});
        for member in ["S3Uri", "S3DataType", "CompressionType"] {
            taken[member] = source[member].clone();
        }
        container["ModelDataSource"] = json!({"S3DataSource": taken});
    }
    json!({"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": container})
}

/// CreateTransformJob of a profile's definition.
pub fn job_request(definition: &Value, name: &str) -> Value {
    let mut request = definition.clone();
    request["TransformJobName"] = name.into();
    request["ModelName"] = name.into();
    request
}

async fn call(app: &Arc<App>, caller: &Caller, operation: &str, input: Value) -> Result<Value, CallError> {
    internal_call::call(app, caller, "sagemaker", operation, input).await
}

/// Makes something, unless it is there; a server that is busy is asked again.
async fn made(app: &Arc<App>, caller: &Caller, operation: &str, input: Value) -> Result<(), String> {
    loop {
        match call(app, caller, operation, input.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.message.to_ascii_lowercase().contains("already exist") => return Ok(()),
            Err(error) if error.status >= 500 => {
                tracing::warn!(%error, operation, "a validation could not go on; it will be tried again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(format!("{operation}: {}", error.message)),
        }
    }
}

/// Waits for the end of the job.
async fn wait(app: &Arc<App>, caller: &Caller, package: &ResourceKey, name: &str) -> Result<(), String> {
    let woken = Arc::new(Notify::new());
    let job = ResourceKey::new(&*package.account, &*package.region, TRANSFORM_JOB, name);
    let _watch = app.database.watch(&job, woken.clone());
    loop {
        match call(app, caller, "DescribeTransformJob", json!({"TransformJobName": name})).await {
            Ok(described) => {
                let reason = described["FailureReason"].as_str().map(str::to_owned);
                match described["TransformJobStatus"].as_str() {
                    Some("Completed") => return Ok(()),
                    Some("Failed") => {
                        return Err(reason.unwrap_or_else(|| format!("The transform job {name} failed.")));
                    }
                    Some("Stopped") => return Err(format!("The transform job {name} was stopped.")),
                    _ => {}
                }
            }
            Err(error) if error.status < 500 => return Err(error.message),
            Err(error) => {
                tracing::warn!(%error, name, "a job of a validation could not be looked at; it will be again");
            }
        }
        tokio::select! {
            () = woken.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_follow_from_the_package() {
        let arn = "arn:aws:sagemaker:us-east-1:123456789012:model-package/g/1";
        let name = job_name(arn, &"p".repeat(63), 1);
        assert!(name.len() <= 63, "{name}");
        assert_eq!(name, job_name(arn, &"p".repeat(63), 1));
        assert_ne!(name, job_name(arn, &"p".repeat(63), 2));
    }
}
