//! What a stream holds, learnt from the two ends of its file.

use std::io;
use std::path::Path;

use super::line;
use super::scan::{BackwardLines, ForwardLines, boundary_at_or_before, length, start};

/// Lines of each end that are looked at: enough to see past the small disorder of several writers.
const LINES_LOOKED_AT: usize = 32;

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Time of the oldest event, milliseconds since 1970.
    pub first_event_at: i64,
    /// Time of the newest event.
    pub last_event_at: i64,
    /// When the last event was taken in.
    pub last_ingestion_at: i64,
    /// Bytes of its events.
    pub stored_bytes: u64,
}

/// Reads the ends of a file; `None` where it holds no event. `oldest_at` and `newest_at` are what the server recorded when
/// events came in out of order.
pub(super) fn extent(
    path: &Path,
    oldest_at: Option<i64>,
    newest_at: Option<i64>,
) -> io::Result<Option<Extent>> {
    let (from, length) = (start(path)?, length(path)?);
    let stored_bytes = length.saturating_sub(from);
    let end = boundary_at_or_before(path, length)?;
    let mut head = ForwardLines::for_probe(path, from);
    let mut first: Option<i64> = None;
    let mut seen = 0;
    while seen < LINES_LOOKED_AT {
        let Some(line) = head.next()? else { break };
        if let Some((stamp, _)) = line::parse(line.bytes) {
            first = Some(first.map_or(stamp.timestamp_ms, |first| first.min(stamp.timestamp_ms)));
            seen += 1;
        }
    }
    let mut tail = BackwardLines::for_probe(path, end);
    let mut last: Option<line::Stamp> = None;
    for _ in 0..LINES_LOOKED_AT {
        let Some(stamp) = last_stamp(&mut tail)? else { break };
        let last = last.get_or_insert(stamp);
        last.timestamp_ms = last.timestamp_ms.max(stamp.timestamp_ms);
        last.ingested_ms = last.ingested_ms.max(stamp.ingested_ms);
    }
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    Ok(Some(Extent {
        first_event_at: oldest_at.map_or(first, |oldest| oldest.min(first)),
        last_event_at: newest_at.map_or(last.timestamp_ms, |newest| newest.max(last.timestamp_ms)),
        last_ingestion_at: last.ingested_ms,
        stored_bytes,
    }))
}

/// The stamp of the next event towards the start.
fn last_stamp(lines: &mut BackwardLines) -> io::Result<Option<line::Stamp>> {
    while let Some(line) = lines.next()? {
        if let Some((stamp, _)) = line::parse(line.bytes) {
            return Ok(Some(stamp));
        }
    }
    Ok(None)
}
