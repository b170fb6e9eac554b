//! The two threads behind the writer: one makes segments of frozen heads, one merges segments into larger ones.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use failpoint::Point;

use super::journal::sync_folder_of;
use super::segment::{Segment, SegmentName, Stream};
use super::segment_file::SegmentWriter;
use super::state::{Frozen, Shared, State};

/// Segments of one level and day that are merged into one of the next level. A sample is written once for each level.
const MERGE_SEGMENTS: usize = 8;

/// Pause after a failure, for example of a full disk.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Turns frozen heads into segments until the store closes.
pub(super) fn flush(shared: &Shared) {
    loop {
        let next = {
            let idle = |state: &mut State| state.frozen.is_empty() && !shared.is_closing();
            let state =
                shared.changed.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            state.frozen.front().cloned()
        };
        // What is left is in its journal and will be flushed after the next start.
        if shared.is_closing() {
            return;
        }
        let Some(frozen) = next else { continue };
        if let Err(error) = aside(|| flush_one(shared, &frozen)) {
            tracing::error!(%error, "metrics could not be moved to segments; they stay in their journal");
            pause(shared);
        }
    }
}

/// Does `work` in a thread of its own. Allocators keep for a thread what it has freed, to give it out again; this work comes seldom and takes
/// much, and what it took goes with its thread.
fn aside(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("metric-segments".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn flush_one(shared: &Shared, frozen: &Frozen) -> io::Result<()> {
    let mut segments = Vec::new();
    let generation = frozen.generation;
    for (day, rows) in frozen.head.by_day() {
        let name = SegmentName { day, first: generation, last: generation, level: 0 };
        let mut writer = SegmentWriter::create(name.path(&shared.folder))?;
        let written = rows.into_iter().try_for_each(|(series, sample)| writer.push(series, sample));
        match written {
            Ok(()) => writer.finish()?,
            Err(error) => {
                writer.abandon();
                return Err(error);
            }
        }
        segments.push(Arc::new(Segment::open(&shared.folder, name)?));
    }
    // From here on the segments count; a crash before this point begins again from the journal.
    failpoint::at(Point::MetricJournalRemove)?;
    std::fs::remove_file(&frozen.journal)?;
    sync_folder_of(&frozen.journal)?;
    let mut state = shared.lock();
    state.frozen.pop_front();
    for segment in segments {
        state.days.entry(segment.name.day).or_default().push(segment);
    }
    shared.changed.notify_all();
    Ok(())
}

/// Merges segments until the store closes.
pub(super) fn merge(shared: &Shared) {
    loop {
        let work = {
            let idle = |state: &mut State| !shared.is_closing() && !has_mergeable(state);
            let state =
                shared.changed.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            state.days.values().find_map(|segments| mergeable(segments))
        };
        if shared.is_closing() {
            return;
        }
        let Some(segments) = work else { continue };
        match aside(|| merge_some(shared, &segments)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted && shared.is_closing() => return,
            Err(error) => {
                tracing::error!(%error, "metric segments could not be merged; they stay as they are");
                pause(shared);
            }
        }
    }
}

/// Whether a merge is due.
pub(super) fn has_mergeable(state: &State) -> bool {
    state.days.values().any(|segments| mergeable(segments).is_some())
}

/// The oldest segments of the lowest level that has enough of them.
fn mergeable(segments: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
    let mut levels: Vec<u32> = segments.iter().map(|segment| segment.name.level).collect();
    levels.sort_unstable();
    levels.dedup();
    levels.into_iter().find_map(|level| {
        let same: Vec<_> = segments
            .iter()
            .filter(|segment| segment.name.level == level)
            .take(MERGE_SEGMENTS)
            .cloned()
            .collect();
        (same.len() == MERGE_SEGMENTS).then_some(same)
    })
}

fn merge_some(shared: &Shared, segments: &[Arc<Segment>]) -> io::Result<()> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
    let name = SegmentName {
        day: first.name.day,
        first: first.name.first,
        last: last.name.last,
        level: first.name.level + 1,
    };
    let mut writer = SegmentWriter::create(name.path(&shared.folder))?;
    match write_merged(shared, segments, &mut writer) {
        Ok(()) => writer.finish()?,
        Err(error) => {
            writer.abandon();
            return Err(error);
        }
    }
    failpoint::pass(Point::MetricMerged);
    let merged = Arc::new(Segment::open(&shared.folder, name)?);
    let mut state = shared.lock();
    let Some(day) = state.days.get_mut(&name.day) else {
        // The day has expired while it was merged.
        merged.replace();
        return Ok(());
    };
    let replaced = |segment: &Arc<Segment>| segments.iter().any(|old| Arc::ptr_eq(old, segment));
    let at = day.iter().position(replaced).unwrap_or(day.len());
    day.retain(|segment| !replaced(segment));
    day.insert(at.min(day.len()), merged);
    for segment in segments {
        segment.replace();
    }
    shared.changed.notify_all();
    Ok(())
}

fn write_merged(shared: &Shared, segments: &[Arc<Segment>], writer: &mut SegmentWriter) -> io::Result<()> {
    let mut streams = segments.iter().map(|segment| segment.stream()).collect::<io::Result<Vec<Stream>>>()?;
    let mut written = 0u64;
    loop {
        // Ties go to the older segment. A handful of streams needs no heap.
        let next = streams
            .iter_mut()
            .filter_map(|stream| stream.peek().map(|(series, sample)| (series, sample, stream)))
            .min_by_key(|(series, sample, _)| (*series, sample.at_seconds));
        let Some((series, sample, stream)) = next else { return Ok(()) };
        writer.push(series, sample)?;
        stream.advance()?;
        written += 1;
        if written.is_multiple_of(65_536) && shared.is_closing() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

fn pause(shared: &Shared) {
    let open = |_: &mut State| !shared.is_closing();
    let waited = shared.changed.wait_timeout_while(shared.lock(), RETRY_PAUSE, open);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}
