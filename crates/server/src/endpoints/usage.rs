//! Use of the machine by replicas as metrics: each second of a variant that works, one mean a minute of one that rests.

use std::collections::HashMap;

use runner::Sample as UsageSample;
use runner::limits::EffectiveLimits;
use serving::ReplicaPlace;
use store::metrics::{NewSamples, Sample, SeriesKey};

use super::components;
use crate::app::App;
use crate::sagemaker::kinds::INFERENCE_COMPONENT;
use crate::training::run_facts;

/// Namespace of what is measured of the machine.
const NAMESPACE: &str = "/aws/sagemaker/Endpoints";

/// Time between two looks at the samples of a variant that works.
const PAUSE_SECONDS: i64 = 5;

/// The same of one that rests; also how long one that worked counts as working.
const REST_SECONDS: i64 = 60;

/// How far the samples of each replica have been put.
#[derive(Default)]
pub struct Usage {
    looked_at: i64,
    /// Milliseconds since 1970.
    places: HashMap<String, u64>,
}

impl Usage {
    /// Puts what is due. `active_at` says in which second a variant was active last. What cannot be read now is tried again.
    pub async fn forward(&mut self, app: &App, active_at: &(dyn Fn(&str, &str) -> Option<i64> + Sync)) {
        let now_ms = app.clock.now_ms();
        let second = now_ms.div_euclid(1000);
        if second.abs_diff(self.looked_at) < PAUSE_SECONDS.unsigned_abs() {
            return;
        }
        self.looked_at = second;
        let replicas = app.endpoints.plane.replica_places();
        self.places.retain(|id, _| replicas.iter().any(|replica| replica.id == *id));
        let mut all = Vec::new();
        for replica in &replicas {
            let last = active_at(&replica.endpoint, &replica.variant);
            let works = last.is_some_and(|last| second - last < REST_SECONDS);
            // One that is new here, or was taken up from an earlier server, begins with what comes.
            let after_ms = *self.places.entry(replica.id.clone()).or_insert(now_ms.unsigned_abs());
            let waited_ms = now_ms - after_ms.cast_signed();
            if !works && waited_ms < REST_SECONDS * 1000 {
                continue;
            }
            match read(app, replica, after_ms) {
                Ok(Some((samples, limits, last_ms))) => {
                    self.places.insert(replica.id.clone(), last_ms);
                    put(app, replica, &samples, &limits, works, &mut all);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(replica = replica.id, error, "the use of a replica could not be read");
                }
            }
        }
        if !all.is_empty() {
            app.metric_sink.put(all);
        }
    }
}

type Read = (Vec<UsageSample>, EffectiveLimits, u64);

fn read(app: &App, replica: &ReplicaPlace, mut after_ms: u64) -> Result<Option<Read>, String> {
    let held = app.executor.containment(&replica.id).map_err(|error| error.to_string())?;
    let Some(limits) = held.and_then(|held| held.limits) else { return Ok(None) };
    let mut samples = Vec::new();
    loop {
        let page = app.executor.samples(&replica.id, after_ms).map_err(|error| error.to_string())?;
        if page.samples.is_empty() {
            return Ok((!samples.is_empty()).then_some((samples, limits, after_ms)));
        }
        after_ms = page.last_at_ms;
        samples.extend(page.samples);
    }
}

fn put(
    app: &App,
    replica: &ReplicaPlace,
    samples: &[UsageSample],
    limits: &EffectiveLimits,
    each: bool,
    all: &mut Vec<NewSamples>,
) {
    let Some(key) = app.endpoints.key_of(&replica.endpoint) else { return };
    for (name, values) in by_name(samples, limits) {
        let dimensions = vec![
            ("EndpointName".to_owned(), key.name.clone()),
            ("VariantName".to_owned(), replica.variant.clone()),
        ];
        let series = match key.kind == INFERENCE_COMPONENT {
            true => components::metrics::use_series(&key, name),
            false => SeriesKey::new((&*key.account, &*key.region), NAMESPACE, name, dimensions, "Percent"),
        };
        let samples = if each { values } else { mean(&values).into_iter().collect() };
        all.push(NewSamples { series, samples });
    }
}

fn by_name(samples: &[UsageSample], limits: &EffectiveLimits) -> Vec<(&'static str, Vec<Sample>)> {
    let mut by_name: Vec<(&'static str, Vec<Sample>)> = Vec::new();
    for sample in samples {
        for (name, value) in run_facts::metrics(sample, limits) {
            let value = Sample::value((sample.at_ms / 1000).cast_signed(), value);
            match by_name.iter_mut().find(|(own, _)| *own == name) {
                Some((_, values)) => values.push(value),
                None => by_name.push((name, vec![value])),
            }
        }
    }
    by_name
}

/// The mean of some values, at the time of the last.
fn mean(values: &[Sample]) -> Option<Sample> {
    let last = values.last()?;
    let sum: f64 = values.iter().map(|value| value.sum).sum();
    Some(Sample::value(last.at_seconds, sum / values.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_series_and_a_mean() {
        let limits =
            EffectiveLimits { memory_bytes: 100, cpus: None, processes: 1, open_files: 1, disk_bytes: 10 };
        let sample = |at_ms, cpu_percent, memory_bytes| UsageSample {
            at_ms,
            cpu_percent,
            memory_bytes,
            ..UsageSample::default()
        };
        let by_name = by_name(&[sample(1_500, 10.0, 50), sample(2_500, 30.0, 100)], &limits);
        assert_eq!(by_name[0], ("CPUUtilization", vec![Sample::value(1, 10.0), Sample::value(2, 30.0)]));
        assert_eq!(mean(&by_name[1].1), Some(Sample::value(2, 75.0)));
        assert_eq!(mean(&[]), None);
    }
}
