//! Invoke: now, later, or not at all.

use std::sync::Arc;

use api::Blob;
use api::lambda::{Invoke, InvokeInput, InvokeOutput};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runner::workload::Exit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;

use super::error::{Problem, Result};
use super::host::{Call, Lost};
use super::record::{FunctionRecord, Settings};
use super::{LATEST, find, once};
use crate::app::App;
use crate::deliveries::{self, Target};
use crate::{Cx, Error, Registry};

/// Longest event of an invocation whose answer is waited for.
const MOST_BYTES: usize = 6_291_456;
/// Longest event of an invocation that happens later.
const MOST_LATER_BYTES: usize = 1_048_576;
/// Bytes of the log that an answer carries.
const TAIL_BYTES: usize = 4096;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<Invoke, _, _, _>(invoke_function);
}

/// One invocation.
pub struct Invocation<'a> {
    /// Its id.
    pub request_id: &'a str,
    /// The event as JSON text.
    pub payload: &'a str,
    /// What the caller says of itself.
    pub client_context: Option<Value>,
}

/// How an invocation ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Whether the function returned; otherwise the payload is its error.
    pub ok: bool,
    /// JSON text.
    pub payload: String,
    /// The end of what was written meanwhile, in base64.
    pub log: String,
}

async fn invoke_function(cx: Cx, input: InvokeInput) -> Result<InvokeOutput> {
    crate::sagemaker::fields::check(
        &cx.input,
        &["FunctionName", "InvocationType", "LogType", "ClientContext", "Payload", "Qualifier"],
    )?;
    let function = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let payload = input.payload.map(|payload| payload.0).unwrap_or_default();
    let kind = input.invocation_type.as_ref().map_or("RequestResponse", |kind| kind.as_str());
    let most = if kind == "Event" { MOST_LATER_BYTES } else { MOST_BYTES };
    if payload.len() > most {
        let text = format!("Request must be smaller than {most} bytes for the InvokeFunction operation");
        return Err(Problem::Code("RequestTooLargeException", text));
    }
    let payload = if payload.is_empty() { b"{}".to_vec() } else { payload };
    let unreadable = |text: String| {
        Problem::Code(
            "InvalidRequestContentException",
            format!("Could not parse request body into json: {text}"),
        )
    };
    let payload = String::from_utf8(payload).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&payload).map_err(|error| unreadable(error.to_string()))?;
    let client_context = input.client_context.map(|text| {
        let bytes = STANDARD.decode(text).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
            Problem::Code(
                "InvalidRequestContentException",
                "Client context must be a valid Base64-encoded JSON object.".into(),
            )
        })
    });
    let client_context: Option<Value> = client_context.transpose()?;
    match kind {
        "DryRun" => Ok(InvokeOutput { status_code: Some(204), ..Default::default() }),
        "Event" => {
            later(&cx, &function, payload).await?;
            Ok(InvokeOutput { status_code: Some(202), ..Default::default() })
        }
        _ => {
            let call = Invocation { request_id: &cx.request_id, payload: &payload, client_context };
            let ended = match &cx.effect_id {
                Some(id) => once::invoke(&cx.state, &function, &call, id).await?,
                None => invoke(&cx.state, &function, &call).await?,
            };
            let wants_log = input.log_type.is_some_and(|kind| kind.as_str() == "Tail");
            Ok(InvokeOutput {
                status_code: Some(200),
                function_error: (!ended.ok).then(|| "Unhandled".to_owned()),
                log_result: wants_log.then_some(ended.log),
                payload: Some(Blob(ended.payload.into_bytes())),
                executed_version: Some(LATEST.into()),
                durable_execution_arn: None,
            })
        }
    }
}

/// Puts an invocation where it is not lost, and answers at once.
async fn later(cx: &Cx, function: &Resource, payload: String) -> Result<()> {
    let target = Target::Function { arn: function.arn.clone() };
    let key = &function.key;
    let id = cx.request_id.clone();
    let delivery = deliveries::new(
        id,
        &key.account,
        &key.region,
        &function.arn,
        &target,
        payload,
        cx.state.clock.now_ms(),
    );
    cx.state.database.write(move |session| session.insert_delivery(&delivery)).await?;
    cx.state.deliveries.ring();
    Ok(())
}

/// Runs a function and waits for its answer.
///
/// # Errors
/// When what is stored of the function is damaged.
pub async fn invoke(app: &Arc<App>, function: &Resource, call: &Invocation<'_>) -> Result<Ended, Error> {
    run(app, function, call, None).await
}

/// As [`invoke`]; with the id of one that happens once, it is taken down before it begins.
///
/// # Errors
/// As [`invoke`], and when the database fails.
pub(super) async fn run(
    app: &Arc<App>,
    function: &Resource,
    call: &Invocation<'_>,
    once: Option<&str>,
) -> Result<Ended, Error> {
    let record = FunctionRecord::read(function)?;
    let settings =
        Settings::stored(&function.spec).map_err(|_| Error::internal("a stored runtime is not known"))?;
    let frame = Call {
        request_id: call.request_id,
        function_arn: &function.arn,
        timeout_seconds: settings.timeout_seconds,
        payload: call.payload,
        client_context: call.client_context.clone(),
        keep: once,
    };
    let mut working = match app.functions.take(app, function, &record.revision_id, &settings).await {
        Ok(working) => working,
        Err(why) => return Ok(lost(&why, call.request_id, settings.timeout_seconds)),
    };
    if let Some(id) = once {
        let (id, instance) = (id.to_owned(), working.host.id.clone());
        let ends_at = app.clock.now_ms() + settings.timeout_seconds as i64 * 1000;
        app.database.write(move |session| session.begin_effect(&id, &instance, ends_at)).await?;
        working.host.leave(true);
    }
    let answer = working.host.run(&frame).await;
    working.host.leave(false);
    match answer {
        Ok(answer) => {
            if !answer.last {
                app.functions.give_back(working);
            }
            Ok(Ended { ok: answer.ok, payload: answer.payload, log: answer.log })
        }
        Err(lost) => {
            let (kind, text) = told(&lost, call.request_id, settings.timeout_seconds);
            working.host.log_line(&text).await;
            let log = tail(&working.host.log_tail().await);
            Ok(Ended { ok: false, payload: error_text(kind, &text), log })
        }
    }
}

fn error_text(kind: &str, text: &str) -> String {
    json!({"errorType": kind, "errorMessage": text}).to_string()
}

/// How an invocation ended whose instance was lost.
pub(super) fn lost(lost: &Lost, request_id: &str, timeout_seconds: u64) -> Ended {
    let (kind, text) = told(lost, request_id, timeout_seconds);
    Ended { ok: false, payload: error_text(kind, &text), log: String::new() }
}

/// Type and message of an invocation that did not come to its end, in the words of the service.
fn told(lost: &Lost, request_id: &str, timeout_seconds: u64) -> (&'static str, String) {
    let exited = |how: &str| format!("RequestId: {request_id} Error: Runtime exited with error: {how}");
    match lost {
        Lost::TimedOut => {
            let text =
                format!("RequestId: {request_id} Error: Task timed out after {timeout_seconds}.00 seconds");
            ("Sandbox.Timedout", text)
        }
        Lost::OutOfMemory => ("Runtime.OutOfMemory", exited("signal: killed")),
        Lost::Ended(report) => match report.exit {
            Exit::Code(0) => (
                "Runtime.ExitError",
                format!("RequestId: {request_id} Error: Runtime exited without providing a reason"),
            ),
            Exit::Code(code) => ("Runtime.ExitError", exited(&format!("exit status {code}"))),
            Exit::Signal(9) => ("Runtime.ExitError", exited("signal: killed")),
            Exit::Signal(number) => ("Runtime.ExitError", exited(&format!("signal: {number}"))),
            _ => ("Runtime.ExitError", exited(&crate::workloads::exit_sentence(report))),
        },
        Lost::Broken(text) => {
            let text = format!(
                "RequestId: {request_id} Error: The function could not be started or does not answer: {text}"
            );
            ("Runtime.Unavailable", text)
        }
    }
}

/// The end of some lines, in base64.
fn tail(lines: &[String]) -> String {
    let text = lines.join("\n");
    let start = text.len().saturating_sub(TAIL_BYTES);
    STANDARD.encode(&text.as_bytes()[start..])
}
