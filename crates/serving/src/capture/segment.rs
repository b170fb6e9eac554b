//! A segment: a file of the spool that becomes one piece of captured data.
//!
//! Its first line says what it is. Each other line is one captured invocation: its latency in microseconds, a space, its text.
//! A line counts when its line feed is there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::latencies::Latencies;

/// How file names of segments end.
pub(super) const SUFFIX: &str = ".segment";

/// The first line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) variant: String,
    pub(super) started_at_ms: i64,
    pub(super) id: String,
}

/// A segment that takes no more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    /// Where the last whole line ends.
    pub(super) bytes: u64,
    /// The variant that answered.
    pub variant: String,
    /// When its first invocation was answered, milliseconds since 1970.
    pub started_at_ms: i64,
    /// A unique id, the same each time the segment is delivered.
    pub id: String,
    /// How many invocations are in it.
    pub lines: u64,
}

impl Segment {
    /// Gives each line to `write`, with its line feed, and returns the latencies of all.
    ///
    /// # Errors
    /// Those of the file, and of `write`.
    pub fn read(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Latencies> {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(&self.path)?.take(self.bytes));
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let mut latencies = Latencies::default();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(latencies);
            }
            let (microseconds, text) = parted(&line).ok_or(io::ErrorKind::InvalidData)?;
            latencies.add(microseconds);
            write(text)?;
        }
    }

    /// Finds out what an earlier process left in a file; `None` when not even its first line is whole.
    pub(super) fn recover(path: &Path, number: u64) -> io::Result<Option<Segment>> {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let head: Option<Head> = line.strip_suffix(b"\n").and_then(|text| serde_json::from_slice(text).ok());
        let Some(Head { variant, started_at_ms, id }) = head else { return Ok(None) };
        let (mut bytes, mut lines) = (line.len() as u64, 0);
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            // A crash of the machine may leave anything behind the last line that was forced to the disk.
            let is_whole = line.ends_with(b"\n")
                && parted(&line)
                    .is_some_and(|(_, text)| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok());
            if !is_whole {
                break;
            }
            bytes += line.len() as u64;
            lines += 1;
        }
        let path = path.to_owned();
        Ok(Some(Segment { path, number, bytes, variant, started_at_ms, id, lines }))
    }
}

/// Latency and text of a line.
fn parted(line: &[u8]) -> Option<(u64, &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let microseconds = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    Some((microseconds, &line[space + 1..]))
}

/// The name of the file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number in the name of a segment's file.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_at_the_end_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(12));
        assert_eq!(number_of(&path), Some(12));
        let head = r#"{"variant":"a","started_at_ms":5,"id":"i"}"#;
        let good = format!("{head}\n10 {{\"n\":1}}\n20 {{\"n\":2}}\n");
        for tail in ["", "30 {\"n\":3", "30 {\"n\":3}", "\0\0\0\0\n\0", "x {}\n40 {}\n"] {
            std::fs::write(&path, format!("{good}{tail}")).unwrap();
            let segment = Segment::recover(&path, 12).unwrap().unwrap();
            assert_eq!(
                (segment.lines, segment.bytes, &*segment.variant),
                (2, good.len() as u64, "a"),
                "{tail:?}"
            );
            let mut text = Vec::new();
            let latencies = segment.read(|line| {
                text.extend_from_slice(line);
                Ok(())
            });
            let latencies = latencies.unwrap();
            assert_eq!((text.as_slice(), latencies.count()), (&b"{\"n\":1}\n{\"n\":2}\n"[..], 2));
        }
        for nothing in ["", "{\"variant\":\"a\"", "nonsense\n"] {
            std::fs::write(&path, nothing).unwrap();
            assert_eq!(Segment::recover(&path, 12).unwrap(), None);
        }
    }
}
