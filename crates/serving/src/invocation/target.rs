//! The variant that an invocation goes to, and what is counted of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::{InvokeError, ModelAnswer};
use crate::flight::Flight;
use crate::metrics::Counters;
use crate::refused::Refused;
use crate::route::{Route, RouteVariant};
use crate::tally::Tally;

/// The parts of a [`RouteVariant`] that are needed after the route may have been replaced.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) route: Arc<Route>,
    pub(super) position: usize,
}

impl Target {
    pub(crate) fn variant(&self) -> &RouteVariant {
        &self.route.variants[self.position]
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.variant().counters
    }

    pub(crate) fn name(&self) -> String {
        self.variant().name.to_string()
    }

    /// Where its fleet is counted on its own, while two stand side by side.
    pub(super) fn tally(&self) -> Option<&Tally> {
        self.variant().tally.as_deref()
    }

    pub(crate) fn count_failure(&self, kind: Option<&AtomicU64>) {
        Counters::count(&self.counters().errors_5xx);
        Counters::count(&self.counters().model_errors);
        if let Some(tally) = self.tally() {
            tally.failed();
        }
        if let Some(kind) = kind {
            Counters::count(kind);
        }
    }

    pub(crate) fn overloaded(&self) -> InvokeError {
        // No model has seen it, so it is none of the model's errors.
        Counters::count(&self.counters().errors_5xx);
        Counters::count(&self.counters().overloaded);
        if let Some(tally) = self.tally() {
            tally.failed();
        }
        InvokeError::Overloaded { variant: self.name() }
    }

    pub(super) fn queue_full(&self, limit: usize) -> InvokeError {
        self.count_failure(Some(&self.counters().overloaded));
        InvokeError::QueueFull { variant: self.name(), limit }
    }

    pub(super) fn timed_out(&self, replica: String) -> InvokeError {
        self.count_failure(Some(&self.counters().timed_out));
        let limit_seconds = self.variant().model_timeout.as_secs_f64();
        InvokeError::Timeout { limit_seconds, variant: self.name(), replica }
    }

    /// What a replica of many models or several containers says instead of an answer.
    pub(super) fn refused(&self, refused: Refused, replica: String) -> InvokeError {
        match refused {
            Refused::NoSuchModel(reason) => {
                Counters::count(&self.counters().errors_4xx);
                InvokeError::NoSuchModel { reason }
            }
            Refused::NotReady => {
                Counters::count(&self.counters().errors_4xx);
                InvokeError::ModelNotReady
            }
            Refused::NotLoaded { status, reason } => {
                self.count_failure(None);
                let answer = ModelAnswer { status, invoked_variant: self.name(), ..ModelAnswer::default() };
                InvokeError::ModelError { answer: Box::new(answer), body: reason.into(), replica }
            }
            Refused::Overloaded => self.overloaded(),
            Refused::TimedOut => self.timed_out(replica),
        }
    }

    pub(crate) fn lost(&self, message: String, replica: String) -> InvokeError {
        self.count_failure(None);
        InvokeError::ContainerLost { message, variant: self.name(), replica }
    }

    pub(super) fn too_large(&self, bytes: u64, limit_bytes: u64) -> InvokeError {
        self.count_failure(None);
        InvokeError::TooLarge { what: "answer", bytes, limit_bytes }
    }

    pub(super) fn count_answer(&self, status: u16, started_at: Instant, flight: Option<&Flight>) {
        let counters = self.counters();
        if let Some(flight) = flight {
            flight.answered(started_at);
        }
        if !(200..300).contains(&status) {
            Counters::count(&counters.model_errors);
        }
        let elapsed = started_at.elapsed();
        Counters::add_time(&counters.model_latency_microseconds, elapsed);
        if let Some(tally) = self.tally() {
            tally.answered(status, elapsed);
        }
        match status {
            400..=499 => Counters::count(&counters.errors_4xx),
            500.. => Counters::count(&counters.errors_5xx),
            _ => {}
        }
    }
}
