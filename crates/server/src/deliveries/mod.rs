//! Deliveries at work: what events, schedules and callers asked for is brought to its target, once it is written down.

mod attempt;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::deliveries::Delivery;
use tokio::sync::{Notify, Semaphore};

use crate::app::App;
use crate::sqs::Attribute;

/// Deliveries that are tried at once, but for functions, whose number is limited by themselves.
const MOST_AT_ONCE: usize = 32;
/// Most deliveries that are under way or wait for a place; the others wait in the database.
const MOST_UNDER_WAY: usize = 1000;
/// How often the clock is looked at while something waits for its time: it may be set, and the machine may sleep.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// Tries of a function whose answer nobody waits for, as in the service.
const FUNCTION_ATTEMPTS: i64 = 3;
/// Longest time that an event for a function waits.
const FUNCTION_AGE_MS: i64 = 6 * 3600 * 1000;

/// Where something is brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A queue gets the payload as a message.
    Queue {
        /// Its ARN.
        arn: String,
        /// Group of the message, for a first-in-first-out queue.
        group: Option<String>,
        /// Attributes of the message.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        attributes: BTreeMap<String, Attribute>,
    },
    /// A function is invoked with the payload.
    Function {
        /// Its ARN.
        arn: String,
    },
    /// A pipeline is started.
    Pipeline {
        /// Its ARN.
        arn: String,
        /// Parameters of the execution.
        parameters: Vec<(String, String)>,
        /// Role that starts it.
        role_arn: String,
    },
    /// An operation is called with the payload as its input.
    Operation {
        /// Service, as `models/` has it.
        service: String,
        /// Name of the operation.
        operation: String,
        /// Role that calls it.
        role_arn: String,
    },
}

/// How long, and how often, a delivery is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first one.
    pub most_retries: i64,
    /// Longest time.
    pub most_age_seconds: i64,
}

impl Default for RetryPolicy {
    /// That of events and schedules.
    fn default() -> RetryPolicy {
        RetryPolicy { most_retries: 185, most_age_seconds: 24 * 3600 }
    }
}

/// Drives the deliveries.
#[derive(Debug)]
pub struct Deliveries {
    bell: Notify,
    places: Semaphore,
    running: Mutex<BTreeSet<String>>,
}

impl Default for Deliveries {
    fn default() -> Deliveries {
        Deliveries { bell: Notify::new(), places: Semaphore::new(MOST_AT_ONCE), running: Mutex::default() }
    }
}

impl Deliveries {
    /// Says that there is something new. Call it after the commit.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // A poisoned lock only says that another thread panicked; the set is whole between any two calls.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery that is tried at once, by the rules of its target.
pub fn new(
    id: String,
    account: &str,
    region: &str,
    origin: &str,
    target: &Target,
    payload: String,
    now_ms: i64,
) -> Delivery {
    let policy = RetryPolicy::default();
    let (most_attempts, age_ms) = match target {
        Target::Function { .. } => (FUNCTION_ATTEMPTS, FUNCTION_AGE_MS),
        _ => (1 + policy.most_retries, policy.most_age_seconds * 1000),
    };
    Delivery {
        id,
        account: account.to_owned(),
        region: region.to_owned(),
        origin: origin.to_owned(),
        target: serde_json::to_string(target).expect("texts and lists of them always serialize"),
        payload,
        attempts: 0,
        most_attempts,
        enqueued_at: now_ms,
        next_at: now_ms,
        expires_at: now_ms + age_ms,
        dead_letter: None,
    }
}

/// As [`new`], with the retries and the dead-letter queue that a rule or schedule has for its target.
pub fn with_policy(
    mut delivery: Delivery,
    policy: Option<RetryPolicy>,
    dead_letter: Option<String>,
) -> Delivery {
    delivery.dead_letter = dead_letter;
    if let Some(policy) = policy {
        delivery.most_attempts = 1 + policy.most_retries;
        delivery.expires_at = delivery.enqueued_at + policy.most_age_seconds * 1000;
    }
    delivery
}

/// An id that is the same for the same parts, in the form of a UUID.
pub fn id_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// A payload as JSON; text that is none is a JSON text.
pub fn json_of(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|_| Value::from(payload))
}

/// Tries what is due, for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    tokio::spawn(async move {
        loop {
            let Some(app) = weak.upgrade() else { return };
            let next_at = match begin_due(&app).await {
                Ok(next_at) => next_at,
                Err(error) => {
                    tracing::error!(%error, "deliveries could not be looked at");
                    Some(app.clock.now_ms() + 1000)
                }
            };
            let deliveries = app.deliveries.clone();
            let clock = app.clock.clone();
            drop(app);
            let timer = async {
                match next_at {
                    Some(next_at) => {
                        while clock.now_ms() < next_at {
                            let left =
                                Duration::from_millis((next_at - clock.now_ms()).max(1).unsigned_abs());
                            tokio::time::sleep(left.min(CLOCK_PAUSE)).await;
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = deliveries.bell.notified() => {}
                () = timer => {}
                // So that this task sees when the process state is gone.
                () = tokio::time::sleep(Duration::from_secs(60)) => {}
            }
        }
    });
}

/// Begins what is due and not tried already; gives the time of what comes next.
async fn begin_due(app: &Arc<App>) -> store::Result<Option<i64>> {
    let now_ms = app.clock.now_ms();
    let under_way = app.deliveries.running().len();
    if under_way >= MOST_UNDER_WAY {
        // The end of each of them rings.
        return Ok(None);
    }
    let limit = MOST_UNDER_WAY + under_way;
    let (due, next_at) = app
        .database
        .read(move |session| Ok((session.due_deliveries(now_ms, limit)?, session.next_delivery_at(now_ms)?)))
        .await?;
    for delivery in due {
        if !app.deliveries.running().insert(delivery.id.clone()) {
            continue;
        }
        let app = app.clone();
        tokio::spawn(async move {
            let id = delivery.id.clone();
            attempt::attempt(&app, delivery).await;
            app.deliveries.running().remove(&id);
            // In the database there may be more, and a retry has a new time.
            app.deliveries.ring();
        });
    }
    Ok(next_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_all_parts() {
        assert_eq!(id_of(&["a", "b"]), id_of(&["a", "b"]));
        assert_ne!(id_of(&["a", "b"]), id_of(&["ab", ""]));
        assert_eq!(id_of(&["a"]).len(), 36);
    }
}
