//! Whom an invocation wants: any replica of a variant, or the worker that holds its session.

use crate::invocation::{InvokeError, InvokeRequest, ModelAnswer, Target};
use crate::pool::Lease;
use crate::session::SessionPlace;

/// What an invocation says about who may answer it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    variant: Option<&'a str>,
    /// The session, and where it is held.
    pub(crate) session: Option<&'a SessionPlace>,
    session_id: &'a str,
    /// How much it brings.
    pub(crate) body_bytes: u64,
    /// The model that is to answer, where there are many.
    pub(crate) model: Option<&'a str>,
    /// The container that is to answer, where requests choose one.
    pub(crate) container: Option<&'a str>,
    /// The request, where it may be answered together with others.
    pub(crate) joinable: Option<&'a InvokeRequest>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn of(request: &'a InvokeRequest) -> Self {
        Self {
            variant: request.target_variant.as_deref(),
            session: request.session_place.as_ref(),
            session_id: request.session_id.as_deref().unwrap_or_default(),
            body_bytes: request.body.len() as u64,
            model: request.target_model.as_deref(),
            container: request.target_container.as_deref(),
            joinable: None,
        }
    }

    /// The same for one whose answer may come in one piece, so that others may be answered with it.
    pub(crate) fn whole_of(request: &'a InvokeRequest) -> Self {
        Self { joinable: request.may_join().then_some(request), ..Self::of(request) }
    }

    /// The variant that must answer.
    pub(crate) fn name(&self) -> Option<&'a str> {
        self.session.map(|place| &*place.variant).or(self.variant)
    }

    /// A variant that is no more took its sessions along.
    pub(crate) fn told(&self, error: InvokeError) -> InvokeError {
        match error {
            InvokeError::NoSuchVariant { .. } if self.session.is_some() => self.lost_session(),
            other => other,
        }
    }

    pub(crate) fn lost_session(&self) -> InvokeError {
        InvokeError::NoSuchSession { session: self.session_id.to_owned() }
    }
}

impl Target {
    /// Where the session is held that an answer says was opened.
    pub(crate) fn session_place(&self, answer: &ModelAnswer, lease: &mut Lease) -> Option<SessionPlace> {
        answer.new_session_id.as_ref()?;
        let connection = lease.connection();
        Some(SessionPlace {
            variant: self.name(),
            replica: connection.link.id.clone(),
            worker: connection.worker,
        })
    }
}
