//! Asynchronous inference: requests wait in a line of their endpoint in the database, and each ends in one object of S3.

mod attempt;
mod dispatch;
mod ending;
mod line;
mod metrics;
mod notice;
pub mod queue_view;
pub mod request;
mod settings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use store::resources::ResourceKey;

use crate::app::App;
use crate::endpoints::{DeployedVariant, EndpointRecord};
use crate::{Error, Result};
use ending::{End, Failure};
use line::Line;

pub use settings::AsyncSettings;

/// Requests that a container has at once when the configuration does not say.
const CONTAINER_AT_ONCE: u32 = 4;
/// Most requests that a container has at once.
const MOST_AT_ONCE: u32 = 128;
/// Requests that are taken out of a line at a time when they only have to be ended.
const ENDED_AT_ONCE: usize = 100;
/// Failures that are put down at the same time.
const PUT_AT_ONCE: usize = 8;
/// Pause before the database is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the name that a caller gave to a request is known after its end.
const KNOWN_MS: i64 = 3_600_000;
/// Time between two looks for names that are forgotten.
const FORGET_PAUSE: Duration = Duration::from_secs(600);

/// The lines of all asynchronous endpoints.
pub struct AsyncQueues {
    /// Names this server among those that held requests before it.
    owner: String,
    lines: RwLock<HashMap<String, Arc<Line>>>,
    /// How many there are: most servers have none, and then a real-time invocation need not look.
    count: AtomicUsize,
}

impl Default for AsyncQueues {
    fn default() -> AsyncQueues {
        AsyncQueues {
            owner: uuid::Uuid::new_v4().to_string(),
            lines: RwLock::default(),
            count: AtomicUsize::new(0),
        }
    }
}

impl AsyncQueues {
    /// Follows an endpoint that answers later as its record says; one that answers at once has no line.
    pub fn follow(&self, key: &ResourceKey, record: &EndpointRecord, app: &Weak<App>) {
        let (Some(settings), Some(state)) = (&record.asynchronous, app.upgrade()) else { return };
        let slots = record.variants.iter();
        let slots =
            slots.map(|variant| (variant.name.clone(), slots_of(&state, settings, variant))).collect();
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&name_of(key)) {
            line.set_slots(slots);
            return;
        }
        let line = Arc::new(Line::new(key.clone(), slots));
        lines.insert(name_of(key), line.clone());
        self.count.store(lines.len(), Ordering::Release);
        tokio::spawn(dispatch::run(app.clone(), line));
    }

    /// Call after a request was accepted.
    pub fn ring(&self, key: &ResourceKey) {
        if let Some(line) = self.line(key) {
            line.ring();
        }
    }

    /// Takes no more requests out of the line of an endpoint that is being deleted.
    pub fn close(&self, key: &ResourceKey) {
        if let Some(line) = self.line(key) {
            line.close();
        }
    }

    /// Refuses a real-time invocation of an endpoint that answers later.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn check_direct(&self, key: &ResourceKey) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 || self.line(key).is_none() {
            return Ok(());
        }
        Err(Error::Validation(format!(
            "Endpoint {} of account {} is asynchronous: InvokeEndpoint is not supported for it. Use InvokeEndpointAsync.",
            key.name, key.account
        )))
    }

    fn line(&self, key: &ResourceKey) -> Option<Arc<Line>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).get(&name_of(key)).cloned()
    }

    fn all(&self) -> Vec<Arc<Line>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn forget(&self, key: &ResourceKey) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.remove(&name_of(key));
        self.count.store(lines.len(), Ordering::Release);
    }
}

fn name_of(key: &ResourceKey) -> String {
    // Names of endpoints differ by more than case, as in the service.
    format!("{}/{}/{}", key.account, key.region, key.name.to_lowercase())
}

/// Requests that an instance of a variant has at once. More than it has workers would only wait there.
fn slots_of(app: &App, settings: &AsyncSettings, variant: &DeployedVariant) -> u32 {
    if app.containers.is_container(&app.catalogue, &variant.image) {
        settings.most_at_once.unwrap_or(CONTAINER_AT_ONCE).clamp(1, MOST_AT_ONCE)
    } else {
        settings.most_at_once.unwrap_or(u32::MAX).clamp(1, variant.workers())
    }
}

/// Ends every request of an endpoint that is gone as a failure, once those that run have come to their end.
pub async fn end_all(app: &Arc<App>, key: &ResourceKey) {
    let queues = &app.endpoints.queues;
    if let Some(line) = queues.line(key) {
        line.quiet().await;
    }
    loop {
        let (endpoint, owner, now_ms) = (key.clone(), queues.owner.clone(), app.clock.now_ms());
        let claimed = app.database.write(move |session| {
            let mut claimed = session.claim_async_requests(&endpoint, &owner, ENDED_AT_ONCE, now_ms)?;
            claimed.extend(session.claim_expired_async_requests(
                &endpoint,
                &owner,
                ENDED_AT_ONCE,
                i64::MAX,
                now_ms,
            )?);
            if claimed.is_empty() {
                session.forget_async_requests_of(&endpoint)?;
            }
            Ok(claimed)
        });
        match claimed.await {
            Ok(claimed) if claimed.is_empty() => break,
            Ok(claimed) => {
                let ends = claimed.into_iter().map(|request| {
                    attempt::end(app, key, request, End::Failed(Failure::of_deletion(&key.name)))
                });
                futures::stream::iter(ends).buffer_unordered(PUT_AT_ONCE).collect::<()>().await;
            }
            Err(error) => {
                tracing::error!(endpoint = key.name, %error, "the requests of a deleted endpoint could not be read");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    queues.forget(key);
}

/// Measures the lines and forgets old names, for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    metrics::start(app);
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut pauses = tokio::time::interval(FORGET_PAUSE);
        loop {
            pauses.tick().await;
            let Some(app) = app.upgrade() else { return };
            let before_ms = app.clock.now_ms() - KNOWN_MS;
            let forgotten = app.database.write(move |session| session.forget_async_requests(before_ms)).await;
            if let Err(error) = forgotten {
                tracing::error!(%error, "names of requests that have ended could not be forgotten");
            }
        }
    });
}
