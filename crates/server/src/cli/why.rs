//! `modelyard jobs why`: why a job failed, or what it waits for or does.

use serde_json::json;

use super::client::{Client, Failure};
use super::job_kind::JobKind;
use super::output::{self, Format};
use crate::training::explain::{Explanation, Same};
use crate::training::record::FailureCard;

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn why(client: &Client, name: &str, kind: Option<JobKind>, format: Format) -> Result<(), String> {
    let answer = fetch(client, name, kind).await?;
    if format == Format::Json {
        output::json(&json!(answer));
        return Ok(());
    }
    let cause = answer.card.as_ref().map(|card| format!(" ({})", card.cause)).unwrap_or_default();
    let phase = if answer.card.is_none() { format!(", {}", answer.secondary_status) } else { String::new() };
    output::line(&format!("{name}: {}{phase}{cause}", answer.status));
    if let Some(host) = answer.card.as_ref().and_then(|card| card.first_failed_host.as_ref()) {
        output::line(&format!("  First failed host: {host}"));
    }
    output::line(&format!("  {}", answer.sentence));
    for line in &answer.details {
        output::line(&format!("    {line}"));
    }
    if !answer.hint.is_empty() {
        output::line(&format!("\nWhat to do: {}", answer.hint));
    }
    show_same(&answer);
    if let Some(logs) = &answer.logs {
        output::line(&format!("\nLog: {logs}\n     modelyard logs {name}"));
    }
    Ok(())
}

/// The server's answer.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn fetch(client: &Client, name: &str, kind: Option<JobKind>) -> Result<Explanation, Failure> {
    let mut answer = client.call("Modelyard.ExplainTrainingJob", &JobKind::own_input(name, kind)).await?;
    serde_json::from_value(answer["Explanation"].take())
        .map_err(|error| Failure { code: String::new(), message: error.to_string() })
}

/// Prints the card of a job that failed, as a part of what is shown of it.
pub fn show_card(answer: &Explanation, card: &FailureCard) {
    output::line(&format!("\nWhy it failed ({}):", card.cause));
    if let Some(host) = &card.first_failed_host {
        output::line(&format!("  First failed host: {host}"));
    }
    output::line(&format!("  {}", answer.sentence));
    for line in &card.evidence {
        output::line(&format!("    {line}"));
    }
    if !card.hint.is_empty() {
        output::line(&format!("\nWhat to do:\n  {}", card.hint));
    }
    show_same(answer);
    output::line(&format!("\nFailureReason:\n  {}", card.reason.replace('\n', "\n  ")));
    if let Some(traceback) = &card.traceback {
        output::line("\nTraceback:");
        output::line(&format!("  {}", traceback.replace('\n', "\n  ")));
    }
    if !card.log_tail.is_empty() {
        output::line("\nLast lines of the log:");
        for line in &card.log_tail {
            output::line(&format!("  {line}"));
        }
    }
    if let Some(logs) = &card.logs {
        output::line(&format!("\nWhole log: {logs}"));
    }
}

fn show_same(answer: &Explanation) {
    if answer.earlier.is_none() && answer.later.is_none() {
        return;
    }
    output::line("");
    if let Some(earlier) = &answer.earlier {
        output::line(&same("earlier", earlier));
    }
    if let Some(later) = &answer.later {
        output::line(&same("since", later));
    }
}

fn same(when: &str, same: &Same) -> String {
    let time = |at: f64| output::time(Some(at));
    let jobs = if same.count == 1 { "1 job".to_owned() } else { format!("{} jobs", same.count) };
    let last = format!("last at {} ({})", time(same.last_at), same.last_job);
    if same.count == 1 {
        return format!("{when}: {jobs} with the same cause, {last}");
    }
    format!(
        "{when}: {jobs} with the same cause, {last}, first at {} ({})",
        time(same.first_at),
        same.first_job
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_failures_are_told_in_a_line() {
        let one = Same { count: 1, first_job: "a".into(), first_at: 0.0, last_job: "a".into(), last_at: 0.0 };
        assert_eq!(
            same("earlier", &one),
            "earlier: 1 job with the same cause, last at 1970-01-01 00:00:00 (a)"
        );
        let two = Same { count: 2, last_job: "b".into(), last_at: 60.0, ..one };
        assert_eq!(
            same("since", &two),
            "since: 2 jobs with the same cause, last at 1970-01-01 00:01:00 (b), first at 1970-01-01 00:00:00 (a)"
        );
    }
}
