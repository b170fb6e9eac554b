//! The journal of a head: what makes an acknowledged sample durable before it is in a segment.
//!
//! A file of frames `length: u32, crc32: u32, payload`. A frame holds the samples of one commit and counts whole or not at all: a
//! torn one at the end of the file is cut off when the file is opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use failpoint::Point;

use super::codec::{self, Reader};
use super::head::{Head, SeriesId};
use super::sample::Sample;

/// Bytes before the payload of a frame.
const FRAME_HEAD_BYTES: usize = 8;
/// Largest payload; a longer one in a file is damage.
const MOST_PAYLOAD_BYTES: usize = 256 * 1024 * 1024;

/// A journal that is open for appending.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Length up to which every frame is whole and on the disk.
    good_bytes: u64,
    /// After a sync that failed nobody knows what the file holds; only a new file can be trusted.
    broken: bool,
}

impl Journal {
    /// Makes an empty journal whose name is on the disk.
    pub(super) fn create(path: PathBuf) -> io::Result<Journal> {
        failpoint::at(Point::MetricJournalCreate)?;
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        sync_folder_of(&path)?;
        Ok(Journal { file, path, good_bytes: 0, broken: false })
    }

    /// Opens a journal that an earlier process wrote, and reads its samples into `head`.
    pub(super) fn reopen(path: PathBuf, head: &mut Head) -> io::Result<Journal> {
        let good_bytes = replay(&path, head)?;
        let mut file = OpenOptions::new().write(true).open(&path)?;
        if file.metadata()?.len() != good_bytes {
            failpoint::at(Point::MetricJournalCut)?;
            file.set_len(good_bytes)?;
            file.sync_all()?;
        }
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(Journal { file, path, good_bytes, broken: false })
    }

    /// Whether nothing can be appended any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a frame and returns when it is on the disk.
    pub(super) fn append(&mut self, batches: &[(SeriesId, Vec<Sample>)]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the journal is closed after a failed write"));
        }
        let frame = frame(batches)?;
        let written = failpoint::write_all(Point::MetricJournalWrite, &mut self.file, &frame);
        if let Err(error) = written {
            // Half a frame must not stay before the next one.
            let cut = self.file.set_len(self.good_bytes).and_then(|()| {
                io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.good_bytes)).map(|_| ())
            });
            self.broken = cut.is_err();
            return Err(error);
        }
        if let Err(error) = failpoint::at(Point::MetricJournalSync).and_then(|()| self.file.sync_data()) {
            self.broken = true;
            return Err(error);
        }
        self.good_bytes += frame.len() as u64;
        Ok(())
    }
}

fn frame(batches: &[(SeriesId, Vec<Sample>)]) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    let mut block = Vec::new();
    for (series, samples) in batches {
        block.clear();
        codec::encode(samples, &mut block);
        codec::put_unsigned(&mut frame, u64::from(*series));
        codec::put_unsigned(&mut frame, samples.len() as u64);
        codec::put_unsigned(&mut frame, block.len() as u64);
        frame.extend_from_slice(&block);
    }
    let payload = &frame[FRAME_HEAD_BYTES..];
    if payload.len() > MOST_PAYLOAD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many samples at once"));
    }
    let (length, sum) = ((payload.len() as u32).to_le_bytes(), crc32fast::hash(payload).to_le_bytes());
    frame[..4].copy_from_slice(&length);
    frame[4..8].copy_from_slice(&sum);
    Ok(frame)
}

/// Reads all whole frames; returns where they end.
fn replay(path: &Path, head: &mut Head) -> io::Result<u64> {
    let mut file = io::BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut good_bytes = 0;
    let mut payload = Vec::new();
    loop {
        let mut start = [0; FRAME_HEAD_BYTES];
        match file.read_exact(&mut start) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let [a, b, c, d, sum @ ..] = start;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MOST_PAYLOAD_BYTES {
            break;
        }
        payload.clear();
        (&mut file).take(length as u64).read_to_end(&mut payload)?;
        if payload.len() < length || crc32fast::hash(&payload) != u32::from_le_bytes(sum) {
            break;
        }
        let Some(batches) = parse(&payload) else { break };
        for (series, samples) in batches {
            head.insert(series, &samples);
        }
        good_bytes += (FRAME_HEAD_BYTES + length) as u64;
    }
    Ok(good_bytes)
}

fn parse(payload: &[u8]) -> Option<Vec<(SeriesId, Vec<Sample>)>> {
    let mut reader = Reader::new(payload);
    let mut batches = Vec::new();
    while !reader.is_empty() {
        let series = SeriesId::try_from(reader.unsigned()?).ok()?;
        let count = usize::try_from(reader.unsigned()?).ok()?;
        let length = usize::try_from(reader.unsigned()?).ok()?;
        let mut samples = Vec::new();
        codec::decode(reader.take(length)?, count, &mut samples)?;
        batches.push((series, samples));
    }
    Some(batches)
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    failpoint::at(Point::MetricFolderSync)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_is_cut_off_and_what_came_before_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(path.clone()).unwrap();
        journal.append(&[(7, vec![Sample::value(1, 1.0), Sample::value(2, 2.0)])]).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        journal.append(&[(7, vec![Sample::value(3, 3.0)]), (8, vec![Sample::value(3, 4.0)])]).unwrap();
        let longer = std::fs::read(&path).unwrap();
        for cut in whole..longer.len() as u64 {
            std::fs::write(&path, &longer[..cut as usize]).unwrap();
            let mut head = Head::default();
            let mut journal = Journal::reopen(path.clone(), &mut head).unwrap();
            assert_eq!((head.len(), head.of(7).len()), (2, 2), "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
            journal.append(&[(9, vec![Sample::value(5, 5.0)])]).unwrap();
            let mut head = Head::default();
            Journal::reopen(path.clone(), &mut head).unwrap();
            assert_eq!(head.of(9), [Sample::value(5, 5.0)]);
        }
        // A flipped bit ends the readable part, too.
        let mut flipped = longer;
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let mut head = Head::default();
        Journal::reopen(path, &mut head).unwrap();
        assert_eq!(head.len(), 2);
    }
}
