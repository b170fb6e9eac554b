//! Lambda steps: one Invoke, whose answer has the outputs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Ended, Failure, Run, done, failed, refused};
use crate::pipelines::outputs;

/// Calls the function and waits for its answer.
pub async fn start(run: &Run) -> Result<Ended, Failure> {
    let function = run.setting("FunctionArn").and_then(Value::as_str);
    let function = function.ok_or_else(|| failed("FunctionArn must be given."))?;
    let own = format!(":{}:function:", run.execution.key.account);
    if function.starts_with("arn:") && !function.contains(&own) {
        return Err(failed(format!("The function {function} belongs to another account.")));
    }
    let payload = STANDARD.encode(run.arguments.to_string());
    let input = json!({"FunctionName": function, "InvocationType": "RequestResponse", "Payload": payload});
    // A server that takes the step up joins the invocation, or finds its answer.
    let answer = run.call_once("lambda", "Invoke", input).await;
    let answer = answer.map_err(|error| refused("lambda", "Invoke", &error))?;
    let text = answer["Payload"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if let Some(kind) = answer["FunctionError"].as_str() {
        let text = String::from_utf8_lossy(&text);
        return Err(failed(format!("The function {function} failed ({kind}): {text}")));
    }
    let returned: Value = serde_json::from_slice(&text).unwrap_or_default();
    let typed = outputs::typed(&run.step().outputs, &returned).map_err(failed)?;
    let metadata = json!({"Lambda": {"Arn": function, "OutputParameters": outputs::shown(&typed)}});
    Ok(done(metadata, outputs::properties(&typed)))
}
