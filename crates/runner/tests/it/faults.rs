//! Faults of the disk and deaths at the supervisor's writes, where no client comes in a test's time.

use std::fs;
use std::path::Path;

use failpoint::Point;
use runner::{Executor, ExecutorSettings, Exit, ProcessExecutor};

use crate::bench::{Bench, processes_with, supervisor_program, unique_sleep};

/// An executor in the place of the bench's own, whose supervisors pass armed points.
pub fn faulty_executor(bench: &Bench, orders: &Path) -> ProcessExecutor {
    let armed = format!("{}={}", failpoint::VARIABLE, orders.display());
    let command = ["/usr/bin/env", &armed, &supervisor_program(), "supervise"].map(str::to_owned);
    ProcessExecutor::new(&bench.root().join("workloads"), command.to_vec(), ExecutorSettings::default())
        .unwrap()
}

pub fn arm(orders: &Path, point: Point, order: &str) {
    fs::write(orders.join(point.name()), order).unwrap();
}

pub fn was_hit(orders: &Path, point: Point) -> bool {
    orders.join(format!("{}.hit", point.name())).exists()
}

#[tokio::test]
async fn a_supervisor_killed_while_samples_begin_a_new_file_takes_its_job_along() {
    let (mut bench, orders) = (Bench::new(), tempfile::tempdir().unwrap());
    bench.executor = faulty_executor(&bench, orders.path());
    arm(orders.path(), Point::UsageRotate, "abort");
    let directory = bench.root().join("workloads/rotating");
    fs::create_dir(&directory).unwrap();
    // More than a day of samples.
    fs::write(directory.join("usage.jsonl"), "no sample\n".repeat(1_000_000)).unwrap();
    let marker = unique_sleep();
    let spec = bench.spec("rotating", &format!("sleep {marker}"));
    bench.executor.start(&spec).await.unwrap();
    let report = bench.executor.wait("rotating").await.unwrap();
    assert_eq!(report.exit, Exit::SupervisorLost);
    assert!(was_hit(orders.path(), Point::UsageRotate));
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert!(bench.executor.samples("rotating", 0).unwrap().samples.len() < 10);
}

#[tokio::test]
async fn a_log_that_takes_half_a_line_is_told_and_does_not_end_the_job() {
    let (mut bench, orders) = (Bench::new(), tempfile::tempdir().unwrap());
    bench.executor = faulty_executor(&bench, orders.path());
    arm(orders.path(), Point::JobLogWrite, "short");
    bench.executor.start(&bench.spec("cut", "echo a line that is cut; exit 3")).await.unwrap();
    let report = bench.executor.wait("cut").await.unwrap();
    assert_eq!(report.exit, Exit::Code(3));
    let error = report.log_error.unwrap();
    assert!(error.contains("could not be written to its end"), "{error}");
    let log = fs::read_to_string(bench.root().join("logs/cut")).unwrap();
    assert!(!log.is_empty() && !log.contains("is cut") && !log.ends_with('\n'), "{log:?}");
}

#[tokio::test]
async fn a_report_waits_for_room_on_the_disk() {
    let (mut bench, orders) = (Bench::new(), tempfile::tempdir().unwrap());
    bench.executor = faulty_executor(&bench, orders.path());
    arm(orders.path(), Point::WorkloadExit, "short");
    let (report, _) = bench.run(&bench.spec("patient", "exit 7")).await;
    assert_eq!(report.exit, Exit::Code(7));
    assert!(was_hit(orders.path(), Point::WorkloadExit));
    let left = fs::read_dir(bench.root().join("workloads/patient")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
}
