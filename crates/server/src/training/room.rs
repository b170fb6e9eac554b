//! Waits for room on a full disk where giving up would lose what a job has made.

use std::time::Duration;

use super::attempt::Attempt;

/// How long a job that has ended waits for room, all its waits together.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// What a job has waited so far.
#[derive(Default)]
pub struct Room {
    waited: Duration,
}

impl Room {
    /// Waits a little and says so in the job's message; `false` when it has waited long enough, or a stop is wanted.
    pub async fn wait(&mut self, attempt: &Attempt<'_>) -> bool {
        let key = attempt.work.key.clone();
        let stop_wanted = attempt.app.database.read(move |session| session.stop_wanted(&key)).await;
        if self.waited >= PATIENCE || matches!(stop_wanted, Ok(true)) {
            return false;
        }
        if self.waited.is_zero() {
            let said = attempt.update(|record, now_ms| {
                let text = "Waiting for space: the disk of the data directory is full, and the results of the job do not fit";
                record.enter("Uploading", text, now_ms);
            });
            if let Err(error) = said.await {
                // The disk has no room for that, either.
                tracing::warn!(%error, "a job waits for space on the disk");
            }
        }
        tokio::time::sleep(PAUSE).await;
        self.waited += PAUSE;
        true
    }
}
