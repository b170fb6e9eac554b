//! Working folders of jobs that have ended: those that could not be removed when they ended.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::environments::bytes_below;
use super::{PAGE, Page, Step};
use crate::app::App;
use crate::sagemaker::kinds::{PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};
use crate::training::record::TrainingRecord;
use crate::{Error, Result};

/// Statuses of jobs that may have folders.
const UNDER_WAY: &[&str] = &["InProgress", "Stopping"];

/// Removes some folders. There is no next page: what one run leaves, the next one takes.
pub(super) async fn remove(app: &Arc<App>, page: Page) -> Result<Step> {
    // First the folders, then the records: a job that makes one in between is in its record before.
    let (looking, before_ms) = (app.clone(), page.before_ms);
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for place in ["jobs", "transforms"] {
            let entries = std::fs::read_dir(looking.config.data_dir.join(place)).into_iter().flatten();
            let old = entries.flatten().filter(|entry| is_older(&entry.path(), before_ms));
            found.extend(old.take(PAGE).map(|entry| (entry.file_name(), entry.path())));
        }
        found
    });
    let mut found = found.await.map_err(Error::internal)?;
    if found.is_empty() {
        return Ok(Step::default());
    }
    let mut kept: HashSet<String> = app.executor.list().map_err(Error::internal)?.into_iter().collect();
    for kind in [TRAINING_JOB, PROCESSING_JOB, TRANSFORM_JOB] {
        let jobs = app.database.read(move |session| session.resources_in(kind, UNDER_WAY)).await?;
        for job in jobs {
            let record = TrainingRecord::read(&job.document)?;
            kept.extend(record.hosts.into_iter().map(|host| host.workload));
            kept.extend(record.transform.map(|state| state.folder));
        }
    }
    found.retain(|(name, _)| name.to_str().is_none_or(|name| !kept.contains(name)));
    let mut step = Step::default();
    for (_, folder) in found {
        let sized = folder.clone();
        step.items += 1;
        step.bytes +=
            tokio::task::spawn_blocking(move || bytes_below(&sized)).await.map_err(Error::internal)?;
        if !page.is_dry_run {
            crate::workloads::remove_directory(&folder).await;
        }
    }
    Ok(step)
}

fn is_older(path: &Path, before_ms: i64) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.mtime().saturating_mul(1000) < before_ms)
}
