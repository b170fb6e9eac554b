//! Inference experiments: shadow tests that deploy a shadow variant at a time, and at another time or by a word take it away or promote it.

mod deployment;
mod driver;
pub mod record;
pub mod rules;

use std::sync::Arc;

use tokio::sync::Notify;

pub use deployment::endpoint_key;
pub use driver::{begin_stop, begin_within, start};

/// Wakes who drives experiments.
#[derive(Debug, Clone, Default)]
pub struct Bell {
    notify: Arc<Notify>,
}

impl Bell {
    /// Says that an experiment was made or changed. Call it after the commit.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    async fn rung(&self) {
        self.notify.notified().await;
    }
}
