//! Shadow variants of endpoints: what they answer beside production is compared, judged, and kept over restarts.

mod comparison;
mod verdict;
pub mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use serving::{BoxFuture, InvokeError, ShadowAnswer, ShadowObserver, ShadowPair, ShadowPlan};
use store::resources::{Resource, ResourceKey};
use store::{Clock, Session};

use self::comparison::{Comparison, Judged};
use crate::app::App;
use crate::endpoints::{DeployedVariant, EndpointRecord};
use crate::sagemaker::kinds;

/// Kind of the record that keeps what is known of an endpoint's shadow.
const SHADOW_COMPARISON: &str = "shadow-comparison";

/// How often what is new is stored; a crash loses no more.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// Answers of this size together are not compared on a thread that others need.
const LARGE_BYTES: usize = 128 * 1024;

/// The comparisons of all endpoints with a shadow.
#[derive(Default)]
pub struct Shadows {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the database knew at the start.
    stored: HashMap<ResourceKey, Comparison>,
    watched: HashMap<ResourceKey, Arc<Watched>>,
    /// Those whose shadow is gone, and whose last counts are still to be stored.
    ended: Vec<Arc<Watched>>,
}

/// The comparison of one endpoint.
struct Watched {
    endpoint: ResourceKey,
    models: Value,
    clock: Clock,
    known: Mutex<Known>,
}

struct Known {
    comparison: Comparison,
    is_changed: bool,
}

impl Watched {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Comparison)) {
        let mut known = self.known();
        change(&mut known.comparison);
        known.is_changed = true;
    }
}

struct Observer(Arc<Watched>);

impl ShadowObserver for Observer {
    fn answered(&self, pair: ShadowPair) -> BoxFuture<'_, ()> {
        let at_ms = self.0.clock.now_ms();
        Box::pin(async move {
            let judged = if bytes(&pair.production) + bytes(&pair.shadow) < LARGE_BYTES {
                Judged::of(&pair, at_ms)
            } else {
                let judging = tokio::task::spawn_blocking(move || Judged::of(&pair, at_ms));
                // Only the end of the runtime takes it away.
                let Ok(judged) = judging.await else { return };
                judged
            };
            self.0.change(|comparison| comparison.add(judged));
        })
    }

    fn dropped(&self) {
        self.0.change(|comparison| comparison.dropped += 1);
    }
}

fn bytes(answer: &ShadowAnswer) -> usize {
    match &answer.outcome {
        Ok(response) => response.body.len(),
        Err(InvokeError::ModelError { body, .. }) => body.len(),
        Err(_) => 0,
    }
}

impl Shadows {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what an earlier server knew.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(&self, app: &App) -> store::Result<()> {
        let stored = app.database.read(|session| session.all_resources(SHADOW_COMPARISON)).await?;
        let mut state = self.state();
        for resource in stored {
            match Comparison::deserialize(&resource.document) {
                Ok(comparison) => drop(state.stored.insert(endpoint_of(resource.key), comparison)),
                Err(error) => {
                    tracing::warn!(endpoint = resource.key.name, %error, "the comparison of a shadow begins anew");
                }
            }
        }
        Ok(())
    }

    /// What is to be copied for an endpoint that is deployed like this; none when it has no shadow.
    pub fn follow(&self, key: &ResourceKey, record: &EndpointRecord, clock: &Clock) -> Option<ShadowPlan> {
        let mut state = self.state();
        let before = state.watched.remove(key);
        let (Some(production), Some(shadow)) = (record.variants.first(), record.shadows.first()) else {
            state.ended.extend(before);
            return None;
        };
        let models = json!([model(production), model(shadow)]);
        let same = before.as_ref().filter(|before| before.models == models).cloned();
        let watched = same.unwrap_or_else(|| {
            let stored = state.stored.remove(key).filter(|stored| stored.models == models);
            let is_changed = stored.is_none();
            let comparison = stored.unwrap_or_else(|| Comparison::begin(models.clone(), clock.now_ms()));
            let known = Mutex::new(Known { comparison, is_changed });
            Arc::new(Watched { endpoint: key.clone(), models, clock: clock.clone(), known })
        });
        state.watched.insert(key.clone(), watched.clone());
        let share = crate::endpoints::shadow_share(production, shadow);
        Some(ShadowPlan::new(shadow.name.clone(), share, Arc::new(Observer(watched))))
    }

    /// What is known of an endpoint's shadow, without what is only stored.
    fn current(&self, key: &ResourceKey) -> Option<Comparison> {
        let watched = self.state().watched.get(key).cloned()?;
        let known = watched.known();
        Some(known.comparison.clone())
    }

    /// The variant that is an endpoint's shadow now.
    pub fn variant(&self, key: &ResourceKey) -> Option<String> {
        let watched = self.state().watched.get(key).cloned()?;
        watched.models[1]["VariantName"].as_str().map(str::to_owned)
    }

    /// What has become of the requests that were to be copied, by endpoint.
    pub fn counts(&self) -> Vec<(ResourceKey, [(&'static str, u64); 6])> {
        let state = self.state();
        let counted =
            state.watched.values().map(|one| (one.endpoint.clone(), one.known().comparison.counts()));
        counted.collect()
    }

    /// Forgets an endpoint that is being deleted.
    pub fn end(&self, key: &ResourceKey) {
        let mut state = self.state();
        state.watched.remove(key);
        state.stored.remove(key);
    }

    /// Stores what is new.
    pub async fn save(&self, app: &App) {
        let changed: Vec<Arc<Watched>> = {
            let mut state = self.state();
            let ended = std::mem::take(&mut state.ended);
            ended
                .into_iter()
                .chain(state.watched.values().cloned())
                .filter(|one| one.known().is_changed)
                .collect()
        };
        if changed.is_empty() {
            return;
        }
        let rows: Vec<(ResourceKey, Value)> = changed
            .iter()
            .map(|one| {
                let mut known = one.known();
                known.is_changed = false;
                (one.endpoint.clone(), known.comparison.to_document())
            })
            .collect();
        let now_ms = app.clock.now_ms();
        let written = app.database.write(move |session| {
            rows.into_iter().try_for_each(|(endpoint, document)| put(session, &endpoint, document, now_ms))
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "the comparisons of shadows could not be stored; it is tried again");
            changed.iter().for_each(|one| one.known().is_changed = true);
        }
    }
}

/// What tells a deployed model from another one.
fn model(variant: &DeployedVariant) -> Value {
    json!({
        "VariantName": variant.name,
        "Image": variant.image,
        "ModelDataUrl": variant.model_data,
        "Environment": variant.environment,
        "ModelForm": variant.model_form,
        "RegisteredArtifacts": variant.registered_artifacts,
    })
}

fn comparison_of(endpoint: &ResourceKey) -> ResourceKey {
    ResourceKey { kind: SHADOW_COMPARISON.into(), ..endpoint.clone() }
}

fn endpoint_of(comparison: ResourceKey) -> ResourceKey {
    ResourceKey { kind: kinds::ENDPOINT.into(), ..comparison }
}

fn put(session: &Session<'_>, endpoint: &ResourceKey, document: Value, now_ms: i64) -> store::Result<()> {
    // What came after the end of an endpoint belongs to nobody.
    if session.find_resource(endpoint)?.is_none() {
        return Ok(());
    }
    let key = comparison_of(endpoint);
    if session.find_resource(&key)?.is_some() {
        session.update_resource(&key, now_ms, |stored| {
            stored.document = document;
            Ok(())
        })?;
        return Ok(());
    }
    session.insert_resource(&Resource {
        arn: kinds::arn(&key.region, &key.account, SHADOW_COMPARISON, &key.name),
        key,
        status: "Kept".into(),
        spec: json!({}),
        document,
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    })
}

/// Removes what is known of the shadow of an endpoint, in the transaction that removes the endpoint.
///
/// # Errors
/// When the database fails.
pub fn forget(session: &Session<'_>, endpoint: &ResourceKey) -> store::Result<()> {
    match session.delete_resource(&comparison_of(endpoint)) {
        Ok(_) | Err(store::Error::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Stores what is new of all comparisons, for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SAVE_PAUSE).await;
            let Some(app) = weak.upgrade() else { return };
            app.endpoints.shadows.save(&app).await;
        }
    });
}
