//! Deployments with guardrails: a new fleet takes the traffic step by step, is watched, and goes when it is worse than the one before.

pub mod config;
mod deployment;
mod driver;
pub mod driving;
pub mod guards;
mod machine;
mod outputs;
mod settings;
pub mod view;

use std::sync::{Arc, Mutex, PoisonError};

use serving::{EndpointPlan, Shift};
use store::resources::ResourceKey;
use tokio::sync::oneshot;

pub use deployment::{Deployment, Ended, Side, instances, part_of};
pub use guards::Finding;
pub use machine::{Kind, Policy, Progress, Stage};
pub use settings::GuardSettings;

use super::record::EndpointRecord;
use super::{EndpointController, plane_key};
use crate::{Error, Result};

/// What the guards of deployments found at their last look, by the data plane's names of endpoints.
#[derive(Debug, Default)]
pub struct Findings {
    found: Mutex<std::collections::HashMap<String, Arc<Vec<Finding>>>>,
}

impl Findings {
    fn put(&self, key: &ResourceKey, findings: Vec<Finding>) {
        self.lock().insert(plane_key(key), Arc::new(findings));
    }

    /// Forgets those of an endpoint.
    pub(super) fn forget(&self, key: &ResourceKey) {
        self.lock().remove(&plane_key(key));
    }

    fn of(&self, key: &ResourceKey) -> Arc<Vec<Finding>> {
        self.lock().get(&plane_key(key)).map(Arc::clone).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Arc<Vec<Finding>>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointController {
    /// Goes on with the deployment of a record, from the step in which it is.
    ///
    /// # Errors
    /// [`Error::Validation`] when a plan is not possible.
    pub(super) fn roll_out(
        &self,
        key: &ResourceKey,
        record: &EndpointRecord,
        deployment: &Deployment,
        is_back: bool,
    ) -> Result<()> {
        let moved = self.shift(key, record, deployment, is_back)?;
        self.findings.forget(key);
        self.follow_invocations(key, record);
        let driver = driver::Driver::new(key.clone(), record.clone(), deployment.clone());
        let driver = tokio::spawn(driving::drive(self.app.clone(), driver, moved));
        self.replace_follower(key, driver.abort_handle());
        self.queues.follow(key, record, &self.app);
        Ok(())
    }

    /// Has the data plane stand where a deployment stands; what is given back is told when it does.
    fn shift(
        &self,
        key: &ResourceKey,
        record: &EndpointRecord,
        deployment: &Deployment,
        is_back: bool,
    ) -> Result<oneshot::Receiver<()>> {
        let plan = |side: &Side, part: f64| -> EndpointPlan {
            let mut plan = self.plan(key, side);
            for variant in &mut plan.variants {
                variant.replicas = part_of(variant.replicas, part);
            }
            plan
        };
        let shift: Shift = deployment::shift(record, deployment, is_back, plan);
        self.plane.shift(shift).map_err(|error| Error::Validation(error.to_string()))
    }

    /// Ends the time of two fleets in the data plane: what the record shows serves alone.
    fn settle(&self, key: &ResourceKey, record: &EndpointRecord) -> Result<()> {
        let plan = self.plan(key, &record.side());
        self.plane.apply(plan).map_err(|error| Error::Validation(error.to_string()))?;
        self.follow_invocations(key, record);
        self.queues.follow(key, record, &self.app);
        Ok(())
    }
}
