//! What a killed server left of jobs whose end was recorded already: their processes, if any, and their folders.

use std::collections::HashSet;
use std::sync::Arc;

use runner::workload::is_valid_id;

use crate::app::App;

/// Beginning of the workload of a job; those of endpoints have an owner of their own.
const JOB_WORKLOADS: &str = "job-";

/// The workloads of jobs that are there but not `kept`, by their directories and by their jobs' folders. To be called before any
/// job is started.
pub fn find(app: &App, kept: &HashSet<String>) -> Vec<String> {
    let mut found: HashSet<String> = app
        .executor
        .list()
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "workloads that an earlier server left are looked for by the next start");
            Vec::new()
        })
        .into_iter()
        .collect();
    // There is no such folder before the first job.
    if let Ok(entries) = std::fs::read_dir(app.config.data_dir.join("jobs")) {
        found.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
    }
    found
        .into_iter()
        .filter(|id| id.starts_with(JOB_WORKLOADS) && is_valid_id(id) && !kept.contains(id))
        .collect()
}

/// Ends and removes them.
pub async fn remove(app: Arc<App>, workloads: Vec<String>) {
    if !workloads.is_empty() {
        tracing::info!(count = workloads.len(), "what ended jobs left is removed");
        super::hosts::clean_up_workloads(&app, &workloads).await;
    }
}
