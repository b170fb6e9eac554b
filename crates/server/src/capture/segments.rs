//! Brings segments of the spool to S3, and says what was lost.

use std::collections::BTreeMap;
use std::sync::Weak;

use serde::Deserialize;
use serde_json::{Value, json};
use serving::{BoxFuture, CaptureStore, Segment};
use store::resources::ResourceKey;

use super::place::file_of;
use super::{Place, Target, protection, put};
use crate::app::App;
use crate::sagemaker::kinds::ENDPOINT;

/// Name of the metadata with how long the invocations of an object took, in classes.
pub const LATENCIES: &str = "latencies";

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 1 << 18;

/// Captured data in the buckets of this server.
pub struct CapturedData {
    app: Weak<App>,
}

impl CapturedData {
    /// Of this process.
    pub fn new(app: Weak<App>) -> CapturedData {
        CapturedData { app }
    }

    async fn put(&self, target: &Value, segment: &Segment) -> Result<(), String> {
        let app = self.app.upgrade().ok_or("the server ends")?;
        let target = read(target)?;
        let uri = &target.destination;
        let place = Place::of(&target.account, uri).ok_or_else(|| format!("{uri:?} is not an S3 URI"))?;
        let key = place.key(&file_of(&target.endpoint, &segment.variant, segment.started_at_ms, &segment.id));
        let segment = segment.clone();
        let stored = put(
            &app,
            place,
            &key,
            protection(target.key.as_deref()),
            "application/jsonlines",
            move |incoming| {
                let mut gathered = Vec::with_capacity(GATHERED_BYTES);
                let latencies = segment.read(|line| {
                    gathered.extend_from_slice(line);
                    if gathered.len() < GATHERED_BYTES {
                        return Ok(());
                    }
                    let written = incoming.write(&gathered);
                    gathered.clear();
                    written.map_err(|error| std::io::Error::other(error.with_cause()))
                });
                let latencies = latencies.map_err(|error| error.to_string())?;
                incoming.write(&gathered).map_err(|error| error.with_cause())?;
                Ok(latencies)
            },
            |latencies| BTreeMap::from([(LATENCIES.to_owned(), latencies.to_string())]),
        );
        stored.await.map_err(|error| format!("s3://{}/{key}: {error}", place.bucket))
    }

    async fn note_loss(&self, target: &Value, count: u64) -> Result<(), String> {
        let app = self.app.upgrade().ok_or("the server ends")?;
        let Target { account, region, endpoint, .. } = read(target)?;
        let key = ResourceKey::new(account, region, ENDPOINT, endpoint);
        let now_ms = app.clock.now_ms();
        let detail = json!({"invocations": count});
        let noted =
            app.database.write(move |session| session.append_event(&key, "CaptureLost", &detail, now_ms));
        noted.await.map_err(|error| error.with_cause())
    }
}

fn read(target: &Value) -> Result<Target, String> {
    Target::deserialize(&target["place"])
        .map_err(|error| format!("the spool does not say where it goes: {error}"))
}

impl CaptureStore for CapturedData {
    fn deliver<'a>(&'a self, target: &'a Value, segment: &'a Segment) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.put(target, segment))
    }

    fn lost<'a>(&'a self, target: &'a Value, count: u64) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.note_loss(target, count).await {
                tracing::warn!(error, count, "lost captured data could not be noted as an event");
            }
        })
    }
}
