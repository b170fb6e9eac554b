//! What a job uses of the machine: limited, sampled and summed up.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use runner::usage::GpuSummary;
use runner::{Executor, ExecutorSettings, Exit, Limits, ProcessExecutor, WorkloadSpec};

use crate::bench::{Bench, processes_with, supervisor_program, unique_sleep};

const MIB: u64 = 1024 * 1024;

fn python(bench: &Bench, id: &str, program: &str) -> WorkloadSpec {
    let command = ["python3", "-c", program].map(str::to_owned).to_vec();
    WorkloadSpec { command, ..bench.spec(id, "") }
}

#[tokio::test]
async fn two_busy_processes_share_one_cpu_and_are_sampled() {
    let bench = Bench::new();
    let program = "import os, time\nheld = bytearray(50_000_000)\nos.fork()\nend = time.monotonic() + 1.2\n\
                   while time.monotonic() < end: pass";
    let limits = Limits { cpus: Some(1), ..Limits::default() };
    let spec = WorkloadSpec { limits, ..python(&bench, "busy", program) };
    let (report, messages) = bench.run(&spec).await;
    assert_eq!(report.exit, Exit::Code(0), "{messages:?}");
    let seconds = (report.ended_at_ms - report.started_at_ms) as f64 / 1000.0;
    let used = report.cpu_seconds.unwrap();
    assert!(used < seconds * 1.3, "{used} s of CPU in {seconds} s");
    let usage = report.usage.unwrap();
    assert!(usage.samples >= 1 && usage.peak_memory_bytes > 48 * MIB, "{usage:?}");
    let page = bench.executor.samples("busy", 0).unwrap();
    assert_eq!(page.samples.len() as u64, usage.samples);
    let sample = &page.samples[0];
    assert!(
        sample.cpu_percent > 5.0 && sample.processes == 2 && sample.memory_bytes > 40 * MIB,
        "{sample:?}"
    );
    assert_eq!(bench.executor.samples("busy", page.last_at_ms).unwrap().samples, []);
    assert_eq!(bench.executor.samples("nobody", 0).unwrap().samples, []);
}

#[tokio::test]
async fn gpus_are_sampled_by_the_program_that_tells_of_them() {
    let bench = Bench::new();
    let marker = unique_sleep();
    let program = bench.root().join("nvidia-smi");
    let script =
        format!("#!/bin/sh\necho \"$@\" > \"$0.told\"\necho '1, 0, 1024, 2048'\nexec sleep {marker}\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = ExecutorSettings { nvidia_smi: Some(program.clone()), ..ExecutorSettings::default() };
    let command = vec![supervisor_program(), "supervise".to_owned()];
    let executor = ProcessExecutor::new(&bench.root().join("workloads"), command, settings).unwrap();
    let mut spec = bench.spec("gpu", "sleep 1.3");
    spec.environment.insert("CUDA_VISIBLE_DEVICES".to_owned(), "1".to_owned());
    executor.start(&spec).await.unwrap();
    let usage = executor.wait("gpu").await.unwrap().usage.unwrap();
    let expected = GpuSummary {
        index: 1,
        mean_busy_percent: 0.0,
        peak_busy_percent: 0.0,
        peak_memory_bytes: 1024 * MIB,
        idle_seconds: usage.samples,
    };
    assert_eq!(usage.gpus, [expected]);
    assert!(fs::read_to_string(program.with_extension("told")).unwrap().contains("--id=1"));
    assert_eq!(processes_with(&marker), Vec::<String>::new());
}
