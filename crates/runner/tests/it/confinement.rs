//! What a job can and cannot see and do, probed from inside, for servers of root and of ordinary users.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use runner::sandbox::{SandboxState, probe};
use runner::{Access, Executor, ExecutorSettings, Exit, Mount, Network};

use crate::bench::{
    Bench, SUPERVISOR_VARIABLE, is_root, processes_with, supervisor_program, unique_sleep,
    until_a_process_has,
};

/// The user that stands for an ordinary one when the tests run as root.
const ORDINARY_UID: u32 = 64_123;

/// Root's servers use another user, ordinary ones a user namespace: what is proved for one says nothing of
/// the other.
#[test]
fn all_of_it_holds_for_an_ordinary_user_too() {
    if !is_root() {
        // Then the run at hand is that of an ordinary user.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let supervisor = copy(Path::new(&supervisor_program()), "supervisor");
    let temporary = directory.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    chown(&temporary, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            &ORDINARY_UID.to_string(),
            "--regid",
            &ORDINARY_UID.to_string(),
            "--clear-groups",
            "--",
        ])
        .arg(tests)
        .args(["confinement::", "hostile::", "usage::", "supervision::", "executor::a_plain_process"])
        .env(SUPERVISOR_VARIABLE, supervisor)
        .env("TMPDIR", &temporary)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}{}", String::from_utf8_lossy(&run.stderr));
    assert!(!text.contains("running 0 tests"), "{text}");
}

#[test]
fn this_machine_can_make_sandboxes() {
    let report = probe(&ExecutorSettings::default());
    assert_eq!(report.state, SandboxState::Works, "{}", report.detail);
    assert_eq!(report.remedy, None);
}

#[tokio::test]
async fn a_job_has_no_privileges_and_cannot_gain_any() {
    let bench = Bench::new();
    let script = "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Groups)' /proc/self/status | tr -d '\t '
                  umask; ulimit -c";
    let messages = bench.run_well(&bench.spec("a", script)).await;
    let zero = "0000000000000000";
    let mut expected: Vec<String> =
        ["Inh", "Prm", "Eff", "Amb"].map(|set| format!("Cap{set}:{zero}")).to_vec();
    expected.extend(["NoNewPrivs:1", "0022", "0"].map(str::to_owned));
    let found: Vec<String> = messages.iter().filter(|line| !line.starts_with("Groups")).cloned().collect();
    assert_eq!(found, expected);
    // An ordinary user's own group shows as the unmapped one inside its user namespace.
    let groups = messages.iter().find(|line| line.starts_with("Groups")).unwrap();
    assert!(!groups.contains(":0"), "{groups}");
}

#[tokio::test]
async fn a_job_runs_as_the_job_user_and_its_files_are_its_own() {
    let bench = Bench::new();
    let uid =
        if is_root() { ExecutorSettings::default().job_uid } else { rustix::process::geteuid().as_raw() };
    fs::write(bench.ml().join("given"), "from the server").unwrap();
    let script = "id -u; id -un; cat given; echo; echo changed > given
                  echo x > /dev/shm/x && echo x > ~/x && echo $HOME";
    let messages = bench.run_well(&bench.spec("a", script)).await;
    assert_eq!(messages, [&uid.to_string(), "job", "from the server", "/tmp/home"]);
    assert_eq!(fs::read_to_string(bench.ml().join("given")).unwrap(), "changed\n");
    assert_eq!(fs::metadata(bench.ml().join("given")).unwrap().uid(), uid);
}

#[tokio::test]
async fn the_system_is_read_only_and_so_are_read_only_mounts() {
    let bench = Bench::new();
    let data = bench.root().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("part-1"), "rows").unwrap();
    let mut spec = bench.spec(
        "a",
        "cat /opt/ml/input/part-1; echo
         for place in / /usr /etc /bin /lib /sys /proc /proc/sys/kernel/hostname /opt /opt/ml/input; do
           (echo x > $place/new) 2>/dev/null && echo wrote $place
         done
         (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote core_pattern
         (echo x > /opt/ml/input/part-1) 2>/dev/null && echo wrote input
         rm /opt/ml/input/part-1 2>/dev/null && echo removed input
         mount -o remount,rw /usr 2>/dev/null && echo remounted
         true",
    );
    spec.mounts.push(Mount {
        source: data.clone(),
        target: "/opt/ml/input".into(),
        access: Access::ReadOnly,
    });
    assert_eq!(bench.run_well(&spec).await, ["rows"]);
    assert_eq!(fs::read_to_string(data.join("part-1")).unwrap(), "rows");
}

#[tokio::test]
async fn a_job_sees_neither_the_host_nor_the_server_nor_other_jobs() {
    let bench = Bench::new();
    let mut ready = bench.signal("ready");
    let other = &unique_sleep();
    bench.executor.start(&bench.spec("other", &format!("echo > ready; exec sleep {other}"))).await.unwrap();
    ready.line().await;
    until_a_process_has(other);
    let root = bench.root().display().to_string();
    let script = format!(
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep {other}'
         [ $(ls -d /proc/[0-9]* | wc -l) -le 8 ] && echo few processes
         ls {root} /root /home /var/lib /etc/shadow /work 2>/dev/null
         cat /proc/1/environ 2>/dev/null
         ls /proc/1/fd 2>/dev/null
         kill -KILL 1 2>/dev/null; echo alive
         readlink /proc/self/fd/0
         ls /proc/self/fd | tr '\\n' ' '"
    );
    let messages = bench.run_well(&bench.spec("a", &script)).await;
    // 3 is the handle of the listing itself.
    assert_eq!(messages, ["0", "few processes", "alive", "/dev/null", "0 1 2 3 "]);
    bench.executor.kill("other").unwrap();
    bench.executor.wait("other").await.unwrap();
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let bench = Bench::new();
    let mut spec = bench.spec("a", "env | grep -v -E '^(PWD|OLDPWD|SHLVL|_)=' | sort");
    spec.environment.insert("NAME".to_owned(), "a value = with 'odd' \"marks\"".to_owned());
    spec.environment.insert("EMPTY".to_owned(), String::new());
    let messages = bench.run_well(&spec).await;
    let expected = [
        "EMPTY=",
        "HOME=/tmp/home",
        "LANG=C.UTF-8",
        "NAME=a value = with 'odd' \"marks\"",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn secrets_are_on_no_command_line() {
    let bench = Bench::new();
    let secret = "hunter2-on-no-command-line";
    let mut ready = bench.signal("ready");
    let mut spec = bench.spec("a", "echo $SECRET > ready; exec sleep 1000");
    spec.environment.insert("SECRET".to_owned(), secret.to_owned());
    bench.executor.start(&spec).await.unwrap();
    assert_eq!(ready.line().await, secret);
    assert_eq!(processes_with(secret), Vec::<String>::new());
    bench.executor.kill("a").unwrap();
    bench.executor.wait("a").await.unwrap();
}

#[tokio::test]
async fn names_of_hosts_are_known_and_the_network_can_be_cut() {
    let bench = Bench::new();
    let script = "hostname; getent hosts algo-7; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";
    let mut spec = bench.spec("cut", script);
    spec.network = Network::None;
    spec.hostname = "algo-7".to_owned();
    let messages = bench.run_well(&spec).await;
    assert_eq!(messages[0], "algo-7");
    assert!(messages[1].starts_with("127.0.0.1"), "{messages:?}");
    assert_eq!(messages[2..], ["lo"]);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!(
        "python3 -c 'import socket; socket.create_connection((\"localhost\", {port}), 5)' 2>/dev/null"
    );
    assert_eq!(bench.run(&bench.spec("open", &connect)).await.0.exit, Exit::Code(0));
    let mut closed = bench.spec("closed", &connect);
    closed.network = Network::None;
    assert_eq!(bench.run(&closed).await.0.exit, Exit::Code(1));
}

#[tokio::test]
async fn mounts_inside_mounts_leave_the_way_open() {
    let bench = Bench::new();
    let data = bench.root().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("part-1"), "rows").unwrap();
    let mut spec = bench
        .spec("a", "cat /opt/ml/input/data/train/part-1 && echo && echo x > /opt/ml/input/new && echo wrote");
    let target = "/opt/ml/input/data/train".into();
    spec.mounts.insert(0, Mount { source: data, target, access: Access::ReadOnly });
    assert_eq!(bench.run_well(&spec).await, ["rows", "wrote"]);
}

#[tokio::test]
async fn a_source_that_became_a_link_is_refused() {
    let bench = Bench::new();
    fs::remove_dir(bench.ml()).unwrap();
    let elsewhere = bench.root().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bench.ml()).unwrap();
    let (report, _) = bench.run(&bench.spec("a", "echo x > /opt/ml/x")).await;
    assert!(matches!(&report.exit, Exit::LaunchFailed(text) if text.contains("symbolic link")), "{report:?}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn data_the_job_may_not_read_is_named_before_the_start() {
    let bench = Bench::new();
    let data = bench.root().join("private");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let mut spec = bench.spec("a", "ls /data");
    spec.mounts.push(Mount { source: data, target: "/data".into(), access: Access::ReadOnly });
    let (report, _) = bench.run(&spec).await;
    if is_root() {
        assert!(matches!(&report.exit, Exit::LaunchFailed(text) if text.contains("chmod")), "{report:?}");
    } else {
        assert_eq!(report.exit, Exit::Code(0), "an ordinary user's job is that user");
    }
}
