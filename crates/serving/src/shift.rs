//! Two fleets of an endpoint side by side: how the traffic is shared between them, and what each of them did.

use tokio::sync::oneshot;

use crate::data_plane::DataPlane;
use crate::endpoint::Command;
use crate::plan::{EndpointPlan, PlanError};
use crate::status::VariantStatus;
use crate::tally::{FleetReading, SampledOutput};

/// An endpoint between two fleets. Each is told from the other by its generation; one that runs already is taken as it is, with its
/// counts and weights changed in place, and what runs beside these two is drained and ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// The fleet that the endpoint's status shows.
    pub main: EndpointPlan,
    /// The one beside it.
    pub beside: EndpointPlan,
    /// The part of the requests, from 0 to 1, that goes to the fleet beside once all of it answers.
    pub share: f64,
    /// Whether the main fleet served under an earlier server: then one replica of each variant is enough to serve again.
    pub main_has_served: bool,
    /// The same of the fleet beside; a replica of it that does not start is tried again.
    pub beside_has_served: bool,
}

/// The fleet beside the one that an endpoint's status shows.
#[derive(Clone, Debug, PartialEq)]
pub struct BesideStatus {
    /// Its generation.
    pub generation: u64,
    /// The part of the requests that goes there now.
    pub share: f64,
    /// Whether all its replicas answer.
    pub is_ready: bool,
    /// Why it will never be ready.
    pub failure: Option<String>,
    /// Its variants.
    pub variants: Vec<VariantStatus>,
}

impl Shift {
    fn check(&self) -> Result<(), PlanError> {
        self.main.check()?;
        self.beside.check()?;
        if self.main.endpoint != self.beside.endpoint || self.main.generation == self.beside.generation {
            return Err(PlanError::SameFleet);
        }
        if (0.0..=1.0).contains(&self.share) { Ok(()) } else { Err(PlanError::BadShare) }
    }
}

impl DataPlane {
    /// Puts two fleets side by side; a plan that is applied later ends that. What is given back is told once requests go where they
    /// should. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When a plan breaks a rule.
    pub fn shift(&self, shift: Shift) -> Result<oneshot::Receiver<()>, PlanError> {
        shift.check()?;
        let endpoint = self.endpoint_for(&shift.main, shift.main_has_served);
        let (done, told) = oneshot::channel();
        // The task only ends after a removal, which takes the endpoint out of the table first.
        let _ = endpoint.commands.send(Command::Shift(Box::new(shift), done));
        Ok(told)
    }

    /// What a fleet did since another stands beside it; `None` when none does.
    pub fn fleet_reading(&self, endpoint: &str, generation: u64) -> Option<FleetReading> {
        self.with_tally(endpoint, generation, |tally| tally.reading())
    }

    /// A few of its answers, those since the last call.
    pub fn take_outputs(&self, endpoint: &str, generation: u64) -> Vec<SampledOutput> {
        self.with_tally(endpoint, generation, |tally| tally.take_outputs()).unwrap_or_default()
    }

    fn with_tally<T>(
        &self,
        endpoint: &str,
        generation: u64,
        read: impl FnOnce(&crate::tally::Tally) -> T,
    ) -> Option<T> {
        let handles = self.handles();
        let tallies = &handles.get(endpoint)?.tallies;
        let tallies = tallies.lock().expect("no code that holds this lock can panic");
        tallies.get(&generation).map(|tally| read(tally))
    }
}
