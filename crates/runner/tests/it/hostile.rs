//! Jobs that mean harm: each is contained, and said so.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use runner::limits::{Judge, Limited};
use runner::{
    Access, Executor, Exit, ExitReport, LimitEvent, Limits, Lock, Mount, Network, WorkloadSpec, archive,
};

use crate::bench::{Bench, is_root, processes_with, unique_sleep};

/// How soon the harm must be over.
const CONTAINED_WITHIN: Duration = Duration::from_secs(2);
const MIB: u64 = 1024 * 1024;

/// Everything that is only tried, in one sandbox for each kind of network.
#[tokio::test]
async fn nothing_is_reached_from_inside() {
    let bench = Bench::new();
    for folder in ["other", "data"] {
        fs::create_dir(bench.root().join(folder)).unwrap();
    }
    fs::write(bench.root().join("other/secret"), "of another job").unwrap();
    fs::write(bench.root().join("data/part-1"), "rows").unwrap();
    fs::write(bench.ml().join("probes.py"), include_str!("probes.py")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let abstract_name = unique_sleep();
    let _abstract_listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
    let mut tried = BTreeSet::new();
    let shared = Network::Peers { place: bench.root().join("network") };
    let networks = [
        ("isolated", "isolated", Network::None),
        ("peers", "isolated", shared),
        ("open", "open", Network::Host),
    ];
    for (id, kind, network) in networks {
        let root = bench.root().display().to_string();
        let mut spec = WorkloadSpec {
            command: ["python3", "/opt/ml/probes.py", kind, &root, &port, &abstract_name]
                .map(str::to_owned)
                .to_vec(),
            network,
            ..bench.spec(id, "")
        };
        spec.limits.open_files = Some(256);
        spec.mounts.push(Mount {
            source: bench.root().join("data"),
            target: "/opt/ml/input".into(),
            access: Access::ReadOnly,
        });
        let messages = bench.run_well(&spec).await;
        let broken: Vec<&String> = messages.iter().filter(|line| !line.ends_with(" contained")).collect();
        assert_eq!(broken, Vec::<&String>::new(), "{id}");
        tried.extend(messages);
    }
    assert!(tried.len() >= 120, "only {} probes ran", tried.len());
}

/// Runs a job that must end by itself, soon after it has said that it begins.
async fn run_contained(bench: &Bench, spec: &WorkloadSpec) -> ExitReport {
    bench.executor.start(spec).await.unwrap();
    let report = bench.executor.wait(&spec.id).await.unwrap();
    let took = Duration::from_millis(report.ended_at_ms - report.started_at_ms);
    assert!(took < CONTAINED_WITHIN * 2, "{}: {took:?}", spec.id);
    report
}

/// A Python program as a job.
fn python(bench: &Bench, id: &str, program: &str, limits: Limits) -> WorkloadSpec {
    let command = ["python3", "-c", program].map(str::to_owned).to_vec();
    WorkloadSpec { command, limits, ..bench.spec(id, "") }
}

fn ended_by(report: &ExitReport, limited: Limited) -> &LimitEvent {
    assert_eq!(report.exit, Exit::Signal(9), "{report:?}");
    let event = report.limit_events.iter().find(|event| event.limited == limited);
    event.unwrap_or_else(|| panic!("{limited:?} is not told: {report:?}"))
}

/// Whether the kernel keeps this limit here, or the supervisor has to.
fn judge(report: &ExitReport, lock: Lock) -> Judge {
    let held = report.containment.locks.iter().any(|report| report.lock == lock && report.held);
    if held { Judge::Kernel } else { Judge::Supervisor }
}

#[tokio::test]
async fn endless_allocation_ends_the_job_alone() {
    let bench = Bench::new();
    let program =
        "import time\nheld = []\nwhile True:\n  held.append(bytearray(8_000_000)); time.sleep(0.01)";
    let limits = Limits { memory_bytes: Some(150 * MIB), ..Limits::default() };
    let report = run_contained(&bench, &python(&bench, "greedy", program, limits)).await;
    let event = ended_by(&report, Limited::Memory);
    assert_eq!((event.limit, event.ended_job), (150 * MIB, true));
    assert_eq!(event.judge, judge(&report, Lock::CgroupMemory));
}

#[tokio::test]
async fn files_in_memory_count_as_memory() {
    let bench = Bench::new();
    let program = "import time\nfile = open('/dev/shm/x', 'wb')\nwhile True:\n  file.write(bytes(8_000_000)); \
                   file.flush(); time.sleep(0.01)";
    let limits = Limits { memory_bytes: Some(150 * MIB), ..Limits::default() };
    let (report, messages) = {
        let spec = python(&bench, "shared", program, limits);
        (run_contained(&bench, &spec).await, bench.messages("shared"))
    };
    // Either the memory is used up, or the file system in it is full first.
    if report.exit == Exit::Code(1) {
        assert!(messages.iter().any(|line| line.contains("No space left")), "{messages:?}");
    } else {
        ended_by(&report, Limited::Memory);
    }
}

#[tokio::test]
async fn a_fork_bomb_stays_small_and_goes_at_once() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let program = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n  try:\n    \
                   os.fork()\n  except OSError:\n    \
                   handle = os.open('/opt/ml/ready', os.O_WRONLY | os.O_NONBLOCK)\n    \
                   os.write(handle, b'full\\n'); os.close(handle)\n    signal.pause()";
    let limits = Limits { processes: Some(40), ..Limits::default() };
    bench.executor.start(&python(&bench, "bomb", program, limits)).await.unwrap();
    ready.line().await;
    let running = processes_with("os.fork").len();
    assert!(running <= 60, "{running} processes");
    let killed_at = Instant::now();
    bench.executor.kill("bomb").unwrap();
    let report = bench.executor.wait("bomb").await.unwrap();
    assert!(killed_at.elapsed() < CONTAINED_WITHIN, "{:?}", killed_at.elapsed());
    assert_eq!(processes_with("os.fork"), Vec::<String>::new());
    if judge(&report, Lock::CgroupProcesses) == Judge::Kernel {
        let event = report.limit_events.iter().find(|event| event.limited == Limited::Processes).unwrap();
        assert!(event.count > 0 && !event.ended_job, "{event:?}");
    }
}

#[tokio::test]
async fn a_job_that_fills_the_disk_is_ended() {
    let bench = Bench::new();
    let program = "import itertools, time\nfor n in itertools.count():\n  \
                   open(f'/opt/ml/{n}', 'wb').write(bytes(4_000_000)); time.sleep(0.01)";
    let limits = Limits { disk_bytes: Some(60_000_000), ..Limits::default() };
    let report = run_contained(&bench, &python(&bench, "filler", program, limits)).await;
    let event = ended_by(&report, Limited::Disk);
    assert_eq!((event.limit, event.judge), (60_000_000, Judge::Supervisor));
}

#[tokio::test]
async fn one_file_cannot_pass_the_limit_of_the_disk() {
    let bench = Bench::new();
    let program = "import os\nos.truncate(os.open('/opt/ml/x', os.O_CREAT | os.O_RDWR), 60_000_001)";
    let limits = Limits { disk_bytes: Some(60_000_000), ..Limits::default() };
    let spec = python(&bench, "large", program, limits);
    let (report, messages) = bench.run(&spec).await;
    assert_eq!(report.exit, Exit::Code(1), "{report:?}");
    assert!(messages.iter().any(|line| line.contains("File too large")), "{messages:?}");
}

#[tokio::test]
async fn endless_output_counts_as_disk() {
    let bench = Bench::new();
    let limits = Limits { disk_bytes: Some(20_000_000), ..Limits::default() };
    let spec =
        WorkloadSpec { limits, ..bench.spec("loud", "exec yes 'a line that is repeated without end'") };
    let report = run_contained(&bench, &spec).await;
    ended_by(&report, Limited::Disk);
    let size = fs::metadata(bench.root().join("logs/loud")).unwrap().len();
    assert!(size < 400_000_000, "{size} bytes");
}

#[tokio::test]
async fn a_job_without_the_required_locks_does_not_run() {
    let bench = Bench::new();
    let mut spec = bench.spec("open", "touch /opt/ml/ran");
    spec.required_locks = vec![Lock::PidNamespace, Lock::NetworkNamespace];
    let (report, _) = bench.run(&spec).await;
    let Exit::LaunchFailed(text) = &report.exit else { panic!("{report:?}") };
    assert!(text.contains("network_namespace (the job uses the host's network)"), "{text}");
    assert!(!text.contains("pid_namespace"), "{text}");
    assert!(!bench.ml().join("ran").exists());
    let mut closed = bench.spec("closed", "touch /opt/ml/ran");
    closed.network = Network::None;
    closed.required_locks = spec.required_locks;
    bench.run_well(&closed).await;
    assert!(bench.ml().join("ran").exists());
}

#[tokio::test]
async fn the_locks_are_told_while_the_job_runs_and_after() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    bench.executor.start(&bench.spec("a", "echo > ready; exec sleep 1000")).await.unwrap();
    ready.line().await;
    let told = bench.executor.containment("a").unwrap().unwrap();
    bench.executor.kill("a").unwrap();
    let report = bench.executor.wait("a").await.unwrap();
    assert_eq!(told, report.containment);
    let held = |lock| told.locks.iter().any(|report| report.lock == lock && report.held);
    assert_eq!(told.locks.len(), Lock::ALL.len());
    for lock in [
        Lock::MountNamespace,
        Lock::PidNamespace,
        Lock::IpcNamespace,
        Lock::UtsNamespace,
        Lock::NoCapabilities,
        Lock::NoNewPrivileges,
        Lock::Seccomp,
        Lock::Landlock,
    ] {
        assert!(held(lock), "{lock}: {told:?}");
    }
    assert_eq!(held(Lock::JobUser), is_root());
    assert_eq!(held(Lock::UserNamespace), !is_root());
    assert!(!held(Lock::NetworkNamespace));
    assert!(bench.executor.containment("nobody").unwrap().is_none());
}

#[tokio::test]
async fn a_plain_process_reads_only_what_is_its_own() {
    let bench = Bench::new();
    // Folders that every user of the host may list.
    let script =
        "ls / /var /var/lib /run 2>/dev/null; echo x > x && cat x && python3 -c 'print(1)' && echo 2";
    assert_eq!(bench.run_well(&bench.unconfined_spec("plain", script)).await, ["x", "1", "2"]);
}

#[tokio::test]
async fn what_a_job_leaves_is_packed_without_being_followed() {
    let bench = Bench::new();
    let secret = bench.root().join("secret");
    fs::write(&secret, "of the server").unwrap();
    let program = format!(
        "import os, socket\nos.mkdir('model'); os.chdir('model')\nopen('weights', 'w').write('1')\n\
         os.symlink('{}', 'link')\nos.symlink('/etc/passwd', 'passwd')\nos.symlink('/', 'root')\nos.mkfifo('pipe')\n\
         socket.socket(socket.AF_UNIX).bind('socket')\n\
         os.symlink('loop', 'loop')",
        secret.display()
    );
    let (report, messages) = bench.run(&python(&bench, "leaver", &program, Limits::default())).await;
    assert_eq!(report.exit, Exit::Code(0), "{messages:?}");
    let began_at = Instant::now();
    let mut packed = Vec::new();
    let made = archive::create_tar_gz(&bench.ml().join("model"), &mut packed, 1).unwrap();
    assert!(began_at.elapsed() < CONTAINED_WITHIN * 4, "{:?}", began_at.elapsed());
    let mut inner = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut inner).unwrap();
    let holds = |text: &str| inner.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("weights") && !holds("of the server") && !holds("root:x:"), "{:?}", made.warnings);
}

#[tokio::test]
async fn a_file_swapped_for_a_link_while_it_is_packed_gives_nothing_away() {
    let bench = Bench::new();
    let secret = bench.root().join("secret");
    fs::write(&secret, "of the server").unwrap();
    let model = bench.ml().join("model");
    fs::create_dir(&model).unwrap();
    let file = model.join("weights");
    fs::write(&file, "1").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (link, plain) = (model.join(".link"), model.join(".plain"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::os::unix::fs::symlink(&secret, &link).unwrap();
                fs::rename(&link, &file).unwrap();
                fs::File::create(&plain).unwrap().write_all(b"1").unwrap();
                fs::rename(&plain, &file).unwrap();
            }
        });
        for _ in 0..200 {
            let mut packed = Vec::new();
            // A file that changes under the packer may be an error; what must not be is in the archive.
            let _ = archive::create_tar_gz(&model, &mut packed, 0);
            let mut inner = Vec::new();
            let _ = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut inner);
            assert!(!String::from_utf8_lossy(&inner).contains("of the server"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[tokio::test]
async fn a_job_deaf_to_signals_with_hidden_children_goes_with_a_kill() {
    let bench = Bench::new();
    let marker = &unique_sleep();
    let mut ready = bench.signal("ready");
    let script = format!(
        "trap '' TERM INT HUP QUIT; for n in 1 2 3 4 5; do setsid sh -c \"trap '' TERM; sleep {marker}\" & done
         echo > ready; sleep {marker}"
    );
    bench.executor.start(&bench.spec("deaf", &script)).await.unwrap();
    ready.line().await;
    let killed_at = Instant::now();
    bench.executor.kill("deaf").unwrap();
    bench.executor.wait("deaf").await.unwrap();
    assert!(killed_at.elapsed() < CONTAINED_WITHIN);
    assert_eq!(processes_with(marker), Vec::<String>::new());
}
