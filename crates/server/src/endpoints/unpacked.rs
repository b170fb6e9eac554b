//! Models of serverless variants, unpacked once for all replicas of a deployment, so that a wake needs no archive. What a server finds
//! at its start is only kept for replicas that run: it may have been cut off by a fall of the machine.

use std::path::PathBuf;

use super::container::open_to_readers;
use super::model_data;
use super::record::DeployedVariant;
use crate::app::App;
use crate::config::Config;
use crate::workloads;

/// Name of the folder beside those of the replicas.
const FOLDER: &str = "unpacked";

/// What the names of folders begin with that are being filled.
const PARTIAL: &str = ".partial-";

fn root(config: &Config) -> PathBuf {
    workloads::replica_directory(config, FOLDER)
}

/// What all replicas of a variant of one deployment have in common in their ids: all but position and attempt.
fn deployment(replica: &str) -> &str {
    replica.rsplitn(3, '-').nth(2).unwrap_or(replica)
}

/// The unpacked model of a variant, for reading; brought there by the first replica that asks.
///
/// # Errors
/// A text for people.
pub async fn have(
    app: &App,
    account: &str,
    variant: &DeployedVariant,
    replica: &str,
) -> Result<PathBuf, String> {
    let root = root(&app.config);
    let folder = root.join(deployment(replica));
    if tokio::fs::try_exists(&folder).await.unwrap_or(false) {
        return Ok(folder);
    }
    let partial = root.join(format!("{PARTIAL}{replica}"));
    let filled = async {
        workloads::make_fresh(&partial, &partial).await?;
        model_data::bring(app, account, variant, &partial).await?;
        let opened = partial.clone();
        let opened = tokio::task::spawn_blocking(move || open_to_readers(&opened)).await;
        opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        failpoint::at(failpoint::Point::UnpackedModel).map_err(|error| error.to_string())?;
        match tokio::fs::rename(&partial, &folder).await {
            Ok(()) => Ok(()),
            // Another replica was first.
            Err(_) if tokio::fs::try_exists(&folder).await.unwrap_or(false) => Ok(()),
            Err(error) => Err(format!("The model cannot be put at {}: {error}.", folder.display())),
        }
    };
    let filled = filled.await;
    workloads::remove_directory(&partial).await;
    filled.map(|()| folder)
}

/// Removes the models whose replicas' ids begin with `prefix`, but for those of which one is among `running` and those of the deployment
/// `kept`, as ids tell it.
pub async fn sweep(config: &Config, prefix: &str, kept: Option<&str>, running: &[String]) {
    let Ok(mut folders) = tokio::fs::read_dir(root(config)).await else {
        return; // there has been none yet
    };
    while let Ok(Some(folder)) = folders.next_entry().await {
        let name = folder.file_name();
        let Some(name) = name.to_str() else { continue };
        if is_done_with(name, prefix, kept, running) {
            workloads::remove_directory(&folder.path()).await;
        }
    }
}

fn is_done_with(name: &str, prefix: &str, kept: Option<&str>, running: &[String]) -> bool {
    let of = name.strip_prefix(PARTIAL).unwrap_or(name);
    let is_used = || running.iter().any(|replica| deployment(replica) == name);
    let is_kept = || kept.is_some_and(|kept| deployment_number(of) == Some(kept));
    of.starts_with(prefix) && !is_used() && !is_kept()
}

/// The part of a deployment's name that counts the deployments of its endpoint, as `g7`.
fn deployment_number(name: &str) -> Option<&str> {
    name.rsplit('-').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_any_more_is_told_from_what_is_needed() {
        let running = vec!["ep-a-0123-45-g2-0-aaaaaaaa".to_owned()];
        assert_eq!(deployment(&running[0]), "ep-a-0123-45-g2");
        let done = |name: &str, kept| is_done_with(name, "ep-a-0123-", kept, &running);
        assert!(done("ep-a-0123-45-g1", None) && done(".partial-ep-a-0123-45-g2-0-bbbbbbbb", None));
        assert!(!done("ep-a-0123-45-g2", None), "a replica runs");
        assert!(!done("ep-a-0123-45-g3", Some("g3")) && done("ep-a-0123-45-g1", Some("g3")));
        assert!(!done("ep-b-9999-45-g1", None), "it is another endpoint's");
    }
}
