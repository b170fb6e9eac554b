//! The limits and rhythms of the data plane.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::batch::BatchSettings;

/// Settings of a [`DataPlane`](crate::DataPlane), the same for all its endpoints.
#[derive(Clone, Debug)]
pub struct DataPlaneSettings {
    /// What the ids of replicas begin with; data planes that share an executor have different ones.
    pub replica_prefix: &'static str,
    /// How many invocations of one variant may wait for a worker; more are refused as overload.
    pub queue_limit: usize,
    /// How long an invocation may wait for a worker before it is refused as overload.
    pub queue_wait: Duration,
    /// The same for an invocation that meets no replica because none is wanted, while somebody brings one up.
    pub wake_wait: Duration,
    /// How those that wait for a worker are answered together.
    pub batch: BatchSettings,
    /// Rung by each of those that meet no replica.
    pub wake_bell: Arc<Notify>,
    /// How often idle connections are looked at for a worker that died.
    pub check_interval: Duration,
    /// How long a connection may be idle before it is pinged.
    pub ping_interval: Duration,
    /// How long a worker may take to answer a ping.
    pub ping_timeout: Duration,
    /// The wait before the first restart of a replica that died; it doubles with each failure in a row.
    pub restart_backoff: Duration,
    /// The longest wait between restarts.
    pub restart_backoff_limit: Duration,
    /// How long running invocations may go on when a replica is to be stopped.
    pub drain_timeout: Duration,
    /// How many processes stand by for variants on demand that have no replica, over all endpoints; of more the oldest ends.
    pub standby_limit: usize,
    /// What the names of headers begin with that replicas get and give beyond the common ones, as in `x-model-session-id`.
    pub header_prefix: &'static str,
    /// How many requests a replica that speaks HTTP has at once; others wait as for a worker.
    pub http_requests_at_once: u32,
    /// How long a replica that speaks HTTP may take to answer a ping.
    pub http_ping_timeout: Duration,
    /// How many pings in a row it may leave without a good answer before it is replaced.
    pub http_pings_missed: u32,
    /// The largest request body, in bytes.
    pub max_request_bytes: u64,
    /// The largest answer that is not streamed, in bytes.
    pub max_response_bytes: u64,
}

impl Default for DataPlaneSettings {
    fn default() -> Self {
        Self {
            replica_prefix: "ep",
            queue_limit: 1024,
            queue_wait: Duration::from_secs(60),
            batch: BatchSettings::default(),
            wake_wait: Duration::from_secs(480),
            wake_bell: Arc::default(),
            check_interval: Duration::from_millis(250),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(10),
            restart_backoff: Duration::from_millis(100),
            restart_backoff_limit: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            standby_limit: 4,
            header_prefix: "x-model-",
            http_requests_at_once: 128,
            http_ping_timeout: Duration::from_secs(2),
            http_pings_missed: 3,
            max_request_bytes: 25 * 1024 * 1024,
            max_response_bytes: 25 * 1024 * 1024,
        }
    }
}
