//! The format of a segment: blocks of samples, an index of the blocks by series and time, and a tail that says where it is.
//!
//! `MAGIC, block…, entry…, tail`. An entry also sums its block up, so that a period that holds a whole block needs none of its
//! bytes. All numbers are little-endian.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use failpoint::Point;

use super::codec;
use super::head::SeriesId;
use super::journal::sync_folder_of;
use super::sample::Sample;

const MAGIC: &[u8; 8] = b"MYMETRC1";

/// Most samples of a block.
pub(super) const BLOCK_SAMPLES: usize = 1024;

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 80;

/// Bytes of the tail.
const TAIL_BYTES: usize = 40;

/// A block: whose it is, when, where, and the sum of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    pub(super) series: SeriesId,
    pub(super) samples: u32,
    pub(super) first_seconds: i64,
    pub(super) last_seconds: i64,
    offset: u64,
    length: u32,
    crc32: u32,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) minimum: f64,
    pub(super) maximum: f64,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&self.series.to_le_bytes());
        put(&self.samples.to_le_bytes());
        put(&self.first_seconds.to_le_bytes());
        put(&self.last_seconds.to_le_bytes());
        put(&self.offset.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.crc32.to_le_bytes());
        for number in [self.count, self.sum, self.minimum, self.maximum] {
            put(&number.to_bits().to_le_bytes());
        }
        let crc32 = crc32fast::hash(&bytes[..ENTRY_BYTES - 8]);
        bytes[ENTRY_BYTES - 8..ENTRY_BYTES - 4].copy_from_slice(&crc32.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> io::Result<Entry> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().map_err(|_| damaged("an entry is cut off"))?;
        if crc32fast::hash(&bytes[..ENTRY_BYTES - 8]) != word(bytes, ENTRY_BYTES - 8) {
            return Err(damaged("an entry of the index"));
        }
        let number = |at| f64::from_bits(long(bytes, at));
        Ok(Entry {
            series: word(bytes, 0),
            samples: word(bytes, 4),
            first_seconds: long(bytes, 8) as i64,
            last_seconds: long(bytes, 16) as i64,
            offset: long(bytes, 24),
            length: word(bytes, 32),
            crc32: word(bytes, 36),
            count: number(40),
            sum: number(48),
            minimum: number(56),
            maximum: number(64),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a metric segment is damaged: {what}"))
}

/// Writes a segment beside its final name; [`SegmentWriter::finish`] puts it there whole.
pub(super) struct SegmentWriter {
    out: BufWriter<File>,
    path: PathBuf,
    partial: PathBuf,
    offset: u64,
    entries: Vec<Entry>,
    series: SeriesId,
    pending: Vec<Sample>,
    samples: u64,
    block: Vec<u8>,
}

impl SegmentWriter {
    pub(super) fn create(path: PathBuf) -> io::Result<SegmentWriter> {
        let partial = path.with_extension("partial");
        let mut out = BufWriter::with_capacity(1 << 18, File::create(&partial)?);
        out.write_all(MAGIC)?;
        Ok(SegmentWriter {
            out,
            path,
            partial,
            offset: MAGIC.len() as u64,
            entries: Vec::new(),
            series: 0,
            pending: Vec::with_capacity(BLOCK_SAMPLES),
            samples: 0,
            block: Vec::new(),
        })
    }

    /// Adds a sample; they come by series, then by time.
    pub(super) fn push(&mut self, series: SeriesId, sample: Sample) -> io::Result<()> {
        if series != self.series || self.pending.len() == BLOCK_SAMPLES {
            self.end_block()?;
            self.series = series;
        }
        self.pending.push(sample);
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.pending.first(), self.pending.last()) else { return Ok(()) };
        self.block.clear();
        codec::encode(&self.pending, &mut self.block);
        let mut entry = Entry {
            series: self.series,
            samples: self.pending.len() as u32,
            first_seconds: first.at_seconds,
            last_seconds: last.at_seconds,
            offset: self.offset,
            length: self.block.len() as u32,
            crc32: crc32fast::hash(&self.block),
            count: 0.0,
            sum: 0.0,
            minimum: f64::INFINITY,
            maximum: f64::NEG_INFINITY,
        };
        for sample in &self.pending {
            entry.count += sample.count;
            entry.sum += sample.sum;
            entry.minimum = entry.minimum.min(sample.minimum);
            entry.maximum = entry.maximum.max(sample.maximum);
        }
        self.out.write_all(&self.block)?;
        self.offset += self.block.len() as u64;
        self.samples += self.pending.len() as u64;
        self.entries.push(entry);
        self.pending.clear();
        Ok(())
    }

    /// Writes index and tail and gives the file its name; returns when all is on the disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end_block()?;
        for entry in &self.entries {
            self.out.write_all(&entry.to_bytes())?;
        }
        let mut tail = Vec::with_capacity(TAIL_BYTES);
        tail.extend_from_slice(&self.offset.to_le_bytes());
        tail.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        tail.extend_from_slice(&self.samples.to_le_bytes());
        tail.extend_from_slice(&u64::from(crc32fast::hash(&tail)).to_le_bytes());
        tail.extend_from_slice(MAGIC);
        self.out.write_all(&tail)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        failpoint::at(Point::MetricSegmentSync)?;
        file.sync_all()?;
        failpoint::at(Point::MetricSegmentRename)?;
        std::fs::rename(&self.partial, &self.path)?;
        sync_folder_of(&self.path)
    }

    /// Gives up and removes what was written.
    pub(super) fn abandon(self) {
        // What cannot be removed now is removed when the store is opened.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// What the tail of a segment says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    index_offset: u64,
    pub(super) entries: u64,
    pub(super) samples: u64,
}

/// A segment that is open for reading.
pub(super) struct SegmentFile {
    file: File,
    tail: Tail,
}

impl SegmentFile {
    /// Opens a segment and checks its tail.
    pub(super) fn open(path: &Path) -> io::Result<SegmentFile> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let start = length.checked_sub(TAIL_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        let mut bytes = [0; TAIL_BYTES];
        file.read_exact_at(&mut bytes, start)?;
        let tail =
            Tail { index_offset: long(&bytes, 0), entries: long(&bytes, 8), samples: long(&bytes, 16) };
        let sum = u64::from(crc32fast::hash(&bytes[..24]));
        let end = tail
            .entries
            .checked_mul(ENTRY_BYTES as u64)
            .and_then(|index| index.checked_add(tail.index_offset));
        if &bytes[32..] != MAGIC || long(&bytes, 24) != sum || end != Some(start) {
            return Err(damaged("its tail"));
        }
        Ok(SegmentFile { file, tail })
    }

    /// Opens a segment whose tail is known already.
    pub(super) fn reopen(path: &Path, tail: Tail) -> io::Result<SegmentFile> {
        Ok(SegmentFile { file: File::open(path)?, tail })
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    /// Up to `most` entries from position `first` on.
    pub(super) fn entries(&self, first: u64, most: usize) -> io::Result<Vec<Entry>> {
        let count = self.tail.entries.saturating_sub(first).min(most as u64) as usize;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        self.file.read_exact_at(&mut bytes, self.tail.index_offset + first * ENTRY_BYTES as u64)?;
        bytes.chunks_exact(ENTRY_BYTES).map(Entry::parse).collect()
    }

    /// Position of the first entry of a series, or of what follows where there is none.
    pub(super) fn position(&self, series: SeriesId) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.tail.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entries(middle, 1)?;
            if entry.first().is_some_and(|entry| entry.series < series) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Appends the samples of a block to `samples`.
    pub(super) fn block(&self, entry: &Entry, samples: &mut Vec<Sample>) -> io::Result<()> {
        if entry.offset.saturating_add(u64::from(entry.length)) > self.tail.index_offset {
            return Err(damaged("a block outside of the file"));
        }
        let mut bytes = vec![0; entry.length as usize];
        self.file.read_exact_at(&mut bytes, entry.offset)?;
        if crc32fast::hash(&bytes) != entry.crc32 {
            return Err(damaged("a block"));
        }
        codec::decode(&bytes, entry.samples as usize, samples).ok_or_else(|| damaged("a block"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        let mut writer = SegmentWriter::create(path.to_owned()).unwrap();
        for series in [3, 5] {
            for at in 0..2_500 {
                writer.push(series, Sample::value(at, f64::from(at as i32) * f64::from(series))).unwrap();
            }
        }
        writer.finish().unwrap();
    }

    #[test]
    fn series_are_found_and_their_blocks_sum_them_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        write(&path);
        let file = SegmentFile::open(&path).unwrap();
        assert_eq!((file.tail().samples, file.tail().entries), (5_000, 6));
        assert_eq!([1, 3, 4, 5, 6].map(|series| file.position(series).unwrap()), [0, 0, 3, 3, 6]);
        let entries = file.entries(3, 100).unwrap();
        assert_eq!(entries.len(), 3);
        let mut samples = Vec::new();
        for entry in &entries {
            file.block(entry, &mut samples).unwrap();
        }
        assert_eq!(samples.len(), 2_500);
        assert_eq!(entries.iter().map(|entry| entry.sum).sum::<f64>(), 5.0 * (2_499.0 * 2_500.0) / 2.0);
        assert!(!path.with_extension("partial").exists());
    }

    #[test]
    fn damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let damage = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let file = SegmentFile::open(&path)?;
            let mut samples = Vec::new();
            file.entries(0, 100)?.iter().try_for_each(|entry| file.block(entry, &mut samples))
        };
        for at in [20, whole.len() / 2, whole.len() - TAIL_BYTES - 70, whole.len() - 30, whole.len() - 1] {
            assert_eq!(damage(at).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(SegmentFile::open(&path).is_err());
    }
}
