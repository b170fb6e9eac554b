//! What a workload uses of the machine: a sample each second, and the sum of them at the end.

mod gpus;
mod log;
mod processes;
mod sampler;

use serde::{Deserialize, Serialize};

pub use log::{SamplePage, read_samples};
pub(crate) use processes::{ProcessTree, proportional_memory_bytes};
pub(crate) use sampler::{Sampler, Subject};

/// Use of the machine at one moment, by all processes of a workload together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since 1970.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// CPU time since the last sample in percent of one CPU: two busy CPUs are 200.
    #[serde(rename = "cpu")]
    pub cpu_percent: f64,
    /// Memory in use.
    #[serde(rename = "mem")]
    pub memory_bytes: u64,
    /// Bytes read from disks since the start.
    #[serde(rename = "rd")]
    pub read_bytes: u64,
    /// Bytes written to disks since the start.
    #[serde(rename = "wr")]
    pub written_bytes: u64,
    /// Processes.
    #[serde(rename = "n")]
    pub processes: u64,
    /// Space of the writable mounts and the log; measured less often than the rest.
    #[serde(rename = "disk")]
    pub disk_bytes: u64,
    /// GPUs, by number.
    #[serde(rename = "gpu", default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuSample>,
}

/// Use of one GPU at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Number of the GPU on this machine.
    #[serde(rename = "i")]
    pub index: u32,
    /// Percent of the time in which it computed.
    #[serde(rename = "use")]
    pub busy_percent: f64,
    /// Memory in use.
    #[serde(rename = "mem")]
    pub memory_bytes: u64,
    /// Memory it has.
    #[serde(rename = "of")]
    pub memory_total_bytes: u64,
}

/// Use of the machine over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageSummary {
    /// How many samples it rests on; a run of less than a second has none.
    pub samples: u64,
    /// Mean over the run, in percent of one CPU.
    pub mean_cpu_percent: f64,
    /// Busiest second, in percent of one CPU.
    pub peak_cpu_percent: f64,
    /// Mean of the samples.
    pub mean_memory_bytes: u64,
    /// Largest sample, or the largest process where that is more.
    pub peak_memory_bytes: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
    /// Most processes at once.
    pub peak_processes: u64,
    /// Most space of the writable mounts and the log.
    pub peak_disk_bytes: u64,
    /// GPUs, by number.
    pub gpus: Vec<GpuSummary>,
}

/// Use of one GPU over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSummary {
    /// Number of the GPU on this machine.
    pub index: u32,
    /// Mean of the samples.
    pub mean_busy_percent: f64,
    /// Largest sample.
    pub peak_busy_percent: f64,
    /// Largest sample.
    pub peak_memory_bytes: u64,
    /// Samples, that is seconds, in which it did nothing.
    pub idle_seconds: u64,
}

impl UsageSummary {
    /// Takes a sample in.
    pub(crate) fn add(&mut self, sample: &Sample) {
        let before = self.samples as f64;
        self.samples += 1;
        let mean = |mean: f64, value: f64| (mean * before + value) / (before + 1.0);
        self.mean_cpu_percent = mean(self.mean_cpu_percent, sample.cpu_percent);
        self.peak_cpu_percent = self.peak_cpu_percent.max(sample.cpu_percent);
        self.mean_memory_bytes = mean(self.mean_memory_bytes as f64, sample.memory_bytes as f64) as u64;
        self.peak_memory_bytes = self.peak_memory_bytes.max(sample.memory_bytes);
        self.read_bytes = self.read_bytes.max(sample.read_bytes);
        self.written_bytes = self.written_bytes.max(sample.written_bytes);
        self.peak_processes = self.peak_processes.max(sample.processes);
        self.peak_disk_bytes = self.peak_disk_bytes.max(sample.disk_bytes);
        for gpu in &sample.gpus {
            let position = self.gpus.iter().position(|known| known.index == gpu.index);
            let position = position.unwrap_or_else(|| {
                self.gpus.push(GpuSummary { index: gpu.index, ..GpuSummary::default() });
                self.gpus.len() - 1
            });
            let known = &mut self.gpus[position];
            known.mean_busy_percent = mean(known.mean_busy_percent, gpu.busy_percent);
            known.peak_busy_percent = known.peak_busy_percent.max(gpu.busy_percent);
            known.peak_memory_bytes = known.peak_memory_bytes.max(gpu.memory_bytes);
            known.idle_seconds += u64::from(gpu.busy_percent < 0.5);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_means_and_peaks() {
        let mut summary = UsageSummary::default();
        for (cpu_percent, memory_bytes, busy_percent) in
            [(100.0, 10, 0.0), (200.0, 30, 80.0), (0.0, 20, 40.0)]
        {
            let gpu = GpuSample { index: 3, busy_percent, memory_bytes: 7, memory_total_bytes: 9 };
            summary.add(&Sample { cpu_percent, memory_bytes, gpus: vec![gpu], ..Sample::default() });
        }
        assert_eq!((summary.samples, summary.mean_cpu_percent, summary.peak_cpu_percent), (3, 100.0, 200.0));
        assert_eq!((summary.mean_memory_bytes, summary.peak_memory_bytes), (20, 30));
        let gpu = &summary.gpus[0];
        assert_eq!((gpu.index, gpu.mean_busy_percent, gpu.idle_seconds), (3, 40.0, 1));
    }

    #[test]
    fn a_line_is_short_and_survives() {
        let sample = Sample { at_ms: 1_770_000_000_000, cpu_percent: 99.5, ..Sample::default() };
        let line = serde_json::to_string(&sample).unwrap();
        assert!(line.len() < 100, "{line}");
        assert_eq!(serde_json::from_str::<Sample>(&line).unwrap(), sample);
    }
}
