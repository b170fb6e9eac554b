//! What a receiver does with a message: delete it, or hide it for another time.

use api::sqs::{
    ChangeMessageVisibility, ChangeMessageVisibilityBatch, ChangeMessageVisibilityBatchInput,
    ChangeMessageVisibilityBatchOutput, ChangeMessageVisibilityBatchResultEntry,
    ChangeMessageVisibilityInput, ChangeMessageVisibilityOutput, DeleteMessage, DeleteMessageBatch,
    DeleteMessageBatchInput, DeleteMessageBatchOutput, DeleteMessageBatchResultEntry, DeleteMessageInput,
    DeleteMessageOutput,
};
use store::queues::{Queue, Receipt, VisibilityProblem};

use super::error::{Problem, Result};
use super::{check_batch, find};
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<DeleteMessage, _, _, _>(delete_message);
    registry.on::<DeleteMessageBatch, _, _, _>(delete_message_batch);
    registry.on::<ChangeMessageVisibility, _, _, _>(change_message_visibility);
    registry.on::<ChangeMessageVisibilityBatch, _, _, _>(change_message_visibility_batch);
}

async fn delete_message(cx: Cx, input: DeleteMessageInput) -> Result<DeleteMessageOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    delete(&cx, &queue, &input.receipt_handle).await?;
    Ok(DeleteMessageOutput::default())
}

async fn delete_message_batch(cx: Cx, input: DeleteMessageBatchInput) -> Result<DeleteMessageBatchOutput> {
    check_batch(input.entries.iter().map(|entry| entry.id.as_str()))?;
    let queue = find(&cx, &input.queue_url).await?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in input.entries {
        match delete(&cx, &queue, &entry.receipt_handle).await {
            Ok(()) => successful.push(DeleteMessageBatchResultEntry { id: Some(entry.id) }),
            Err(problem) => failed.push(problem.of_entry(entry.id)?),
        }
    }
    Ok(DeleteMessageBatchOutput { successful: Some(successful), failed: Some(failed) })
}

async fn delete(cx: &Cx, queue: &Queue, handle: &str) -> Result<()> {
    let receipt = receipt(queue, handle)?;
    let (queue, now_ms) = (queue.clone(), cx.state.clock.now_ms());
    let id = queue.id;
    let deleted = cx.state.database.write(move |session| session.delete_message(&queue, &receipt, now_ms));
    if !deleted.await? {
        return Err(Problem::parameter(handle, "ReceiptHandle", "The receipt handle has expired."));
    }
    // The next message of its group may go.
    cx.state.queue_waiters.ring(id);
    Ok(())
}

async fn change_message_visibility(
    cx: Cx,
    input: ChangeMessageVisibilityInput,
) -> Result<ChangeMessageVisibilityOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    change(&cx, &queue, &input.receipt_handle, input.visibility_timeout).await?;
    Ok(ChangeMessageVisibilityOutput::default())
}

async fn change_message_visibility_batch(
    cx: Cx,
    input: ChangeMessageVisibilityBatchInput,
) -> Result<ChangeMessageVisibilityBatchOutput> {
    check_batch(input.entries.iter().map(|entry| entry.id.as_str()))?;
    let queue = find(&cx, &input.queue_url).await?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in input.entries {
        let changed = match entry.visibility_timeout {
            Some(seconds) => change(&cx, &queue, &entry.receipt_handle, seconds).await,
            None => {
                let text = "The request must contain the parameter VisibilityTimeout.";
                Err(Problem::new("MissingParameter", text))
            }
        };
        match changed {
            Ok(()) => successful.push(ChangeMessageVisibilityBatchResultEntry { id: Some(entry.id) }),
            Err(problem) => failed.push(problem.of_entry(entry.id)?),
        }
    }
    Ok(ChangeMessageVisibilityBatchOutput { successful: Some(successful), failed: Some(failed) })
}

async fn change(cx: &Cx, queue: &Queue, handle: &str, seconds: i32) -> Result<()> {
    if !(0..=43_200).contains(&seconds) {
        let reason = "VisibilityTimeout must be between 0 and 43200.";
        return Err(Problem::parameter(seconds, "VisibilityTimeout", reason));
    }
    let receipt = receipt(queue, handle)?;
    let now_ms = cx.state.clock.now_ms();
    let changed =
        cx.state.database.write(move |session| session.change_visibility(&receipt, seconds.into(), now_ms));
    let changed = changed.await?;
    cx.state.queue_waiters.ring(queue.id);
    changed.map_err(|problem| match problem {
        VisibilityProblem::Missing => {
            let reason = "Message does not exist or is not available for visibility timeout change.";
            Problem::parameter(handle, "ReceiptHandle", reason)
        }
        VisibilityProblem::Expired => Problem::new(
            "MessageNotInflight",
            "The message is not in flight: its visibility timeout is over.",
        ),
        VisibilityProblem::TooLong => {
            let reason = "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].";
            Problem::parameter(seconds, "VisibilityTimeout", reason)
        }
    })
}

/// The receipt behind a handle, which must be one of this queue.
fn receipt(queue: &Queue, handle: &str) -> Result<Receipt> {
    Receipt::parse(handle).filter(|receipt| receipt.queue == queue.id).ok_or_else(|| {
        let text = format!("The input receipt handle {handle:?} is not a valid receipt handle.");
        Problem::new("ReceiptHandleIsInvalid", text)
    })
}
