//! The prediction protocol of KServe, version 1.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use serving::InvokeRequest;
use wire::Body;

use super::asked::Asked;
use super::infer::beside;
use super::model::Model;
use super::refusal::{Reason, Refusal};
use super::{npy, reply};

const JSON: &str = "application/json";

/// Answers `:predict`: the body goes to the model as it is.
///
/// # Errors
/// What the caller is told.
pub async fn predict(
    asked: &Asked,
    model: &Model,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Refusal> {
    let checked = body.clone();
    beside(body.len(), move || check(&checked)).await?.map_err(Refusal::invalid)?;
    let attributes = headers.get("x-amzn-sagemaker-custom-attributes").and_then(|value| value.to_str().ok());
    let invocation = InvokeRequest {
        content_type: Some(JSON.into()),
        accept: Some(JSON.into()),
        custom_attributes: attributes.map(str::to_owned),
        body,
        ..asked.invocation(model, None)?
    };
    let invoked = asked.app.endpoints.invoke(model.key(), invocation).await;
    let response = invoked.map_err(|error| asked.refusal(model, &error))?;
    let content_type = response.answer.content_type;
    let written = beside(response.body.len(), move || answer(content_type.as_deref(), response.body)).await?;
    let written = written.map_err(|problem| Refusal::new(Reason::BadAnswer, problem))?;
    Ok(reply::bytes(StatusCode::OK, JSON, written))
}

/// A request has `instances` or `inputs`.
fn check(body: &[u8]) -> Result<(), String> {
    /// What is looked for, without a tree of the numbers.
    #[derive(serde::Deserialize)]
    struct Request {
        instances: Option<serde::de::IgnoredAny>,
        inputs: Option<serde::de::IgnoredAny>,
    }
    let request: Request =
        serde_json::from_slice(body).map_err(|error| format!("The request cannot be read: {error}."))?;
    match (request.instances, request.inputs) {
        (None, None) => Err("The request has neither instances nor inputs.".into()),
        _ => Ok(()),
    }
}

/// The model's answer as predictions.
fn answer(content_type: Option<&str>, body: Bytes) -> Result<Bytes, String> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media_type {
        JSON => of_json(body),
        "application/x-npy" => {
            let tensor = npy::read("predictions".into(), &body)?;
            let mut written = b"{\"predictions\":".to_vec();
            tensor.write_json(&mut written, true);
            written.push(b'}');
            Ok(written.into())
        }
        "text/csv" => {
            let text = String::from_utf8_lossy(&body);
            let rows = text.lines().filter(|line| !line.trim().is_empty());
            let predictions: Vec<Value> = rows.map(row).collect();
            Ok(json!({"predictions": predictions}).to_string().into())
        }
        other => Err(format!(
            "The model answered {other:?}; this protocol carries JSON. Have it answer application/json, or use InvokeEndpoint."
        )),
    }
}

/// An object of JSON is passed on, everything else is put into one.
fn of_json(body: Bytes) -> Result<Bytes, String> {
    serde_json::from_slice::<serde::de::IgnoredAny>(&body)
        .map_err(|error| format!("The model's answer is no JSON: {error}."))?;
    if body.trim_ascii_start().first() == Some(&b'{') {
        return Ok(body);
    }
    Ok([&b"{\"predictions\":"[..], body.trim_ascii(), b"}"].concat().into())
}

fn row(line: &str) -> Value {
    let cell =
        |cell: &str| cell.trim().parse::<f64>().map_or_else(|_| json!(cell.trim()), |number| json!(number));
    let cells: Vec<Value> = line.split(',').map(cell).collect();
    match <[Value; 1]>::try_from(cells) {
        Ok([one]) => one,
        Err(cells) => Value::from(cells),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_need_instances_or_inputs() {
        assert_eq!(check(br#"{"instances": [[1, 2]]}"#), Ok(()));
        assert_eq!(check(br#"{"inputs": {"a": [1]}, "signature_name": "s"}"#), Ok(()));
        assert!(check(b"{}").unwrap_err().contains("neither"));
        assert!(check(b"[1]").is_err());
    }

    #[test]
    fn answers_become_predictions() {
        let text = |kind: &str, body: &'static str| {
            answer(Some(kind), Bytes::from_static(body.as_bytes()))
                .map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(
            text("application/json; charset=utf-8", " [1, 2]\n").unwrap(),
            r#"{"predictions":[1, 2]}"#
        );
        assert_eq!(text(JSON, r#"{"predictions": [1]}"#).unwrap(), r#"{"predictions": [1]}"#);
        assert_eq!(text("text/csv", "1,x\n2,y\n").unwrap(), r#"{"predictions":[[1.0,"x"],[2.0,"y"]]}"#);
        assert_eq!(text("text/csv", "1\n2\n").unwrap(), r#"{"predictions":[1.0,2.0]}"#);
        assert!(text(JSON, "nothing").is_err());
        assert!(text("image/png", "x").unwrap_err().contains("image/png"));
    }
}
