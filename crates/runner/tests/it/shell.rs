//! Commands inside a running sandbox: they have what the job has, and no more.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use runner::shell::{self, Request, Terminal};
use runner::{Executor, Exit, WorkloadSpec};

use crate::bench::{Bench, processes_with, unique_sleep};

/// Makes the description of a job from its id and script.
type Make = fn(&Bench, &str, &str) -> WorkloadSpec;

/// Says all that tells one confinement from another.
const FACTS: &str = "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; \
                     for n in user mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/limits; pwd; hostname; \
                     echo $SECRET; cat /proc/self/cgroup";

/// Runs a command in the job's sandbox with `input`; its end, standard output and standard error.
fn run(bench: &Bench, id: &str, command: &[&str], input: &str) -> Result<(Exit, String, String), String> {
    let (input_reader, mut input_writer) = std::io::pipe().unwrap();
    let (mut output_reader, output_writer) = std::io::pipe().unwrap();
    let (mut error_reader, error_writer) = std::io::pipe().unwrap();
    let request =
        Request { command: command.iter().map(|word| (*word).to_owned()).collect(), terminal: None };
    let pipes = [input_reader.as_fd(), output_writer.as_fd(), error_writer.as_fd()];
    let mut session = shell::open(&bench.root().join("workloads").join(id), &request, &pipes)?;
    drop((input_reader, output_writer, error_writer));
    input_writer.write_all(input.as_bytes()).unwrap();
    drop(input_writer);
    let (mut output, mut error) = (String::new(), String::new());
    output_reader.read_to_string(&mut output).unwrap();
    error_reader.read_to_string(&mut error).unwrap();
    Ok((session.wait()?, output, error))
}

async fn running(bench: &Bench, id: &str, make: Make) -> Vec<String> {
    let mut ready = bench.signal(id);
    let mut spec = make(bench, id, &format!("{{ {FACTS}; }} > facts-{id}; echo > {id}; sleep 1000"));
    spec.environment = BTreeMap::from([("SECRET".to_owned(), "of the job".to_owned())]);
    spec.stop_grace_seconds = 1;
    bench.executor.start(&spec).await.unwrap();
    ready.line().await;
    let facts = std::fs::read_to_string(bench.ml().join(format!("facts-{id}"))).unwrap();
    facts.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shell_has_the_rights_of_the_job_and_no_more() {
    let bench = Bench::new();
    let both: [(&str, Make); 2] = [("confined", Bench::spec), ("plain", Bench::unconfined_spec)];
    for (id, make) in both {
        let facts = running(&bench, id, make).await;
        assert!(facts.len() > 20, "{facts:?}");
        // The shell of the sandbox itself reads commands when none is given.
        let (exit, output, error) = run(&bench, id, &[], FACTS).unwrap();
        assert_eq!((exit, error.as_str()), (Exit::Code(0), ""));
        assert_eq!(output.lines().collect::<Vec<_>>(), facts, "{id}");
        assert!(facts.iter().any(|line| line.split_whitespace().eq(["CapEff:", "0000000000000000"])));
        assert!(facts.iter().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])));
        bench.executor.kill(id).unwrap();
        bench.executor.wait(id).await.unwrap();
        let refused = run(&bench, id, &["true"], "").unwrap_err();
        assert!(refused.contains("has ended") || refused.contains("no running job"), "{refused}");
    }
}

#[tokio::test]
async fn exit_codes_signals_and_streams_come_back() {
    let bench = Bench::new();
    running(&bench, "job", Bench::spec).await;
    let script = "cat; echo out; echo err >&2; exit 7";
    let (exit, output, error) = run(&bench, "job", &["sh", "-c", script], "in\n").unwrap();
    assert_eq!((exit, output.as_str(), error.as_str()), (Exit::Code(7), "in\nout\n", "err\n"));
    let (exit, ..) = run(&bench, "job", &["sh", "-c", "kill -USR1 $$"], "").unwrap();
    assert_eq!(exit, Exit::Signal(10));
    let refused = run(&bench, "job", &["/no/such/program"], "").unwrap_err();
    assert!(refused.contains("/no/such/program"), "{refused}");
    // What a shell does is not in the job's log, and the job goes on.
    assert_eq!(bench.messages("job"), Vec::<String>::new());
    bench.executor.kill("job").unwrap();
    assert_eq!(bench.executor.wait("job").await.unwrap().exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_terminal_is_one_of_the_sandbox() {
    let bench = Bench::new();
    running(&bench, "job", Bench::spec).await;
    let terminal = Terminal { rows: 33, columns: 101, name: "xterm".to_owned() };
    let request = Request { command: Vec::new(), terminal: Some(terminal) };
    let mut session = shell::open(&bench.root().join("workloads/job"), &request, &[]).unwrap();
    let mut terminal = File::from(session.terminal.take().unwrap());
    terminal.write_all(b"tty; stty size; echo $TERM; jobs; exit 5\n").unwrap();
    let mut shown = Vec::new();
    // Ends with an error: the last process on the terminal is gone.
    let _ = terminal.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(session.wait(), Ok(Exit::Code(5)));
    assert!(shown.contains("/dev/pts/") && shown.contains("33 101") && shown.contains("xterm"), "{shown}");
    assert!(!shown.contains("no job control"), "{shown}");
    bench.executor.kill("job").unwrap();
    bench.executor.wait("job").await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_command_along() {
    let bench = Bench::new();
    running(&bench, "job", Bench::spec).await;
    let marker = unique_sleep();
    let (input_reader, input_writer) = std::io::pipe().unwrap();
    let (mut output_reader, output_writer) = std::io::pipe().unwrap();
    let script = format!("trap '' HUP; echo started; sleep {marker}");
    let request = Request { command: ["sh", "-c", &script].map(str::to_owned).to_vec(), terminal: None };
    let pipes = [input_reader.as_fd(), output_writer.as_fd(), output_writer.as_fd()];
    let session = shell::open(&bench.root().join("workloads/job"), &request, &pipes).unwrap();
    drop((input_reader, output_writer));
    let mut line = [0; 8];
    output_reader.read_exact(&mut line).unwrap();
    drop((session, input_writer));
    // The pipe ends when the last process that holds it does.
    output_reader.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    bench.executor.kill("job").unwrap();
    bench.executor.wait("job").await.unwrap();
}

#[tokio::test]
async fn a_shell_ends_with_the_job() {
    let bench = Bench::new();
    running(&bench, "job", Bench::spec).await;
    let (input_reader, _input_writer) = std::io::pipe().unwrap();
    let (mut output_reader, output_writer) = std::io::pipe().unwrap();
    let request = Request { command: vec!["cat".to_owned()], terminal: None };
    let pipes = [input_reader.as_fd(), output_writer.as_fd(), output_writer.as_fd()];
    let mut session = shell::open(&bench.root().join("workloads/job"), &request, &pipes).unwrap();
    drop(output_writer);
    bench.executor.kill("job").unwrap();
    bench.executor.wait("job").await.unwrap();
    output_reader.read_to_end(&mut Vec::new()).unwrap();
    assert!(session.wait().unwrap_err().contains("has ended"));
}
