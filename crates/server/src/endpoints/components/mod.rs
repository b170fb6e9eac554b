//! Inference components: models with a share of a variant's instances. Each is an endpoint of its own to the data plane.

mod controller;
pub mod host;
pub mod metrics;
mod record;
mod room;
pub mod scaling;
mod scene;
mod table;
mod target;
mod update;

pub use host::{ComponentHost, ManagedInstances};
pub use record::{ComponentRecord, ComponentSide};
pub use room::{MOST_COPIES, MOST_INSTANCES, Share};
pub use scene::{
    Changed, Instances, Wanted, admit, begin_update, components_of, endpoint_key, set_copies, settle,
};
pub use table::{Components, Place};
pub use target::{Problem, Target, component_key};
pub use update::check_config;
