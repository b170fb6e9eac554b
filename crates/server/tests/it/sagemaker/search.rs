//! Search over training jobs.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

#[tokio::test]
async fn search_finds_jobs_by_their_properties() {
    let app = TestApp::new().await;
    for (name, rate) in [("search-a", "0.1"), ("search-b", "0.2")] {
        let mut job = training_job(name);
        job["HyperParameters"] = json!({"lr": rate});
        app.ok("SageMaker.CreateTrainingJob", job).await;
    }
    let search = |filters: Value| {
        app.ok("SageMaker.Search", json!({"Resource": "TrainingJob", "SearchExpression": {"Filters": filters}, "SortBy": "TrainingJobName", "SortOrder": "Ascending"}))
    };
    let found =
        search(json!([{"Name": "HyperParameters.lr", "Operator": "GreaterThan", "Value": "0.15"}])).await;
    assert_eq!(found["Results"].as_array().unwrap().len(), 1);
    assert_eq!(found["Results"][0]["TrainingJob"]["TrainingJobName"], "search-b");
    let found = search(json!([{"Name": "TrainingJobName", "Operator": "Contains", "Value": "search"}])).await;
    let names: Vec<&Value> = found["Results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["TrainingJob"]["TrainingJobName"])
        .collect();
    assert_eq!(names, ["search-a", "search-b"]);
    let page = app.ok("SageMaker.Search", json!({"Resource": "TrainingJob", "MaxResults": 1})).await;
    let rest = app
        .ok(
            "SageMaker.Search",
            json!({"Resource": "TrainingJob", "MaxResults": 1, "NextToken": page["NextToken"]}),
        )
        .await;
    assert_ne!(
        page["Results"][0]["TrainingJob"]["TrainingJobName"],
        rest["Results"][0]["TrainingJob"]["TrainingJobName"]
    );
    let (_, message) = app.refused("SageMaker.Search", json!({"Resource": "Pipeline"})).await;
    assert!(message.contains("Pipeline"), "{message}");
}
