//! Python's own words: exceptions, frames, and what to do about the common ones.

use std::fmt;

use super::{Cause, Diagnosis, first_line};
use crate::contract::Traceback;

/// Where the user's code lies in a job.
const USER_CODE: &str = "/opt/ml/code";

/// One line of a traceback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Path of the file.
    pub file: String,
    /// Line in it.
    pub line: u32,
    /// Function, or `<module>`.
    pub function: String,
}

impl fmt::Display for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}, line {})", self.function, self.file, self.line)
    }
}

/// The frame that says most: the innermost one of the user's code, else the innermost one.
pub fn last_frame(traceback: &str) -> Option<Frame> {
    let frames: Vec<Frame> = traceback.lines().filter_map(frame).collect();
    let own = frames.iter().rposition(is_own);
    own.or(frames.len().checked_sub(1)).map(|at| frames[at].clone())
}

/// The same of what the fault handler prints, which has the innermost frame first.
pub(super) fn fault_frame(tail: &[String]) -> Option<Frame> {
    let start = tail.iter().rposition(|line| line.contains("(most recent call first)"))?;
    let frames: Vec<Frame> = tail[start + 1..].iter().map_while(|line| frame(line)).collect();
    frames.iter().find(|frame| is_own(frame)).or(frames.first()).cloned()
}

fn is_own(frame: &Frame) -> bool {
    frame.file.starts_with(USER_CODE) || !frame.file.starts_with('/')
}

/// `  File "x.py", line 3, in f`, and the fault handler's `  File "x.py", line 3 in f`.
fn frame(line: &str) -> Option<Frame> {
    let rest = line.trim_start_matches([' ', '|', '+']).strip_prefix("File \"")?;
    let (file, rest) = rest.split_once("\", line ")?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(digits);
    let function = rest.trim_start_matches(',').trim().strip_prefix("in ").unwrap_or("<module>");
    Some(Frame { file: file.to_owned(), line: number.parse().ok()?, function: function.trim().to_owned() })
}

/// Name and message of an exception's line, such as `KeyError: 'a'`; modules in front of the name are left out.
pub fn exception_name(line: &str) -> (&str, &str) {
    let (name, message) = line.split_once(':').unwrap_or((line, ""));
    (name.rsplit('.').next().unwrap_or(name).trim(), message.trim())
}

pub(super) fn diagnose(traceback: &Traceback, command: &str) -> Diagnosis {
    let (name, message) = exception_name(&traceback.exception);
    let frame = last_frame(&traceback.text);
    let at = frame.as_ref().map(|frame| format!(" in {frame}")).unwrap_or_default();
    let (sentence, hint) = match special(name, message) {
        Some((sentence, hint)) => (format!("{sentence}: the program raised {name}{at}."), hint),
        None => {
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            let sentence = format!("The program raised {name}{at}{message}");
            (
                sentence,
                "The traceback shows the way to it; the fault is in the program or in what it was given."
                    .to_owned(),
            )
        }
    };
    let mut evidence = source_lines(&traceback.text, frame.as_ref());
    evidence.push(first_line(&traceback.exception).to_owned());
    let place = frame.map(|frame| {
        let file = frame.file.rsplit('/').next().unwrap_or_default().to_owned();
        format!("{file}:{}", frame.function)
    });
    let place = place.unwrap_or_else(|| command.to_owned());
    Diagnosis::new(Cause::Exception, sentence, hint, evidence, &[name, &place, message])
}

/// The frame's own two lines of the traceback.
fn source_lines(text: &str, wanted: Option<&Frame>) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().rposition(|line| wanted.is_some() && frame(line).as_ref() == wanted);
    let Some(at) = at else { return Vec::new() };
    let shown = lines[at..].iter().enumerate().take(2);
    shown
        .filter(|(number, line)| *number == 0 || frame(line).is_none())
        .map(|(_, line)| line.trim().to_owned())
        .collect()
}

/// What exceptions mean that have the same remedy in every program.
fn special(name: &str, message: &str) -> Option<(String, String)> {
    let quoted = || message.split('\'').nth(1).unwrap_or_default();
    match name {
        "ModuleNotFoundError" => {
            let module = quoted();
            let package = module.split('.').next().unwrap_or(module);
            Some((
                format!("The Python module {module:?} is not installed"),
                format!(
                    "Add the package that has it (often {package:?}) to requirements.txt beside the script, or use an image that has \
                     it; if it is a module of yours, put it into the source directory."
                ),
            ))
        }
        "ImportError" => Some((
            format!("An import failed ({message})"),
            "Two packages do not fit each other, or a system library is missing: pin the versions in requirements.txt.".to_owned(),
        )),
        "FileNotFoundError" => {
            let path = quoted();
            let channel = path.strip_prefix("/opt/ml/input/data/").map(|rest| rest.split('/').next().unwrap_or(rest));
            let hint = match channel {
                Some(channel) => format!(
                    "The files of channel {channel:?} are the objects below its S3Uri: compare them with the path, or add the channel \
                     to InputDataConfig."
                ),
                None => "A job sees /opt/ml and its own code; input comes in channels, below /opt/ml/input/data/CHANNEL.".to_owned(),
            };
            Some((format!("The file {path:?} does not exist in the job"), hint))
        }
        "PermissionError" => Some((
            format!("The job may not use a file ({message})"),
            "A job may write below /opt/ml/model, /opt/ml/output, /opt/ml/checkpoints and /tmp; the system and its input are read-only."
                .to_owned(),
        )),
        "SyntaxError" | "IndentationError" | "TabError" => Some((
            format!("The program is not valid Python ({message})"),
            "Check the script with `python -m py_compile` in the image's version of Python.".to_owned(),
        )),
        "RecursionError" => Some((
            format!("The program called itself too deeply ({message})"),
            "Look for a recursion without an end.".to_owned(),
        )),
        "ConnectionError" | "ConnectionRefusedError" | "gaierror" | "NewConnectionError" | "MaxRetryError" | "EndpointConnectionError"
        | "ConnectTimeoutError" | "URLError" => Some((
            format!("A host could not be reached ({})", message.chars().take(200).collect::<String>()),
            "With EnableNetworkIsolation a job has no network at all; without it, it has this machine's. Bring data in by a channel \
             instead of downloading it."
                .to_owned(),
        )),
        "KeyboardInterrupt" => Some((
            "The program was interrupted".to_owned(),
            "Something sent it SIGINT: another process of the job, or a person.".to_owned(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::judged;
    use super::*;
    use crate::workload::Exit;

    const PANDAS: &str = r#"2026-01-01 12:00:00 INFO starting
Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/pandas/core/indexes/base.py", line 3805, in get_loc
    return self._engine.get_loc(casted_key)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
KeyError: 'label'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 41, in <module>
    main()
  File "/opt/ml/code/train.py", line 30, in load
    y = frame['label']
        ~~~~~^^^^^^^^^
  File "/usr/lib/python3.11/site-packages/pandas/core/frame.py", line 4102, in __getitem__
    indexer = self.columns.get_loc(key)
              ^^^^^^^^^^^^^^^^^^^^^^^^^
KeyError: 'label'
"#;

    #[test]
    fn the_users_innermost_frame_is_the_place() {
        let found = judged(&Exit::Code(1), PANDAS);
        assert_eq!(found.cause, Cause::Exception);
        assert_eq!(
            found.sentence,
            "The program raised KeyError in load (/opt/ml/code/train.py, line 30): 'label'"
        );
        assert_eq!(
            found.evidence,
            ["File \"/opt/ml/code/train.py\", line 30, in load", "y = frame['label']", "KeyError: 'label'"]
        );
    }

    #[test]
    fn the_same_fault_at_a_moved_line_is_the_same_cause() {
        let moved = PANDAS.replace("line 30", "line 33").replace("line 4102", "line 4110");
        assert_eq!(judged(&Exit::Code(1), PANDAS).fingerprint, judged(&Exit::Code(1), &moved).fingerprint);
        let other = PANDAS.replace("in load", "in save");
        assert_ne!(judged(&Exit::Code(1), PANDAS).fingerprint, judged(&Exit::Code(1), &other).fingerprint);
    }

    #[test]
    fn common_exceptions_come_with_a_remedy() {
        let raise = |line: &str| {
            judged(
                &Exit::Code(1),
                &format!(
                    "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 1, in <module>\n    x\n{line}"
                ),
            )
        };
        let found = raise("ModuleNotFoundError: No module named 'lightgbm.basic'");
        assert!(
            found.sentence.contains("\"lightgbm.basic\" is not installed")
                && found.hint.contains("\"lightgbm\""),
            "{found:?}"
        );
        let found =
            raise("FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/input/data/train/x.csv'");
        assert!(found.hint.contains("channel \"train\""), "{}", found.hint);
        let found = raise("requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x', port=443)");
        assert!(found.hint.contains("EnableNetworkIsolation"), "{}", found.hint);
        let found = raise("my.package.OddError");
        assert_eq!(found.sentence, "The program raised OddError in <module> (/opt/ml/code/train.py, line 1)");
    }

    #[test]
    fn frames_of_both_spellings_are_read() {
        let plain = frame("  File \"/a b/c.py\", line 12, in <lambda>").unwrap();
        assert_eq!((plain.file.as_str(), plain.line, plain.function.as_str()), ("/a b/c.py", 12, "<lambda>"));
        assert_eq!(frame("  File \"x.py\", line 3 in f").unwrap().function, "f");
        assert_eq!(frame("  File \"x.py\", line 3").unwrap().function, "<module>");
        assert_eq!(frame("    | File \"x.py\", line 3, in g").unwrap().function, "g");
        assert_eq!(frame("    raise ValueError"), None);
        assert_eq!(exception_name("botocore.errorfactory.NoSuchKey: An error"), ("NoSuchKey", "An error"));
    }
}
