//! A client of other S3 stores, for the buckets that lie there: small, since the store asks little of it, and exact about keys.

mod address;
mod bucket;
mod dial;
mod fault;
mod requests;
pub mod tls;
mod transport;
mod xml;

use std::sync::Arc;

use store::Clock;
use store::objects::{Connector, Remote, RemoteBucket, RemoteCredentials, RemoteList};

pub use address::{Address, parse};

/// Connects remote buckets by S3.
pub struct S3Connector {
    clock: Clock,
}

impl S3Connector {
    /// Signs with the time of this clock.
    pub fn new(clock: Clock) -> S3Connector {
        S3Connector { clock }
    }

    /// Asks a bucket for a list of one object: whether it is there and opens with these credentials.
    ///
    /// # Errors
    /// What is wrong with the address, the credentials or the bucket.
    pub async fn probe(&self, remote: &Remote, credentials: RemoteCredentials) -> store::Result<()> {
        let list = RemoteList { limit: 1, ..RemoteList::default() };
        self.connect(remote, credentials)?.list(&list).await.map(|_| ())
    }
}

impl Connector for S3Connector {
    fn connect(
        &self,
        remote: &Remote,
        credentials: RemoteCredentials,
    ) -> store::Result<Arc<dyn RemoteBucket>> {
        let transport = transport::Transport::new(remote, credentials, self.clock.clone())?;
        Ok(Arc::new(bucket::S3Bucket { transport, prefix: remote.prefix.clone() }))
    }
}
