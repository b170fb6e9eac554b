//! Failure cards: what ended a job, in one sentence and in full.

use runner::contract;
use runner::diagnosis::{self, Cause, Diagnosis, Observed};
use runner::workload::{Exit, ExitReport};

use store::DiskProblem;

use super::attempt::Attempt;
use super::record::{FailureCard, HangNotice, HostRecord, shorten};
use super::{channels, limits, prepare, services};

/// Lines of the log that are searched for the cause.
const SEARCHED_LINES: usize = 400;
/// Lines of the log that a card carries.
const TAIL_LINES: usize = 50;

/// The card of a job whose program did not end well on this host, the first of `hosts` to fail.
pub async fn card(
    attempt: &Attempt<'_>,
    host: &HostRecord,
    hosts: usize,
    report: &ExitReport,
) -> FailureCard {
    let mut tail = attempt.log(&host.log_stream).tail(SEARCHED_LINES).await;
    let traceback = contract::traceback(&tail);
    let opt_ml = prepare::opt_ml(attempt.app, &host.workload);
    let written = contract::failure_message(&opt_ml);
    let command = prepare::shown_command(attempt);
    let observed = Observed {
        exit: &report.exit,
        limits: &report.limit_events,
        peak_memory_bytes: report.peak_memory_bytes,
        log_error: report.log_error.as_deref(),
        traceback: traceback.as_ref(),
        tail: &tail,
        written: written.as_deref(),
        command: &command,
    };
    let of_service = traceback
        .as_ref()
        .filter(|_| matches!(report.exit, Exit::Code(_)) && written.is_none())
        .and_then(|traceback| services::of_program(&traceback.text, &traceback.exception));
    let diagnosis = of_service.unwrap_or_else(|| diagnosis::diagnose(&observed));
    let mut card = match &report.exit {
        Exit::Code(code) => {
            let reason =
                contract::failure_reason(*code, written.as_deref(), traceback.as_ref(), &tail, &command);
            let reason = reason + channels::read_only_hint(&tail).unwrap_or_default();
            FailureCard { exit_code: Some(*code), ..FailureCard::new("exit", reason) }
        }
        Exit::Signal(number) => FailureCard {
            signal: Some(diagnosis::signal_name(*number)),
            exit_code: Some(128 + number),
            ..FailureCard::new("signal", signal_reason(*number, &diagnosis, written.as_deref()))
        },
        Exit::InputFailed(text) => complete(FailureCard::new("input", format!("ClientError: {text}"))),
        Exit::LaunchFailed(text) if is_of_full_disk(text) => {
            complete(FailureCard::new("launch", format!("InternalServerError: {text}")))
        }
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
    limits::explain(&mut card, report);
    card.traceback = traceback.map(|traceback| traceback.text);
    card.log_tail = tail.split_off(tail.len().saturating_sub(TAIL_LINES));
    card.logs = Some(format!("{} {}", attempt.log_group(), host.log_stream));
    if card.sentence.is_empty() {
        card = with(card, diagnosis);
    }
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

/// Gives a card that only has its phase and its text what the others have: a cause, a sentence, a hint, a fingerprint.
pub fn complete(card: FailureCard) -> FailureCard {
    if !card.sentence.is_empty() {
        return card;
    }
    let diagnosis = explain(&card);
    let mut card = card;
    if diagnosis.cause == Cause::Dependency {
        // The installer's own words begin with what went well; the short form has room for the one requirement only.
        let evidence = diagnosis.evidence.join("\n");
        card.reason = shorten(format!(
            "AlgorithmError: the environment could not be built: {}\n{evidence}",
            diagnosis.sentence
        ));
    }
    with(card, diagnosis)
}

/// The card of a job that was ended because it hung.
pub fn hung(card: FailureCard, hang: &HangNotice, command: &str) -> FailureCard {
    let hint = "Get its stacks the next time: with PYTHONFAULTHANDLER=1 in Environment, `modelyard jobs shell NAME -- kill -ABRT 2` prints \
                those of all threads into the log and ends the program; faulthandler.register(signal.SIGUSR1) in the program does so \
                without ending it. Usual causes: a data loader worker that waits for a lock, a collective operation that another rank \
                never enters, a read from a network that does not answer.";
    let diagnosis = Diagnosis::new(Cause::Hang, &*hang.sentence, hint, hang.processes.clone(), &[command]);
    with(card, diagnosis)
}

fn with(card: FailureCard, diagnosis: Diagnosis) -> FailureCard {
    FailureCard {
        cause: diagnosis.cause.word().to_owned(),
        sentence: diagnosis.sentence,
        hint: diagnosis.hint,
        evidence: diagnosis.evidence,
        fingerprint: diagnosis.fingerprint,
        ..card
    }
}

/// Judges a step of ours that failed by its text.
fn explain(card: &FailureCard) -> Diagnosis {
    let phase = Cause::from_word(&card.cause).unwrap_or(Cause::Request);
    let text = if card.whole_text.is_empty() { &card.reason } else { &card.whole_text };
    if phase == Cause::Environment
        && let Some(unmet) = diagnosis::unmet_requirement(text)
            .or_else(|| diagnosis::unmet_requirement(&card.log_tail.join("\n")))
    {
        return Diagnosis::new(
            Cause::Dependency,
            unmet.sentence.clone(),
            unmet.hint,
            unmet.evidence,
            &[&unmet.requirement, &unmet.sentence],
        );
    }
    let action =
        if matches!(phase, Cause::Output | Cause::Checkpoint) { "s3:PutObject" } else { "s3:GetObject" };
    if let Some(found) = services::of_own_text(text, action) {
        return found;
    }
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if is_of_full_disk(text) {
        let sentence = format!("The disk that has the data directory is full: {}", plain(first));
        let hint =
            "Free some space on that disk: old environments, objects and logs are below the data directory.";
        return Diagnosis::new(Cause::DiskFull, sentence, hint, vec![first.to_owned()], &[&card.cause]);
    }
    Diagnosis::new(phase, plain(first), advice(phase), vec![], &[first])
}

/// In the words of the system, or of the database.
pub fn is_of_full_disk(text: &str) -> bool {
    ["No space left on device", "os error 28", DiskProblem::Full.text()]
        .iter()
        .any(|words| text.contains(words))
}

/// A sentence of ours without the service's word in front.
fn plain(text: &str) -> String {
    let rest = ["ClientError: ", "AlgorithmError: ", "InternalServerError: ", "CapacityError: "]
        .iter()
        .find_map(|word| text.strip_prefix(word));
    let rest = rest.unwrap_or(text);
    let word = rest.split(' ').next().unwrap_or_default();
    if !word.chars().all(char::is_alphabetic) {
        return rest.to_owned();
    }
    let mut characters = rest.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// What to do when a step failed and its text says all that is known.
fn advice(phase: Cause) -> &'static str {
    match phase {
        Cause::Environment => {
            "The log has the installer's output; `modelyard doctor` says whether Python and an installer work here."
        }
        Cause::Image => {
            "`modelyard doctor` says whether the engine of containers works here; docs/images.md says which images are had, and how."
        }
        Cause::Input => "Correct what the sentence names in InputDataConfig, or the object itself.",
        Cause::Output => {
            "Correct OutputDataConfig.S3OutputPath, or what the program leaves in /opt/ml/model."
        }
        Cause::Checkpoint => {
            "Correct CheckpointConfig.S3Uri; the checkpoints of the job are stored there while it runs."
        }
        Cause::Launch => "`modelyard doctor` says what works on this machine.",
        Cause::InfraCheck => "Mend what the check found; `modelyard doctor` looks at the machine too.",
        Cause::Supervisor => "See the server's own log.",
        Cause::Capacity => {
            "Use an instance type that fits this machine, or give it what it asks for under [capacity] in the settings (docs/capacity.md)."
        }
        _ => "Correct the field that the sentence names.",
    }
}

/// The short form for a program that a signal ended.
fn signal_reason(number: i32, diagnosis: &Diagnosis, written: Option<&str>) -> String {
    let code = 128 + number;
    let sentence = &diagnosis.sentence;
    let reason = match diagnosis.cause {
        Cause::OutOfMemory => format!(
            "ClientError: Please use an instance type with more memory, or reduce the size of job data processed on an instance., exit \
             code: {code}. {sentence}"
        ),
        Cause::DiskFull => format!(
            "ClientError: Please use a larger VolumeSizeInGB, or write less below /opt/ml, exit code: {code}. {sentence}"
        ),
        _ => format!("AlgorithmError: {sentence}"),
    };
    match written {
        Some(text) => format!("{reason} It wrote: {text}"),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_failed_gets_a_cause_a_sentence_and_a_hint() {
        let card = complete(FailureCard::new(
            "input",
            "ClientError: s3://data/x.tar.gz cannot be unpacked: not a tar file.",
        ));
        assert_eq!((card.cause.as_str(), card.fingerprint.len()), ("input", 16));
        assert_eq!(card.sentence, "s3://data/x.tar.gz cannot be unpacked: not a tar file.");
        assert!(card.hint.contains("InputDataConfig"));
        let card = complete(FailureCard::new(
            "input",
            "InternalServerError: /data/jobs/x: No space left on device (os error 28)",
        ));
        assert_eq!(card.cause, "disk_full");
        let again = complete(card.clone());
        assert_eq!(again.sentence, card.sentence, "a whole card stays as it is");
    }

    #[test]
    fn a_requirement_that_is_in_the_way_is_in_the_short_form() {
        let noise = "Collecting something\n".repeat(100);
        let text = format!(
            "AlgorithmError: the environment could not be built: installing requirements.txt failed: {noise}ERROR: Could not find a version \
             that satisfies the requirement requests==99.9 (from versions: 2.32.0, 2.32.1)\n(exit status: 1)"
        );
        let card = complete(FailureCard::new("environment", text));
        assert_eq!(card.cause, "dependency");
        assert!(
            card.reason.starts_with(
                "AlgorithmError: the environment could not be built: There is no version requests==99.9;"
            ),
            "{}",
            card.reason
        );
        assert!(card.reason.chars().count() <= 1024);
        let other = complete(FailureCard::new(
            "environment",
            "AlgorithmError: the environment could not be built: no usable Python 3",
        ));
        assert!(other.cause == "environment" && other.hint.contains("modelyard doctor"));
    }

    #[test]
    fn signals_have_a_short_form_in_the_words_of_the_service() {
        let killed = Diagnosis::new(Cause::OutOfMemory, "The job used up its memory.", "", vec![], &[]);
        let reason = signal_reason(9, &killed, None);
        assert!(
            reason.starts_with("ClientError: Please use an instance type with more memory")
                && reason.contains("exit code: 137")
        );
        let crashed = Diagnosis::new(
            Cause::Signal,
            "The program was ended by SIGSEGV (exit code 139): it crashed.",
            "",
            vec![],
            &[],
        );
        assert_eq!(
            signal_reason(11, &crashed, Some("own words")),
            "AlgorithmError: The program was ended by SIGSEGV (exit code 139): it crashed. It wrote: own words"
        );
    }
}
