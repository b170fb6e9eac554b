//! Search over training jobs and other kinds, and suggestions for it.

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
    let (_, message) = app.refused("SageMaker.Search", json!({"Resource": "FeatureGroup"})).await;
    assert!(message.contains("FeatureGroup"), "{message}");
}

#[tokio::test]
async fn search_pages_and_sorts_every_kind() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "exp"})).await;
    app.ok("SageMaker.CreateTrial", json!({"TrialName": "trial", "ExperimentName": "exp"})).await;
    for number in 0..25 {
        app.clock.advance(1_000);
        let name = format!("run-{number:02}");
        let component = json!({
            "TrialComponentName": name, "Parameters": {"lr": {"NumberValue": f64::from(number) / 10.0}},
            "Tags": [{"Key": "half", "Value": if number < 12 { "first" } else { "second" }}],
        });
        app.ok("SageMaker.CreateTrialComponent", component).await;
        if number % 5 == 0 {
            app.ok(
                "SageMaker.AssociateTrialComponent",
                json!({"TrialComponentName": name, "TrialName": "trial"}),
            )
            .await;
        }
    }
    let all = |mut input: Value| {
        let app = &app;
        async move {
            input["Resource"] = "ExperimentTrialComponent".into();
            let mut names = Vec::new();
            loop {
                let page = app.ok("SageMaker.Search", input.clone()).await;
                for row in page["Results"].as_array().unwrap() {
                    names.push(row["TrialComponent"]["TrialComponentName"].as_str().unwrap().to_owned());
                }
                match page["NextToken"].as_str() {
                    Some(token) => input["NextToken"] = token.into(),
                    None => return names,
                }
            }
        }
    };
    let filters = |filters: Value| json!({"SearchExpression": {"Filters": filters}, "MaxResults": 3});
    let newest_first = all(json!({"MaxResults": 7})).await;
    assert_eq!(
        (newest_first.len(), newest_first[0].as_str(), newest_first[24].as_str()),
        (25, "run-24", "run-00")
    );
    let by_rate = all(json!({"SortBy": "Parameters.lr", "SortOrder": "Ascending", "MaxResults": 4})).await;
    assert_eq!(by_rate, newest_first.iter().rev().cloned().collect::<Vec<_>>());
    let one = |name: &str, operator: &str, value: &str| json!([{"Name": name, "Operator": operator, "Value": value}]);
    assert_eq!(all(filters(one("Tags.half", "Equals", "first"))).await.len(), 12);
    assert_eq!(all(filters(one("Parents.ExperimentName", "Equals", "exp"))).await.len(), 5);
    assert_eq!(all(filters(one("Parents.TrialName", "Equals", "trial"))).await.len(), 5);
    assert_eq!(all(filters(one("Parameters.lr", "LessThan", "0.35"))).await.len(), 4);
    assert_eq!(all(filters(one("TrialComponentName", "Equals", "run-07"))).await, ["run-07"]);
    assert_eq!(all(filters(one("TrialComponentName", "Contains", "run-1"))).await.len(), 10);
    assert_eq!(
        all(filters(one("CreationTime", "GreaterThanOrEqualTo", "2026-02-02T02:40:20Z"))).await.len(),
        6
    );
    let either = json!({"SearchExpression": {"Operator": "Or", "Filters": [
        {"Name": "TrialComponentName", "Operator": "Equals", "Value": "run-01"},
        {"Name": "Tags.half", "Operator": "Equals", "Value": "second"}]}});
    assert_eq!(all(either).await.len(), 14, "what is joined by Or does not narrow");
    for (resource, member) in [("Experiment", "Experiment"), ("ExperimentTrial", "Trial")] {
        let found = app.ok("SageMaker.Search", json!({"Resource": resource})).await;
        assert_eq!(
            found["Results"][0][member][format!("{member}Name")],
            if member == "Trial" { "trial" } else { "exp" }
        );
    }
    let suggested = app
        .ok(
            "SageMaker.GetSearchSuggestions",
            json!({"Resource": "ExperimentTrialComponent", "SuggestionQuery": {"PropertyNameQuery": {"PropertyNameHint": "par"}}}),
        )
        .await;
    let names: Vec<&str> = suggested["PropertyNameSuggestions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["PropertyName"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Parameters", "Parameters.lr", "Parents"]);
    let bad = json!({"Resource": "Experiment", "NextToken": "x", "SortBy": "Description"});
    let (_, text) = app.refused("SageMaker.Search", bad).await;
    assert!(text.contains("NextToken"), "{text}");
}

#[tokio::test]
async fn the_registry_is_searched() {
    let app = TestApp::new().await;
    super::model_packages::put(&app, "123456789012", "a.tar.gz", b"weights").await;
    let tags = json!([{"Key": "team", "Value": "blue"}]);
    app.ok("SageMaker.CreateModelPackageGroup", json!({"ModelPackageGroupName": "Churn", "Tags": tags}))
        .await;
    for key in ["first", "second"] {
        let container = json!({"Image": "img:1", "ModelDataUrl": "s3://models/a.tar.gz"});
        let package = json!({
            "ModelPackageGroupName": "Churn", "CustomerMetadataProperties": {"data": key},
            "InferenceSpecification": {"Containers": [container], "SupportedContentTypes": ["text/csv"]},
        });
        app.ok("SageMaker.CreateModelPackage", package).await;
    }
    let approval = json!({
        "ModelPackageArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/churn/2", "ModelApprovalStatus": "Approved",
    });
    app.ok("SageMaker.UpdateModelPackage", approval).await;
    let content = json!({"model_overview": {"model_owner": "ann"}, "intended_uses": {"risk_rating": "Low"}});
    let card = json!({"ModelCardName": "card", "Content": content.to_string(), "ModelCardStatus": "Draft"});
    app.ok("SageMaker.CreateModelCard", card).await;

    let only = |resource: &'static str, name: &'static str, value: &'static str| {
        let app = &app;
        async move {
            let filter = json!({"Name": name, "Operator": "Equals", "Value": value});
            let input = json!({"Resource": resource, "SearchExpression": {"Filters": [filter]}});
            let found = app.ok("SageMaker.Search", input).await;
            let rows = found["Results"].as_array().unwrap().clone();
            assert_eq!(rows.len(), 1, "{name} of {resource}: {rows:?}");
            rows[0][resource].clone()
        }
    };
    for (name, value) in [
        ("ModelApprovalStatus", "Approved"),
        ("CustomerMetadataProperties.data", "second"),
        ("ModelPackageVersion", "2"),
    ] {
        let package = only("ModelPackage", name, value).await;
        assert_eq!(
            (&package["ModelPackageGroupName"], &package["ModelPackageVersion"]),
            (&json!("Churn"), &json!(2))
        );
        assert_eq!(
            package["Tags"],
            json!([{"Key": "team", "Value": "blue"}]),
            "a version has the tags of its group"
        );
    }
    let group = only("ModelPackageGroup", "Tags.team", "blue").await;
    assert_eq!(
        (&group["ModelPackageGroupName"], &group["ModelPackageGroupStatus"]),
        (&json!("Churn"), &json!("Completed"))
    );
    let card = only("ModelCard", "RiskRating", "Low").await;
    assert_eq!((&card["ModelCardStatus"], &card["ModelCardVersion"]), (&json!("Draft"), &json!(1)));
}

#[tokio::test]
async fn pipelines_and_their_executions_are_searched() {
    let app = TestApp::new().await;
    let role = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";
    for (name, owner) in [("one", "ann"), ("two", "bob")] {
        let fail = json!({"Name": "Fail", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}});
        let parameters = json!([{"Name": "N", "Type": "Integer", "DefaultValue": 5}]);
        let definition = json!({"Version": "2020-12-01", "Parameters": parameters, "Steps": [fail]});
        let pipeline = json!({
            "PipelineName": name, "RoleArn": role, "PipelineDefinition": definition.to_string(),
            "ClientRequestToken": format!("{name:0>32}"), "Tags": [{"Key": "owner", "Value": owner}],
        });
        app.ok("SageMaker.CreatePipeline", pipeline).await;
    }
    let start = json!({
        "PipelineName": "two", "ClientRequestToken": format!("{:032}", 9), "PipelineExecutionDescription": "nightly",
        "PipelineParameters": [{"Name": "N", "Value": "7"}],
    });
    let execution = app.ok("SageMaker.StartPipelineExecution", start).await["PipelineExecutionArn"].clone();
    let search = |resource: &str, name: &str, value: &str| {
        let filter = json!({"Name": name, "Operator": "Equals", "Value": value});
        app.ok("SageMaker.Search", json!({"Resource": resource, "SearchExpression": {"Filters": [filter]}}))
    };
    let found = search("Pipeline", "Tags.owner", "bob").await;
    let pipeline = &found["Results"][0]["Pipeline"];
    assert_eq!(
        (&pipeline["PipelineName"], &pipeline["PipelineStatus"]),
        (&json!("two"), &json!("Active")),
        "{found}"
    );
    assert!(
        pipeline["LastRunTime"].is_number() && pipeline.get("PipelineDefinition").is_none(),
        "{pipeline}"
    );
    let found = search("PipelineExecution", "PipelineExecutionDescription", "nightly").await;
    let shown = &found["Results"][0]["PipelineExecution"];
    assert_eq!(shown["PipelineExecutionArn"], execution, "{found}");
    assert_eq!(shown["PipelineParameters"], json!([{"Name": "N", "Value": "7"}]));
    let other = search("PipelineExecution", "PipelineExecutionDescription", "daily").await;
    assert_eq!(other["Results"], json!([]));
}
