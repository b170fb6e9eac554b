//! What this machine has for workloads: CPUs, memory, NVIDIA GPUs.

use std::path::Path;

/// The machine's resources, within what the server's own control group allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// CPUs.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// NVIDIA GPUs by ascending index.
    pub gpus: Vec<Gpu>,
}

/// An NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Number of its device file, `/dev/nvidiaN`.
    pub index: u32,
    /// Model, for example `NVIDIA L4`.
    pub model: String,
    /// `GPU-...`, by which CUDA can be told to use it.
    pub uuid: String,
}

impl Inventory {
    /// Looks at the machine. Reads a few files, starts nothing.
    pub fn of_this_machine() -> Inventory {
        Inventory::below(Path::new("/"))
    }

    /// Looks at the machine whose `proc` and `sys` lie below `root`; the CPUs are always those of this process.
    fn below(root: &Path) -> Inventory {
        Inventory {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(root),
            gpus: gpus(&root.join("proc/driver/nvidia/gpus")),
        }
    }
}

/// Physical memory, or the limit of the control group where that is lower.
fn memory_bytes(root: &Path) -> u64 {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| {
        let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    });
    let limits = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.into_iter().filter_map(|path| {
        // `max` and other words mean no limit.
        std::fs::read_to_string(root.join(path)).ok()?.trim().parse().ok()
    });
    limits.chain(total).min().unwrap_or(0)
}

fn gpus(directory: &Path) -> Vec<Gpu> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path().join("information")));
    let mut gpus: Vec<Gpu> = files.filter_map(|file| gpu(&std::fs::read_to_string(file).ok()?)).collect();
    gpus.sort_by_key(|gpu| gpu.index);
    gpus
}

/// Reads the driver's description of one GPU.
fn gpu(text: &str) -> Option<Gpu> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(field, _)| field.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    Some(Gpu {
        index: value("Device Minor")?.parse().ok()?,
        model: value("Model")?,
        uuid: value("GPU UUID")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:       16384 kB\nMemFree:         100 kB\n");
        for (slot, minor) in [("0000:65:00.0", 1), ("0000:17:00.0", 0)] {
            write(
                &format!("proc/driver/nvidia/gpus/{slot}/information"),
                &format!(
                    "Model: \t\t NVIDIA L4\nIRQ:   \t\t 30\nGPU UUID: \t GPU-{minor}\nDevice Minor: \t {minor}\n"
                ),
            );
        }
        write("proc/driver/nvidia/gpus/0000:99:00.0/information", "Model: unfinished\n");
        let found = Inventory::below(root.path());
        assert_eq!(found.memory_bytes, 16 << 20);
        let gpu = |index: u32| Gpu { index, model: "NVIDIA L4".into(), uuid: format!("GPU-{index}") };
        assert_eq!(found.gpus, [gpu(0), gpu(1)]);
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(Inventory::below(root.path()).memory_bytes, 16 << 20);
        write("sys/fs/cgroup/memory.max", "4194304\n");
        assert_eq!(Inventory::below(root.path()).memory_bytes, 4 << 20);
    }

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let here = Inventory::of_this_machine();
        assert!(here.cpus >= 1 && here.memory_bytes > 1 << 20, "{here:?}");
    }
}
