//! Failure cards: what ended a job, in one sentence and in full.

use runner::contract;
use runner::workload::{Exit, ExitReport};

use super::attempt::Attempt;
use super::record::{FailureCard, HostRecord, shorten};
use super::{channels, prepare};

/// Lines of the log that a card carries.
const TAIL_LINES: usize = 50;

/// The card of a job whose program did not end well on this host, the first of `hosts` to fail.
pub async fn card(
    attempt: &Attempt<'_>,
    host: &HostRecord,
    hosts: usize,
    report: &ExitReport,
) -> FailureCard {
    let tail = attempt.log(&host.log_stream).tail(TAIL_LINES).await;
    let traceback = contract::traceback(&tail);
    let opt_ml = prepare::opt_ml(attempt.app, &host.workload);
    let written = contract::failure_message(&opt_ml);
    let mut card = match &report.exit {
        Exit::Code(code) => {
            let command = prepare::shown_command(attempt);
            let reason =
                contract::failure_reason(*code, written.as_deref(), traceback.as_ref(), &tail, &command);
            let reason = reason + channels::read_only_hint(&tail).unwrap_or_default();
            FailureCard { exit_code: Some(*code), ..FailureCard::new("exit", reason) }
        }
        Exit::Signal(number) => {
            let name = signal_name(*number);
            let hint = match *number {
                9 => {
                    " Something outside the program ended it; running out of memory is the most common cause."
                }
                11 => " The program crashed in native code.",
                _ => "",
            };
            let reason = format!(
                "AlgorithmError: the program was ended by signal {name} (exit code {}).{hint}",
                128 + number
            );
            let reason = match written {
                Some(text) => format!("{reason} It wrote: {text}"),
                None => reason,
            };
            FailureCard {
                signal: Some(name),
                exit_code: Some(128 + number),
                ..FailureCard::new("signal", reason)
            }
        }
        Exit::InputFailed(text) => FailureCard::new("input", format!("ClientError: {text}")),
        Exit::LaunchFailed(text) => FailureCard::new(
            "launch",
            format!("InternalServerError: the program could not be started: {text}"),
        ),
        Exit::SupervisorLost => FailureCard::new(
            "supervisor",
            "InternalServerError: the supervisor of the job was killed, and the job with it; its outcome is not known. Please retry.",
        ),
        Exit::TimeLimit => FailureCard::new("time_limit", "The job ran into its time limit."),
    };
    super::limits::explain(&mut card, report);
    card.traceback = traceback.map(|traceback| traceback.text);
    card.log_tail = tail;
    card.logs = Some(format!("{} {}", prepare::LOG_GROUP, host.log_stream));
    if hosts > 1 {
        card.reason = shorten(naming(&host.name, hosts, &card.reason));
        card.first_failed_host = Some(host.name.clone());
    }
    card
}

/// The reason with the host in it, behind the word that says whose fault it is.
fn naming(host: &str, hosts: usize, reason: &str) -> String {
    let named = format!("{host} failed first of {hosts} hosts");
    match reason.split_once(": ") {
        Some((kind, rest)) if kind.ends_with("Error") && !kind.contains(' ') => {
            format!("{kind}: {named}: {rest}")
        }
        _ => format!("{named}: {reason}"),
    }
}

/// `SIGKILL` and the like.
fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_stands_behind_the_kind_of_error() {
        assert_eq!(
            naming("algo-2", 3, "AlgorithmError: ExecuteUserScriptError:\nExitCode 1"),
            "AlgorithmError: algo-2 failed first of 3 hosts: ExecuteUserScriptError:\nExitCode 1"
        );
        assert_eq!(
            naming("algo-1", 2, "It ran away: far"),
            "algo-1 failed first of 2 hosts: It ran away: far"
        );
    }
}
