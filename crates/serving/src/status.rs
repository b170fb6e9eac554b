//! What the data plane reports about an endpoint.

use crate::shift::BesideStatus;

/// Where an endpoint stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPhase {
    /// The first fleet is starting; invocations are refused.
    Creating,
    /// The old fleet serves while a new one starts.
    Updating,
    /// The wanted fleet serves.
    InService,
    /// No fleet serves, because the first one did not come up.
    Failed {
        /// What happened, with the model's traceback or last log lines.
        reason: String,
    },
    /// The new fleet did not come up; the old one still serves.
    UpdateFailed {
        /// What happened, with the model's traceback or last log lines.
        reason: String,
    },
    /// The endpoint was removed; its replicas are stopped.
    Removed,
}

/// One production variant of the fleet that serves (or, while creating, that starts).
#[derive(Clone, Debug, PartialEq)]
pub struct VariantStatus {
    /// The variant's name.
    pub name: String,
    /// Its weight now.
    pub weight: f64,
    /// How many replicas are wanted.
    pub desired_replicas: u32,
    /// How many replicas answer.
    pub healthy_replicas: u32,
}

/// A report on one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// Where it stands.
    pub phase: EndpointPhase,
    /// The generation of the fleet described in `variants`.
    pub generation: u64,
    /// The generation of the plan last applied.
    pub wanted_generation: u64,
    /// The variants of that fleet.
    pub variants: Vec<VariantStatus>,
    /// Why a replica was last restarted, if one was.
    pub last_failure: Option<String>,
    /// The fleet beside the one described in `variants`, if there is one.
    pub beside: Option<BesideStatus>,
}

impl EndpointStatus {
    /// Whether the plan of that generation was reached or has failed.
    pub fn has_settled(&self, generation: u64) -> bool {
        self.wanted_generation == generation
            && !matches!(self.phase, EndpointPhase::Creating | EndpointPhase::Updating)
    }
}
