//! Brings the data of a model to its replicas: an archive is unpacked, objects that are no archive become files.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::objects::{Export, ExportedObject};

use super::record::DeployedVariant;
use crate::app::App;
use crate::registry::artifacts;
use crate::training::{Listed, bucket_and_key, list_objects, plain_path};
use crate::workloads;

/// What there is at the URI of a model's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelForm {
    /// An archive in tar.gz.
    #[default]
    Archive,
    /// One object, which becomes a file under the last part of its key.
    File,
    /// The objects below a prefix, which become files under what follows it.
    Files,
}

/// Brings the model's data into its folder, in the time that the variant gives. Files share their bytes with the objects where the file
/// system can: nobody may write to them.
///
/// # Errors
/// A text for people.
pub async fn bring(app: &App, account: &str, variant: &DeployedVariant, model: &Path) -> Result<(), String> {
    let Some(uri) = &variant.model_data else { return Ok(()) };
    let bringing = brought(app, account, variant, uri, model);
    let Some(seconds) = variant.download_timeout_seconds else { return bringing.await };
    let limit = Duration::from_secs(seconds);
    tokio::time::timeout(limit, bringing).await.unwrap_or_else(|_| {
        Err(format!(
            "The model data {uri} of variant {} was not there within {seconds} seconds; raise \
             ModelDataDownloadTimeoutInSeconds.",
            variant.name
        ))
    })
}

async fn brought(
    app: &App,
    account: &str,
    variant: &DeployedVariant,
    uri: &str,
    model: &Path,
) -> Result<(), String> {
    match (variant.model_form, variant.registered_artifacts.as_slice()) {
        (ModelForm::Archive, [artifact, ..]) => {
            let file = artifacts::open_unchanged(app, artifact).await?;
            workloads::extract_file(file, uri, model).await
        }
        (ModelForm::Archive, []) => workloads::extract_object(app, account, uri, model).await,
        (form, []) => export(app, account, form, uri, model).await,
        (form, registered) => {
            for artifact in registered {
                // The very bytes that were compared.
                let mut file = artifacts::open_unchanged(app, artifact).await?;
                let target = model.join(path_of(form, uri, &artifact.uri)?);
                let written = tokio::task::spawn_blocking(move || {
                    std::fs::create_dir_all(target.parent().unwrap_or(&target))?;
                    std::io::copy(&mut file, &mut std::fs::File::create_new(&target)?)
                });
                let written = written.await.map_err(|error| error.to_string())?;
                written.map_err(|error| format!("{} cannot be copied: {error}", artifact.uri))?;
            }
            Ok(())
        }
    }
}

async fn export(app: &App, account: &str, form: ModelForm, uri: &str, model: &Path) -> Result<(), String> {
    let made = tokio::fs::create_dir_all(model).await;
    made.map_err(|error| format!("{}: {error}", model.display()))?;
    let unreadable = |error: store::Error| format!("{uri} cannot be read: {error}");
    if form == ModelForm::File {
        let (bucket, key) = bucket_and_key(uri).ok_or_else(|| format!("{uri:?} is not an S3 URI"))?;
        let object = app.objects.head(account, bucket, key).await.map_err(unreadable)?;
        let target = model.join(path_of(form, uri, uri)?);
        let exported = vec![ExportedObject { bucket: bucket.to_owned(), object, target }];
        return app.objects.export(account, exported, Export::Shared).await.map_err(unreadable);
    }
    let mut listed = Vec::new();
    let listing = list_objects(&app.objects, account, "S3Prefix", uri, |page| {
        let at = |one: Listed| ExportedObject {
            target: model.join(&one.path),
            bucket: one.bucket,
            object: one.object,
        };
        listed.extend(page.into_iter().map(at));
        Ok(())
    });
    // A channel's errors say whose fault they are.
    listing.await.map_err(|text| text.trim_start_matches("ClientError: ").to_owned())?;
    app.objects.export(account, listed, Export::Shared).await.map_err(unreadable)
}

/// Where an object of a model's data lies in the model's folder.
fn path_of<'a>(form: ModelForm, data: &str, object: &'a str) -> Result<&'a Path, String> {
    let below = match form {
        ModelForm::Files => object.strip_prefix(data),
        ModelForm::File | ModelForm::Archive => object.rsplit('/').next(),
    };
    let below = below.filter(|below| plain_path(below).is_some());
    below
        .map(Path::new)
        .ok_or_else(|| format!("{object} cannot be a file of the model: give it another key."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_files_of_the_model() {
        let path = |form, data, object| path_of(form, data, object).ok().and_then(Path::to_str);
        assert_eq!(path(ModelForm::File, "s3://b/a/m.json", "s3://b/a/m.json"), Some("m.json"));
        assert_eq!(path(ModelForm::Files, "s3://b/a/", "s3://b/a/code/x.py"), Some("code/x.py"));
        assert_eq!(path(ModelForm::Files, "s3://b/a/", "s3://b/a/../x"), None);
        assert_eq!(path(ModelForm::Files, "s3://b/a/", "s3://b/c/x"), None);
    }
}
