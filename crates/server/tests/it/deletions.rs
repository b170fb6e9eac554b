//! What is in use cannot be deleted, in the codes of the service; what the service lets go goes.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

/// A deletion that is refused, or not.
struct Rule {
    /// What is there: operations in order.
    given: Vec<(&'static str, Value)>,
    /// What is deleted.
    delete: (&'static str, Value),
    /// Code, and words of the text; none where it goes.
    refused: Option<(&'static str, &'static str)>,
}

fn rule(
    given: Vec<(&'static str, Value)>,
    delete: (&'static str, Value),
    refused: Option<(&'static str, &'static str)>,
) -> Rule {
    Rule { given, delete, refused }
}

fn rules() -> Vec<Rule> {
    let experiment = ("SageMaker.CreateExperiment", json!({"ExperimentName": "e"}));
    let trial = ("SageMaker.CreateTrial", json!({"TrialName": "t", "ExperimentName": "e"}));
    let component = ("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "c"}));
    let joined = ("SageMaker.AssociateTrialComponent", json!({"TrialComponentName": "c", "TrialName": "t"}));
    let context = |name: &str| {
        let input = json!({"ContextName": name, "ContextType": "C", "Source": {"SourceUri": name}});
        ("SageMaker.CreateContext", input)
    };
    let arn = |kind: &str, name: &str| format!("arn:aws:sagemaker:us-east-1:123456789012:{kind}/{name}");
    let edge = json!({"SourceArn": arn("context", "one"), "DestinationArn": arn("context", "two")});
    let model = json!({
        "ModelName": "m", "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": "img:1", "ModelDataUrl": "s3://b/model.tar.gz"},
    });
    let model = ("SageMaker.CreateModel", model);
    let variant = json!({"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1});
    let config = json!({"EndpointConfigName": "c", "ProductionVariants": [variant]});
    let config = ("SageMaker.CreateEndpointConfig", config);
    let callback = json!({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [
        {"Name": "Wait", "Type": "Callback", "SqsQueueUrl": "http://127.0.0.1:1/123456789012/q", "OutputParameters": [],
         "Arguments": {}},
    ]});
    let pipeline = json!({"PipelineName": "p", "RoleArn": ROLE, "ClientRequestToken": "c".repeat(32),
        "PipelineDefinition": callback.to_string()});
    let start = json!({"PipelineName": "p", "ClientRequestToken": "s".repeat(32)});
    let scheduled = ("AWSEvents.PutRule", json!({"Name": "r", "ScheduleExpression": "rate(1 day)"}));
    let queue = ("AmazonSQS.CreateQueue", json!({"QueueName": "q"}));
    let target =
        json!({"Rule": "r", "Targets": [{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}]});
    let stream = json!({"logGroupName": "g", "logStreamName": "s"});
    vec![
        rule(
            vec![experiment.clone(), trial.clone()],
            ("SageMaker.DeleteExperiment", json!({"ExperimentName": "e"})),
            Some(("ValidationException", "has trials")),
        ),
        rule(
            vec![experiment.clone(), trial.clone(), component.clone(), joined.clone()],
            ("SageMaker.DeleteTrial", json!({"TrialName": "t"})),
            Some(("ValidationException", "has trial components")),
        ),
        rule(
            vec![experiment.clone(), trial, component, joined],
            ("SageMaker.DeleteTrialComponent", json!({"TrialComponentName": "c"})),
            Some(("ValidationException", "belongs to trials")),
        ),
        rule(
            vec![context("one"), context("two"), ("SageMaker.AddAssociation", edge)],
            ("SageMaker.DeleteContext", json!({"ContextName": "two"})),
            Some(("ValidationException", "has associations")),
        ),
        rule(
            vec![("SageMaker.CreateTrainingJob", training_job("j"))],
            ("SageMaker.DeleteTrainingJob", json!({"TrainingJobName": "j"})),
            Some(("ResourceInUse", "InProgress")),
        ),
        rule(
            vec![
                queue.clone(),
                ("SageMaker.CreatePipeline", pipeline),
                ("SageMaker.StartPipelineExecution", start),
            ],
            ("SageMaker.DeletePipeline", json!({"PipelineName": "p", "ClientRequestToken": "d".repeat(32)})),
            Some(("ConflictException", "under way")),
        ),
        // The service lets these go, whatever uses them.
        rule(vec![model.clone(), config.clone()], ("SageMaker.DeleteModel", json!({"ModelName": "m"})), None),
        rule(
            vec![
                model,
                config,
                ("SageMaker.CreateEndpoint", json!({"EndpointName": "e", "EndpointConfigName": "c"})),
            ],
            ("SageMaker.DeleteEndpointConfig", json!({"EndpointConfigName": "c"})),
            None,
        ),
        rule(
            vec![queue.clone(), scheduled.clone(), ("AWSEvents.PutTargets", target)],
            ("AWSEvents.DeleteRule", json!({"Name": "r"})),
            Some(("ValidationException", "Rule can't be deleted since it has targets.")),
        ),
        rule(vec![scheduled], ("AWSEvents.DeleteRule", json!({"Name": "r"})), None),
        rule(
            vec![
                queue.clone(),
                (
                    "AmazonSQS.SendMessage",
                    json!({"QueueUrl": "http://127.0.0.1:1/123456789012/q", "MessageBody": "m"}),
                ),
            ],
            ("AmazonSQS.DeleteQueue", json!({"QueueUrl": "http://127.0.0.1:1/123456789012/q"})),
            None,
        ),
        rule(
            vec![
                ("Logs_20140328.CreateLogGroup", json!({"logGroupName": "g"})),
                ("Logs_20140328.CreateLogStream", stream),
            ],
            ("Logs_20140328.DeleteLogGroup", json!({"logGroupName": "g"})),
            None,
        ),
    ]
}

#[tokio::test]
async fn what_is_in_use_is_kept_and_the_rest_goes() {
    for Rule { given, delete: (operation, input), refused } in rules() {
        let app = TestApp::new().await;
        for (operation, input) in given {
            app.ok(operation, input).await;
        }
        match refused {
            None => drop(app.ok(operation, input).await),
            Some((code, words)) => {
                let (answered, message) = app.refused(operation, input).await;
                assert_eq!(answered, code, "{operation}: {message}");
                assert!(message.contains(words), "{operation}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_waits_before_it_goes_and_an_alias_does_not_hold_it() {
    let app = TestApp::new().await;
    let key = app.ok("TrentService.CreateKey", json!({})).await["KeyMetadata"]["KeyId"].clone();
    app.ok("TrentService.CreateAlias", json!({"AliasName": "alias/a", "TargetKeyId": key})).await;
    let early = json!({"KeyId": key, "PendingWindowInDays": 6});
    assert_eq!(app.refused("TrentService.ScheduleKeyDeletion", early).await.0, "ValidationException");
    app.ok("TrentService.ScheduleKeyDeletion", json!({"KeyId": key, "PendingWindowInDays": 7})).await;
    let again = app.refused("TrentService.ScheduleKeyDeletion", json!({"KeyId": key})).await;
    assert_eq!(again.0, "KMSInvalidStateException");
}
