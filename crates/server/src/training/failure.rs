//! Failure cards: what ended a job, in one sentence and in full.

use runner::contract;
use runner::workload::{Exit, ExitReport};

use super::attempt::Attempt;
use super::record::FailureCard;
use super::{channels, prepare};

/// Lines of the log that a card carries.
const TAIL_LINES: usize = 50;

/// The card of a job whose program did not end well.
pub async fn card(attempt: &Attempt<'_>, id: &str, report: &ExitReport) -> FailureCard {
    let stream = attempt.stream().await;
    let tail = attempt.log(&stream).tail(TAIL_LINES).await;
    let traceback = contract::traceback(&tail);
    let opt_ml = prepare::opt_ml(attempt.app, id);
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
    card.logs = Some(format!("{} {stream}", prepare::LOG_GROUP));
    card
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
