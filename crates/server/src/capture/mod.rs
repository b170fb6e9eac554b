//! Data capture of endpoints: what is captured in which form, where it lies in S3, and its replay against another endpoint.

pub mod compare;
mod config;
mod format;
mod place;
pub mod replay;
mod segments;
mod traffic;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serving::{CaptureCounts, CapturePlan, CaptureSettings, Captures};
use store::resources::ResourceKey;

use crate::app::App;
use segments::CapturedData;

pub use config::{check, is_enabled, retained, summary};
pub use place::{Place, hour_of, protection, put};
pub use traffic::Body;

/// Where the spools lie in the data directory.
const FOLDER: &str = "captures";

/// How long a stop of the server waits for captured data to be stored; what is not goes with the next start.
const FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Where the data of one endpoint goes; kept with its spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Target {
    account: String,
    region: String,
    endpoint: String,
    /// `DestinationS3Uri`.
    destination: String,
    /// `KmsKeyId`, when it is given.
    key: Option<String>,
}

/// The captures of this server's endpoints.
#[derive(Clone)]
pub struct DataCapture {
    captures: Arc<Captures>,
}

impl DataCapture {
    /// Opens the spools, and stores what an earlier server left there.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn open(app: &Arc<App>) -> std::io::Result<DataCapture> {
        let clock = app.clock.clone();
        let store = Arc::new(CapturedData::new(Arc::downgrade(app)));
        let folder = app.config.data_dir.join(FOLDER);
        let settings = CaptureSettings::new(folder, store, Arc::new(move || clock.now_ms()));
        Ok(DataCapture { captures: Captures::open(settings)? })
    }

    /// The capture that a stored `DataCaptureConfig` asks for; none when it asks for none.
    pub fn follow(
        &self,
        key: &ResourceKey,
        plane_key: &str,
        config: Option<&serde_json::Value>,
    ) -> Option<Arc<serving::Capture>> {
        let Some(config) = config.filter(|config| is_enabled(config)) else {
            self.captures.end(plane_key);
            return None;
        };
        let plan: CapturePlan = config::plan(key, config);
        match self.captures.start(plane_key, plan) {
            Ok(capture) => Some(capture),
            Err(error) => {
                tracing::error!(endpoint = key.name, %error, "the endpoint serves, and its data is not captured");
                self.captures.end(plane_key);
                None
            }
        }
    }

    /// Ends the capture of an endpoint that is gone.
    pub fn end(&self, plane_key: &str) {
        self.captures.end(plane_key);
    }

    /// Stores what was captured so far. What cannot be stored in time stays for the next start.
    pub async fn flush(&self) {
        if tokio::time::timeout(FLUSH_TIMEOUT, self.captures.flush()).await.is_err() {
            tracing::warn!("captured data could not be stored in time; it is kept for the next start");
        }
    }

    /// What was counted, by the data plane's names of endpoints.
    pub fn counts(&self) -> Vec<CaptureCounts> {
        self.captures.counts()
    }
}
