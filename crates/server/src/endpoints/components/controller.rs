//! Components at work: the stored record is what is wanted, the data plane makes it so and reports back.

use std::collections::BTreeSet;
use std::sync::Weak;

use serde_json::Value;
use serving::{EndpointPhase, EndpointStatus, InvokeError};
use store::resources::ResourceKey;
use tokio::sync::{oneshot, watch};

use super::record::{ComponentRecord, ComponentSide, ComponentUpdate};
use super::scene::{Instances, endpoint_key, settle};
use super::update::Driver;
use crate::app::App;
use crate::endpoints::capacity::{Counts, is_reached};
use crate::endpoints::rollout::{Side, driving, part_of};
use crate::endpoints::{EndpointController, plane_key};
use crate::sagemaker::kinds::INFERENCE_COMPONENT;
use crate::training::record::shorten;
use crate::{Error, Result};

impl EndpointController {
    /// Has the data plane follow what a transaction has changed.
    ///
    /// # Errors
    /// [`Error::Validation`] when a plan is not possible.
    pub fn apply_components(&self, changed: &[ResourceKey]) -> Result<()> {
        let Some(app) = self.app.upgrade() else { return Ok(()) };
        changed.iter().try_for_each(|key| self.take_up_component(&app, key, false))
    }

    /// Has the data plane follow what is stored of a component.
    fn take_up_component(&self, app: &App, key: &ResourceKey, is_back: bool) -> Result<()> {
        // Whoever comes last has read what was written last.
        let _turn = self.components.turn();
        let Some(resource) = app.database.look(|session| session.find_resource(key))? else { return Ok(()) };
        let record = ComponentRecord::read(&resource.document)?;
        let has_failed = resource.status == "Failed";
        if resource.status == "Deleting" {
            return Ok(());
        }
        self.components.note(key, &record, has_failed);
        if has_failed {
            return Ok(());
        }
        if record.placed() == 0 && record.copies > 0 && record.update.is_none() {
            // Who waits for the first copy would wait for long.
            self.plane.dismiss(&plane_key(key));
        }
        self.send_component(key, &record, is_back && record.has_served())
    }

    /// Arranges the components of an endpoint whose instances are others than before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle_components(&self, app: &App, endpoint: &ResourceKey) -> Result<()> {
        if !self.components.is_host(endpoint) {
            return Ok(());
        }
        let (instances, now_ms) = (Instances::of(&app.capacity), app.clock.now_ms());
        let endpoint = endpoint.clone();
        let changed = app.database.write(move |session| settle(session, &endpoint, &instances, now_ms));
        self.apply_components(&changed.await?)
    }

    fn send_component(&self, key: &ResourceKey, record: &ComponentRecord, is_back: bool) -> Result<()> {
        if let Some(update) = &record.update {
            let moved = self.shift_component(key, record, update, is_back)?;
            let driver = Driver::new(key.clone(), record.clone());
            let driver = tokio::spawn(driving::drive(self.app.clone(), driver, moved));
            self.replace_follower(key, driver.abort_handle());
            return Ok(());
        }
        let plan = self.component_plan(key, &record.side, record.placed());
        let failure =
            self.plane.watch(&plan.endpoint).and_then(|status| status.borrow().last_failure.clone());
        let sent = if is_back { self.plane.resume(plan) } else { self.plane.apply(plan) };
        let status = sent.map_err(|error| Error::Validation(error.to_string()))?;
        let wanted = (record.side.generation, vec![(key.name.clone(), record.placed())]);
        let follower = tokio::spawn(follow(self.app.clone(), key.clone(), wanted, failure, status));
        self.replace_follower(key, follower.abort_handle());
        Ok(())
    }

    /// The copies of a component, as the data plane is to have them: the one variant of an endpoint of its own.
    fn component_plan(&self, key: &ResourceKey, side: &ComponentSide, copies: u32) -> serving::EndpointPlan {
        let mut deployed = side.deployed.clone();
        deployed.replicas = copies;
        let side = Side {
            config: String::new(),
            generation: side.generation,
            variants: vec![deployed],
            shadows: Vec::new(),
            data_capture: None,
            asynchronous: None,
        };
        self.plan(key, &side)
    }

    /// Has the data plane stand where an update stands; what is given back is told when it does.
    ///
    /// # Errors
    /// [`Error::Validation`] when a plan is not possible.
    pub(super) fn shift_component(
        &self,
        key: &ResourceKey,
        record: &ComponentRecord,
        update: &ComponentUpdate,
        is_back: bool,
    ) -> Result<oneshot::Receiver<()>> {
        let progress = &update.progress;
        let plan = |side: &ComponentSide, part: f64| {
            self.component_plan(key, side, part_of(side.deployed.replicas, part))
        };
        let shift = serving::Shift {
            main: plan(&record.side, progress.old_part),
            beside: plan(&update.other, progress.new_part),
            share: progress.share,
            main_has_served: is_back,
            beside_has_served: is_back && progress.share > 0.0,
        };
        self.plane.shift(shift).map_err(|error| Error::Validation(error.to_string()))
    }

    /// Refuses an invocation of an endpoint that answers only through its components.
    ///
    /// # Errors
    /// [`InvokeError::NotInService`].
    pub(in crate::endpoints) fn check_answers(&self, key: &ResourceKey) -> Result<(), InvokeError> {
        if !self.components.is_host(key) {
            return Ok(());
        }
        let reason = "It answers through its inference components: name one as InferenceComponentName of InvokeEndpoint.";
        Err(InvokeError::NotInService { reason: reason.to_owned() })
    }

    /// Takes up the components that the database knows.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::endpoints) async fn resume_components(&self, app: &App) -> Result<()> {
        let stored = app.database.read(|session| session.all_resources(INFERENCE_COMPONENT)).await?;
        let mut endpoints = BTreeSet::new();
        for resource in stored {
            let record = ComponentRecord::read(&resource.document)?;
            endpoints.insert(endpoint_key(&resource.key, &record.endpoint));
        }
        if endpoints.is_empty() {
            return Ok(());
        }
        // A server that was killed may have changed instances and not yet who is on them.
        let (instances, now_ms) = (Instances::of(&app.capacity), app.clock.now_ms());
        let settled = app.database.write(move |session| {
            for endpoint in &endpoints {
                settle(session, endpoint, &instances, now_ms)?;
            }
            session.all_resources(INFERENCE_COMPONENT)
        });
        for resource in settled.await? {
            let record = ComponentRecord::read(&resource.document)?;
            if resource.status == "Deleting" {
                let endpoint = endpoint_key(&resource.key, &record.endpoint);
                self.remove_component(&resource.key, endpoint);
                continue;
            }
            self.take_up_component(app, &resource.key, true)?;
            // Who scales it says so again in a moment; until then its first request is not refused.
            let key = resource.key;
            let asked = key.clone();
            let is_scaled = app.database.read(move |session| crate::autoscaling::is_scaled(session, &asked));
            self.components.set_woken(&key, is_scaled.await?);
        }
        Ok(())
    }

    /// Takes a component out of service, and its record away once the copies are gone; others may take its room then.
    pub fn remove_component(&self, key: &ResourceKey, endpoint: ResourceKey) {
        let name = plane_key(key);
        if let Some(known) = self.known().remove(&name) {
            known.follower.abort();
        }
        self.components.forget(key);
        self.sessions.forget(&name);
        let (plane, app, key) = (self.plane.clone(), self.app.clone(), key.clone());
        tokio::spawn(async move {
            plane.remove(&name).await;
            let Some(app) = app.upgrade() else { return };
            let (instances, now_ms) = (Instances::of(&app.capacity), app.clock.now_ms());
            let gone = app.database.write(move |session| {
                session.delete_resource(&key)?;
                session.append_event(&key, "Deleted", &Value::Null, now_ms)?;
                settle(session, &endpoint, &instances, now_ms)
            });
            let applied = match gone.await {
                Ok(changed) => app.endpoints.apply_components(&changed),
                Err(store::Error::Missing { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = applied {
                tracing::error!(%error, "a deleted inference component could not be taken off the books");
            }
        });
    }
}

/// Writes the settled status of a component to the database, once its copies answer. `failure` is what failed before.
async fn follow(
    app: Weak<App>,
    key: ResourceKey,
    (generation, counts): (u64, Counts),
    failure: Option<String>,
    mut status: watch::Receiver<EndpointStatus>,
) {
    let settled = status
        .wait_for(|status| {
            status.wanted_generation > generation
                || status.has_settled(generation) && is_reached(status, &counts, failure.as_ref())
        })
        .await;
    let Ok(settled) = settled.map(|status| status.clone()) else { return };
    let Some(app) = app.upgrade() else { return };
    if settled.wanted_generation != generation {
        return;
    }
    let wanted: u32 = counts.iter().map(|(_, count)| count).sum();
    let healthy: u32 = settled.variants.iter().map(|variant| variant.healthy_replicas).sum();
    let (status, reason) = match settled.phase {
        EndpointPhase::InService => ("InService", settled.last_failure.filter(|_| healthy < wanted)),
        EndpointPhase::UpdateFailed { reason } => ("InService", Some(reason)),
        EndpointPhase::Failed { reason } => ("Failed", Some(reason)),
        _ => return,
    };
    let now_ms = app.clock.now_ms();
    let noted = key.clone();
    let written = app.database.write(move |session| {
        let Some(resource) = session.find_resource(&key)? else { return Ok(None) };
        let mut record = ComponentRecord::read(&resource.document)?;
        let is_same = record.side.generation == generation
            && record.placed() == wanted
            && record.update.is_none()
            && resource.status != "Deleting";
        if !is_same {
            return Ok(None);
        }
        let before = (record.served_generation, record.failure_reason.clone());
        if status == "InService" {
            record.served_generation = Some(generation);
            // Why copies have no room, or an update went back, stays to be seen until something else is wanted.
            if reason.is_some() {
                record.failure_reason = reason.map(shorten);
            }
        } else {
            record.served_generation = None;
            record.failure_reason = reason.map(shorten);
        }
        if before == (record.served_generation, record.failure_reason.clone()) && resource.status == status {
            return Ok(None);
        }
        session.update_resource(&key, now_ms, |resource| {
            resource.document = record.to_document();
            resource.status = status.into();
            Ok(())
        })?;
        session.append_event(&key, status, &Value::Null, now_ms)?;
        Ok(Some(record))
    });
    match written.await {
        // Its room is free for others.
        Ok(Some(record)) if status == "Failed" => {
            app.endpoints.components.note(&noted, &record, true);
            let endpoint = endpoint_key(&noted, &record.endpoint);
            if let Err(error) = app.endpoints.settle_components(&app, &endpoint).await {
                tracing::error!(%error, "the room of a failed inference component could not be given to others");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "the status of an inference component could not be written"),
    }
}
