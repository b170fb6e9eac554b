//! Two accounts: nothing of the one can be used, changed or even seen by the other, through pipelines, rules, schedules and jobs.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{Key, TestApp};

const OWNER: &str = "123456789012";
const STRANGER: &str = "210987654321";
const IMAGE: &str = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11";
const REGION: &str = "us-east-1";

fn role(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/ModelyardExecutionRole")
}

fn token(at: usize) -> String {
    format!("{at:032}")
}

/// An app with a second account that wants in, and what the first one has.
struct Two {
    app: TestApp,
    stranger: Key,
    pipeline: String,
    execution: String,
    callback: String,
    queue: String,
}

impl Two {
    /// The first account has a pipeline whose execution waits for the answer to a callback, a bucket, a model and a package.
    async fn new() -> Two {
        let app = TestApp::new().await;
        let stranger = app.other_account(STRANGER).await;
        for (account, bucket) in [(OWNER, "owned"), (STRANGER, "strange")] {
            app.app.objects.create_bucket(account, REGION, bucket).await.unwrap();
            let mut object = app.app.objects.begin(account, bucket).await.unwrap();
            object.write(b"{\"n\": 42}").unwrap();
            let (attributes, condition) = Default::default();
            app.app
                .objects
                .commit(account, bucket, "data.json", object, attributes, condition)
                .await
                .unwrap();
        }
        app.ok("SageMaker.CreateModel", json!({"ModelName": "model", "ExecutionRoleArn": role(OWNER), "PrimaryContainer": {"Image": IMAGE}}))
            .await;
        app.ok("SageMaker.CreateModelPackageGroup", json!({"ModelPackageGroupName": "group"})).await;
        let inference = json!({"Containers": [{"Image": IMAGE}], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]});
        app.ok(
            "SageMaker.CreateModelPackage",
            json!({"ModelPackageGroupName": "group", "InferenceSpecification": inference}),
        )
        .await;
        let queue =
            app.ok("AmazonSQS.CreateQueue", json!({"QueueName": "questions"})).await["QueueUrl"].clone();
        let ask = json!({"Name": "Ask", "Type": "Callback", "SqsQueueUrl": queue, "Arguments": {}});
        let definition = json!({"Version": "2020-12-01", "Steps": [ask]}).to_string();
        let made = json!({"PipelineName": "P", "RoleArn": role(OWNER), "PipelineDefinition": definition, "ClientRequestToken": token(1)});
        let pipeline = app.ok("SageMaker.CreatePipeline", made).await["PipelineArn"].clone();
        let start = json!({"PipelineName": "P", "ClientRequestToken": token(2)});
        let execution =
            app.ok("SageMaker.StartPipelineExecution", start).await["PipelineExecutionArn"].clone();
        let wanted = json!({"QueueUrl": queue, "WaitTimeSeconds": 20});
        let asked = app.ok("AmazonSQS.ReceiveMessage", wanted).await;
        let asked: Value = serde_json::from_str(asked["Messages"][0]["Body"].as_str().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Two {
            app,
            stranger,
            pipeline: text(&pipeline),
            execution: text(&execution),
            callback: text(&asked["token"]),
            queue: text(&queue),
        }
    }

    /// What a stranger's call is refused with.
    async fn refused(&self, target: &str, input: &Value) -> (String, String) {
        self.app.refused_as(target, input.clone(), &self.stranger).await
    }

    async fn allowed(&self, target: &str, input: Value) -> Value {
        let answer = self.app.call_as(target, input, &self.stranger).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        if answer.body.is_empty() { json!({}) } else { answer.json() }
    }

    async fn schedule(&self, name: &str, target: Value) -> crate::app::Answer {
        let body = json!({"ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target});
        let request = Request::post(format!("/schedules/{name}")).header("content-type", "application/json");
        let body = Bytes::from(body.to_string());
        self.app.send_signed(request.body(()).unwrap(), body, "scheduler", &self.stranger).await
    }

    /// Runs the stranger's pipeline of these steps to its end, and answers why each of them failed.
    async fn reasons(&self, name: &str, steps: &[Value]) -> Vec<String> {
        let definition = json!({"Version": "2020-12-01", "Steps": steps}).to_string();
        let made = json!({"PipelineName": name, "RoleArn": role(STRANGER), "PipelineDefinition": definition, "ClientRequestToken": token(1)});
        self.allowed("SageMaker.CreatePipeline", made).await;
        let start = json!({"PipelineName": name, "ClientRequestToken": format!("{name:0>32}")});
        let started = self.allowed("SageMaker.StartPipelineExecution", start).await;
        let of = json!({"PipelineExecutionArn": started["PipelineExecutionArn"], "MaxResults": 100});
        self.app
            .until("the stranger's execution ends", || async {
                let shown = json!({"PipelineExecutionArn": started["PipelineExecutionArn"]});
                let shown = self.allowed("SageMaker.DescribePipelineExecution", shown).await;
                (shown["PipelineExecutionStatus"] != "Executing").then_some(())
            })
            .await;
        let listed = self.allowed("SageMaker.ListPipelineExecutionSteps", of).await;
        let listed = listed["PipelineExecutionSteps"].as_array().unwrap();
        let reason = |step: &Value| {
            let found = listed.iter().find(|one| one["StepName"] == step["Name"]).unwrap();
            assert_eq!(found["StepStatus"], "Failed", "{found}");
            found["FailureReason"].as_str().unwrap().to_owned()
        };
        steps.iter().map(reason).collect()
    }
}

#[tokio::test]
async fn a_stranger_cannot_tell_another_accounts_pipeline_from_none() {
    let two = Two::new().await;
    let none_pipeline = two.pipeline.replace("pipeline/p", "pipeline/none");
    let none_execution = format!("{none_pipeline}/execution/abcdefghijkl");
    let calls = |pipeline: &str, execution: &str, callback: &str| {
        let (at, of) = (json!({"PipelineName": pipeline}), json!({"PipelineExecutionArn": execution}));
        let with = |base: &Value, more: Value| {
            let mut input = base.clone();
            input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            input
        };
        let once = json!({"ClientRequestToken": token(9)});
        vec![
            ("SageMaker.DescribePipeline", at.clone()),
            ("SageMaker.UpdatePipeline", with(&at, json!({"PipelineDescription": "mine now"}))),
            ("SageMaker.DeletePipeline", with(&at, once.clone())),
            ("SageMaker.StartPipelineExecution", with(&at, once.clone())),
            ("SageMaker.ListPipelineExecutions", at.clone()),
            ("SageMaker.ListPipelineVersions", at),
            ("SageMaker.UpdatePipelineVersion", json!({"PipelineArn": pipeline, "PipelineVersionId": 1})),
            ("SageMaker.DescribePipelineExecution", of.clone()),
            ("SageMaker.DescribePipelineDefinitionForExecution", of.clone()),
            ("SageMaker.ListPipelineExecutionSteps", of.clone()),
            ("SageMaker.ListPipelineParametersForExecution", of.clone()),
            ("SageMaker.StopPipelineExecution", with(&of, once.clone())),
            ("SageMaker.RetryPipelineExecution", with(&of, once)),
            ("SageMaker.UpdatePipelineExecution", with(&of, json!({"PipelineExecutionDescription": "mine"}))),
            ("SageMaker.SendPipelineExecutionStepSuccess", json!({"CallbackToken": callback})),
            (
                "SageMaker.SendPipelineExecutionStepFailure",
                json!({"CallbackToken": callback, "FailureReason": "no"}),
            ),
            ("SageMaker.AddTags", json!({"ResourceArn": pipeline, "Tags": [{"Key": "k", "Value": "v"}]})),
            ("SageMaker.ListTags", json!({"ResourceArn": pipeline})),
            ("Modelyard.ExplainPipelineExecution", json!({"Execution": execution})),
            (
                "Modelyard.ExplainPipelineExecution",
                json!({"Execution": execution.rsplit('/').next().unwrap()}),
            ),
        ]
    };
    let there = calls(&two.pipeline, &two.execution, &two.callback);
    let none = calls(&none_pipeline, &none_execution, "zzzzzzzzzz");
    let id = |execution: &str| execution.rsplit('/').next().unwrap().to_owned();
    for ((target, input), (_, twin)) in there.into_iter().zip(none) {
        let (code, text) = two.refused(target, &input).await;
        assert!(
            ["AccessDeniedException", "ResourceNotFound", "ValidationException"].contains(&code.as_str()),
            "{target}: {code}"
        );
        // But for the names that the stranger gave, both answers are one.
        let bare = |text: &str| {
            [
                &*two.execution,
                &none_execution,
                &id(&two.execution),
                &id(&none_execution),
                &two.pipeline,
                &none_pipeline,
                &two.callback,
                "zzzzzzzzzz",
            ]
            .iter()
            .fold(text.to_owned(), |text, name| text.replace(name, "NAME"))
        };
        let (twin_code, twin_text) = two.refused(target, &twin).await;
        assert_eq!((&code, bare(&text)), (&twin_code, bare(&twin_text)), "{target} {input}");
    }
    // A pipeline of the stranger's own with the same name is another one.
    let definition =
        json!({"Version": "2020-12-01", "Steps": [{"Name": "F", "Type": "Fail", "Arguments": {}}]})
            .to_string();
    let made = json!({"PipelineName": "P", "RoleArn": role(STRANGER), "PipelineDefinition": definition, "ClientRequestToken": token(1)});
    two.allowed("SageMaker.CreatePipeline", made).await;
    let listed = two.allowed("SageMaker.ListPipelineExecutions", json!({"PipelineName": "P"})).await;
    assert_eq!(listed["PipelineExecutionSummaries"], json!([]));
    let source = json!({"SourcePipelineExecutionArn": two.execution, "SelectedSteps": [{"StepName": "F"}]});
    let start =
        json!({"PipelineName": "P", "ClientRequestToken": token(3), "SelectiveExecutionConfig": source});
    assert_eq!(two.refused("SageMaker.StartPipelineExecution", &start).await.0, "AccessDeniedException");
    for resource in ["Pipeline", "PipelineExecution"] {
        let found = two.allowed("SageMaker.Search", json!({"Resource": resource})).await;
        let text = found.to_string();
        assert!(!text.contains(OWNER), "{text}");
    }
    // Nothing of all that came through.
    let shown = two
        .app
        .ok("SageMaker.DescribePipelineExecution", json!({"PipelineExecutionArn": two.execution}))
        .await;
    assert_eq!(shown["PipelineExecutionStatus"], "Executing");
    two.app.ok("SageMaker.SendPipelineExecutionStepSuccess", json!({"CallbackToken": two.callback})).await;
}

#[tokio::test]
async fn roles_of_pipelines_are_the_accounts_own_and_there() {
    let two = Two::new().await;
    let definition =
        json!({"Version": "2020-12-01", "Steps": [{"Name": "F", "Type": "Fail", "Arguments": {}}]})
            .to_string();
    let create = |role: &str| json!({"PipelineName": "mine", "RoleArn": role, "PipelineDefinition": definition, "ClientRequestToken": token(1)});
    let none = format!("arn:aws:iam::{STRANGER}:role/Nobody");
    let elsewhere = format!("arn:aws:iam::{OWNER}:role/Nobody");
    for (given, expected) in [
        (role(OWNER), "AccessDeniedException"),
        (elsewhere, "AccessDeniedException"),
        (none.clone(), "ValidationException"),
    ] {
        let (code, text) = two.refused("SageMaker.CreatePipeline", &create(&given)).await;
        assert_eq!(code, expected, "{given}");
        assert!(text.contains(&given), "{text}");
    }
    two.allowed("SageMaker.CreatePipeline", create(&role(STRANGER))).await;
    for given in [role(OWNER), none.clone()] {
        let update = json!({"PipelineName": "mine", "RoleArn": given});
        assert!(two.refused("SageMaker.UpdatePipeline", &update).await.1.contains(&given));
        let start = json!({"PipelineName": "mine", "RoleArn": given, "ClientRequestToken": token(2)});
        assert!(two.refused("SageMaker.StartPipelineExecution", &start).await.1.contains(&given));
    }
}

#[tokio::test]
async fn steps_cannot_use_what_is_another_accounts() {
    let two = Two::new().await;
    let model = |name: &str, more: Value| {
        let mut arguments = json!({"ExecutionRoleArn": role(STRANGER)});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"Name": name, "Type": "Model", "Arguments": arguments})
    };
    let lambda = |name: &str, function: &str| json!({"Name": name, "Type": "Lambda", "FunctionArn": function, "Arguments": {}});
    let register = |name: &str, group: &str, data: &str| {
        let container = json!({"Image": IMAGE, "ModelDataUrl": data});
        let inference = json!({"Containers": [container], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]});
        json!({"Name": name, "Type": "RegisterModel", "Arguments": {"ModelPackageGroupName": group, "InferenceSpecification": inference}})
    };
    let read = json!({"Std:JsonGet": {"S3Uri": "s3://owned/data.json", "Path": "n"}});
    let equal = json!([{"Type": "Equals", "LeftValue": read, "RightValue": 42}]);
    let package = format!("arn:aws:sagemaker:{REGION}:{OWNER}:model-package/group/1");
    let group = format!("arn:aws:sagemaker:{REGION}:{OWNER}:model-package-group/group");
    let transform = json!({
        "ModelName": format!("arn:aws:sagemaker:{REGION}:{OWNER}:model/model"),
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://strange/"}}},
        "TransformOutput": {"S3OutputPath": "s3://strange/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    });
    let mut by_name = transform.clone();
    by_name["ModelName"] = "model".into();
    let steps = [
        model("ForeignRole", json!({"ExecutionRoleArn": role(OWNER), "PrimaryContainer": {"Image": IMAGE}})),
        model("ForeignPackage", json!({"Containers": [{"ModelPackageName": package}]})),
        lambda("Function", &format!("arn:aws:lambda:{REGION}:{OWNER}:function:f")),
        lambda("PartOfAnArn", &format!("{OWNER}:function:f")),
        lambda("TrickyArn", &format!("arn:aws:lambda:{REGION}:{OWNER}:function:f:{STRANGER}:function:")),
        json!({"Name": "Queue", "Type": "Callback", "SqsQueueUrl": two.queue, "Arguments": {}}),
        register("ForeignGroup", &group, "s3://strange/data.json"),
        register("ForeignModel", "own", "s3://owned/data.json"),
        json!({"Name": "File", "Type": "Condition", "Arguments": {"Conditions": equal}}),
        json!({"Name": "Served", "Type": "Transform", "Arguments": transform}),
        json!({"Name": "ServedByName", "Type": "Transform", "Arguments": by_name}),
        job_step("TrainingRole", "Training", |job| job["RoleArn"] = role(OWNER).into()),
        job_step("ProcessingRole", "Processing", |job| job["RoleArn"] = role(OWNER).into()),
    ];
    let reasons = two.reasons("strange", &steps).await;
    for (step, reason) in steps.iter().zip(&reasons) {
        let refused = [
            "not authorized",
            "another account",
            "denied",
            "does not exist",
            "Could not find",
            "cannot be read",
            "names no function",
            "not found",
            "failed to satisfy constraint",
        ];
        assert!(refused.iter().any(|word| reason.contains(word)), "{}: {reason}", step["Name"]);
        assert!(!reason.contains("\"n\""), "{}: what is in the object is told: {reason}", step["Name"]);
    }
    let waiting = json!({"QueueUrl": two.queue, "AttributeNames": ["All"]});
    let counts = two.app.ok("AmazonSQS.GetQueueAttributes", waiting).await["Attributes"].clone();
    assert_eq!(counts["ApproximateNumberOfMessages"], "0", "nothing came to the owner's queue");
    let keys = two.app.app.objects.list_keys(OWNER, "owned", "", None, 10).await.unwrap();
    assert_eq!(keys.len(), 1, "nothing was written into the owner's bucket");
    let packages = two.app.ok("SageMaker.ListModelPackages", json!({"ModelPackageGroupName": "group"})).await;
    assert_eq!(packages["ModelPackageSummaryList"].as_array().unwrap().len(), 1);
}

fn job_step(name: &str, kind: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut arguments = if kind == "Training" {
        json!({
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["true"]},
            "RoleArn": role(STRANGER),
            "OutputDataConfig": {"S3OutputPath": "s3://strange/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        })
    } else {
        json!({
            "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
            "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}},
            "RoleArn": role(STRANGER),
        })
    };
    change(&mut arguments);
    json!({"Name": name, "Type": kind, "Arguments": arguments})
}

fn outputs(uri: &str) -> Value {
    let output = json!({"S3Uri": uri, "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"});
    json!({"Outputs": [{"OutputName": "out", "S3Output": output}]})
}

#[tokio::test]
async fn jobs_cannot_use_what_is_another_accounts() {
    let two = Two::new().await;
    let named = |step: Value, kind: &str, name: &str| {
        let mut job = step["Arguments"].clone();
        job[format!("{kind}JobName")] = name.into();
        job
    };
    for kind in ["Training", "Processing"] {
        let job = named(job_step("x", kind, |job| job["RoleArn"] = role(OWNER).into()), kind, "foreign-role");
        let (code, _) = two.refused(&format!("SageMaker.Create{kind}Job"), &job).await;
        assert_eq!(code, "AccessDeniedException");
    }
    let key = two.app.ok("TrentService.CreateKey", json!({})).await["KeyMetadata"]["Arn"].clone();
    let mut encrypted = named(
        job_step("x", "Processing", |job| job["ProcessingOutputConfig"] = outputs("s3://strange/o")),
        "Processing",
        "foreign-key",
    );
    encrypted["ProcessingOutputConfig"]["KmsKeyId"] = key;
    let (code, text) = two.refused("SageMaker.CreateProcessingJob", &encrypted).await;
    assert!(code == "AccessDeniedException" || code == "ValidationException", "{code}: {text}");

    // A model of the stranger's own whose data are the owner's serves nobody.
    let mine = json!({"ModelName": "mine", "ExecutionRoleArn": role(STRANGER), "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://owned/data.json"}});
    two.allowed("SageMaker.CreateModel", mine).await;
    let transform = |name: &str, model: &str, from: &str, to: &str| {
        json!({"TransformJobName": name, "ModelName": model,
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": from}}},
            "TransformOutput": {"S3OutputPath": to},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1}})
    };
    let (_, there) = two
        .refused(
            "SageMaker.CreateTransformJob",
            &transform("t", "model", "s3://strange/", "s3://strange/out"),
        )
        .await;
    let (_, none) = two
        .refused(
            "SageMaker.CreateTransformJob",
            &transform("t", "nobody", "s3://strange/", "s3://strange/out"),
        )
        .await;
    assert_eq!(there.replace("model/model", ""), none.replace("model/nobody", ""));
    for (name, from, to) in [
        ("their-model", "s3://strange/", "s3://strange/out"),
        ("their-input", "s3://owned/", "s3://strange/out"),
        ("their-output", "s3://strange/", "s3://owned/out"),
    ] {
        two.allowed("SageMaker.CreateTransformJob", transform(name, "mine", from, to)).await;
        let ended = two
            .app
            .until(&format!("{name} ends"), || async {
                let job =
                    two.allowed("SageMaker.DescribeTransformJob", json!({"TransformJobName": name})).await;
                matches!(job["TransformJobStatus"].as_str(), Some("Completed" | "Failed")).then_some(job)
            })
            .await;
        let reason = ended["FailureReason"].as_str().unwrap_or_else(|| panic!("{name}: {ended}"));
        assert!(reason.contains("another account") || reason.contains("denied"), "{name}: {reason}");
    }
    let keys = two.app.app.objects.list_keys(OWNER, "owned", "", None, 10).await.unwrap();
    assert_eq!(keys.len(), 1, "nothing was written into the owner's bucket");
}

#[tokio::test]
async fn rules_and_schedules_bring_nothing_to_another_account() {
    let two = Two::new().await;
    let queue = format!("arn:aws:sqs:{REGION}:{OWNER}:questions");
    let function = format!("arn:aws:lambda:{REGION}:{OWNER}:function:f");
    two.allowed("AWSEvents.PutRule", json!({"Name": "r", "EventPattern": "{\"source\": [\"mine\"]}"})).await;
    let own = format!("arn:aws:sqs:{REGION}:{STRANGER}:mine");
    for target in [
        json!({"Id": "t", "Arn": queue}),
        json!({"Id": "t", "Arn": function}),
        json!({"Id": "t", "Arn": two.pipeline, "RoleArn": role(STRANGER)}),
        json!({"Id": "t", "Arn": two.pipeline, "RoleArn": role(OWNER)}),
        json!({"Id": "t", "Arn": own, "RoleArn": role(OWNER)}),
        json!({"Id": "t", "Arn": own, "DeadLetterConfig": {"Arn": queue}}),
    ] {
        let (code, text) =
            two.refused("AWSEvents.PutTargets", &json!({"Rule": "r", "Targets": [target]})).await;
        assert!(code == "AccessDeniedException" || code == "ValidationException", "{code}: {text}");
        let mut scheduled = target.clone();
        scheduled.as_object_mut().unwrap().remove("Id");
        scheduled["RoleArn"] = target.get("RoleArn").cloned().unwrap_or_else(|| role(STRANGER).into());
        let answer = two.schedule("s", scheduled).await;
        assert!(answer.status.is_client_error(), "{target}: {}", answer.text());
    }
    // Operations of a schedule are called as a role of its own account, which must be there.
    let dead = two.allowed("AmazonSQS.CreateQueue", json!({"QueueName": "mine"})).await["QueueUrl"].clone();
    let call = |role: String, input: Value, operation: &str| {
        json!({"Arn": format!("arn:aws:scheduler:::aws-sdk:{operation}"), "RoleArn": role, "Input": input.to_string(),
            "DeadLetterConfig": {"Arn": own}, "RetryPolicy": {"MaximumRetryAttempts": 0}})
    };
    let stop = json!({"PipelineExecutionArn": two.execution, "ClientRequestToken": token(5)});
    let send = json!({"QueueUrl": two.queue, "MessageBody": "from a stranger"});
    let nobody = format!("arn:aws:iam::{STRANGER}:role/Nobody");
    for (name, target, reason) in [
        ("stops", call(role(STRANGER), stop, "sagemaker:stopPipelineExecution"), "AccessDeniedException"),
        ("sends", call(role(STRANGER), send, "sqs:sendMessage"), "AccessDenied"),
    ] {
        let answer = two.schedule(name, target).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        two.app.clock.advance(61 * 60_000);
        let wanted = json!({"QueueUrl": dead, "WaitTimeSeconds": 20, "MessageAttributeNames": ["All"]});
        let came = two.allowed("AmazonSQS.ReceiveMessage", wanted).await;
        let message = &came["Messages"][0];
        let code = message["MessageAttributes"]["ERROR_CODE"]["StringValue"].as_str().unwrap_or_default();
        assert!(code.contains(reason), "{name}: {came}");
        let gone = json!({"QueueUrl": dead, "ReceiptHandle": message["ReceiptHandle"]});
        two.allowed("AmazonSQS.DeleteMessage", gone).await;
        let request = Request::delete(format!("/schedules/{name}")).body(()).unwrap();
        two.app.send_signed(request, Bytes::new(), "scheduler", &two.stranger).await;
    }
    let made = call(nobody, json!({"QueueName": "made-by-nobody"}), "sqs:createQueue");
    let answer = two.schedule("nobody", made).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("must allow AWS EventBridge Scheduler"), "{}", answer.text());
}
