//! One instance of a function: a sandboxed process that waits for invocations at the other end of a socket.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runner::Limited;
use runner::workload::{
    Access, Confinement, Exit, ExitReport, JobUser, Mount, Network, Observation, WorkloadSpec,
};
use serde::{Deserialize, Serialize};
use store::resources::{Resource, ResourceKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use super::record::{Settings, log_group};
use super::{LATEST, code, pool};
use crate::app::App;
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// The program inside the sandbox, embedded so that one binary is all there is to install.
const PROGRAM: &str = include_str!("../../../../python/function_host/function_host.py");
/// Where the sandbox shows the program and the socket.
const HOST_TARGET: &str = "/run/function";
/// Where the sandbox shows the package.
const TASK_TARGET: &str = "/var/task";
/// How long a function may take to be imported.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an instance lives at most; its credentials live longer.
pub const LONGEST_LIFE: Duration = Duration::from_secs(6 * 3600);
/// Longest time of the invocation that it is in when its life is over.
const LONGEST_INVOCATION_SECONDS: u64 = 1800;
/// Lifetime of its credentials.
const CREDENTIALS_SECONDS: i64 = 12 * 3600;
/// Longest answer of the program.
const MOST_FRAME_BYTES: u32 = 32 * 1024 * 1024;
/// Lines of the log that stand for what an invocation that did not come to its end has written.
const TAIL_LINES: usize = 20;

/// One instance, which runs one invocation at a time.
pub struct Host {
    /// Id of its workload.
    pub id: String,
    /// Since when it lives.
    pub started: Instant,
    app: Arc<App>,
    stream: UnixStream,
    log: JobLog,
    directory: PathBuf,
    /// Whether it is left alone when the server goes: what it runs happens once.
    is_left: bool,
}

/// One invocation as the program gets it.
#[derive(Serialize)]
pub struct Call<'a> {
    /// Id of the invocation.
    pub request_id: &'a str,
    /// ARN of the function.
    pub function_arn: &'a str,
    /// Longest time.
    pub timeout_seconds: u64,
    /// The event as JSON text.
    pub payload: &'a str,
    /// What the caller says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_context: Option<serde_json::Value>,
    /// Name under which the program keeps that it has begun, and its answer: it goes on without a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<&'a str>,
}

/// What the program answers.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Whether the function returned; otherwise the payload is its error.
    pub ok: bool,
    /// JSON text.
    pub payload: String,
    /// The end of what was written meanwhile, in base64.
    pub log: String,
    /// Whether the process ends now, since it could not import the function.
    #[serde(default)]
    pub last: bool,
}

/// Why there is no answer; the instance is no good any more.
#[derive(Debug)]
pub enum Lost {
    /// It took too long.
    TimedOut,
    /// The process ended.
    Ended(Box<ExitReport>),
    /// It ran out of memory.
    OutOfMemory,
    /// It broke the protocol, or could not be started; a text for people.
    Broken(String),
}

impl Host {
    /// Starts an instance and waits until the function is imported.
    pub async fn start(app: &Arc<App>, function: &Resource, settings: &Settings) -> Result<Host, Lost> {
        let id = format!("{}{}", pool::PREFIX, uuid::Uuid::new_v4().simple());
        let directory = pool::folder(&app.config).join(&id);
        match Host::launch(app, function, settings, &id, &directory).await {
            Ok(host) => Ok(host),
            Err(lost) => {
                end(app.clone(), id, directory);
                Err(lost)
            }
        }
    }

    async fn launch(
        app: &Arc<App>,
        function: &Resource,
        settings: &Settings,
        id: &str,
        directory: &Path,
    ) -> Result<Host, Lost> {
        let key = &function.key;
        let group = log_group(&key.name);
        let stream = log_stream(app.clock.now_ms(), id);
        let text = |error: &dyn std::fmt::Display| Lost::Broken(error.to_string());
        let log_path = app.logs.ensure_stream(&key.account, &key.region, &group, &stream).await;
        let log_path = log_path.map_err(|error| text(&error))?;
        let log = JobLog::new(app, &key.account, &key.region, &group, &stream);
        let profile = app.catalogue.resolve(&format!("public.ecr.aws/lambda/python:{}", settings.python));
        let profile = profile.map_err(|error| text(&error))?;
        let task = unpacked(app, key, directory).await.map_err(Lost::Broken)?;
        // The package brings what it needs: its requirements.txt is nothing to install, as in the service.
        let nothing = directory.join("none");
        let environment =
            workloads::environment(app, &profile, &nothing, &log).await.map_err(Lost::Broken)?;
        let front = directory.join("front");
        let listener = listen(&front).await.map_err(|error| text(&error))?;

        let mut variables = variables(app, function, settings);
        variables.insert("AWS_LAMBDA_LOG_GROUP_NAME".into(), group);
        variables.insert("AWS_LAMBDA_LOG_STREAM_NAME".into(), stream);
        let hook = variables.get("PYTHONPATH").cloned().unwrap_or_default();
        variables.insert("PYTHONPATH".into(), format!("{TASK_TARGET}:{hook}"));
        variables.insert("PATH".into(), workloads::path_with(&environment));
        let mut mounts = workloads::shared_mounts(app, &environment);
        mounts.push(mount(&task, TASK_TARGET, Access::ReadOnly));
        mounts.push(mount(&front, HOST_TARGET, Access::ReadWrite));
        let spec = WorkloadSpec {
            command: vec![
                environment.python.display().to_string(),
                format!("{HOST_TARGET}/function_host.py"),
                format!("{HOST_TARGET}/socket"),
            ],
            environment: variables,
            working_directory: PathBuf::from(TASK_TARGET),
            mounts,
            log_path,
            time_limit_seconds: Some(LONGEST_LIFE.as_secs() + LONGEST_INVOCATION_SECONDS),
            network: Network::Host,
            user: JobUser::Unprivileged,
            confinement: Confinement::Bubblewrap,
            hostname: "function".into(),
            limits: runner::Limits {
                memory_bytes: Some(settings.memory_mib * 1024 * 1024),
                processes: Some(1024),
                ..runner::Limits::default()
            },
            required_locks: app.config.required_locks.clone(),
            ..WorkloadSpec::plain(id, Vec::new())
        };
        app.executor.start(&spec).await.map_err(|error| text(&error))?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.map_err(|error| text(&error))?,
            ended = app.executor.wait(id) => return Err(ended_with(ended)),
            () = tokio::time::sleep(INIT_TIMEOUT) => return Err(Lost::TimedOut),
        };
        let mut host = Host {
            id: id.to_owned(),
            started: Instant::now(),
            app: app.clone(),
            stream: accepted.0,
            log,
            directory: directory.to_owned(),
            is_left: false,
        };
        // The package is imported meanwhile.
        host.frame(INIT_TIMEOUT).await?;
        Ok(host)
    }

    /// Runs one invocation. After an error the instance is no good any more.
    pub async fn run(&mut self, call: &Call<'_>) -> Result<Answer, Lost> {
        let bytes = serde_json::to_vec(call).map_err(|error| Lost::Broken(error.to_string()))?;
        let length = u32::try_from(bytes.len()).map_err(|error| Lost::Broken(error.to_string()))?;
        let limit = Duration::from_secs(call.timeout_seconds);
        let sent = async {
            self.stream.write_all(&length.to_be_bytes()).await?;
            self.stream.write_all(&bytes).await
        };
        if tokio::time::timeout(limit, sent).await.is_ok_and(|sent| sent.is_err()) {
            return Err(self.ending().await);
        }
        let answer = self.frame(limit).await?;
        read_answer(&answer)
    }

    /// Sets whether the process goes on when the server goes.
    pub fn leave(&mut self, is_left: bool) {
        self.is_left = is_left;
    }

    /// Whether the process is still there, as far as the socket tells.
    pub fn is_alive(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The end of its log.
    pub async fn log_tail(&self) -> Vec<String> {
        self.log.tail(TAIL_LINES).await
    }

    /// Writes a line to its log.
    pub async fn log_line(&self, text: &str) {
        self.log.line(text).await;
    }

    async fn frame(&mut self, limit: Duration) -> Result<Vec<u8>, Lost> {
        let reading = async {
            let length = self.stream.read_u32().await?;
            if length > MOST_FRAME_BYTES {
                return Err(std::io::Error::other("its answer is too long"));
            }
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await?;
            Ok(bytes)
        };
        match tokio::time::timeout(limit, reading).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Other => {
                Err(Lost::Broken(error.to_string()))
            }
            Ok(Err(_)) => Err(self.ending().await),
            Err(_) => Err(Lost::TimedOut),
        }
    }

    /// How the process ends that has closed its socket; one that lives on without it is ended.
    async fn ending(&self) -> Lost {
        let grace = Duration::from_secs(2);
        if let Ok(ended) = tokio::time::timeout(grace, self.app.executor.wait(&self.id)).await {
            return ended_with(ended);
        }
        Lost::Broken("the function closed the connection to the runtime".into())
    }
}

impl Drop for Host {
    /// Nobody else knows the process: it goes with its owner.
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        end(self.app.clone(), self.id.clone(), self.directory.clone());
    }
}

/// An answer of the program.
///
/// # Errors
/// [`Lost::Broken`] for anything else.
pub fn read_answer(bytes: &[u8]) -> Result<Answer, Lost> {
    serde_json::from_slice(bytes).map_err(|error| Lost::Broken(format!("the runtime answers oddly: {error}")))
}

/// Where the program puts what it keeps.
pub fn kept_folder(app: &App, id: &str) -> PathBuf {
    pool::folder(&app.config).join(id).join("front")
}

/// How a process was lost that has ended.
pub fn ended_with(ended: Result<ExitReport, runner::executor::Error>) -> Lost {
    match ended {
        Ok(report) if report.limit_events.iter().any(|event| event.limited == Limited::Memory) => {
            Lost::OutOfMemory
        }
        Ok(ExitReport { exit: Exit::LaunchFailed(text), .. }) => Lost::Broken(text),
        Ok(report) => Lost::Ended(Box::new(report)),
        Err(error) => Lost::Broken(error.to_string()),
    }
}

/// Ends a process and removes what it leaves, in the background.
fn end(app: Arc<App>, id: String, directory: PathBuf) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move { pool::remove(&app, &id, &directory).await });
}

fn variables(
    app: &App,
    function: &Resource,
    settings: &Settings,
) -> std::collections::BTreeMap<String, String> {
    let key = &function.key;
    let role_arn = Some(settings.role_arn.as_str());
    let identity = JobIdentity {
        account: &key.account,
        region: &key.region,
        role_arn,
        session_tags: wire::SessionTags::default(),
    };
    let mut variables = workloads::connection_environment(app, identity, CREDENTIALS_SECONDS);
    let own_path =
        settings.variables.iter().find(|(name, _)| name == "PYTHONPATH").map(|(_, path)| path.clone());
    variables.extend(settings.variables.iter().filter(|(name, _)| name != "PYTHONPATH").cloned());
    let hook = variables.get("PYTHONPATH").cloned().unwrap_or_default();
    let path = own_path.map_or_else(|| hook.clone(), |own| format!("{own}:{hook}"));
    let more = [
        ("PYTHONPATH", path),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("_HANDLER", settings.handler.clone()),
        ("LAMBDA_TASK_ROOT", TASK_TARGET.to_owned()),
        ("LAMBDA_RUNTIME_DIR", HOST_TARGET.to_owned()),
        ("AWS_EXECUTION_ENV", format!("AWS_Lambda_python{}", settings.python)),
        ("AWS_LAMBDA_FUNCTION_NAME", key.name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", LATEST.to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", settings.memory_mib.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
    ];
    variables.extend(more.map(|(name, value)| (name.to_owned(), value)));
    variables
}

/// Unpacks the package of a function for one instance.
async fn unpacked(app: &App, key: &ResourceKey, directory: &Path) -> Result<PathBuf, String> {
    let wanted = key.clone();
    let package = app.database.read(move |session| session.function_package(&wanted)).await;
    let package = package.map_err(|error| error.to_string())?.ok_or("the function was deleted")?;
    let task = directory.join("task");
    let folder = task.clone();
    let unpacked = tokio::task::spawn_blocking(move || code::unpack(&package, &folder)).await;
    unpacked.map_err(|error| error.to_string())??;
    Ok(task)
}

/// Makes the folder that the sandbox gets, with the program, and listens there. The path of a socket may only be short: the folder
/// is named by its handle.
async fn listen(front: &Path) -> std::io::Result<UnixListener> {
    tokio::fs::create_dir_all(front).await?;
    tokio::fs::write(front.join("function_host.py"), PROGRAM).await?;
    let folder = std::fs::File::open(front)?;
    UnixListener::bind(format!("/proc/self/fd/{}/socket", folder.as_raw_fd()))
}

fn mount(source: &Path, target: &str, access: Access) -> Mount {
    Mount { source: source.to_owned(), target: PathBuf::from(target), access }
}

/// Name of the log stream of an instance: the day, the version, and what tells instances apart.
fn log_stream(now_ms: i64, id: &str) -> String {
    let day = time::OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000));
    let day = day.unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date();
    let (year, month, number) = (day.year(), u8::from(day.month()), day.day());
    format!("{year:04}/{month:02}/{number:02}/[{LATEST}]{}", id.trim_start_matches(pool::PREFIX))
}

/// Whether a workload is there and has not ended.
pub fn is_running(app: &App, id: &str) -> bool {
    matches!(app.executor.observe(id), Ok(Observation::Running { .. }))
}
