//! Watches one running job: passes its output on, carries out stops and time limits, and finds out how it
//! ended.

mod end;
mod hold;
mod shells;
mod task;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use self::end::descendants_usage;
use self::hold::Hold;
use self::task::Waiting;
use super::directory::{
    Assignment, Attempt, EndRequest, ProcessIdentity, Running, WorkloadDirectory, now_ms,
};
use super::output::LogFile;
use super::watchdog::Watchdog;
use crate::cgroup::ControlGroup;
use crate::exec_as::{GO, InitMessage, Readiness};
use crate::feed::Feeds;
use crate::limits::LimitEvent;
use crate::locks::{LockReport, namespaces, unmet};
use crate::oci;
use crate::prepared::TASK;
use crate::sandbox::{JobPid, Launch, announced_pid};
use crate::usage::{Sampler, Subject};
use crate::workload::{Containment, Exit, ExitReport, WorkloadSpec};

/// How much of the job's output is taken at once; also the size asked for its pipe.
const OUTPUT_CHUNK_BYTES: usize = 1024 * 1024;
/// How long the first process in the sandbox has to carry out a kill before it is killed itself.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A launched job and all that is known about it so far.
pub(super) struct Watch<'a> {
    directory: &'a WorkloadDirectory,
    assignment: &'a Assignment,
    spec: &'a WorkloadSpec,
    attempt: Attempt,
    child: Child,
    child_handle: OwnedFd,
    /// Bytes from [`EndRequest::control_byte`].
    control: File,
    /// The first process inside the sandbox: says how the job does, is told to end it.
    init: UnixStream,
    init_text: Vec<u8>,
    init_has_closed: bool,
    /// Where the sandbox says the pid of its first process; `None` once it has.
    pid_announcement: Option<(File, Vec<u8>)>,
    /// The job's standard output and error; `None` once all its writers are gone.
    output: Option<File>,
    chunk: Vec<u8>,
    log: LogFile,
    group: &'a ControlGroup,
    watchdog: Watchdog,
    /// Begins when the job does.
    sampler: Option<Sampler>,
    containment: Containment,
    /// What the first process has said, as long as it waits to be let go on.
    readiness: Option<Readiness>,
    limit_event: Option<LimitEvent>,
    /// Where clients ask for a shell in the sandbox.
    shells: Option<UnixListener>,
    launched_at: Option<Instant>,
    /// Of a prepared workload, as long as it has no task.
    waiting: Option<Waiting>,
    /// Of a held workload, as long as its program does not run.
    hold: Option<Hold>,
    time_limit: Option<Duration>,
    stop_grace: Duration,
    launch_error: Option<String>,
    job_exit: Option<Exit>,
    /// Channels that the job reads as streams; `None` when none is left.
    feeds: Option<Feeds>,
    feed_error: Option<String>,
    ending: Ending,
    stop_requested: bool,
    time_is_up: bool,
}

/// How far the job is on its way out.
#[derive(Clone, Copy)]
enum Ending {
    NotAsked,
    Terminating { kill_at: Instant },
    Killing { force_at: Instant },
    Forced,
}

/// What the supervisor waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Child,
    Control,
    Init,
    PidAnnouncement,
    Output,
    Feeds,
    Shells,
    Holder,
}

impl<'a> Watch<'a> {
    /// Starts the job's processes. The error is a sentence for the user.
    pub fn launch(
        directory: &'a WorkloadDirectory,
        assignment: &'a Assignment,
        attempt: Attempt,
        control: File,
        group: &'a ControlGroup,
        watchdog: Watchdog,
        launch: Launch,
    ) -> Result<Self, String> {
        let spec = &assignment.spec;
        let text = |error: io::Error| format!("The job's process cannot be set up: {error}.");
        let (output, output_of_job) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| text(e.into()))?;
        rustix::io::ioctl_fionbio(&output, true).map_err(|e| text(e.into()))?;
        // A larger pipe saves wake-ups; the limit for ordinary users may forbid it.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, OUTPUT_CHUNK_BYTES);
        let (init, init_of_job) = UnixStream::pair().map_err(text)?;
        init.set_nonblocking(true).map_err(text)?;

        let Launch { mut command, inherited, job_pid, feeders } = launch;
        command
            .stdin(Stdio::from(OwnedFd::from(init_of_job)))
            .stdout(Stdio::from(output_of_job.try_clone().map_err(text)?))
            .stderr(Stdio::from(output_of_job));
        let child = command.spawn().map_err(|error| {
            format!("{} cannot be started: {error}.", command.get_program().to_string_lossy())
        })?;
        // The job's ends must be open in the job alone, or their closing would not be seen here.
        drop((command, inherited));
        let child_handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|e| text(e.into()))?;

        let containment = Containment { locks: Vec::new(), limits: Some(watchdog.limits().clone()) };
        let mut watch = Self {
            directory,
            assignment,
            spec,
            attempt,
            child,
            child_handle,
            control,
            init,
            init_text: Vec::new(),
            init_has_closed: false,
            pid_announcement: None,
            output: Some(File::from(output)),
            chunk: vec![0; OUTPUT_CHUNK_BYTES],
            log: LogFile::open(&spec.log_path),
            group,
            watchdog,
            sampler: None,
            containment,
            readiness: None,
            limit_event: None,
            // Those of a container are the engine's affair.
            shells: if oci::container_of(spec).is_some() { None } else { shells::listen(directory) },
            launched_at: None,
            // Read after the control channel is open: a task is either there by now or announced there.
            waiting: assignment
                .awaits_task
                .then(|| Waiting { since: None, has_task: matches!(directory.task(), Ok(Some(_))) }),
            // The same holds for the word to go.
            hold: assignment.is_held.then(|| Hold::new(matches!(directory.has_go(), Ok(true)))),
            time_limit: spec.time_limit_seconds.map(Duration::from_secs),
            stop_grace: Duration::from_secs(spec.stop_grace_seconds),
            launch_error: None,
            job_exit: None,
            feeds: None,
            feed_error: None,
            ending: Ending::NotAsked,
            stop_requested: false,
            time_is_up: false,
        };
        match job_pid {
            JobPid::Announced(pipe) => watch.pid_announcement = Some((File::from(pipe), Vec::new())),
            JobPid::Child => watch.attempt.job = ProcessIdentity::of(watch.child.id()),
            JobPid::Told(locks) => watch.note_locks(locks),
        }
        watch.feeds = Feeds::start(feeders).map_err(text)?;
        // The job waits to be let go until both of these are done, and the sandbox is being made meanwhile.
        directory.settle_attempt().map_err(|error| format!("The attempt cannot be recorded: {error}."))?;
        // The first move into a group after a while waits for all CPUs, some 10 ms: it does so here, not when the job is
        // ready. It fails when the sandbox has failed already.
        let _ = group.add(watch.child.id());
        Ok(watch)
    }

    /// Watches until every process of the job is gone, and reports.
    pub fn until_the_end(mut self) -> ExitReport {
        while !self.wait_for_events() {
            self.carry_out_deadlines();
            self.look_after();
        }
        let sandbox_status = self.child.wait();
        // Also covers a sandbox that was killed from outside: what was below it is now below this process.
        super::kill_all_descendants();
        self.read_init();
        self.read_feeds();
        if self.launched_at.is_some() {
            self.read_output();
        }
        let ended_at_ms = now_ms();
        let exit = self.exit(sandbox_status.ok());
        let was_killed = exit == Exit::Signal(Signal::KILL.as_raw());
        let is_container = oci::container_of(self.spec).is_some();
        // An engine's processes are no part of the job, and the job's may be none of this process's.
        let (peak_memory_bytes, cpu_seconds) = if is_container { (None, None) } else { descendants_usage() };
        let run_seconds = self.launched_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let started_at_ms = self.attempt.started_at_ms;
        let limit_event = self.limit_event.take();
        ExitReport {
            peak_memory_bytes,
            cpu_seconds,
            log_error: self.log.finish(ended_at_ms),
            limit_events: limit_event
                .into_iter()
                .chain(self.watchdog.kernels_word(
                    self.group,
                    was_killed && !self.stop_requested,
                    is_container,
                ))
                .collect(),
            usage: self.sampler.map(|sampler| sampler.finish(cpu_seconds, run_seconds, peak_memory_bytes)),
            containment: self.containment,
            ..ExitReport::bare(exit, started_at_ms, ended_at_ms, self.stop_requested)
        }
    }

    /// Looks at what the job uses, and ends it when it has passed a limit.
    fn look_after(&mut self) {
        let (Some(sampler), Some(job)) = (&mut self.sampler, self.attempt.job) else { return };
        let subject = Subject {
            pid: job.pid,
            outer_pid: self.child.id(),
            group: self.group,
            is_job: oci::container_of(self.spec).is_some(),
        };
        let log_bytes = self.log.written_bytes();
        sampler.sample_if_due(subject, self.watchdog.disk_bytes(log_bytes));
        let passed = self.watchdog.look(subject, log_bytes);
        if self.limit_event.is_none()
            && let Some(event) = passed
        {
            self.limit_event = Some(event);
            self.force();
        }
    }

    /// Notes the locks of a job that is kept in by others.
    fn note_locks(&mut self, locks: Vec<LockReport>) {
        self.containment.locks = locks;
        if let Err(error) = self.directory.write_containment(&self.containment) {
            let _ = writeln!(io::stderr(), "the locks cannot be recorded: {error}");
        }
    }

    /// Lets the first process go on, once it has said that it is ready and its pid is known: puts it into the control
    /// group, notes the locks, and judges whether those that are required hold.
    fn let_go(&mut self) {
        if self.attempt.job.is_none() && self.pid_announcement.is_some() {
            return;
        }
        let Some(readiness) = self.readiness.take() else { return };
        let joined = match self.attempt.job {
            Some(job) => self.group.add(job.pid).map_err(|error| error.to_string()),
            None => Err("the sandbox did not tell its pid".to_owned()),
        };
        let mut locks = namespaces::of_job(&self.spec.network, &readiness.namespaces);
        locks.extend(readiness.locks);
        locks.extend(self.group.locks().iter().map(|report| match &joined {
            Err(why) if report.held => {
                LockReport::missing(report.lock, format!("the job could not be put in: {why}"))
            }
            _ => report.clone(),
        }));
        locks.sort_by_key(|report| report.lock);
        self.launch_error = unmet(&self.spec.required_locks, &locks);
        self.containment.locks = locks;
        if let Err(error) = self.directory.write_containment(&self.containment) {
            let _ = writeln!(io::stderr(), "the locks cannot be recorded: {error}");
        }
        if self.launch_error.is_some() {
            self.force();
        } else {
            self.attempt.started_at_ms = now_ms();
            // Before the job can do anything that lets others look for it.
            self.record_running();
            self.go_unless_held();
        }
    }

    /// Waits for something to happen and handles it; true when the job's outermost process has ended.
    fn wait_for_events(&mut self) -> bool {
        let looks = self.sampler.as_ref().map(|sampler| sampler.next_at().min(self.watchdog.next_at()));
        let timeout = self.next_deadline().into_iter().chain(looks).min().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let ready = {
            let mut polled = vec![
                PollFd::new(&self.child_handle, PollFlags::IN),
                PollFd::new(&self.control, PollFlags::IN),
            ];
            let mut sources = vec![Source::Child, Source::Control];
            if !self.init_has_closed {
                polled.push(PollFd::new(&self.init, PollFlags::IN));
                sources.push(Source::Init);
            }
            if let Some((pipe, _)) = &self.pid_announcement {
                polled.push(PollFd::new(pipe, PollFlags::IN));
                sources.push(Source::PidAnnouncement);
            }
            if let Some(hold) = &self.hold
                && let Some(holder) = hold.holder()
            {
                polled.push(PollFd::from_borrowed_fd(holder, PollFlags::IN));
                sources.push(Source::Holder);
            }
            // Output before the word that the job runs may be the sandbox's own complaint: it stays in the
            // pipe till then.
            if let (Some(output), Some(_)) = (&self.output, self.launched_at) {
                polled.push(PollFd::new(output, PollFlags::IN));
                sources.push(Source::Output);
            }
            if let Some(feeds) = &self.feeds {
                polled.push(PollFd::new(feeds.complaints(), PollFlags::IN));
                sources.push(Source::Feeds);
            }
            if let (Some(shells), Some(_)) = (&self.shells, self.launched_at) {
                polled.push(PollFd::new(shells, PollFlags::IN));
                sources.push(Source::Shells);
            }
            // An interrupted wait shows no events; the next round waits again.
            let _ = poll(&mut polled, timeout.as_ref());
            let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
            polled
                .iter()
                .zip(sources)
                .filter(|(polled, _)| is_ready(polled))
                .map(|(_, source)| source)
                .collect::<Vec<_>>()
        };
        for source in &ready {
            match source {
                Source::Child => {}
                Source::Control => self.read_control(),
                Source::Init => self.read_init(),
                Source::PidAnnouncement => self.read_pid_announcement(),
                Source::Output => drop(self.read_output_once()),
                Source::Feeds => self.read_feeds(),
                Source::Shells => self.pass_shell_on(),
                Source::Holder => self.holder_is_gone(),
            }
        }
        ready.contains(&Source::Child)
    }

    fn read_control(&mut self) {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = self.control.read(&mut bytes) {
            if bytes[..count].contains(&TASK) {
                self.begin_task();
            }
            if bytes[..count].contains(&GO) {
                self.end_hold();
            }
            if bytes[..count].iter().all(|byte| [TASK, GO].contains(byte)) {
                continue;
            }
            self.stop_requested = true;
            if bytes[..count].contains(&EndRequest::Kill.control_byte()) {
                self.kill();
            } else {
                self.terminate();
            }
        }
    }

    fn read_init(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.init.read(&mut bytes) {
                Ok(0) => self.init_has_closed = true,
                Ok(count) => {
                    self.init_text.extend_from_slice(&bytes[..count]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.init_has_closed = true,
            }
            break;
        }
        while let Some(end) = self.init_text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.init_text.drain(..=end).collect();
            match InitMessage::decode(&String::from_utf8_lossy(&line)) {
                Some(InitMessage::Ready(readiness)) => {
                    self.readiness = Some(readiness);
                    self.let_go();
                }
                Some(InitMessage::Running) => match &mut self.waiting {
                    None => self.launched(),
                    Some(waiting) => {
                        waiting.since = Some(Instant::now());
                        if waiting.has_task {
                            self.begin_task();
                        }
                    }
                },
                Some(InitMessage::Pid(pid)) => {
                    self.attempt.job = ProcessIdentity::of(pid);
                    self.attempt.started_at_ms = now_ms();
                    self.record_running();
                }
                Some(InitMessage::Failed(text)) => self.launch_error = Some(text),
                Some(InitMessage::Ended(exit)) => self.job_exit = Some(exit),
                None => {}
            }
        }
    }

    fn launched(&mut self) {
        self.launched_at = Some(Instant::now());
        let path = self.directory.path();
        self.sampler = Some(Sampler::start(path, self.spec, &self.assignment.settings));
    }

    /// A job that gets only a part of its data must not look as if it had ended well.
    fn read_feeds(&mut self) {
        let complaint = self.feeds.take().and_then(|feeds| feeds.read_complaint());
        if complaint.is_some() {
            self.feed_error = complaint;
            self.terminate();
        }
    }

    fn read_pid_announcement(&mut self) {
        let Some((pipe, text)) = &mut self.pid_announcement else { return };
        let mut bytes = [0; 512];
        match pipe.read(&mut bytes) {
            Ok(count @ 1..) => text.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            // The sandbox ended before it made its first process.
            _ => self.pid_announcement = None,
        }
        if let Some((_, text)) = &self.pid_announcement
            && let Some(pid) = announced_pid(text)
        {
            self.pid_announcement = None;
            self.attempt.job = ProcessIdentity::of(pid);
        }
        self.let_go();
    }

    /// Failing to record changes nothing for the job: observers then see it without its pid or its exact
    /// start.
    fn record_running(&self) {
        let running = Running { started_at_ms: self.attempt.started_at_ms, job: self.attempt.job };
        if let Err(error) = self.directory.write_running(&running) {
            let _ = writeln!(io::stderr(), "the attempt cannot be recorded: {error}");
        }
    }

    /// Takes one chunk, so that a job that never stops writing cannot keep the others waiting.
    fn read_output_once(&mut self) -> bool {
        let Some(output) = &mut self.output else { return false };
        match output.read(&mut self.chunk) {
            Ok(0) => self.output = None,
            Ok(count) => {
                self.log.feed(&self.chunk[..count], now_ms());
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.output = None,
        }
        false
    }

    fn read_output(&mut self) {
        while self.read_output_once() {}
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.ending {
            Ending::NotAsked => self.time_limit_at(),
            Ending::Terminating { kill_at } => Some(kill_at),
            Ending::Killing { force_at } => Some(force_at),
            Ending::Forced => None,
        }
    }

    fn time_limit_at(&self) -> Option<Instant> {
        let since = self.launched_at.or(self.waiting.and_then(|waiting| waiting.since))?;
        since.checked_add(self.time_limit?)
    }

    fn carry_out_deadlines(&mut self) {
        if self.next_deadline().is_none_or(|deadline| Instant::now() < deadline) {
            return;
        }
        match self.ending {
            Ending::NotAsked => {
                self.time_is_up = true;
                self.terminate();
            }
            Ending::Terminating { .. } => self.kill(),
            Ending::Killing { .. } => self.force(),
            Ending::Forced => {}
        }
    }

    fn terminate(&mut self) {
        if let Ending::NotAsked = self.ending {
            // A grace beyond the clock's range is as good as none ending: a century.
            let century = Duration::from_secs(100 * 365 * 24 * 3600);
            self.ending = Ending::Terminating { kill_at: Instant::now() + self.stop_grace.min(century) };
            self.tell_init(EndRequest::Stop);
        }
    }

    fn kill(&mut self) {
        if matches!(self.ending, Ending::NotAsked | Ending::Terminating { .. }) {
            self.ending = Ending::Killing { force_at: Instant::now() + KILL_PATIENCE };
            self.tell_init(EndRequest::Kill);
        }
    }

    /// Kills from outside, when the first process in the sandbox does not answer or is not there yet.
    fn force(&mut self) {
        self.ending = Ending::Forced;
        if let Some(handle) = self.attempt.job.and_then(|job| job.open().ok().flatten()) {
            let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
        }
        self.group.kill();
        let _ = rustix::process::pidfd_send_signal(&self.child_handle, Signal::KILL);
    }

    fn tell_init(&mut self, request: EndRequest) {
        // If it is gone, the end that is asked for has come.
        let _ = self.init.write_all(&[request.control_byte()]);
    }
}
