//! One try of a delivery: done, to be tried again, or given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use store::deliveries::Delivery;

use super::{Target, json_of};
use crate::app::App;
use crate::internal_call::{self, CallError};
use crate::sqs::Attribute;
use crate::{lambda, sqs};

/// First pause between two tries; it doubles.
const FIRST_PAUSE_MS: i64 = 1_000;
/// Longest pause between two tries.
const LONGEST_PAUSE_MS: i64 = 10 * 60 * 1000;
/// First pause between two tries of a function; it doubles, as in the service.
const FUNCTION_PAUSE_MS: i64 = 60_000;
/// Codes that another try may cure.
const CURABLE: &[&str] = &[
    "ThrottlingException",
    "ServiceUnavailable",
    "ResourceLimitExceeded",
    "TooManyRequestsException",
    "InternalFailure",
];

/// How a try ended.
enum Outcome {
    /// It is done, and the delivery is off the books.
    Done,
    /// It is done; the delivery is still on the books.
    Brought,
    /// Another try may succeed.
    Again(Failure),
    /// No other try would.
    Never(Failure),
}

/// Why a try failed.
struct Failure {
    code: String,
    text: String,
    /// The queue that the target itself has for what failed.
    dead_letter: Option<String>,
}

impl Failure {
    fn new(code: &str, text: impl Into<String>) -> Failure {
        Failure { code: code.to_owned(), text: text.into(), dead_letter: None }
    }
}

/// Tries a delivery and writes down what became of it.
pub async fn attempt(app: &Arc<App>, delivery: Delivery) {
    let outcome = match serde_json::from_str(&delivery.target) {
        Ok(target) => bring(app, &delivery, &target).await,
        Err(error) => Outcome::Never(Failure::new("INVALID_TARGET", error.to_string())),
    };
    let now_ms = app.clock.now_ms();
    let id = delivery.id.clone();
    let written = match outcome {
        Outcome::Done => Ok(()),
        Outcome::Brought => app.database.write(move |session| session.finish_delivery(&id).map(drop)).await,
        Outcome::Again(failure) => {
            let next_at = now_ms + pause_ms(&delivery);
            if delivery.attempts + 1 < delivery.most_attempts && next_at < delivery.expires_at {
                tracing::info!(delivery = delivery.id, failure.text, "a delivery failed and is tried again");
                app.database.write(move |session| session.retry_delivery(&id, next_at)).await
            } else {
                give_up(app, &delivery, failure).await
            }
        }
        Outcome::Never(failure) => give_up(app, &delivery, failure).await,
    };
    if let Err(error) = written {
        tracing::error!(delivery = delivery.id, %error, "what became of a delivery could not be written down");
        // It is tried again at once; a disk that is full must not be asked without a pause.
        tokio::time::sleep(std::time::Duration::from_millis(FIRST_PAUSE_MS.unsigned_abs())).await;
    }
}

fn pause_ms(delivery: &Delivery) -> i64 {
    let is_function = matches!(serde_json::from_str(&delivery.target), Ok(Target::Function { .. }));
    let first = if is_function { FUNCTION_PAUSE_MS } else { FIRST_PAUSE_MS };
    (first << delivery.attempts.clamp(0, 20)).min(LONGEST_PAUSE_MS)
}

async fn bring(app: &Arc<App>, delivery: &Delivery, target: &Target) -> Outcome {
    let is_function = matches!(target, Target::Function { .. });
    // The semaphore is never closed.
    let _place = if is_function { None } else { app.deliveries.places.acquire().await.ok() };
    match target {
        Target::Queue { arn, group, attributes } => {
            to_queue(app, delivery, arn, group.clone(), attributes.clone()).await
        }
        Target::Function { arn } => to_function(app, delivery, arn).await,
        Target::Pipeline { arn, parameters, role_arn } => {
            let parameters: Vec<_> =
                parameters.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
            // The same token starts the same execution, however often this is tried.
            let input = json!({"PipelineName": arn, "PipelineParameters": parameters, "ClientRequestToken": delivery.id});
            operation(app, delivery, "sagemaker", "StartPipelineExecution", role_arn, input).await
        }
        Target::Operation { service, operation: name, role_arn } => {
            operation(app, delivery, service, name, role_arn, json_of(&delivery.payload)).await
        }
    }
}

/// The message and the end of the delivery are one transaction: it comes exactly once.
async fn to_queue(
    app: &Arc<App>,
    delivery: &Delivery,
    arn: &str,
    group: Option<String>,
    own_attributes: BTreeMap<String, Attribute>,
) -> Outcome {
    let (id, account, now_ms) = (delivery.id.clone(), delivery.account.clone(), app.clock.now_ms());
    let message = sqs::Delivery {
        queue_arn: arn.to_owned(),
        body: delivery.payload.clone(),
        group,
        deduplication_id: Some(delivery.id.clone()),
        own_attributes,
        ..sqs::Delivery::default()
    };
    let sent = app.database.write(move |session| {
        if !session.finish_delivery(&id)? {
            return Ok(None);
        }
        sqs::deliver(session, &account, &message, now_ms).map(|(queue, _)| Some(queue.id))
    });
    match sent.await {
        Ok(queue) => {
            queue.into_iter().for_each(|queue| app.queue_waiters.ring(queue));
            Outcome::Done
        }
        Err(error @ store::Error::Missing { .. }) => {
            Outcome::Never(Failure::new("NO_RESOURCE", error.to_string()))
        }
        Err(error @ store::Error::Invalid(_)) => {
            Outcome::Never(Failure::new("INVALID_PARAMETER", error.to_string()))
        }
        Err(error) => Outcome::Again(Failure::new("SDK_CLIENT_ERROR", error.to_string())),
    }
}

async fn to_function(app: &Arc<App>, delivery: &Delivery, arn: &str) -> Outcome {
    let missing = || Outcome::Never(Failure::new("NO_RESOURCE", format!("Function not found: {arn}")));
    let Some(key) = lambda::key_of_arn(arn).filter(|key| key.account == delivery.account) else {
        return missing();
    };
    let function = match app.database.read(move |session| session.find_resource(&key)).await {
        Ok(Some(function)) => function,
        Ok(None) => return missing(),
        Err(error) => return Outcome::Again(Failure::new("SDK_CLIENT_ERROR", error.to_string())),
    };
    let dead_letter = function.spec["DeadLetterConfig"]["TargetArn"].as_str().map(str::to_owned);
    let call =
        lambda::Invocation { request_id: &delivery.id, payload: &delivery.payload, client_context: None };
    match lambda::invoke(app, &function, &call).await {
        Ok(ended) if ended.ok => Outcome::Brought,
        Ok(ended) => {
            let error = json_of(&ended.payload);
            let text = error["errorMessage"].as_str().unwrap_or(&ended.payload).to_owned();
            Outcome::Again(Failure { dead_letter, ..Failure::new("200", text) })
        }
        Err(error) => Outcome::Again(Failure { dead_letter, ..Failure::new("500", error.to_string()) }),
    }
}

async fn operation(
    app: &Arc<App>,
    delivery: &Delivery,
    service: &str,
    name: &str,
    role_arn: &str,
    input: serde_json::Value,
) -> Outcome {
    let called = async {
        let session = "EventBridge";
        let caller =
            internal_call::as_role(app, &delivery.account, &delivery.region, role_arn, session).await?;
        internal_call::call(app, &caller, service, name, input).await
    };
    match called.await {
        Ok(_) => Outcome::Brought,
        Err(CallError { code, message, status }) => {
            let is_curable = status >= 500 || CURABLE.contains(&code.as_str());
            let failure = Failure::new(&code, message);
            if is_curable { Outcome::Again(failure) } else { Outcome::Never(failure) }
        }
    }
}

/// Puts what could not be brought into the dead-letter queue, where there is one.
async fn give_up(app: &Arc<App>, delivery: &Delivery, failure: Failure) -> store::Result<()> {
    let Failure { code, text, dead_letter } = failure;
    tracing::warn!(delivery = delivery.id, origin = delivery.origin, code, text, "a delivery is given up");
    let (id, account, now_ms) = (delivery.id.clone(), delivery.account.clone(), app.clock.now_ms());
    let dead_letter = dead_letter.or_else(|| delivery.dead_letter.clone());
    let target = json_of(&delivery.target)["arn"].as_str().unwrap_or_default().to_owned();
    let message = dead_letter.map(|queue_arn| sqs::Delivery {
        queue_arn,
        body: delivery.payload.clone(),
        group: Some("dead-letters".into()),
        deduplication_id: Some(delivery.id.clone()),
        attributes: vec![
            ("ERROR_CODE", code),
            ("ERROR_MESSAGE", text),
            ("RULE_ARN", delivery.origin.clone()),
            ("TARGET_ARN", target),
            ("RETRY_ATTEMPTS", delivery.attempts.to_string()),
        ],
        ..sqs::Delivery::default()
    });
    let written = app.database.write(move |session| {
        if !session.finish_delivery(&id)? {
            return Ok(None);
        }
        let Some(message) = message else { return Ok(None) };
        match sqs::deliver(session, &account, &message, now_ms) {
            Ok((queue, _)) => Ok(Some(queue.id)),
            Err(error @ (store::Error::Missing { .. } | store::Error::Invalid(_))) => {
                tracing::warn!(queue = message.queue_arn, %error, "a dead-letter queue takes nothing");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    });
    written.await?.into_iter().for_each(|queue| app.queue_waiters.ring(queue));
    Ok(())
}
