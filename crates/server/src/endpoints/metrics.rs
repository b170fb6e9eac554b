//! Endpoint metrics under the names of the service, each second, for the variants where something happened.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serving::{VariantActivity, VariantMetrics};
use store::metrics::{NewSamples, Sample, SeriesKey};
use tokio::time::{Instant, MissedTickBehavior};

use super::components;
use super::part_metrics::{self, latencies};
use super::usage::Usage;
use crate::app::App;

/// Namespace of what is measured at invocations.
pub(super) const NAMESPACE: &str = "AWS/SageMaker";

/// Looks at the concurrent requests in a second, while there are any.
const LOOKS: u32 = 10;

/// What was published of a variant last.
struct Published {
    metrics: VariantMetrics,
    /// The second of its last activity.
    active_at: i64,
}

/// Watches the endpoints for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    tokio::spawn(watch(weak));
}

async fn watch(weak: Weak<App>) {
    let mut published: HashMap<(String, String), Published> = HashMap::new();
    let mut usage = Usage::default();
    let mut seconds = tokio::time::interval_at(Instant::now(), Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_busy = true;
    loop {
        // Short requests are seen by looking often; an idle server is left in peace.
        if is_busy {
            for _ in 1..LOOKS {
                tokio::time::sleep(Duration::from_secs(1) / LOOKS).await;
                let Some(app) = weak.upgrade() else { return };
                app.endpoints.demand.look(&app.endpoints.plane.activity());
            }
        }
        seconds.tick().await;
        let Some(app) = weak.upgrade() else { return };
        is_busy = publish(&app, &mut published).await;
        usage
            .forward(&app, &|endpoint, variant| {
                let name = (endpoint.to_owned(), variant.to_owned());
                published.get(&name).map(|published| published.active_at)
            })
            .await;
    }
}

/// Publishes what came in the last second; `true` while there are requests.
async fn publish(app: &App, published: &mut HashMap<(String, String), Published>) -> bool {
    let second = app.clock.now_ms().div_euclid(1000);
    let activity = app.endpoints.plane.activity();
    let is_busy = app.endpoints.demand.look(&activity);
    let means = app.endpoints.demand.end_second(second, &activity);
    let mut samples = Vec::new();
    for one in &activity {
        let name = (one.endpoint.to_string(), one.variant.to_string());
        let before = published.get(&name);
        let quiet = before.map_or(one.invocations == 0, |before| {
            before.metrics.invocations == one.invocations && before.metrics.ended == one.ended
        });
        let concurrency = means.get(&name).copied().unwrap_or_default();
        if quiet && concurrency == 0.0 {
            continue;
        }
        let Some(key) = app.endpoints.key_of(&name.0) else { continue };
        let Some(metrics) = app.endpoints.plane.variant_metrics(&name.0, &name.1) else { continue };
        let start = VariantMetrics::default();
        let before = before.map_or(&start, |before| &before.metrics);
        let dimensions = [("EndpointName", &*key.name), ("VariantName", &*one.variant)];
        let instances = one.healthy_replicas.max(1);
        let owner = (&*key.account, &*key.region);
        let of = |(value, count): (f64, u64)| Sample::repeated(second, value, count as f64);
        let mut all = values(before, &metrics, concurrency, instances);
        all.extend(of_serverless(one, before, &metrics, concurrency));
        all.extend(part_metrics::of_models(&before.models, &metrics.models));
        if let Some(place) = app.endpoints.components.place(&key) {
            samples.extend(components::metrics::samples(&key, &place, second, all));
            published.insert(name, Published { metrics, active_at: second });
            continue;
        }
        for (name, unit, values) in all {
            let dimensions = dimensions.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let series = SeriesKey::new(owner, NAMESPACE, name, dimensions, unit);
            samples.push(NewSamples { series, samples: values.into_iter().map(of).collect() });
        }
        for (container, values) in part_metrics::of_containers(&before.containers, &metrics.containers) {
            let named = dimensions.iter().copied().chain([("ContainerName", container)]);
            let dimensions = named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let series = SeriesKey::new(owner, NAMESPACE, "ContainerLatency", dimensions, "Microseconds");
            samples.push(NewSamples { series, samples: values.into_iter().map(of).collect() });
        }
        published.insert(name, Published { metrics, active_at: second });
    }
    if !samples.is_empty() {
        app.metric_sink.put(samples);
    }
    published
        .retain(|name, _| activity.iter().any(|one| *one.endpoint == *name.0 && *one.variant == *name.1));
    is_busy
}

pub(super) type Values = Vec<(f64, u64)>;

/// Each metric with its unit, its values and how often each of them came.
fn values(
    before: &VariantMetrics,
    now: &VariantMetrics,
    concurrency: f64,
    instances: u32,
) -> Vec<(&'static str, &'static str, Values)> {
    let came = |count: fn(&VariantMetrics) -> u64| count(now).saturating_sub(count(before));
    let (invocations, ended) = (came(|of| of.invocations), came(|of| of.ended));
    let share = 1.0 / f64::from(instances);
    let mut all = vec![
        ("Invocations", "None", vec![(1.0, invocations)]),
        ("InvocationsPerInstance", "None", vec![(share, invocations)]),
    ];
    // As in the service, 1 for each that failed and 0 for each that did not: the average is the rate.
    for (name, failed) in [
        ("Invocation4XXErrors", came(|of| of.errors_4xx)),
        ("Invocation5XXErrors", came(|of| of.errors_5xx)),
        ("InvocationModelErrors", came(|of| of.model_errors)),
    ] {
        all.push((name, "None", vec![(1.0, failed), (0.0, ended.saturating_sub(failed))]));
    }
    all.push(("ModelLatency", "Microseconds", latencies(&now.model_latencies, &before.model_latencies)));
    all.push((
        "OverheadLatency",
        "Microseconds",
        latencies(&now.overhead_latencies, &before.overhead_latencies),
    ));
    all.push(("ConcurrentRequestsPerModel", "None", vec![(concurrency * share, 1)]));
    for (_, _, values) in &mut all {
        values.retain(|(_, count)| *count > 0);
    }
    all.retain(|(_, _, values)| !values.is_empty());
    all
}

/// What only serverless variants have: how long cold starts took, and how much of the concurrency is in use.
fn of_serverless(
    one: &VariantActivity,
    before: &VariantMetrics,
    now: &VariantMetrics,
    concurrency: f64,
) -> Vec<(&'static str, &'static str, Values)> {
    if one.max_concurrency == 0 {
        return Vec::new();
    }
    let mut all = vec![(
        "ServerlessConcurrentExecutionsUtilization",
        "None",
        vec![(concurrency / f64::from(one.max_concurrency), 1)],
    )];
    let setups = latencies(&now.setup_latencies, &before.setup_latencies);
    if !setups.is_empty() {
        all.push(("ModelSetupTime", "Microseconds", setups));
    }
    if one.provisioned_concurrency > 0 {
        let provisioned = f64::from(one.provisioned_concurrency);
        let used = concurrency.min(provisioned);
        all.push(("ServerlessProvisionedConcurrencyExecutions", "Count", vec![(used, 1)]));
        all.push(("ServerlessProvisionedConcurrencyUtilization", "None", vec![(used / provisioned, 1)]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serving::{LatencyClass, LatencySnapshot};

    #[test]
    fn serverless_variants_say_how_much_is_in_use_and_what_a_cold_start_took() {
        let class = LatencyClass { class: 9, count: 1, microseconds: 40_000 };
        let now = VariantMetrics {
            setup_latencies: LatencySnapshot { classes: vec![class] },
            ..VariantMetrics::default()
        };
        let before = VariantMetrics::default();
        let one =
            VariantActivity { max_concurrency: 8, provisioned_concurrency: 4, ..VariantActivity::default() };
        let names = |concurrency| {
            let all = of_serverless(&one, &before, &now, concurrency);
            all.into_iter().map(|(name, _, values)| (name, values[0].0)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(6.0),
            [
                ("ServerlessConcurrentExecutionsUtilization", 0.75),
                ("ModelSetupTime", 40_000.0),
                ("ServerlessProvisionedConcurrencyExecutions", 4.0),
                ("ServerlessProvisionedConcurrencyUtilization", 1.0),
            ]
        );
        assert_eq!(names(1.0)[3].1, 0.25);
        assert_eq!(of_serverless(&VariantActivity::default(), &before, &now, 1.0), vec![]);
    }

    #[test]
    fn a_second_has_its_own_counts() {
        let class = |class, count, microseconds| LatencyClass { class, count, microseconds };
        let before = VariantMetrics {
            invocations: 10,
            ended: 9,
            errors_5xx: 1,
            model_latencies: LatencySnapshot { classes: vec![class(3, 9, 900)] },
            ..VariantMetrics::default()
        };
        let now = VariantMetrics {
            invocations: 14,
            ended: 13,
            errors_4xx: 1,
            errors_5xx: 1,
            model_errors: 1,
            model_latencies: LatencySnapshot { classes: vec![class(3, 10, 1_010), class(9, 3, 600)] },
            ..VariantMetrics::default()
        };
        let values = values(&before, &now, 3.0, 2);
        let of =
            |name: &str| values.iter().find(|(own, _, _)| *own == name).map(|(_, _, values)| values.clone());
        assert_eq!(of("Invocations"), Some(vec![(1.0, 4)]));
        assert_eq!(of("InvocationsPerInstance"), Some(vec![(0.5, 4)]));
        assert_eq!(of("Invocation4XXErrors"), Some(vec![(1.0, 1), (0.0, 3)]));
        assert_eq!(of("Invocation5XXErrors"), Some(vec![(0.0, 4)]));
        assert_eq!(of("InvocationModelErrors"), Some(vec![(1.0, 1), (0.0, 3)]));
        assert_eq!(of("ModelLatency"), Some(vec![(110.0, 1), (200.0, 3)]));
        assert_eq!(of("OverheadLatency"), None);
        assert_eq!(of("ConcurrentRequestsPerModel"), Some(vec![(1.5, 1)]));
    }
}
