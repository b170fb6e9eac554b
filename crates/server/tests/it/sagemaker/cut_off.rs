//! Requests whose client goes away at any moment: what they made is carried on with, as if they had been answered.

use std::future::Future;
use std::task::Poll;

use serde_json::{Value, json};

use crate::app::TestApp;

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

/// Polls a request up to `polls` times, then drops it as a broken connection would; whether it was answered before.
async fn cut_off<T>(request: impl Future<Output = T>, polls: usize) -> bool {
    let mut request = Box::pin(request);
    let mut left = polls;
    std::future::poll_fn(|context| match request.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn executions(app: &TestApp, pipeline: &str) -> Vec<Value> {
    let listed = app.ok("SageMaker.ListPipelineExecutions", json!({"PipelineName": pipeline})).await;
    listed["PipelineExecutionSummaries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_nobody_was_told_of_ends_all_the_same() {
    let app = TestApp::new().await;
    let steps = json!([{"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}]);
    let definition = json!({"Version": "2020-12-01", "Steps": steps}).to_string();
    let mut made = 0;
    for round in 0..5 {
        let mut polls = 0;
        // Until it is answered before it is cut, it is cut a little later each time.
        while !is_answered(&app, round, polls, &definition, &mut made).await {
            polls += 1;
            assert!(polls < 100, "a start waits for less than a hundred things");
        }
    }
    assert!(made >= 5, "those that were answered are there");
}

/// Starts an execution of a pipeline of its own, whose client goes away; whether it was answered before.
async fn is_answered(app: &TestApp, round: usize, polls: usize, definition: &str, made: &mut usize) -> bool {
    let name = format!("cut-{round}-{polls}");
    let create = json!({"PipelineName": name, "RoleArn": ROLE, "PipelineDefinition": definition, "ClientRequestToken": format!("{name:0>32}")});
    app.ok("SageMaker.CreatePipeline", create).await;
    let start = json!({"PipelineName": name, "ClientRequestToken": format!("{name:0>32}")});
    let answered = cut_off(app.call("SageMaker.StartPipelineExecution", start), polls).await;
    // There is one writer: what the start had asked it to write is written before this.
    app.app.database.write(|_| Ok(())).await.unwrap();
    app.until("what was started is there or is not, and has ended", || async {
        let all = executions(app, &name).await;
        let ended = all.iter().all(|one| one["PipelineExecutionStatus"] == "Failed");
        (ended && (all.len() == 1 || !answered)).then_some(())
    })
    .await;
    *made += executions(app, &name).await.len();
    answered
}
