//! What a failed job says about itself: its own message, its last traceback, a reason in the words of the service.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest reason, in characters.
const REASON_CHARACTERS: usize = 1024;

/// What is read of a file that the job wrote.
pub(super) const WRITTEN_BYTES: u64 = 4 * REASON_CHARACTERS as u64;

/// Longest part of a command line in a reason, in characters.
const COMMAND_CHARACTERS: usize = 300;

/// Lines of the log that stand in for a traceback.
const TAIL_LINES: usize = 5;

/// Most lines of an exception's message that are kept after its first.
const MESSAGE_LINES: usize = 20;

/// The last Python traceback of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceback {
    /// Its last line: the exception.
    pub exception: String,
    /// All of it.
    pub text: String,
}

/// What the job wrote to `output/failure`, at most 1,024 characters.
pub fn failure_message(opt_ml: &Path) -> Option<String> {
    let bytes = written(opt_ml, "output/failure")?;
    let text: String = String::from_utf8_lossy(&bytes).trim().chars().take(REASON_CHARACTERS).collect();
    (!text.is_empty()).then_some(text)
}

/// The beginning of a file that the job wrote, enough for 1,024 characters. A link is not followed: it could show a file that
/// the job may not read.
pub(super) fn written(opt_ml: &Path, name: &str) -> Option<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).ok()?;
    let path = opt_ml.join(name);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(WRITTEN_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The last traceback in log lines, oldest first. A prefix of every line, such as torchrun's `[rank0]: `, is taken off.
pub fn traceback(lines: &[String]) -> Option<Traceback> {
    const START: &str = "Traceback (most recent call last)";
    let start = lines.iter().rposition(|line| line.contains(START))?;
    let prefix = &lines[start][..lines[start].find(START)?];
    let text: Vec<&str> = lines[start..].iter().map_while(|line| line.strip_prefix(prefix)).collect();
    let is_body = |line: &&&str| line.starts_with(' ') || line.is_empty();
    let last = 1 + text[1..].iter().take_while(is_body).count();
    let exception = (*text.get(last)?).to_owned();
    // A short rest of the log is the rest of a message of several lines.
    let rest = text.len() - last - 1;
    let message_lines = if rest <= MESSAGE_LINES && start + text.len() == lines.len() { rest } else { 0 };
    Some(Traceback { text: text[..=last + message_lines].join("\n").trim_end().to_owned(), exception })
}

/// The reason of a program that ended with a code other than 0, in the words of the service, at most 1,024 characters: what
/// the job wrote itself, else the end of its traceback, else the end of its log.
pub fn failure_reason(
    exit_code: i32,
    written: Option<&str>,
    traceback: Option<&Traceback>,
    tail: &[String],
    command: &str,
) -> String {
    let (before, message, after) = match written {
        Some(written) => {
            ("AlgorithmError: ".to_owned(), written.to_owned(), format!(", exit code: {exit_code}"))
        }
        None => {
            let message = match traceback {
                Some(traceback) => traceback.text.clone(),
                None => tail[tail.len().saturating_sub(TAIL_LINES)..].join("\n"),
            };
            let command = shortened(command, COMMAND_CHARACTERS);
            let before =
                format!("AlgorithmError: ExecuteUserScriptError:\nExitCode {exit_code}\nErrorMessage \"");
            (before, message, format!("\"\nCommand \"{command}\", exit code: {exit_code}"))
        }
    };
    let room = REASON_CHARACTERS.saturating_sub(before.chars().count() + after.chars().count());
    // What a job writes says the most at its beginning, a traceback at its end.
    let surplus = message.chars().count().saturating_sub(room);
    let message: String = if written.is_some() {
        message.chars().take(room).collect()
    } else {
        message.chars().skip(surplus).collect()
    };
    format!("{before}{message}{after}")
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let start: String = text.chars().take(limit.saturating_sub(3)).collect();
    format!("{start}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_traceback_is_found() {
        let mut log = lines(
            "a\nTraceback (most recent call last):\n  File \"x\", line 1\n    f()\nKeyError: 'a'\nagain\n\
             Traceback (most recent call last):\n  File \"y\", line 2\nValueError: bad",
        );
        log.extend((0..30).map(|number| format!("later {number}")));
        let found = traceback(&log).unwrap();
        assert_eq!(found.exception, "ValueError: bad");
        assert_eq!(found.text, "Traceback (most recent call last):\n  File \"y\", line 2\nValueError: bad");
        assert_eq!(traceback(&lines("nothing here")), None);
    }

    #[test]
    fn prefixes_come_off_and_messages_of_several_lines_stay() {
        let log = lines(
            "[rank0]: Traceback (most recent call last):\n[rank0]:   File \"y\", line 2\n[rank0]: ValueError: bad\n\
             [rank0]: in two lines",
        );
        let found = traceback(&log).unwrap();
        assert_eq!(found.exception, "ValueError: bad");
        assert!(found.text.ends_with("ValueError: bad\nin two lines"), "{}", found.text);
    }

    #[test]
    fn a_cut_traceback_is_none() {
        assert_eq!(traceback(&lines("Traceback (most recent call last):\n  File \"y\", line 2")), None);
    }

    #[test]
    fn a_reason_fits_and_keeps_the_end_of_a_traceback() {
        let long = Traceback { exception: String::new(), text: format!("{}the end", "é".repeat(5000)) };
        let command = format!("python train.py {}", "--word ".repeat(200));
        let reason = failure_reason(1, None, Some(&long), &[], &command);
        assert_eq!(reason.chars().count(), 1024);
        assert!(reason.starts_with("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage \"é"));
        assert!(
            reason.contains("the end\"\nCommand \"python train.py --word")
                && reason.ends_with("...\", exit code: 1")
        );
    }

    #[test]
    fn what_the_job_wrote_is_the_reason() {
        let reason = failure_reason(3, Some("my own words"), None, &[], "python train.py");
        assert_eq!(reason, "AlgorithmError: my own words, exit code: 3");
        let long = failure_reason(3, Some(&format!("start {}", "é".repeat(5000))), None, &[], "c");
        assert_eq!(long.chars().count(), 1024);
        assert!(long.starts_with("AlgorithmError: start é") && long.ends_with(", exit code: 3"));
    }
}
