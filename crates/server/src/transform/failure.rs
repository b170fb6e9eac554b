//! Why a transform job failed: the first object that did, its record, and what the model said.

use runner::diagnosis::{Cause, Diagnosis, exception_name};

use super::ledger::ObjectFailure;
use crate::training::record::{FailureCard, shorten};

/// The card of a job of whose objects some failed; `first` is the first of them in the order of the list.
pub fn of_objects(first: &ObjectFailure, failed: u64, objects: u64, logs: String) -> FailureCard {
    let word = if first.is_of_client { "ClientError" } else { "AlgorithmError" };
    let place = match first.records {
        None => first.uri.clone(),
        Some((from, to)) if from == to => format!("{}, record {from}", first.uri),
        Some((from, to)) => format!("{}, records {from} to {to}", first.uri),
    };
    let others = if failed > 1 { format!(" ({failed} of {objects} objects failed)") } else { String::new() };
    let mut reason =
        format!("{word}: See job logs for more information. {place}: {}{others}", first.sentence);
    if let Some(traceback) = &first.traceback {
        reason.push('\n');
        reason.push_str(traceback);
    }
    let hint = if first.is_of_client {
        "Correct the object, or SplitType, MaxPayloadInMB and DataProcessing; outputs of the other objects are stored."
    } else {
        "Correct the model's script, or what it cannot take; outputs of the other objects are stored."
    };
    let cause = if first.is_of_client { Cause::Input } else { Cause::Exception };
    let exception =
        first.traceback.as_deref().and_then(|text| text.trim_end().lines().last()).unwrap_or(&first.sentence);
    let parts = [exception_name(exception).0];
    let evidence = first.traceback.iter().flat_map(|text| text.lines().rev().take(3)).map(str::to_owned);
    let mut evidence: Vec<String> = evidence.collect();
    evidence.reverse();
    let sentence = format!("{place}: {}{others}.", first.sentence.trim_end_matches('.'));
    let mut card =
        with(FailureCard::new(cause.word(), reason), Diagnosis::new(cause, sentence, hint, evidence, &parts));
    card.traceback.clone_from(&first.traceback);
    card.logs = Some(logs);
    card
}

/// The card of a job whose model did not come into service.
pub fn of_model(reason: &str, logs: String) -> FailureCard {
    if reason.starts_with("s3://") {
        let hint = "Correct ModelDataUrl of the model, or put its archive there.";
        return of_step(Cause::Input, &format!("ClientError: {reason}"), hint);
    }
    if !["model host", "model worker", "The model could not be loaded"]
        .iter()
        .any(|words| reason.contains(words))
    {
        let hint =
            "The job's log has the installer's output; `modelyard doctor` says what works on this machine.";
        return of_step(Cause::Environment, &format!("AlgorithmError: {reason}"), hint);
    }
    let text = format!(
        "AlgorithmError: Model container failed to respond to ping; Please ensure /ping endpoint is implemented and responds with an \
         HTTP 200 status code. {reason}"
    );
    let hint = "Correct the model's archive or script; `modelyard logs` has what it printed.";
    let sentence = format!("The model did not come into service: {}", first_line(reason));
    let evidence: Vec<String> = reason.lines().rev().take(3).map(str::to_owned).collect();
    let evidence = evidence.into_iter().rev().collect();
    let mut card = with(
        FailureCard::new("launch", text),
        Diagnosis::new(Cause::Launch, sentence, hint, evidence, &[first_line(reason)]),
    );
    card.traceback = reason.find("Traceback (most recent call last)").map(|at| reason[at..].to_owned());
    card.logs = Some(logs);
    card
}

/// The card of a step of ours that failed.
pub fn of_step(cause: Cause, reason: &str, hint: &str) -> FailureCard {
    let plain = reason.split_once("Error: ").map_or(reason, |(_, plain)| plain);
    with(
        FailureCard::new(cause.word(), reason),
        Diagnosis::new(cause, plain, hint, Vec::new(), &[first_line(plain)]),
    )
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn with(card: FailureCard, diagnosis: Diagnosis) -> FailureCard {
    FailureCard {
        cause: diagnosis.cause.word().to_owned(),
        reason: shorten(card.reason),
        sentence: diagnosis.sentence,
        hint: diagnosis.hint,
        evidence: diagnosis.evidence,
        fingerprint: diagnosis.fingerprint,
        ..card
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failing_record_is_named_with_the_traceback() {
        let failure = ObjectFailure {
            uri: "s3://b/in/x.csv".into(),
            records: Some((17, 17)),
            is_of_client: false,
            sentence: "the model answered with status 500: ValueError: no such row".into(),
            traceback: Some(
                "Traceback (most recent call last):\n  File \"x\"\nValueError: no such row".into(),
            ),
        };
        let card = of_objects(&failure, 2, 3, "group stream".into());
        assert!(
            card.reason.starts_with(
                "AlgorithmError: See job logs for more information. s3://b/in/x.csv, record 17:"
            )
        );
        assert!(
            card.reason.contains("2 of 3 objects failed") && card.reason.ends_with("ValueError: no such row")
        );
        assert_eq!((card.cause.as_str(), card.fingerprint.len()), ("exception", 16));
        assert!(card.traceback.is_some());
        let other = ObjectFailure { is_of_client: true, records: None, ..failure };
        assert!(of_objects(&other, 1, 3, String::new()).reason.starts_with("ClientError: "));
    }
}
