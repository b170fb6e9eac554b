//! Turns a job's output into log lines.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use failpoint::Point;

use crate::log_line::{self, MAX_TEXT_BYTES};

/// Splits a stream of bytes into messages: at newlines, at carriage returns (progress bars) and at the
/// longest length.
#[derive(Default)]
pub struct MessageSplitter {
    partial: Vec<u8>,
    carriage_return: CarriageReturn,
}

/// What the last byte was, as far as it matters for a newline that follows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum CarriageReturn {
    #[default]
    No,
    /// It ended a message; a newline belongs to the same end.
    AfterText,
    /// It stood alone: the start of a progress bar's state, or of the end of an empty line.
    Alone,
}

impl MessageSplitter {
    /// Feeds bytes; `emit` is called with each message that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let before = std::mem::take(&mut self.carriage_return);
            if before != CarriageReturn::No && bytes[0] == b'\n' {
                if before == CarriageReturn::Alone {
                    emit(b"");
                }
                bytes = &bytes[1..];
                continue;
            }
            let room = MAX_TEXT_BYTES - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
                Some(end) => {
                    let is_empty = end == 0 && self.partial.is_empty();
                    if window[end] == b'\r' {
                        self.carriage_return =
                            if is_empty { CarriageReturn::Alone } else { CarriageReturn::AfterText };
                    }
                    if self.carriage_return == CarriageReturn::Alone {
                        // No message: a progress bar starts each of its states with a carriage return.
                    } else if self.partial.is_empty() {
                        emit(&window[..end]);
                    } else {
                        self.partial.extend_from_slice(&window[..end]);
                        emit(&self.partial);
                        self.partial.clear();
                    }
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.partial.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.partial.len() == MAX_TEXT_BYTES {
                        let cut = character_boundary(&self.partial);
                        emit(&self.partial[..cut]);
                        self.partial.drain(..cut);
                    }
                }
            }
        }
    }

    /// Ends the stream: what is left is a message too.
    pub fn finish(&mut self, mut emit: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            emit(&self.partial);
            self.partial.clear();
        }
    }
}

/// The last place in `bytes` that does not cut a UTF-8 character in two.
fn character_boundary(bytes: &[u8]) -> usize {
    let lead = bytes.iter().rev().take(4).position(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let Some(from_end) = lead else { return bytes.len() };
    let start = bytes.len() - 1 - from_end;
    let length = match bytes[start] {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    };
    if start + length > bytes.len() && start > 0 { start } else { bytes.len() }
}

/// Appends a job's output to its log file.
///
/// A failing disk must not block or end the job, so the first error is kept and later output is dropped.
pub struct LogFile {
    file: Option<File>,
    splitter: MessageSplitter,
    encoded: Vec<u8>,
    written_bytes: u64,
    error: Option<String>,
}

impl LogFile {
    /// Bytes written since the opening.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Opens the log for appending, with its directory.
    pub fn open(path: &Path) -> Self {
        let opened = path
            .parent()
            .map_or(Ok(()), |directory| DirBuilder::new().recursive(true).mode(0o750).create(directory))
            .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o640).open(path));
        let (file, error) = match opened {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(format!("The log {} cannot be opened: {error}.", path.display()))),
        };
        Self { file, splitter: MessageSplitter::default(), encoded: Vec::new(), written_bytes: 0, error }
    }

    /// Takes bytes that the job wrote at `timestamp_ms` and writes the complete messages at once.
    pub fn feed(&mut self, bytes: &[u8], timestamp_ms: u64) {
        let encoded = &mut self.encoded;
        self.splitter.feed(bytes, |message| append_message(encoded, timestamp_ms, message));
        self.write_out();
    }

    /// Writes what is left, makes the log durable and tells what went wrong, if anything did.
    pub fn finish(mut self, timestamp_ms: u64) -> Option<String> {
        let encoded = &mut self.encoded;
        self.splitter.finish(|message| append_message(encoded, timestamp_ms, message));
        self.write_out();
        if let Some(Err(error)) = self.file.as_ref().map(sync) {
            self.fail(&error);
        }
        self.error
    }

    fn write_out(&mut self) {
        self.written_bytes += self.encoded.len() as u64;
        if let Some(Err(error)) =
            self.file.as_mut().map(|file| failpoint::write_all(Point::JobLogWrite, file, &self.encoded))
        {
            self.fail(&error);
        }
        self.encoded.clear();
    }

    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        self.error.get_or_insert_with(|| format!("The log could not be written to its end: {error}."));
    }
}

fn sync(file: &File) -> io::Result<()> {
    failpoint::at(Point::JobLogSync)?;
    file.sync_data()
}

fn append_message(encoded: &mut Vec<u8>, timestamp_ms: u64, message: &[u8]) {
    log_line::append(encoded, timestamp_ms, &String::from_utf8_lossy(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = MessageSplitter::default();
        let mut messages = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |message| messages.push(String::from_utf8_lossy(message).into_owned()));
        }
        splitter.finish(|message| messages.push(String::from_utf8_lossy(message).into_owned()));
        messages
    }

    #[test]
    fn messages_end_at_newlines_wherever_the_reads_fall() {
        let text = b"one\ntwo\n\nfour\r\nfive\r\n\r\nlast";
        let expected = ["one", "two", "", "four", "five", "", "last"];
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(split(&chunks), expected, "chunks of {size}");
        }
    }

    #[test]
    fn each_state_of_a_progress_bar_is_a_message() {
        assert_eq!(split(&[b"\r 10%\r 50%\r100%\ndone\n"]), [" 10%", " 50%", "100%", "done"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let text = "é".repeat(MAX_TEXT_BYTES);
        let odd = format!("x{text}\nend\n");
        let messages = split(&[odd.as_bytes()]);
        assert_eq!(messages.last().unwrap(), "end");
        assert!(
            messages.iter().all(|message| message.len() <= MAX_TEXT_BYTES && !message.contains('\u{FFFD}'))
        );
        assert_eq!(messages[..messages.len() - 1].concat(), odd.strip_suffix("\nend\n").unwrap());
    }

    #[test]
    fn a_stream_of_continuation_bytes_still_advances() {
        let junk = vec![0x80; MAX_TEXT_BYTES * 2 + 5];
        let mut total = 0;
        let mut splitter = MessageSplitter::default();
        splitter.feed(&junk, |message| total += message.len());
        splitter.finish(|message| total += message.len());
        assert_eq!(total, junk.len());
    }

    #[test]
    fn an_unwritable_log_is_reported_not_fatal() {
        let mut log = LogFile::open(Path::new("/proc/nowhere/log"));
        log.feed(b"hello\n", 1);
        assert!(log.finish(2).unwrap().contains("cannot be opened"));
    }
}
