//! Records of an object as it is read: lines, RecordIO, TFRecord, or the object as one record. Memory is bounded by one record.

mod line;
mod record_io;
mod tf_record;

use std::io::{self, Read};
use std::ops::Range;

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of a long record that are read at a time.
const MOST_BLOCK_BYTES: usize = 8 << 20;

/// How objects are split, as `SplitType` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// An object is a record.
    None,
    /// A line is a record, whatever quotes are in it.
    Line,
    /// MXNet's framing.
    RecordIo,
    /// TensorFlow's framing.
    TfRecord,
}

/// Why an object cannot be split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The object cannot be read.
    #[error("the object cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A record is longer than it may be.
    #[error("Too much data for max payload size: record {record} is longer than {most_bytes} bytes")]
    TooLong {
        /// Counted from 1.
        record: u64,
        /// The limit.
        most_bytes: usize,
    },
    /// The framing is broken.
    #[error("record {record} at byte {offset}: {problem}")]
    Broken {
        /// Counted from 1.
        record: u64,
        /// Where the record begins.
        offset: u64,
        /// What is wrong, as the end of a sentence.
        problem: &'static str,
    },
}

/// A record within what was read.
pub struct Record<'a> {
    /// With its framing, or the end of its line.
    pub framed: &'a [u8],
    /// Its content; that of a RecordIO record in pieces, with what is left out between them.
    pub content: Content<'a>,
}

/// The content of a record.
pub enum Content<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// Put together.
    Joined(Vec<u8>),
}

impl Content<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Content::Whole(bytes) => bytes,
            Content::Joined(bytes) => bytes,
        }
    }
}

/// Where a record lies in the buffer, and where its pieces are in it.
struct Found {
    framed: Range<usize>,
    pieces: Vec<Range<usize>>,
}

impl Found {
    /// A record of `bytes` bytes with its content in one piece.
    fn whole(bytes: usize, content: Range<usize>) -> Found {
        Found { framed: 0..bytes, pieces: std::iter::once(content).collect() }
    }
}

/// What a look at the buffer comes to.
enum Look {
    Record(Found),
    /// Nothing, for as many bytes.
    Skip(usize),
    /// At least so many bytes from the record's beginning are needed.
    More(usize),
    Broken(&'static str),
}

/// Reads an object record by record.
pub struct Records<R> {
    source: R,
    split: Split,
    most_bytes: usize,
    buffer: Vec<u8>,
    start: usize,
    /// Of `start`, in the object.
    offset: u64,
    is_at_end: bool,
    /// How many bytes from `start` hold no end of a line.
    scanned: usize,
    number: u64,
}

impl<R: Read> Records<R> {
    /// Goes on behind `offset` bytes and `number` records; the source stands there already.
    pub fn new(source: R, split: Split, most_bytes: usize, offset: u64, number: u64) -> Records<R> {
        let (buffer, start, scanned) = (Vec::new(), 0, 0);
        Records { source, split, most_bytes, buffer, start, offset, is_at_end: false, scanned, number }
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; lines without content are none.
    ///
    /// # Errors
    /// As [`SplitError`] says.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, SplitError> {
        let found = loop {
            let ahead = &self.buffer[self.start..];
            if ahead.is_empty() && self.is_at_end && (self.split != Split::None || self.number > 0) {
                return Ok(None);
            }
            let look = match self.split {
                Split::None if self.is_at_end => Look::Record(Found::whole(ahead.len(), 0..ahead.len())),
                Split::None => Look::More(ahead.len() + 1),
                Split::Line => line::look(ahead, &mut self.scanned, self.is_at_end),
                Split::RecordIo => record_io::look(ahead),
                Split::TfRecord => tf_record::look(ahead),
            };
            let broken =
                |problem| SplitError::Broken { record: self.number + 1, offset: self.offset, problem };
            match look {
                Look::Record(found) => break found,
                Look::Skip(bytes) => self.advance(bytes),
                Look::Broken(problem) => return Err(broken(problem)),
                Look::More(_) if self.is_at_end => return Err(broken("the object ends within a record")),
                Look::More(bytes) if bytes.saturating_sub(1) > self.most_bytes => {
                    return Err(SplitError::TooLong { record: self.number + 1, most_bytes: self.most_bytes });
                }
                Look::More(bytes) => self.fill(bytes)?,
            }
        };
        let start = self.start;
        let length = found.framed.end;
        let content: usize = found.pieces.iter().map(Range::len).sum();
        if content > self.most_bytes {
            return Err(SplitError::TooLong { record: self.number + 1, most_bytes: self.most_bytes });
        }
        self.advance(length);
        self.number += 1;
        let within = |range: &Range<usize>| &self.buffer[start + range.start..start + range.end];
        let content = match found.pieces.as_slice() {
            [one] => Content::Whole(within(one)),
            pieces => Content::Joined(record_io::join(pieces.iter().map(within))),
        };
        Ok(Some(Record { framed: within(&found.framed), content }))
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
        self.scanned = 0;
    }

    /// Reads until so many bytes lie ahead, or the object ends.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        while self.buffer.len() < bytes && !self.is_at_end {
            let had = self.buffer.len();
            let wanted = (bytes - had).clamp(BLOCK_BYTES, MOST_BLOCK_BYTES);
            let read = (&mut self.source).take(wanted as u64).read_to_end(&mut self.buffer)?;
            self.is_at_end = read < wanted;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// A record with its framing, and its content.
    type Pair = (Vec<u8>, Vec<u8>);

    fn records(data: &[u8], split: Split, most_bytes: usize) -> Result<Vec<Pair>, String> {
        let mut found = Vec::new();
        let mut records = Records::new(Trickle(data, 3), split, most_bytes, 0, 0);
        while let Some(record) = records.next().map_err(|error| error.to_string())? {
            found.push((record.framed.to_vec(), record.content.bytes().to_vec()));
        }
        Ok(found)
    }

    fn contents(data: &[u8], split: Split) -> Result<Vec<String>, String> {
        let found = records(data, split, 1000)?;
        Ok(found.into_iter().map(|(_, content)| String::from_utf8(content).unwrap()).collect())
    }

    #[test]
    fn lines_end_where_they_end_whatever_is_quoted() {
        let data = b"1,\"a\nb\",2\r\n\n\r\n3\n4";
        assert_eq!(contents(data, Split::Line).unwrap(), ["1,\"a", "b\",2", "3", "4"]);
        let framed: Vec<u8> =
            records(data, Split::Line, 1000).unwrap().into_iter().flat_map(|(framed, _)| framed).collect();
        assert_eq!(framed, b"1,\"a\nb\",2\r\n3\n4");
        assert!(contents(b"", Split::Line).unwrap().is_empty());
    }

    #[test]
    fn a_split_goes_on_where_it_was_left() {
        let data: Vec<u8> = (0..100_000).flat_map(|number| format!("{number},x\n").into_bytes()).collect();
        let mut records = Records::new(&data[..], Split::Line, 100, 0, 0);
        for _ in 0..70_001 {
            records.next().unwrap().unwrap();
        }
        let offset = records.offset();
        let mut later = Records::new(&data[offset as usize..], Split::Line, 100, offset, 70_001);
        assert_eq!(later.next().unwrap().unwrap().content.bytes(), b"70001,x");
        let mut count = 1;
        while later.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!((count, later.offset()), (29_999, data.len() as u64));
    }

    #[test]
    fn an_object_is_a_record_when_it_is_not_split() {
        assert_eq!(contents(b"a\nb\n", Split::None).unwrap(), ["a\nb\n"]);
        assert_eq!(contents(b"", Split::None).unwrap(), [""]);
    }

    #[test]
    fn records_have_a_limit() {
        let problem = records(b"12345\n123456\n", Split::Line, 5).unwrap_err();
        assert!(problem.contains("Too much data for max payload size: record 2"), "{problem}");
        assert!(records(b"123456", Split::None, 5).is_err());
        assert!(records(b"12345", Split::None, 5).is_ok());
        let endless = vec![b'x'; 4 << 20];
        assert!(records(&endless, Split::Line, 1 << 20).is_err());
    }

    #[test]
    fn record_io_puts_the_magic_number_back() {
        let mut data = record_io::tests::frame(0, b"one");
        data.extend(record_io::tests::frame(1, b"four"));
        data.extend(record_io::tests::frame(2, b"five"));
        data.extend(record_io::tests::frame(3, b"six"));
        let found = records(&data, Split::RecordIo, 1000).unwrap();
        let mut joined = b"four".to_vec();
        for piece in [b"five".as_slice(), b"six"] {
            joined.extend(0xced7_230a_u32.to_le_bytes());
            joined.extend(piece);
        }
        assert_eq!(
            found.iter().map(|(_, content)| content.clone()).collect::<Vec<_>>(),
            [b"one".to_vec(), joined]
        );
        assert_eq!(found.into_iter().flat_map(|(framed, _)| framed).collect::<Vec<_>>(), data);
        for broken in [&data[..5], &data[..data.len() - 1], b"not the magic number", &data[12..14]] {
            assert!(contents(broken, Split::RecordIo).is_err());
        }
        // A piece without a beginning, and a beginning without an end.
        assert!(contents(&record_io::tests::frame(2, b"x"), Split::RecordIo).is_err());
        let mut cut = record_io::tests::frame(1, b"x");
        cut.extend(record_io::tests::frame(0, b"y"));
        assert!(contents(&cut, Split::RecordIo).unwrap_err().contains("piece"));
    }

    #[test]
    fn tf_records_have_check_sums() {
        let mut data = tf_record::tests::frame(b"first");
        data.extend(tf_record::tests::frame(b""));
        data.extend(tf_record::tests::frame(b"third"));
        assert_eq!(contents(&data, Split::TfRecord).unwrap(), ["first", "", "third"]);
        for at in [0, 8, 12, 17] {
            let mut broken = data.clone();
            broken[at] ^= 1;
            assert!(contents(&broken, Split::TfRecord).unwrap_err().contains("check sum"), "{at}");
        }
        assert!(contents(&data[..data.len() - 1], Split::TfRecord).unwrap_err().contains("ends within"));
    }
}
