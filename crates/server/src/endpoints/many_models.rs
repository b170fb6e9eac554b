//! The archives of a multi-model endpoint: where the one lies that a request names, and how it comes to the replica that loads it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runner::catalogue::{ImageProfile, Source};
use serving::{FetchError, FetchedModel, ModelContent};
use sha2::{Digest, Sha256};
use store::objects::{Object, ObjectFile};

use super::container;
use super::native::Deployment;
use super::record::DeployedVariant;
use crate::app::App;
use crate::training::bucket_and_key;
use crate::workloads;

/// Where the processes of a replica see the models.
pub const MODELS_TARGET: &str = "/opt/ml/models";

/// The folder of a replica's models.
pub fn models_directory(replica: &Path) -> PathBuf {
    replica.join("opt-ml/models")
}

/// The replicas whose folders of models have nothing from an earlier server in them.
#[derive(Default)]
pub struct CleanReplicas(tokio::sync::Mutex<HashSet<String>>);

impl CleanReplicas {
    /// Notes a replica that was just made.
    pub async fn add(&self, id: &str) {
        self.0.lock().await.insert(id.to_owned());
    }

    /// Forgets a replica that is gone.
    pub async fn remove(&self, id: &str) {
        self.0.lock().await.remove(id);
    }

    /// Removes what an earlier server unpacked for a replica that was taken up: its models are loaded anew.
    pub async fn clean(&self, id: &str, replica: &Path) {
        let mut clean = self.0.lock().await;
        if !clean.insert(id.to_owned()) {
            return;
        }
        let Ok(mut folders) = tokio::fs::read_dir(models_directory(replica)).await else { return };
        while let Ok(Some(folder)) = folders.next_entry().await {
            workloads::remove_directory(&folder.path()).await;
        }
    }
}

/// One of the models that a variant may load.
pub struct Archive<'a> {
    app: &'a Arc<App>,
    account: &'a str,
    variant: &'a DeployedVariant,
    bucket: &'a str,
    key: String,
    target: &'a str,
}

impl<'a> Archive<'a> {
    /// The archive that a request means with `target`.
    ///
    /// # Errors
    /// When that is no name of an object below the variant's prefix.
    pub fn named(
        app: &'a Arc<App>,
        account: &'a str,
        variant: &'a DeployedVariant,
        target: &'a str,
    ) -> Result<Archive<'a>, FetchError> {
        let prefix = variant.model_data.as_deref().and_then(bucket_and_key);
        let unusable = || FetchError::Unusable("The model's ModelDataUrl is no S3 prefix.".into());
        let (bucket, prefix) = prefix.ok_or_else(unusable)?;
        let key = object_key(prefix, target).map_err(FetchError::Missing)?;
        Ok(Archive { app, account, variant, bucket, key, target })
    }

    fn failure(&self, error: &store::Error) -> FetchError {
        match error {
            store::Error::Missing { .. } | store::Error::Denied { .. } => FetchError::Missing(format!(
                "Failed to download model data(bucket: {}, key: {}). Please ensure that there is an object located at the URL \
                 and that the role passed to CreateModel has permissions to download the model.",
                self.bucket, self.key
            )),
            other => {
                FetchError::Unusable(format!("s3://{}/{} cannot be read: {other}", self.bucket, self.key))
            }
        }
    }

    /// What tells the archive that is there now from another one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn version(&self) -> Result<String, FetchError> {
        let head = self.app.objects.head(self.account, self.bucket, &self.key).await;
        head.map(|object| object.etag).map_err(|error| self.failure(&error))
    }

    /// Unpacks the archive below the folder of the replica's models, and loads it where this process can answer for it.
    ///
    /// # Errors
    /// When it is not there, or cannot be used.
    pub async fn fetch(&self, replica: &Path, profile: ImageProfile) -> Result<FetchedModel, FetchError> {
        let opened = self.app.objects.open_version(self.account, self.bucket, &self.key).await;
        let (object, file) = opened.map_err(|error| self.failure(&error))?;
        let version = object.etag.clone();
        // Its own for each time that it is fetched: the folder of an earlier time may be on its way out.
        let digest = hex::encode(&Sha256::digest(format!("{}\n{version}", self.target))[..8]);
        let name = format!("{digest}-{}", uuid::Uuid::new_v4().simple());
        let folder = models_directory(replica).join(&name);
        let is_container = matches!(profile.source, Source::Container(_));
        self.unpack(file, &object, &folder, is_container).await.map_err(FetchError::Unusable)?;
        let model = folder.join("model");
        let deployment = Deployment { profile, environment: self.variant.environment.clone(), model };
        let choice = tokio::task::spawn_blocking(move || deployment.choose()).await;
        let choice = choice.map_err(|error| error.to_string()).and_then(|choice| choice);
        let content = match choice.map(|choice| choice.model) {
            Ok(Some(native)) => {
                // It is in memory now, and no process needs the folder.
                workloads::remove_directory(&folder).await;
                ModelContent::Native(Arc::new(native))
            }
            Ok(None) => {
                ModelContent::Folder { inside: format!("{MODELS_TARGET}/{name}/model"), name, folder }
            }
            Err(text) => {
                workloads::remove_directory(&folder).await;
                return Err(FetchError::Unusable(text));
            }
        };
        Ok(FetchedModel { version, content })
    }

    async fn unpack(
        &self,
        file: ObjectFile,
        object: &Object,
        folder: &Path,
        for_container: bool,
    ) -> Result<(), String> {
        let uri = format!("s3://{}/{}", self.bucket, self.key);
        let model = folder.join("model");
        let unpacking = async {
            workloads::extract_file(file, &uri, &model).await?;
            if for_container {
                container::open_to_all(folder).await?;
            }
            Ok::<(), String>(())
        };
        let unpacked = match self.variant.download_timeout_seconds {
            None => unpacking.await,
            Some(seconds) => {
                let limited = tokio::time::timeout(Duration::from_secs(seconds), unpacking).await;
                limited.unwrap_or_else(|_| {
                    Err(format!(
                        "The model data {uri} ({} bytes) was not there within {seconds} seconds; raise \
                         ModelDataDownloadTimeoutInSeconds.",
                        object.size
                    ))
                })
            }
        };
        if unpacked.is_err() {
            workloads::remove_directory(folder).await;
        }
        unpacked
    }
}

/// Looks for the archive that a request means with `target`, for any of an endpoint's variants.
///
/// # Errors
/// When none of them has it.
pub async fn find_archive(
    app: &Arc<App>,
    account: &str,
    variants: &[DeployedVariant],
    target: &str,
) -> Result<(), FetchError> {
    let mut problem = FetchError::Missing(format!("There is no model {target}."));
    for variant in variants.iter().filter(|variant| variant.models.is_some()) {
        let found = async { Archive::named(app, account, variant, target)?.version().await };
        match found.await {
            Ok(_) => return Ok(()),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// The key of the object that a request means with `target`, below a prefix.
fn object_key(prefix: &str, target: &str) -> Result<String, String> {
    // The SDK lists models below a prefix without a slash at its end with one at their beginning.
    let relative = target.strip_prefix('/').unwrap_or(target);
    let refuse = |what: &str| {
        Err(format!(
            "TargetModel {target:?} {what}; give the path of an archive relative to the model's ModelDataUrl."
        ))
    };
    if relative.is_empty() {
        return refuse("names no archive");
    }
    for form in [relative, &decoded(relative)] {
        if form.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("leads out of the prefix, or has empty parts");
        }
        if form.chars().any(|character| character == '\\' || character.is_control()) {
            return refuse("has characters that no path of an archive has");
        }
    }
    Ok(format!("{}/{relative}", prefix.trim_end_matches('/')).trim_start_matches('/').to_owned())
}

/// The text with its percent codes taken for what they stand for, again and again.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match (first, code) {
                (b'%', Some(code)) => {
                    bytes.push(code);
                    rest = &after[2..];
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        let next = String::from_utf8_lossy(&bytes).into_owned();
        if next == text {
            return text;
        }
        text = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_below_the_prefix() {
        assert_eq!(object_key("models/", "a.tar.gz"), Ok("models/a.tar.gz".into()));
        assert_eq!(object_key("models", "/b/c.tar.gz"), Ok("models/b/c.tar.gz".into()));
        assert_eq!(object_key("", "100%.tar.gz"), Ok("100%.tar.gz".into()));
        assert_eq!(object_key("models", "a b+c%20.tar.gz"), Ok("models/a b+c%20.tar.gz".into()));
        for wrong in [
            "",
            "/",
            "//a",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "%2e%2e/a",
            "%252e%252e%252fa",
            "a%2f..%2fb",
            "a\\..\\b",
            "a\u{0}b",
            "a%00b",
            "a\nb",
        ] {
            assert!(object_key("models", wrong).is_err(), "{wrong:?}");
        }
    }
}
