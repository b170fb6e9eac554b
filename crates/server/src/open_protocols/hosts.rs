//! What kind of host answers for an endpoint: one of ours, or a container.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runner::catalogue::Source;
use serving::EndpointStatus;
use tokio::sync::watch;

use super::asked::Asked;
use super::refusal::Refusal;
use super::translation::Form;
use crate::app::App;
use crate::endpoints::EndpointRecord;

/// Most endpoints that are remembered; beyond, all are forgotten and found out anew.
const MOST_KNOWN: usize = 10_000;

/// What was found out about endpoints.
#[derive(Debug, Default)]
pub struct Hosts {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    /// Tells an endpoint from a later one of the same name.
    status: watch::Receiver<EndpointStatus>,
    /// The fleet of which it was found out.
    generation: u64,
    host: Host,
}

/// What is known of an endpoint's hosts.
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

    /// What answers for an endpoint.
    ///
    /// # Errors
    /// When there is no such endpoint, or the database fails.
    pub async fn of(&self, asked: &Asked, name: &str) -> Result<Host, Refusal> {
        let key = asked.endpoint(name);
        let status = asked.app.endpoints.watch(&key).ok_or_else(|| Refusal::no_model(name))?;
        let generation = status.borrow().generation;
        let id = format!("{}/{}/{}", key.account, key.region, key.name.to_lowercase());
        let found = self.known().get(&id).and_then(|known| {
            (known.generation == generation && known.status.same_channel(&status)).then(|| known.host.clone())
        });
        if let Some(host) = found {
            return Ok(host);
        }
        let resource = asked.resource(name).await?;
        let host = host(&asked.app, &resource.document).await;
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(id, Known { status, generation, host: host.clone() });
        Ok(host)
    }

    /// Remembers the form of tensors that an endpoint took.
    pub fn took(&self, asked: &Asked, name: &str, form: &Form) {
        let key = asked.endpoint(name);
        let id = format!("{}/{}/{}", key.account, key.region, key.name.to_lowercase());
        if let Some(known) = self.known().get_mut(&id) {
            known.host.form = Some(form.clone());
        }
    }
}

async fn host(app: &App, document: &serde_json::Value) -> Host {
    let Ok(record) = EndpointRecord::read(document) else { return Host::default() };
    let mut host = Host::default();
    for variant in &record.variants {
        let profile = app.containers.profile(&app.catalogue, &variant.image).await;
        host.is_container |= profile.is_ok_and(|profile| matches!(profile.source, Source::Container(_)));
        host.has_many |= variant.models.is_some();
    }
    host
}
