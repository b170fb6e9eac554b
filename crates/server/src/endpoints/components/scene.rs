//! The components of one endpoint with their places, read, arranged and written within one transaction.

use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::host::ComponentHost;
use super::record::{ComponentRecord, ComponentSide, ComponentUpdate};
use super::room::{self, Arrangement, Ask, Free, Share};
use crate::capacity::{Capacity, InstanceTypes, Profile};
use crate::endpoints::record::EndpointRecord;
use crate::endpoints::rollout::Progress;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT};
use crate::training::record::shorten;

/// Instances whose free room a text names.
const NAMED_INSTANCES: usize = 4;

/// Components that are others than before, to be applied after the commit.
pub type Changed = Vec<ResourceKey>;

/// What instance types mean here.
#[derive(Debug, Clone)]
pub struct Instances {
    types: InstanceTypes,
    machine: Profile,
}

impl Instances {
    /// Those of this machine.
    pub fn of(capacity: &Capacity) -> Instances {
        let machine = Profile {
            vcpus: capacity.machine_cpus(),
            memory_gib: capacity.machine_memory_bytes() as f64 / f64::from(1u32 << 30),
            gpus: 0,
            gpu: None,
        };
        Instances { types: capacity.instance_types().clone(), machine }
    }

    /// An instance of this type; one that nobody has described is the machine.
    pub fn profile(&self, instance_type: &str) -> Profile {
        self.types.find(instance_type).unwrap_or_else(|| self.machine.clone())
    }
}

/// A component of the scene.
#[derive(Debug)]
struct Component {
    key: ResourceKey,
    status: String,
    record: ComponentRecord,
    is_changed: bool,
    /// How many copies have room, and why others have not.
    room: (u32, Option<String>),
}

/// An endpoint and its components, the oldest first.
#[derive(Debug)]
pub struct Scene {
    endpoint: ResourceKey,
    record: EndpointRecord,
    is_resized: bool,
    components: Vec<Component>,
}

/// The endpoint of a component.
pub fn endpoint_key(component: &ResourceKey, endpoint: &str) -> ResourceKey {
    ResourceKey { kind: ENDPOINT.into(), name: endpoint.to_owned(), ..component.clone() }
}

/// The stored components of an endpoint, the oldest first.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn components_of(
    session: &Session<'_>,
    endpoint: &ResourceKey,
) -> store::Result<Vec<(Resource, ComponentRecord)>> {
    let query = ListQuery { sort_by: SortBy::CreatedAt, limit: usize::MAX, ..Default::default() };
    let page = session.list_resources(&endpoint.account, &endpoint.region, INFERENCE_COMPONENT, &query)?;
    let mut found = Vec::new();
    for resource in page.resources {
        let record = ComponentRecord::read(&resource.document)?;
        if record.endpoint == endpoint.name {
            found.push((resource, record));
        }
    }
    Ok(found)
}

impl Scene {
    /// Reads it; `None` when there is no such endpoint.
    ///
    /// # Errors
    /// When the database fails, or a stored record is damaged.
    pub fn load(session: &Session<'_>, endpoint: &ResourceKey) -> store::Result<Option<Scene>> {
        let Some(resource) = session.find_resource(endpoint)? else { return Ok(None) };
        let components = components_of(session, endpoint)?;
        let component = |(resource, record): (Resource, ComponentRecord)| Component {
            room: (record.placed(), None),
            key: resource.key,
            status: resource.status,
            record,
            is_changed: false,
        };
        Ok(Some(Scene {
            endpoint: endpoint.clone(),
            record: EndpointRecord::read(&resource.document)?,
            is_resized: false,
            components: components.into_iter().map(component).collect(),
        }))
    }

    fn own(&mut self, key: &ResourceKey) -> store::Result<&mut Component> {
        let missing = || store::Error::Missing { kind: key.kind.clone(), name: key.name.clone() };
        self.components.iter_mut().find(|component| component.key == *key).ok_or_else(missing)
    }

    /// Gives copies their places; who gets other ones than before is changed.
    fn arrange(&mut self, instances: &Instances) {
        for variant in &mut self.record.variants {
            let Some(host) = &variant.host else { continue };
            let mut mine: Vec<&mut Component> = self
                .components
                .iter_mut()
                .filter(|one| one.record.variant == variant.name && one.takes_room())
                .collect();
            let shares: Vec<Share> = mine.iter().filter_map(|one| one.record.share().cloned()).collect();
            let asks: Vec<Ask<'_>> = mine
                .iter()
                .zip(&shares)
                .map(|(one, share)| Ask { share, kept: one.record.placed(), wanted: one.record.copies })
                .collect();
            let profile = instances.profile(&host.instance_type);
            let (count, arrangement) = match host.managed {
                Some(managed) => room::arrange_within(&profile, (managed.least, managed.most), &asks),
                None => (variant.replicas, room::arrange(&profile, variant.replicas, &asks)),
            };
            self.is_resized |= count != variant.replicas;
            variant.replicas = count;
            let place = Place { variant: &variant.name, host, profile: &profile, found: &arrangement };
            for ((component, placed), share) in mine.iter_mut().zip(&arrangement.placed).zip(&shares) {
                let wanted = component.record.copies;
                let reason = (*placed < wanted).then(|| place.shortage(share, *placed, wanted));
                component.move_to(*placed, reason);
            }
        }
    }

    /// Gives a component that has nothing in service room for all its copies; else it has failed, and takes none.
    fn admit(&mut self, key: &ResourceKey, instances: &Instances) -> store::Result<()> {
        self.arrange(instances);
        let own = self.own(key)?;
        own.is_changed = true;
        if own.room.0 < own.record.copies {
            own.fail();
            self.arrange(instances);
        }
        Ok(())
    }

    /// Begins an update: beside what serves, where something does.
    fn begin_update(
        &mut self,
        key: &ResourceKey,
        wanted: Wanted,
        instances: &Instances,
        now_ms: i64,
    ) -> store::Result<()> {
        let own = self.own(key)?;
        let before = own.record.clone();
        let Wanted { mut side, copies, config } = wanted;
        side.generation = own.record.next_generation();
        side.deployed.replicas = copies;
        own.record.copies = copies;
        own.record.failure_reason = None;
        own.is_changed = true;
        if config.is_some() {
            own.record.last_deployment_config.clone_from(&config);
        }
        let serves = before.has_served() && before.placed() > 0;
        if !serves || copies == 0 {
            side.deployed.replicas = 0;
            own.record.side = side;
            own.record.served_generation = None;
            own.status = "Updating".into();
            return self.admit(key, instances);
        }
        let policy = super::update::policy(config.as_ref(), copies);
        let progress = Progress::first(&policy, now_ms);
        own.record.update = Some(ComponentUpdate {
            other: side,
            copies_before: before.copies,
            config,
            started_at: now_ms,
            progress,
            reason: None,
        });
        own.status = "Updating".into();
        self.arrange(instances);
        let own = self.own(key)?;
        if let (_, Some(reason)) = &own.room {
            let reason = format!("The update has no room and was rolled back. {reason}");
            let last_generation = own.record.last_generation;
            own.record = ComponentRecord { last_generation, failure_reason: Some(shorten(reason)), ..before };
            own.status = "InService".into();
            self.arrange(instances);
        }
        Ok(())
    }

    /// Writes what has changed.
    fn write(self, session: &Session<'_>, now_ms: i64) -> store::Result<Changed> {
        if self.is_resized {
            let counts: Vec<Value> = self
                .record
                .variants
                .iter()
                .map(|one| json!({"VariantName": one.name, "DesiredInstanceCount": one.replicas}))
                .collect();
            session.update_resource(&self.endpoint, now_ms, |resource| {
                resource.document = self.record.to_document();
                Ok(())
            })?;
            session.append_event(
                &self.endpoint,
                "Resized",
                &json!({"ProductionVariants": counts}),
                now_ms,
            )?;
        }
        let mut changed = Changed::new();
        for component in self.components.into_iter().filter(|component| component.is_changed) {
            let Component { key, status, record, .. } = component;
            let detail = json!({"DesiredCopyCount": record.copies, "PlacedCopyCount": record.placed()});
            session.update_resource(&key, now_ms, |resource| {
                resource.document = record.to_document();
                resource.status.clone_from(&status);
                Ok(())
            })?;
            session.append_event(&key, &status, &detail, now_ms)?;
            changed.push(key);
        }
        Ok(changed)
    }
}

impl Component {
    /// What has failed runs nowhere, and what is being deleted makes room.
    fn takes_room(&self) -> bool {
        !matches!(self.status.as_str(), "Failed" | "Deleting") && self.record.share().is_some()
    }

    fn move_to(&mut self, placed: u32, reason: Option<String>) {
        // An update moves its copies by itself.
        if self.record.update.is_none() {
            let is_moved = placed != self.record.placed();
            let reason = reason.clone().map(shorten);
            // What is free changes with each neighbour; what counts is how many copies are missing.
            let gist = |told: &Option<String>| {
                told.as_deref().and_then(|told| told.split(" copies").next()).map(str::to_owned)
            };
            let is_news = reason.is_some() && gist(&reason) != gist(&self.record.failure_reason);
            if is_moved || is_news {
                self.record.side.deployed.replicas = placed;
                self.record.failure_reason = reason;
                self.is_changed = true;
            }
            if is_moved && self.status == "InService" {
                self.status = "Updating".into();
            }
        }
        self.room = (placed, reason);
    }

    fn fail(&mut self) {
        self.status = "Failed".into();
        self.record.side.deployed.replicas = 0;
        self.record.failure_reason = self.room.1.take().map(shorten);
        self.is_changed = true;
    }
}

/// Where copies are put.
struct Place<'a> {
    variant: &'a str,
    host: &'a ComponentHost,
    profile: &'a Profile,
    found: &'a Arrangement,
}

impl Place<'_> {
    /// Why copies have no room, with what is free and what would fit.
    fn shortage(&self, share: &Share, placed: u32, wanted: u32) -> String {
        let Place { variant, host, profile, found } = self;
        let instances = found.free.len();
        let mut free: Vec<String> = found.free.iter().take(NAMED_INSTANCES).map(Free::to_string).collect();
        if instances > NAMED_INSTANCES {
            free.push(format!("{} more instances", instances - NAMED_INSTANCES));
        }
        let free = if free.is_empty() { "nothing".to_owned() } else { free.join("; ") };
        let limit = match host.managed {
            Some(managed) => format!(" (MaxInstanceCount {})", managed.most),
            None => String::new(),
        };
        // A text without a word of this is taken for another trouble by clients.
        format!(
            "CapacityError: {placed} of {wanted} copies have room on variant {variant}. Each takes {share}; of {instances} x {}{limit} with \
             {profile} each there is free: {free}. An empty instance holds {} copies. Ask for less in ComputeResourceRequirements or \
             CopyCount, or give the variant more or larger instances.",
            host.instance_type,
            Free::of(profile).copies(share)
        )
    }
}

/// Changes the scene of an endpoint, where there still is one, and gives the components that are others then.
fn change(
    session: &Session<'_>,
    endpoint: &ResourceKey,
    now_ms: i64,
    change: impl FnOnce(&mut Scene) -> store::Result<()>,
) -> store::Result<Changed> {
    let Some(mut scene) = Scene::load(session, endpoint)? else { return Ok(Changed::new()) };
    change(&mut scene)?;
    scene.write(session, now_ms)
}

/// Arranges the components of an endpoint anew, after something that takes or gives room has changed.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn settle(
    session: &Session<'_>,
    endpoint: &ResourceKey,
    instances: &Instances,
    now_ms: i64,
) -> store::Result<Changed> {
    change(session, endpoint, now_ms, |scene| {
        scene.arrange(instances);
        Ok(())
    })
}

/// Gives a stored component that has nothing in service room for all its copies; else it has failed, and takes none.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn admit(
    session: &Session<'_>,
    key: &ResourceKey,
    endpoint: &ResourceKey,
    instances: &Instances,
    now_ms: i64,
) -> store::Result<Changed> {
    change(session, endpoint, now_ms, |scene| scene.admit(key, instances))
}

/// Sets how many copies of a component are wanted.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn set_copies(
    session: &Session<'_>,
    key: &ResourceKey,
    endpoint: &ResourceKey,
    copies: u32,
    instances: &Instances,
    now_ms: i64,
) -> store::Result<Changed> {
    change(session, endpoint, now_ms, |scene| {
        let own = scene.own(key)?;
        own.record.copies = copies;
        own.record.failure_reason = None;
        own.is_changed = true;
        scene.arrange(instances);
        Ok(())
    })
}

/// What a component is to become.
pub struct Wanted {
    /// What its copies are; their generation and number are set here.
    pub side: ComponentSide,
    /// How many copies.
    pub copies: u32,
    /// `DeploymentConfig`, as it was given.
    pub config: Option<Value>,
}

/// Begins an update of a component: beside what serves, where something does. One whose copies have no room leaves the component as it was,
/// with the reason.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn begin_update(
    session: &Session<'_>,
    key: &ResourceKey,
    endpoint: &ResourceKey,
    wanted: Wanted,
    instances: &Instances,
    now_ms: i64,
) -> store::Result<Changed> {
    change(session, endpoint, now_ms, |scene| scene.begin_update(key, wanted, instances, now_ms))
}
