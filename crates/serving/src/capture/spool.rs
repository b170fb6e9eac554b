//! The spool of one endpoint: captured invocations as lines in segments, one segment for each variant and hour at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use failpoint::Point;
use tokio::time::Instant;

use super::plan::CaptureFormat;
use super::queue::{Queued, Share};
use super::segment::{self, Head, Segment};

/// Lines that are gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;
/// A segment of this size ends.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A segment that gets nothing for so long ends: what little traffic there is shall be seen soon.
const QUIET: Duration = Duration::from_secs(3);
/// A segment ends after this time.
const SEGMENT_AGE: Duration = Duration::from_secs(60);
const MILLISECONDS_PER_HOUR: i64 = 3_600_000;

/// Segments that grow.
pub(super) struct Spool {
    folder: PathBuf,
    format: Arc<dyn CaptureFormat>,
    growing: BTreeMap<(String, i64), Growing>,
    next_number: u64,
}

/// A segment that takes lines.
struct Growing {
    head: Head,
    file: Option<(File, PathBuf, u64)>,
    good_bytes: u64,
    lines: u64,
    /// Lines that are not in the file yet, how many, and their part of the memory.
    gathered: Vec<u8>,
    gathered_lines: u64,
    shares: Vec<Share>,
    is_synced: bool,
    is_name_synced: bool,
    started_at: Instant,
    written_at: Instant,
}

impl Spool {
    /// A spool without segments.
    pub(super) fn new(folder: PathBuf, format: Arc<dyn CaptureFormat>) -> Spool {
        Spool { folder, format, growing: BTreeMap::new(), next_number: 1 }
    }

    /// Takes captured invocations. All of them are taken, even on an error: then some are still in memory, for
    /// [`Spool::write`] to try again.
    pub(super) fn append(&mut self, queued: Vec<Queued>) -> io::Result<()> {
        let now = Instant::now();
        let mut written = Ok(());
        for Queued { captured, share } in queued {
            let hour = captured.at_ms.div_euclid(MILLISECONDS_PER_HOUR);
            let growing = self.growing.entry((captured.variant.clone(), hour)).or_insert_with(|| Growing {
                head: Head {
                    variant: captured.variant.clone(),
                    started_at_ms: captured.at_ms,
                    id: uuid::Uuid::new_v4().to_string(),
                },
                file: None,
                good_bytes: 0,
                lines: 0,
                gathered: Vec::new(),
                gathered_lines: 0,
                shares: Vec::new(),
                is_synced: true,
                is_name_synced: false,
                started_at: now,
                written_at: now,
            });
            let latency_microseconds = u64::try_from(captured.latency.as_micros()).unwrap_or(u64::MAX);
            // Writing to memory cannot fail.
            let _ = write!(growing.gathered, "{latency_microseconds} ");
            self.format.write(&captured, &mut growing.gathered);
            growing.gathered.push(b'\n');
            growing.gathered_lines += 1;
            growing.shares.push(share);
            growing.written_at = now;
            if growing.gathered.len() >= GATHERED_BYTES && written.is_ok() {
                written = growing.write(&self.folder, &mut self.next_number);
            }
        }
        written.and_then(|()| self.write())
    }

    /// Writes what is gathered.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut written = Ok(());
        for growing in self.growing.values_mut() {
            let this = growing.write(&self.folder, &mut self.next_number);
            written = written.and(this);
        }
        written
    }

    /// Forces what was written to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut synced = Ok(());
        for growing in self.growing.values_mut() {
            let this = growing.sync();
            synced = synced.and(this);
        }
        synced
    }

    /// Whether anything waits to be written or forced to the disk.
    pub(super) fn is_unsynced(&self) -> bool {
        self.growing.values().any(|growing| !growing.is_synced || !growing.gathered.is_empty())
    }

    /// When the next segment ends if nothing more comes.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.growing.values().map(Growing::ends_at).min()
    }

    /// Takes out the segments that are to end, or all of them. Those that cannot be written and synced stay.
    pub(super) fn take_ended(&mut self, are_all: bool, hour: i64) -> (Vec<Segment>, io::Result<()>) {
        let (now, mut result) = (Instant::now(), Ok(()));
        let mut ended = Vec::new();
        let wanted: Vec<_> = self
            .growing
            .iter()
            .filter(|((_, of_hour), growing)| {
                are_all || *of_hour < hour || growing.good_bytes >= SEGMENT_BYTES || growing.ends_at() <= now
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in wanted {
            let Some(growing) = self.growing.get_mut(&key) else { continue };
            let kept = growing.write(&self.folder, &mut self.next_number).and_then(|()| growing.sync());
            if let Err(error) = kept {
                result = Err(error);
                continue;
            }
            if let Some(Growing { head, file: Some((_, path, number)), good_bytes, lines, .. }) =
                self.growing.remove(&key)
            {
                let Head { variant, started_at_ms, id } = head;
                ended.push(Segment { path, number, bytes: good_bytes, variant, started_at_ms, id, lines });
            }
        }
        ended.sort_by_key(|segment| segment.number);
        (ended, result)
    }

    /// The hour of a time in milliseconds since 1970, as [`Spool::take_ended`] counts hours.
    pub(super) fn hour(at_ms: i64) -> i64 {
        at_ms.div_euclid(MILLISECONDS_PER_HOUR)
    }
}

impl Growing {
    fn ends_at(&self) -> Instant {
        (self.started_at + SEGMENT_AGE).min(self.written_at + QUIET)
    }

    fn write(&mut self, folder: &Path, next_number: &mut u64) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let (file, ..) = match &mut self.file {
            Some(file) => file,
            None => {
                let made = self.make_file(folder, *next_number)?;
                *next_number += 1;
                self.file.insert(made)
            }
        };
        if let Err(error) = failpoint::write_all(Point::CaptureWrite, file, &self.gathered) {
            // Half a line must not stay before the next one.
            let cut =
                file.set_len(self.good_bytes).and_then(|()| file.seek(SeekFrom::Start(self.good_bytes)));
            if cut.is_err() {
                tracing::error!(%error, "a segment of captured data is damaged at its end");
            }
            return Err(error);
        }
        self.good_bytes += self.gathered.len() as u64;
        self.lines += self.gathered_lines;
        self.gathered.clear();
        self.gathered.shrink_to(GATHERED_BYTES);
        self.gathered_lines = 0;
        self.shares.clear();
        self.is_synced = false;
        Ok(())
    }

    fn make_file(&mut self, folder: &Path, number: u64) -> io::Result<(File, PathBuf, u64)> {
        let path = folder.join(segment::file_name(number));
        let mut file = File::options().create(true).truncate(true).write(true).open(&path)?;
        let mut head = serde_json::to_vec(&self.head)?;
        head.push(b'\n');
        file.write_all(&head)?;
        self.good_bytes = head.len() as u64;
        Ok((file, path, number))
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some((file, path, _)) = self.file.as_ref().filter(|_| !self.is_synced) else { return Ok(()) };
        failpoint::at(Point::CaptureSync)?;
        file.sync_data()?;
        if let Some(folder) = path.parent().filter(|_| !self.is_name_synced) {
            File::open(folder)?.sync_all()?;
            self.is_name_synced = true;
        }
        self.is_synced = true;
        Ok(())
    }
}
