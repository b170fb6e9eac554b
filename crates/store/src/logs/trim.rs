//! Removes events that are older than their group keeps them.
//!
//! The beginning of the file becomes a hole: it takes no room any more, reads as zeros, and every offset after it stays what it
//! was. So whoever appends, follows or goes on from a page's token notices nothing. There is no second record of what was
//! removed; after a crash the next pass does what is left.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use failpoint::Point;
use rustix::fs::{FallocateFlags, fallocate};

use super::read::{disorder_bound, seek_start};
use super::scan::{ForwardLines, boundary_at_or_before, start};
use super::{GroupKey, LogStore, StreamKey, blocking, line, stream_file};
use crate::error::Result;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Less than this is not worth the work: the file system frees whole blocks.
const LEAST_BYTES: u64 = 4096;

/// Which streams a pass looks at.
#[derive(Debug, Clone)]
pub struct TrimQuery {
    /// Goes on after this stream.
    pub after: Option<StreamKey>,
    /// Days for groups that have none of their own; without a number, their events stay.
    pub default_days: Option<u32>,
    /// Only say what would go.
    pub is_dry_run: bool,
    /// Most streams.
    pub limit: usize,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Streams that lost events.
    pub streams: u64,
    /// Bytes that these events took.
    pub bytes: u64,
    /// Streams that are older than their events are kept, and hold none.
    pub emptied: Vec<StreamKey>,
    /// The last stream that was looked at, when there may be more.
    pub next: Option<StreamKey>,
}

/// What is old in one file.
struct Old {
    /// Bytes of it.
    bytes: u64,
    /// When the first event that stays happened; none where none stays.
    first_kept_at: Option<i64>,
    /// Whether the file was written since.
    is_fresh: bool,
}

impl LogStore {
    /// Removes what is too old from some streams.
    ///
    /// # Errors
    /// When rows cannot be read or written. A file that fails is logged and left to the next pass.
    pub async fn trim(&self, query: TrimQuery) -> Result<Trimmed> {
        let after = query.after.clone().unwrap_or_else(|| GroupKey::new("", "", "").stream(""));
        let (default_days, limit) = (query.default_days, query.limit);
        let found = self
            .database
            .read(move |session| session.log_streams_with_retention(&after, default_days, limit))
            .await?;
        let mut trimmed = Trimmed::default();
        if found.len() == query.limit {
            trimmed.next = found.last().map(|(key, _, _)| key.clone());
        }
        for (key, stream, days) in found {
            let before_ms = self.clock.now_ms() - i64::from(days) * DAY_MS;
            let disorder_ms = disorder_bound(stream.disorder_ms);
            let path = stream_file(&self.root, &key);
            let file = path.clone();
            // Appends of this server record what they put out of order, and must not be crossed.
            let _appending = self.append_lock(&key).lock().await;
            let is_dry_run = query.is_dry_run;
            let old = match blocking(&path, move || cut(&file, before_ms, disorder_ms, is_dry_run)).await {
                Ok(old) => old,
                Err(error) => {
                    tracing::warn!(stream = key.stream, %error, "old events of a log could not be removed");
                    continue;
                }
            };
            if old.bytes > 0 {
                trimmed.streams += 1;
                trimmed.bytes += old.bytes;
            }
            let oldest_at = old.first_kept_at.map(|first_at| first_at - disorder_ms);
            let is_behind = stream.oldest_at.is_some_and(|known| oldest_at.is_none_or(|now| known < now));
            if is_behind && !is_dry_run {
                let key = key.clone();
                self.database.write(move |session| session.set_log_stream_oldest(&key, oldest_at)).await?;
            }
            if old.first_kept_at.is_none() && !old.is_fresh && stream.created_at < before_ms {
                trimmed.emptied.push(key);
            }
        }
        Ok(trimmed)
    }
}

/// Makes a hole of what is before the first event that is not older than `before_ms`.
fn cut(path: &Path, before_ms: i64, disorder_ms: i64, is_dry_run: bool) -> io::Result<Old> {
    let from = start(path)?;
    let mut lines = ForwardLines::new(path, seek_start(path, before_ms, disorder_ms)?);
    let mut kept = None;
    while let Some(line) = lines.next()? {
        if let Some((stamp, _)) = line::parse(line.bytes)
            && stamp.timestamp_ms >= before_ms
        {
            kept = Some((line.offset, stamp.timestamp_ms));
            break;
        }
    }
    let (end, first_kept_at) = match kept {
        Some((offset, at)) => (offset, Some(at)),
        None => (boundary_at_or_before(path, lines.position())?, None),
    };
    let is_fresh = match path.metadata() {
        Ok(metadata) => modified_ms(&metadata) >= before_ms,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let bytes = end.saturating_sub(from);
    if bytes == 0 || (first_kept_at.is_some() && bytes < LEAST_BYTES) {
        return Ok(Old { bytes: 0, first_kept_at, is_fresh });
    }
    if !is_dry_run {
        failpoint::at(Point::LogTrim)?;
        let file = OpenOptions::new().write(true).open(path)?;
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, end)?;
    }
    Ok(Old { bytes, first_kept_at, is_fresh })
}

fn modified_ms(metadata: &std::fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000
}
