//! `modelyard jobs shell`: a shell, or one command, inside the sandbox of a running job.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use runner::oci::session as container_session;
use runner::shell::{self, Request, Session, Terminal};
use runner::workload::Exit;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};

use super::client::Client;
use super::job_kind::JobKind;
use crate::config::variable;

/// Flags of `modelyard jobs shell`.
#[derive(clap::Args)]
pub struct Flags {
    /// Name of the job
    name: String,
    /// Its kind, where jobs of several kinds have the name
    #[arg(long, value_enum)]
    kind: Option<JobKind>,
    /// The host, where the job has several [default: algo-1]
    #[arg(long)]
    host: Option<String>,
    /// A command instead of a shell, for example: -- ps -ef
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the command; the exit code is that of what ran in the job.
///
/// # Errors
/// Why no shell can be had.
pub fn open(data_dir: &Path, flags: &Flags) -> Result<ExitCode, String> {
    let client = Client::open(data_dir)?;
    let mut input = JobKind::own_input(&flags.name, flags.kind);
    if let Some(host) = &flags.host {
        input["Host"] = host.as_str().into();
    }
    let allowed = super::block_on(async { Ok(client.call("Modelyard.OpenShell", &input).await?) })?;
    let workload = allowed["Workload"].as_str().unwrap_or_default();
    let directory = data_dir.join("workloads").join(workload);
    let on_terminal = isatty(io::stdin()) && isatty(io::stdout());
    if let Some(mut command) = container_session(&directory, &flags.command, on_terminal)
        .map_err(|error| format!("{} cannot be read: {error}", directory.display()))?
    {
        let status =
            command.status().map_err(|error| format!("the container's engine cannot be run: {error}"))?;
        return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
    }
    let ended = if on_terminal { terminal(&directory, flags) } else { pipes(&directory, flags) };
    Ok(match ended? {
        Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(number) => ExitCode::from(u8::try_from(128 + number).unwrap_or(1)),
        _ => ExitCode::FAILURE,
    })
}

/// On a terminal of the sandbox, to which this one is joined.
fn terminal(directory: &Path, flags: &Flags) -> Result<Exit, String> {
    let text = |error: io::Error| format!("the terminal cannot be used: {error}");
    let size = tcgetwinsize(io::stdin()).map_err(|error| text(error.into()))?;
    let name = variable("TERM").unwrap_or_else(|| "xterm".into());
    let terminal = Terminal { rows: size.ws_row, columns: size.ws_col, name };
    let request = Request { command: flags.command.clone(), terminal: Some(terminal) };
    let mut session = shell::open(directory, &request, &[])?;
    let handle = session.terminal.take().ok_or("the job gave no terminal")?;
    let mut output = File::from(handle.try_clone().map_err(text)?);
    let mut input = File::from(handle.try_clone().map_err(text)?);
    follow_size(handle);
    let raw = RawMode::enter().map_err(text)?;
    // Waits for keys until the process ends.
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut input));
    // Ends with an error once nobody in the job holds the terminal.
    let _ = copy(&mut output, &mut io::stdout().lock());
    drop(raw);
    session.wait()
}

/// Passes changes of the window's size on, until the process ends.
fn follow_size(terminal: OwnedFd) {
    std::thread::spawn(move || {
        let followed = super::block_on(async {
            let mut changes = signal(SignalKind::window_change()).map_err(|error| error.to_string())?;
            while changes.recv().await.is_some() {
                if let Ok(size) = tcgetwinsize(io::stdin()) {
                    // It is a nicety; the shell goes on without.
                    let _ = tcsetwinsize(&terminal, size);
                }
            }
            Ok::<(), String>(())
        });
        drop(followed);
    });
}

/// This terminal without echo and signal keys: those are the other terminal's affair.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> io::Result<RawMode> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing better can be done when the terminal itself is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// On pipes made for it: the job must not get a file or terminal of this user in its hands.
fn pipes(directory: &Path, flags: &Flags) -> Result<Exit, String> {
    let text = |error: io::Error| format!("pipes cannot be made: {error}");
    let (input, mut to_job) = io::pipe().map_err(text)?;
    let (mut from_job, output) = io::pipe().map_err(text)?;
    let (mut errors_from_job, error) = io::pipe().map_err(text)?;
    let request = Request { command: flags.command.clone(), terminal: None };
    let mut session: Session =
        shell::open(directory, &request, &[input.as_fd(), output.as_fd(), error.as_fd()])?;
    drop((input, output, error));
    // Ends with the process, when the command needs no more input.
    std::thread::spawn(move || copy(&mut io::stdin().lock(), &mut to_job));
    let errors = std::thread::spawn(move || copy(&mut errors_from_job, &mut io::stderr().lock()));
    let copied = copy(&mut from_job, &mut io::stdout().lock());
    // A panic of the other thread has said what there is to say.
    let _ = errors.join();
    copied.map_err(|error| format!("the output cannot be written: {error}"))?;
    session.wait()
}

/// Copies until the end, each part at once: somebody is waiting for it.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
