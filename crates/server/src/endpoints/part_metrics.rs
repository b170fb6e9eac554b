//! Metrics of what a variant is made of, under the names of the service: its many models, its containers.

use serving::{ContainerMetrics, LatencySnapshot, ModelMetrics};

use super::metrics::Values;

/// Those that came since `before`, each with how often.
pub fn latencies(now: &LatencySnapshot, before: &LatencySnapshot) -> Values {
    let news = now.since(before);
    news.classes.iter().map(|class| (class.mean_microseconds(), class.count)).collect()
}

/// Each metric of many models with its unit, its values and how often each of them came; nothing for a variant of one model.
pub fn of_models(before: &ModelMetrics, now: &ModelMetrics) -> Vec<(&'static str, &'static str, Values)> {
    if !now.has_many {
        return Vec::new();
    }
    let (hits, misses) = (now.hits.saturating_sub(before.hits), now.misses.saturating_sub(before.misses));
    let mut all = vec![
        // 1 for a model that was there and 0 for one that was not: the average is the rate.
        ("ModelCacheHit", "None", vec![(1.0, hits), (0.0, misses)]),
        ("ModelLoadingWaitTime", "Microseconds", latencies(&now.loading_waits, &before.loading_waits)),
        ("ModelDownloadingTime", "Microseconds", latencies(&now.downloads, &before.downloads)),
        ("ModelLoadingTime", "Microseconds", latencies(&now.loads, &before.loads)),
        ("ModelUnloadingTime", "Microseconds", latencies(&now.unloads, &before.unloads)),
        ("LoadedModelCount", "None", vec![(now.loaded as f64, 1)]),
    ];
    for (_, _, values) in &mut all {
        values.retain(|(_, count)| *count > 0);
    }
    all.retain(|(_, _, values)| !values.is_empty());
    all
}

/// The latencies of each container that answered.
pub fn of_containers<'a>(before: &[ContainerMetrics], now: &'a [ContainerMetrics]) -> Vec<(&'a str, Values)> {
    let none = LatencySnapshot::default();
    let mut all = Vec::new();
    for one in now {
        let earlier = before.iter().find(|earlier| earlier.container == one.container);
        let values = latencies(&one.latencies, earlier.map_or(&none, |earlier| &earlier.latencies));
        if !values.is_empty() {
            all.push((one.container.as_str(), values));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serving::LatencyClass;

    #[test]
    fn a_second_has_its_own_loads_and_hits() {
        let class = |count, microseconds| LatencySnapshot {
            classes: vec![LatencyClass { class: 1, count, microseconds }],
        };
        assert_eq!(of_models(&ModelMetrics::default(), &ModelMetrics::default()), vec![]);
        let before = ModelMetrics { has_many: true, hits: 2, loads: class(1, 10), ..ModelMetrics::default() };
        let now = ModelMetrics {
            has_many: true,
            hits: 5,
            misses: 1,
            loads: class(3, 40),
            loaded: 7,
            ..ModelMetrics::default()
        };
        assert_eq!(
            of_models(&before, &now),
            vec![
                ("ModelCacheHit", "None", vec![(1.0, 3), (0.0, 1)]),
                ("ModelLoadingTime", "Microseconds", vec![(15.0, 2)]),
                ("LoadedModelCount", "None", vec![(7.0, 1)]),
            ]
        );
        let of = |latencies| [ContainerMetrics { container: "c".into(), latencies }];
        assert_eq!(of_containers(&of(class(1, 10)), &of(class(2, 30))), vec![("c", vec![(20.0, 1)])]);
        assert_eq!(of_containers(&of(class(1, 10)), &of(class(1, 10))), vec![]);
    }
}
