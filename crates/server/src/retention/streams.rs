//! Old log events, and the streams of jobs and functions that are left without any.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use store::logs::{GroupKey, StreamKey, TrimQuery};
use store::resources::ResourceKey;

use super::{PAGE, Step, encoded};
use crate::Result;
use crate::app::App;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT, PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};

/// What the names of log groups of inference components begin with.
const COMPONENTS: &str = "/aws/sagemaker/InferenceComponents/";

/// The last stream of a page: account, region, group, stream.
#[derive(Serialize, Deserialize)]
pub(super) struct StreamPosition(String, String, String, String);

/// Removes old events from a page of streams, and streams that nobody will write to again.
pub(super) async fn trim(
    app: &Arc<App>,
    days: Option<u32>,
    after: Option<StreamPosition>,
    is_dry_run: bool,
) -> Result<Step> {
    let after = after.map(|StreamPosition(account, region, group, stream)| {
        GroupKey::new(account, region, group).stream(stream)
    });
    let trimmed = app.logs.trim(TrimQuery { after, default_days: days, is_dry_run, limit: PAGE }).await?;
    if !is_dry_run {
        for stream in trimmed.emptied {
            if is_finished(app, &stream).await? {
                match app.logs.delete_stream(stream).await {
                    Ok(()) | Err(store::Error::Missing { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    let next = trimmed.next.map(|StreamKey { group, stream }| {
        encoded(&StreamPosition(group.account, group.region, group.group, stream))
    });
    Ok(Step { items: trimmed.streams, bytes: trimmed.bytes, next: next.transpose()?, days: None })
}

/// Whether the stream is one that a job, endpoint or function wrote which has ended. The streams that clients make are theirs.
async fn is_finished(app: &App, stream: &StreamKey) -> Result<bool> {
    let StreamKey { group: GroupKey { account, region, group }, stream } = stream;
    let job = |kind: &'static str| stream.split_once('/').map(|(name, _)| (kind, name));
    let owner = match group.as_str() {
        "/aws/sagemaker/TrainingJobs" => job(TRAINING_JOB),
        "/aws/sagemaker/ProcessingJobs" => job(PROCESSING_JOB),
        "/aws/sagemaker/TransformJobs" => job(TRANSFORM_JOB),
        group => {
            match (group.strip_prefix("/aws/sagemaker/Endpoints/"), group.strip_prefix("/aws/lambda/")) {
                (Some(name), _) => Some((ENDPOINT, name)),
                _ if group.starts_with(COMPONENTS) => Some((INFERENCE_COMPONENT, &group[COMPONENTS.len()..])),
                (_, Some(name)) => Some((crate::lambda::FUNCTION, name)),
                (None, None) => None,
            }
        }
    };
    let Some((kind, name)) = owner else { return Ok(false) };
    let key = ResourceKey::new(account, region, kind, name);
    let found = app.database.read(move |session| session.find_resource(&key)).await?;
    let is_job = [TRAINING_JOB, PROCESSING_JOB, TRANSFORM_JOB].contains(&kind);
    Ok(found.is_none_or(|owner| is_job && !matches!(owner.status.as_str(), "InProgress" | "Stopping")))
}
