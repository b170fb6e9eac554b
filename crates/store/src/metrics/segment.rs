//! Segments: immutable files of samples of one day, found by name, scanned for one series, merged into larger ones.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::aggregate::{Aggregate, Window};
use super::head::{DAY_SECONDS, SeriesId};
use super::sample::Sample;
use super::segment_file::{Entry, SegmentFile, Tail};

/// Entries that a scan reads at a time.
const ENTRIES_AT_ONCE: usize = 64;

/// What the name of a segment says: `<day>-<first>-<last>-<level>.segment`, where `first` and `last` are the generations of the
/// journals that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// Days since 1970.
    pub(super) day: i64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// How often its samples were merged.
    pub(super) level: u32,
}

impl SegmentName {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}-{}-{}.segment", self.day, self.first, self.last, self.level))
    }

    /// Reads a file name; days before 1970 have a second sign.
    pub(super) fn parse(name: &str) -> Option<SegmentName> {
        let mut parts = name.strip_suffix(".segment")?.rsplitn(4, '-');
        let level = parts.next()?.parse().ok()?;
        let last = parts.next()?.parse().ok()?;
        let first = parts.next()?.parse().ok()?;
        let day = parts.next()?.parse().ok()?;
        Some(SegmentName { day, first, last, level })
    }

    /// Whether `self` was merged from `other` and more.
    pub(super) fn replaces(&self, other: &SegmentName) -> bool {
        self.day == other.day
            && self.first <= other.first
            && other.last <= self.last
            && self.level > other.level
    }
}

/// A segment on the disk. One that a merge has replaced goes when its last reader has gone.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    path: PathBuf,
    tail: Tail,
    replaced: AtomicBool,
}

impl Segment {
    pub(super) fn open(folder: &Path, name: SegmentName) -> io::Result<Segment> {
        let path = name.path(folder);
        let tail = SegmentFile::open(&path)?.tail();
        Ok(Segment { name, path, tail, replaced: AtomicBool::new(false) })
    }

    /// How many samples it has.
    pub(super) fn samples(&self) -> u64 {
        self.tail.samples
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Whether it may hold something of a window.
    pub(super) fn overlaps(&self, window: &Window) -> bool {
        let start = self.name.day.saturating_mul(DAY_SECONDS);
        start < window.end_seconds && start.saturating_add(DAY_SECONDS) > window.start_seconds
    }

    /// Has the file removed with the last reader.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::SeqCst);
    }

    /// Adds the samples of a series to the periods of a window.
    pub(super) fn scan(&self, series: SeriesId, periods: &mut Periods) -> io::Result<()> {
        let file = SegmentFile::reopen(&self.path, self.tail)?;
        let mut position = file.position(series)?;
        let mut samples = Vec::new();
        loop {
            let entries = file.entries(position, ENTRIES_AT_ONCE)?;
            for entry in &entries {
                if entry.series != series || entry.first_seconds >= periods.window.end_seconds {
                    return Ok(());
                }
                if entry.last_seconds < periods.window.start_seconds || periods.add_whole(entry) {
                    continue;
                }
                samples.clear();
                file.block(entry, &mut samples)?;
                periods.add_all(&samples);
            }
            if entries.is_empty() {
                return Ok(());
            }
            position += entries.len() as u64;
        }
    }

    /// All samples by series, then by time.
    pub(super) fn stream(&self) -> io::Result<Stream> {
        let file = SegmentFile::reopen(&self.path, self.tail)?;
        let mut stream = Stream { file, position: 0, series: 0, samples: Vec::new(), at: 0 };
        stream.fill()?;
        Ok(stream)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::SeqCst) {
            // A file that stays is recognised as replaced when the store is opened.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Samples of a segment one by one, a block in memory at a time.
pub(super) struct Stream {
    file: SegmentFile,
    position: u64,
    series: SeriesId,
    samples: Vec<Sample>,
    at: usize,
}

impl Stream {
    fn fill(&mut self) -> io::Result<()> {
        self.samples.clear();
        self.at = 0;
        if let Some(entry) = self.file.entries(self.position, 1)?.first() {
            self.position += 1;
            self.series = entry.series;
            self.file.block(entry, &mut self.samples)?;
        }
        Ok(())
    }

    /// The next sample; `None` at the end.
    pub(super) fn peek(&self) -> Option<(SeriesId, Sample)> {
        self.samples.get(self.at).map(|sample| (self.series, *sample))
    }

    /// Takes the next sample.
    pub(super) fn advance(&mut self) -> io::Result<()> {
        self.at += 1;
        if self.at >= self.samples.len() { self.fill() } else { Ok(()) }
    }
}

/// The periods of a window with what has been found for each.
pub(super) struct Periods {
    pub(super) window: Window,
    with_distribution: bool,
    pub(super) found: BTreeMap<i64, Aggregate>,
}

impl Periods {
    pub(super) fn new(window: Window, with_distribution: bool) -> Periods {
        Periods { window, with_distribution, found: BTreeMap::new() }
    }

    fn period(&mut self, start_seconds: i64) -> &mut Aggregate {
        let with_distribution = self.with_distribution;
        self.found.entry(start_seconds).or_insert_with(|| Aggregate::empty(with_distribution))
    }

    pub(super) fn add_all(&mut self, samples: &[Sample]) {
        for sample in samples {
            if self.window.contains(sample.at_seconds) {
                self.period(self.window.period_of(sample.at_seconds)).add(sample);
            }
        }
    }

    /// Adds a block by its sum where it lies in one period and nobody asks for its values.
    fn add_whole(&mut self, entry: &Entry) -> bool {
        let (first, last) = (entry.first_seconds, entry.last_seconds);
        let inside = self.window.contains(first) && self.window.contains(last);
        let start = self.window.period_of(first);
        if self.with_distribution || !inside || start != self.window.period_of(last) {
            return false;
        }
        let (count, sum, minimum, maximum) = (entry.count, entry.sum, entry.minimum, entry.maximum);
        self.period(start).add(&Sample { at_seconds: first, count, sum, minimum, maximum });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            SegmentName { day: 20_000, first: 1, last: 8, level: 1 },
            SegmentName { day: -3, first: u64::MAX, last: u64::MAX, level: 0 },
        ] {
            let path = name.path(Path::new(""));
            assert_eq!(SegmentName::parse(path.to_str().unwrap()), Some(name));
        }
        for name in ["1-2-3.segment", "1-2-3-4.partial", "x-2-3-4.segment", ".segment"] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
        let merged = SegmentName { day: 1, first: 1, last: 8, level: 1 };
        assert!(merged.replaces(&SegmentName { day: 1, first: 8, last: 8, level: 0 }));
        assert!(!merged.replaces(&SegmentName { day: 2, first: 8, last: 8, level: 0 }));
        assert!(!merged.replaces(&merged));
    }
}
