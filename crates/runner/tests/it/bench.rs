//! What the tests of this crate share: an executor in a directory of its own, and ways to wait for what a job
//! does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use runner::{
    Access, Confinement, Executor, ExecutorSettings, Exit, ExitReport, Mount, Network, Observation,
    ProcessExecutor, WorkloadSpec,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// An executor with its files.
pub struct Bench {
    root: tempfile::TempDir,
    pub executor: ProcessExecutor,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("ml")).unwrap();
        let executor = executor(root.path());
        Self { root, executor }
    }

    /// An executor as a restarted server makes it.
    pub fn restarted(&self) -> ProcessExecutor {
        executor(self.root())
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Host side of the job's `/opt/ml`.
    pub fn ml(&self) -> PathBuf {
        self.root().join("ml")
    }

    /// A confined job that runs a shell script.
    pub fn spec(&self, id: &str, script: &str) -> WorkloadSpec {
        WorkloadSpec {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            working_directory: PathBuf::from("/opt/ml"),
            mounts: vec![Mount {
                source: self.ml(),
                target: PathBuf::from("/opt/ml"),
                access: Access::ReadWrite,
            }],
            feeds: Vec::new(),
            log_path: self.root().join("logs").join(id),
            time_limit_seconds: None,
            stop_grace_seconds: 60,
            network: Network::Host,
            ..WorkloadSpec::plain(id, Vec::new())
        }
    }

    /// The same job without a sandbox.
    pub fn unconfined_spec(&self, id: &str, script: &str) -> WorkloadSpec {
        // The job's user must reach its directory on the host.
        fs::set_permissions(self.root(), fs::Permissions::from_mode(0o755)).unwrap();
        WorkloadSpec {
            working_directory: self.ml(),
            mounts: vec![Mount { source: self.ml(), target: self.ml(), access: Access::ReadWrite }],
            confinement: Confinement::None,
            ..self.spec(id, script)
        }
    }

    /// Runs a job to its end and gives its report and its messages.
    pub async fn run(&self, spec: &WorkloadSpec) -> (ExitReport, Vec<String>) {
        self.executor.start(spec).await.unwrap();
        let report = self.executor.wait(&spec.id).await.unwrap();
        (report, self.messages(&spec.id))
    }

    /// Runs a job that is expected to end well, and gives its messages.
    pub async fn run_well(&self, spec: &WorkloadSpec) -> Vec<String> {
        let (report, messages) = self.run(spec).await;
        assert_eq!(report.exit, Exit::Code(0), "{messages:#?}");
        messages
    }

    /// What a job has logged so far.
    pub fn messages(&self, id: &str) -> Vec<String> {
        self.log(id).into_iter().map(|(_, text)| text).collect()
    }

    /// What a job has logged so far, with times.
    pub fn log(&self, id: &str) -> Vec<(u64, String)> {
        let text = fs::read_to_string(self.root().join("logs").join(id)).unwrap_or_default();
        text.lines()
            .map(|line| runner::log_line::decode(line).unwrap_or_else(|| panic!("bad line {line:?}")))
            .collect()
    }

    /// A FIFO that the job sees as `/opt/ml/NAME` and that the test can await.
    pub fn signal(&self, name: &str) -> Signal {
        let path = self.ml().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        Signal(pipe::OpenOptions::new().read_write(true).open_receiver(&path).unwrap())
    }

    /// The supervisor's pid.
    pub fn supervisor_pid(&self, id: &str) -> rustix::process::Pid {
        let attempt = fs::read(self.root().join("workloads").join(id).join("attempt.json")).unwrap();
        let attempt: serde_json::Value = serde_json::from_slice(&attempt).unwrap();
        rustix::process::Pid::from_raw(attempt["supervisor_pid"].as_i64().unwrap() as i32).unwrap()
    }

    /// Whether the job's first process is not there yet.
    pub fn is_starting(&self, id: &str) -> bool {
        matches!(self.executor.observe(id).unwrap(), Observation::Running { pid: None, .. })
    }

    /// The host pid of the first process in the job's sandbox.
    pub fn job_pid(&self, id: &str) -> u32 {
        // The supervisor learns the pid a moment after the job's first output.
        loop {
            match self.executor.observe(id).unwrap() {
                Observation::Running { pid: Some(pid), .. } => return pid,
                Observation::Running { pid: None, .. } => std::thread::yield_now(),
                other => panic!("the job should run: {other:?}"),
            }
        }
    }
}

impl Drop for Bench {
    /// A failed test leaves no job behind.
    fn drop(&mut self) {
        for id in self.executor.list().unwrap_or_default() {
            if let Ok(Observation::Running { .. }) = self.executor.observe(&id) {
                let _ = self.executor.kill(&id);
            }
        }
    }
}

/// Something a job says that a test waits for.
pub struct Signal(pipe::Receiver);

impl Signal {
    /// Waits for the job to write a line.
    pub async fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            match self.0.read_u8().await.unwrap() {
                b'\n' => return String::from_utf8(line).unwrap(),
                byte => line.push(byte),
            }
        }
    }
}

fn executor(root: &Path) -> ProcessExecutor {
    let command = vec![supervisor_program(), "supervise".to_owned()];
    ProcessExecutor::new(&root.join("workloads"), command, ExecutorSettings::default()).unwrap()
}

/// Names a copy of the supervisor's program, for a run by a user who may not see the build directory.
pub const SUPERVISOR_VARIABLE: &str = "RUNNER_TEST_SUPERVISOR";

/// The program that is the supervisor in these tests.
pub fn supervisor_program() -> String {
    #[expect(clippy::disallowed_methods, reason = "the test binary is its own main program")]
    std::env::var(SUPERVISOR_VARIABLE).unwrap_or_else(|_| env!("CARGO_BIN_EXE_runner-supervisor").to_owned())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A time for `sleep` that is long, and on no other process's command line.
pub fn unique_sleep() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("31536000.{}{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The pids of processes whose command line contains the marker.
pub fn processes_with(marker: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(marker)
        })
        .collect()
}

/// Returns once a process has the marker on its command line, which is empty for a moment while it becomes another program.
pub fn until_a_process_has(marker: &str) {
    while processes_with(marker).is_empty() {}
}

/// Processes whose environment says that they make a sandbox for a workload below `root`.
pub fn making_sandboxes_below(root: &Path) -> Vec<String> {
    let mark = format!("MODELYARD_WORKLOAD={}/", root.display());
    let entries =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_root = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).split('\0').any(|variable| variable.starts_with(&mark))
    };
    entries.filter(of_root).collect()
}
