//! `/_modelyard/metrics`: the server's own state in the text format of Prometheus.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use subtle::ConstantTimeEq;
use wire::{Body, Peer};

use crate::app::App;
use crate::requests::{BOUNDS_SECONDS, Counts};

/// How long the sizes that cost a look at many files or rows are kept.
const SIZES_AGE: Duration = Duration::from_secs(60);

/// Sizes that are not looked up for each scrape.
#[derive(Debug, Default)]
pub struct Sizes {
    known: Mutex<Option<(Instant, Known)>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    objects: i64,
    object_bytes: i64,
    log_bytes: u64,
}

/// Answers a scrape. Without a token in the settings only this machine may ask; with one, whoever has it.
pub async fn answer(app: &App, request: &Request<Body>) -> Response<Body> {
    if let Err(text) = check(app, request) {
        let mut response = Response::new(wire::full(format!("{text}\n")));
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    match page(app).await {
        Ok(text) => {
            let mut response = Response::new(wire::full(text));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a scrape failed");
            let mut response = Response::new(wire::full("the database does not answer\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

fn check(app: &App, request: &Request<Body>) -> Result<(), &'static str> {
    let Some(token) = &app.config.metrics_token else {
        let local =
            request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
        return if local {
            Ok(())
        } else {
            Err("metrics are shown to this machine only; set metrics_token to show them to others")
        };
    };
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if bool::from(given.ct_eq(token.as_bytes())) {
        Ok(())
    } else {
        Err("send the metrics_token of the settings as: Authorization: Bearer TOKEN")
    }
}

async fn page(app: &App) -> store::Result<String> {
    let mut page = Page::default();
    requests(&mut page, &app.requests.snapshot());
    page.family(
        "modelyard_resources",
        "gauge",
        "Resources by kind and status, such as training jobs and endpoints.",
    );
    for (kind, status, count) in app.database.read(|session| session.count_resources()).await? {
        page.sample("modelyard_resources", &[("kind", &kind), ("status", &status)], count as f64);
    }
    crate::endpoints::prometheus::write(&mut page, app);
    sizes(&mut page, app).await?;
    captures(&mut page, &app.endpoints.capture().map(|capture| capture.counts()).unwrap_or_default());
    page.family("modelyard_build_info", "gauge", "Always 1; the version is in the label.");
    page.sample("modelyard_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    Ok(page.text)
}

fn requests(page: &mut Page, counts: &Counts) {
    let name = "modelyard_requests_total";
    page.family(name, "counter", "Requests by service, operation and code of the answer.");
    for (((service, operation), code), count) in &counts.requests {
        page.sample(name, &[("service", service), ("operation", operation), ("code", code)], *count as f64);
    }
    let name = "modelyard_request_duration_seconds";
    page.family(name, "histogram", "Time from the head of a request to the head of its answer.");
    for ((service, operation), latency) in &counts.latencies {
        let labels = [("service", *service), ("operation", *operation)];
        let mut up_to = 0;
        let bounds = BOUNDS_SECONDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(latency.classes) {
            up_to += count;
            let labels = [labels[0], labels[1], ("le", bound.as_str())];
            page.sample(&format!("{name}_bucket"), &labels, up_to as f64);
        }
        page.sample(&format!("{name}_sum"), &labels, latency.sum_seconds);
        page.sample(&format!("{name}_count"), &labels, up_to as f64);
    }
}

fn captures(page: &mut Page, counts: &[serving::CaptureCounts]) {
    let name = "modelyard_capture_invocations_total";
    page.family(
        name,
        "counter",
        "Invocations of endpoints with data capture: captured, stored in S3, dropped for want of room, lost by a crash.",
    );
    for one in counts {
        for (outcome, count) in
            [("captured", one.captured), ("stored", one.stored), ("dropped", one.dropped), ("lost", one.lost)]
        {
            page.sample(name, &[("endpoint", &one.endpoint), ("outcome", outcome)], count as f64);
        }
    }
    let name = "modelyard_capture_waiting_bytes";
    page.family(name, "gauge", "Bytes of captured data that wait to be stored in S3.");
    for one in counts {
        page.sample(name, &[("endpoint", &one.endpoint)], one.waiting_bytes as f64);
    }
}

async fn sizes(page: &mut Page, app: &App) -> store::Result<()> {
    let metrics = app.metrics.size().await?;
    let known = known_sizes(app).await?;
    let database =
        ["modelyard.db", "modelyard.db-wal"].map(|name| file_bytes(&app.config.data_dir.join(name)));
    page.family(
        "modelyard_store_bytes",
        "gauge",
        "Bytes on the disk by store; objects and logs are looked up once a minute.",
    );
    for (store, bytes) in [
        ("database", database.iter().sum::<u64>() as f64),
        ("logs", known.log_bytes as f64),
        ("metrics", metrics.bytes as f64),
        ("objects", known.object_bytes as f64),
    ] {
        page.sample("modelyard_store_bytes", &[("store", store)], bytes);
    }
    for (name, help, value) in [
        ("modelyard_objects", "Objects in all buckets.", known.objects as f64),
        ("modelyard_metric_series", "Series of metrics.", metrics.series as f64),
        ("modelyard_metric_samples", "Samples of metrics.", metrics.samples as f64),
        ("modelyard_metric_segments", "Segment files of metrics.", metrics.segments as f64),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
    Ok(())
}

async fn known_sizes(app: &App) -> store::Result<Known> {
    let lock = || app.sizes.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((at, known)) = *lock()
        && at.elapsed() < SIZES_AGE
    {
        return Ok(known);
    }
    let (objects, object_bytes) = app.database.read(|session| session.count_objects()).await?;
    let logs = app.config.data_dir.join("logs");
    // A walk that breaks off says nothing worse than a size that is too small.
    let log_bytes = tokio::task::spawn_blocking(move || folder_bytes(logs)).await.unwrap_or_default();
    let known = Known { objects, object_bytes, log_bytes };
    *lock() = Some((Instant::now(), known));
    Ok(known)
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Bytes of all files below a folder; what goes away meanwhile counts nothing.
fn folder_bytes(root: PathBuf) -> u64 {
    let (mut bytes, mut folders) = (0, vec![root]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => bytes += entry.metadata().map_or(0, |metadata| metadata.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// A page under construction.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample with its labels.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Requests;

    #[test]
    fn labels_are_escaped_and_classes_add_up() {
        let mut page = Page::default();
        page.sample("a", &[("b", "x\"y\\z\n"), ("c", "")], 1.5);
        assert_eq!(page.text, "a{b=\"x\\\"y\\\\z\\n\",c=\"\"} 1.5\n");
        let counted = Requests::default();
        for milliseconds in [0, 1, 3, 300, 60_000] {
            let elapsed = Duration::from_millis(milliseconds);
            counted.count(wire::Observed { service: "s", operation: "o", code: "OK", elapsed });
        }
        let mut page = Page::default();
        requests(&mut page, &counted.snapshot());
        for line in [
            "modelyard_requests_total{service=\"s\",operation=\"o\",code=\"OK\"} 5\n",
            "_bucket{service=\"s\",operation=\"o\",le=\"0.001\"} 2\n",
            "_bucket{service=\"s\",operation=\"o\",le=\"0.005\"} 3\n",
            "_bucket{service=\"s\",operation=\"o\",le=\"10\"} 4\n",
            "_bucket{service=\"s\",operation=\"o\",le=\"+Inf\"} 5\n",
            "_count{service=\"s\",operation=\"o\"} 5\n",
        ] {
            assert!(page.text.contains(line), "{line}{}", page.text);
        }
    }
}
