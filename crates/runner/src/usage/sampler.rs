//! Takes a sample of a workload each second, at a cost that stays below half a percent of a CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use super::gpus::{self, GpuWatch};
use super::log::SampleLog;
use super::processes::{TreeUse, descendants};
use super::{ProcessTree, Sample, UsageSummary};
use crate::cgroup::ControlGroup;
use crate::executor::ExecutorSettings;
use crate::supervisor::directory::now_ms;
use crate::workload::WorkloadSpec;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looking at the processes may take this part of the time; with very many of them it is done less often.
const SHARE_OF_TIME: u32 = 400;

/// Whose use is measured.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The first process of the sandbox or container.
    pub pid: u32,
    /// Whether that is the job's own; a sandbox's is not.
    pub is_job: bool,
    /// The process that made the sandbox and waits for it; the same one where there is none.
    pub outer_pid: u32,
    /// Its control group.
    pub group: &'a ControlGroup,
}

impl Subject<'_> {
    /// All processes of the job.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = self.group.members().unwrap_or_else(|| descendants(self.pid));
        pids.retain(|pid| (self.is_job || *pid != self.pid) && *pid != self.outer_pid);
        pids
    }
}

/// Samples one workload.
pub(crate) struct Sampler {
    log: SampleLog,
    gpus: Option<GpuWatch>,
    tree: ProcessTree,
    tree_use: TreeUse,
    look_again_at: Instant,
    next_at: Instant,
    /// Time of the last sample and the CPU time used until then, in seconds.
    last: (Instant, f64),
    summary: UsageSummary,
}

impl Sampler {
    /// Begins now; lines go to the workload's directory.
    pub fn start(directory: &Path, spec: &WorkloadSpec, settings: &ExecutorSettings) -> Self {
        let gpus = settings.nvidia_smi.as_deref().and_then(|program| {
            let visible = gpus::visible(&spec.environment);
            let none_visible = visible.as_ref().is_some_and(Vec::is_empty);
            if none_visible { None } else { GpuWatch::start(program, visible.as_deref()) }
        });
        let now = Instant::now();
        Self {
            log: SampleLog::open(directory),
            gpus,
            tree: ProcessTree::default(),
            tree_use: TreeUse::default(),
            look_again_at: now,
            next_at: now + INTERVAL,
            last: (now, 0.0),
            summary: UsageSummary::default(),
        }
    }

    /// When the next sample is due.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Takes a sample if one is due.
    pub fn sample_if_due(&mut self, subject: Subject<'_>, disk_bytes: u64) {
        let now = Instant::now();
        if now < self.next_at {
            return;
        }
        self.next_at = now + INTERVAL;
        if now >= self.look_again_at {
            self.tree_use = self.tree.look(&subject.processes());
            self.look_again_at = Instant::now() + now.elapsed() * SHARE_OF_TIME;
        }
        let counted = subject.group.counted();
        let cpu_seconds =
            counted.cpu_nanoseconds.map_or(self.tree_use.cpu_seconds, |nanoseconds| nanoseconds as f64 / 1e9);
        let (read_bytes, written_bytes) =
            counted.disk_bytes.unwrap_or((self.tree_use.read_bytes, self.tree_use.written_bytes));
        let (at, before) = self.last;
        let cpu_percent =
            (cpu_seconds - before).max(0.0) / now.duration_since(at).as_secs_f64().max(1e-3) * 100.0;
        self.last = (now, cpu_seconds);
        let sample = Sample {
            at_ms: now_ms(),
            cpu_percent: (cpu_percent * 10.0).round() / 10.0,
            memory_bytes: counted.memory_bytes.unwrap_or(self.tree_use.memory_bytes),
            read_bytes,
            written_bytes,
            processes: self.tree_use.processes,
            disk_bytes,
            gpus: self.gpus.as_mut().map(GpuWatch::latest).unwrap_or_default(),
        };
        self.summary.add(&sample);
        self.log.write(&sample);
    }

    /// The use over the whole run, completed by what is known only after it.
    pub fn finish(
        mut self,
        cpu_seconds: Option<f64>,
        run_seconds: f64,
        largest_process_bytes: Option<u64>,
    ) -> UsageSummary {
        if let (Some(cpu_seconds), true) = (cpu_seconds, run_seconds > 0.0) {
            let mean = cpu_seconds / run_seconds * 100.0;
            self.summary.mean_cpu_percent = (mean * 10.0).round() / 10.0;
            self.summary.peak_cpu_percent = self.summary.peak_cpu_percent.max(self.summary.mean_cpu_percent);
        }
        self.summary.peak_memory_bytes =
            self.summary.peak_memory_bytes.max(largest_process_bytes.unwrap_or(0));
        self.summary
    }
}
