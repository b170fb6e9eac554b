//! What CloudWatch has of asynchronous endpoints: the length of the line every few seconds, and where the time of each request went.

use std::sync::Arc;
use std::time::Duration;

use store::async_requests::AsyncRequest;
use store::metrics::{NewSamples, Sample, SeriesKey};
use store::resources::ResourceKey;

use super::ending::End;
use super::line::Line;
use crate::app::App;

/// The namespace of the service.
const NAMESPACE: &str = "AWS/SageMaker";
/// Time between two samples of a line.
const PAUSE: Duration = Duration::from_secs(5);

/// Where the time of a request went that was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// In the line.
    pub waited_ms: i64,
    /// With reading its input from S3.
    pub download_ms: Option<f64>,
    /// With putting its answer into S3.
    pub upload_ms: Option<f64>,
}

fn samples(key: &ResourceKey, name: &str, unit: &str, at_ms: i64, value: f64) -> NewSamples {
    let dimensions = vec![("EndpointName".to_owned(), key.name.clone())];
    NewSamples {
        series: SeriesKey::new((&*key.account, &*key.region), NAMESPACE, name, dimensions, unit),
        samples: vec![Sample::value(at_ms.div_euclid(1000), value)],
    }
}

/// Counts something that went wrong.
pub fn count(app: &App, key: &ResourceKey, name: &str) {
    app.metric_sink.put(vec![samples(key, name, "Count", app.clock.now_ms(), 1.0)]);
}

/// Measures a request that has ended; `spent` is missing when it was not tried.
pub fn ended(app: &App, key: &ResourceKey, end: &End, request: &AsyncRequest, spent: Option<Spent>) {
    let now_ms = app.clock.now_ms();
    let one = |name: &str, unit: &str, value: f64| samples(key, name, unit, now_ms, value);
    let Some(spent) = spent else {
        if matches!(end, End::Failed(_)) && request.expires_at <= now_ms {
            app.metric_sink.put(vec![one("ExpiredRequests", "Count", 1.0)]);
        }
        return;
    };
    let mut measured = vec![
        one("InvocationsProcessed", "Count", 1.0),
        one("InvocationFailures", "Count", if matches!(end, End::Failed(_)) { 1.0 } else { 0.0 }),
        one("TimeInBacklog", "Milliseconds", spent.waited_ms as f64),
        one("TotalProcessingTime", "Milliseconds", (now_ms - request.accepted_at) as f64),
    ];
    let latencies =
        [("RequestDownloadLatency", spent.download_ms), ("ResponseUploadLatency", spent.upload_ms)];
    for (name, latency_ms) in latencies {
        measured.extend(latency_ms.map(|latency_ms| one(name, "Microseconds", latency_ms * 1000.0)));
    }
    app.metric_sink.put(measured);
}

/// Samples the lines for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut pauses = tokio::time::interval(PAUSE);
        pauses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pauses.tick().await;
            let Some(app) = app.upgrade() else { return };
            for line in app.endpoints.queues.all() {
                if let Err(error) = sample(&app, &line).await {
                    tracing::warn!(endpoint = line.key.name, %error, "the line of an endpoint could not be measured");
                }
            }
        }
    });
}

async fn sample(app: &App, line: &Line) -> store::Result<()> {
    let key = line.key.clone();
    let backlog = app.database.read(move |session| session.async_backlog(&key)).await?;
    let instances: u32 = app.endpoints.variants(&line.key).iter().map(|one| one.healthy_replicas).sum();
    let now_ms = app.clock.now_ms();
    // As in the service, a request that is being answered counts as well.
    let size = (backlog.waiting + backlog.running) as f64;
    let age_seconds = backlog.oldest_at.map_or(0.0, |oldest_at| (now_ms - oldest_at).max(0) as f64 / 1000.0);
    let is_stuck = instances == 0 && backlog.waiting > 0;
    let one = |name: &str, unit: &str, value: f64| samples(&line.key, name, unit, now_ms, value);
    let mut measured = vec![
        one("ApproximateBacklogSize", "Count", size),
        one("ApproximateAgeOfOldestRequest", "Seconds", age_seconds),
        one("HasBacklogWithoutCapacity", "Count", if is_stuck { 1.0 } else { 0.0 }),
    ];
    if instances > 0 {
        measured.push(one("ApproximateBacklogSizePerInstance", "Count", size / f64::from(instances)));
    }
    app.metric_sink.put(measured);
    Ok(())
}
