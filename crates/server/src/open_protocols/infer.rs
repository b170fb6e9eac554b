//! An inference on tensors, whatever protocol it came by: to the model in a form that it takes, and back.

use std::sync::Arc;

use bytes::Bytes;
use serving::{InvokeError, InvokeRequest, InvokeResponse};

use super::asked::Asked;
use super::model::Model;
use super::refusal::{Reason, Refusal};
use super::translation::{AnswerProblem, Form, outputs};
use super::v2_message::{InferAnswer, InferRequest, is_header};

/// What a model is asked to answer in where the request says nothing.
const DEFAULT_ACCEPT: &str = "application/json";

/// The status of hosts that do not read a media type.
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

/// Longest id of a request that the model gets as its inference id, as in the service.
const MOST_INFERENCE_ID: usize = 64;

/// Bodies beyond this size are taken apart where they hold up nobody else.
const LARGE_BYTES: usize = 256 * 1024;

/// Runs work on a body of `bytes`: on the spot, or on a thread for such work when it is large.
pub async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < LARGE_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a body could not be taken apart");
        Refusal::new(Reason::Internal, "An internal error occurred; the server's log has it.")
    })
}

/// Asks a model for an inference.
///
/// # Errors
/// What the caller is told.
pub async fn infer(
    asked: &Asked,
    model: &Model,
    version: Option<&str>,
    request: &Arc<InferRequest>,
) -> Result<InferAnswer, Refusal> {
    let host = asked.app.open_protocols.hosts.of(asked, model).await?;
    let mut forms = Form::of(request, host.is_container).map_err(Refusal::invalid)?;
    if let Some(at) = forms.iter().position(|form| Some(form) == host.form.as_ref()) {
        forms.swap(0, at);
    }
    let sent_bytes: usize = request.inputs.iter().map(|input| input.data.len()).sum();
    let last = forms.len() - 1;
    for (index, form) in forms.into_iter().enumerate() {
        let (wanted, shape) = (request.clone(), form.clone());
        let body = beside(sent_bytes, move || shape.body(&wanted)).await?;
        let invocation = InvokeRequest {
            content_type: Some(form.content_type().to_owned()),
            accept: Some(request.options.accept.clone().unwrap_or_else(|| DEFAULT_ACCEPT.into())),
            custom_attributes: request.options.custom_attributes.clone(),
            inference_id: request.id.clone().filter(|id| is_header(id, MOST_INFERENCE_ID)),
            body,
            ..asked.invocation(model, version)?
        };
        match asked.app.endpoints.invoke(model.key(), invocation).await {
            Ok(response) => {
                // A host that takes the first form needs no memory of it.
                if index > 0 {
                    asked.app.open_protocols.hosts.took(model, &form);
                }
                let answered = answer(model.called(model.name()), request, response).await?;
                let model_version = model.version(answered.model_version);
                return Ok(InferAnswer { model_version, ..answered });
            }
            Err(InvokeError::ModelError { answer, .. })
                if answer.status == UNSUPPORTED_MEDIA_TYPE && index < last => {}
            Err(error) => return Err(asked.refusal(model, &error)),
        }
    }
    Err(Refusal::new(Reason::Internal, "The model was not asked."))
}

async fn answer(
    name: &str,
    request: &Arc<InferRequest>,
    response: InvokeResponse,
) -> Result<InferAnswer, Refusal> {
    let InvokeResponse { answer, body } = response;
    let wanted = request.outputs.clone();
    let content_type = answer.content_type.clone();
    let read = move |body: &Bytes| outputs(content_type.as_deref(), body, &wanted);
    let read = beside(body.len(), move || read(&body)).await?;
    let outputs = read.map_err(|problem| match problem {
        AnswerProblem::NoSuchOutput(text) => Refusal::invalid(text),
        AnswerProblem::Unreadable(text) => Refusal::new(Reason::BadAnswer, text),
    })?;
    Ok(InferAnswer {
        model_name: name.to_owned(),
        model_version: answer.invoked_variant,
        id: request.id.clone(),
        outputs: outputs.tensors,
        content_type: outputs.content_type,
    })
}
