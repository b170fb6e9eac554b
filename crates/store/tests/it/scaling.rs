//! Activities of what scales by itself.

use serde_json::json;
use store::Database;
use store::scaling::{ScalingActivity, ScalingActivityList};

fn activity(id: &str, resource: &str, started_at: i64) -> ScalingActivity {
    ScalingActivity {
        sequence: 0,
        id: id.into(),
        account: "123456789012".into(),
        region: "us-east-1".into(),
        resource: resource.into(),
        dimension: "count".into(),
        description: "Setting count to 2.".into(),
        cause: "minimum".into(),
        status: "InProgress".into(),
        message: None,
        details: None,
        refusals: None,
        capacity_before: Some(1),
        capacity_after: Some(2),
        started_at,
        ended_at: None,
    }
}

#[tokio::test]
async fn activities_end_once_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    database
        .write(|session| {
            session.insert_scaling_activity(&activity("a", "one", 10), 0)?;
            let refused = ScalingActivity {
                refusals: Some(json!([{"Code": "AlreadyAtMaxCapacity"}])),
                ended_at: Some(20),
                ..activity("b", "one", 20)
            };
            session.insert_scaling_activity(&refused, 0)?;
            session.insert_scaling_activity(&activity("c", "two", 30), 0)
        })
        .await
        .unwrap();
    let listed = |list: ScalingActivityList| {
        let database = database.clone();
        async move {
            let found =
                database.read(move |session| session.scaling_activities("123456789012", "us-east-1", &list));
            found.await.unwrap().into_iter().map(|activity| activity.id).collect::<Vec<_>>()
        }
    };
    let all = ScalingActivityList { limit: 10, ..Default::default() };
    assert_eq!(listed(all.clone()).await, ["c", "a"]);
    assert_eq!(listed(ScalingActivityList { with_refusals: true, ..all.clone() }).await, ["c", "b", "a"]);
    let of_one =
        ScalingActivityList { resource: Some("one".into()), limit: 1, with_refusals: true, ..all.clone() };
    assert_eq!(listed(of_one).await, ["b"]);
    assert_eq!(listed(ScalingActivityList { before: Some(3), ..all.clone() }).await, ["a"]);

    let open = |database: Database| async move {
        let found = database
            .read(|session| session.open_scaling_activity("123456789012", "us-east-1", "one", "count"));
        found.await.unwrap().map(|activity| activity.id)
    };
    assert_eq!(open(database.clone()).await.as_deref(), Some("a"));
    let ended = database.write(|session| {
        let first = session.end_scaling_activity("a", "Successful", "done", 40)?;
        let second = session.end_scaling_activity("a", "Failed", "too late", 50)?;
        Ok((first, second))
    });
    assert_eq!(ended.await.unwrap(), (true, false));
    assert_eq!(open(database.clone()).await, None);
    // What goes on is kept, however old.
    database.write(|session| session.insert_scaling_activity(&activity("d", "one", 60), 35)).await.unwrap();
    assert_eq!(listed(ScalingActivityList { with_refusals: true, ..all }).await, ["d", "c"]);
}
