//! NVIDIA GPUs, as `nvidia-smi` tells of them: one process of it that prints a line per GPU each second.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::GpuSample;

const FIELDS: &str = "--query-gpu=index,utilization.gpu,memory.used,memory.total";

/// A running `nvidia-smi`. It is a child of the supervisor and ends with the job's processes.
pub struct GpuWatch {
    output: File,
    text: Vec<u8>,
    latest: Vec<GpuSample>,
}

impl GpuWatch {
    /// Starts it; `only` are the GPUs to report, all if `None`. `None` when it cannot be started.
    pub fn start(program: &Path, only: Option<&[u32]>) -> Option<Self> {
        let mut command = Command::new(program);
        command.arg(FIELDS).args(["--format=csv,noheader,nounits", "--loop=1"]);
        if let Some(only) = only {
            let list: Vec<String> = only.iter().map(u32::to_string).collect();
            command.arg(format!("--id={}", list.join(",")));
        }
        let child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = OwnedFd::from(child.stdout?);
        rustix::io::ioctl_fionbio(&output, true).ok()?;
        Some(Self { output: File::from(output), text: Vec::new(), latest: Vec::new() })
    }

    /// The newest values; empty until there are some.
    pub fn latest(&mut self) -> Vec<GpuSample> {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.output.read(&mut chunk) {
            self.text.extend_from_slice(&chunk[..count]);
        }
        if let Some(end) = self.text.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.text.drain(..=end).collect();
            for sample in String::from_utf8_lossy(&whole).lines().filter_map(parse) {
                match self.latest.iter_mut().find(|known| known.index == sample.index) {
                    Some(known) => *known = sample,
                    None => self.latest.push(sample),
                }
            }
        }
        self.latest.clone()
    }
}

/// A line such as `0, 87, 10240, 81920`: memory is in MiB. What a GPU does not tell counts as zero.
fn parse(line: &str) -> Option<GpuSample> {
    let mut fields = line.split(',').map(str::trim);
    let index = fields.next()?.parse().ok()?;
    let mut number = || fields.next().map(|field| field.parse::<f64>().unwrap_or(0.0));
    let (busy_percent, used_mib, total_mib) = (number()?, number()?, number()?);
    let bytes = |mib: f64| (mib * 1024.0 * 1024.0) as u64;
    Some(GpuSample {
        index,
        busy_percent,
        memory_bytes: bytes(used_mib),
        memory_total_bytes: bytes(total_mib),
    })
}

/// The GPUs that a job may see, where its environment names them by number.
pub fn visible(environment: &std::collections::BTreeMap<String, String>) -> Option<Vec<u32>> {
    let text =
        environment.get("CUDA_VISIBLE_DEVICES").or_else(|| environment.get("NVIDIA_VISIBLE_DEVICES"))?;
    text.split(',').map(|part| part.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_samples() {
        let sample = parse("1, 87, 1024, 81920").unwrap();
        assert_eq!((sample.index, sample.busy_percent, sample.memory_bytes), (1, 87.0, 1 << 30));
        assert_eq!(parse("0, [N/A], 5, 10").unwrap().busy_percent, 0.0);
        assert_eq!(parse("No devices were found"), None);
        assert_eq!(parse("0, 1"), None);
    }

    #[test]
    fn the_environment_names_gpus_by_number() {
        let with = |value: &str| visible(&[("CUDA_VISIBLE_DEVICES".to_owned(), value.to_owned())].into());
        assert_eq!(with("0, 2"), Some(vec![0, 2]));
        assert_eq!(with("GPU-8932f937"), None);
    }
}
