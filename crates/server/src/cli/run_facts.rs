//! How `modelyard jobs show` tells of a job's run: use of the machine, limits, locks.

use std::collections::BTreeMap;

use runner::limits::readable_bytes;

use super::client::{Client, Failure};
use super::job_kind::JobKind;
use super::output;
use crate::training::run_facts::RunFacts;

/// The facts of a job's run by host; none before its program runs.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn fetch(
    client: &Client,
    name: &str,
    kind: JobKind,
) -> Result<BTreeMap<String, RunFacts>, Failure> {
    let mut answer = client.call("Modelyard.DescribeRun", &JobKind::own_input(name, Some(kind))).await?;
    serde_json::from_value(answer["Hosts"].take())
        .map_err(|error| Failure { code: String::new(), message: error.to_string() })
}

/// Prints them.
pub fn show(run: &RunFacts) {
    let rows = usage(run);
    if !rows.is_empty() {
        output::line("\nUse of the machine:");
        for (name, value) in rows {
            output::line(&format!("  {name:<22} {value}"));
        }
    }
    if let Some(limits) = &run.containment.limits {
        output::line("\nLimits:");
        let cpus = limits.cpus.map_or_else(|| "all".to_owned(), |cpus| cpus.to_string());
        let shown = [
            ("memory", readable_bytes(limits.memory_bytes)),
            ("CPUs", cpus),
            ("processes", limits.processes.to_string()),
            ("open files", limits.open_files.to_string()),
            ("disk", readable_bytes(limits.disk_bytes)),
        ];
        for (name, value) in shown {
            output::line(&format!("  {name:<22} {value}"));
        }
        for event in &run.limit_events {
            output::line(&format!("  {}", event.sentence()));
        }
    }
    if !run.containment.locks.is_empty() {
        output::line("\nLocks:");
        for report in &run.containment.locks {
            let held = if report.held { "held" } else { "no" };
            output::line(format!("  {:<22} {held:<5} {}", report.lock.name(), report.detail).trim_end());
        }
    }
}

fn usage(run: &RunFacts) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> =
        run.latest.iter().map(|(name, value)| (format!("{name} now"), format!("{value:.1} %"))).collect();
    let Some(usage) = &run.usage else { return rows };
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    add("CPU", format!("mean {:.0} %, peak {:.0} %", usage.mean_cpu_percent, usage.peak_cpu_percent));
    let mean = if usage.samples > 0 {
        format!("mean {}, ", readable_bytes(usage.mean_memory_bytes))
    } else {
        String::new()
    };
    add("memory", format!("{mean}peak {}", readable_bytes(usage.peak_memory_bytes)));
    if usage.samples > 0 {
        let (read, written) = (readable_bytes(usage.read_bytes), readable_bytes(usage.written_bytes));
        add(
            "disk",
            format!("read {read}, wrote {written}, at most {}", readable_bytes(usage.peak_disk_bytes)),
        );
        add("processes", format!("at most {}", usage.peak_processes));
    }
    for gpu in &usage.gpus {
        let busy = format!("mean {:.0} %, peak {:.0} %", gpu.mean_busy_percent, gpu.peak_busy_percent);
        let memory = readable_bytes(gpu.peak_memory_bytes);
        add(&format!("GPU {}", gpu.index), format!("{busy}, idle {} s, memory {memory}", gpu.idle_seconds));
    }
    rows
}
