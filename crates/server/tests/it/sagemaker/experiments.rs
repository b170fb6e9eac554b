//! Experiments, trials, trial components and their metrics.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp, training_job};

/// Calls an operation of `sagemaker-metrics`.
pub(super) async fn metrics(app: &TestApp, operation: &str, input: Value) -> Answer {
    let method = if operation == "BatchPutMetrics" { "PUT" } else { "POST" };
    let request = Request::builder()
        .method(method)
        .uri(format!("/{operation}"))
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    app.send_signed(request, Bytes::from(input.to_string()), "sagemaker", &app.key()).await
}

async fn names(app: &TestApp, operation: &str, input: Value, list: &str, name: &str) -> Vec<String> {
    let listed = app.ok(&format!("SageMaker.{operation}"), input).await;
    listed[list].as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

async fn group(app: &TestApp) {
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "Exp", "Description": "d"})).await;
    app.ok("SageMaker.CreateTrial", json!({"TrialName": "trial", "ExperimentName": "exp"})).await;
}

#[tokio::test]
async fn experiments_hold_trials_and_trials_components() {
    let app = TestApp::new().await;
    group(&app).await;
    let (code, text) = app.refused("SageMaker.CreateExperiment", json!({"ExperimentName": "exp"})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("already exists"), "the SDK loads what exists by this text: {text}");
    let (code, _) =
        app.refused("SageMaker.CreateTrial", json!({"TrialName": "t", "ExperimentName": "none"})).await;
    assert_eq!(code, "ResourceNotFound");
    let (code, _) = app.refused("SageMaker.DescribeTrial", json!({"TrialName": "t"})).await;
    assert_eq!(code, "ResourceNotFound", "a trial that was refused is not there");

    let shown = app.ok("SageMaker.DescribeExperiment", json!({"ExperimentName": "Exp"})).await;
    assert_eq!((shown["DisplayName"].as_str(), shown["Description"].as_str()), (Some("Exp"), Some("d")));
    assert!(shown["CreatedBy"]["IamIdentity"]["Arn"].is_string(), "{shown}");
    app.clock.advance(1_000);
    app.ok("SageMaker.UpdateExperiment", json!({"ExperimentName": "Exp", "DisplayName": "shown"})).await;
    let shown = app.ok("SageMaker.DescribeExperiment", json!({"ExperimentName": "Exp"})).await;
    assert_eq!(shown["DisplayName"], "shown");
    assert!(shown["LastModifiedTime"].as_f64() > shown["CreationTime"].as_f64());
    app.ok("SageMaker.UpdateTrial", json!({"TrialName": "trial", "DisplayName": "T"})).await;
    let shown = app.ok("SageMaker.DescribeTrial", json!({"TrialName": "trial"})).await;
    assert_eq!((shown["DisplayName"].as_str(), shown["ExperimentName"].as_str()), (Some("T"), Some("exp")));

    for name in ["a", "b"] {
        app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": name})).await;
    }
    let pair = json!({"TrialComponentName": "a", "TrialName": "trial"});
    for _ in 0..2 {
        app.ok("SageMaker.AssociateTrialComponent", pair.clone()).await;
    }
    let components = |input: Value| {
        names(&app, "ListTrialComponents", input, "TrialComponentSummaries", "TrialComponentName")
    };
    assert_eq!(components(json!({"TrialName": "trial"})).await, ["a"]);
    assert_eq!(components(json!({"ExperimentName": "Exp"})).await, ["a"]);
    assert_eq!(components(json!({"SortBy": "Name", "SortOrder": "Ascending"})).await, ["a", "b"]);
    let trials = |input: Value| names(&app, "ListTrials", input, "TrialSummaries", "TrialName");
    assert_eq!(trials(json!({"TrialComponentName": "a"})).await, ["trial"]);
    assert_eq!(trials(json!({"ExperimentName": "exp"})).await, ["trial"]);
    assert!(trials(json!({"TrialComponentName": "b"})).await.is_empty());
    assert_eq!(
        names(&app, "ListExperiments", json!({}), "ExperimentSummaries", "ExperimentName").await,
        ["Exp"]
    );

    for (operation, input) in [
        ("DeleteExperiment", json!({"ExperimentName": "Exp"})),
        ("DeleteTrial", json!({"TrialName": "trial"})),
        ("DeleteTrialComponent", json!({"TrialComponentName": "a"})),
    ] {
        let (code, text) = app.refused(&format!("SageMaker.{operation}"), input).await;
        assert_eq!(code, "ValidationException", "{operation}: {text}");
    }
    app.ok("SageMaker.DisassociateTrialComponent", pair.clone()).await;
    let (code, _) = app.refused("SageMaker.DisassociateTrialComponent", pair).await;
    assert_eq!(code, "ResourceNotFound");
    for (operation, input) in [
        ("DeleteTrialComponent", json!({"TrialComponentName": "a"})),
        ("DeleteTrial", json!({"TrialName": "trial"})),
        ("DeleteExperiment", json!({"ExperimentName": "exp"})),
    ] {
        app.ok(&format!("SageMaker.{operation}"), input).await;
    }
    assert!(trials(json!({})).await.is_empty());
}

#[tokio::test]
async fn components_take_parameters_and_give_them_up() {
    let app = TestApp::new().await;
    let both =
        json!({"TrialComponentName": "a", "Parameters": {"x": {"StringValue": "1", "NumberValue": 1}}});
    let (_, text) = app.refused("SageMaker.CreateTrialComponent", both).await;
    assert!(text.contains("Parameters.x"), "{text}");
    app.ok(
        "SageMaker.CreateTrialComponent",
        json!({"TrialComponentName": "a", "Parameters": {"x": {"NumberValue": 1}, "y": {"StringValue": "s"}},
               "Status": {"PrimaryStatus": "InProgress"}, "StartTime": 1_770_000_000}),
    )
    .await;
    let update = json!({
        "TrialComponentName": "a", "Parameters": {"z": {"NumberValue": 2.5}}, "ParametersToRemove": ["x"],
        "OutputArtifacts": {"model": {"Value": "s3://b/m", "MediaType": "application/gzip"}},
        "Status": {"PrimaryStatus": "Completed"}, "EndTime": 1_770_000_001.5,
    });
    app.ok("SageMaker.UpdateTrialComponent", update).await;
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:experiment-trial-component/a";
    let shown = app.ok("SageMaker.DescribeTrialComponent", json!({"TrialComponentName": arn})).await;
    assert_eq!(shown["Parameters"], json!({"y": {"StringValue": "s"}, "z": {"NumberValue": 2.5}}));
    assert_eq!(shown["OutputArtifacts"]["model"]["Value"], "s3://b/m");
    assert_eq!(
        (&shown["Status"]["PrimaryStatus"], shown["EndTime"].as_f64()),
        (&json!("Completed"), Some(1_770_000_001.5))
    );
    let many: serde_json::Map<String, Value> =
        (0..299).map(|number| (format!("p{number}"), json!({"NumberValue": number}))).collect();
    let (_, text) = app
        .refused("SageMaker.UpdateTrialComponent", json!({"TrialComponentName": "a", "Parameters": many}))
        .await;
    assert!(text.contains("300"), "{text}");
    // Another account sees nothing of it.
    let other = app.other_account("210987654321").await;
    let asked = json!({"TrialComponentName": "a"});
    let (code, _) = app.refused_as("SageMaker.DescribeTrialComponent", asked, &other).await;
    assert_eq!(code, "ResourceNotFound");
    app.ok("SageMaker.AddTags", json!({"ResourceArn": arn, "Tags": [{"Key": "k", "Value": "v"}]})).await;
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "k", "Value": "v"}]));
}

#[tokio::test]
async fn points_are_summed_up_and_read_again() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "run"})).await;
    let answer = metrics(
        &app,
        "BatchPutMetrics",
        json!({"TrialComponentName": "none", "MetricData": [
        {"MetricName": "m", "Timestamp": 1_770_000_000, "Value": 1.0}]}),
    )
    .await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    for batch in 0..13 {
        let points: Vec<Value> = (0..10)
            .map(|number| {
                let step = batch * 10 + number;
                json!({"MetricName": "loss", "Timestamp": 1_770_000_000 + step, "Step": step, "Value": f64::from(step)})
            })
            .collect();
        let answer =
            metrics(&app, "BatchPutMetrics", json!({"TrialComponentName": "run", "MetricData": points}))
                .await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "{}"));
    }
    let shown = app.ok("SageMaker.DescribeTrialComponent", json!({"TrialComponentName": "run"})).await;
    let summary = &shown["Metrics"][0];
    assert_eq!(
        (&summary["Count"], &summary["Min"], &summary["Max"]),
        (&json!(130), &json!(0.0), &json!(129.0))
    );
    assert_eq!((&summary["Last"], &summary["Avg"]), (&json!(129.0), &json!(64.5)));
    assert!((summary["StdDev"].as_f64().unwrap() - 37.527).abs() < 0.01, "{summary}");
    let arn = shown["TrialComponentArn"].clone();
    let query = |more: Value| {
        let mut query = json!({"MetricName": "loss", "ResourceArn": arn, "MetricStat": "Last",
            "Period": "IterationNumber", "XAxisType": "IterationNumber"});
        query.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        query
    };
    let queries = json!({"MetricQueries": [
        query(json!({"Start": 125, "End": 127})),
        query(json!({"Period": "OneMinute", "XAxisType": "Timestamp", "MetricStat": "Count"})),
        query(json!({"MetricName": "other"})),
        query(json!({"Period": "OneMinute"})),
    ]});
    let results = metrics(&app, "BatchGetMetrics", queries).await.json()["MetricQueryResults"].clone();
    assert_eq!(results[0]["XAxisValues"], json!([125, 126, 127]));
    assert_eq!(results[0]["MetricValues"], json!([125.0, 126.0, 127.0]));
    assert_eq!(results[0]["Status"], "Complete");
    let counted: f64 =
        results[1]["MetricValues"].as_array().unwrap().iter().map(|count| count.as_f64().unwrap()).sum();
    assert_eq!(counted, 130.0);
    assert_eq!(
        (&results[2]["Status"], &results[3]["Status"]),
        (&json!("ValidationError"), &json!("ValidationError"))
    );
    app.ok("SageMaker.DeleteTrialComponent", json!({"TrialComponentName": "run"})).await;
    app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "run"})).await;
    let shown = app.ok("SageMaker.DescribeTrialComponent", json!({"TrialComponentName": "run"})).await;
    assert_eq!(shown["Metrics"], json!([]), "a new component begins without points");
}

#[tokio::test]
async fn jobs_make_components_where_their_configuration_says() {
    let app = TestApp::new().await;
    group(&app).await;
    app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "run"})).await;
    let job = |name: &str, config: Value| {
        let mut job = training_job(name);
        job["HyperParameters"] = json!({"lr": "0.1", "kind": "\"a\""});
        job["ExperimentConfig"] = config;
        job
    };
    for (config, field) in [
        (json!({"ExperimentName": "none"}), "ExperimentConfig.ExperimentName"),
        (json!({"TrialName": "none"}), "ExperimentConfig.TrialName"),
        (json!({"ExperimentName": "exp", "RunName": "none"}), "ExperimentConfig.RunName"),
    ] {
        let (code, text) = app.refused("SageMaker.CreateTrainingJob", job("refused", config)).await;
        assert_eq!(code, "ValidationException");
        assert!(text.contains(field), "{text}");
    }
    let config = json!({"ExperimentName": "exp", "TrialName": "trial", "TrialComponentDisplayName": "shown", "RunName": "run"});
    let arn = app.ok("SageMaker.CreateTrainingJob", job("in-trial", config)).await["TrainingJobArn"].clone();
    app.ok("SageMaker.CreateTrainingJob", job("alone", json!({"ExperimentName": "exp"}))).await;
    let listed = app.ok("SageMaker.ListTrialComponents", json!({"SourceArn": arn})).await;
    assert_eq!(listed["TrialComponentSummaries"][0]["TrialComponentName"], "in-trial-aws-training-job");
    let asked = json!({"TrialComponentName": "in-trial-aws-training-job"});
    let shown = app.ok("SageMaker.DescribeTrialComponent", asked).await;
    assert_eq!(shown["Source"], json!({"SourceArn": arn, "SourceType": "SageMakerTrainingJob"}));
    assert_eq!(shown["DisplayName"], "shown");
    assert_eq!(shown["Parameters"]["lr"], json!({"NumberValue": 0.1}));
    assert_eq!(shown["Parameters"]["SageMaker.InstanceCount"], json!({"NumberValue": 1}));
    let found = app
        .ok(
            "SageMaker.Search",
            json!({"Resource": "ExperimentTrialComponent", "SearchExpression": {"Filters": [
                {"Name": "RunName", "Operator": "Equals", "Value": "run"}]}}),
        )
        .await;
    assert_eq!(
        found["Results"][0]["TrialComponent"]["Parents"],
        json!([{"TrialName": "trial", "ExperimentName": "Exp"}])
    );
    let trials = names(
        &app,
        "ListTrials",
        json!({"ExperimentName": "Exp", "SortBy": "Name"}),
        "TrialSummaries",
        "TrialName",
    );
    assert_eq!(trials.await, ["trial", "alone-aws-trial"]);
    let run_arn = "arn:aws:sagemaker:us-east-1:123456789012:experiment-trial-component/run";
    let edges = app.ok("SageMaker.ListAssociations", json!({"DestinationArn": run_arn})).await;
    assert_eq!(edges["AssociationSummaries"][0]["SourceType"], "SageMakerTrainingJob", "{edges}");
}
