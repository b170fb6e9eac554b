//! Inference experiments that do not run: what is refused, kept, listed, changed and deleted. Those that run are in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

const NOW: f64 = 1_770_000_000.0;
const HOUR: f64 = 3600.0;

async fn app_with_models() -> TestApp {
    let app = TestApp::new().await;
    for name in ["m", "n"] {
        let model = json!({
            "ModelName": name, "PrimaryContainer": {"Image": "img:1"},
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        });
        app.ok("SageMaker.CreateModel", model).await;
    }
    app
}

fn variant(name: &str, model: &str) -> Value {
    json!({"VariantName": name, "ModelName": model, "InfrastructureConfig": {
        "InfrastructureType": "RealTimeInference",
        "RealTimeInferenceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }})
}

/// One that begins in an hour, on an endpoint that is not there yet.
fn experiment(name: &str) -> Value {
    json!({
        "Name": name, "Type": "ShadowMode", "EndpointName": "none",
        "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        "Schedule": {"StartTime": NOW + HOUR, "EndTime": NOW + 2.0 * HOUR},
        "ModelVariants": [variant("p", "m"), variant("s", "n")],
        "ShadowModeConfig": {
            "SourceModelVariantName": "p",
            "ShadowModelVariants": [{"ShadowModelVariantName": "s", "SamplingPercentage": 40}],
        },
        "Tags": [{"Key": "team", "Value": "a"}],
    })
}

async fn described(app: &TestApp, name: &str) -> Value {
    app.ok("SageMaker.DescribeInferenceExperiment", json!({"Name": name})).await
}

#[tokio::test]
async fn one_that_waits_for_its_time_is_shown_changed_cancelled_and_deleted() {
    let app = app_with_models().await;
    let made = app.ok("SageMaker.CreateInferenceExperiment", experiment("one")).await;
    let arn = made["InferenceExperimentArn"].as_str().unwrap();
    assert_eq!(arn, "arn:aws:sagemaker:us-east-1:123456789012:inference-experiment/one");
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    let shown = described(&app, "one").await;
    assert_eq!((&shown["Status"], &shown["Type"]), (&json!("Created"), &json!("ShadowMode")));
    assert_eq!(shown["Schedule"], json!({"StartTime": NOW + HOUR, "EndTime": NOW + 2.0 * HOUR}));
    assert_eq!(shown["EndpointMetadata"], json!({"EndpointName": "none"}));
    assert_eq!(shown["ModelVariants"][1]["Status"], "Creating");
    assert_eq!(shown["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"], 40);

    let change = json!({
        "Name": "one", "Description": "other", "Schedule": {"EndTime": NOW + 3.0 * HOUR},
        "ModelVariants": [variant("s", "m")],
        "ShadowModeConfig": {
            "SourceModelVariantName": "p",
            "ShadowModelVariants": [{"ShadowModelVariantName": "s", "SamplingPercentage": 50}],
        },
        "DataStorageConfig": {"Destination": "s3://b/p"},
    });
    app.ok("SageMaker.UpdateInferenceExperiment", change).await;
    let shown = described(&app, "one").await;
    assert_eq!((&shown["Status"], &shown["Description"]), (&json!("Created"), &json!("other")));
    assert_eq!(shown["Schedule"], json!({"StartTime": NOW + HOUR, "EndTime": NOW + 3.0 * HOUR}));
    assert_eq!(
        (&shown["ModelVariants"][0]["ModelName"], &shown["ModelVariants"][1]["ModelName"]),
        (&json!("m"), &json!("m"))
    );
    assert_eq!(shown["DataStorageConfig"]["Destination"], "s3://b/p");

    let stop = json!({"Name": "one", "ModelVariantActions": {"p": "Retain"}, "Reason": "not now"});
    app.ok("SageMaker.StopInferenceExperiment", stop.clone()).await;
    let shown = described(&app, "one").await;
    assert_eq!((&shown["Status"], &shown["StatusReason"]), (&json!("Cancelled"), &json!("not now")));
    assert_eq!(shown["CompletionTime"], NOW);
    assert_eq!(shown["ModelVariants"][1]["Status"], "Deleted");
    for (operation, input) in [
        ("Stop", stop),
        ("Start", json!({"Name": "one"})),
        ("Update", json!({"Name": "one", "Description": "late"})),
    ] {
        let (code, message) = app.refused(&format!("SageMaker.{operation}InferenceExperiment"), input).await;
        assert_eq!(code, "ConflictException", "{message}");
        assert!(message.contains("one is Cancelled"), "{message}");
    }
    app.ok("SageMaker.DeleteInferenceExperiment", json!({"Name": "one"})).await;
    for operation in ["Describe", "Delete", "Start"] {
        let target = format!("SageMaker.{operation}InferenceExperiment");
        let (code, message) = app.refused(&target, json!({"Name": "one"})).await;
        assert_eq!(code, "ResourceNotFound", "{message}");
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let app = app_with_models().await;
    for name in ["one", "two", "three"] {
        let mut given = experiment(name);
        given["EndpointName"] = json!(name);
        app.ok("SageMaker.CreateInferenceExperiment", given).await;
        app.clock.advance(1000);
    }
    let stop = json!({"Name": "two", "ModelVariantActions": {"s": "Remove"}});
    app.ok("SageMaker.StopInferenceExperiment", stop).await;
    let names = |page: &Value| -> Vec<String> {
        let list = page["InferenceExperiments"].as_array().unwrap();
        list.iter().map(|one| one["Name"].as_str().unwrap().to_owned()).collect()
    };
    let list = |input: Value| app.ok("SageMaker.ListInferenceExperiments", input);
    let all = list(json!({})).await;
    assert_eq!(names(&all), ["three", "two", "one"], "the newest first");
    assert_eq!(all["InferenceExperiments"][1]["CompletionTime"], NOW + 3.0);
    assert_eq!(
        names(&list(json!({"StatusEquals": "Created", "SortBy": "Name", "SortOrder": "Ascending"})).await),
        ["one", "three"]
    );
    assert_eq!(names(&list(json!({"NameContains": "t", "Type": "ShadowMode"})).await), ["three", "two"]);
    let page = list(json!({"MaxResults": 2})).await;
    let rest = list(json!({"MaxResults": 2, "NextToken": page["NextToken"]})).await;
    assert_eq!((names(&page).len(), names(&rest)), (2, vec!["one".to_owned()]));
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_by_name() {
    let app = app_with_models().await;
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 10] = [
        (|given| given["KmsKey"] = json!("alias/a"), "KmsKey"),
        (|given| given["Type"] = json!("Other"), "ype"),
        (
            |given| given["RoleArn"] = json!("arn:aws:iam::123456789012:role/nobody-there"),
            "Could not assume role",
        ),
        (|given| given["ModelVariants"] = json!([variant("p", "m")]), "two variants"),
        (|given| given["ModelVariants"][1]["ModelName"] = json!("none"), "Could not find model"),
        (
            |given| given["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = json!(101),
            "amplingPercentage",
        ),
        (|given| given["ShadowModeConfig"]["SourceModelVariantName"] = json!("x"), "SourceModelVariantName"),
        (|given| given["Schedule"]["EndTime"] = json!(NOW + HOUR), "EndTime"),
        (|given| given["Schedule"]["EndTime"] = json!(NOW + 32.0 * 24.0 * HOUR), "30 days"),
        (
            |given| given["DataStorageConfig"] = json!({"Destination": "https://b/p"}),
            "DataStorageConfig.Destination",
        ),
    ];
    for (change, named) in cases {
        let mut given = experiment("one");
        change(&mut given);
        let (code, message) = app.refused("SageMaker.CreateInferenceExperiment", given).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.contains(named), "{named}: {message}");
    }
    app.ok("SageMaker.CreateInferenceExperiment", experiment("one")).await;
    let (code, message) = app.refused("SageMaker.CreateInferenceExperiment", experiment("one")).await;
    assert_eq!(code, "ResourceInUse", "{message}");
    let (code, message) = app.refused("SageMaker.CreateInferenceExperiment", experiment("two")).await;
    assert_eq!(code, "ResourceInUse", "{message}");
    assert!(message.contains("inference experiment one"), "{message}");
    let mut later = experiment("two");
    later["Schedule"] = json!({"StartTime": NOW + 2.0 * HOUR, "EndTime": NOW + 3.0 * HOUR});
    app.ok("SageMaker.CreateInferenceExperiment", later).await;
    // Begun by hand it would take the other one's time.
    let (code, message) = app.refused("SageMaker.StartInferenceExperiment", json!({"Name": "two"})).await;
    assert_eq!(code, "ResourceInUse", "{message}");
    assert!(message.contains("inference experiment one"), "{message}");
    let earlier = json!({"Name": "two", "Schedule": {"StartTime": NOW + 1.5 * HOUR}});
    let (code, message) = app.refused("SageMaker.UpdateInferenceExperiment", earlier).await;
    assert_eq!(code, "ResourceInUse", "{message}");
    let stop = |actions: Value| json!({"Name": "one", "ModelVariantActions": actions});
    for (actions, named) in [
        (json!({"x": "Remove"}), "no variant \"x\""),
        (json!({"p": "Promote"}), "production variant already"),
        (json!({"p": "Remove"}), "promote s"),
    ] {
        let (code, message) = app.refused("SageMaker.StopInferenceExperiment", stop(actions)).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(named), "{named}: {message}");
    }
    let mut input = stop(json!({"s": "Promote"}));
    input["DesiredModelVariants"] = json!([variant("p", "m")]);
    let (_, message) = app.refused("SageMaker.StopInferenceExperiment", input).await;
    assert!(message.contains("DesiredModelVariants"), "{message}");
}

#[tokio::test]
async fn of_several_made_at_once_for_an_endpoint_one_is_taken() {
    let app = app_with_models().await;
    let names = ["a", "b", "c", "d"];
    let made = names.map(|name| app.call("SageMaker.CreateInferenceExperiment", experiment(name)));
    let answers = futures::future::join_all(made).await;
    let mut codes: Vec<_> =
        answers.iter().map(|answer| answer.json()["__type"].as_str().map(str::to_owned)).collect();
    codes.sort();
    let refused = Some("ResourceInUse".to_owned());
    assert_eq!(codes, [None, refused.clone(), refused.clone(), refused]);
    let listed = app.ok("SageMaker.ListInferenceExperiments", json!({})).await;
    assert_eq!(listed["InferenceExperiments"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_made_cancels_its_experiment() {
    let app = app_with_models().await;
    let mut given = experiment("one");
    given["EndpointName"] = json!("made");
    app.ok("SageMaker.CreateInferenceExperiment", given).await;
    assert_eq!(described(&app, "one").await["Status"], "Created");
    app.clock.advance(3_600_000);
    // The image is none that there is.
    let ended = app
        .until("the experiment is cancelled", || async {
            let shown = described(&app, "one").await;
            (shown["Status"] == "Cancelled").then_some(shown)
        })
        .await;
    assert!(!ended["StatusReason"].as_str().unwrap_or_default().is_empty(), "{ended}");
    assert_eq!(ended["EndpointMetadata"]["EndpointStatus"], "Failed");
    assert_eq!(ended["Schedule"]["StartTime"], NOW + HOUR);
}
