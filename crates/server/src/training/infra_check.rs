//! The check of the machine that `InfraCheckConfig` asks for: what a job needs of it, looked at before the job starts.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use runner::contract::InstanceGroup;
use runner::inventory::Inventory;
use runner::sandbox::{self, SandboxState};

use super::attempt::Attempt;
use crate::job_log::JobLog;

/// Free space below which a job cannot even keep its log and its model.
const LEAST_DISK_BYTES: u64 = 1 << 30;
/// Free memory below which no framework starts.
const LEAST_MEMORY_BYTES: u64 = 256 << 20;
/// What is written and read back.
const PROBE_BYTES: usize = 4 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// The job may still run.
    Doubtful,
    Bad,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { what, verdict, text: text.into() }
}

/// Checks the machine if the request wants it; the findings are lines of the job's log.
///
/// # Errors
/// A text for the failure card: what is bad.
pub async fn run(attempt: &Attempt<'_>, groups: &[InstanceGroup], log: &JobLog) -> Result<(), String> {
    let wanted = attempt.request.infra_check_config.as_ref().and_then(|config| config.enable_infra_check);
    if wanted != Some(true) {
        return Ok(());
    }
    let config = &attempt.app.config;
    let settings = crate::workloads::executor_settings(&config.search_path, config.job_user_id);
    let directory = config.data_dir.clone();
    let resources = attempt.request.resource_config.as_ref();
    let volume_gib =
        resources.and_then(|resources| resources.volume_size_in_gb).and_then(|size| u64::try_from(size).ok());
    let profiles = attempt.app.capacity.instance_types();
    let gpus_of =
        |group: &InstanceGroup| profiles.find(&group.instance_type).map_or(0, |profile| profile.gpus);
    let wanted_gpus = groups.iter().map(gpus_of).max().unwrap_or(0);
    let findings = tokio::task::spawn_blocking(move || {
        let report = sandbox::probe(&settings);
        let verdict = if report.state == SandboxState::Works { Verdict::Good } else { Verdict::Bad };
        vec![
            disk(free_disk_bytes(&directory), volume_gib.unwrap_or(0) << 30),
            write_and_read(&directory),
            memory(available_memory_bytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())),
            gpus(wanted_gpus, &visible_gpus()),
            finding("sandbox", verdict, report.detail),
        ]
    });
    let findings = findings
        .await
        .map_err(|error| format!("InternalServerError: the check of the machine failed: {error}"))?;
    for one in &findings {
        let word = match one.verdict {
            Verdict::Good => "ok",
            Verdict::Doubtful => "WARNING",
            Verdict::Bad => "FAILED",
        };
        log.line(&format!("modelyard: infrastructure check: {word:<7} {}: {}", one.what, one.text)).await;
    }
    let bad: Vec<String> = findings
        .iter()
        .filter(|one| one.verdict == Verdict::Bad)
        .map(|one| format!("{} ({})", one.what, one.text))
        .collect();
    if bad.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "InternalServerError: the machine did not pass the infrastructure check: {}",
            bad.join("; ")
        ))
    }
}

fn disk(free_bytes: Option<u64>, wanted_bytes: u64) -> Finding {
    let Some(free) = free_bytes else {
        return finding("disk", Verdict::Bad, "its free space cannot be read");
    };
    let text = format!("{} free, VolumeSizeInGB asks for {}", gib(free), gib(wanted_bytes));
    match free {
        free if free < LEAST_DISK_BYTES => finding("disk", Verdict::Bad, text),
        free if free < wanted_bytes => finding("disk", Verdict::Doubtful, text),
        _ => finding("disk", Verdict::Good, text),
    }
}

fn memory(available_bytes: Option<u64>) -> Finding {
    let Some(available) = available_bytes else {
        return finding("memory", Verdict::Doubtful, "what is available cannot be read");
    };
    let verdict = if available < LEAST_MEMORY_BYTES { Verdict::Bad } else { Verdict::Good };
    finding("memory", verdict, format!("{} available", gib(available)))
}

fn gpus(wanted: u32, visible: &[String]) -> Finding {
    let verdict = if visible.len() < wanted as usize { Verdict::Doubtful } else { Verdict::Good };
    let models = if visible.is_empty() { "none visible".to_owned() } else { visible.join(", ") };
    finding("GPU", verdict, format!("{models}; the instance type has {wanted}"))
}

fn visible_gpus() -> Vec<String> {
    Inventory::of_this_machine().gpus.into_iter().map(|gpu| gpu.model).collect()
}

/// Disks that fail do so when they are written to.
fn write_and_read(directory: &Path) -> Finding {
    let begun = Instant::now();
    let path = directory.join(format!("infra-check-{}", uuid::Uuid::new_v4()));
    let content: Vec<u8> = (0..PROBE_BYTES).map(|at| (at % 251) as u8).collect();
    let tried = std::fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(&content)?;
        failpoint::at(failpoint::Point::InfraCheckSync)?;
        file.sync_all()?;
        std::fs::read(&path)
    });
    // What could not be made need not be removed.
    let _ = std::fs::remove_file(&path);
    match tried {
        Ok(read) if read == content => finding(
            "storage",
            Verdict::Good,
            format!("4 MiB written, synced and read back in {} ms", begun.elapsed().as_millis()),
        ),
        Ok(_) => finding("storage", Verdict::Bad, "what was read back is not what was written"),
        Err(error) => finding("storage", Verdict::Bad, error.to_string()),
    }
}

fn free_disk_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

fn available_memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_little_is_said() {
        assert_eq!(disk(Some(50 << 30), 30 << 30).verdict, Verdict::Good);
        let tight = disk(Some(5 << 30), 30 << 30);
        assert_eq!(
            (tight.verdict, tight.text.as_str()),
            (Verdict::Doubtful, "5.0 GiB free, VolumeSizeInGB asks for 30.0 GiB")
        );
        assert_eq!(disk(Some(1 << 20), 0).verdict, Verdict::Bad);
        assert_eq!(disk(None, 0).verdict, Verdict::Bad);
        assert_eq!(memory(Some(1 << 20)).verdict, Verdict::Bad);
        assert_eq!(memory(Some(1 << 31)).verdict, Verdict::Good);
        assert_eq!(available_memory_bytes("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(available_memory_bytes("MemTotal: 9 kB"), None);
    }

    #[test]
    fn gpus_are_counted_and_missed() {
        let one = ["NVIDIA L4".to_owned()];
        assert_eq!(gpus(0, &[]).verdict, Verdict::Good);
        assert_eq!(gpus(1, &one).verdict, Verdict::Good);
        assert_eq!(gpus(1, &[]).verdict, Verdict::Doubtful);
        let missing = gpus(4, &one);
        assert_eq!(
            (missing.verdict, missing.text.as_str()),
            (Verdict::Doubtful, "NVIDIA L4; the instance type has 4")
        );
    }

    #[test]
    fn storage_is_really_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_and_read(folder.path()).verdict, Verdict::Good);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(write_and_read(&folder.path().join("none")).verdict, Verdict::Bad);
    }
}
