//! Who may call, and that accounts do not see each other.

use bytes::Bytes;
use http::Request;
use serde_json::json;

use crate::app::{Key, TestApp, training_job};

#[tokio::test]
async fn unsigned_and_wrongly_signed_requests_are_refused() {
    let app = TestApp::new().await;
    let request = Request::post("/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "SageMaker.ListTrainingJobs")
        .body(wire::full("{}"))
        .unwrap();
    let answer = app.send(request).await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["__type"].as_str().unwrap().starts_with("MissingAuthenticationToken"));

    let wrong = Key { secret_access_key: "wrong".into(), ..app.key() };
    let (code, _) = app.refused_as("SageMaker.ListTrainingJobs", json!({}), &wrong).await;
    assert_eq!(code, "InvalidSignatureException");
    let unknown = Key { access_key_id: "AKIAUNKNOWN".into(), ..app.key() };
    let (code, _) = app.refused_as("SageMaker.ListTrainingJobs", json!({}), &unknown).await;
    assert_eq!(code, "UnrecognizedClientException");
}

#[tokio::test]
async fn accounts_with_the_same_names_see_only_their_own() {
    let app = TestApp::new().await;
    let other = app.other_account("210987654321").await;
    app.ok("SageMaker.CreateTrainingJob", training_job("same")).await;
    let (_, message) =
        app.refused_as("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "same"}), &other).await;
    assert_eq!(message, "Requested resource not found.");
    let listed = app.call_as("SageMaker.ListTrainingJobs", json!({}), &other).await.json();
    assert_eq!(listed["TrainingJobSummaries"], json!([]));

    let mut own = training_job("same");
    own["RoleArn"] = "arn:aws:iam::210987654321:role/ModelyardExecutionRole".into();
    let created = app.call_as("SageMaker.CreateTrainingJob", own, &other).await.json();
    assert_eq!(created["TrainingJobArn"], "arn:aws:sagemaker:us-east-1:210987654321:training-job/same");
}

#[tokio::test]
async fn arns_of_other_accounts_are_denied() {
    let app = TestApp::new().await;
    let mut job = training_job("foreign");
    job["RoleArn"] = "arn:aws:iam::210987654321:role/R".into();
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert_eq!(code, "AccessDeniedException");
    assert!(message.contains("arn:aws:iam::210987654321:role/R"), "{message}");
}

#[tokio::test]
async fn what_is_not_implemented_says_so_with_a_client_error() {
    let app = TestApp::new().await;
    let (code, message) = app.refused("SageMaker.CreateCluster", json!({})).await;
    assert_eq!(code, "NotImplemented");
    assert!(message.contains("CreateCluster"), "{message}");
    let (code, _) = app.refused("SageMaker.CreateTeapot", json!({})).await;
    assert_eq!(code, "UnknownOperationException");
}

#[tokio::test]
async fn health_needs_no_key() {
    let app = TestApp::new().await;
    let answer = app.send(Request::get("/_modelyard/health").body(wire::full(Bytes::new())).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("ok")));
}
