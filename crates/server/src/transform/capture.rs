//! `DataCaptureConfig`: when a job has ended, lists of the objects it read and wrote, as manifests that other jobs can read.

use std::collections::BTreeMap;

use serde_json::json;
use store::objects::{Incoming, Protection};

use super::ledger::Ledger;
use crate::app::App;
use crate::capture::{Place, hour_of, put};

/// Where captured lists go.
pub struct Capture<'a> {
    /// Whose objects they are.
    pub account: &'a str,
    /// `DestinationS3Uri`.
    pub destination: &'a str,
    /// How the lists are encrypted.
    pub protection: Option<Protection>,
    /// Name of the files, the same for each attempt.
    pub name: &'a str,
    /// When the job was created, milliseconds since 1970: it names the folder.
    pub at_ms: i64,
}

impl Capture<'_> {
    /// Writes both lists; `inputs` and `outputs` are URIs that end with a slash, below which the objects lie.
    ///
    /// # Errors
    /// A text for the failure card.
    pub async fn write(&self, app: &App, ledger: &Ledger, inputs: &str, outputs: &str) -> Result<(), String> {
        for (side, prefix, ending) in [("input", inputs, ""), ("output", outputs, ".out")] {
            let mut text = vec![b'['];
            let add = |text: &mut Vec<u8>, value: serde_json::Value| serde_json::to_writer(text, &value);
            add(&mut text, json!({"prefix": prefix})).map_err(|error| error.to_string())?;
            for source in ledger.sources().map_err(|error| error.to_string())? {
                let source = source.map_err(|error| error.to_string())?;
                let is_done = ledger.known().get(&source.number).is_some_and(|one| one.failure.is_none());
                if is_done {
                    text.push(b',');
                    // What lies elsewhere, by a manifest, is named by its path all the same.
                    add(&mut text, json!(format!("{}{ending}", source.path)))
                        .map_err(|error| error.to_string())?;
                }
            }
            text.push(b']');
            self.put(app, side, text).await.map_err(|error| {
                format!("ClientError: the captured data cannot be stored at {}: {error}", self.destination)
            })?;
        }
        Ok(())
    }

    async fn put(&self, app: &App, side: &str, text: Vec<u8>) -> Result<(), String> {
        let place = Place::of(self.account, self.destination).ok_or("it is not an S3 URI")?;
        let key = place.key(&format!("{side}/{}/{}.json", hour_of(self.at_ms), self.name));
        let write = move |incoming: &mut Incoming| incoming.write(&text).map_err(|error| error.with_cause());
        put(app, place, &key, self.protection.clone(), "application/json", write, |()| BTreeMap::new()).await
    }
}
