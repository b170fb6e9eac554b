//! The limits and rhythms of the data plane.

use std::time::Duration;

/// Settings of a [`DataPlane`](crate::DataPlane), the same for all its endpoints.
#[derive(Clone, Debug)]
pub struct DataPlaneSettings {
    /// How many invocations of one variant may wait for a worker; more are refused as overload.
    pub queue_limit: usize,
    /// How long an invocation may wait for a worker before it is refused as overload.
    pub queue_wait: Duration,
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
    /// The largest request body, in bytes.
    pub max_request_bytes: u64,
    /// The largest answer that is not streamed, in bytes.
    pub max_response_bytes: u64,
}

impl Default for DataPlaneSettings {
    fn default() -> Self {
        Self {
            queue_limit: 1024,
            queue_wait: Duration::from_secs(60),
            check_interval: Duration::from_millis(250),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(10),
            restart_backoff: Duration::from_millis(100),
            restart_backoff_limit: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            max_request_bytes: 25 * 1024 * 1024,
            max_response_bytes: 25 * 1024 * 1024,
        }
    }
}
