//! Real containers: the contract of workloads through Podman, with an image made from a local file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use failpoint::Point;
use runner::limits::Limited;
use runner::locks::Lock;
use runner::oci::{
    self, Container, Door, Engine, EngineKind, EngineState, Limits, PullPolicy, SOCKETS_AT_ONCE, WayOut,
};
use runner::workload::{Access, Mount};
use runner::{Confinement, Executor, Exit, Network, Observation, WorkloadSpec};
use rustix::process::Signal;

use crate::bench::{Bench, unique_sleep};
use crate::faults::{arm, faulty_executor, was_hit};

const LIMIT: Duration = Duration::from_secs(60);

/// An engine whose storage is these tests' own, and stays for the next run.
fn engine() -> Engine {
    let storage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containers");
    let path = ["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(Into::into);
    let variables =
        [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut engine = Engine::named("podman", &path, variables.into())
        .expect("podman is installed (cargo xtask test does it)");
    for (option, folder) in [("--root", "storage"), ("--runroot", "run")] {
        engine.options.extend([option.to_owned(), storage.join(folder).display().to_string()]);
    }
    engine.runtime = Some("runc".to_owned());
    engine
}

/// An image with a shell and little else, as a user's own image would have been loaded; gives its name.
fn image(engine: &Engine, name: &str, changes: &[&str]) -> String {
    let name = format!("localhost/modelyard-test-{name}:1");
    if engine.call(&["image", "exists", &name], LIMIT).is_ok() {
        return name;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let shell = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    fs::copy(
        shell.expect("busybox-static is installed (cargo xtask test does it)"),
        root.join("bin/busybox"),
    )
    .unwrap();
    for applet in [
        "sh", "cat", "echo", "env", "id", "ls", "mkdir", "sleep", "tail", "touch", "true", "hostname",
        "chmod",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let archive = folder.path().join("root.tar");
    let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(packed.success());
    let mut words = vec!["import", "--quiet"];
    changes.iter().for_each(|change| words.extend(["--change", change]));
    let archive = archive.display().to_string();
    words.extend([archive.as_str(), &name]);
    engine.call(&words, LIMIT).unwrap();
    name
}

/// A job in a container: `sh -c SCRIPT`.
fn spec(bench: &Bench, id: &str, script: &str) -> WorkloadSpec {
    let engine = engine();
    let image = image(&engine, "plain", &[]);
    let container = Container {
        engine,
        image,
        entrypoint: Some(vec!["sh".to_owned(), "-c".to_owned()]),
        has_own_user: false,
        limits: Limits::default(),
        network: None,
        door: None,
    };
    WorkloadSpec {
        // The storage is shared, and names of containers with it.
        id: unique(bench, id),
        command: vec![script.to_owned()],
        working_directory: "/".into(),
        confinement: Confinement::Container(Box::new(container)),
        ..bench.spec(id, script)
    }
}

fn unique(bench: &Bench, id: &str) -> String {
    let folder = bench.root().file_name().unwrap().to_string_lossy();
    let folder: String = folder.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{id}-{folder}")
}

fn change(spec: &mut WorkloadSpec, change: impl FnOnce(&mut Container)) {
    let Confinement::Container(container) = &mut spec.confinement else { panic!("it is a container") };
    change(container);
}

/// Whether the engine knows the workload's container, in whatever state.
fn has_container(id: &str) -> bool {
    engine().call(&["container", "exists", &format!("modelyard-{id}")], LIMIT).is_ok()
}

/// Waits until the job says that it is there; one that ends before has failed.
async fn is_ready(bench: &Bench, ready: &mut crate::bench::Signal, id: &str) {
    tokio::select! {
        _ = ready.line() => {}
        report = bench.executor.wait(id) => panic!("{id} has ended: {report:?}"),
    }
}

/// Runs the job to its end and gives its exit and its messages.
async fn run(bench: &Bench, spec: &WorkloadSpec) -> (Exit, Vec<String>) {
    bench.executor.start(spec).await.unwrap();
    let report = bench.executor.wait(&spec.id).await.unwrap();
    let text = fs::read_to_string(&spec.log_path).unwrap_or_default();
    (report.exit, text.lines().map(|line| runner::log_line::decode(line).unwrap().1).collect())
}

#[tokio::test]
async fn a_container_gets_what_a_workload_is_promised() {
    let bench = Bench::new();
    let input = bench.root().join("channel");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.csv"), "1,2\n").unwrap();
    let mut spec = spec(
        &bench,
        "contract",
        "cat /opt/ml/input/data/train/a.csv; echo \"$SECRET\" $(hostname); ls /opt/ml/..; \
         touch /opt/ml/input/data/train/b 2>/dev/null || echo read-only; echo complaint >&2; \
         mkdir -p /opt/ml/model/deep; echo weights > /opt/ml/model/deep/model; chmod 600 /opt/ml/model/deep/model; exit 3",
    );
    spec.environment = BTreeMap::from([("SECRET".to_owned(), " s3cret = #1".to_owned())]);
    spec.mounts.push(Mount {
        source: input,
        target: "/opt/ml/input/data/train".into(),
        access: Access::ReadOnly,
    });
    let (exit, mut messages) = run(&bench, &spec).await;
    messages.sort_unstable();
    assert_eq!(exit, Exit::Code(3), "{messages:?}");
    assert_eq!(messages, [" s3cret = #1 algo-1", "1,2", "complaint", "ml", "read-only"]);
    let model = bench.ml().join("model/deep/model");
    assert_eq!(fs::read_to_string(&model).unwrap(), "weights\n");
    assert_eq!(fs::metadata(&model).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert!(!has_container(&spec.id));
}

#[tokio::test]
async fn an_image_of_another_user_can_write_and_its_files_come_back() {
    let bench = Bench::new();
    fs::create_dir(bench.ml().join("model")).unwrap();
    let mut spec = spec(&bench, "user", "id -u; echo x > /opt/ml/model/file; chmod 600 /opt/ml/model/file");
    let image = image(&engine(), "user", &["USER 1234:1234"]);
    let details =
        engine().ensure_image(&image, PullPolicy::Never, Path::new("/none"), &mut |_| {}).await.unwrap();
    assert_eq!(details.user.as_deref(), Some("1234:1234"));
    change(&mut spec, |container| (container.image, container.has_own_user) = (details.id, true));
    assert_eq!(run(&bench, &spec).await, (Exit::Code(0), vec!["1234".to_owned()]));
    let metadata = fs::metadata(bench.ml().join("model/file")).unwrap();
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn the_image_has_its_entry_point_and_no_network_when_isolated() {
    let bench = Bench::new();
    let mut spec = spec(&bench, "entry", "train");
    let entry = "ENTRYPOINT [\"/bin/sh\", \"-c\", \"echo \\\"$0 of $IMAGE\\\"; ls /sys/class/net\"]";
    let image = image(&engine(), "entry", &[entry, "ENV IMAGE=mine"]);
    change(&mut spec, |container| (container.image, container.entrypoint) = (image, None));
    spec.network = Network::None;
    let (exit, messages) = run(&bench, &spec).await;
    assert_eq!((exit, messages), (Exit::Code(0), vec!["train of mine".to_owned(), "lo".to_owned()]));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let bench = Bench::new();
    let mut no_program = spec(&bench, "no-program", "");
    change(&mut no_program, |container| container.entrypoint = None);
    no_program.command = vec!["train".to_owned()];
    let mut no_image = spec(&bench, "no-image", "true");
    change(&mut no_image, |container| container.image = "localhost/nothing:1".to_owned());
    let mut no_lock = spec(&bench, "no-lock", "true");
    no_lock.required_locks = vec![Lock::NoNewPrivileges, Lock::Landlock];
    let mut no_engine = spec(&bench, "no-engine", "true");
    change(&mut no_engine, |container| container.engine.program = "/nowhere/podman".into());
    let mut line_break = spec(&bench, "line-break", "true");
    line_break.environment.insert("NOTES".to_owned(), "a\nb".to_owned());
    for (spec, expected) in [
        (no_lock, "landlock (not for containers)"),
        (no_program, "\"train\": executable file not found"),
        (no_image, "localhost/nothing"),
        (line_break, "NOTES"),
    ] {
        let (exit, _) = run(&bench, &spec).await;
        let Exit::LaunchFailed(text) = &exit else { panic!("{}: {exit:?}", spec.id) };
        assert!(text.contains(expected), "{}: {text}", spec.id);
        assert!(!has_container(&spec.id));
    }
    let (exit, _) = run(&bench, &no_engine).await;
    assert!(
        matches!(&exit, Exit::LaunchFailed(text) if text.contains("/nowhere/podman is not there")),
        "{exit:?}"
    );
}

#[tokio::test]
async fn a_stop_is_a_signal_then_a_kill() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let polite =
        spec(&bench, "polite", "trap 'echo saving; exit 7' TERM; echo > /opt/ml/ready; sleep 1000 & wait");
    let mut deaf = spec(&bench, "deaf", "trap '' TERM; echo > /opt/ml/ready; sleep 1000");
    deaf.stop_grace_seconds = 1;
    for (spec, expected) in [(&polite, Exit::Code(7)), (&deaf, Exit::Signal(9))] {
        bench.executor.start(spec).await.unwrap();
        is_ready(&bench, &mut ready, &spec.id).await;
        let stopped_at = Instant::now();
        bench.executor.stop(&spec.id).unwrap();
        let report = bench.executor.wait(&spec.id).await.unwrap();
        assert_eq!(report.exit, expected, "{}", spec.id);
        assert!(report.stop_requested && stopped_at.elapsed() < Duration::from_secs(30));
        assert!(!has_container(&spec.id));
    }
    assert!(fs::read_to_string(&polite.log_path).unwrap().contains("saving"));
}

#[tokio::test]
async fn limits_hold_and_memory_that_ran_out_is_named() {
    let bench = Bench::new();
    let mut spec = spec(&bench, "memory", "exec tail /dev/zero");
    change(&mut spec, |container| {
        container.limits =
            Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), pids: Some(20), gpus: None };
    });
    bench.executor.start(&spec).await.unwrap();
    let report = bench.executor.wait(&spec.id).await.unwrap();
    assert_eq!(report.exit, Exit::Signal(Signal::KILL.as_raw()), "{report:?}");
    let event = report.limit_events.first().expect("the limit is named");
    assert_eq!((event.limited, event.limit, event.ended_job), (Limited::Memory, 64 << 20, true));
    let limits = report.containment.limits.unwrap();
    assert_eq!((limits.memory_bytes, limits.processes), (64 << 20, 20));
}

#[tokio::test]
async fn the_time_limit_ends_a_container() {
    let bench = Bench::new();
    let mut spec = spec(&bench, "late", "sleep 1000");
    spec.time_limit_seconds = Some(1);
    // The first process of a container ignores SIGTERM unless it asks for it.
    spec.stop_grace_seconds = 1;
    assert_eq!(run(&bench, &spec).await.0, Exit::TimeLimit);
    assert!(!has_container(&spec.id));
}

#[tokio::test]
async fn a_restarted_server_takes_a_container_up() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.ml().join("go"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let spec = spec(&bench, "long", "echo > /opt/ml/ready; read line < /opt/ml/go; echo \"$line\"; exit 5");
    bench.executor.start(&spec).await.unwrap();
    is_ready(&bench, &mut ready, &spec.id).await;
    let executor = bench.restarted();
    assert_eq!(executor.remove_stray_containers(&engine()).unwrap(), Vec::<String>::new());
    executor.start(&spec).await.unwrap();
    // The supervisor learns a moment after the first output who the job's first process is, and that is the real one.
    let pid = bench.job_pid(&spec.id);
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.starts_with("sh\0-c\0echo > /opt/ml/ready"), "{command:?}");
    fs::write(bench.ml().join("go"), "onwards\n").unwrap();
    assert_eq!(executor.wait(&spec.id).await.unwrap().exit, Exit::Code(5));
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_container() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let spec = spec(&bench, "orphan", &format!("echo > /opt/ml/ready; exec sleep {}", unique_sleep()));
    bench.executor.start(&spec).await.unwrap();
    is_ready(&bench, &mut ready, &spec.id).await;
    rustix::process::kill_process(bench.supervisor_pid(&spec.id), Signal::KILL).unwrap();
    let report = bench.executor.wait(&spec.id).await.unwrap();
    assert_eq!(report.exit, Exit::SupervisorLost);
    assert!(!has_container(&spec.id));
}

#[tokio::test]
async fn a_container_that_lost_all_its_watchers_is_removed_by_the_next_start() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let spec = spec(&bench, "stray", &format!("echo > /opt/ml/ready; exec sleep {}", unique_sleep()));
    bench.executor.start(&spec).await.unwrap();
    is_ready(&bench, &mut ready, &spec.id).await;
    let supervisor = bench.supervisor_pid(&spec.id);
    // Stopped first, so that none of the two can see the other die.
    let warden = warden_of(&spec.id);
    for pid in [warden, supervisor] {
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
    }
    for pid in [warden, supervisor] {
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    while matches!(rustix::process::test_kill_process(supervisor), Ok(())) {
        tokio::task::yield_now().await;
    }
    assert!(has_container(&spec.id), "it runs on, as after a crash of the machine's memory killer");
    // The server's own record of it is lost too.
    fs::remove_dir_all(bench.root().join("workloads").join(&spec.id)).unwrap();
    let executor = bench.restarted();
    assert_eq!(executor.remove_stray_containers(&engine()).unwrap(), std::slice::from_ref(&spec.id));
    assert!(!has_container(&spec.id));
    assert_eq!(executor.observe(&spec.id).unwrap(), Observation::Unknown);
}

/// The process between supervisor and container.
fn warden_of(id: &str) -> rustix::process::Pid {
    let is_warden = |pid: &str| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        command.contains("run-container\0") && command.contains(id)
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pid = pids.into_iter().find(|name| is_warden(name)).expect("the warden lives");
    rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap()
}

#[tokio::test]
async fn images_are_had_as_their_policy_says() {
    let engine = engine();
    let image = image(&engine, "plain", &[]);
    let none = Path::new("/none");
    for policy in [PullPolicy::Never, PullPolicy::Missing] {
        let details =
            engine.ensure_image(&image, policy, none, &mut |_| panic!("nothing is pulled")).await.unwrap();
        assert!(details.id.len() >= 64, "{details:?}");
    }
    let missing =
        engine.ensure_image("localhost/none:1", PullPolicy::Never, none, &mut |_| {}).await.unwrap_err();
    assert!(
        missing.0.contains("localhost/none:1") && missing.0.contains("pull policy is \"never\""),
        "{missing}"
    );
    let option = engine.ensure_image("--all", PullPolicy::Missing, none, &mut |_| {}).await.unwrap_err();
    assert!(option.0.contains("not the name of an image"), "{option}");
    // Nobody listens there: the pull fails without a network.
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("config.json");
    fs::write(&credentials, r#"{"auths":{"127.0.0.1:1":{"auth":"dXNlcjpzM2NyZXQ="}}}"#).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let mut lines = Vec::new();
    for policy in [PullPolicy::Missing, PullPolicy::Always] {
        let error = engine
            .ensure_image("127.0.0.1:1/none:1", policy, &credentials, &mut |line| lines.push(line.to_owned()))
            .await
            .unwrap_err();
        assert!(error.0.contains("127.0.0.1:1/none:1") && error.0.contains("cannot be reached"), "{error}");
        assert!(!error.0.contains("dXNlcjpzM2NyZXQ") && !error.0.contains("s3cret"), "{error}");
    }
    assert!(!lines.is_empty() && !lines.concat().contains("dXNlcjpzM2NyZXQ"), "{lines:?}");
}

#[test]
fn an_engine_is_tried_not_trusted() {
    let report = oci::probe(&engine(), &[]);
    assert_eq!(report.state, EngineState::Works, "{}", report.detail);
    assert!(
        report.detail.contains("Podman") && report.detail.contains("runs containers"),
        "{}",
        report.detail
    );
    let broken = Engine { runtime: Some("/bin/false".to_owned()), ..engine() };
    assert_eq!(oci::probe(&broken, &[]).state, EngineState::Broken);
    let absent = Engine { kind: EngineKind::Docker, program: "/nowhere/docker".into(), ..engine() };
    let report = oci::probe(&absent, &[]);
    assert!(
        report.state == EngineState::Broken && report.detail.contains("/nowhere/docker"),
        "{}",
        report.detail
    );
    let images = engine()
        .command()
        .args(["images", "--format", "{{.Repository}}"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&images.stdout).contains("modelyard-probe"),
        "nothing of the probe stays"
    );
}

#[tokio::test]
async fn a_warden_killed_before_its_container_is_made_leaves_none() {
    let (mut bench, orders) = (Bench::new(), tempfile::tempdir().unwrap());
    bench.executor = faulty_executor(&bench, orders.path());
    arm(orders.path(), Point::ContainerNote, "abort");
    let spec = spec(&bench, "unmade", "echo never");
    let (exit, messages) = run(&bench, &spec).await;
    assert!(matches!(exit, Exit::LaunchFailed(_)) && messages.is_empty(), "{exit:?} {messages:?}");
    assert!(was_hit(orders.path(), Point::ContainerNote));
    assert!(!has_container(&spec.id));
}

/// Takes sockets from a door, once it is open.
fn sockets(door: &Path) -> Vec<std::os::fd::OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let Ok(client) = std::os::unix::net::UnixStream::connect(door) else { return Vec::new() };
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(&client, buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(handles) => Some(handles),
        _ => None,
    });
    messages.flatten().collect()
}

/// What a server in the container answers to a request over a socket of its door; `None` while nobody listens.
fn answer_of(socket: std::os::fd::OwnedFd) -> Option<String> {
    use std::io::{Read, Write};
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 8080);
    rustix::net::connect(&socket, &address).ok()?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Some(text)
}

#[tokio::test]
async fn a_door_leads_into_the_container_and_out_to_the_server() {
    let bench = Bench::new();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let inside = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9123);
    // The door opens a moment after the container starts.
    let script =
        "until busybox nc 127.0.0.1 9123 < /page; do sleep 0.1; done; exec busybox httpd -f -p 8080 -h /";
    let mut spec = spec(&bench, "door", &format!("echo word > /page; {script}"));
    spec.network = Network::None;
    let folder = bench.root().join("d".repeat(120));
    fs::create_dir(&folder).unwrap();
    let socket = folder.join("door.sock");
    let way_out = Some(WayOut { inside, server: address });
    change(&mut spec, |container| {
        container.door = Some(Door { socket: socket.clone(), way_out });
    });
    bench.executor.start(&spec).await.unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut client, &mut text).unwrap();
        text
    });
    assert_eq!(said.await.unwrap(), "word\n");
    // The path is longer than a socket's address may be.
    let short = bench.root().join("short");
    std::os::unix::fs::symlink(&folder, &short).unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        loop {
            let found = sockets(&short.join("door.sock"));
            assert!(found.is_empty() || found.len() == SOCKETS_AT_ONCE);
            if let Some(text) = found.into_iter().find_map(answer_of) {
                return text;
            }
            std::thread::yield_now();
        }
    });
    let text = asked.await.unwrap();
    assert!(text.contains("200 OK") && text.ends_with("word\n"), "{text}");
    bench.executor.kill(&spec.id).unwrap();
    bench.executor.wait(&spec.id).await.unwrap();
    assert!(!has_container(&spec.id));
    let mut shared = spec.clone();
    shared.id = unique(&bench, "door-of-the-host");
    shared.network = Network::Host;
    let (exit, _) = run(&bench, &shared).await;
    assert!(matches!(&exit, Exit::LaunchFailed(text) if text.contains("a network of its own")), "{exit:?}");
}
