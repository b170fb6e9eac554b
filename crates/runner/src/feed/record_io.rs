//! MXNet's RecordIO framing, as dmlc-core defines it: a magic number, three bits of kind and 29 bits of length, the content,
//! zeros up to a multiple of four. Where the content itself has the magic number at a multiple of four, it is cut there, and
//! the number left out: the reader puts it back between the pieces.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 4] = 0xced7_230a_u32.to_le_bytes();

/// The longest content of a record; its length has 29 bits.
pub const MAX_RECORD_BYTES: u64 = (1 << 29) - 1;

const WINDOW_BYTES: usize = 1 << 18;

/// What a record's content is read from, any number of times.
pub(super) enum Content<'a> {
    Text(&'a [u8]),
    File { file: &'a File, bytes: u64 },
}

impl Content<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Content::Text(text) => text.len() as u64,
            Content::File { bytes, .. } => *bytes,
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Content::Text(text) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                buffer.copy_from_slice(&text[start..start + buffer.len()]);
                Ok(())
            }
            Content::File { file, .. } => file.read_exact_at(buffer, offset),
        }
    }
}

/// Writes one record.
///
/// # Errors
/// When the content is longer than [`MAX_RECORD_BYTES`], changes meanwhile, or cannot be read or written.
pub(super) fn write(content: &Content<'_>, output: &mut impl Write) -> io::Result<()> {
    let total = content.bytes();
    if total > MAX_RECORD_BYTES {
        return Err(io::Error::other(format!(
            "it has {total} bytes, and a RecordIO record holds {MAX_RECORD_BYTES}: make it smaller or leave \
             RecordWrapperType out"
        )));
    }
    let mut scan = Scan { content, total, at: 0, window: vec![0; window_bytes(total)], start: 0, filled: 0 };
    let mut copied = vec![0; window_bytes(total)];
    let mut start = 0;
    loop {
        let cut = scan.next_magic()?;
        let end = cut.unwrap_or(total);
        let kind: u32 = match (start == 0, cut) {
            (true, None) => 0,
            (true, Some(_)) => 1,
            (false, Some(_)) => 2,
            (false, None) => 3,
        };
        let length = end - start;
        output.write_all(&MAGIC)?;
        // The length was checked to fit.
        output.write_all(&(kind << 29 | length as u32).to_le_bytes())?;
        while start < end {
            let count = copied.len().min(usize::try_from(end - start).unwrap_or(usize::MAX));
            content.read_at(&mut copied[..count], start)?;
            output.write_all(&copied[..count])?;
            start += count as u64;
        }
        output.write_all(&[0; 3][..((4 - length % 4) % 4) as usize])?;
        match cut {
            None => return Ok(()),
            Some(cut) => start = cut + 4,
        }
    }
}

fn window_bytes(total: u64) -> usize {
    WINDOW_BYTES.min(usize::try_from(total).unwrap_or(WINDOW_BYTES)).max(4)
}

/// Finds the magic number in content, ahead of what is written.
struct Scan<'a> {
    content: &'a Content<'a>,
    total: u64,
    at: u64,
    window: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Scan<'_> {
    fn next_magic(&mut self) -> io::Result<Option<u64>> {
        while self.at + 4 <= self.total {
            if self.at >= self.start + self.filled as u64 {
                let whole_words = (self.total - self.at) / 4 * 4;
                let room = self.window.len() / 4 * 4;
                self.filled = room.min(usize::try_from(whole_words).unwrap_or(room));
                self.start = self.at;
                self.content.read_at(&mut self.window[..self.filled], self.start)?;
            }
            let from = usize::try_from(self.at - self.start).unwrap_or(0);
            let words = self.window[from..self.filled].as_chunks::<4>().0;
            match words.iter().position(|word| *word == MAGIC) {
                Some(index) => {
                    let found = self.at + index as u64 * 4;
                    self.at = found + 4;
                    return Ok(Some(found));
                }
                None => self.at = self.start + self.filled as u64,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        write(&Content::Text(content), &mut text).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let mut from_file = Vec::new();
        write(&Content::File { file: &file, bytes: content.len() as u64 }, &mut from_file).unwrap();
        assert_eq!(text, from_file);
        text
    }

    /// Reads records as the format says, not as they were written here.
    fn read(mut stream: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut open: Option<Vec<u8>> = None;
        while !stream.is_empty() {
            assert_eq!(stream[..4], MAGIC);
            let header = u32::from_le_bytes(stream[4..8].try_into().unwrap());
            let length = (header & 0x1fff_ffff) as usize;
            let content = &stream[8..8 + length];
            match header >> 29 {
                0 => records.push(content.to_vec()),
                1 => open = Some(content.to_vec()),
                kind => {
                    let mut whole = open.take().unwrap();
                    whole.extend_from_slice(&MAGIC);
                    whole.extend_from_slice(content);
                    if kind == 3 { records.push(whole) } else { open = Some(whole) }
                }
            }
            stream = &stream[8 + length.div_ceil(4) * 4..];
        }
        assert_eq!(open, None);
        records
    }

    #[test]
    fn a_record_has_the_documented_bytes() {
        assert_eq!(record(b"hello"), b"\x0a\x23\xd7\xce\x05\0\0\0hello\0\0\0");
        assert_eq!(record(b""), b"\x0a\x23\xd7\xce\0\0\0\0");
    }

    #[test]
    fn content_that_looks_like_a_header_survives() {
        let long: Vec<u8> = (0..WINDOW_BYTES + 7).map(|index| index as u8).collect();
        let cases: Vec<Vec<u8>> = vec![
            b"1".to_vec(),
            MAGIC.to_vec(),
            [&MAGIC[..], &MAGIC, b"xy"].concat(),
            [b"abcd", &MAGIC[..], b"efgh", &MAGIC, b"i"].concat(),
            // Not at a multiple of four: nothing to hide.
            [b"a", &MAGIC[..], b"bcd"].concat(),
            [&long[..WINDOW_BYTES - 4], &MAGIC, &MAGIC, &long].concat(),
            long,
        ];
        for case in &cases {
            assert_eq!(read(&record(case)), std::slice::from_ref(case));
        }
        let stream: Vec<u8> = cases.iter().flat_map(|case| record(case)).collect();
        assert_eq!(read(&stream), cases);
        assert_eq!(read(&record(&cases[4])).len(), 1);
        assert_eq!(record(&cases[4])[7] >> 5, 0);
    }

    #[test]
    fn what_is_too_long_is_refused_before_anything_is_written() {
        let file = tempfile::tempfile().unwrap();
        let mut written = Vec::new();
        let content = Content::File { file: &file, bytes: MAX_RECORD_BYTES + 1 };
        let error = write(&content, &mut written).unwrap_err();
        assert!(error.to_string().contains("RecordIO") && written.is_empty(), "{error}");
    }
}
