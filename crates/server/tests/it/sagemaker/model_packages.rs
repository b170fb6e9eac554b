//! Model package groups and packages.

use serde_json::{Value, json};
use server::events::MODEL_PACKAGE_STATE;
use store::objects::{Attributes, Condition};

use crate::app::{Key, TestApp};

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

/// Puts an object.
pub async fn put(app: &TestApp, account: &str, key: &str, bytes: &[u8]) {
    let objects = &app.app.objects;
    // It may be there already.
    let _ = objects.create_bucket(account, "us-east-1", "models").await;
    let mut incoming = objects.begin(account, "models").await.unwrap();
    incoming.write(bytes).unwrap();
    let (attributes, condition) = (Attributes::default(), Condition::default());
    objects.commit(account, "models", key, incoming, attributes, condition).await.unwrap();
}

fn specification(key: &str) -> Value {
    json!({
        "Containers": [{"Image": "img:1", "ModelDataUrl": format!("s3://models/{key}"), "Environment": {"A": "1", "B": "1"}}],
        "SupportedContentTypes": ["text/csv"],
    })
}

fn version(group: &str) -> Value {
    json!({"ModelPackageGroupName": group, "InferenceSpecification": specification("a.tar.gz")})
}

/// An app with a group, and the object that its packages are made of.
async fn with_group(app: TestApp) -> TestApp {
    put(&app, "123456789012", "a.tar.gz", b"weights").await;
    app.ok("SageMaker.CreateModelPackageGroup", json!({"ModelPackageGroupName": "Churn"})).await;
    app
}

async fn registered(app: &TestApp, input: Value) -> String {
    let created = app.ok("SageMaker.CreateModelPackage", input).await;
    created["ModelPackageArn"].as_str().unwrap().to_owned()
}

async fn approve(app: &TestApp, arn: &str) {
    let input =
        json!({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved", "ApprovalDescription": "good"});
    app.ok("SageMaker.UpdateModelPackage", input).await;
}

fn model_from(package: &str) -> Value {
    json!({
        "ModelName": "m", "ExecutionRoleArn": ROLE,
        "Containers": [{"ModelPackageName": package, "Environment": {"B": "2"}}],
    })
}

#[tokio::test]
async fn versions_count_up_and_never_come_again() {
    let app = with_group(TestApp::new().await).await;
    let first = registered(&app, version("Churn")).await;
    assert_eq!(first, "arn:aws:sagemaker:us-east-1:123456789012:model-package/churn/1");
    let second = registered(&app, version("Churn")).await;
    app.ok("SageMaker.DeleteModelPackage", json!({"ModelPackageName": second})).await;
    let third = registered(&app, version("Churn")).await;
    assert!(third.ends_with("/churn/3"), "{third}");
    let again = json!({"ClientToken": "t", "ModelPackageGroupName": "Churn"});
    assert_eq!(registered(&app, again.clone()).await, registered(&app, again).await);
    let other = json!({"ClientToken": "t", "ModelPackageGroupName": "Churn", "Domain": "OTHER"});
    assert_eq!(app.refused("SageMaker.CreateModelPackage", other).await.0, "ConflictException");

    let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": "Churn/1"})).await;
    assert_eq!(shown["ModelPackageGroupName"], "Churn");
    assert_eq!(shown["ModelPackageVersion"], 1);
    assert_eq!(shown["ModelApprovalStatus"], "PendingManualApproval");
    assert_eq!(shown["ModelPackageRegistrationType"], "Registered");
    assert_eq!(shown["ModelPackageStatus"], "Completed");
    assert!(shown.get("ModelPackageName").is_none(), "a version has no name of its own");
    let container = &shown["InferenceSpecification"]["Containers"][0];
    assert_eq!(container["ModelDataETag"], "63f4f1e9b725370f459720575cd5f953", "{container}");
    assert!(shown["CreatedBy"]["IamIdentity"]["Arn"].as_str().unwrap().contains("assumed-role"));

    let list = |input: Value| app.ok("SageMaker.ListModelPackages", input);
    let listed = list(json!({"ModelPackageGroupName": "Churn", "SortOrder": "Descending"})).await;
    let versions: Vec<&Value> = listed["ModelPackageSummaryList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["ModelPackageVersion"])
        .collect();
    assert_eq!(versions, [4, 3, 1]);
    approve(&app, &first).await;
    let approved = list(json!({"ModelPackageGroupName": "Churn", "ModelApprovalStatus": "Approved"})).await;
    assert_eq!(approved["ModelPackageSummaryList"].as_array().unwrap().len(), 1);

    let (code, message) =
        app.refused("SageMaker.DeleteModelPackageGroup", json!({"ModelPackageGroupName": "Churn"})).await;
    assert_eq!(code, "ConflictException");
    assert!(message.contains("still has Model Packages"), "{message}");
    let (code, message) =
        app.refused("SageMaker.DescribeModelPackage", json!({"ModelPackageName": second})).await;
    assert_eq!(
        (code.as_str(), message),
        ("ValidationException", format!("ModelPackage {second} does not exist."))
    );
}

#[tokio::test]
async fn groups_live_and_go() {
    let app = TestApp::new().await;
    let input = json!({"ModelPackageGroupName": "G", "ModelPackageGroupDescription": "d", "Tags": [{"Key": "k", "Value": "v"}]});
    let created = app.ok("SageMaker.CreateModelPackageGroup", input.clone()).await;
    let arn = created["ModelPackageGroupArn"].clone();
    let (code, message) = app.refused("SageMaker.CreateModelPackageGroup", input).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("already exists"), "{message}");
    let shown = app.ok("SageMaker.DescribeModelPackageGroup", json!({"ModelPackageGroupName": arn})).await;
    assert_eq!(shown["ModelPackageGroupStatus"], "Completed");
    assert_eq!(shown["ModelPackageGroupDescription"], "d");
    let listed = app.ok("SageMaker.ListModelPackageGroups", json!({"NameContains": "g"})).await;
    assert_eq!(listed["ModelPackageGroupSummaryList"][0]["ModelPackageGroupArn"], arn);
    let cross = json!({"CrossAccountFilterOption": "CrossAccount"});
    assert!(
        app.refused("SageMaker.ListModelPackageGroups", cross).await.1.contains("CrossAccountFilterOption")
    );
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"][0]["Value"], "v");
    let version = registered(&app, json!({"ModelPackageGroupName": "G"})).await;
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": version})).await;
    assert_eq!(tags["Tags"][0]["Value"], "v", "a version has the tags of its group");
    let more = json!({"ResourceArn": version, "Tags": [{"Key": "a", "Value": "b"}]});
    assert!(app.refused("SageMaker.AddTags", more).await.1.contains("its group"));
    app.ok("SageMaker.DeleteModelPackage", json!({"ModelPackageName": version})).await;
    app.ok("SageMaker.DeleteModelPackageGroup", json!({"ModelPackageGroupName": "G"})).await;
    let (code, message) =
        app.refused("SageMaker.DescribeModelPackageGroup", json!({"ModelPackageGroupName": "G"})).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("does not exist"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_by_name() {
    let app = with_group(TestApp::new().await).await;
    for (change, code, text) in [
        (json!({"ModelPackageName": "x"}), "ValidationException", "cannot both be given"),
        (
            json!({"ModelPackageGroupName": "None"}),
            "ValidationException",
            "model-package-group/none does not exist",
        ),
        (json!({"ModelPackageGroupName": null}), "ValidationException", "must be given"),
        (json!({"Tags": [{"Key": "a", "Value": "b"}]}), "ValidationException", "Tags"),
        (json!({"CertifyForMarketplace": true}), "ValidationException", "CertifyForMarketplace"),
        (json!({"ManagedStorageType": "Restricted"}), "ValidationException", "ManagedStorageType"),
        (
            json!({"InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://models/a.tar.gz"}]}}),
            "ValidationException",
            "Image",
        ),
        (
            json!({"InferenceSpecification": specification("none.tar.gz")}),
            "ValidationException",
            "s3://models/none.tar.gz",
        ),
        (json!({"SourceUri": "mlflow://x"}), "ValidationException", "cannot both be given"),
        (
            json!({"SourceAlgorithmSpecification": {"SourceAlgorithms": [{"AlgorithmName": "algo"}]}}),
            "ValidationException",
            "algo does not exist",
        ),
        (
            json!({"ValidationSpecification": {"ValidationRole": ROLE, "ValidationProfiles": [{"ProfileName": "p", "TransformJobDefinition": {
                "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://models/in"}}},
                "TransformOutput": {"S3OutputPath": "s3://models/out"},
                "TransformResources": {"InstanceType": "ml.odd.large", "InstanceCount": 1}}}]}}),
            "ValidationException",
            "ml.odd.large",
        ),
    ] {
        let mut input = version("Churn");
        for (name, value) in change.as_object().unwrap() {
            input[name] = value.clone();
        }
        let refused = app.refused("SageMaker.CreateModelPackage", input).await;
        assert_eq!(refused.0, code, "{change}: {}", refused.1);
        assert!(refused.1.contains(text), "{change}: {}", refused.1);
    }
    let unversioned =
        json!({"ModelPackageName": "alone", "InferenceSpecification": specification("a.tar.gz")});
    let arn = registered(&app, unversioned.clone()).await;
    assert!(arn.ends_with(":model-package/alone"), "{arn}");
    assert_eq!(app.refused("SageMaker.CreateModelPackage", unversioned).await.0, "ConflictException");
    let listed = app.ok("SageMaker.ListModelPackages", json!({})).await;
    assert_eq!(
        listed["ModelPackageSummaryList"].as_array().unwrap().len(),
        1,
        "unversioned ones are the default"
    );
    let approval = json!({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"});
    assert!(app.refused("SageMaker.UpdateModelPackage", approval).await.1.contains("ModelApprovalStatus"));
}

#[tokio::test]
async fn updates_keep_who_and_why() {
    let app = with_group(TestApp::new().await).await;
    let arn = registered(&app, version("Churn")).await;
    let update = |more: Value| {
        let mut input = json!({"ModelPackageArn": arn});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    app.clock.advance(60_000);
    app.ok(
        "SageMaker.UpdateModelPackage",
        update(json!({"ModelApprovalStatus": "Rejected", "ApprovalDescription": "biased"})),
    )
    .await;
    approve(&app, &arn).await;
    app.ok(
        "SageMaker.UpdateModelPackage",
        update(json!({
            "CustomerMetadataProperties": {"a": "1", "b": "2"},
            "ModelLifeCycle": {"Stage": "Staging", "StageStatus": "Ready"},
            "AdditionalInferenceSpecificationsToAdd": [{"Name": "more", "Containers": [{"Image": "img:2"}]}],
        })),
    )
    .await;
    app.ok(
        "SageMaker.UpdateModelPackage",
        update(json!({"CustomerMetadataPropertiesToRemove": ["a"], "SourceUri": "mlflow://run"})),
    )
    .await;
    let twice = json!({"AdditionalInferenceSpecificationsToAdd": [{"Name": "more", "Containers": [{"Image": "img:3"}]}]});
    assert!(app.refused("SageMaker.UpdateModelPackage", update(twice)).await.1.contains("given twice"));
    let logged = json!({"ModelPackageRegistrationType": "Logged"});
    assert!(app.refused("SageMaker.UpdateModelPackage", update(logged)).await.1.contains("Logged"));

    let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": arn})).await;
    assert_eq!(shown["ModelApprovalStatus"], "Approved");
    assert_eq!(shown["ApprovalDescription"], "good");
    assert_eq!(shown["CustomerMetadataProperties"], json!({"b": "2"}));
    assert_eq!(shown["ModelLifeCycle"]["Stage"], "Staging");
    assert_eq!(shown["SourceUri"], "mlflow://run");
    assert_eq!(shown["AdditionalInferenceSpecifications"][0]["Name"], "more");
    assert!(shown["LastModifiedBy"]["IamIdentity"]["PrincipalId"].is_string());
    let history = app.ok("Modelyard.DescribeModelPackageHistory", json!({"ModelPackageName": arn})).await;
    let steps: Vec<(&str, &Value)> = history["History"]["Approvals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["To"].as_str().unwrap(), &step["Why"]))
        .collect();
    assert_eq!(
        steps,
        [
            ("PendingManualApproval", &Value::Null),
            ("Rejected", &json!("biased")),
            ("Approved", &json!("good"))
        ]
    );
    assert_eq!(history["History"]["Artifacts"][0]["Sha256"].as_str().unwrap().len(), 64);

    let events = app.ok("Modelyard.ListEvents", json!({"After": 0})).await;
    let states: Vec<&Value> = events["Events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["detail-type"] == MODEL_PACKAGE_STATE)
        .collect();
    assert_eq!(states.len(), 5);
    assert_eq!(states[1]["detail"]["ModelApprovalStatus"], "Rejected");
    assert_eq!(states[1]["resources"], json!([arn]));
    assert_eq!(states[0]["detail"]["CreationTime"], "2026-02-02T02:40:00Z");

    let arns = json!({"ModelPackageArnList": [arn, format!("{}9", arn)]});
    let many = app.ok("SageMaker.BatchDescribeModelPackage", arns).await;
    assert_eq!(many["ModelPackageSummaries"][&arn]["ModelPackageVersion"], 1);
    assert_eq!(
        many["BatchDescribeModelPackageErrorMap"][format!("{arn}9")]["ErrorCode"],
        "ValidationException"
    );
}

#[tokio::test]
async fn an_approved_package_becomes_a_model_while_its_artifact_is_what_was_registered() {
    let app = with_group(TestApp::new().await).await;
    let arn = registered(&app, version("Churn")).await;
    let (code, message) = app.refused("SageMaker.CreateModel", model_from(&arn)).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("PendingManualApproval"), "{message}");
    approve(&app, &arn).await;
    put(&app, "123456789012", "a.tar.gz", b"others").await;
    let (_, message) = app.refused("SageMaker.CreateModel", model_from(&arn)).await;
    assert!(message.contains("s3://models/a.tar.gz") && message.contains("SHA-256"), "{message}");
    put(&app, "123456789012", "a.tar.gz", b"weights").await;
    app.ok("SageMaker.CreateModel", model_from(&arn)).await;
    let shown = app.ok("SageMaker.DescribeModel", json!({"ModelName": "m"})).await;
    let container = &shown["Containers"][0];
    assert_eq!(container["ModelPackageName"], arn);
    assert_eq!(container["Image"], "img:1");
    assert_eq!(container["ModelDataUrl"], "s3://models/a.tar.gz");
    assert_eq!(container["Environment"], json!({"A": "1", "B": "2"}));

    let (code, message) = app.refused("SageMaker.DeleteModelPackage", json!({"ModelPackageName": arn})).await;
    assert_eq!(code, "ConflictException");
    assert!(message.contains("model/m"), "{message}");
    // A package can be registered from a model.
    let from_model = json!({"ModelPackageGroupName": "Churn", "SourceUri": shown["ModelArn"]});
    let second = registered(&app, from_model).await;
    let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": second})).await;
    assert_eq!(shown["InferenceSpecification"]["Containers"][0]["ModelDataUrl"], "s3://models/a.tar.gz");
    app.ok("SageMaker.DeleteModel", json!({"ModelName": "m"})).await;
    app.ok("SageMaker.DeleteModelPackage", json!({"ModelPackageName": arn})).await;

    let mut logged = version("Churn");
    logged["ModelPackageRegistrationType"] = json!("Logged");
    let logged = registered(&app, logged).await;
    assert!(app.refused("SageMaker.CreateModel", model_from(&logged)).await.1.contains("Logged"));
    let both = json!({"ModelName": "m", "PrimaryContainer": {"Image": "i", "ModelPackageName": logged}});
    assert!(app.refused("SageMaker.CreateModel", both).await.1.contains("cannot both be given"));
    let alone =
        json!({"ModelName": "m", "PrimaryContainer": {"Image": "i", "InferenceSpecificationName": "x"}});
    assert!(app.refused("SageMaker.CreateModel", alone).await.1.contains("ModelPackageName"));
}

#[tokio::test]
async fn another_account_may_do_what_the_policy_of_a_group_says() {
    let app = with_group(TestApp::new().await).await;
    let arn = registered(&app, version("Churn")).await;
    approve(&app, &arn).await;
    let other: Key = app.other_account("999999999999").await;
    let describe = || app.call_as("SageMaker.DescribeModelPackage", json!({"ModelPackageName": arn}), &other);
    let refused = |target: &'static str, input: Value| {
        let (app, other) = (&app, &other);
        async move { app.refused_as(target, input, other).await }
    };
    let (code, message) = refused("SageMaker.DescribeModelPackage", json!({"ModelPackageName": arn})).await;
    assert_eq!(code, "AccessDeniedException");
    assert!(
        message.contains("no resource-based policy allows the sagemaker:DescribeModelPackage action"),
        "{message}"
    );
    let missing = json!({"ModelPackageName": format!("{arn}7")});
    assert_eq!(refused("SageMaker.DescribeModelPackage", missing).await.0, "AccessDeniedException");

    let group = "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/churn";
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Sid": "Share", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::999999999999:root"},
        "Action": ["sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", "sagemaker:CreateModel"],
        "Resource": [group, format!("{}/*", group.replace("-group", ""))],
    }]});
    let put_policy = |policy: String| json!({"ModelPackageGroupName": "Churn", "ResourcePolicy": policy});
    let (_, message) = app.refused("SageMaker.PutModelPackageGroupPolicy", put_policy("{}".into())).await;
    assert!(message.contains("ResourcePolicy"), "{message}");
    let get = json!({"ModelPackageGroupName": "Churn"});
    assert!(app.refused("SageMaker.GetModelPackageGroupPolicy", get.clone()).await.1.contains("Cannot find"));
    app.ok("SageMaker.PutModelPackageGroupPolicy", put_policy(policy.to_string())).await;
    assert_eq!(
        app.ok("SageMaker.GetModelPackageGroupPolicy", get.clone()).await["ResourcePolicy"],
        policy.to_string()
    );

    assert_eq!(describe().await.status, 200);
    let listed =
        app.call_as("SageMaker.ListModelPackages", json!({"ModelPackageGroupName": group}), &other).await;
    assert_eq!(listed.json()["ModelPackageSummaryList"][0]["ModelPackageArn"], arn);
    let update = json!({"ModelPackageArn": arn, "ModelApprovalStatus": "Rejected"});
    assert_eq!(refused("SageMaker.UpdateModelPackage", update).await.0, "AccessDeniedException");
    let mut model = model_from(&arn);
    model["ExecutionRoleArn"] = json!("arn:aws:iam::999999999999:role/ModelyardExecutionRole");
    let made = app.call_as("SageMaker.CreateModel", model, &other).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(made.json()["ModelArn"], "arn:aws:sagemaker:us-east-1:999999999999:model/m");
    let delete = app.refused("SageMaker.DeleteModelPackage", json!({"ModelPackageName": arn})).await;
    assert!(delete.1.contains("999999999999:model/m"), "{}", delete.1);

    app.ok("SageMaker.DeleteModelPackageGroupPolicy", get).await;
    assert_eq!(describe().await.status, 400);
}

#[tokio::test]
async fn an_author_does_not_approve_where_the_settings_say_so() {
    let app = TestApp::with(|config| config.registry.approver_is_not_author = true).await;
    let app = with_group(app).await;
    let mut approved = version("Churn");
    approved["ModelApprovalStatus"] = json!("Approved");
    assert_eq!(app.refused("SageMaker.CreateModelPackage", approved).await.0, "AccessDeniedException");
    let arn = registered(&app, version("Churn")).await;
    let update = json!({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"});
    let (code, message) = app.refused("SageMaker.UpdateModelPackage", update.clone()).await;
    assert_eq!(code, "AccessDeniedException");
    assert!(message.contains("approver_is_not_author"), "{message}");
    let now_ms = app.clock.now_ms();
    let ann = server::identity::create_key(&app.app.database, "123456789012".into(), "ann".into(), now_ms)
        .await
        .unwrap();
    let ann = Key {
        access_key_id: ann.access_key_id,
        secret_access_key: ann.secret_access_key,
        session_token: None,
    };
    assert_eq!(app.call_as("SageMaker.UpdateModelPackage", update, &ann).await.status, 200);
    let change = json!({"ModelPackageArn": arn, "InferenceSpecification": specification("a.tar.gz")});
    assert!(app.refused("SageMaker.UpdateModelPackage", change).await.1.contains("PendingManualApproval"));
}

/// A validation whose transform job finds no input.
fn validation() -> Value {
    json!({"ValidationRole": ROLE, "ValidationProfiles": [{"ProfileName": "smoke", "TransformJobDefinition": {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://models/nothing/"}}},
        "TransformOutput": {"S3OutputPath": "s3://models/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1}}}]})
}

#[tokio::test]
async fn a_package_is_completed_or_failed_by_its_validation() {
    let app = with_group(TestApp::new().await).await;
    let mut input = version("Churn");
    input["ModelApprovalStatus"] = "Approved".into();
    input["ValidationSpecification"] = validation();
    let arn = registered(&app, input.clone()).await;
    let failed = app.until("the validation ends", || async {
        let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": arn})).await;
        (shown["ModelPackageStatus"] == "Failed").then_some(shown)
    });
    let failed = failed.await;
    let details = &failed["ModelPackageStatusDetails"];
    assert_eq!(details["ImageScanStatuses"], json!([]));
    let [status] = details["ValidationStatuses"].as_array().unwrap().as_slice() else { panic!("{details}") };
    assert_eq!((&status["Name"], &status["Status"]), (&json!("smoke"), &json!("Failed")));
    assert!(status["FailureReason"].as_str().unwrap().contains("s3://models/nothing/"), "{status}");
    assert_eq!(failed["ValidationSpecification"], validation());
    let (code, message) = app.refused("SageMaker.CreateModel", model_from(&arn)).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("its status is Failed"), "{message}");
    let jobs = app.ok("SageMaker.ListTransformJobs", json!({"NameContains": "validation-smoke-"})).await;
    let name = jobs["TransformJobSummaries"][0]["TransformJobName"].as_str().unwrap();
    app.refused("SageMaker.DescribeModel", json!({"ModelName": name})).await;

    input["SkipModelValidation"] = "All".into();
    let skipped = registered(&app, input).await;
    let shown = app.ok("SageMaker.DescribeModelPackage", json!({"ModelPackageName": skipped})).await;
    assert_eq!(shown["ModelPackageStatus"], "Completed");
    app.ok("SageMaker.CreateModel", model_from(&skipped)).await;
}
