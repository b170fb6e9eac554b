//! The format of a stream file: one event per line, `<ms since 1970> <text>\n`.
//!
//! In the text, `\`, newline and carriage return are escaped as `\\`, `\n` and `\r`. Where an event was taken in at another time
//! than its own, the difference follows the timestamp: `1700000000123+4500 text`. Job supervisors write the short form.

use std::io::Write;

/// When an event happened and when it was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Milliseconds since 1970.
    pub ingested_ms: i64,
}

/// Appends the line for one event to `buffer`. The timestamp must not be negative.
pub fn append(buffer: &mut Vec<u8>, stamp: Stamp, text: &str) {
    let delay_ms = stamp.ingested_ms - stamp.timestamp_ms;
    let written = match delay_ms {
        0 => write!(buffer, "{} ", stamp.timestamp_ms),
        delay_ms => write!(buffer, "{}{delay_ms:+} ", stamp.timestamp_ms),
    };
    written.expect("writing to memory cannot fail");
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped: &[u8] = match byte {
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            _ => continue,
        };
        buffer.extend_from_slice(&text.as_bytes()[plain_from..at]);
        buffer.extend_from_slice(escaped);
        plain_from = at + 1;
    }
    buffer.extend_from_slice(&text.as_bytes()[plain_from..]);
    buffer.push(b'\n');
}

/// Splits a line (without its newline) into its stamp and the escaped text; `None` where it is not an event.
pub fn parse(line: &[u8]) -> Option<(Stamp, &[u8])> {
    let (timestamp_ms, rest) = number(line)?;
    let (sign, rest) = rest.split_first()?;
    let factor = match sign {
        b' ' => return Some((Stamp { timestamp_ms, ingested_ms: timestamp_ms }, rest)),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (delay_ms, rest) = number(rest)?;
    let text = rest.strip_prefix(b" ")?;
    Some((Stamp { timestamp_ms, ingested_ms: timestamp_ms + factor * delay_ms }, text))
}

/// Undoes the escapes of a text. What no writer of ours writes stays as it is: better odd than lost.
pub fn unescape(escaped: &[u8]) -> String {
    if !escaped.contains(&b'\\') {
        return String::from_utf8_lossy(escaped).into_owned();
    }
    let mut text = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let replaced = match (byte, bytes.peek()) {
            (b'\\', Some(b'\\')) => Some(b'\\'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            _ => None,
        };
        text.push(replaced.unwrap_or(byte));
        if replaced.is_some() {
            bytes.next();
        }
    }
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Digits at the start; at most 15, which holds every time a client can send and never overflows.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0;
    let mut length = 0;
    while let Some(digit) = bytes.get(length).filter(|byte| byte.is_ascii_digit()) {
        if length == 15 {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
        length += 1;
    }
    (length > 0).then(|| (value, &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(timestamp_ms: i64, ingested_ms: i64, text: &str) -> String {
        let mut buffer = Vec::new();
        append(&mut buffer, Stamp { timestamp_ms, ingested_ms }, text);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn lines_survive_a_round_trip() {
        for text in ["", "plain", "a\\nb", "two\nlines\r", "\\", "é 🦀", " spaces ", "\\\\n"] {
            for ingested_ms in [5_000, 4_999, 123_456] {
                let line = line(5_000, ingested_ms, text);
                let (stamp, escaped) = parse(line.strip_suffix('\n').unwrap().as_bytes()).unwrap();
                assert_eq!(stamp, Stamp { timestamp_ms: 5_000, ingested_ms });
                assert_eq!(unescape(escaped), text);
                assert_eq!(line.matches('\n').count(), 1);
            }
        }
        assert_eq!(line(5, 5, "a\n\\b\r"), "5 a\\n\\\\b\\r\n");
        assert_eq!(line(5, 7, "x"), "5+2 x\n");
    }

    #[test]
    fn other_lines_are_no_events() {
        for text in ["", "x", "12", "abc def", "-5 x", "12+ x", "12+3", "12*3 x", "1700000000123170000 glued"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn odd_escapes_and_bytes_are_kept() {
        assert_eq!(unescape(b"a\\xb\\"), "a\\xb\\");
        assert_eq!(unescape(b"a\xFFb"), "a\u{FFFD}b");
        assert_eq!(unescape(b"a\\n\xFFb"), "a\n\u{FFFD}b");
    }
}
