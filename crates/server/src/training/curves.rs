//! Training curves: while a job runs, the values that its metric definitions find in its logs become CloudWatch metrics.
//!
//! Values are put before the place in the log is noted, so that a crash between the two puts the last few again and loses none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner::contract::MetricScraper;
use store::logs::{Cursor, From, GroupKey, LogEvent, ReadQuery, StreamList};
use store::metrics::{FollowedJob, NewSamples, Sample, SeriesKey};
use store::resources::ResourceKey;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::kind;
use crate::app::App;
use crate::sagemaker::kinds::TRAINING_JOB;

/// Namespace of the metrics of training jobs.
pub const NAMESPACE: &str = "/aws/sagemaker/TrainingJobs";

/// Dimension that names the job.
pub const DIMENSION: &str = "TrainingJobName";

/// Time between two looks at the logs.
const PAUSE: Duration = Duration::from_secs(2);

/// Events that are read at a time.
const BATCH: usize = 10_000;

/// Bytes that are read at a time.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The task that follows a job; nothing for jobs without metric definitions.
pub struct Following {
    task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Following {
    /// Has the rest of the logs read, and waits for it. Call it when the job has ended.
    pub async fn finish(self) {
        let Some((end, task)) = self.task else { return };
        // A task that has ended by itself needs no word.
        let _ = end.send(());
        if let Err(error) = task.await {
            tracing::error!(%error, "the metrics of a training job are not complete");
        }
    }
}

/// Begins to follow the logs of a job, or goes on where an earlier server was.
pub async fn follow(app: &Arc<App>, key: &ResourceKey) -> Following {
    let job = FollowedJob::of(key);
    let definitions = definitions(app, key).await;
    if definitions.is_empty() {
        return Following { task: None };
    }
    let noted = job.clone();
    if let Err(error) = app.database.write(move |session| session.follow_job(&noted)).await {
        tracing::error!(job = job.name, %error, "the metrics of a training job are not collected");
        return Following { task: None };
    }
    let (end, mut ended) = oneshot::channel();
    let (app, key) = (app.clone(), key.clone());
    let task = tokio::spawn(async move {
        let mut reading = match Reading::begin(app, job, definitions).await {
            Ok(reading) => reading,
            Err(text) => {
                return tracing::error!(error = text, "the metrics of a training job are not collected");
            }
        };
        loop {
            let is_last = tokio::time::timeout(PAUSE, &mut ended).await.is_ok();
            if !is_last && reading.app.capacity.is_waiting(&key) {
                continue;
            }
            if let Err(text) = reading.read_on().await {
                // What could not be read or written now is tried again with the next look.
                tracing::error!(job = reading.job.name, error = text, "a log could not be read for metrics");
            } else if is_last {
                reading.forget().await;
            }
            if is_last {
                return;
            }
        }
    });
    Following { task: Some((end, task)) }
}

/// Reads what jobs left that ended just before an earlier server did.
pub async fn resume(app: &Arc<App>) {
    let followed = app.database.read(|session| session.followed_jobs()).await;
    let followed = followed.unwrap_or_else(|error| {
        tracing::error!(%error, "it is not known which logs are still to be read for metrics");
        Vec::new()
    });
    for job in followed {
        let key = ResourceKey::new(&*job.account, &*job.region, TRAINING_JOB, &*job.name);
        let wanted = key.clone();
        let found = app.database.read(move |session| session.find_resource(&wanted)).await;
        let runs = |status: &str| matches!(status, "InProgress" | "Stopping");
        if matches!(&found, Ok(Some(resource)) if runs(&resource.status)) {
            // Whoever takes the job up follows it, too.
            continue;
        }
        follow(app, &key).await.finish().await;
        if matches!(found, Ok(None)) {
            let unfollowed = app.database.write(move |session| session.unfollow_job(&job)).await;
            if let Err(error) = unfollowed {
                tracing::error!(%error, "a deleted training job is still noted as followed");
            }
        }
    }
}

/// Name and expression of each metric that the job defines.
async fn definitions(app: &App, key: &ResourceKey) -> Vec<(String, String)> {
    let key = key.clone();
    let found = app.database.read(move |session| session.find_resource(&key)).await;
    let spec = found.ok().flatten().map(|resource| resource.spec).unwrap_or_default();
    let defined = spec.pointer("/AlgorithmSpecification/MetricDefinitions").and_then(|list| list.as_array());
    let pair = |one: &serde_json::Value| Some((one["Name"].as_str()?.into(), one["Regex"].as_str()?.into()));
    defined.into_iter().flatten().filter_map(pair).collect()
}

/// The reading of the logs of one job.
struct Reading {
    app: Arc<App>,
    job: FollowedJob,
    scraper: Option<MetricScraper>,
    cursors: BTreeMap<String, String>,
    /// Lines that were looked at; marks what the last one said.
    lines: i64,
}

impl Reading {
    async fn begin(
        app: Arc<App>,
        job: FollowedJob,
        definitions: Vec<(String, String)>,
    ) -> Result<Reading, String> {
        let scraper = MetricScraper::new(&definitions)?;
        let wanted = job.clone();
        let cursors = app.database.read(move |session| session.metric_cursors(&wanted)).await;
        let cursors = cursors.map_err(|error| error.to_string())?;
        Ok(Reading { app, job, scraper: Some(scraper), cursors, lines: 0 })
    }

    /// Reads all streams of the job as far as they go.
    async fn read_on(&mut self) -> Result<(), String> {
        let group = GroupKey::new(&*self.job.account, &*self.job.region, kind::log_group(TRAINING_JOB));
        let prefix = Some(format!("{}/", self.job.name));
        let list = StreamList { prefix, limit: usize::MAX, ..StreamList::default() };
        let streams = match self.app.logs.streams(group.clone(), list).await {
            Ok(streams) => streams,
            Err(store::Error::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        for stream in streams {
            self.read_stream(&group, &stream.name).await?;
        }
        Ok(())
    }

    async fn read_stream(&mut self, group: &GroupKey, name: &str) -> Result<(), String> {
        let key = group.clone().stream(name);
        loop {
            let from = match self.cursors.get(name) {
                Some(cursor) => From::Cursor(cursor.parse::<Cursor>().map_err(|error| error.to_string())?),
                None => From::Head,
            };
            let query =
                ReadQuery { start_ms: None, end_ms: None, from, limit: BATCH, most_bytes: BATCH_BYTES };
            let page = self.app.logs.read(&key, query).await.map_err(|error| error.to_string())?;
            if page.events.is_empty() {
                return Ok(());
            }
            let samples = self.scrape(page.events).await?;
            if !samples.is_empty() {
                let series = samples.into_iter().map(|(name, samples)| self.series(name, samples)).collect();
                self.app.metrics.put(series).await.map_err(|error| error.to_string())?;
            }
            failpoint::at(failpoint::Point::CurveNoted).map_err(|error| error.to_string())?;
            let (job, stream, cursor) = (self.job.clone(), name.to_owned(), page.forward.to_string());
            self.cursors.insert(stream.clone(), cursor.clone());
            let noted =
                self.app.database.write(move |session| session.set_metric_cursor(&job, &stream, &cursor));
            noted.await.map_err(|error| error.to_string())?;
        }
    }

    /// Values by metric. Expressions of users may take their time, which belongs on a thread of its own.
    async fn scrape(&mut self, events: Vec<LogEvent>) -> Result<BTreeMap<String, Vec<Sample>>, String> {
        let Some(mut scraper) = self.scraper.take() else { return Err("a search broke off".into()) };
        let mut lines = self.lines;
        let scraping = tokio::task::spawn_blocking(move || {
            let mut found: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
            for event in events {
                lines += 1;
                scraper.feed(lines, &event.text);
                for (name, value, line) in scraper.latest() {
                    if line == lines {
                        let sample = Sample::value(event.timestamp_ms.div_euclid(1000), value);
                        found.entry(name.to_owned()).or_default().push(sample);
                    }
                }
            }
            (scraper, lines, found)
        });
        let (scraper, lines, found) = scraping.await.map_err(|error| error.to_string())?;
        (self.scraper, self.lines) = (Some(scraper), lines);
        Ok(found)
    }

    fn series(&self, name: String, samples: Vec<Sample>) -> NewSamples {
        let dimensions = vec![(DIMENSION.to_owned(), self.job.name.clone())];
        let owner = (&*self.job.account, &*self.job.region);
        NewSamples { series: SeriesKey::new(owner, NAMESPACE, name, dimensions, "None"), samples }
    }

    async fn forget(&self) {
        let job = self.job.clone();
        if let Err(error) = self.app.database.write(move |session| session.unfollow_job(&job)).await {
            tracing::error!(%error, "a finished training job is still noted as followed");
        }
    }
}
