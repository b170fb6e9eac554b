//! Why an invocation has no answer.

use bytes::Bytes;

use super::ModelAnswer;
use crate::composition::TargetProblem;

/// Why an invocation has no answer. The texts are meant for callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvokeError {
    /// The endpoint is not known.
    #[error("Endpoint {endpoint} was not found; create it first.")]
    NoSuchEndpoint {
        /// The key that was asked for.
        endpoint: String,
    },
    /// The target variant is not part of the endpoint.
    #[error(
        "Variant {variant} was not found in the endpoint; leave the target variant out or name an existing one."
    )]
    NoSuchVariant {
        /// The name that was asked for.
        variant: String,
    },
    /// The request names a model or a container where it must not, or does not where it must.
    #[error("{}", target_text(problem))]
    WrongTarget {
        /// What is wrong.
        problem: TargetProblem,
    },
    /// The variant has no such model.
    #[error("{reason}")]
    NoSuchModel {
        /// Where it was looked for.
        reason: String,
    },
    /// The model is being loaded.
    #[error("The model is still being loaded; try again in a moment.")]
    ModelNotReady,
    /// The endpoint has no fleet in service, or every weight is 0.
    #[error("{reason}")]
    NotInService {
        /// What is missing.
        reason: String,
    },
    /// The model answered with an error status.
    #[error("The model answered with status {}.", answer.status)]
    ModelError {
        /// Status, media type and variant.
        answer: Box<ModelAnswer>,
        /// The body of the answer.
        body: Bytes,
        /// The replica whose log has more.
        replica: String,
    },
    /// The model failed in the middle of a streamed answer.
    #[error("The model failed while it streamed its answer: {message}")]
    StreamBroken {
        /// The error, with the model's traceback.
        message: String,
        /// The replica whose log has more.
        replica: String,
    },
    /// No worker was free in time.
    #[error(
        "No worker of variant {variant} was free in time; try again, or give the endpoint more instances."
    )]
    Overloaded {
        /// The variant.
        variant: String,
    },
    /// So many invocations wait for a worker that no more are taken.
    #[error(
        "{limit} requests wait for a worker of variant {variant} already; send fewer at a time, or give the endpoint more instances."
    )]
    QueueFull {
        /// The variant.
        variant: String,
        /// Most that may wait.
        limit: usize,
    },
    /// As many invocations as the variant answers at once are under way.
    #[error(
        "Variant {variant} answers {limit} requests at once, and as many are under way; try again, or raise MaxConcurrency."
    )]
    Throttled {
        /// The variant.
        variant: String,
        /// Most at once.
        limit: usize,
    },
    /// A replica was brought up for it and did not come into service.
    #[error("The model did not start: {reason}")]
    NotStarted {
        /// What happened, with the model's traceback or last log lines.
        reason: String,
        /// The variant.
        variant: String,
    },
    /// Nobody holds the session.
    #[error(
        "Session {session} was not found: it was closed, has expired, or the instance that held it is gone. Open another with NEW_SESSION."
    )]
    NoSuchSession {
        /// The session that was asked for.
        session: String,
    },
    /// The model took too long; its worker is restarted if it does not come to an end.
    #[error("The model did not answer within {limit_seconds} seconds.")]
    Timeout {
        /// The time limit.
        limit_seconds: f64,
        /// The variant.
        variant: String,
        /// The replica whose log has more.
        replica: String,
    },
    /// The request or the answer is larger than allowed.
    #[error("The {what} of {bytes} bytes is larger than the limit of {limit_bytes} bytes.")]
    TooLarge {
        /// `request body` or `answer`.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The request may only go to a replica that speaks its protocol by itself, and this one does not.
    #[error("The model does not speak this protocol by itself.")]
    NotSpoken,
    /// The worker died, or broke the protocol, while it had the request.
    #[error("The worker that had the request was lost: {message}")]
    ContainerLost {
        /// What was seen of it.
        message: String,
        /// The variant.
        variant: String,
        /// The replica whose log has more.
        replica: String,
    },
}

fn target_text(problem: &TargetProblem) -> String {
    match problem {
        TargetProblem::NotManyModels => "The variant has one model; leave the target model out.".into(),
        TargetProblem::NoModelNamed => "The variant has many models; name one as the target model.".into(),
        TargetProblem::NotDirect => {
            "Requests to the variant do not choose a container; leave the target container out.".into()
        }
        TargetProblem::NoContainerNamed => "Name the container that is to answer.".into(),
        TargetProblem::NoSuchContainer(name) => format!("The variant has no container {name}."),
    }
}
