//! Tokens of Callback steps: each attempt has its own, and only the one that is waited for is taken.

use serde_json::{Value, json};

use crate::app::TestApp;

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

/// The token of the next question, whatever else comes to the queue.
async fn asked(app: &TestApp, queue: &Value) -> String {
    app.until("the step asks", || async {
        let wanted = json!({"QueueUrl": queue, "WaitTimeSeconds": 1});
        let came = app.ok("AmazonSQS.ReceiveMessage", wanted).await;
        let message = &came["Messages"][0];
        let gone = json!({"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"].as_str()?});
        app.ok("AmazonSQS.DeleteMessage", gone).await;
        let body: Value = serde_json::from_str(message["Body"].as_str()?).unwrap();
        (body["status"] == "Executing").then(|| body["token"].as_str().unwrap().to_owned())
    })
    .await
}

async fn status(app: &TestApp, of: &Value, wanted: &str) {
    app.until(wanted, || async {
        let shown = app.ok("SageMaker.DescribePipelineExecution", of.clone()).await;
        (shown["PipelineExecutionStatus"] == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_retry_by_hand_asks_anew_and_takes_no_answer_to_what_was_asked_before() {
    let app = TestApp::new().await;
    let queue = app.ok("AmazonSQS.CreateQueue", json!({"QueueName": "tokens"})).await["QueueUrl"].clone();
    let ask = json!({"Name": "Ask", "Type": "Callback", "SqsQueueUrl": queue, "Arguments": {}});
    let definition = json!({"Version": "2020-12-01", "Steps": [ask]}).to_string();
    let create = json!({"PipelineName": "P", "RoleArn": ROLE, "PipelineDefinition": definition, "ClientRequestToken": "1".repeat(32)});
    app.ok("SageMaker.CreatePipeline", create).await;
    let start = json!({"PipelineName": "P", "ClientRequestToken": "2".repeat(32)});
    let started = app.ok("SageMaker.StartPipelineExecution", start).await;
    let of = json!({"PipelineExecutionArn": started["PipelineExecutionArn"]});
    let first = asked(&app, &queue).await;
    let mut again = of.clone();
    again["ClientRequestToken"] = "3".repeat(32).into();
    app.ok("SageMaker.StopPipelineExecution", again.clone()).await;
    status(&app, &of, "Stopped").await;
    app.ok("SageMaker.RetryPipelineExecution", again).await;
    let second = asked(&app, &queue).await;
    assert_ne!(first, second);
    for (operation, more) in [("Success", json!({})), ("Failure", json!({"FailureReason": "too late"}))] {
        let mut late = json!({"CallbackToken": first});
        late.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (_, text) = app.refused(&format!("SageMaker.SendPipelineExecutionStep{operation}"), late).await;
        assert!(text.contains("takes no result any more"), "{text}");
    }
    app.ok("SageMaker.SendPipelineExecutionStepSuccess", json!({"CallbackToken": second})).await;
    status(&app, &of, "Succeeded").await;
    // The same answer again is the same answer, also to a step that has ended.
    app.ok("SageMaker.SendPipelineExecutionStepSuccess", json!({"CallbackToken": second})).await;
}
