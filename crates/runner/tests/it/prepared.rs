//! Workloads that are told late what they run.

use std::fs;

use runner::prepared::Task;
use runner::{Error, Executor, Exit, Network, Observation, WorkloadSpec};

use crate::bench::{Bench, is_root};

/// Says that it waits, and then what it was told; its folder takes nothing from it until then.
const SCRIPT: &str = "touch /opt/ml/too-early 2>/dev/null && echo tampered; echo . > /opt/ml/waits; \
                      cat > /tmp/task; echo told; cp /tmp/task /opt/ml/task; exec sleep $(cat /opt/ml/seconds)";

fn prepared(bench: &Bench, id: &str) -> WorkloadSpec {
    WorkloadSpec { log_path: "/dev/null".into(), time_limit_seconds: Some(100), ..bench.spec(id, SCRIPT) }
}

fn task(bench: &Bench, id: &str, time_limit_seconds: u64) -> Task {
    let mut wanted = bench.spec(id, "of the job");
    wanted.time_limit_seconds = Some(time_limit_seconds);
    wanted.stop_grace_seconds = 1;
    Task::of(&wanted)
}

#[tokio::test]
async fn a_prepared_workload_becomes_the_job_that_it_is_given() {
    let bench = Bench::new();
    let spec = prepared(&bench, "late");
    if !is_root() {
        let refused = bench.executor.prepare(&spec).await;
        assert!(matches!(refused, Err(Error::InvalidSpec(_))), "{refused:?}");
        return;
    }
    let mut waits = bench.signal("waits");
    bench.executor.prepare(&spec).await.unwrap();
    waits.line().await;
    assert!(bench.executor.awaits_task("late").unwrap());
    assert!(matches!(bench.executor.observe("late").unwrap(), Observation::Running { .. }));
    // Put there while it waits, as the server does.
    fs::write(bench.ml().join("seconds"), "0").unwrap();
    let task = task(&bench, "late", 50);
    bench.executor.assign("late", &task).unwrap();
    let report = bench.executor.wait("late").await.unwrap();
    assert_eq!(report.exit, Exit::Code(0), "{report:?}");
    assert_eq!(bench.messages("late"), ["told"]);
    let told: Task = serde_json::from_slice(&fs::read(bench.ml().join("task")).unwrap()).unwrap();
    assert_eq!(told, task);
    assert!(!bench.ml().join("too-early").exists());
    assert!(!bench.executor.awaits_task("late").unwrap());
    let known = bench.executor.spec("late").unwrap().unwrap();
    assert_eq!((known.time_limit_seconds, known.command), (Some(50), task.command.clone()));
    assert!(bench.executor.assign("late", &task).is_err(), "a task is given once");
}

#[tokio::test]
async fn the_time_limit_of_the_task_counts_from_its_beginning() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let mut waits = bench.signal("waits");
    fs::write(bench.ml().join("seconds"), "100").unwrap();
    bench.executor.prepare(&prepared(&bench, "limited")).await.unwrap();
    waits.line().await;
    bench.executor.assign("limited", &task(&bench, "limited", 1)).unwrap();
    let report = bench.executor.wait("limited").await.unwrap();
    assert_eq!(report.exit, Exit::TimeLimit);
    assert!(report.ended_at_ms - report.started_at_ms >= 1000, "{report:?}");
}

#[tokio::test]
async fn a_task_may_come_before_the_sandbox_and_its_messenger_may_die() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let _waits = bench.signal("waits");
    fs::write(bench.ml().join("seconds"), "0").unwrap();
    bench.executor.prepare(&prepared(&bench, "early")).await.unwrap();
    // What `assign` leaves when the server dies before it has woken the supervisor.
    let written = serde_json::to_vec(&task(&bench, "early", 50)).unwrap();
    fs::write(bench.root().join("workloads/early/task.json"), written).unwrap();
    assert!(!bench.restarted().awaits_task("early").unwrap());
    assert_eq!(bench.executor.wait("early").await.unwrap().exit, Exit::Code(0));
    // Its folder may be its own by the time that it begins.
    assert_eq!(bench.messages("early").last().map(String::as_str), Some("told"));
}

#[tokio::test]
async fn a_workload_that_waits_ends_by_its_own_limit_or_when_it_is_told() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let mut waits = bench.signal("waits");
    let short =
        WorkloadSpec { time_limit_seconds: Some(1), stop_grace_seconds: 1, ..prepared(&bench, "short") };
    bench.executor.prepare(&short).await.unwrap();
    bench.executor.wait("short").await.unwrap();
    waits.line().await;
    let isolated = WorkloadSpec { network: Network::None, ..prepared(&bench, "told") };
    bench.executor.prepare(&isolated).await.unwrap();
    waits.line().await;
    bench.executor.kill("told").unwrap();
    bench.executor.wait("told").await.unwrap();
    bench.executor.remove("told").unwrap();
    assert_eq!(bench.executor.observe("told").unwrap(), Observation::Unknown);
}
