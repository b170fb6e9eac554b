//! Why a program failed: a cause out of a fixed list, a sentence, what to do, and the lines that show it.
//!
//! Nothing here reads files or asks the machine: it is text in, words out, so that every kind of failure can be tested with the
//! very output that real programs leave.

mod cause;
mod fingerprint;
mod memory;
mod python;
mod requirements;
mod signals;
mod words;

use crate::contract::Traceback;
use crate::limits::LimitEvent;
use crate::workload::Exit;

pub use cause::Cause;
pub use fingerprint::{fingerprint, normalized};
pub use python::{Frame, exception_name, last_frame};
pub use requirements::{Unmet, unmet_requirement};
pub use signals::{Meaning, meaning, signal_name, signal_of_code};

/// Lines that a diagnosis carries at most.
const EVIDENCE_LINES: usize = 6;
/// Longest line that it carries, in characters.
const EVIDENCE_CHARACTERS: usize = 400;

/// What is known of a program that ended.
#[derive(Debug)]
pub struct Observed<'a> {
    /// How it ended.
    pub exit: &'a Exit,
    /// Limits that it ran into, from the exit report.
    pub limits: &'a [LimitEvent],
    /// Largest memory of one of its processes, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Why some of its log is missing.
    pub log_error: Option<&'a str>,
    /// The last traceback of its log.
    pub traceback: Option<&'a Traceback>,
    /// The end of its log, oldest line first.
    pub tail: &'a [String],
    /// What it wrote about its failure itself.
    pub written: Option<&'a str>,
    /// What was run, for people: also tells failures of different programs apart.
    pub command: &'a str,
}

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which of the known causes.
    pub cause: Cause,
    /// What happened, in one sentence.
    pub sentence: String,
    /// What to do about it, in one or two sentences.
    pub hint: String,
    /// The lines that show it.
    pub evidence: Vec<String>,
    /// The same for failures of the same cause.
    pub fingerprint: String,
}

impl Diagnosis {
    /// A diagnosis whose failures are the same when `parts` are.
    pub fn new(
        cause: Cause,
        sentence: impl Into<String>,
        hint: impl Into<String>,
        evidence: Vec<String>,
        parts: &[&str],
    ) -> Diagnosis {
        let evidence = evidence
            .into_iter()
            .filter(|line| !line.trim().is_empty())
            .take(EVIDENCE_LINES)
            .map(|line| line.trim_end().chars().take(EVIDENCE_CHARACTERS).collect())
            .collect();
        let fingerprint = fingerprint(cause, parts);
        Diagnosis { cause, sentence: sentence.into(), hint: hint.into(), evidence, fingerprint }
    }
}

/// Judges how a program ended: the kernel's word first, then what the program said, then its exit.
pub fn diagnose(observed: &Observed<'_>) -> Diagnosis {
    let signal = match observed.exit {
        Exit::Signal(number) => Some(*number),
        Exit::Code(code) => signal_of_code(*code),
        _ => None,
    };
    if let Some(found) = words::ended_by_limit(observed, signal.is_some()) {
        return found;
    }
    match observed.exit {
        Exit::LaunchFailed(text) => {
            let hint = "See the sentence above; `modelyard doctor` says what works on this machine.";
            Diagnosis::new(
                Cause::Launch,
                format!("The program could not be started: {text}"),
                hint,
                vec![],
                &[text],
            )
        }
        Exit::SupervisorLost => Diagnosis::new(
            Cause::Supervisor,
            "The supervisor of the job was killed, and the job with it.",
            "Run the job again. If it happens again, see the server's own log: something on this machine kills processes, most \
             often for want of memory.",
            vec![],
            &[],
        ),
        Exit::TimeLimit => Diagnosis::new(
            Cause::TimeLimit,
            "The job ran into its time limit.",
            "Give it a larger MaxRuntimeInSeconds.",
            vec![],
            &[],
        ),
        _ => program(observed, signal),
    }
}

fn program(observed: &Observed<'_>, signal: Option<i32>) -> Diagnosis {
    // What a killed program logged before may be of another matter; its words on memory and disk still count.
    if let Some(found) = memory::diagnose(observed).or_else(|| words::disk_full(observed)) {
        return found;
    }
    if let Some(number) = signal {
        return signals::diagnose(observed, number);
    }
    let code = match observed.exit {
        Exit::Code(code) => *code,
        _ => 1,
    };
    if observed.written.is_none()
        && let Some(traceback) = observed.traceback
    {
        return python::diagnose(traceback, observed.command);
    }
    let said = observed.written.map(str::to_owned).or_else(|| last_words(observed.tail));
    let sentence = match (&said, observed.written) {
        (Some(text), Some(_)) => format!("The program gave its own reason: {}", first_line(text)),
        (Some(text), None) => format!("The program ended with exit code {code}; its last line was: {text}"),
        (None, _) => format!("The program ended with exit code {code} and said nothing."),
    };
    let (meaning, hint) = signals::code_meaning(code);
    let sentence = if meaning.is_empty() { sentence } else { format!("{sentence} {meaning}") };
    let evidence = match observed.written {
        Some(text) => text.lines().map(str::to_owned).collect(),
        None => observed.tail.iter().rev().take(5).rev().cloned().collect(),
    };
    let said = said.unwrap_or_default();
    let parts = [observed.command, &code.to_string(), first_line(&said)];
    Diagnosis::new(Cause::Exit, sentence, hint, evidence, &parts)
}

/// The last line that is not empty.
fn last_words(tail: &[String]) -> Option<String> {
    let line = tail.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty())?;
    Some(line.chars().take(EVIDENCE_CHARACTERS).collect())
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// The lines that contain one of `needles`, the last ones.
fn lines_with<'a>(observed: &Observed<'a>, needles: &[&str]) -> Vec<&'a str> {
    let traceback = observed.traceback.map(|traceback| traceback.text.as_str()).unwrap_or_default();
    let said = traceback.lines().chain(observed.written.unwrap_or_default().lines());
    let all = observed.tail.iter().map(String::as_str).chain(said);
    let mut found: Vec<&str> = Vec::new();
    for line in all.filter(|line| needles.iter().any(|needle| line.contains(needle))) {
        // A traceback is in the log too, sometimes with a prefix.
        if !found.iter().any(|known| known.contains(line.trim()) || line.contains(known.trim())) {
            found.push(line);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn observed<'a>(
        exit: &'a Exit,
        tail: &'a [String],
        traceback: Option<&'a Traceback>,
    ) -> Observed<'a> {
        Observed {
            exit,
            limits: &[],
            peak_memory_bytes: None,
            log_error: None,
            traceback,
            tail,
            written: None,
            command: "python train.py",
        }
    }

    pub fn judged(exit: &Exit, log: &str) -> Diagnosis {
        let tail: Vec<String> = log.lines().map(str::to_owned).collect();
        let traceback = crate::contract::traceback(&tail);
        diagnose(&observed(exit, &tail, traceback.as_ref()))
    }

    #[test]
    fn an_exit_code_without_a_word_is_said_so() {
        let found = judged(&Exit::Code(3), "");
        assert_eq!(found.cause, Cause::Exit);
        assert_eq!(found.sentence, "The program ended with exit code 3 and said nothing.");
        let found =
            judged(&Exit::Code(2), "usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --lr 3\n");
        assert!(found.sentence.contains("unrecognized arguments: --lr 3"), "{}", found.sentence);
        assert!(found.hint.contains("arguments"), "{}", found.hint);
        let found = judged(&Exit::Code(127), "bash: line 1: trian: command not found");
        assert!(found.sentence.contains("command was not found"), "{}", found.sentence);
    }

    #[test]
    fn what_the_program_wrote_itself_comes_before_its_traceback() {
        let tail: Vec<String> = "Traceback (most recent call last):\n  File \"x\", line 1\nValueError: v"
            .lines()
            .map(str::to_owned)
            .collect();
        let traceback = crate::contract::traceback(&tail);
        let exit = Exit::Code(1);
        let mut given = observed(&exit, &tail, traceback.as_ref());
        given.written = Some("the label column is missing\nmore");
        let found = diagnose(&given);
        assert_eq!(found.cause, Cause::Exit);
        assert!(
            found.sentence.ends_with("its own reason: the label column is missing"),
            "{}",
            found.sentence
        );
        assert_eq!(found.evidence, ["the label column is missing", "more"]);
    }

    #[test]
    fn launch_and_supervisor_have_causes_of_their_own() {
        let found = judged(&Exit::LaunchFailed("no bwrap".into()), "");
        assert!(found.cause == Cause::Launch && found.sentence.contains("no bwrap"));
        assert_eq!(judged(&Exit::SupervisorLost, "").cause, Cause::Supervisor);
        assert_eq!(judged(&Exit::TimeLimit, "").cause, Cause::TimeLimit);
    }
}
