//! The metric store: what comes back is what was put, whatever was flushed, merged, killed or expired in between.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use store::metrics::{
    Aggregate, HeadLimits, Metric, MetricList, MetricSink, MetricStore, NewSamples, Sample, SeriesKey, Window,
};
use store::{Clock, Database};

const NOW_SECONDS: i64 = 1_700_000_000;
const OWNER: (&str, &str) = ("111111111111", "us-east-1");

fn open(folder: &Path, head_samples: usize) -> MetricStore {
    let database = Database::open(&folder.join("test.db")).unwrap();
    let clock = Clock::fixed(NOW_SECONDS * 1000);
    let limits = HeadLimits { samples: head_samples, ..HeadLimits::default() };
    MetricStore::open_with(database, folder.join("metrics"), clock, limits).unwrap()
}

fn series(name: &str, unit: &str) -> SeriesKey {
    SeriesKey::new(OWNER, "Tests", name, vec![("host".into(), "a".into())], unit)
}

fn metric(name: &str) -> Metric {
    Metric { namespace: "Tests".into(), name: name.into(), dimensions: vec![("host".into(), "a".into())] }
}

fn batch(name: &str, samples: Vec<Sample>) -> Vec<NewSamples> {
    vec![NewSamples { series: series(name, "None"), samples }]
}

fn window(start_seconds: i64, end_seconds: i64, period_seconds: i64) -> Window {
    Window { start_seconds, end_seconds, period_seconds }
}

/// What is found of a metric that has one unit.
async fn found(store: &MetricStore, name: &str, window: Window) -> BTreeMap<i64, Aggregate> {
    let mut units = store.aggregate(OWNER, metric(name), None, window, true).await.unwrap();
    assert!(units.len() <= 1);
    units.pop().map(|(_, periods)| periods).unwrap_or_default()
}

/// A small generator: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn samples_are_summed_up_by_period_and_unit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1000);
    let summary = Sample { at_seconds: 70, count: 3.0, sum: 30.0, minimum: 2.0, maximum: 20.0 };
    let samples =
        vec![Sample::value(0, 1.0), Sample::repeated(59, 3.0, 2.0), summary, Sample::value(120, 9.0)];
    store.put(batch("a", samples)).await.unwrap();
    store
        .put(vec![NewSamples { series: series("a", "Bytes"), samples: vec![Sample::value(0, 5.0)] }])
        .await
        .unwrap();
    let units = store.aggregate(OWNER, metric("a"), None, window(0, 120, 60), false).await.unwrap();
    let numbers = |(at, one): (&i64, &Aggregate)| (*at, one.count, one.sum, one.minimum, one.maximum);
    let shown: Vec<(&str, Vec<_>)> =
        units.iter().map(|(unit, periods)| (&**unit, periods.iter().map(numbers).collect())).collect();
    assert_eq!(
        shown,
        [
            ("Bytes", vec![(0, 1.0, 5.0, 5.0, 5.0)]),
            ("None", vec![(0, 3.0, 7.0, 1.0, 3.0), (60, 3.0, 30.0, 2.0, 20.0)])
        ]
    );
    let together = store.aggregate_units(OWNER, metric("a"), None, window(0, 120, 60), false).await.unwrap();
    assert_eq!(together.iter().map(numbers).next(), Some((0, 4.0, 12.0, 1.0, 5.0)));
    let exact = found_unit(&store, "a", "None").await;
    assert_eq!(exact[&0].distribution.sorted(), Some(vec![(1.0, 1.0), (3.0, 2.0)]));
    assert_eq!(exact[&60].distribution.sorted(), None, "nobody knows the values of a summary");
    // Another account, region or set of dimensions is another metric.
    for owner in [("222222222222", "us-east-1"), ("111111111111", "eu-west-1")] {
        assert!(
            store.aggregate(owner, metric("a"), None, window(0, 120, 60), false).await.unwrap().is_empty()
        );
    }
    let bare = Metric { dimensions: Vec::new(), ..metric("a") };
    assert!(store.aggregate(OWNER, bare, None, window(0, 120, 60), false).await.unwrap().is_empty());
}

async fn found_unit(store: &MetricStore, name: &str, unit: &str) -> BTreeMap<i64, Aggregate> {
    let units =
        store.aggregate(OWNER, metric(name), Some(unit.into()), window(0, 120, 60), true).await.unwrap();
    units.into_iter().next().unwrap().1
}

#[tokio::test]
async fn flushes_and_merges_and_restarts_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(7);
    let mut expected: BTreeMap<String, BTreeMap<i64, (f64, f64)>> = BTreeMap::new();
    let range = window(NOW_SECONDS - 3 * 86_400, NOW_SECONDS, 3_600);
    let mut store = open(folder.path(), 200);
    for round in 0..6 {
        for _ in 0..60 {
            let name = format!("m{}", numbers.below(5));
            let samples: Vec<Sample> = (0..1 + numbers.below(40))
                .map(|_| {
                    let at = range.start_seconds + numbers.below(3 * 86_400) as i64;
                    Sample::value(at, numbers.below(1000) as f64)
                })
                .collect();
            for sample in &samples {
                let periods = expected.entry(name.clone()).or_default();
                let period = periods.entry(range.period_of(sample.at_seconds)).or_default();
                *period = (period.0 + 1.0, period.1 + sample.sum);
            }
            store.put(batch(&name, samples)).await.unwrap();
        }
        if round % 2 == 0 {
            store.settle().await;
        } else {
            store.close();
            store = open(folder.path(), 200);
        }
        for (name, periods) in &expected {
            for with_distribution in [false, true] {
                let units =
                    store.aggregate(OWNER, metric(name), None, range, with_distribution).await.unwrap();
                let seen: BTreeMap<i64, (f64, f64)> =
                    units[0].1.iter().map(|(at, one)| (*at, (one.count, one.sum))).collect();
                assert_eq!(&seen, periods, "{name} in round {round}");
            }
        }
    }
    store.settle().await;
    let size = store.size().await.unwrap();
    assert_eq!(size.series, 5);
    assert_eq!(
        size.samples,
        expected.values().flat_map(BTreeMap::values).map(|(count, _)| *count as u64).sum::<u64>()
    );
    assert!(size.segments < 30 && size.bytes > 0, "{size:?}");
}

/// Copies the files as a kill would leave them.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_with_a_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 100_000);
    for at in 0..50 {
        store.put(batch("a", vec![Sample::value(at, 1.0)])).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), copy.path());
    let journal = std::fs::read_dir(copy.path().join("metrics")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&journal).unwrap();
    // Half of the next frame was written when the power went.
    bytes.extend_from_slice(&[40, 0, 0, 0, 1, 2, 3]);
    std::fs::write(&journal, bytes).unwrap();
    let revived = open(copy.path(), 100_000);
    assert_eq!(found(&revived, "a", window(0, 60, 60)).await[&0].count, 50.0);
    revived.put(batch("a", vec![Sample::value(55, 1.0)])).await.unwrap();
    revived.close();
    assert_eq!(found(&open(copy.path(), 100_000), "a", window(0, 60, 60)).await[&0].count, 51.0);
}

#[tokio::test]
async fn segments_that_were_half_flushed_or_already_merged_are_not_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 10);
    for at in 0..80 {
        store.put(batch("a", vec![Sample::value(at, 1.0)])).await.unwrap();
    }
    store.settle().await;
    assert_eq!(store.size().await.unwrap().segments, 1, "eight were merged into one");
    store.close();
    drop(store);
    let metrics = folder.path().join("metrics");
    let merged = std::fs::read_dir(&metrics)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .unwrap();
    // A crash between the merge and the removal of its parts leaves both; so does one between a flush and its journal.
    std::fs::copy(&merged, metrics.join("0-3-3-0.segment")).unwrap();
    std::fs::copy(&merged, metrics.join("0-9-9-0.segment")).unwrap();
    std::fs::write(metrics.join("0-10-10-0.partial"), b"half").unwrap();
    let store = open(folder.path(), 10);
    assert_eq!(found(&store, "a", window(0, 80, 80)).await[&0].count, 80.0);
    assert!(!metrics.join("0-3-3-0.segment").exists() && !metrics.join("0-10-10-0.partial").exists());
}

#[tokio::test]
async fn puts_at_the_same_time_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path(), 500));
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0..50 {
                    store.put(batch(&format!("m{}", task % 3), vec![Sample::value(at, 1.0)])).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut count = 0.0;
    for name in ["m0", "m1", "m2"] {
        count += found(&store, name, window(0, 60, 60)).await[&0].count;
    }
    assert_eq!(count, 1000.0);
}

#[tokio::test]
async fn the_sink_writes_without_being_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path(), 500));
    let sink = MetricSink::start(store.clone());
    sink.put(batch("a", vec![Sample::value(1, 2.0)]));
    // A put that comes later, on the same way, tells when the first one is there.
    while found(&store, "a", window(0, 60, 60)).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(found(&store, "a", window(0, 60, 60)).await[&0].sum, 2.0);
}

#[tokio::test]
async fn old_days_and_series_expire() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 4);
    let old = NOW_SECONDS - 400 * 86_400;
    store.put(batch("old", vec![Sample::value(old, 1.0), Sample::value(old + 1, 1.0)])).await.unwrap();
    store
        .put(batch("new", vec![Sample::value(NOW_SECONDS - 60, 1.0), Sample::value(NOW_SECONDS, 1.0)]))
        .await
        .unwrap();
    store.settle().await;
    store.expire(455).await.unwrap();
    assert_eq!(found(&store, "old", window(old, old + 60, 60)).await.len(), 1);
    store.expire(300).await.unwrap();
    assert!(found(&store, "old", window(old, old + 60, 60)).await.is_empty());
    let listed =
        store.list(OWNER.0, OWNER.1, MetricList { limit: 10, ..MetricList::default() }).await.unwrap();
    assert_eq!(listed, [metric("new")]);
    // The number of the series that went is not in use any more; a new put gets a row again.
    store.put(batch("old", vec![Sample::value(NOW_SECONDS, 3.0)])).await.unwrap();
    assert_eq!(found(&store, "old", window(NOW_SECONDS, NOW_SECONDS + 60, 60)).await[&NOW_SECONDS].sum, 3.0);
}

#[tokio::test]
async fn lists_filter_and_go_on_where_they_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1000);
    let put = |namespace: &str, name: &str, dimensions: &[(&str, &str)], unit: &str, at| {
        let dimensions = dimensions.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        NewSamples {
            series: SeriesKey::new(OWNER, namespace, name, dimensions, unit),
            samples: vec![Sample::value(at, 1.0)],
        }
    };
    let samples = vec![
        put("B", "x", &[], "None", NOW_SECONDS),
        put("A", "x", &[("h", "1"), ("g", "2")], "None", NOW_SECONDS - 100_000),
        put("A", "x", &[("g", "2"), ("h", "1")], "Bytes", NOW_SECONDS - 100_000),
        put("A", "y", &[("h", "3")], "None", NOW_SECONDS),
    ];
    store.put(samples).await.unwrap();
    let list = |list: MetricList| {
        let store = &store;
        async move {
            let metrics =
                store.list(OWNER.0, OWNER.1, MetricList { limit: list.limit.max(1), ..list }).await.unwrap();
            metrics.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect::<Vec<_>>()
        }
    };
    let all = MetricList { limit: 100, ..MetricList::default() };
    assert_eq!(list(all.clone()).await, ["A/x", "A/y", "B/x"]);
    assert_eq!(list(MetricList { namespace: Some("A".into()), ..all.clone() }).await, ["A/x", "A/y"]);
    assert_eq!(list(MetricList { name: Some("x".into()), ..all.clone() }).await, ["A/x", "B/x"]);
    assert_eq!(
        list(MetricList { dimensions: vec![("h".into(), None)], ..all.clone() }).await,
        ["A/x", "A/y"]
    );
    let one = vec![("h".into(), Some("1".into())), ("g".into(), None)];
    assert_eq!(list(MetricList { dimensions: one, ..all.clone() }).await, ["A/x"]);
    assert_eq!(
        list(MetricList { active_since_seconds: NOW_SECONDS - 10, ..all.clone() }).await,
        ["A/y", "B/x"]
    );
    let page = store.list(OWNER.0, OWNER.1, MetricList { limit: 2, ..all.clone() }).await.unwrap();
    assert_eq!(page.len(), 2);
    assert_eq!(list(MetricList { after: page.last().cloned(), ..all }).await, ["B/x"]);
}

#[tokio::test]
async fn many_samples_leave_the_memory_after_a_while_and_few_stay() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("test.db")).unwrap();
    let limits = HeadLimits { samples: 320, age: std::time::Duration::ZERO };
    let clock = Clock::fixed(NOW_SECONDS * 1000);
    let store = MetricStore::open_with(database, folder.path().join("metrics"), clock, limits).unwrap();
    let mut put = 0;
    for (count, segments) in [(9, 0), (1, 1), (9, 1), (2, 2)] {
        let samples = (put..put + count).map(|at| Sample::value(at, 1.0)).collect();
        put += count;
        store.put(batch("a", samples)).await.unwrap();
        store.settle().await;
        let size = store.size().await.unwrap();
        assert_eq!((size.samples, size.segments), (put as u64, segments));
    }
    assert_eq!(found(&store, "a", window(0, 60, 60)).await[&0].count, 21.0);
}
