//! Managed spot training: who interrupts a job, and `InterruptTrainingJob`, by which a user does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::attempt::Attempt;
use super::record::{HostRecord, TrainingRecord};
use crate::capacity::Allocation;
use crate::own_service::{DescribeFailureInput, find, own_operation};
use crate::{Cx, Error, Registry, Result};

/// Secondary statuses in which a job holds capacity that can be taken from it.
const INTERRUPTIBLE: &[&str] = &["Downloading", "Training"];

own_operation! {
    /// Interrupts a spot job as the cloud does when it needs the capacity.
    InterruptTrainingJob(DescribeFailureInput) -> InterruptTrainingJobOutput
}

/// Output of [`InterruptTrainingJob`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterruptTrainingJobOutput {
    /// How often the job was interrupted, with this time.
    pub interruptions: u32,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<InterruptTrainingJob, _, _, _>(interrupt_training_job);
}

async fn interrupt_training_job(cx: Cx, input: DescribeFailureInput) -> Result<InterruptTrainingJobOutput> {
    // No other kind can be interrupted, so that a training job is meant.
    let resource = find(&cx, input.training_job_name, input.kind.or(Some("training".into()))).await?;
    let (key, name) = (resource.key.clone(), resource.key.name.clone());
    if resource.spec["EnableManagedSpotTraining"] != true {
        return Err(Error::Validation(format!(
            "{name} does not use managed spot training, so that nothing interrupts it: ask for EnableManagedSpotTraining in \
             CreateTrainingJob."
        )));
    }
    let now_ms = cx.state.clock.now_ms();
    let reason = format!("asked for by {}", cx.caller.principal_arn);
    let noted = cx.state.database.write(move |session| {
        let mut interruptions = 0;
        let mut is_new = false;
        let changed = session.update_resource(&key, now_ms, |resource| {
            let mut record = TrainingRecord::read(&resource.document)?;
            let secondary = record.secondary_status().to_owned();
            is_new = record.attempts.interruption.is_none();
            if is_new && (resource.status != "InProgress" || !INTERRUPTIBLE.contains(&secondary.as_str())) {
                return Err(store::Error::Invalid(format!(
                    "{name} can be interrupted while its secondary status is Downloading or Training; it is {secondary}."
                )));
            }
            record.interrupt(&reason, now_ms);
            interruptions = record.attempts.interruptions + 1;
            resource.document = record.to_document();
            Ok(())
        })?;
        if is_new {
            session.append_event(&key, "Interrupted", &json!({"message": reason}), now_ms)?;
            crate::events::append_state(session, &changed, now_ms)?;
        }
        Ok(interruptions)
    });
    let interruptions = noted.await?;
    // One that is just being taken up by a new server finds what was noted.
    cx.state.capacity.interrupt(&resource.key);
    Ok(InterruptTrainingJobOutput { interruptions })
}

/// Returns once the job is to be interrupted, which is noted then: a server that takes over goes on with it.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn interrupted(attempt: &Attempt<'_>, allocation: &Allocation) -> store::Result<()> {
    if attempt.request.enable_managed_spot_training != Some(true) {
        return std::future::pending().await;
    }
    let record = attempt.record()?;
    let reason = if record.attempts.interruption.is_some() {
        ""
    } else {
        tokio::select! {
            () = allocation.interrupted() => "others need the room on this machine",
            () = settled_time_over(attempt, &record) => "spot_interrupt_after_seconds in the settings",
        }
    };
    let noted = attempt.update(|record, now_ms| record.interrupt(reason, now_ms)).await?;
    let record = TrainingRecord::read(&noted.document)?;
    if let Some(interruption) = &record.attempts.interruption {
        tracing::info!(
            job = attempt.work.key.name,
            reason = interruption.reason,
            "a spot job is interrupted"
        );
        say(attempt, &record.hosts, &interruption.reason).await;
    }
    Ok(())
}

async fn say(attempt: &Attempt<'_>, hosts: &[HostRecord], reason: &str) {
    for host in hosts {
        let line = format!(
            "modelyard: the spot instances of the job are interrupted ({reason}); the program has up to 120 seconds to end, then \
             the job starts again"
        );
        attempt.log(&host.log_stream).line(&line).await;
    }
}

/// Returns when the settings want this run interrupted.
async fn settled_time_over(attempt: &Attempt<'_>, record: &TrainingRecord) {
    let settled = &attempt.app.config.capacity.spot_interrupt_after_seconds;
    let seconds = settled.get(record.attempts.interruptions as usize);
    let (Some(&seconds), Some(started_at)) = (seconds, record.attempts.run_started_at) else {
        return std::future::pending().await;
    };
    let ran_ms = (attempt.app.clock.now_ms() - started_at).max(0) as u64;
    tokio::time::sleep(Duration::from_millis(seconds.saturating_mul(1_000).saturating_sub(ran_ms))).await;
}
