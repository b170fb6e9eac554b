//! The history of alarms, and what readers of metrics are told of new samples.

use std::collections::HashMap;

use store::alarms::{HistoryItem, HistoryQuery};
use store::metrics::{Metric, MetricStore, NewSamples, Sample, SeriesKey, SeriesRead, WantedMetric, Window};
use store::{Clock, Database};

const OWNER: (&str, &str) = ("111111111111", "us-east-1");

fn item(alarm: &str, kind: &str, at: i64) -> HistoryItem {
    HistoryItem {
        alarm: alarm.into(),
        alarm_type: "MetricAlarm".into(),
        kind: kind.into(),
        summary: format!("{alarm} {kind} {at}"),
        data: "{}".into(),
        at,
    }
}

#[tokio::test]
async fn the_history_is_paged_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("test.db")).unwrap();
    database
        .write(|session| {
            for at in [10, 20, 20, 30] {
                session.append_alarm_history(OWNER.0, OWNER.1, &item("a", "StateUpdate", at))?;
            }
            session.append_alarm_history(OWNER.0, OWNER.1, &item("b", "Action", 25))?;
            session.append_alarm_history("222222222222", OWNER.1, &item("a", "StateUpdate", 40))
        })
        .await
        .unwrap();
    let times = |query: HistoryQuery| {
        let database = database.clone();
        async move {
            let read = move |session: &store::Session<'_>| session.alarm_history(OWNER.0, OWNER.1, &query);
            let found = database.read(read).await.unwrap();
            let times: Vec<i64> = found.iter().map(|(_, item)| item.at).collect();
            (times, found.last().map(|(position, _)| *position))
        }
    };
    let all = HistoryQuery { limit: 3, ..HistoryQuery::default() };
    let (first, position) = times(all.clone()).await;
    assert_eq!(first, [10, 20, 20]);
    assert_eq!(times(HistoryQuery { after: position, ..all.clone() }).await.0, [25, 30]);
    let newest = HistoryQuery { descending: true, alarm: Some("a".into()), ..all.clone() };
    let (first, position) = times(newest.clone()).await;
    assert_eq!(first, [30, 20, 20]);
    assert_eq!(times(HistoryQuery { after: position, ..newest }).await.0, [10]);
    let narrow =
        HistoryQuery { kind: Some("Action".into()), from_ms: Some(20), to_ms: Some(25), ..all.clone() };
    assert_eq!(times(narrow).await.0, [25]);
    let other = HistoryQuery { alarm_types: vec!["CompositeAlarm".into()], ..all.clone() };
    assert!(times(other).await.0.is_empty());
    let gone = database.write(|session| session.delete_alarm_history(25)).await.unwrap();
    assert_eq!((gone, times(all).await.0), (3, vec![25, 30]));
}

#[tokio::test]
async fn news_name_the_series_that_got_samples() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("test.db")).unwrap();
    let clock = Clock::fixed(1_700_000_000_000);
    let store = MetricStore::open(database, folder.path().join("metrics"), clock).unwrap();
    let put = |name: &str, unit: &str, at: i64| {
        let series = SeriesKey::new(OWNER, "Tests", name, Vec::new(), unit);
        store.put(vec![NewSamples { series, samples: vec![Sample::value(at, 2.0)] }])
    };
    put("m", "None", 100).await.unwrap();
    assert!(store.take_news().is_empty(), "nobody followed");
    store.follow();
    put("m", "None", 160).await.unwrap();
    put("m", "Bytes", 130).await.unwrap();
    put("m", "None", 150).await.unwrap();
    let wanted = |unit: Option<&str>| WantedMetric {
        account: OWNER.0.into(),
        region: OWNER.1.into(),
        metric: Metric { namespace: "Tests".into(), name: "m".into(), dimensions: Vec::new() },
        unit: unit.map(str::to_owned),
    };
    let found = store.series_of_many(vec![wanted(None), wanted(Some("Bytes"))]).await.unwrap();
    assert_eq!((found[0].len(), found[1].len()), (2, 1));
    let bytes = found[1][0];
    let none = *found[0].iter().find(|id| **id != bytes).unwrap();
    assert_eq!(store.take_news(), HashMap::from([(none, 150), (bytes, 130)]));
    assert!(store.take_news().is_empty());
    let keys = store.keys_of(vec![bytes, 9999]).await.unwrap();
    assert_eq!((keys.len(), &*keys[0].1.unit), (1, "Bytes"));
    let window = Window { start_seconds: 120, end_seconds: 180, period_seconds: 60 };
    let read = |series: Vec<u32>| SeriesRead { series, window, with_distribution: false };
    let sums = store.aggregate_many(vec![read(vec![none]), read(vec![none, bytes])]).await.unwrap();
    assert_eq!((sums[0][&120].sum, sums[1][&120].sum), (4.0, 6.0));
    store.unfollow();
    put("m", "None", 170).await.unwrap();
    assert!(store.take_news().is_empty());
}
