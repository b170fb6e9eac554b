//! Held workloads: everything is ready, and the program runs only once it is let go.

use runner::{Executor, Exit};

use crate::bench::{Bench, making_sandboxes_below};

#[tokio::test]
async fn a_held_workload_runs_once_it_is_let_go() {
    let bench = Bench::new();
    bench.executor.hold(&bench.spec("held", "echo ran; exit 3")).await.unwrap();
    // Its first process is there, its locks are judged.
    bench.job_pid("held");
    assert!(bench.executor.containment("held").unwrap().is_some());
    assert!(bench.executor.is_held("held").unwrap());
    assert_eq!(bench.messages("held"), Vec::<String>::new());
    bench.executor.let_go("held").unwrap();
    assert!(!bench.executor.is_held("held").unwrap());
    assert!(bench.executor.let_go("held").is_err(), "once for good");
    bench.executor.wait_for_processes("held").await.unwrap();
    let report = bench.executor.wait("held").await.unwrap();
    assert_eq!(report.exit, Exit::Code(3));
    assert_eq!(bench.messages("held"), ["ran"]);
    bench.executor.wait_for_processes("held").await.unwrap();
}

#[tokio::test]
async fn a_workload_let_go_before_its_sandbox_is_there_runs_at_once() {
    let bench = Bench::new();
    bench.executor.hold(&bench.spec("hasty", "echo ran")).await.unwrap();
    bench.executor.let_go("hasty").unwrap();
    assert_eq!(bench.executor.wait("hasty").await.unwrap().exit, Exit::Code(0));
    assert_eq!(bench.messages("hasty"), ["ran"]);
}

#[tokio::test]
async fn a_program_may_start_while_it_is_held() {
    let bench = Bench::new();
    let mut begun = bench.signal("begun");
    let path = ("PYTHONPATH".to_owned(), "/first:/second".to_owned());
    let mut spec = bench.spec(
        "early",
        "echo \"$PYTHONPATH $MODELYARD_AWAITS_GO\"; echo > begun; head -c 1; exec < /dev/null; exit 3",
    );
    spec.environment.extend([path]);
    spec.starts_while_held = true;
    bench.executor.hold(&spec).await.unwrap();
    begun.line().await;
    assert!(bench.executor.is_held("early").unwrap());
    assert_eq!(bench.messages("early"), Vec::<String>::new());
    bench.executor.let_go("early").unwrap();
    assert_eq!(bench.executor.wait("early").await.unwrap().exit, Exit::Code(3));
    assert_eq!(bench.messages("early"), ["/first /first:/second", "g"]);

    // It is not a way around the hold: without the word, it ends.
    spec.id = "never".to_owned();
    let mut bench = bench;
    bench.executor.hold(&spec).await.unwrap();
    begun.line().await;
    bench.executor = bench.restarted();
    assert_eq!(bench.executor.wait("never").await.unwrap().exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_held_workload_ends_with_the_server_that_holds_it() {
    let mut bench = Bench::new();
    bench.executor.hold(&bench.spec("held", "echo ran")).await.unwrap();
    bench.job_pid("held");
    bench.executor = bench.restarted();
    let report = bench.executor.wait("held").await.unwrap();
    assert_eq!((report.exit, report.stop_requested), (Exit::Signal(9), true));
    assert_eq!(bench.messages("held"), Vec::<String>::new());
    assert!(bench.executor.is_held("held").unwrap(), "it was never let go");
    assert_eq!(making_sandboxes_below(bench.root()), Vec::<String>::new());
}

#[tokio::test]
async fn a_workload_that_was_let_go_outlives_the_server_that_held_it() {
    let mut bench = Bench::new();
    for id in ["ready", "starting"] {
        let mut begun = bench.signal(id);
        let spec = bench.spec(id, &format!("trap 'exit 6' TERM; echo > {id}; sleep 1000 & wait"));
        bench.executor.hold(&spec).await.unwrap();
        if id == "ready" {
            bench.job_pid(id);
        }
        bench.executor.let_go(id).unwrap();
        bench.executor = bench.restarted();
        begun.line().await;
        bench.executor.stop(id).unwrap();
        assert_eq!(bench.executor.wait(id).await.unwrap().exit, Exit::Code(6), "{id}");
    }
}

#[tokio::test]
async fn a_held_workload_can_be_stopped() {
    let bench = Bench::new();
    bench.executor.hold(&bench.spec("held", "echo ran")).await.unwrap();
    bench.job_pid("held");
    bench.executor.stop("held").unwrap();
    let report = bench.executor.wait("held").await.unwrap();
    assert_eq!((report.exit, report.stop_requested), (Exit::Signal(15), true));
    assert_eq!(bench.messages("held"), Vec::<String>::new());
}
