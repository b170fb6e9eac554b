//! Metrics of inference components under the names of the service.

use store::metrics::{NewSamples, Sample, SeriesKey};
use store::resources::ResourceKey;

use super::table::Place;
use crate::app::App;
use crate::endpoints::metrics::{NAMESPACE, Values};

/// Namespace of what is measured of the machine.
const USE_NAMESPACE: &str = "/aws/sagemaker/InferenceComponents";

/// Metrics that count for each instance of a variant, and their names for each copy of a component.
const OF_COPIES: [(&str, &str); 2] = [
    ("InvocationsPerInstance", "InvocationsPerCopy"),
    ("ConcurrentRequestsPerModel", "ConcurrentRequestsPerCopy"),
];

fn series(key: &ResourceKey, namespace: &str, name: &str, unit: &str) -> SeriesKey {
    let dimensions = vec![("InferenceComponentName".to_owned(), key.name.clone())];
    SeriesKey::new((&*key.account, &*key.region), namespace, name, dimensions, unit)
}

/// What was measured of a component in a second: on its own, and as part of its variant, where that makes sense.
pub fn samples(
    key: &ResourceKey,
    place: &Place,
    second: i64,
    measured: Vec<(&'static str, &'static str, Values)>,
) -> Vec<NewSamples> {
    let mut all = Vec::new();
    for (name, unit, values) in measured {
        let samples: Vec<Sample> =
            values.into_iter().map(|(value, count)| Sample::repeated(second, value, count as f64)).collect();
        let of_copies = OF_COPIES.iter().find(|(of_instances, _)| *of_instances == name);
        if of_copies.is_none() {
            let dimensions = vec![
                ("EndpointName".to_owned(), place.endpoint.name.clone()),
                ("VariantName".to_owned(), place.variant.clone()),
            ];
            let owner = (&*key.account, &*key.region);
            let series = SeriesKey::new(owner, NAMESPACE, name, dimensions, unit);
            all.push(NewSamples { series, samples: samples.clone() });
        }
        let name = of_copies.map_or(name, |(_, of_copies)| of_copies);
        all.push(NewSamples { series: series(key, NAMESPACE, name, unit), samples });
    }
    all
}

/// The series of a copy's use of the machine.
pub fn use_series(key: &ResourceKey, name: &str) -> SeriesKey {
    series(key, USE_NAMESPACE, name, "Percent")
}

/// Counts a request that met no copy.
pub fn no_capacity(app: &App, key: &ResourceKey) {
    let second = app.clock.now_ms().div_euclid(1000);
    let series = series(key, NAMESPACE, "NoCapacityInvocationFailures", "Count");
    app.metric_sink.put(vec![NewSamples { series, samples: vec![Sample::value(second, 1.0)] }]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_counts_on_its_own_and_for_its_variant() {
        let key = ResourceKey::new("1", "r", "inference-component", "c");
        let place = Place {
            endpoint: ResourceKey::new("1", "r", "endpoint", "e"),
            variant: "v".into(),
            wanted: 1,
            placed: 1,
            has_failed: false,
        };
        let measured =
            vec![("Invocations", "None", vec![(1.0, 4)]), ("InvocationsPerInstance", "None", vec![(0.5, 4)])];
        let found: Vec<(String, usize, f64)> = samples(&key, &place, 7, measured)
            .into_iter()
            .map(|one| (one.series.name, one.series.dimensions.len(), one.samples[0].sum))
            .collect();
        let expected = [("Invocations", 2, 4.0), ("Invocations", 1, 4.0), ("InvocationsPerCopy", 1, 2.0)];
        assert_eq!(found, expected.map(|(name, dimensions, sum)| (name.to_owned(), dimensions, sum)));
    }
}
