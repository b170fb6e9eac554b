//! Python environments, and graphs that were made of models in them, that nobody has used for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Page, Step, encoded};
use crate::app::App;
use crate::endpoints::converted;
use crate::{Error, Result};

/// Environments that a step looks at: each is some ten thousand files.
const PAGE: usize = 4;

/// Removes a page of environments.
pub(super) async fn remove(app: &Arc<App>, page: Page, after: String) -> Result<Step> {
    let before = SystemTime::UNIX_EPOCH + Duration::from_millis(page.before_ms.unsigned_abs());
    let looking = app.clone();
    let found = tokio::task::spawn_blocking(move || {
        let found = looking.environments.unused(before, &after, PAGE).map_err(Error::internal)?;
        let next = found.last().filter(|_| found.len() == PAGE).map(|last| last.key.clone());
        let mut sized = Vec::new();
        for unused in found {
            if !is_shown_to_a_workload(&looking, &unused.directory)? {
                let bytes = bytes_below(&unused.directory);
                sized.push((unused, bytes));
            }
        }
        Ok::<_, Error>((sized, next))
    });
    let (found, next) = found.await.map_err(Error::internal)??;
    let mut step = Step { next: next.map(|next| encoded(&next)).transpose()?, ..Step::default() };
    for (unused, bytes) in found {
        let goes = page.is_dry_run || {
            let removed = app.environments.remove_unused(&unused, before).await;
            removed.map_err(|error| {
                Error::internal(format!("{} cannot be removed: {error}", unused.directory.display()))
            })?
        };
        if goes {
            step.items += 1;
            step.bytes += bytes;
        }
    }
    if step.next.is_none() {
        let graphs = graphs(app, before, page.is_dry_run).await?;
        step.items += graphs.items;
        step.bytes += graphs.bytes;
    }
    Ok(step)
}

/// Removes the graphs: there are few of them, and each is two files.
async fn graphs(app: &Arc<App>, before: SystemTime, is_dry_run: bool) -> Result<Step> {
    let looking = app.clone();
    let removed = tokio::task::spawn_blocking(move || {
        let mut step = Step::default();
        for folder in converted::unused(&looking.config, before) {
            if is_shown_to_a_workload(&looking, &folder)? {
                continue;
            }
            let bytes = bytes_below(&folder);
            let goes = is_dry_run
                || converted::remove(&folder, before).map_err(|error| {
                    Error::internal(format!("{} cannot be removed: {error}", folder.display()))
                })?;
            if goes {
                step.items += 1;
                step.bytes += bytes;
            }
        }
        Ok::<_, Error>(step)
    });
    removed.await.map_err(Error::internal)?
}

/// Whether a process has it that has run since before the environment grew old: a job, a replica, a function.
fn is_shown_to_a_workload(app: &App, directory: &Path) -> Result<bool> {
    let path = directory.display().to_string();
    for id in app.executor.list().map_err(Error::internal)? {
        let spec = app.executor.spec(&id).map_err(Error::internal)?;
        if spec.is_some_and(|spec| format!("{spec:?}").contains(&path)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes on the disk that go with a folder; a file that has another name elsewhere stays there.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        // It may be removed meanwhile.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() == 1 {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}
