//! The index of properties follows the resources, is filled for those that were there before it, and changes no order.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use serde_json::{Value, json};
use store::Database;
use store::links::Narrowing;
use store::points::Point;
use store::properties::{PropertyTest, SeriesStatistic, SeriesTest};
use store::resources::{ListQuery, Resource, ResourceKey};

const COMPONENT: &str = "experiment-trial-component";

fn component(number: i64, parameters: &Value) -> Resource {
    let name = format!("run-{number:04}");
    Resource {
        arn: format!("arn:{name}"),
        key: ResourceKey::new("1", "r", COMPONENT, name),
        status: String::new(),
        spec: json!({"Parameters": parameters}),
        document: json!({}),
        generation: 1,
        created_at: number,
        modified_at: number,
    }
}

async fn put(database: &Database, resources: Vec<Resource>) {
    let put = database
        .write(move |session| resources.iter().try_for_each(|resource| session.insert_resource(resource)));
    put.await.unwrap();
}

/// The numbers of the components that are listed, newest first, three to a page.
async fn listed(database: &Database, narrowed: Narrowing) -> Vec<i64> {
    let mut query = ListQuery { narrowed: vec![narrowed], descending: true, limit: 3, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let asked = query.clone();
        let page =
            database.read(move |session| session.list_resources("1", "r", COMPONENT, &asked)).await.unwrap();
        found.extend(page.resources.iter().map(|resource| resource.created_at));
        query.next_token = page.next_token;
        if query.next_token.is_none() {
            return found;
        }
    }
}

fn property(path: &str, test: PropertyTest) -> Narrowing {
    Narrowing::Property { paths: vec![path.into()], test }
}

fn equals(text: &str) -> PropertyTest {
    PropertyTest::Equals { text: text.into(), number: text.parse().ok() }
}

#[tokio::test]
async fn the_index_follows_changes_and_deletions() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    let rate =
        |number: i64| json!({"lr": {"NumberValue": number as f64 / 10.0}, "kind": {"StringValue": "sgd"}});
    put(&database, (0..10).map(|number| component(number, &rate(number))).collect()).await;
    let above = property("Parameters.lr", PropertyTest::Between(0.55, f64::INFINITY));
    assert_eq!(listed(&database, above.clone()).await, [9, 8, 7, 6]);
    assert_eq!(listed(&database, property("Parameters.lr", equals("0.3"))).await, [3]);
    assert_eq!(listed(&database, property("Parameters.kind", equals("sgd"))).await.len(), 10);
    assert!(listed(&database, property("Parameters.kind", equals("adam"))).await.is_empty());
    database
        .write(|session| {
            session.update_resource(&component(9, &json!({})).key, 9, |resource| {
                resource.spec["Parameters"] = json!({"kind": {"StringValue": "adam"}});
                Ok(())
            })?;
            session.delete_resource(&component(8, &json!({})).key)
        })
        .await
        .unwrap();
    assert_eq!(listed(&database, above).await, [7, 6]);
    assert_eq!(listed(&database, property("Parameters.kind", equals("adam"))).await, [9]);
    put(&database, vec![component(8, &json!({}))]).await;
    assert!(!listed(&database, property("Parameters.lr", PropertyTest::Exists)).await.contains(&8));
}

#[tokio::test]
async fn many_rows_are_listed_in_the_same_order_as_few() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    let parameters = |number: i64| json!({"all": {"NumberValue": 1}, "third": {"NumberValue": number % 3}});
    put(&database, (0..700).map(|number| component(number, &parameters(number))).collect()).await;
    let all: Vec<i64> = (0..700).rev().collect();
    assert_eq!(listed(&database, property("Parameters.all", equals("1"))).await, all);
    let third: Vec<i64> = all.iter().copied().filter(|number| number % 3 == 1).collect();
    assert_eq!(listed(&database, property("Parameters.third", equals("1"))).await, third);
}

#[tokio::test]
async fn series_are_found_by_their_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    put(&database, (0..5).map(|number| component(number, &json!({}))).collect()).await;
    database
        .write(|session| {
            (0..4).try_for_each(|number: i64| {
                let points =
                    [number * 2, number].map(|value| Point { at: 1, step: None, value: value as f64 });
                session.put_points(&component(number, &json!({})).arn, "loss", &points)
            })
        })
        .await
        .unwrap();
    let loss = |statistic, least: f64, most: f64| {
        Narrowing::Series(vec![SeriesTest { name: "loss".into(), between: Some((statistic, least, most)) }])
    };
    assert_eq!(listed(&database, loss(SeriesStatistic::Last, 2.0, f64::INFINITY)).await, [3, 2]);
    assert_eq!(listed(&database, loss(SeriesStatistic::Maximum, 4.0, 4.0)).await, [2]);
    let any = Narrowing::Series(vec![SeriesTest { name: "loss".into(), between: None }]);
    assert_eq!(listed(&database, any).await, [3, 2, 1, 0]);
}

#[tokio::test]
async fn what_was_there_before_the_index_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let database = Database::open(&path).unwrap();
    let parameters = json!({"lr": {"NumberValue": 0.5}, "a.b": {"StringValue": "x"}, "odd": 1});
    let mut job = component(2, &json!(null));
    job.key.kind = "training-job".into();
    job.spec = json!({"HyperParameters": {"depth": "3"}});
    job.document = json!({"final_metrics": [{"name": "acc", "value": 0.9, "at": 1}]});
    put(&database, vec![component(1, &parameters), job]).await;
    database.close();
    drop(database);
    let before = rusqlite::Connection::open(&path).unwrap();
    before
        .execute_batch(
            "DROP TABLE properties; DROP INDEX point_series_by_name; DROP TABLE scaling_activities; DROP TABLE alarm_history;
             DROP TABLE alarm_watch; DROP TABLE async_requests; DELETE FROM schema_migrations WHERE name >= '0016_properties'",
        )
        .unwrap();
    drop(before);
    let database = Database::open(&path).unwrap();
    for (path, test) in [
        ("Parameters.lr", PropertyTest::Between(0.4, 0.6)),
        ("Parameters.lr", equals("0.5")),
        ("Parameters.a.b", equals("x")),
    ] {
        assert_eq!(listed(&database, property(path, test)).await, [1], "{path}");
    }
    for (path, test) in [
        ("HyperParameters.depth", equals("3")),
        ("HyperParameters.depth", PropertyTest::Between(3.0, 3.0)),
        ("Metrics.acc", PropertyTest::Between(0.9, 0.9)),
    ] {
        let query = ListQuery { narrowed: vec![property(path, test)], limit: 3, ..Default::default() };
        let page = database.read(move |session| session.list_resources("1", "r", "training-job", &query));
        assert_eq!(page.await.unwrap().resources.len(), 1, "{path}");
    }
}
