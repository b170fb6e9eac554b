//! The stop of a job, which is the same for every kind.

use serde_json::Value;
use store::resources::{Resource, ResourceKey};

use super::kinds::{PROCESSING_JOB, TRAINING_JOB};
use super::records;
use crate::app::App;
use crate::training::record::TrainingRecord;
use crate::{Error, Result};

/// Writes down that the job is to stop; its driver has still to be woken. A job that is stopping already goes on doing so.
///
/// # Errors
/// A validation error when the job has ended, and errors of the database.
pub async fn request(app: &App, job: &Resource) -> Result<()> {
    let (key, now_ms) = (job.key.clone(), app.clock.now_ms());
    let noun = noun(&key);
    let stopped = app.database.write(move |session| {
        let mut is_new = false;
        let changed = session.update_resource(&key, now_ms, |resource| match resource.status.as_str() {
            "InProgress" => {
                let mut record = TrainingRecord::read(&resource.document)?;
                record.enter("Stopping", &format!("Stopping the {noun} job"), now_ms);
                resource.document = record.to_document();
                resource.status = "Stopping".into();
                is_new = true;
                Ok(())
            }
            "Stopping" => Ok(()),
            _ => Err(records::wrong_status(resource)),
        })?;
        session.append_event(&key, "StopRequested", &Value::Null, now_ms)?;
        if is_new {
            crate::events::append_state(session, &changed, now_ms)?;
        }
        session.want_stop(&key)
    });
    stopped.await.map_err(|error| match error {
        store::Error::WrongStatus { status, .. } => Error::Validation(format!(
            "The request was rejected because the {noun} job is in status {status}."
        )),
        other => other.into(),
    })
}

fn noun(key: &ResourceKey) -> &'static str {
    match key.kind.as_str() {
        TRAINING_JOB => "training",
        PROCESSING_JOB => "processing",
        _ => "transform",
    }
}
