//! How long a job may wait: `MaxWaitTimeInSeconds` of spot jobs, waiting and running together, and `MaxPendingTimeInSeconds`.

use std::time::Duration;

use serde_json::json;

use super::attempt::Attempt;
use super::record::TrainingRecord;

/// What a job says that waited for capacity longer than it may.
pub const PENDING_TIME_MESSAGE: &str = "Training job pending time exceeded MaxPendingTimeInSeconds provided";
/// What a spot job says that did not end within its time.
pub const WAIT_TIME_MESSAGE: &str = "Training job wait time exceeded MaxWaitTimeInSeconds provided";

/// The machine's clock may be set, and does not run while the machine sleeps: it is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Returns when the job has no time left in which to wait and to run, which is counted from its creation.
pub async fn wait_time_over(attempt: &Attempt<'_>) {
    let condition = attempt.request.stopping_condition.as_ref();
    let Some(seconds) = condition.and_then(|condition| condition.max_wait_time_in_seconds) else {
        return std::future::pending().await;
    };
    reached(attempt, attempt.work.enqueued_at + i64::from(seconds) * 1_000).await;
}

/// Returns when the job, which enters the line now, may not wait for capacity any longer; earlier waits count.
pub async fn pending_time_over(attempt: &Attempt<'_>, record: &TrainingRecord) {
    let condition = attempt.request.stopping_condition.as_ref();
    let Some(seconds) = condition.and_then(|condition| condition.max_pending_time_in_seconds) else {
        return std::future::pending().await;
    };
    let now_ms = attempt.app.clock.now_ms();
    reached(attempt, now_ms + i64::from(seconds) * 1_000 - record.waited_ms(now_ms)).await;
}

async fn reached(attempt: &Attempt<'_>, at_ms: i64) {
    loop {
        let left_ms = at_ms - attempt.app.clock.now_ms();
        let Ok(left_ms) = u64::try_from(left_ms) else { return };
        if left_ms == 0 {
            return;
        }
        tokio::time::sleep(LOOK.min(Duration::from_millis(left_ms))).await;
    }
}

/// Notes that the running job is ended for its waiting time.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn note_wait_time_over(attempt: &Attempt<'_>) -> store::Result<()> {
    let (work, owner, now_ms) = (attempt.work.clone(), attempt.owner.to_owned(), attempt.app.clock.now_ms());
    let noted = attempt.app.database.write(move |session| {
        session.check_lease(&work, &owner)?;
        let changed = session.update_resource(&work.key, now_ms, |resource| {
            let mut record = TrainingRecord::read(&resource.document)?;
            record.attempts.is_wait_time_over = true;
            record.enter("Stopping", WAIT_TIME_MESSAGE, now_ms);
            resource.document = record.to_document();
            resource.status = "Stopping".into();
            Ok(())
        })?;
        session.append_event(&work.key, "Stopping", &json!({"message": WAIT_TIME_MESSAGE}), now_ms)?;
        crate::events::append_state(session, &changed, now_ms)
    });
    noted.await
}
