//! Pipelines: definitions, versions, executions of steps that need no job, retries, selection.

use serde_json::{Value, json};

use crate::app::TestApp;

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

fn token(at: u32) -> String {
    format!("{at:032}")
}

fn model(name: &str, image: &Value) -> Value {
    json!({"Name": name, "Type": "Model", "Arguments": {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": image, "Environment": null}}})
}

/// A model, a condition on a number, and a model or a failure after it.
fn definition() -> Value {
    let first = model(
        "First",
        &json!({"Std:Join": {"On": ":", "Values": ["repository", {"Get": "Parameters.Tag"}]}}),
    );
    let second = model("Second", &json!({"Get": "Steps.First.PrimaryContainer.Image"}));
    let fail = json!({"Name": "TooLow", "Type": "Fail", "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": ["N is", {"Get": "Parameters.N"}]}}}});
    json!({
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [
            {"Name": "N", "Type": "Integer", "DefaultValue": 5},
            {"Name": "Tag", "Type": "String", "DefaultValue": "latest"},
        ],
        "PipelineExperimentConfig": {"ExperimentName": {"Get": "Execution.PipelineName"}, "TrialName": {"Get": "Execution.PipelineExecutionId"}},
        "Steps": [
            first,
            {"Name": "Enough", "Type": "Condition", "DependsOn": ["First"], "Arguments": {
                "Conditions": [{"Type": "GreaterThan", "LeftValue": {"Get": "Parameters.N"}, "RightValue": 1}],
                "IfSteps": [second], "ElseSteps": [fail]}},
        ],
    })
}

async fn create(app: &TestApp, name: &str, definition: &Value) -> Value {
    let input = json!({"PipelineName": name, "RoleArn": ROLE, "PipelineDefinition": definition.to_string(), "ClientRequestToken": token(1)});
    app.ok("SageMaker.CreatePipeline", input).await
}

/// Starts an execution and waits for its end.
async fn run(app: &TestApp, input: Value) -> Value {
    let started = app.ok("SageMaker.StartPipelineExecution", input).await;
    ended(app, started["PipelineExecutionArn"].as_str().unwrap()).await
}

async fn ended(app: &TestApp, arn: &str) -> Value {
    app.until(&format!("{arn} ends"), || async {
        let execution =
            app.ok("SageMaker.DescribePipelineExecution", json!({"PipelineExecutionArn": arn})).await;
        let status = execution["PipelineExecutionStatus"].as_str().unwrap();
        matches!(status, "Succeeded" | "Failed" | "Stopped").then_some(execution)
    })
    .await
}

/// Name, status, attempts of each step in the order in which they began.
async fn steps(app: &TestApp, execution: &Value) -> Vec<Value> {
    let input = json!({"PipelineExecutionArn": execution["PipelineExecutionArn"], "SortOrder": "Ascending", "MaxResults": 100});
    let listed = app.ok("SageMaker.ListPipelineExecutionSteps", input).await;
    let mut steps = listed["PipelineExecutionSteps"].as_array().unwrap().clone();
    // The clock stands still, so that names decide.
    steps.sort_by_key(|step| step["StepName"].to_string());
    steps
}

fn states(steps: &[Value]) -> Vec<String> {
    let text = |step: &Value, name: &str| step[name].as_str().unwrap_or_default().to_owned();
    steps
        .iter()
        .map(|step| {
            format!("{} {} {}", text(step, "StepName"), text(step, "StepStatus"), step["AttemptCount"])
        })
        .collect()
}

#[tokio::test]
async fn a_taken_name_is_refused_in_the_words_that_upsert_knows() {
    let app = TestApp::new().await;
    let made = create(&app, "P", &definition()).await;
    assert_eq!(made["PipelineArn"], "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p");
    // The same request again is the same request.
    assert_eq!(create(&app, "P", &definition()).await, made);
    let input = json!({"PipelineName": "P", "RoleArn": ROLE, "PipelineDefinition": definition().to_string(), "ClientRequestToken": token(2)});
    let (code, text) = app.refused("SageMaker.CreatePipeline", input).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("already exists"), "{text}");

    let mut changed = definition();
    changed["Parameters"][0]["DefaultValue"] = json!(0);
    let input = json!({"PipelineName": "P", "PipelineDefinition": changed.to_string(), "PipelineDescription": "second", "PipelineVersionAliases": ["prod"]});
    let updated = app.ok("SageMaker.UpdatePipeline", input).await;
    assert_eq!(updated["PipelineVersionId"], 2);
    let first =
        app.ok("SageMaker.DescribePipeline", json!({"PipelineName": "P", "PipelineVersionId": 1})).await;
    assert_eq!(first["PipelineDefinition"], definition().to_string());
    let named = app
        .ok(
            "SageMaker.DescribePipeline",
            json!({"PipelineName": made["PipelineArn"], "PipelineVersionAlias": "prod"}),
        )
        .await;
    assert_eq!(named["PipelineDefinition"], changed.to_string());
    assert_eq!(named["PipelineDescription"], "second");
    assert_eq!(named["PipelineStatus"], "Active");
    let moved = json!({"PipelineArn": made["PipelineArn"], "PipelineVersionId": 1, "PipelineVersionDisplayName": "one",
        "PipelineVersionAliasOperations": {"Add": ["prod", "old"]}});
    app.ok("SageMaker.UpdatePipelineVersion", moved).await;
    let versions = app.ok("SageMaker.ListPipelineVersions", json!({"PipelineName": "P"})).await;
    let versions = &versions["PipelineVersionSummaries"];
    assert_eq!(versions[0]["PipelineVersionId"], 2);
    assert!(versions[0].get("PipelineVersionAliases").is_none_or(|aliases| aliases == &json!([])));
    assert_eq!(versions[1]["PipelineVersionAliases"], json!(["prod", "old"]));
    assert_eq!(versions[1]["PipelineVersionDisplayName"], "one");
    let wrong = json!({"PipelineArn": made["PipelineArn"], "PipelineVersionId": 2, "PipelineVersionAliasOperations": {"Remove": ["prod"]}});
    assert!(app.refused("SageMaker.UpdatePipelineVersion", wrong).await.1.contains("no alias"));

    create(&app, "Other", &definition()).await;
    let listed = app.ok("SageMaker.ListPipelines", json!({"PipelineNamePrefix": "P"})).await;
    assert_eq!(listed["PipelineSummaries"].as_array().unwrap().len(), 1);
    app.ok("SageMaker.DeletePipeline", json!({"PipelineName": "P", "ClientRequestToken": token(3)})).await;
    let (code, text) = app.refused("SageMaker.DescribePipeline", json!({"PipelineName": "P"})).await;
    assert_eq!(code, "ResourceNotFound");
    assert!(text.contains("does not exist"), "{text}");
    // A new pipeline of the old name, even with the old token, begins anew.
    create(&app, "P", &definition()).await;
    let versions = app.ok("SageMaker.ListPipelineVersions", json!({"PipelineName": "P"})).await;
    assert_eq!(versions["PipelineVersionSummaries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn flaws_of_a_definition_name_their_place() {
    let app = TestApp::new().await;
    let refused = |definition: String| {
        let input = json!({"PipelineName": "P", "RoleArn": ROLE, "PipelineDefinition": definition, "ClientRequestToken": token(1)});
        app.refused("SageMaker.CreatePipeline", input)
    };
    let mut wrong = definition();
    wrong["Steps"][0]["Arguments"]["ModelPackageNames"] = json!("x");
    let (code, text) = refused(wrong.to_string()).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(
        text,
        "Unable to parse pipeline definition. Steps[0].Arguments.ModelPackageNames: Unknown Argument member 'ModelPackageNames'."
    );
    let nested =
        format!("{{\"Version\": \"2020-12-01\", \"Steps\": {}{}}}", "[".repeat(500_000), "]".repeat(500_000));
    assert!(refused(nested).await.1.contains("PipelineDefinition: this is not JSON that can be read"));
    let both = json!({"PipelineName": "P", "RoleArn": ROLE, "PipelineDefinition": "{}", "ClientRequestToken": token(1),
        "PipelineDefinitionS3Location": {"Bucket": "bucket", "ObjectKey": "key"}});
    assert!(app.refused("SageMaker.CreatePipeline", both).await.1.contains("cannot both be given"));
    let missing = json!({"PipelineName": "P", "RoleArn": ROLE, "ClientRequestToken": token(1),
        "PipelineDefinitionS3Location": {"Bucket": "bucket", "ObjectKey": "key"}});
    assert!(
        app.refused("SageMaker.CreatePipeline", missing).await.1.contains("s3://bucket/key cannot be read")
    );
    let foreign = json!({"PipelineName": "P", "RoleArn": "arn:aws:iam::999999999999:role/R", "PipelineDefinition": definition().to_string(), "ClientRequestToken": token(1)});
    assert_eq!(app.refused("SageMaker.CreatePipeline", foreign).await.0, "AccessDeniedException");
}

#[tokio::test]
async fn an_execution_follows_references_and_the_branch_that_a_condition_chose() {
    let app = TestApp::new().await;
    create(&app, "P", &definition()).await;
    let input = json!({"PipelineName": "P", "ClientRequestToken": token(7), "PipelineParameters": [{"Name": "Tag", "Value": "v2"}],
        "PipelineExecutionDisplayName": "nightly", "ParallelismConfiguration": {"MaxParallelExecutionSteps": 3}});
    let execution = run(&app, input.clone()).await;
    assert_eq!(execution["PipelineExecutionStatus"], "Succeeded", "{execution}");
    assert_eq!(execution["PipelineExecutionDisplayName"], "nightly");
    assert_eq!(execution["ParallelismConfiguration"]["MaxParallelExecutionSteps"], 3);
    assert_eq!(execution["PipelineExperimentConfig"]["ExperimentName"], "P");
    let again = app.ok("SageMaker.StartPipelineExecution", input).await;
    assert_eq!(
        again["PipelineExecutionArn"], execution["PipelineExecutionArn"],
        "a token starts one execution"
    );

    let steps = steps(&app, &execution).await;
    assert_eq!(states(&steps), ["Enough Succeeded 1", "First Succeeded 1", "Second Succeeded 1"]);
    assert_eq!(steps[0]["Metadata"]["Condition"]["Outcome"], "True");
    let arn = steps[2]["Metadata"]["Model"]["Arn"].as_str().unwrap();
    let models = app.ok("SageMaker.ListModels", json!({"NameContains": "Second"})).await;
    assert_eq!(models["Models"].as_array().unwrap().len(), 1);
    assert_eq!(models["Models"][0]["ModelArn"], arn);
    let name = models["Models"][0]["ModelName"].as_str().unwrap();
    let id = execution["PipelineExecutionArn"].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(name.starts_with(&format!("pipelines-{id}-second-")), "{name}");
    let model = app.ok("SageMaker.DescribeModel", json!({"ModelName": name})).await;
    assert_eq!(model["PrimaryContainer"]["Image"], "repository:v2");

    let of = json!({"PipelineExecutionArn": execution["PipelineExecutionArn"]});
    let parameters = app.ok("SageMaker.ListPipelineParametersForExecution", of.clone()).await;
    assert_eq!(
        parameters["PipelineParameters"],
        json!([{"Name": "N", "Value": "5"}, {"Name": "Tag", "Value": "v2"}])
    );
    let written = app.ok("SageMaker.DescribePipelineDefinitionForExecution", of.clone()).await;
    assert_eq!(written["PipelineDefinition"], definition().to_string());
    let mut stop = of.clone();
    stop["ClientRequestToken"] = json!(token(8));
    let (code, text) = app.refused("SageMaker.StopPipelineExecution", stop).await;
    assert_eq!(code, "ConflictException");
    assert!(text.contains("status of") && text.contains("Succeeded"), "{text}");
    let mut update = of.clone();
    update["PipelineExecutionDescription"] = json!("for the record");
    app.ok("SageMaker.UpdatePipelineExecution", update).await;
    let described = app.ok("SageMaker.DescribePipelineExecution", of).await;
    assert_eq!(described["PipelineExecutionDescription"], "for the record");
    let pipeline = app.ok("SageMaker.DescribePipeline", json!({"PipelineName": "P"})).await;
    assert!(pipeline["LastRunTime"].is_number());
}

#[tokio::test]
async fn a_fail_step_fails_the_execution_and_a_retry_begins_there() {
    let app = TestApp::new().await;
    create(&app, "P", &definition()).await;
    let low = json!([{"Name": "N", "Value": "0"}]);
    let execution =
        run(&app, json!({"PipelineName": "P", "ClientRequestToken": token(1), "PipelineParameters": low}))
            .await;
    assert_eq!(execution["PipelineExecutionStatus"], "Failed");
    assert_eq!(execution["FailureReason"], "Step failure: One or multiple steps failed. TooLow: N is 0");
    let before = steps(&app, &execution).await;
    assert_eq!(states(&before), ["Enough Succeeded 1", "First Succeeded 1", "TooLow Failed 1"]);
    assert_eq!(before[2]["Metadata"]["Fail"]["ErrorMessage"], "N is 0");

    let arn = execution["PipelineExecutionArn"].as_str().unwrap();
    let retry = json!({"PipelineExecutionArn": arn, "ClientRequestToken": token(2)});
    app.ok("SageMaker.RetryPipelineExecution", retry.clone()).await;
    let again = ended(&app, arn).await;
    assert_eq!(again["PipelineExecutionStatus"], "Failed");
    let after = steps(&app, &again).await;
    assert_eq!(states(&after), ["Enough Succeeded 1", "First Succeeded 1", "TooLow Failed 2"]);
    assert_eq!(after[1]["Metadata"], before[1]["Metadata"], "what ended well is not made again");
    // The same retry again is the same retry.
    app.ok("SageMaker.RetryPipelineExecution", retry).await;
    assert_eq!(states(&steps(&app, &ended(&app, arn).await).await), states(&after));

    let explained = app.ok("Modelyard.ExplainPipelineExecution", json!({"Execution": arn})).await;
    let of = |name: &str| {
        let steps = explained["Explanation"]["Steps"].as_array().unwrap();
        steps.iter().find(|step| step["Name"] == name).unwrap()["Why"].as_str().unwrap().to_owned()
    };
    assert_eq!(of("Second"), "It is not run: the condition Enough came to false.");
    assert_eq!(of("TooLow"), "N is 0");
    let listed = app.ok("SageMaker.ListPipelineExecutions", json!({"PipelineName": "P"})).await;
    assert_eq!(listed["PipelineExecutionSummaries"][0]["PipelineExecutionStatus"], "Failed");
    let events = app.ok("Modelyard.ListEvents", json!({"After": 0, "MaxResults": 1000})).await;
    let statuses: Vec<&Value> = events["Events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["detail-type"] == "SageMaker Model Building Pipeline Execution Status Change")
        .map(|event| &event["detail"]["currentPipelineExecutionStatus"])
        .collect();
    assert_eq!(statuses, ["Executing", "Failed", "Executing", "Failed"]);
}

#[tokio::test]
async fn a_failure_holds_up_what_waits_for_it_and_nothing_else() {
    let app = TestApp::new().await;
    let steps_of = json!([
        {"Name": "Broken", "Type": "Lambda", "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:none", "Arguments": {}},
        {"Name": "Foreign", "Type": "Lambda", "FunctionArn": "arn:aws:lambda:us-east-1:999999999999:function:f", "Arguments": {}},
        {"Name": "Cluster", "Type": "EMR", "Arguments": {"ClusterId": "j-1", "StepConfig": {}}},
        {"Name": "After", "Type": "Fail", "DependsOn": ["Broken"], "Arguments": {"ErrorMessage": "never"}},
        model("Alone", &json!("image")),
        model("Lost", &json!({"Get": "Steps.Alone.PrimaryContainer.ModelDataUrl"})),
    ]);
    create(&app, "P", &json!({"Version": "2020-12-01", "Steps": steps_of})).await;
    let execution = run(&app, json!({"PipelineName": "P", "ClientRequestToken": token(1)})).await;
    assert_eq!(execution["PipelineExecutionStatus"], "Failed");
    let steps = steps(&app, &execution).await;
    assert_eq!(
        states(&steps),
        ["Alone Succeeded 1", "Broken Failed 1", "Cluster Failed 1", "Foreign Failed 1", "Lost Failed 1"]
    );
    let reason = |at: usize| steps[at]["FailureReason"].as_str().unwrap();
    assert!(
        reason(1).starts_with("ClientError: Failed to invoke lambda:Invoke. Error Details: "),
        "{}",
        reason(1)
    );
    assert!(reason(2).contains("Cluster id 'j-1' is not valid."), "{}", reason(2));
    assert!(reason(3).contains("another account"));
    assert!(reason(4).contains("Steps.Alone.PrimaryContainer.ModelDataUrl"));
}

#[tokio::test]
async fn a_selective_execution_takes_results_of_an_earlier_one() {
    let app = TestApp::new().await;
    let steps_of = json!([
        model("First", &json!("one")),
        model("Second", &json!({"Get": "Steps.First.PrimaryContainer.Image"}))
    ]);
    create(&app, "P", &json!({"Version": "2020-12-01", "Steps": steps_of})).await;
    let source = run(&app, json!({"PipelineName": "P", "ClientRequestToken": token(1)})).await;
    let start = |config: Value, at: u32| json!({"PipelineName": "P", "ClientRequestToken": token(at), "SelectiveExecutionConfig": config});
    let chosen = json!({"SourcePipelineExecutionArn": source["PipelineExecutionArn"], "SelectedSteps": [{"StepName": "Second"}]});
    let execution = run(&app, start(chosen.clone(), 2)).await;
    assert_eq!(execution["PipelineExecutionStatus"], "Succeeded");
    assert_eq!(execution["SelectiveExecutionConfig"], chosen);
    let selected = steps(&app, &execution).await;
    assert_eq!(states(&selected), ["First Succeeded 1", "Second Succeeded 1"]);
    assert_eq!(
        selected[0]["SelectiveExecutionResult"]["SourcePipelineExecutionArn"],
        source["PipelineExecutionArn"]
    );
    assert_eq!(selected[0]["Metadata"], steps(&app, &source).await[0]["Metadata"]);
    let models = app.ok("SageMaker.ListModels", json!({"MaxResults": 100})).await;
    assert_eq!(models["Models"].as_array().unwrap().len(), 3, "the step that was taken made no model");

    let without = json!({"SelectedSteps": [{"StepName": "Second"}]});
    assert!(
        app.refused("SageMaker.StartPipelineExecution", start(without, 3))
            .await
            .1
            .contains("SourcePipelineExecutionArn")
    );
    let unknown = json!({"SelectedSteps": [{"StepName": "Third"}]});
    assert!(
        app.refused("SageMaker.StartPipelineExecution", start(unknown, 4))
            .await
            .1
            .contains("no step \"Third\"")
    );
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_refused() {
    let app = TestApp::new().await;
    create(&app, "P", &definition()).await;
    for (input, named) in [
        (json!({"PipelineName": "Q", "ClientRequestToken": token(1)}), "does not exist"),
        (
            json!({"PipelineName": "P", "ClientRequestToken": token(1), "PipelineParameters": [{"Name": "N", "Value": "many"}]}),
            "\"many\" is no Integer",
        ),
        (
            json!({"PipelineName": "P", "ClientRequestToken": token(1), "PipelineVersionId": 9}),
            "does not exist",
        ),
        (
            json!({"PipelineName": "P", "ClientRequestToken": token(1), "MlflowExperimentName": "m"}),
            "MlflowExperimentName",
        ),
    ] {
        let (_, text) = app.refused("SageMaker.StartPipelineExecution", input).await;
        assert!(text.contains(named), "{text}");
    }
    let input = json!({"CallbackToken": "abcdefghij", "OutputParameters": []});
    assert_eq!(app.refused("SageMaker.SendPipelineExecutionStepSuccess", input).await.0, "ResourceNotFound");
    let input = json!({"CallbackToken": "abcdefghij", "FailureReason": "no"});
    assert_eq!(app.refused("SageMaker.SendPipelineExecutionStepFailure", input).await.0, "ResourceNotFound");
    let execution = run(&app, json!({"PipelineName": "P", "ClientRequestToken": token(5)})).await;
    let other = app.other_account("210987654321").await;
    let of = json!({"PipelineExecutionArn": execution["PipelineExecutionArn"]});
    let (code, _) = app.refused_as("SageMaker.DescribePipelineExecution", of, &other).await;
    assert!(code == "AccessDeniedException" || code == "ResourceNotFound", "{code}");
}

#[tokio::test]
async fn the_tags_of_a_registered_version_go_to_its_group() {
    let app = TestApp::new().await;
    let register = |name: &str, tag: &str| {
        json!({"Name": name, "Type": "RegisterModel", "Arguments": {
            "ModelPackageGroupName": "tagged", "Tags": [{"Key": tag, "Value": name}],
            "InferenceSpecification": {"Containers": [{"Image": "i"}], "SupportedContentTypes": ["text/csv"]}}})
    };
    let mut second = register("Second", "b");
    second["DependsOn"] = json!(["First"]);
    create(&app, "T", &json!({"Version": "2020-12-01", "Steps": [register("First", "a"), second]})).await;
    let input = json!({"PipelineName": "T", "ClientRequestToken": token(2)});
    let execution = run(&app, input).await;
    let steps = steps(&app, &execution).await;
    assert_eq!(states(&steps), ["First Succeeded 1", "Second Succeeded 1"], "{steps:?}");
    let version = &steps[1]["Metadata"]["RegisterModel"]["Arn"];
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": version})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "a", "Value": "First"}, {"Key": "b", "Value": "Second"}]));
}

#[tokio::test]
async fn an_effect_with_an_id_happens_once() {
    let app = TestApp::new().await;
    let caller =
        server::internal_call::as_role(&app.app, "123456789012", "us-east-1", ROLE, "test").await.unwrap();
    let call = |operation: &'static str, input: Value, id: Option<&str>| {
        let id = id.map(str::to_owned);
        let (app, caller) = (&app.app, &caller);
        async move { server::internal_call::call_once(app, caller, "sqs", operation, input, id).await.unwrap() }
    };
    let queue = call("CreateQueue", json!({"QueueName": "once"}), None).await["QueueUrl"].clone();
    let message = json!({"QueueUrl": queue, "MessageBody": "m"});
    let first = call("SendMessage", message.clone(), Some("effect-1")).await;
    assert_eq!(call("SendMessage", message.clone(), Some("effect-1")).await, first);
    assert_ne!(call("SendMessage", message, Some("effect-2")).await["MessageId"], first["MessageId"]);
    let names = json!({"QueueUrl": queue, "AttributeNames": ["ApproximateNumberOfMessages"]});
    let counted = call("GetQueueAttributes", names, None).await;
    assert_eq!(counted["Attributes"]["ApproximateNumberOfMessages"], "2");
}
