//! The inference data plane: it routes invocations to the workers of model replicas over Unix sockets, starts, checks,
//! replaces and drains those replicas, and knows nothing of any cloud API or database.

mod connection;
mod data_plane;
mod endpoint;
mod fleet;
mod frame;
mod invocation;
mod launcher;
mod metrics;
mod plan;
mod pool;
mod replica;
mod replica_id;
mod route;
mod settings;
mod status;

pub use data_plane::DataPlane;
pub use invocation::{InvokeError, InvokeRequest, InvokeResponse, InvokeStream, ModelAnswer};
pub use launcher::{BoxFuture, ExitText, LaunchError, Launcher, ReplicaSpec};
pub use metrics::VariantMetrics;
pub use plan::{EndpointPlan, PlanError, VariantPlan};
pub use settings::DataPlaneSettings;
pub use status::{EndpointPhase, EndpointStatus, VariantStatus};
