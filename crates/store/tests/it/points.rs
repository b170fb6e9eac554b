//! Points keep their order and statistics over many puts, and go away in short steps.

use proptest::prelude::*;
use store::Database;
use store::points::Point;

fn open() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = Database::open(&folder.path().join("db")).expect("a database");
    (folder, database)
}

async fn all(database: &Database, owner: &'static str, name: &'static str) -> Option<Vec<Point>> {
    let read = database.read(move |session| {
        let mut points = Vec::new();
        let is_there = session.each_point(owner, name, |point| points.push(point))?;
        Ok(is_there.then_some(points))
    });
    read.await.expect("a read")
}

#[tokio::test]
async fn disowned_points_go_in_short_steps() {
    let (_folder, database) = open();
    let point = |number: i64| Point { at: number, step: None, value: number as f64 };
    for owner in ["one", "two"] {
        let points: Vec<Point> = (0..1_000).map(point).collect();
        database.write(move |session| session.put_points(owner, "loss", &points)).await.unwrap();
    }
    database.write(|session| session.disown_points("one")).await.unwrap();
    assert_eq!(all(&database, "one", "loss").await, None);
    let mut steps = 0;
    while database.write(|session| session.purge_points(3)).await.unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 7, "20 blocks, three at a time");
    assert_eq!(all(&database, "two", "loss").await.map(|points| points.len()), Some(1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn points_and_statistics_are_those_that_were_put(
        puts in prop::collection::vec(prop::collection::vec((-1e6_f64..1e6, 0_i64..100, -1_i32..9), 1..40), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_folder, database) = open();
            let mut put: Vec<Point> = Vec::new();
            for points in puts {
                let points: Vec<Point> = points
                    .into_iter()
                    .map(|(value, at, step)| Point { at, step: (step >= 0).then_some(step), value })
                    .collect();
                put.extend(&points);
                database.write(move |session| session.put_points("owner", "m", &points)).await.unwrap();
            }
            assert_eq!(all(&database, "owner", "m").await.as_ref(), Some(&put));
            let summary = database.read(|session| session.point_summaries("owner")).await.unwrap().remove(0);
            let count = put.len() as f64;
            let mean = put.iter().map(|point| point.value).sum::<f64>() / count;
            let deviation = (put.iter().map(|point| (point.value - mean).powi(2)).sum::<f64>() / count).sqrt();
            let newest = put.iter().max_by_key(|point| point.at).unwrap();
            assert_eq!(summary.count, put.len() as i64);
            assert!((summary.mean - mean).abs() < 1e-6 && (summary.deviation - deviation).abs() < 1e-3);
            assert_eq!(summary.minimum, put.iter().map(|point| point.value).fold(f64::MAX, f64::min));
            assert_eq!(summary.maximum, put.iter().map(|point| point.value).fold(f64::MIN, f64::max));
            // Of points of one time, the later one counts, as `max_by_key` does it.
            assert_eq!((summary.last, summary.last_at), (newest.value, newest.at));
        });
    }
}
