//! Runs workloads on this machine: sandboxed processes that outlive the server, with logs and exit reports.
//!
//! Nothing here knows a cloud API. A caller describes a process as a [`WorkloadSpec`], hands it to an
//! [`Executor`] and gets an [`ExitReport`] back, whatever happened to the server in between.

pub mod activity;
pub mod archive;
pub mod catalogue;
pub mod cgroup;
pub mod contract;
pub mod diagnosis;
pub mod environment;
pub mod exec_as;
pub mod executor;
pub mod feed;
pub mod inventory;
pub mod limits;
pub mod locks;
pub mod log_line;
mod network;
pub mod oci;
pub mod prepared;
pub mod sandbox;
pub mod shell;
pub mod supervisor;
pub mod tree;
pub mod usage;
pub mod workload;

pub use exec_as::exec_as;
pub use executor::{Error, Executor, ExecutorSettings, ProcessExecutor, Result};
pub use limits::{LimitEvent, Limited, Limits};
pub use locks::{Lock, LockReport};
pub use supervisor::supervise;
pub use usage::{Sample, UsageSummary};
pub use workload::{
    Access, Confinement, Containment, Exit, ExitReport, JobUser, Mount, Network, Observation, WorkloadSpec,
};
