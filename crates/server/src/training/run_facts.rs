//! What is known of the run of a job's program besides its result: locks, limits, use of the machine.
//!
//! Samples are taken each second by the workload's supervisor. Whoever keeps metrics reads them with
//! [`runner::Executor::samples`], from where it last stopped, and gives them the names of [`metrics`].

use runner::limits::{EffectiveLimits, LimitEvent};
use runner::workload::{Containment, ExitReport};
use runner::{Sample, UsageSummary};
use serde::{Deserialize, Serialize};

use crate::app::App;

/// A sample that is older than this does not show what the job does now.
const RECENT_MS: i64 = 10_000;

/// The facts of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// Locks and limits in force.
    pub containment: Containment,
    /// Limits that it ran into.
    pub limit_events: Vec<LimitEvent>,
    /// Use of the machine over the whole run, once it has ended.
    pub usage: Option<UsageSummary>,
    /// The latest values under the names of the service; only while it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latest: Vec<(String, f64)>,
}

impl RunFacts {
    /// Those of a run that has ended.
    pub fn of(report: &ExitReport) -> RunFacts {
        RunFacts {
            containment: report.containment.clone(),
            limit_events: report.limit_events.clone(),
            usage: report.usage.clone(),
            latest: Vec::new(),
        }
    }

    /// Those of a workload that runs, as far as they are known; `None` for one that is being prepared or is gone.
    ///
    /// # Errors
    /// A text that says what could not be read.
    pub fn so_far(app: &App, workload: &str) -> Result<Option<RunFacts>, String> {
        if app.executor.is_held(workload).map_err(|error| error.to_string())? {
            return Ok(None);
        }
        let containment = app.executor.containment(workload).map_err(|error| error.to_string())?;
        let Some(containment) = containment else { return Ok(None) };
        let recently_ms = u64::try_from(app.clock.now_ms() - RECENT_MS).unwrap_or(0);
        let page = app.executor.samples(workload, recently_ms).map_err(|error| error.to_string())?;
        let latest = match (page.samples.last(), &containment.limits) {
            (Some(sample), Some(limits)) => metrics(sample, limits),
            _ => Vec::new(),
        };
        let latest = latest.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Some(RunFacts { containment, latest, ..RunFacts::default() }))
    }
}

/// The metrics of a host at one moment, as the service names them: percent, where each CPU and each GPU adds 100.
pub fn metrics(sample: &Sample, limits: &EffectiveLimits) -> Vec<(&'static str, f64)> {
    let percent = |part: u64, whole: u64| part as f64 / whole.max(1) as f64 * 100.0;
    let mut metrics = vec![
        ("CPUUtilization", sample.cpu_percent),
        ("MemoryUtilization", percent(sample.memory_bytes, limits.memory_bytes)),
        ("DiskUtilization", percent(sample.disk_bytes, limits.disk_bytes)),
    ];
    if !sample.gpus.is_empty() {
        let busy = sample.gpus.iter().map(|gpu| gpu.busy_percent).sum();
        let memory = sample.gpus.iter().map(|gpu| percent(gpu.memory_bytes, gpu.memory_total_bytes)).sum();
        metrics.extend([("GPUUtilization", busy), ("GPUMemoryUtilization", memory)]);
    }
    metrics
}

#[cfg(test)]
mod tests {
    use runner::usage::GpuSample;

    use super::*;

    #[test]
    fn metrics_are_percentages_of_the_limits() {
        let limits =
            EffectiveLimits { memory_bytes: 1000, cpus: None, processes: 1, open_files: 1, disk_bytes: 400 };
        let gpu = |busy_percent, memory_bytes| GpuSample {
            index: 0,
            busy_percent,
            memory_bytes,
            memory_total_bytes: 10,
        };
        let mut sample =
            Sample { cpu_percent: 150.0, memory_bytes: 250, disk_bytes: 100, ..Sample::default() };
        let plain = vec![("CPUUtilization", 150.0), ("MemoryUtilization", 25.0), ("DiskUtilization", 25.0)];
        assert_eq!(metrics(&sample, &limits), plain);
        sample.gpus = vec![gpu(90.0, 5), gpu(50.0, 1)];
        assert_eq!(
            metrics(&sample, &limits)[3..],
            [("GPUUtilization", 140.0), ("GPUMemoryUtilization", 60.0)]
        );
    }
}
