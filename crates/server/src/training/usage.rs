//! Use of the machine as CloudWatch metrics: what the supervisors of a job's hosts sample each second is put while the job runs.
//!
//! Samples are put before the place is noted, so that a crash between the two puts the last few again and loses none.

use std::time::Duration;

use runner::Sample;
use store::metrics::{NewSamples, Sample as MetricSample, SeriesKey};

use super::attempt::Attempt;
use super::kind;
use super::record::HostRecord;
use super::run_facts;

/// Dimension that names the host, as `JOB/algo-1`.
const DIMENSION: &str = "Host";

/// Time between two looks at the samples.
const PAUSE: Duration = Duration::from_secs(5);

/// Before the name of a host where its place is noted, apart from the places in logs.
pub const PLACE: &str = "usage/";

/// Puts samples for as long as it is polled.
pub async fn forward(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(PAUSE).await;
        put(attempt, hosts, false).await;
    }
}

/// Puts what has not been put yet, once no more samples come.
pub async fn put_rest(attempt: &Attempt<'_>, hosts: &[HostRecord]) {
    put(attempt, hosts, true).await;
}

/// What cannot be put now is tried again with the next look: a job goes on without.
async fn put(attempt: &Attempt<'_>, hosts: &[HostRecord], is_last: bool) {
    for host in hosts {
        if let Err(text) = put_host(attempt, host, is_last).await {
            tracing::warn!(host = host.workload, error = text, "the use of a host could not be put");
        }
    }
}

async fn put_host(attempt: &Attempt<'_>, host: &HostRecord, is_last: bool) -> Result<(), String> {
    let (app, key) = (attempt.app, &attempt.work.key);
    let Some(limits) = app.executor.containment(&host.workload).map_err(text)?.and_then(|held| held.limits)
    else {
        return Ok(());
    };
    let job = kind::followed(key);
    // A workload that starts anew under the same host begins where it begins.
    let place = format!("{PLACE}{}", host.workload);
    let places = app.database.look(|session| session.metric_cursors(&job)).map_err(text)?;
    let mut after_ms = places.get(&place).and_then(|place| place.parse().ok()).unwrap_or(0);
    loop {
        let page = app.executor.samples(&host.workload, after_ms).map_err(text)?;
        if page.samples.is_empty() {
            return Ok(());
        }
        let mut series: Vec<NewSamples> = Vec::new();
        let host_name = format!("{}/{}", key.name, host.name);
        for sample in &page.samples {
            for (name, unit, value) in values(sample, &limits) {
                let value = MetricSample::value((sample.at_ms / 1000).cast_signed(), value);
                match series.iter_mut().find(|series| series.series.name == name) {
                    Some(series) => series.samples.push(value),
                    None => {
                        let owner = (&*key.account, &*key.region);
                        let dimensions = vec![(DIMENSION.to_owned(), host_name.clone())];
                        let series_key =
                            SeriesKey::new(owner, kind::log_group(&key.kind), name, dimensions, unit);
                        series.push(NewSamples { series: series_key, samples: vec![value] });
                    }
                }
            }
        }
        app.metrics.put(series).await.map_err(text)?;
        after_ms = page.last_at_ms;
        if is_last {
            continue;
        }
        let (job, place) = (job.clone(), place.clone());
        let noted =
            app.database.write(move |session| session.set_metric_cursor(&job, &place, &after_ms.to_string()));
        noted.await.map_err(text)?;
    }
}

fn values(
    sample: &Sample,
    limits: &runner::limits::EffectiveLimits,
) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
    let percents =
        run_facts::metrics(sample, limits).into_iter().map(|(name, value)| (name, "Percent", value));
    let bytes = [("DiskReadBytes", sample.read_bytes), ("DiskWriteBytes", sample.written_bytes)];
    // Both count from the start of the job, so that their rate is the throughput.
    percents.chain(bytes.map(|(name, value)| (name, "Bytes", value as f64)))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
