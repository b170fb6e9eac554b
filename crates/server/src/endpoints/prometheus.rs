//! What the endpoints do, in the text format of Prometheus.

use serving::VariantMetrics;

use crate::app::App;
use crate::exposition::Page;

type Count = fn(&VariantMetrics) -> f64;

/// Each counter: its name, what it counts, and where it is found.
const COUNTERS: &[(&str, &str, Count)] = &[
    ("modelyard_endpoint_invocations_total", "Invocations that reached a variant.", |of| {
        of.invocations as f64
    }),
    (
        "modelyard_endpoint_client_errors_total",
        "Invocations that the model answered with 400 to 499.",
        |of| of.errors_4xx as f64,
    ),
    (
        "modelyard_endpoint_server_errors_total",
        "Invocations without an answer, or answered with 500 or more.",
        |of| of.errors_5xx as f64,
    ),
    (
        "modelyard_endpoint_model_latency_seconds_total",
        "Time that models took for their answers, summed up.",
        |of| of.model_latency_microseconds as f64 / 1e6,
    ),
    (
        "modelyard_endpoint_queue_seconds_total",
        "Time that invocations waited for a free worker, summed up.",
        |of| of.queue_microseconds as f64 / 1e6,
    ),
];

/// Writes the families of all endpoints.
pub fn write(page: &mut Page, app: &App) {
    let activity = app.endpoints.plane.activity();
    let known: Vec<_> = activity
        .iter()
        .filter_map(|one| {
            let key = app.endpoints.key_of(&one.endpoint)?;
            let metrics = app.endpoints.plane.variant_metrics(&one.endpoint, &one.variant)?;
            Some((key, one, metrics))
        })
        .collect();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(usize) -> f64| {
        page.family(name, kind, help);
        for (number, (key, one, _)) in known.iter().enumerate() {
            let place = app.endpoints.components.place(key);
            let labels = [
                ("account", &*key.account),
                ("region", &*key.region),
                // The variant of an inference component has its name.
                ("endpoint", place.as_ref().map_or(&*key.name, |place| &*place.endpoint.name)),
                ("variant", &*one.variant),
            ];
            page.sample(name, &labels, value(number));
        }
    };
    for (name, help, count) in COUNTERS {
        family(name, "counter", help, &|number| count(&known[number].2));
    }
    family("modelyard_endpoint_requests_in_flight", "gauge", "Invocations under way.", &|number| {
        known[number].1.in_flight as f64
    });
    let name = "modelyard_endpoint_backlog_requests_total";
    family(
        name,
        "counter",
        "Requests that waited at a quick worker, which had several at once.",
        &|number| known[number].2.batches.in_backlogs as f64,
    );
    family("modelyard_endpoint_replicas_wanted", "gauge", "Replicas that are wanted.", &|number| {
        f64::from(known[number].1.wanted_replicas)
    });
    family("modelyard_endpoint_replicas_healthy", "gauge", "Replicas that answer.", &|number| {
        f64::from(known[number].1.healthy_replicas)
    });
    let name = "modelyard_endpoint_batch_size";
    page.family(name, "histogram", "Requests that a worker answered together, by batch.");
    for (key, one, metrics) in known.iter().filter(|(_, _, metrics)| metrics.batches.limit > 0) {
        let labels = [
            ("account", &*key.account),
            ("region", &*key.region),
            ("endpoint", &*key.name),
            ("variant", &*one.variant),
        ];
        let mut up_to = 0;
        let counted = &metrics.batches;
        let bounds = counted.sizes.iter().map(|(bound, count)| (bound.to_string(), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), 0)]) {
            up_to += count;
            let labels = [labels[0], labels[1], labels[2], labels[3], ("le", bound.as_str())];
            page.sample(&format!("{name}_bucket"), &labels, up_to as f64);
        }
        page.sample(&format!("{name}_sum"), &labels, counted.requests as f64);
        page.sample(&format!("{name}_count"), &labels, up_to as f64);
    }
    let name = "modelyard_shadow_requests_total";
    page.family(name, "counter", "Requests that were to be copied to a shadow variant, by what came of it.");
    for (key, counts) in app.endpoints.shadows.counts() {
        for (outcome, count) in counts {
            let labels = [
                ("account", &*key.account),
                ("region", &*key.region),
                ("endpoint", &*key.name),
                ("outcome", outcome),
            ];
            page.sample(name, &labels, count as f64);
        }
    }
}
