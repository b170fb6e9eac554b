//! The event log in the shape of EventBridge.

use serde_json::json;

use crate::app::{TestApp, training_job};

#[tokio::test]
async fn each_state_of_a_job_is_an_event_with_its_description() {
    let app = TestApp::new().await;
    let start = app.ok("Modelyard.ListEvents", json!({})).await;
    assert_eq!(start["Events"], json!([]));
    let mut job = training_job("told");
    job["HyperParameters"] = json!({"epochs": "3"});
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let page = app.ok("Modelyard.ListEvents", json!({"After": start["Position"], "MaxResults": 1})).await;
    let event = &page["Events"][0];
    assert_eq!(event["detail-type"], "SageMaker Training Job State Change");
    assert_eq!((&event["source"], &event["version"]), (&json!("aws.sagemaker"), &json!("0")));
    assert_eq!((&event["account"], &event["region"]), (&json!("123456789012"), &json!("us-east-1")));
    assert_eq!(event["time"], "2026-02-02T02:40:00Z");
    let detail = &event["detail"];
    assert_eq!(event["resources"], json!([detail["TrainingJobArn"]]));
    assert_eq!(detail["TrainingJobName"], "told");
    assert_eq!(
        (&detail["TrainingJobStatus"], &detail["SecondaryStatus"]),
        (&json!("InProgress"), &json!("Starting"))
    );
    assert_eq!(detail["HyperParameters"], json!({"epochs": "3"}));
    assert_eq!(detail["CreationTime"], 1_770_000_000_000_i64);
    // The next page begins behind this one, and other accounts see nothing of it.
    let rest = app.ok("Modelyard.ListEvents", json!({"After": page["Position"]})).await;
    assert!(rest["Events"].as_array().unwrap().iter().all(|other| other["id"] != event["id"]));
    let other = app.other_account("222222222222").await;
    let answer = app.call_as("Modelyard.ListEvents", json!({"After": 0}), &other).await;
    assert_eq!(answer.json()["Events"], json!([]));
    assert_eq!(app.refused("Modelyard.ListEvents", json!({"After": -1})).await.0, "ValidationException");
}
