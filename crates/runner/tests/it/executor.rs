//! Starting, ending, observing and forgetting workloads.

use std::fs;

use runner::{Confinement, Error, Executor, ExecutorSettings, Exit, Network, Observation, ProcessExecutor};
use rustix::process::Signal;

use crate::bench::{Bench, processes_with, supervisor_program, unique_sleep, until_a_process_has};

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    let bench = Bench::new();
    for (id, script, expected) in [
        ("zero", "true", Exit::Code(0)),
        ("three", "exit 3", Exit::Code(3)),
        ("like-a-signal", "exit 137", Exit::Code(137)),
        ("killed", "kill -KILL $$", Exit::Signal(9)),
        ("segfault", "kill -SEGV $$", Exit::Signal(11)),
    ] {
        let (report, messages) = bench.run(&bench.spec(id, script)).await;
        assert_eq!(report.exit, expected, "{id}: {messages:?}");
        assert!(!report.stop_requested);
        assert!(report.started_at_ms <= report.ended_at_ms && report.started_at_ms > 1_600_000_000_000);
    }
}

#[tokio::test]
async fn a_plain_process_is_run_the_same_way() {
    let bench = Bench::new();
    let spec =
        bench.unconfined_spec("plain", "pwd; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; exit 4");
    let (report, messages) = bench.run(&spec).await;
    assert_eq!(report.exit, Exit::Code(4), "{messages:?}");
    let expected =
        [bench.ml().display().to_string(), "CapEff:\t0000000000000000".into(), "NoNewPrivs:\t1".into()];
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn what_cannot_be_launched_says_why() {
    let bench = Bench::new();
    let mut no_program = bench.spec("no-program", "");
    no_program.command = vec!["no-such-program".to_owned()];
    let mut no_source = bench.spec("no-source", "true");
    no_source.mounts[0].source = bench.root().join("missing");
    let mut no_directory = bench.spec("no-directory", "true");
    no_directory.working_directory = "/nowhere".into();
    let mut no_sandbox = bench.spec("no-sandbox", "true");
    no_sandbox.confinement = Confinement::None;
    let mut no_network = bench.unconfined_spec("no-network", "true");
    no_network.network = Network::None;
    for (spec, expected) in [
        (no_program, "no-such-program"),
        (no_source, "missing"),
        (no_directory, "/nowhere"),
        (no_sandbox, "install bubblewrap"),
        (no_network, "cut off from the network"),
    ] {
        let (report, messages) = bench.run(&spec).await;
        let Exit::LaunchFailed(text) = &report.exit else { panic!("{}: {report:?}", spec.id) };
        assert!(text.contains(expected), "{}: {text}", spec.id);
        assert_eq!(messages, Vec::<String>::new(), "the sandbox's complaints are not the job's output");
    }
}

#[tokio::test]
async fn a_missing_sandbox_program_is_named() {
    let bench = Bench::new();
    let settings = ExecutorSettings { bubblewrap: "/nowhere/bwrap".into(), ..ExecutorSettings::default() };
    let command = vec![supervisor_program(), "supervise".to_owned()];
    let executor = ProcessExecutor::new(&bench.root().join("workloads"), command, settings).unwrap();
    executor.start(&bench.spec("a", "true")).await.unwrap();
    let report = executor.wait("a").await.unwrap();
    assert!(
        matches!(&report.exit, Exit::LaunchFailed(text) if text.contains("/nowhere/bwrap")),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_supervisor_that_does_not_answer_is_an_error_and_the_start_can_be_repeated() {
    let bench = Bench::new();
    let spec = bench.spec("a", "true");
    let root = bench.root().join("workloads");
    let settings = ExecutorSettings::default;
    let silent = ProcessExecutor::new(&root, vec!["/bin/true".to_owned()], settings()).unwrap();
    assert!(matches!(silent.start(&spec).await, Err(Error::Supervisor { .. })));
    assert_eq!(silent.observe("a").unwrap(), Observation::Unknown);
    let absent = ProcessExecutor::new(&root, vec!["/nowhere/program".to_owned()], settings()).unwrap();
    assert!(matches!(absent.start(&spec).await, Err(Error::Supervisor { .. })));
    assert_eq!(bench.run(&spec).await.0.exit, Exit::Code(0));
}

#[tokio::test]
async fn starting_twice_runs_once() {
    let bench = Bench::new();
    let spec = bench.spec("once", "echo run >> /opt/ml/runs");
    let (first, second, third) =
        tokio::join!(bench.executor.start(&spec), bench.executor.start(&spec), bench.executor.start(&spec));
    first.and(second).and(third).unwrap();
    let report = bench.executor.wait("once").await.unwrap();
    assert_eq!(report.exit, Exit::Code(0));
    bench.executor.start(&spec).await.unwrap();
    assert_eq!(bench.executor.wait("once").await.unwrap(), report);
    assert_eq!(fs::read_to_string(bench.ml().join("runs")).unwrap(), "run\n");
}

#[tokio::test]
async fn a_broken_description_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let mut spec = bench.spec("a", "true");
    spec.command.clear();
    assert!(matches!(bench.executor.start(&spec).await, Err(Error::InvalidSpec(_))));
    assert_eq!(bench.executor.list().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_workloads_are_unknown_to_every_call() {
    let bench = Bench::new();
    for id in ["nobody", "../escape", ""] {
        assert!(matches!(bench.executor.wait(id).await, Err(Error::UnknownWorkload(_))), "{id:?}");
        assert!(matches!(bench.executor.stop(id), Err(Error::UnknownWorkload(_))), "{id:?}");
        assert!(matches!(bench.executor.kill(id), Err(Error::UnknownWorkload(_))), "{id:?}");
    }
    assert_eq!(bench.executor.observe("nobody").unwrap(), Observation::Unknown);
    bench.executor.remove("nobody").unwrap();
}

#[tokio::test]
async fn only_an_ended_workload_can_be_removed() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let spec = bench.spec("a", "echo > ready; exec sleep 1000");
    bench.executor.start(&spec).await.unwrap();
    ready.line().await;
    assert_eq!(bench.executor.list().unwrap(), ["a"]);
    assert!(matches!(bench.executor.remove("a"), Err(Error::StillRunning(_))));
    bench.executor.kill("a").unwrap();
    bench.executor.wait("a").await.unwrap();
    bench.executor.remove("a").unwrap();
    bench.executor.remove("a").unwrap();
    assert_eq!(bench.executor.list().unwrap(), Vec::<String>::new());
    assert_eq!(bench.executor.observe("a").unwrap(), Observation::Unknown);
    assert_eq!(fs::read_dir(bench.root().join("workloads")).unwrap().count(), 0);
}

#[tokio::test]
async fn use_of_the_machine_is_reported() {
    let bench = Bench::new();
    let script = "python3 -c 'data = bytearray(80_000_000); sum(range(3_000_000))'";
    let (report, messages) = bench.run(&bench.spec("a", script)).await;
    assert_eq!(report.exit, Exit::Code(0), "{messages:?}");
    let (peak, cpu) = (report.peak_memory_bytes.unwrap(), report.cpu_seconds.unwrap());
    assert!((80_000_000..400_000_000).contains(&peak), "{peak} bytes");
    assert!((0.01..20.0).contains(&cpu), "{cpu} seconds");
}

#[tokio::test]
async fn supervisors_leave_no_zombies() {
    let bench = Bench::new();
    bench.run(&bench.spec("a", "true")).await;
    let pid = bench.supervisor_pid("a");
    // Reaping happens just after the end: once it is done the kernel knows no such child.
    while rustix::process::test_kill_process(pid).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_kill_ends_a_job_that_ignores_everything() {
    let bench = Bench::new();
    let marker = &unique_sleep();
    let mut ready = bench.signal("ready");
    let script = format!("trap '' TERM INT HUP; echo > ready; exec sleep {marker}");
    bench.executor.start(&bench.spec("a", &script)).await.unwrap();
    ready.line().await;
    until_a_process_has(marker);
    bench.executor.kill("a").unwrap();
    let report = bench.executor.wait("a").await.unwrap();
    assert_eq!(report.exit, Exit::Signal(Signal::KILL.as_raw()));
    assert!(report.stop_requested);
    assert_eq!(processes_with(marker), Vec::<String>::new());
}
