//! Stops, time limits, restarts of the server, deaths of supervisors, and jobs that try to get away.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use runner::{Executor, ExecutorSettings, Exit, Observation, ProcessExecutor, WorkloadSpec};
use rustix::process::Signal;

use crate::bench::{
    Bench, making_sandboxes_below, processes_with, supervisor_program, unique_sleep, until_a_process_has,
};

#[tokio::test]
async fn a_stop_lets_the_job_end_by_itself() {
    let bench = Bench::new();
    for (id, make) in both_ways() {
        let mut ready = bench.signal(id);
        let ready_file = bench.ml().join(id);
        let script =
            format!("trap 'echo saving; exit 7' TERM; echo > {id}; sleep 1000 & while :; do wait; done");
        let spec = make(&bench, id, &script);
        bench.executor.start(&spec).await.unwrap();
        ready.line().await;
        bench.executor.stop(id).unwrap();
        bench.executor.stop(id).unwrap();
        let report = bench.executor.wait(id).await.unwrap();
        assert_eq!(report.exit, Exit::Code(7), "{id}");
        assert!(report.stop_requested);
        assert_eq!(bench.messages(id), ["saving"]);
        bench.executor.stop(id).unwrap();
        std::fs::remove_file(ready_file).unwrap();
    }
}

#[tokio::test]
async fn a_job_that_ignores_the_stop_is_killed_after_the_grace() {
    let bench = Bench::new();
    for (id, make) in both_ways() {
        let mut ready = bench.signal(id);
        let mut spec = make(&bench, id, &format!("trap '' TERM; echo > {id}; exec sleep 1000"));
        spec.stop_grace_seconds = 1;
        bench.executor.start(&spec).await.unwrap();
        ready.line().await;
        let stopped_at = std::time::Instant::now();
        bench.executor.stop(id).unwrap();
        let report = bench.executor.wait(id).await.unwrap();
        assert_eq!(report.exit, Exit::Signal(9));
        assert!(report.stop_requested);
        assert!(stopped_at.elapsed() >= Duration::from_secs(1), "the grace was {:?}", stopped_at.elapsed());
    }
}

#[tokio::test]
async fn the_time_limit_ends_a_job() {
    let bench = Bench::new();
    let mut spec = bench.spec("late", "trap 'echo time; exit 0' TERM; sleep 1000 & wait");
    spec.time_limit_seconds = Some(1);
    let (report, messages) = bench.run(&spec).await;
    assert_eq!(report.exit, Exit::TimeLimit);
    assert!(!report.stop_requested);
    assert!(report.ended_at_ms - report.started_at_ms >= 1000);
    assert_eq!(messages, ["time"]);
}

#[tokio::test]
async fn a_stop_that_comes_before_the_supervisor_is_kept() {
    let bench = Bench::new();
    let spec = bench.spec("early", "echo ran");
    // As if the server had died between making the directory and starting the supervisor.
    std::fs::create_dir(bench.root().join("workloads/early")).unwrap();
    bench.executor.stop("early").unwrap();
    assert_eq!(bench.executor.observe("early").unwrap(), Observation::Unknown);
    let (report, messages) = bench.run(&spec).await;
    assert_eq!(report.exit, Exit::Signal(Signal::TERM.as_raw()));
    assert!(report.stop_requested);
    assert_eq!(messages, Vec::<String>::new());
}

#[test]
fn a_restarted_server_takes_its_jobs_up_again() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new();
    let spec = {
        let first_life = runtime();
        first_life.block_on(async {
            let mut ready = bench.signal("ready");
            rustix::fs::mkfifoat(
                rustix::fs::CWD,
                bench.ml().join("go"),
                rustix::fs::Mode::from_raw_mode(0o600),
            )
            .unwrap();
            let spec = bench.spec("long", "echo > ready; read line < go; echo \"$line\"; exit 5");
            bench.executor.start(&spec).await.unwrap();
            ready.line().await;
            spec
        })
    };
    let executor = bench.restarted();
    runtime().block_on(async {
        assert_eq!(executor.list().unwrap(), ["long"]);
        assert!(matches!(executor.observe("long").unwrap(), Observation::Running { pid: Some(_), .. }));
        executor.start(&spec).await.unwrap();
        let go = async {
            let path = bench.ml().join("go");
            std::fs::write(path, "onwards\n").unwrap();
        };
        // The wait is under way when the job ends, and is woken by it.
        let (report, ()) = tokio::join!(biased; executor.wait("long"), go);
        assert_eq!(report.unwrap().exit, Exit::Code(5));
    });
    assert_eq!(bench.messages("long"), ["onwards"]);
}

#[tokio::test]
async fn a_supervisor_outlives_its_starter() {
    let bench = Bench::new();
    // The shell that starts it is gone at once, as a crashed server would be.
    let script = format!("{} supervise \"$0\" &", supervisor_program());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let root = bench.root().join("workloads");
    let crashing = ProcessExecutor::new(&root, command, ExecutorSettings::default()).unwrap();
    let mut ready = bench.signal("ready");
    let spec = bench.spec("orphan", "trap 'echo stopped; exit 6' TERM; echo > ready; sleep 1000 & wait");
    crashing.start(&spec).await.unwrap();
    ready.line().await;
    drop(crashing);
    bench.executor.stop("orphan").unwrap();
    assert_eq!(bench.executor.wait("orphan").await.unwrap().exit, Exit::Code(6));
    assert_eq!(bench.messages("orphan"), ["stopped"]);
}

#[test]
fn a_stop_reaches_a_job_of_an_earlier_server() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new();
    runtime().block_on(async {
        let mut ready = bench.signal("ready");
        bench.executor.start(&bench.spec("long", "echo > ready; exec sleep 1000")).await.unwrap();
        ready.line().await;
    });
    let executor = bench.restarted();
    runtime().block_on(async {
        executor.stop("long").unwrap();
        assert_eq!(executor.wait("long").await.unwrap().exit, Exit::Signal(15));
    });
}

#[tokio::test]
async fn a_job_does_not_outlive_its_supervisor() {
    let bench = Bench::new();
    for (id, make) in both_ways() {
        let marker = unique_sleep();
        let mut ready = bench.signal(id);
        let script = format!("trap '' TERM; setsid sleep {marker} & echo > {id}; exec sleep {marker}");
        bench.executor.start(&make(&bench, id, &script)).await.unwrap();
        ready.line().await;
        // Killed before it has recorded the job, the supervisor would leave nothing to wait for.
        bench.job_pid(id);
        rustix::process::kill_process(bench.supervisor_pid(id), Signal::KILL).unwrap();
        let report = bench.executor.wait(id).await.unwrap();
        assert_eq!(report.exit, Exit::SupervisorLost, "{id}");
        assert_eq!(processes_with(&marker), Vec::<String>::new(), "{id}");
        assert_eq!(bench.restarted().wait(id).await.unwrap(), report);
    }
}

/// As bubblewrap's process in the new namespaces does, when bubblewrap is killed before it has let that go on.
#[tokio::test]
async fn what_waits_for_a_dead_maker_of_the_sandbox_is_ended() {
    let bench = Bench::new();
    let marker = unique_sleep();
    let mut ready = bench.signal("ready");
    let program = bench.root().join("waits");
    let ready_file = bench.ml().join("ready");
    let script = format!("#!/bin/sh\nexec sh -c 'echo > {}; exec sleep {marker}'\n", ready_file.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = ExecutorSettings { bubblewrap: program, ..ExecutorSettings::default() };
    let command = vec![supervisor_program(), "supervise".to_owned()];
    let executor = ProcessExecutor::new(&bench.root().join("workloads"), command, settings).unwrap();
    executor.start(&bench.spec("stuck", "true")).await.unwrap();
    ready.line().await;
    until_a_process_has(&marker);
    rustix::process::kill_process(bench.supervisor_pid("stuck"), Signal::KILL).unwrap();
    assert_eq!(executor.wait("stuck").await.unwrap().exit, Exit::SupervisorLost);
    assert_eq!(processes_with(&marker), Vec::<String>::new());
}

#[tokio::test]
async fn a_supervisor_killed_while_its_sandbox_is_made_leaves_nothing() {
    let bench = Bench::new();
    for round in 0..20 {
        let id = format!("killed-{round}");
        bench.executor.start(&bench.spec(&id, "exec sleep 1000")).await.unwrap();
        // bubblewrap and, from the moment at which it may be too early for both, the process that waits for it.
        let enough = 1 + round % 2;
        while making_sandboxes_below(bench.root()).len() < enough && bench.is_starting(&id) {}
        rustix::process::kill_process(bench.supervisor_pid(&id), Signal::KILL).unwrap();
        assert_eq!(bench.executor.wait(&id).await.unwrap().exit, Exit::SupervisorLost, "{id}");
        assert_eq!(making_sandboxes_below(bench.root()), Vec::<String>::new(), "{id}");
    }
}

#[tokio::test]
async fn a_sandbox_killed_from_outside_takes_the_job_with_it() {
    let bench = Bench::new();
    let marker = &unique_sleep();
    let mut ready = bench.signal("ready");
    bench.executor.start(&bench.spec("a", &format!("echo > ready; exec sleep {marker}"))).await.unwrap();
    ready.line().await;
    let pid = rustix::process::Pid::from_raw(bench.job_pid("a") as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let report = bench.executor.wait("a").await.unwrap();
    assert_eq!(report.exit, Exit::Signal(9));
    assert!(!report.stop_requested);
    assert_eq!(processes_with(marker), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_escapes_by_forking_away() {
    let bench = Bench::new();
    for (id, make) in both_ways() {
        let marker = unique_sleep();
        // Twice forked, in sessions of their own, deaf to signals, one with the job's output closed, one
        // holding it open.
        let script = format!(
            "(setsid sh -c \"trap '' TERM HUP; sleep {marker}; sleep {marker}\" </dev/null >/dev/null 2>&1 &)
             (setsid setsid sleep {marker} &)
             echo bye"
        );
        let (report, messages) = bench.run(&make(&bench, id, &script)).await;
        assert_eq!(report.exit, Exit::Code(0), "{id}: {messages:?}");
        assert_eq!(messages, ["bye"]);
        assert_eq!(processes_with(&marker), Vec::<String>::new(), "{id}");
    }
}

type MakeSpec = fn(&Bench, &str, &str) -> WorkloadSpec;

fn both_ways() -> [(&'static str, MakeSpec); 2] {
    [("confined", Bench::spec), ("plain", Bench::unconfined_spec)]
}
