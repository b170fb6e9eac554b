//! Use of the machine by a job's replicas as CloudWatch metrics, put while the job runs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use store::metrics::{NewSamples, Sample, SeriesKey};

use super::attempt::Attempt;
use crate::training::kind;
use crate::training::run_facts;

/// Time between two looks at the samples.
const PAUSE: Duration = Duration::from_secs(5);

/// How far the samples of each replica have been put.
#[derive(Default)]
pub struct Places(HashMap<String, u64>);

/// Puts samples for as long as it is polled.
pub async fn forward(attempt: &Attempt<'_>, replicas: &[String], places: &mut Places) -> Infallible {
    loop {
        tokio::time::sleep(PAUSE).await;
        put(attempt, replicas, places).await;
    }
}

/// Puts what has not been put yet. What cannot be put now is tried again with the next look.
pub async fn put(attempt: &Attempt<'_>, replicas: &[String], places: &mut Places) {
    for replica in replicas {
        if let Err(error) = put_replica(attempt, replica, places).await {
            tracing::warn!(replica, error, "the use of a replica could not be put");
        }
    }
}

async fn put_replica(attempt: &Attempt<'_>, replica: &str, places: &mut Places) -> Result<(), String> {
    let (app, key) = (attempt.app, &attempt.work.key);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let held = app.executor.containment(replica).map_err(|error| text(&error))?;
    let Some(limits) = held.and_then(|held| held.limits) else { return Ok(()) };
    // A server that takes a replica up goes on with what comes: a few seconds are missing, and none is counted twice.
    let now_ms = u64::try_from(app.clock.now_ms()).unwrap_or_default();
    let is_adopted = attempt.is_taken_up && !places.0.contains_key(replica);
    let mut after_ms = places.0.get(replica).copied().unwrap_or(if is_adopted { now_ms } else { 0 });
    loop {
        let page = app.executor.samples(replica, after_ms).map_err(|error| text(&error))?;
        if page.samples.is_empty() {
            places.0.insert(replica.to_owned(), after_ms);
            return Ok(());
        }
        let mut series: Vec<NewSamples> = Vec::new();
        for sample in &page.samples {
            for (name, value) in run_facts::metrics(sample, &limits) {
                let value = Sample::value((sample.at_ms / 1000).cast_signed(), value);
                match series.iter_mut().find(|series| series.series.name == name) {
                    Some(series) => series.samples.push(value),
                    None => {
                        let dimensions = vec![("Host".to_owned(), format!("{}/{replica}", key.name))];
                        let owner = (&*key.account, &*key.region);
                        let group = kind::log_group(&key.kind);
                        let series_key = SeriesKey::new(owner, group, name, dimensions, "Percent");
                        series.push(NewSamples { series: series_key, samples: vec![value] });
                    }
                }
            }
        }
        app.metrics.put(series).await.map_err(|error| text(&error))?;
        after_ms = page.last_at_ms;
    }
}
