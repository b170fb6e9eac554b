//! Fills a metric store and reports whether puts and queries stay as fast as they were at the start.
//!
//! `cargo run --release -p store --example metric_points -- FOLDER MILLIONS SERIES`

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on should say where")]

use std::io::Write;
use std::time::{Duration, Instant};

use store::metrics::{Metric, MetricStore, NewSamples, Sample, SeriesKey, Window};
use store::{Clock, Database};

/// Samples of one put, as many as PutMetricData takes metrics.
const PUT_SAMPLES: usize = 1_000;

/// Time that passes between two samples of a series.
const STEP_SECONDS: i64 = 60;

const OWNER: (&str, &str) = ("111111111111", "us-east-1");

fn percentile(durations: &mut [Duration], part: f64) -> f64 {
    durations.sort();
    let at = ((durations.len() - 1) as f64 * part) as usize;
    durations[at].as_secs_f64() * 1000.0
}

fn name(series: usize) -> String {
    format!("metric-{series}")
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let folder = std::path::PathBuf::from(&words[0]);
    let samples = words[1].parse::<usize>().unwrap() * 1_000_000;
    let series = words[2].parse::<usize>().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let clock = Clock::system();
    let now_seconds = clock.now_ms() / 1000;
    let database = Database::open(&folder.join("bench.db")).unwrap();
    let store = MetricStore::open(database, folder.join("metrics"), clock).unwrap();
    let start_seconds = now_seconds - (samples / series) as i64 * STEP_SECONDS;
    let mut out = std::io::stdout();
    writeln!(out, "{samples} samples in {series} series; milliseconds of puts of {PUT_SAMPLES}").unwrap();
    let puts = samples / PUT_SAMPLES;
    let (mut written, mut took) = (0usize, Vec::new());
    let mut part_began = Instant::now();
    for put in 0..puts {
        let batch: Vec<NewSamples> = (0..PUT_SAMPLES)
            .map(|offset| {
                let index = written + offset;
                let (step, of) = (index / series, index % series);
                let at_seconds = start_seconds + step as i64 * STEP_SECONDS;
                let value = ((index * 2_654_435_761) % 10_000) as f64 / 100.0;
                NewSamples {
                    series: SeriesKey::new(
                        OWNER,
                        "Bench",
                        name(of),
                        vec![("host".into(), "a".into())],
                        "None",
                    ),
                    samples: vec![Sample::value(at_seconds, value)],
                }
            })
            .collect();
        let began = Instant::now();
        store.put(batch).await.unwrap();
        took.push(began.elapsed());
        written += PUT_SAMPLES;
        if (put + 1) % (puts / 10).max(1) == 0 {
            let rate = took.len() as f64 * PUT_SAMPLES as f64 / part_began.elapsed().as_secs_f64();
            let end_seconds = start_seconds + (written / series) as i64 * STEP_SECONDS;
            let mut queries = Vec::new();
            for query in 0..50 {
                let metric = Metric {
                    namespace: "Bench".into(),
                    name: name(query * 7 % series),
                    dimensions: vec![("host".into(), "a".into())],
                };
                let window = Window {
                    start_seconds: end_seconds - 86_400,
                    end_seconds: end_seconds + 1,
                    period_seconds: 300,
                };
                let began = Instant::now();
                let found = store.aggregate(OWNER, metric, None, window, false).await.unwrap();
                queries.push(began.elapsed());
                assert!(!found[0].1.is_empty());
            }
            let size = store.size().await.unwrap();
            writeln!(
                out,
                "{:4} M: put p50 {:.2} p99 {:.2} max {:.1}, {:.0} samples/s; query of a day p50 {:.2} p99 {:.2}; {} segments, {} MB",
                written / 1_000_000,
                percentile(&mut took, 0.5),
                percentile(&mut took, 0.99),
                percentile(&mut took, 1.0),
                rate,
                percentile(&mut queries, 0.5),
                percentile(&mut queries, 0.99),
                size.segments,
                size.bytes / 1_000_000,
            )
            .unwrap();
            took.clear();
            part_began = Instant::now();
        }
    }
    let began = Instant::now();
    store.close();
    writeln!(out, "closed in {:.1} s", began.elapsed().as_secs_f64()).unwrap();
}
