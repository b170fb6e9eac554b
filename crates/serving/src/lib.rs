//! The inference data plane: it routes invocations to the workers of model replicas over Unix sockets and to containers over
//! HTTP, or answers for a model itself, starts, checks, replaces and drains those replicas, and knows nothing of any cloud API or database.

mod affinity;
mod batch;
mod capture;
mod chain;
mod composition;
mod connection;
mod data_plane;
mod endpoint;
mod engine;
mod fleet;
mod fleet_demand;
mod flight;
mod frame;
mod gate;
mod http;
mod invocation;
mod latency;
mod launcher;
mod metrics;
mod models;
mod observation;
mod on_demand;
mod pace;
mod plan;
mod pool;
mod refused;
mod replica;
mod replica_chain;
mod replica_http;
mod replica_id;
mod replica_models;
mod route;
mod session;
mod settings;
mod shadow;
mod shelf;
mod shift;
mod spoken;
mod standby;
mod status;
mod tally;
mod told;
mod wanted;

pub use batch::{BatchSettings, BatchSnapshot};
pub use capture::{
    Capture, CaptureCounts, CaptureFormat, CapturePlan, CaptureSettings, CaptureStore, CapturedBody,
    CapturedInvocation, Captures, Latencies, Segment,
};
pub use composition::{Composition, ContainerPlan, ContainersPlan, ModelsPlan, TargetProblem};
pub use data_plane::DataPlane;
pub use engine::{
    AnswerSettings, NativeModel, ONNX_HOST_SUBCOMMAND, OnnxHostOptions, OnnxJoins, Refusal, run_onnx_host,
};
pub use invocation::{InvokeError, InvokeRequest, InvokeResponse, InvokeStream, ModelAnswer, SpokenHeaders};
pub use latency::{LatencyClass, LatencySnapshot};
pub use launcher::{BoxFuture, ExitText, LaunchError, Launcher, Protocol, ReplicaSpec};
pub use metrics::{ContainerMetrics, VariantMetrics};
pub use models::{FetchError, FetchedModel, LoadedModel, ModelContent, ModelMetrics};
pub use observation::{ReplicaPlace, VariantActivity};
pub use on_demand::OnDemandPlan;
pub use plan::{EndpointPlan, PlanError, RoutingStrategy, VariantPlan};
pub use session::SessionPlace;
pub use settings::DataPlaneSettings;
pub use shadow::{ShadowAnswer, ShadowObserver, ShadowPair, ShadowPlan};
pub use shift::{BesideStatus, Shift};
pub use spoken::{SpokenPath, SpokenProtocol, SpokenRequest};
pub use status::{EndpointPhase, EndpointStatus, VariantStatus};
pub use tally::{FleetReading, SampledOutput};
