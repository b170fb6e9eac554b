//! Removes what is older than the settings keep it, a bounded step at a time.
//!
//! A step looks at one page of one kind and says where the next one begins, so that neither its memory nor the time that it holds
//! the database grows with what there is. It judges each thing again in the transaction, or under the lock, in which it goes. Steps
//! can be repeated and can be cut off anywhere.

mod environments;
mod folders;
pub mod operation;
mod records;
pub mod settings;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::{Error, Result};

/// Things of one kind that a step looks at.
const PAGE: usize = 200;

/// Time from the start of the server to the first run: what it takes up must have found what it looks for.
const FIRST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Time from one run to the next.
const PAUSE: Duration = Duration::from_secs(60 * 60);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ended executions of pipelines.
    Executions,
    /// Records of ended jobs.
    Jobs,
    /// Log events.
    Logs,
    /// The event log.
    Events,
    /// Samples of metrics.
    Metrics,
    /// Multipart uploads that nobody goes on with.
    Uploads,
    /// Python environments, and what is left of failed builds.
    Environments,
    /// Working folders that no job has any more.
    Folders,
}

impl Kind {
    /// Every kind, in the order in which a run goes through them: an execution goes before its jobs.
    pub const ALL: [Kind; 8] = [
        Kind::Executions,
        Kind::Jobs,
        Kind::Logs,
        Kind::Events,
        Kind::Metrics,
        Kind::Uploads,
        Kind::Environments,
        Kind::Folders,
    ];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Executions => "executions",
            Kind::Jobs => "jobs",
            Kind::Logs => "logs",
            Kind::Events => "events",
            Kind::Metrics => "metrics",
            Kind::Uploads => "uploads",
            Kind::Environments => "environments",
            Kind::Folders => "folders",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Days that the settings keep it.
    fn days(self, app: &App) -> Option<u32> {
        let settings = &app.config.retention;
        match self {
            Kind::Executions => settings.executions_days,
            Kind::Jobs => settings.jobs_days,
            Kind::Logs => settings.logs_days,
            Kind::Events => settings.events_days,
            Kind::Metrics => Some(app.config.metrics_retention_days),
            Kind::Uploads => settings.uploads_days,
            Kind::Environments => settings.environments_days,
            // A day is longer than anything takes between a folder and the record that names it.
            Kind::Folders => Some(1),
        }
    }
}

/// What a step is to do.
#[derive(Debug, Clone)]
pub struct StepRequest {
    /// Of what.
    pub kind: Kind,
    /// Where the step before ended.
    pub after: Option<String>,
    /// Days instead of those of the settings.
    pub days: Option<u32>,
    /// Only say what would go.
    pub is_dry_run: bool,
}

/// What a step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Things that went, or would go.
    pub items: u64,
    /// Bytes that they took.
    pub bytes: u64,
    /// Where to go on.
    pub next: Option<String>,
    /// Days that were kept.
    pub days: Option<u32>,
}

/// Does one step.
///
/// # Errors
/// When the position is none of this kind, or something cannot be read or removed.
pub async fn step(app: &Arc<App>, request: &StepRequest) -> Result<Step> {
    let StepRequest { kind, is_dry_run, .. } = *request;
    let days = request.days.or_else(|| kind.days(app));
    let done = match (kind, days) {
        // Groups have policies of their own.
        (Kind::Logs, days) => streams::trim(app, days, position(request)?, is_dry_run).await?,
        (_, None) => Step::default(),
        (kind, Some(days)) => {
            let before_ms = app.clock.now_ms() - i64::from(days) * DAY_MS;
            let page = Page { before_ms, is_dry_run };
            match kind {
                Kind::Executions => records::executions(app, page, position(request)?).await?,
                Kind::Jobs => records::jobs(app, page, position(request)?).await?,
                Kind::Events => records::events(app, page, position(request)?).await?,
                Kind::Uploads => records::uploads(app, page, position(request)?).await?,
                Kind::Environments => environments::remove(app, page, position(request)?).await?,
                Kind::Folders => folders::remove(app, page).await?,
                Kind::Logs | Kind::Metrics => metrics(app, days, is_dry_run).await?,
            }
        }
    };
    Ok(Step { days, ..done })
}

/// What the steps of all kinds are told.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// Only what is older, milliseconds since 1970.
    before_ms: i64,
    /// Only say what would go.
    is_dry_run: bool,
}

async fn metrics(app: &App, days: u32, is_dry_run: bool) -> Result<Step> {
    let (items, bytes) = app.metrics.expired(days);
    if !is_dry_run {
        app.metrics.expire(days).await?;
    }
    Ok(Step { items, bytes, ..Step::default() })
}

fn position<T: DeserializeOwned + Default>(request: &StepRequest) -> Result<T> {
    let Some(text) = &request.after else { return Ok(T::default()) };
    serde_json::from_str(text)
        .map_err(|_| Error::Validation("After: give the value that the step before answered.".into()))
}

fn encoded(position: &impl Serialize) -> Result<String> {
    serde_json::to_string(position).map_err(Error::internal)
}

/// Removes what is old now and then, for as long as the server runs.
pub fn start(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut hours = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_PAUSE, PAUSE);
        loop {
            hours.tick().await;
            let Some(app) = app.upgrade() else { return };
            for kind in Kind::ALL {
                // Metrics have had a run of their own since before there were others.
                if kind == Kind::Metrics {
                    continue;
                }
                if let Err(error) = run(&app, kind).await {
                    tracing::error!(%error, kind = kind.name(), "old things could not be removed; the next run tries again");
                }
            }
        }
    });
}

async fn run(app: &Arc<App>, kind: Kind) -> Result<()> {
    let mut request = StepRequest { kind, after: None, days: None, is_dry_run: false };
    let (mut items, mut bytes) = (0, 0);
    loop {
        let step = step(app, &request).await?;
        items += step.items;
        bytes += step.bytes;
        if step.next.is_none() {
            break;
        }
        request.after = step.next;
    }
    if items > 0 {
        tracing::info!(kind = kind.name(), items, bytes, "what was old is removed");
    }
    Ok(())
}
