//! Killed where only many metrics lead: what was acknowledged is there once.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use failpoint::Point;
use store::metrics::{HeadLimits, Metric, MetricStore, NewSamples, Sample, SeriesKey, Window};
use store::{Clock, Database};

const TEST: &str = "faults::segments_survive_kills";
/// Names the folder that a process of the test writes to until it is killed.
const FOLDER: &str = "STORE_TEST_FOLDER";
const OWNER: (&str, &str) = ("111111111111", "us-east-1");
const MINUTE: i64 = 60;
/// Batches that a process puts at most: enough for several merges.
const BATCHES: i64 = 200;
const SIGABRT: i32 = 6;

fn open(folder: &Path) -> MetricStore {
    let database = Database::open(&folder.join("test.db")).unwrap();
    // Two batches fill a head, and sixteen make a merge.
    let limits = HeadLimits { samples: 120, ..HeadLimits::default() };
    MetricStore::open_with(database, folder.join("metrics"), Clock::fixed(1_700_000_000_000), limits).unwrap()
}

/// Puts one batch for each minute, and notes those that were acknowledged.
async fn put_until_killed(folder: &Path) {
    let store = open(folder);
    let notes = |name| std::fs::File::options().create(true).append(true).open(folder.join(name)).unwrap();
    let (mut begun, mut acknowledged) = (notes("begun"), notes("acknowledged"));
    let first = noted(folder, "begun").last().map_or(0, |last| last + 1);
    for minute in first..first + BATCHES {
        writeln!(begun, "{minute}").unwrap();
        let samples = (0..MINUTE).map(|second| Sample::value(minute * MINUTE + second, minute as f64));
        let series = SeriesKey::new(OWNER, "Tests", "kept", vec![], "None");
        store.put(vec![NewSamples { series, samples: samples.collect() }]).await.unwrap();
        writeln!(acknowledged, "{minute}").unwrap();
    }
    store.settle().await;
}

fn noted(folder: &Path, name: &str) -> Vec<i64> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Every acknowledged batch is there whole and once; each other one whole or not at all.
async fn check(folder: &Path) {
    let begun = noted(folder, "begun").last().unwrap() + 1;
    let acknowledged = noted(folder, "acknowledged");
    let store = open(folder);
    store.settle().await;
    let metric = Metric { namespace: "Tests".into(), name: "kept".into(), dimensions: vec![] };
    let window = Window { start_seconds: 0, end_seconds: begun * MINUTE, period_seconds: MINUTE };
    let mut units = store.aggregate(OWNER, metric, None, window, true).await.unwrap();
    let found = units.pop().map(|(_, periods)| periods).unwrap_or_default();
    for minute in 0..begun {
        let one = found.get(&(minute * MINUTE)).map(|one| (one.count, one.sum));
        let whole = Some((MINUTE as f64, (MINUTE * minute) as f64));
        let is_right = one == whole || one.is_none() && !acknowledged.contains(&minute);
        assert!(is_right, "minute {minute} of {begun}: {one:?}");
    }
}

#[tokio::test]
async fn segments_survive_kills() {
    #[expect(clippy::disallowed_methods, reason = "the test starts itself as the process that is killed")]
    let folder = std::env::var(FOLDER);
    if let Ok(folder) = folder {
        return put_until_killed(&PathBuf::from(folder)).await;
    }
    let data = tempfile::tempdir().unwrap();
    let orders = tempfile::tempdir().unwrap();
    let points = [
        Point::MetricSegmentSync,
        Point::MetricSegmentRename,
        Point::MetricJournalRemove,
        Point::MetricMerged,
    ];
    for point in points {
        for order in ["abort", "skip 3 abort"] {
            let file = orders.path().join(point.name());
            std::fs::write(&file, order).unwrap();
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", TEST])
                .env(FOLDER, data.path())
                .env(failpoint::VARIABLE, orders.path())
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert_eq!(ended.signal(), Some(SIGABRT), "{point:?} {order}: {ended}");
            assert!(!file.exists(), "{point:?} was passed");
            check(data.path()).await;
        }
    }
}
