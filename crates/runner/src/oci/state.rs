//! What an engine says about a container.

use serde::Deserialize;

use super::engine::{Engine, EngineError};
use crate::workload::Exit;

/// How long the engine may take for an answer.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Numbers above this are no signals' but the program's own.
const LAST_PLAIN_SIGNAL: i32 = 31;

/// The part of `inspect`'s answer that is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    /// Whether its first process lives.
    #[serde(default)]
    pub running: bool,
    /// Host pid of its first process; 0 without one.
    #[serde(default)]
    pub pid: u32,
    /// The program's exit code, or 128 and the signal's number.
    #[serde(default)]
    pub exit_code: i32,
    /// When it started; the year 1 if it never did.
    #[serde(default)]
    pub started_at: String,
}

impl State {
    /// Asks the engine about a container.
    pub fn of(engine: &Engine, name: &str) -> Result<Self, EngineError> {
        let answer = engine
            .call(&["inspect", "--type", "container", "--format", "{{json .State}}", name], ANSWER_LIMIT)?;
        serde_json::from_str(answer.trim()).map_err(|error| {
            EngineError(format!("{} inspect gave an answer that cannot be read: {error}", engine.shown()))
        })
    }

    /// Whether its program ever ran.
    pub fn has_started(&self) -> bool {
        !self.started_at.is_empty() && !self.started_at.starts_with("0001-")
    }

    /// How it ended.
    pub fn exit(&self) -> Exit {
        exit_of(self.exit_code)
    }
}

/// An engine reports one number for both kinds of end. A program that itself returns 128 and a signal's number nearly
/// always passes on that its own child was ended by the signal, so that it is read as the signal.
pub(super) fn exit_of(code: i32) -> Exit {
    match code - 128 {
        signal @ 1..=LAST_PLAIN_SIGNAL => Exit::Signal(signal),
        _ => Exit::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_both_engines_are_read() {
        let created = r#"{"OciVersion":"1.0.2-dev","Status":"created","Running":false,"OOMKilled":false,"Pid":0,
            "ExitCode":0,"Error":"","StartedAt":"0001-01-01T00:00:00Z"}"#;
        assert!(!serde_json::from_str::<State>(created).unwrap().has_started());
        let ended = r#"{"Status":"exited","Running":false,"OOMKilled":true,"Dead":false,"Pid":0,"ExitCode":137,"Error":"",
            "StartedAt":"2026-11-21T11:23:26.12809562Z","FinishedAt":"2026-11-21T11:23:26.133573111Z"}"#;
        let ended: State = serde_json::from_str(ended).unwrap();
        assert!(ended.has_started() && !ended.running);
        assert_eq!(ended.exit(), Exit::Signal(9));
    }

    #[test]
    fn large_codes_are_no_signals() {
        for (code, expected) in [
            (0, Exit::Code(0)),
            (3, Exit::Code(3)),
            (128, Exit::Code(128)),
            (143, Exit::Signal(15)),
            (255, Exit::Code(255)),
        ] {
            assert_eq!(exit_of(code), expected);
        }
    }
}
