//! Jobs' output on its way to the log.

use runner::Exit;

use crate::bench::Bench;

#[tokio::test]
async fn every_line_arrives_once_and_in_order() {
    let bench = Bench::new();
    let messages = bench.run_well(&bench.spec("a", "seq 1 100000")).await;
    let expected: Vec<String> = (1..=100_000).map(|number| number.to_string()).collect();
    assert!(messages == expected, "{} messages, ends {:?}", messages.len(), messages.last());
    let log = bench.log("a");
    assert!(log.is_sorted_by_key(|(timestamp_ms, _)| *timestamp_ms));
}

#[tokio::test]
async fn output_and_errors_share_one_order() {
    let bench = Bench::new();
    let messages = bench.run_well(&bench.spec("a", "echo one; echo two >&2; echo three")).await;
    assert_eq!(messages, ["one", "two", "three"]);
}

#[tokio::test]
async fn odd_bytes_become_readable_messages() {
    let bench = Bench::new();
    let script = r"printf 'bad \377\376 bytes\nback\\slash\n\r 50%%\r100%%\nwindows\r\n\nunfinished'";
    let messages = bench.run_well(&bench.spec("a", script)).await;
    let expected = ["bad \u{FFFD}\u{FFFD} bytes", r"back\slash", " 50%", "100%", "windows", "", "unfinished"];
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn a_line_is_logged_while_the_job_still_runs() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.ml().join("go"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let spec = bench.spec("a", "echo hello; echo > ready; read line < go");
    use runner::Executor;
    bench.executor.start(&spec).await.unwrap();
    ready.line().await;
    while bench.messages("a").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.messages("a"), ["hello"]);
    std::fs::write(bench.ml().join("go"), "\n").unwrap();
    assert_eq!(bench.executor.wait("a").await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_does_not_end_the_job() {
    let bench = Bench::new();
    let mut spec = bench.spec("a", "seq 1 100000; exit 3");
    std::fs::create_dir(bench.root().join("logs")).unwrap();
    spec.log_path = bench.root().join("logs");
    let (report, _) = bench.run(&bench.spec("b", "true")).await;
    assert_eq!(report.log_error, None);
    use runner::Executor;
    bench.executor.start(&spec).await.unwrap();
    let report = bench.executor.wait("a").await.unwrap();
    assert_eq!(report.exit, Exit::Code(3));
    assert!(report.log_error.unwrap().contains("cannot be opened"));
}

#[tokio::test]
async fn a_second_workload_appends_to_the_same_log() {
    let bench = Bench::new();
    let mut again = bench.spec("again", "echo two");
    let first = bench.spec("first", "echo one");
    again.log_path = first.log_path.clone();
    bench.run_well(&first).await;
    bench.run_well(&again).await;
    assert_eq!(bench.messages("first"), ["one", "two"]);
}
