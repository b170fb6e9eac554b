//! Model cards, their versions and exports.

use serde_json::{Value, json};

use super::model_packages::put;
use crate::app::TestApp;

fn content(owner: &str) -> String {
    json!({
        "model_overview": {"model_name": "churn", "model_owner": owner},
        "intended_uses": {"risk_rating": "Low", "purpose_of_model": "Who leaves? \u{8a9e}"},
        "evaluation_details": [{"name": "holdout", "metric_groups": [{"name": "g", "metric_data": [{"name": "auc", "type": "number", "value": 0.9}]}]}],
    })
    .to_string()
}

async fn with_card() -> TestApp {
    let app = TestApp::new().await;
    let input = json!({"ModelCardName": "Card", "Content": content("ann"), "ModelCardStatus": "Draft"});
    let created = app.ok("SageMaker.CreateModelCard", input.clone()).await;
    assert_eq!(created["ModelCardArn"], "arn:aws:sagemaker:us-east-1:123456789012:model-card/card");
    assert_eq!(app.refused("SageMaker.CreateModelCard", input).await.0, "ConflictException");
    app
}

fn update(mut more: Value) -> Value {
    more["ModelCardName"] = "Card".into();
    more
}

#[tokio::test]
async fn content_makes_versions_and_status_does_not() {
    let app = with_card().await;
    app.clock.advance(1_000);
    app.ok("SageMaker.UpdateModelCard", update(json!({"Content": content("bob")}))).await;
    app.ok("SageMaker.UpdateModelCard", update(json!({"ModelCardStatus": "Approved"}))).await;
    let describe = |input: Value| app.ok("SageMaker.DescribeModelCard", update(input));
    let now = describe(json!({})).await;
    assert_eq!((&now["ModelCardVersion"], &now["ModelCardStatus"]), (&json!(2), &json!("Approved")));
    assert_eq!(now["Content"], content("bob"));
    assert!(now["LastModifiedBy"]["IamIdentity"]["Arn"].is_string());
    let first = describe(json!({"ModelCardVersion": 1})).await;
    assert_eq!((&first["ModelCardStatus"], &first["Content"]), (&json!("Draft"), &json!(content("ann"))));
    let metadata = describe(json!({"IncludedData": "MetadataOnly"})).await;
    let kept = json!({"model_overview": {"model_name": "churn"}, "intended_uses": {"risk_rating": "Low"}});
    assert_eq!(metadata["Content"], kept.to_string());

    let versions = app.ok("SageMaker.ListModelCardVersions", update(json!({}))).await;
    let numbers: Vec<&Value> = versions["ModelCardVersionSummaryList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| &version["ModelCardVersion"])
        .collect();
    assert_eq!(numbers, [2, 1]);
    let listed = app.ok("SageMaker.ListModelCards", json!({"ModelCardStatus": "Approved"})).await;
    assert_eq!(listed["ModelCardSummaries"][0]["ModelCardName"], "Card");

    app.ok("SageMaker.UpdateModelCard", update(json!({"ModelCardStatus": "Archived"}))).await;
    let late = update(json!({"Content": content("eve")}));
    assert_eq!(app.refused("SageMaker.UpdateModelCard", late).await.0, "ConflictException");
}

#[tokio::test]
async fn cards_that_are_none_are_refused() {
    let app = with_card().await;
    let bad = json!({"intended_uses": {"risk_rating": "Huge"}}).to_string();
    for (input, code, text) in [
        (update(json!({"Content": bad})), "ValidationException", "intended_uses.risk_rating"),
        (
            update(json!({"Content": content("a"), "ModelCardStatus": "Draft"})),
            "ValidationException",
            "cannot both",
        ),
        (update(json!({})), "ValidationException", "must be given"),
        (json!({"ModelCardName": "none", "Content": content("a")}), "ResourceNotFound", "model-card/none"),
    ] {
        let (got, message) = app.refused("SageMaker.UpdateModelCard", input).await;
        assert_eq!(got, code, "{message}");
        assert!(message.contains(text), "{message}");
    }
    let sealed = json!({"ModelCardName": "x", "Content": "{}", "ModelCardStatus": "Draft", "SecurityConfig": {"KmsKeyId": "k"}});
    assert!(app.refused("SageMaker.CreateModelCard", sealed).await.1.contains("SecurityConfig.KmsKeyId"));
    let other = app.other_account("999999999999").await;
    let arn = json!({"ModelCardName": "arn:aws:sagemaker:us-east-1:123456789012:model-card/card"});
    assert_eq!(app.refused_as("SageMaker.DescribeModelCard", arn, &other).await.0, "ResourceNotFound");
}

#[tokio::test]
async fn a_card_is_exported_as_pdf_and_page() {
    let app = with_card().await;
    put(&app, "123456789012", "x", b"").await;
    let job = |name: &str, bucket: &str| {
        update(
            json!({"ModelCardExportJobName": name, "OutputConfig": {"S3OutputPath": format!("s3://{bucket}/cards")}}),
        )
    };
    let created = app.ok("SageMaker.CreateModelCardExportJob", job("first", "models")).await;
    let arn = created["ModelCardExportJobArn"].clone();
    let shown = app.ok("SageMaker.DescribeModelCardExportJob", json!({"ModelCardExportJobArn": arn})).await;
    assert_eq!((&shown["Status"], &shown["ModelCardVersion"]), (&json!("Completed"), &json!(1)), "{shown}");
    assert_eq!(shown["ExportArtifacts"]["S3ExportArtifacts"], "s3://models/cards/Card-1-first.pdf");
    for (key, start) in
        [("cards/Card-1-first.pdf", "%PDF-1.7"), ("cards/Card-1-first.html", "<!DOCTYPE html>")]
    {
        let mut file = app.app.objects.open_object("123456789012", "models", key).await.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert!(bytes.starts_with(start.as_bytes()), "{key}");
    }
    assert_eq!(
        app.refused("SageMaker.CreateModelCardExportJob", job("first", "models")).await.0,
        "ConflictException"
    );
    app.ok("SageMaker.CreateModelCardExportJob", job("second", "no-such-bucket")).await;
    let list = |more: Value| app.ok("SageMaker.ListModelCardExportJobs", update(more));
    let failed = list(json!({"StatusEquals": "Failed"})).await;
    assert_eq!(failed["ModelCardExportJobSummaries"][0]["ModelCardExportJobName"], "second");
    let named = list(json!({"ModelCardExportJobNameContains": "card"})).await;
    assert_eq!(named["ModelCardExportJobSummaries"], json!([]), "the card's name is not the job's");
    app.ok("SageMaker.DeleteModelCard", json!({"ModelCardName": "Card"})).await;
    let (code, _) =
        app.refused("SageMaker.DescribeModelCardExportJob", json!({"ModelCardExportJobArn": arn})).await;
    assert_eq!(code, "ResourceNotFound");
    assert_eq!(app.refused("SageMaker.DescribeModelCard", update(json!({}))).await.0, "ResourceNotFound");
}

#[tokio::test]
async fn a_package_carries_a_card() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateModelPackageGroup", json!({"ModelPackageGroupName": "G"})).await;
    let card = |content: &str, status: &str| json!({"ModelCardContent": content, "ModelCardStatus": status});
    let input = |card: Value| json!({"ModelPackageGroupName": "G", "ModelCard": card});
    let refused = app.refused("SageMaker.CreateModelPackage", input(card(&content("ann"), "Draft"))).await;
    assert!(refused.1.contains("model_name"), "{}", refused.1);
    let fine = json!({"intended_uses": {"risk_rating": "Low", "intended_uses": "x"}}).to_string();
    let created = app.ok("SageMaker.CreateModelPackage", input(card(&fine, "Draft"))).await;
    let arn = created["ModelPackageArn"].clone();
    let status = json!({"ModelPackageArn": arn, "ModelCard": {"ModelCardStatus": "Approved"}});
    app.ok("SageMaker.UpdateModelPackage", status).await;
    let both = json!({"ModelPackageArn": arn, "ModelCard": card("{}", "Archived")});
    assert!(app.refused("SageMaker.UpdateModelPackage", both).await.1.contains("cannot both"));
    let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": arn})).await;
    assert_eq!(shown["ModelCard"], card(&fine, "Approved"));
    let metadata = json!({"ModelPackageName": arn, "IncludedData": "MetadataOnly"});
    let shown = app.ok("SageMaker.DescribeModelPackage", metadata).await;
    assert_eq!(shown["ModelCard"], card("{\"intended_uses\":{\"risk_rating\":\"Low\"}}", "Approved"));
}
