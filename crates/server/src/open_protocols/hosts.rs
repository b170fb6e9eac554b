//! What kind of host answers for a model: one of ours, or a container.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runner::catalogue::Source;
use serving::{EndpointStatus, InvokeError};
use store::resources::{Resource, ResourceKey};
use tokio::sync::watch;

use super::asked::Asked;
use super::model::Model;
use super::refusal::Refusal;
use super::translation::Form;
use crate::app::App;
use crate::endpoints::EndpointRecord;
use crate::endpoints::components::ComponentRecord;
use crate::sagemaker::kinds::INFERENCE_COMPONENT;

/// Most models that are remembered; beyond, all are forgotten and found out anew.
const MOST_KNOWN: usize = 10_000;

/// What was found out about models.
#[derive(Debug, Default)]
pub struct Hosts {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    /// Tells an endpoint or component from a later one of the same name.
    status: watch::Receiver<EndpointStatus>,
    /// The fleet of which it was found out.
    generation: u64,
    host: Host,
}

/// What is known of a model's hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether some variant is a container, which may speak the protocols by itself.
    pub is_container: bool,
    /// Whether some variant has many models, of which each request names one.
    pub has_many: bool,
    /// The form of tensors that it took last.
    pub form: Option<Form>,
}

impl Hosts {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What answers for a model.
    ///
    /// # Errors
    /// When there is no such endpoint, nothing of the component runs, or the database fails.
    pub async fn of(&self, asked: &Asked, model: &Model) -> Result<Host, Refusal> {
        let key = model.key();
        let status = asked.app.endpoints.watch(key).ok_or_else(|| {
            asked.refusal(model, &InvokeError::NoSuchEndpoint { endpoint: key.name.clone() })
        })?;
        let generation = status.borrow().generation;
        let id = id(key);
        let found = self.known().get(&id).and_then(|known| {
            (known.generation == generation && known.status.same_channel(&status)).then(|| known.host.clone())
        });
        if let Some(host) = found {
            return Ok(host);
        }
        let resource = asked.resource(key).await?;
        let host = host(&asked.app, &resource).await;
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(id, Known { status, generation, host: host.clone() });
        Ok(host)
    }

    /// Remembers the form of tensors that a model took.
    pub fn took(&self, model: &Model, form: &Form) {
        if let Some(known) = self.known().get_mut(&id(model.key())) {
            known.host.form = Some(form.clone());
        }
    }
}

fn id(key: &ResourceKey) -> String {
    format!("{}/{}/{}/{}", key.account, key.region, key.kind, key.name.to_lowercase())
}

async fn host(app: &App, resource: &Resource) -> Host {
    let document = &resource.document;
    let variants = if resource.key.kind == INFERENCE_COMPONENT {
        ComponentRecord::read(document).map(|record| vec![record.side.deployed])
    } else {
        EndpointRecord::read(document).map(|record| record.variants)
    };
    let mut host = Host::default();
    for variant in variants.unwrap_or_default() {
        let profile = app.containers.profile(&app.catalogue, &variant.image).await;
        host.is_container |= profile.is_ok_and(|profile| matches!(profile.source, Source::Container(_)));
        host.has_many |= variant.models.is_some();
    }
    host
}
