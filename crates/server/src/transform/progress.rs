//! Writes down how far a job is, for whoever asks and for the job's log.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::Attempt;
use super::object::Transform;
use super::record::Progress;

/// Time between two notes.
const PAUSE: Duration = Duration::from_secs(2);
/// Notes between two lines in the log.
const NOTES_PER_LINE: u32 = 5;

/// The progress now; `before` is what was done when this server took the job up, and `ended` objects with how many failed.
pub fn now(transform: &Transform<'_>, before: &Progress, ended: (u64, u64)) -> Progress {
    Progress {
        objects_done: ended.0,
        objects_failed: ended.1,
        records: transform.records.load(Ordering::Relaxed),
        bytes_done: transform.bytes.load(Ordering::Relaxed).min(before.bytes),
        ..before.clone()
    }
}

/// Notes the progress for as long as it is polled.
pub async fn follow(attempt: &Attempt<'_>, look: impl Fn() -> Progress) -> Infallible {
    let mut noted = 0;
    let mut last = None;
    loop {
        tokio::time::sleep(PAUSE).await;
        let progress = look();
        if last.as_ref() == Some(&progress) {
            continue;
        }
        noted += 1;
        if noted % NOTES_PER_LINE == 0 {
            let sentence = progress.sentence(attempt.app.clock.now_ms());
            attempt.data_log().line(&format!("[modelyard]: {sentence}")).await;
        }
        last = Some(progress.clone());
        // It is tried again with the next look; a lost lease is found by whoever writes something that counts.
        if let Err(error) = attempt.note(progress).await {
            tracing::warn!(job = attempt.work.key.name, %error, "the progress of a transform job was not noted");
        }
    }
}
