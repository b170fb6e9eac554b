//! The supervisor: a small process per workload that outlives the server, holds the job's output and reports
//! its end.

mod descendants;
pub(crate) mod directory;
mod disk;
mod output;
mod watch;
mod watchdog;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

pub(crate) use descendants::kill_all as kill_all_descendants;
use directory::{Assignment, Attempt, WorkloadDirectory, now_ms};

use rustix::event::Timespec;

use crate::cgroup::ControlGroup;
use crate::feed::Feeder;
use crate::limits::Machine;
use crate::network;
use crate::oci;
use crate::sandbox;
use crate::workload::{Access, Exit, ExitReport, Network};
use disk::DiskWatch;
use watchdog::Watchdog;

/// Name of the hidden sub-command whose body is [`supervise`]; its only argument is the workload's directory.
pub const SUBCOMMAND: &str = "supervise";

/// First word of the supervisor's only line on its standard output: it has taken charge.
pub(crate) const IN_CHARGE: &str = "in-charge";
/// First word of that line if the workload already has, or had, a supervisor.
pub(crate) const ALREADY_STARTED: &str = "already-started";

/// Pause before a report is written again that the disk had no room for, and how often: a day long.
const REPORT_PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const REPORT_TRIES: u32 = 24 * 60 * 60;

/// Runs the workload in `workload_directory` to its end: the body of the hidden sub-command `supervise`.
///
/// It tells on standard output whether it has taken charge, then lets go of the starter's pipes, session and
/// working directory. When it returns, `exit.json` is on the disk and every process of the job is gone.
pub fn supervise(workload_directory: &Path) -> ExitCode {
    close_inherited_handles();
    let directory = WorkloadDirectory::new(workload_directory.to_owned());
    let begun = begin(&directory);
    let line = match &begun {
        Ok(Some(_)) => IN_CHARGE.to_owned(),
        Ok(None) => ALREADY_STARTED.to_owned(),
        Err(text) => format!("failed {}", text.replace('\n', " ")),
    };
    // The starter may have died meanwhile; the job is run all the same.
    let _ = writeln!(io::stdout(), "{line}");
    let (assignment, attempt, lock) = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::FAILURE,
    };
    release_standard_output();
    let report = run(&directory, &assignment, attempt);
    let written = write_exit_patiently(&directory, &report);
    failpoint::pass(failpoint::Point::WorkloadExitWritten);
    // The lock goes last: who finds it free finds the report.
    drop(lock);
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the exit report {report:?} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the report, and waits for a disk that is full or read-only: what is not written is lost with this process, and the
/// server would call the job failed.
fn write_exit_patiently(directory: &WorkloadDirectory, report: &ExitReport) -> io::Result<()> {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut tries_left = REPORT_TRIES;
    loop {
        match directory.write_exit(report) {
            Err(error)
                if tries_left > 0
                    && matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem) =>
            {
                tries_left -= 1;
                // Nothing tells when a disk has room again. An interrupted pause is a shorter one.
                let _ = rustix::event::poll(&mut [], Some(&REPORT_PAUSE));
            }
            written => return written,
        }
    }
}

type Begun = (Assignment, Attempt, std::fs::File);

/// Detaches from the starter and takes charge; `None` if the workload was started before.
fn begin(directory: &WorkloadDirectory) -> Result<Option<Begun>, String> {
    // Fails only for a process that leads a group already, which then has no terminal of the server's either.
    let _ = rustix::process::setsid();
    // bubblewrap makes the sandbox's directories with it, and the job's user must enter them. Own files say
    // their modes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("cannot become the reaper of the job's processes: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter the root directory: {error}"))?;

    let text = |error: io::Error| format!("{}: {error}", directory.path().display());
    let Some(lock) = directory.lock().map_err(text)? else { return Ok(None) };
    if directory.exit().map_err(text)?.is_some() || directory.attempt().map_err(text)?.is_some() {
        return Ok(None);
    }
    let assignment =
        directory.assignment().map_err(text)?.ok_or("the workload's directory holds no workload.json")?;
    let attempt = Attempt { supervisor_pid: std::process::id(), started_at_ms: now_ms(), job: None };
    directory.write_attempt(&attempt).map_err(text)?;
    Ok(Some((assignment, attempt, lock)))
}

/// Closes what the starter left open: the job would inherit it. Called before anything else is open.
pub(crate) fn close_inherited_handles() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The handle of the listing itself is among them, and closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Closes the starter's pipe, so that it sees the end of what the supervisor has to say.
fn release_standard_output() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Launches and watches the job; never fails, since every failure is a way to end.
fn run(directory: &WorkloadDirectory, assignment: &Assignment, attempt: Attempt) -> ExitReport {
    let started_at_ms = attempt.started_at_ms;
    let not_launched = |text: String, stop_requested: bool| {
        ExitReport::bare(Exit::LaunchFailed(text), started_at_ms, now_ms(), stop_requested)
    };
    let control = match directory.open_control() {
        Ok(control) => control,
        Err(error) => return not_launched(format!("The control channel cannot be made: {error}."), false),
    };
    // Read after the control channel is open: a wish is either recorded by now or arrives there.
    match directory.end_request() {
        Ok(None) => {}
        Ok(Some(_)) => {
            let exit = Exit::Signal(rustix::process::Signal::TERM.as_raw());
            return ExitReport { exit, ..not_launched(String::new(), true) };
        }
        Err(error) => return not_launched(format!("The stop request cannot be read: {error}."), false),
    }
    let spec = &assignment.spec;
    // Before there is a second thread, which could not come along.
    if let Network::Peers { place } = &spec.network
        && let Err(text) = network::join(place)
    {
        return not_launched(text, false);
    }
    let feeders: Result<Vec<Feeder>, String> = spec.feeds.iter().map(Feeder::prepare).collect();
    let feeders = match feeders {
        Ok(feeders) => feeders,
        Err(text) => return not_launched(text, false),
    };
    let disk = DiskWatch::start(Watchdog::places(spec));
    let work = spec.mounts.iter().find(|mount| mount.access == Access::ReadWrite);
    let work = work.map_or(directory.path(), |mount| &mount.source);
    let limits = oci::limits(spec).on(Machine::look(work, disk.used_bytes()));
    let group = match oci::container_of(spec) {
        None => ControlGroup::create(&format!("modelyard-{}-{}", spec.id, std::process::id()), &limits),
        // The engine makes its own, and its processes are none of the job's.
        Some(_) => ControlGroup::default(),
    };
    // Recorded before anything is in it, so that nothing can be lost in it.
    if let Err(error) = directory.write_control_group(&group) {
        return not_launched(format!("The control group cannot be recorded: {error}."), false);
    }
    let watchdog = Watchdog::start(limits, disk);
    let report = match sandbox::prepare(assignment, directory.path(), watchdog.limits(), &group) {
        Err(text) => not_launched(text, false),
        Ok(mut launch) => {
            launch.feeders = feeders;
            match watch::Watch::launch(directory, assignment, attempt, control, &group, watchdog, launch) {
                Ok(watch) => watch.until_the_end(),
                Err(text) => {
                    // The failure may have come after the process.
                    kill_all_descendants();
                    not_launched(text, false)
                }
            }
        }
    };
    let report = match oci::finish(directory, spec) {
        Ok(false) => report,
        Ok(true) => {
            // What the engine started meanwhile goes too.
            kill_all_descendants();
            ExitReport { ended_at_ms: now_ms(), ..report }
        }
        Err(text) => {
            let _ = writeln!(io::stderr(), "{text}");
            report
        }
    };
    if let Err(error) = group.remove() {
        let _ = writeln!(io::stderr(), "the control group cannot be removed: {error}");
    }
    report
}
