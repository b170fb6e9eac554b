//! What callers send to models, and what models answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::frame::ResponseHeader;
use crate::session::SessionPlace;
use crate::spoken::SpokenRequest;
/// What a caller sends to a model. Text fields are passed on as they are.
#[derive(Clone, Debug, Default)]
pub struct InvokeRequest {
    /// The variant that must answer; otherwise one is picked by weight.
    pub target_variant: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The media types the caller takes.
    pub accept: Option<String>,
    /// Free text for the model.
    pub custom_attributes: Option<String>,
    /// The caller's name for this inference.
    pub inference_id: Option<String>,
    /// The session this request belongs to, or `NEW_SESSION`.
    pub session_id: Option<String>,
    /// Where that session is held: only that worker may have the request.
    pub session_place: Option<SessionPlace>,
    /// Which of several models in the container is meant.
    pub target_model: Option<String>,
    /// Which of several containers answers, where requests choose one.
    pub target_container: Option<String>,
    /// The name of this request in logs.
    pub request_id: Option<String>,
    /// How long the worker may take, when that is not what the variant allows. The caller of the data plane keeps it.
    pub time_limit: Option<Duration>,
    /// The body, passed on untouched.
    pub body: Bytes,
    /// The same in the words of a protocol, for replicas that speak it by themselves.
    pub spoken: Option<Arc<SpokenRequest>>,
}

/// Headers of an answer, as they came.
pub type SpokenHeaders = Vec<(HeaderName, HeaderValue)>;

/// What a model answers, without the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelAnswer {
    /// The HTTP status the model chose.
    pub status: u16,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// Free text of the model.
    pub custom_attributes: Option<String>,
    /// The session the model opened, with its expiry.
    pub new_session_id: Option<String>,
    /// The session the model closed.
    pub closed_session_id: Option<String>,
    /// Where the session is held that it opened.
    pub session_place: Option<SessionPlace>,
    /// The variant that answered.
    pub invoked_variant: String,
    /// The container that answered, where the variant has several.
    pub container: Option<String>,
    /// Set when the replica got [`InvokeRequest::spoken`]: those headers of its answer that were asked for.
    pub spoken_headers: Option<SpokenHeaders>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct InvokeResponse {
    /// Everything but the body.
    pub answer: ModelAnswer,
    /// The body, as the model gave it.
    pub body: Bytes,
}

/// The head of an answer, of this variant.
pub(super) fn model_answer(head: ResponseHeader, invoked_variant: String) -> ModelAnswer {
    ModelAnswer {
        status: head.status,
        content_type: head.content_type,
        custom_attributes: head.custom_attributes,
        new_session_id: head.new_session_id,
        closed_session_id: head.closed_session_id,
        session_place: None,
        invoked_variant,
        container: head.container,
        spoken_headers: head.spoken_headers,
    }
}
