//! Callback steps: a message with a token goes to a queue, and somebody answers with the token.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Ended, Failure, Run, done, failed, refused};
use crate::pipelines::outputs;

/// Sends the message, once: a server that takes the step up finds that it was sent.
pub async fn start(run: &Run) -> Result<Value, Failure> {
    let queue = queue(run).ok_or_else(|| failed("SqsQueueUrl must be given."))?;
    let message = message(run, &queue, "Executing");
    run.call_once("sqs", "SendMessage", message)
        .await
        .map_err(|error| refused("sqs", "SendMessage", &error))?;
    Ok(metadata(run, &queue))
}

fn queue(run: &Run) -> Option<String> {
    run.setting("SqsQueueUrl").and_then(Value::as_str).map(str::to_owned)
}

fn metadata(run: &Run, queue: &str) -> Value {
    json!({"Callback": {"CallbackToken": run.token, "SqsQueueUrl": queue}})
}

fn message(run: &Run, queue: &str, status: &str) -> Value {
    let body = json!({
        "token": run.token,
        "pipelineExecutionArn": run.execution.arn,
        "stepName": run.step().name,
        "status": status,
        "arguments": run.arguments,
    });
    let mut message = json!({"QueueUrl": queue, "MessageBody": body.to_string()});
    if queue.ends_with(".fifo") {
        message["MessageGroupId"] = run.execution.key.name.clone().into();
        message["MessageDeduplicationId"] = format!("{}-{status}", run.token).into();
    }
    message
}

/// Waits to be told the result.
pub async fn wait(run: &Run) -> Ended {
    if run.stopping {
        return Ended::Stopped { properties: Value::Null };
    }
    let woken = Arc::new(Notify::new());
    let _watch = run.app.database.watch(&run.execution.key, woken.clone());
    loop {
        let token = run.token.clone();
        let found = run.app.database.read(move |session| session.pipeline_callback(&token)).await;
        match found.map(|callback| callback.and_then(|callback| callback.answer)) {
            Ok(Some(answer)) => return told(run, &answer),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the answer to a callback could not be read; it will be again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        }
        woken.notified().await;
    }
}

fn told(run: &Run, answer: &Value) -> Ended {
    if let Some(reason) = answer["FailureReason"].as_str() {
        return failed(reason).into();
    }
    match outputs::typed(&run.step().outputs, &answer["Outputs"]) {
        Err(problem) => failed(problem).into(),
        Ok(typed) => {
            let mut metadata = metadata(run, &queue(run).unwrap_or_default());
            metadata["Callback"]["OutputParameters"] = outputs::shown(&typed);
            done(metadata, outputs::properties(&typed))
        }
    }
}

/// Tells the queue that the step stops, as the service does.
pub async fn stop(run: &Run) {
    if let Some(queue) = queue(run)
        && let Err(error) = run.call("sqs", "SendMessage", message(run, &queue, "Stopping")).await
    {
        tracing::debug!(%error, "a queue was not told that a callback step stops");
    }
}
