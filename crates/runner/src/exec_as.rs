//! The first process inside a sandbox: gives up every privilege, runs the job's command, reports its end.
//!
//! It speaks with the supervisor over its standard input, a socket: lines of [`InitMessage`] go out, bytes
//! that let it go on or ask for an end come in, and the supervisor's death (an end of file) means a kill. The
//! job itself gets `/dev/null` instead. A byte that comes with a connection starts a [`crate::shell`] session for it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet};
use serde::{Deserialize, Serialize};

use crate::locks::landlock::{self, Places};
use crate::locks::{Lock, LockReport, namespaces, seccomp};
use crate::prepared::TASK;
use crate::shell;
use crate::supervisor::{close_inherited_handles, kill_all_descendants};
use crate::workload::{AWAITS_GO, Exit};

/// Name of the hidden sub-command whose body is [`exec_as`].
pub const SUBCOMMAND: &str = "exec-as";

/// What the supervisor sends when the job may run.
pub(crate) const GO: u8 = b'g';

/// What the supervisor sends when the job's program may start, up to the point where it waits for [`GO`].
pub(crate) const START: u8 = b'p';

/// What the supervisor sends with the connection of a client that wants a shell.
pub(crate) const SHELL: u8 = b'h';

/// Makes the kernel choose the job, not the server, when memory runs out.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// How the first process is to behave; passed on its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InitOptions {
    /// User and group to become; `None` keeps the present ones.
    pub user: Option<(u32, u32)>,
    /// Directory to create as the job's own home.
    pub home: Option<PathBuf>,
    /// There is no pid namespace: find and end all descendants.
    pub subreaper: bool,
    /// The command reads from its standard input what it is to do.
    pub awaits_task: bool,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Processes of the job's user, where no control group counts them.
    pub processes: Option<u64>,
    /// Size of the largest file.
    pub file_bytes: Option<u64>,
    /// CPUs to stay on, where no control group shares out their time.
    pub cpus: Option<u32>,
    /// Where the job may read and write.
    pub places: Places,
    /// The job's program and arguments.
    pub command: Vec<OsString>,
}

impl InitOptions {
    /// The arguments that follow the sub-command's name.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Some((uid, gid)) = self.user {
            arguments.extend(["--user".into(), format!("{uid}:{gid}").into()]);
        }
        if let Some(home) = &self.home {
            arguments.extend(["--home".into(), home.clone().into_os_string()]);
        }
        if self.subreaper {
            arguments.push("--subreaper".into());
        }
        if self.awaits_task {
            arguments.push("--await-task".into());
        }
        let cpus = self.cpus.map(u64::from);
        for (name, number) in [
            ("--open-files", self.open_files),
            ("--processes", self.processes),
            ("--file-bytes", self.file_bytes),
            ("--cpus", cpus),
        ] {
            if let Some(number) = number {
                arguments.extend([name.into(), number.to_string().into()]);
            }
        }
        for (name, paths) in [("--read", &self.places.read), ("--write", &self.places.write)] {
            for path in paths {
                arguments.extend([name.into(), path.clone().into_os_string()]);
            }
        }
        arguments.push("--".into());
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    fn from_arguments(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments;
        loop {
            let argument = arguments.next().ok_or("the arguments end before '--'")?;
            match argument.to_str() {
                Some("--user") => options.user = Some(parse_user(arguments.next().as_deref())?),
                Some("--home") => {
                    options.home = Some(arguments.next().ok_or("--home needs a directory")?.into())
                }
                Some("--subreaper") => options.subreaper = true,
                Some("--await-task") => options.awaits_task = true,
                Some("--open-files") => options.open_files = Some(parse_number(arguments.next().as_deref())?),
                Some("--processes") => options.processes = Some(parse_number(arguments.next().as_deref())?),
                Some("--file-bytes") => options.file_bytes = Some(parse_number(arguments.next().as_deref())?),
                Some("--cpus") => options.cpus = Some(parse_number(arguments.next().as_deref())?),
                Some("--read") => {
                    options.places.read.push(arguments.next().ok_or("--read needs a path")?.into());
                }
                Some("--write") => {
                    options.places.write.push(arguments.next().ok_or("--write needs a path")?.into());
                }
                Some("--") => break,
                _ => return Err(format!("unknown argument {}", argument.display())),
            }
        }
        options.command = arguments.collect();
        if options.command.is_empty() {
            return Err("there is no command after '--'".to_owned());
        }
        Ok(options)
    }
}

fn parse_number<N: std::str::FromStr>(argument: Option<&OsStr>) -> Result<N, String> {
    argument.and_then(|text| text.to_str()?.parse().ok()).ok_or_else(|| "a limit needs a number".to_owned())
}

fn parse_user(argument: Option<&OsStr>) -> Result<(u32, u32), String> {
    argument
        .and_then(|text| text.to_str()?.split_once(':'))
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)))
        .ok_or_else(|| "--user needs UID:GID".to_owned())
}

/// How far the first process is locked in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readiness {
    /// Its namespaces, by their names under `/proc/self/ns`.
    pub namespaces: BTreeMap<String, String>,
    /// The locks that it shut itself.
    pub locks: Vec<LockReport>,
}

/// What the first process tells the supervisor, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InitMessage {
    /// Privileges are given up and locks are shut; waiting for [`GO`].
    Ready(Readiness),
    /// All is ready, the command is being run.
    Running,
    /// Host pid of the job's first process; a sandbox tells it in its own way.
    Pid(u32),
    /// The command cannot be run, for this reason.
    Failed(String),
    /// The command has ended, with a code or by a signal.
    Ended(Exit),
}

impl InitMessage {
    /// The message as a line.
    pub fn encode(&self) -> String {
        match self {
            Self::Ready(readiness) => {
                // Strings, numbers and lists always serialize, on one line.
                format!("ready {}\n", serde_json::to_string(readiness).unwrap_or_default())
            }
            Self::Pid(pid) => format!("pid {pid}\n"),
            Self::Running => "running\n".to_owned(),
            Self::Failed(text) => format!("failed {}\n", text.replace('\n', " ")),
            Self::Ended(Exit::Signal(signal)) => format!("signal {signal}\n"),
            Self::Ended(Exit::Code(code)) => format!("code {code}\n"),
            Self::Ended(_) => "unknown\n".to_owned(),
        }
    }

    /// Reads one line; `None` if it is no message.
    pub fn decode(line: &str) -> Option<Self> {
        let line = line.trim_end_matches('\n');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => Some(Self::Ready(serde_json::from_str(rest).ok()?)),
            "running" => Some(Self::Running),
            "pid" => Some(Self::Pid(rest.parse().ok()?)),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "signal" => Some(Self::Ended(Exit::Signal(rest.parse().ok()?))),
            "code" => Some(Self::Ended(Exit::Code(rest.parse().ok()?))),
            _ => None,
        }
    }
}

/// Runs the job's command as the first process of its sandbox: the body of the hidden sub-command `exec-as`,
/// which must be given the arguments that follow the sub-command's name.
pub fn exec_as(arguments: impl Iterator<Item = OsString>) -> ! {
    // The job would inherit them in turn; the lock that says that its sandbox is being made is one of them.
    close_inherited_handles();
    let channel = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(channel) => UnixStream::from(channel),
        Err(_) => std::process::exit(1),
    };
    let exit = match InitOptions::from_arguments(arguments).and_then(|options| run(&options, &channel)) {
        Ok(exit) => exit,
        Err(text) => {
            say(&channel, &InitMessage::Failed(text));
            std::process::exit(1)
        }
    };
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        _ => 1,
    };
    say(&channel, &InitMessage::Ended(exit));
    std::process::exit(code)
}

fn run(options: &InitOptions, channel: &UnixStream) -> Result<Exit, String> {
    let namespaces = namespaces::own();
    drop_privileges(options).map_err(|error| format!("The job's privileges cannot be given up: {error}."))?;
    check_privileges(options)?;
    if let Some(home) = &options.home {
        match std::fs::create_dir(home) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("The home directory {} cannot be made: {error}.", home.display()));
            }
            _ => {}
        }
    }
    say(channel, &InitMessage::Ready(Readiness { namespaces, locks: shut_locks(options) }));
    let mut started = None;
    loop {
        match wait_for_word(channel) {
            Word::Go => break,
            // Where it fails, it does so again when it is let go, and that is told.
            Word::Start => started = spawn(options, Stdio::piped(), true).ok(),
            Word::End(exit) => return Ok(exit),
        }
    }
    // Said before, not after: the job may do anything, even end this process, once it is there. A failure
    // corrects it.
    say(channel, &InitMessage::Running);
    let mut child = match started {
        Some(mut waiting) => {
            if let Some(mut input) = waiting.stdin.take() {
                // If the program is gone, its end says so.
                let _ = input.write_all(&[GO]);
            }
            waiting
        }
        None => spawn(options, if options.awaits_task { Stdio::piped() } else { Stdio::null() }, false)?,
    };
    let pid = Pid::from_child(&child);
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| format!("The job's process cannot be watched: {error}."))?;
    let mut task_input = child.stdin.take();
    let requests =
        channel.try_clone().map_err(|error| format!("The control channel cannot be read: {error}."))?;
    std::thread::Builder::new()
        .name("requests".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            loop {
                let mut byte = [0];
                // The supervisor's end of file means that it died, and the job must not live without it.
                let signal = match shell::receive(&requests, &mut byte) {
                    Ok((1, _)) if byte == [b's'] => Signal::TERM,
                    Ok((1, connections)) if byte == [SHELL] => {
                        connections.into_iter().for_each(start_session);
                        continue;
                    }
                    Ok((1, tasks)) if byte == [TASK] => {
                        pass_task_on(task_input.take(), tasks);
                        continue;
                    }
                    _ => Signal::KILL,
                };
                // An error means that it has ended already.
                let _ = rustix::process::pidfd_send_signal(&handle, signal);
                if signal == Signal::KILL {
                    return;
                }
            }
        })
        .map_err(|error| format!("The control thread cannot be started: {error}."))?;

    let exit = wait_for(pid);
    if options.subreaper {
        kill_all_descendants();
    }
    exit
}

fn spawn(options: &InitOptions, input: Stdio, awaits_go: bool) -> Result<Child, String> {
    let program = &options.command[0];
    let mut command = Command::new(program);
    command.args(&options.command[1..]).stdin(input).process_group(0);
    if awaits_go {
        #[expect(clippy::disallowed_methods, reason = "the environment of this process is the job's")]
        let path = std::env::var_os("PYTHONPATH").unwrap_or_default();
        // Other places may be the job's own.
        let first = std::env::split_paths(&path).next().unwrap_or_default();
        command.env("PYTHONPATH", first).env(AWAITS_GO, path);
    }
    command
        .spawn()
        .map_err(|error| format!("The program {:?} cannot be run: {error}.", program.to_string_lossy()))
}

/// Writes the task to the job's process, which begins when it has read the end of it.
fn pass_task_on(input: Option<ChildStdin>, tasks: Vec<OwnedFd>) {
    if let Some(mut input) = input {
        for task in tasks {
            // If the process is gone, its end says so.
            let _ = io::copy(&mut File::from(task), &mut input);
        }
    }
}

/// Starts a session inside the sandbox. It has what this process has left: nothing but the job's own rights. Whoever reaps for
/// the job reaps it too.
fn start_session(connection: OwnedFd) {
    let mut command = Command::new("/proc/self/exe");
    command.arg(shell::SUBCOMMAND).stdin(Stdio::from(connection)).stdout(Stdio::null()).stderr(Stdio::null());
    // Where it fails, the connection closes, and the client says so.
    let _ = command.spawn();
}

/// Reaps whatever ends until the job's own process does.
fn wait_for(job: Pid) -> Result<Exit, String> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == job => {
                return Ok(match status.terminating_signal() {
                    Some(signal) => Exit::Signal(signal),
                    None => Exit::Code(status.exit_status().unwrap_or(1)),
                });
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("The job's process cannot be waited for: {error}.")),
        }
    }
}

/// Becomes the job's user without any way back.
fn drop_privileges(options: &InitOptions) -> io::Result<()> {
    // Both are only niceties, and may be denied inside containers.
    let _ = std::fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE);
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    for (resource, limit) in [
        (Resource::Nofile, options.open_files),
        (Resource::Nproc, options.processes),
        (Resource::Fsize, options.file_bytes),
    ] {
        let Some(limit) = limit else { continue };
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = hard.map_or(limit, |hard| hard.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    if let Some(cpus) = options.cpus {
        stay_on(cpus)?;
    }

    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::thread::set_no_new_privs(true)?;
    if options.subreaper {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    // This process has one thread yet, so what holds for the thread holds for the process.
    if let Some((uid, gid)) = options.user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    // The job runs as the same user: it must not trace this process or open its channel.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if !options.subreaper {
        // A change of user clears it; without the supervisor the sandbox must not live.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    Ok(())
}

/// Keeps this process on some of the CPUs that it may use now; which ones differs from job to job.
fn stay_on(count: u32) -> io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let first = std::os::unix::process::parent_id() as usize % all.len().max(1);
    let mut chosen = CpuSet::new();
    for cpu in all.iter().cycle().skip(first).take(all.len().min(count as usize)) {
        chosen.set(*cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &chosen)?)
}

/// Shuts the second locks, after the privileges are gone and before anything of the job runs.
fn shut_locks(options: &InitOptions) -> Vec<LockReport> {
    let user = match options.user {
        Some((uid, _)) => LockReport::held(Lock::JobUser, format!("user {uid}")),
        None => LockReport::missing(Lock::JobUser, "the job runs as the server's own user"),
    };
    let mut locks =
        vec![user, LockReport::held(Lock::NoCapabilities, ""), LockReport::held(Lock::NoNewPrivileges, "")];
    // This order, since the first needs system calls that the second refuses.
    locks.push(match landlock::engage(&options.places) {
        Ok(detail) => LockReport::held(Lock::Landlock, detail),
        Err(why) => LockReport::missing(Lock::Landlock, why),
    });
    locks.push(match seccomp::engage() {
        Ok(()) => LockReport::held(Lock::Seccomp, ""),
        Err(why) => LockReport::missing(Lock::Seccomp, why),
    });
    locks
}

/// Waits until the supervisor has put this process into its control group and judged the locks; if the job is to end
/// before it has begun, this is how.
fn wait_for_word(mut channel: &UnixStream) -> Word {
    loop {
        let mut byte = [0];
        match channel.read(&mut byte) {
            Ok(1) if byte == [GO] => return Word::Go,
            Ok(1) if byte == [START] => return Word::Start,
            Ok(1) if byte == [b's'] => return Word::End(Exit::Signal(Signal::TERM.as_raw())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Word::End(Exit::Signal(Signal::KILL.as_raw())),
        }
    }
}

/// What the supervisor says to a first process that is ready.
enum Word {
    Go,
    Start,
    End(Exit),
}

/// Makes sure, rather than trusting the steps, that nothing is left.
fn check_privileges(options: &InitOptions) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("The job would have kept {what}, so it was not started."));
    let capabilities = rustix::thread::capabilities(None).map_err(|error| error.to_string())?;
    if !(capabilities.effective | capabilities.permitted | capabilities.inheritable).is_empty() {
        return refuse("privileges of the system");
    }
    if !rustix::thread::no_new_privs().map_err(|error| error.to_string())? {
        return refuse("a way to gain privileges");
    }
    if let Some((uid, gid)) = options.user {
        let is_user = rustix::process::getuid().as_raw() == uid && rustix::process::geteuid().as_raw() == uid;
        let is_group =
            rustix::process::getgid().as_raw() == gid && rustix::process::getegid().as_raw() == gid;
        let groups = rustix::process::getgroups().map_err(|error| error.to_string())?;
        if !is_user || !is_group || !groups.is_empty() {
            return refuse("the identity of the server");
        }
    }
    Ok(())
}

fn say(mut channel: &UnixStream, message: &InitMessage) {
    // If nobody listens any more, the requests thread has seen it too and the job is on its way out.
    let _ = channel.write_all(message.encode().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_command_line() {
        let options = InitOptions {
            user: Some((64_000, 64_001)),
            home: Some(PathBuf::from("/tmp/home")),
            subreaper: true,
            awaits_task: true,
            open_files: Some(100),
            processes: Some(20),
            file_bytes: Some(u64::MAX),
            cpus: Some(2),
            places: Places { read: vec!["/".into()], write: vec!["/tmp".into(), "/opt/ml".into()] },
            command: vec!["sh".into(), "--".into(), "-c".into()],
        };
        assert_eq!(InitOptions::from_arguments(options.to_arguments().into_iter()), Ok(options));
        let plain = InitOptions { command: vec!["true".into()], ..InitOptions::default() };
        assert_eq!(InitOptions::from_arguments(plain.to_arguments().into_iter()), Ok(plain));
    }

    #[test]
    fn broken_command_lines_are_refused() {
        for arguments in [
            &["--user", "1", "--", "x"][..],
            &["true"],
            &["--"],
            &["--subreaper"],
            &["--user", "a:b", "--", "x"],
            &["--open-files", "many", "--", "x"],
        ] {
            assert!(
                InitOptions::from_arguments(arguments.iter().map(OsString::from)).is_err(),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn messages_survive_the_channel() {
        let readiness = Readiness {
            namespaces: [("pid".to_owned(), "pid:[1]".to_owned())].into(),
            locks: vec![LockReport::missing(Lock::Landlock, "line\nbreak")],
        };
        let messages = [
            InitMessage::Ready(readiness),
            InitMessage::Running,
            InitMessage::Pid(4711),
            InitMessage::Failed("no such file".to_owned()),
            InitMessage::Ended(Exit::Code(3)),
            InitMessage::Ended(Exit::Signal(9)),
        ];
        for message in messages {
            assert_eq!(InitMessage::decode(&message.encode()), Some(message));
        }
        assert_eq!(InitMessage::decode("signal x"), None);
    }
}
