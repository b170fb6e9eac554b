//! Runs a job that does nothing, to see which locks a job gets on this machine.

use std::path::Path;

use crate::executor::{Error, Executor, ExecutorSettings, ProcessExecutor, Result};
use crate::workload::{Containment, Exit, WorkloadSpec};

/// Starts such a job in `directory`, an empty one, with `supervisor_command` as [`ProcessExecutor::new`] wants it, and
/// reports how it was kept in.
pub async fn probe_locks(
    directory: &Path,
    supervisor_command: Vec<String>,
    settings: ExecutorSettings,
) -> Result<Containment> {
    let executor = ProcessExecutor::new(&directory.join("workloads"), supervisor_command, settings)?;
    let spec = WorkloadSpec {
        log_path: directory.join("log"),
        ..WorkloadSpec::plain("probe", vec!["true".to_owned()])
    };
    executor.start(&spec).await?;
    let report = executor.wait(&spec.id).await?;
    match report.exit {
        Exit::Code(0) => Ok(report.containment),
        exit => Err(Error::Supervisor {
            id: spec.id,
            reason: format!("the job that was tried ended with {exit:?}"),
        }),
    }
}
