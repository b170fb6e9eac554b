//! The format of a log's lines: `<ms since 1970> <text>\n`; `\`, newline and carriage return are escaped.

use std::io::Write;

/// The longest text of one line, in bytes before escaping; longer messages are split.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;

/// Encodes one message as one line, with its newline.
pub fn encode(timestamp_ms: u64, text: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len() + 16);
    append(&mut line, timestamp_ms, text);
    line
}

/// Appends the line for one message to `buffer`.
pub fn append(buffer: &mut Vec<u8>, timestamp_ms: u64, text: &str) {
    write!(buffer, "{timestamp_ms} ").expect("writing to memory cannot fail");
    for byte in text.bytes() {
        match byte {
            b'\\' => buffer.extend_from_slice(b"\\\\"),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            other => buffer.push(other),
        }
    }
    buffer.push(b'\n');
}

/// Decodes one line (with or without its newline) into timestamp and text; `None` if it is not in the format.
pub fn decode(line: &str) -> Option<(u64, String)> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let (timestamp, escaped) = line.split_once(' ')?;
    let mut text = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            }),
            '\n' | '\r' => return None,
            other => text.push(other),
        }
    }
    Some((timestamp.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_survive_a_round_trip() {
        for text in ["", "plain", "a\\nb", "two\nlines\r", "\\", "é 🦀", "trailing space "] {
            let line = String::from_utf8(encode(1_700_000_000_123, text)).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert_eq!(decode(&line), Some((1_700_000_000_123, text.to_owned())));
        }
        assert_eq!(encode(5, "a\n\\b\r"), b"5 a\\n\\\\b\\r\n");
    }

    #[test]
    fn lines_in_another_format_are_refused() {
        for line in ["", "x", "12", "abc def", "12 bad \\x escape", "12 open \\"] {
            assert_eq!(decode(line), None, "{line:?}");
        }
    }
}
