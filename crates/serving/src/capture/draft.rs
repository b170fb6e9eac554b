//! An invocation that is being captured: from its request to the end of its answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::plan::{CapturedBody, CapturedInvocation};
use super::queue::{Capture, Queued, RECORD_BYTES, Share, kept};
use crate::invocation::{InvokeError, InvokeRequest, InvokeResponse, ModelAnswer};

/// A captured invocation whose answer is not whole. Dropped before that, nothing is captured: only whole answers are.
#[derive(Debug)]
pub(crate) struct Draft {
    capture: Arc<Capture>,
    request_id: Option<String>,
    custom_attributes: Option<String>,
    inference_id: Option<String>,
    target_model: Option<String>,
    target_container: Option<String>,
    input: Option<CapturedBody>,
    started_at: Instant,
    share: Share,
    pieces: BytesMut,
    /// There was no room for a piece of it.
    is_too_much: bool,
}

impl Draft {
    /// Begins to capture this invocation, if it is one of those that are captured.
    pub(crate) fn begin(capture: &Arc<Capture>, request: &InvokeRequest) -> Option<Draft> {
        if capture.takes_this_one() { Draft::begin_beside(capture, request) } else { None }
    }

    /// Begins to capture an invocation that belongs to one that is captured.
    pub(crate) fn begin_beside(capture: &Arc<Capture>, request: &InvokeRequest) -> Option<Draft> {
        let input = capture
            .plan
            .input
            .then(|| CapturedBody { content_type: request.content_type.clone(), data: kept(&request.body) });
        let mut share = Share::none(&capture.room);
        if !share.grow(RECORD_BYTES + input.as_ref().map_or(0, |body| body.data.len())) {
            capture.drop_one();
            return None;
        }
        Some(Draft {
            capture: Arc::clone(capture),
            request_id: request.request_id.clone(),
            custom_attributes: request.custom_attributes.clone(),
            inference_id: request.inference_id.clone(),
            target_model: request.target_model.clone(),
            target_container: request.target_container.clone(),
            input,
            started_at: Instant::now(),
            share,
            pieces: BytesMut::new(),
            is_too_much: false,
        })
    }

    /// Captures a whole answer.
    pub(crate) fn whole(mut self, response: &InvokeResponse) {
        let body = if self.capture.plan.output { kept(&response.body) } else { Bytes::new() };
        self.is_too_much |= !self.share.grow(body.len());
        self.finish(&response.answer, body);
    }

    /// Takes note of what comes next in a streamed answer; at its end the invocation is captured.
    pub(crate) fn note(
        draft: &mut Option<Box<Draft>>,
        answer: &ModelAnswer,
        piece: Option<&Result<Bytes, InvokeError>>,
    ) {
        let Some(writing) = draft else { return };
        match piece {
            Some(Ok(piece)) if writing.capture.plan.output && !writing.is_too_much => writing.add(piece),
            Some(Ok(_)) => {}
            Some(Err(_)) => *draft = None,
            None => {
                if let Some(mut whole) = draft.take() {
                    let body = std::mem::take(&mut whole.pieces).freeze();
                    whole.finish(answer, body);
                }
            }
        }
    }

    fn add(&mut self, piece: &Bytes) {
        let left = self.capture.streamed_limit_bytes.saturating_sub(self.pieces.len());
        let piece = &piece[..piece.len().min(left)];
        if self.share.grow(piece.len()) {
            self.pieces.extend_from_slice(piece);
        } else {
            self.is_too_much = true;
            self.pieces = BytesMut::new();
        }
    }

    fn finish(self, answer: &ModelAnswer, body: Bytes) {
        let Draft { capture, share, .. } = self;
        if self.is_too_much {
            return capture.drop_one();
        }
        let output = capture
            .plan
            .output
            .then(|| CapturedBody { content_type: answer.content_type.clone(), data: body });
        let captured = CapturedInvocation {
            request_id: self.request_id,
            variant: answer.invoked_variant.clone(),
            at_ms: (capture.clock)(),
            latency: self.started_at.elapsed(),
            custom_attributes: self.custom_attributes,
            inference_id: self.inference_id,
            target_model: self.target_model,
            target_container: self.target_container,
            input: self.input,
            output,
        };
        capture.push(Queued { captured, share });
    }
}
