//! A launcher that runs model hosts, and servers as they are in containers, as plain child processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serving::{BoxFuture, ExitText, LaunchError, Launcher, Protocol, ReplicaSpec};
use tokio::sync::watch;

#[derive(Default)]
pub struct LocalLauncher {
    children: Mutex<BTreeMap<String, Child>>,
    launches: watch::Sender<Vec<ReplicaSpec>>,
}

struct Child {
    pid: Pid,
    protocol: Protocol,
    exit: watch::Receiver<Option<ExitText>>,
}

/// What these tests put into a plan as launch payload.
pub fn payload(model_dir: &Path) -> serde_json::Value {
    serde_json::json!({ "model_dir": model_dir })
}

fn model_dir(replica: &ReplicaSpec) -> Result<&str, LaunchError> {
    let own = replica.part.map(|part| &replica.launch["parts"][part as usize]);
    own.unwrap_or(&replica.launch["model_dir"]).as_str().ok_or(LaunchError("no model_dir".into()))
}

/// Whether the folder is of a model, or of many that come and go.
fn models_flag(replica: &ReplicaSpec) -> &'static str {
    match replica.launch["many_models"].as_bool() {
        Some(true) => "--models-dir",
        _ => "--model-dir",
    }
}

fn host(replica: &ReplicaSpec) -> Result<(Command, Protocol), LaunchError> {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let mut command = Command::new("python3");
    command
        .args(["-m", "model_host", "--workers", &replica.workers.to_string()])
        .args([models_flag(replica), model_dir(replica)?])
        .args(["--model-timeout-seconds", &replica.model_timeout_seconds.to_string()])
        .arg("--socket")
        .arg(&replica.socket)
        .env("PYTHONPATH", python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    if replica.standby {
        command.arg("--standby");
    }
    let variables = replica.launch["environment"].as_object().into_iter().flatten();
    command.envs(variables.filter_map(|(name, value)| Some((name, value.as_str()?))));
    Ok((command, Protocol::Frames))
}

/// The server listens at a port that the system picks, as nothing keeps it apart from others here.
fn container(replica: &ReplicaSpec) -> Result<(Command, Protocol), LaunchError> {
    let failed = |error: std::io::Error| LaunchError(error.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/container.py"))
        .arg(&replica.socket)
        .arg(model_dir(replica)?)
        .stdin(Stdio::from(OwnedFd::from(listener)));
    Ok((command, Protocol::Http { port }))
}

impl LocalLauncher {
    fn child(&self, id: &str) -> Option<(Pid, watch::Receiver<Option<ExitText>>)> {
        self.children.lock().unwrap().get(id).map(|child| (child.pid, child.exit.clone()))
    }

    fn spawn(&self, replica: &ReplicaSpec) -> Result<(), LaunchError> {
        let is_container = replica.launch["container"].as_bool().unwrap_or_default();
        let (mut command, protocol) = if is_container { container(replica)? } else { host(replica)? };
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| LaunchError(error.to_string()))?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = watch::channel(None);
        std::thread::spawn(move || {
            let mut log_tail: Vec<String> = Vec::new();
            // The pipe ends when the host and all its workers have.
            for line in BufReader::new(child.stderr.take().unwrap()).lines() {
                log_tail.push(line.unwrap_or_default());
            }
            let summary = child.wait().unwrap().to_string();
            sender.send_replace(Some(ExitText { summary, log_tail }));
        });
        self.children.lock().unwrap().insert(replica.id.clone(), Child { pid, protocol, exit });
        self.launches.send_modify(|launches| launches.push(replica.clone()));
        Ok(())
    }

    /// What has been launched so far, once it is as many.
    pub async fn launches(&self, count: usize) -> Vec<ReplicaSpec> {
        self.launches.subscribe().wait_for(|launches| launches.len() >= count).await.unwrap().clone()
    }

    /// The process of a host: the parent of its workers.
    pub fn pid(&self, id: &str) -> i32 {
        self.child(id).unwrap().0.as_raw_pid()
    }

    /// Kills a host and its workers, as a failing machine would.
    pub fn kill(&self, id: &str) {
        let (pid, _) = self.child(id).unwrap();
        kill_process_group(pid, Signal::KILL).unwrap();
    }
}

impl Launcher for LocalLauncher {
    fn launch<'a>(&'a self, replica: &'a ReplicaSpec) -> BoxFuture<'a, Result<(), LaunchError>> {
        Box::pin(async move { self.spawn(replica) })
    }

    fn protocol(&self, id: &str) -> Protocol {
        self.children.lock().unwrap().get(id).map_or(Protocol::Frames, |child| child.protocol)
    }

    fn can_stand_by(&self, id: &str) -> bool {
        self.protocol(id) == Protocol::Frames
    }

    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText> {
        Box::pin(async move {
            let Some((_, mut exit)) = self.child(id) else {
                return ExitText { summary: "it is not known".into(), log_tail: Vec::new() };
            };
            let exit = exit.wait_for(Option::is_some).await.unwrap();
            exit.clone().unwrap()
        })
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some((pid, _)) = self.child(id) else { return };
            let _ = kill_process(pid, Signal::TERM);
            if tokio::time::timeout(Duration::from_secs(2), self.exited(id)).await.is_err() {
                let _ = kill_process_group(pid, Signal::KILL);
                self.exited(id).await;
            }
        })
    }

    fn running(&self) -> Vec<String> {
        let children = self.children.lock().unwrap();
        let running = children.iter().filter(|(_, child)| child.exit.borrow().is_none());
        running.map(|(id, _)| id.clone()).collect()
    }
}

impl Drop for LocalLauncher {
    fn drop(&mut self) {
        for id in self.running() {
            self.kill(&id);
        }
    }
}

/// For `Arc<LocalLauncher>` where the trait object is asked for.
pub fn as_launcher(launcher: &Arc<LocalLauncher>) -> Arc<dyn Launcher> {
    Arc::clone(launcher) as Arc<dyn Launcher>
}
