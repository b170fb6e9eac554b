//! What invocations of variants on demand are told when they get no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::ReplicaLink;
use crate::invocation::{InvokeError, Target};
use crate::launcher::BoxFuture;
use crate::metrics::Counters;
use crate::pool::Lease;
use crate::settings::DataPlaneSettings;

/// How long one whose replica was lost waits to hear how that ended.
const ENDING_WAIT: Duration = Duration::from_millis(500);

/// What befalls a replica from now on, if that is known in a moment.
pub(crate) fn ending(link: &ReplicaLink) -> BoxFuture<'static, Option<String>> {
    Box::pin(link.how_it_ended(ENDING_WAIT))
}

impl Target {
    pub(crate) fn throttled(&self, limit: usize) -> InvokeError {
        // No model has seen it, and it is the caller who sent too many.
        Counters::count(&self.counters().errors_4xx);
        Counters::count(&self.counters().overloaded);
        InvokeError::Throttled { variant: self.name(), limit }
    }

    /// Nothing so large is answered by replicas on demand, and none is brought up for it.
    pub(crate) fn oversize(&self, bytes: u64, limit_bytes: u64) -> InvokeError {
        Counters::count(&self.counters().errors_4xx);
        InvokeError::TooLarge { what: "request body", bytes, limit_bytes }
    }

    /// The largest answer that is not streamed, in bytes.
    pub(crate) fn max_response_bytes(&self, settings: &DataPlaneSettings) -> u64 {
        let own = self.variant().gate.as_ref().map_or(u64::MAX, |gate| gate.max_body_bytes);
        settings.max_response_bytes.min(own)
    }

    /// Its place in line is gone: the fleet is, or no replica comes up.
    pub(crate) fn dismissed(&self) -> InvokeError {
        let problem = self.variant().gate.as_ref().and_then(|gate| gate.why_none());
        let Some(reason) = problem else { return self.overloaded() };
        self.count_failure(None);
        InvokeError::NotStarted { reason, variant: self.name() }
    }

    /// The worker was lost that had the request with others; `ending` tells what befell that.
    pub(crate) async fn lost_together(
        &self,
        message: String,
        replica: String,
        ending: BoxFuture<'static, Option<String>>,
    ) -> InvokeError {
        let why = if self.variant().gate.is_some() { ending.await } else { None };
        self.lost(why.map_or_else(|| message.clone(), |why| format!("{message} {why}")), replica)
    }

    /// The worker was lost that had the request. A replica on demand may have used up the memory that it is given.
    pub(crate) async fn lost_with_why(&self, message: String, mut lease: Lease) -> InvokeError {
        let link = Arc::clone(&lease.connection().link);
        let ending = self.variant().gate.as_ref().map(|_| link.how_it_ended(ENDING_WAIT));
        // The replica looks what it was once it has the connection back.
        drop(lease);
        let why = match ending {
            Some(ending) => ending.await,
            None => None,
        };
        let message = why.map_or_else(|| message.clone(), |why| format!("{message} {why}"));
        self.lost(message, link.id.clone())
    }
}
