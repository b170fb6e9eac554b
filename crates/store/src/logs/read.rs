//! Pages of one stream: from a byte offset or a time, in either direction.
//!
//! The file keeps the order in which events came in; a page is sorted by time. Tokens are offsets of that order, so that they
//! stay good for ever and a reader who goes on from one gets what is new, and only that.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use super::line;
use super::scan::{BackwardLines, ForwardLines, SCAN_BLOCK_BYTES, boundary_at_or_before, start};
use crate::error::Error;

/// What an event counts for beside its text, as the service counts.
pub const EVENT_OVERHEAD_BYTES: usize = 26;

/// How far a supervisor's clock may step back between two lines without events being missed by a search for a time.
const CLOCK_SLACK_MS: i64 = 1_000;

/// Bytes that a page looks at after its first event before it is returned as it is.
const SCAN_BUDGET_BYTES: u64 = 64 * 1024 * 1024;

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// When it happened, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// When it was taken in, milliseconds since 1970.
    pub ingested_ms: i64,
    /// Its text.
    pub text: String,
    /// Where its line starts in the file: unique within the stream.
    pub offset: u64,
}

impl LogEvent {
    /// What the event counts for in a page limit.
    pub fn size_bytes(&self) -> usize {
        self.text.len() + EVENT_OVERHEAD_BYTES
    }
}

/// A place in a stream and the direction to read in; its text form is the page token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// From this offset towards newer events.
    Forward(u64),
    /// From this offset towards older events.
    Backward(u64),
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Forward(offset) => write!(formatter, "f/{offset:020}"),
            Cursor::Backward(offset) => write!(formatter, "b/{offset:020}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(token: &str) -> Result<Cursor, Error> {
        let (direction, digits) = token.split_once('/').ok_or(Error::BadToken)?;
        if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::BadToken);
        }
        let offset = digits.parse().map_err(|_| Error::BadToken)?;
        match direction {
            "f" => Ok(Cursor::Forward(offset)),
            "b" => Ok(Cursor::Backward(offset)),
            _ => Err(Error::BadToken),
        }
    }
}

/// Where a page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest event, towards newer ones.
    Head,
    /// At the newest event, towards older ones.
    Tail,
    /// Where an earlier page left off.
    Cursor(Cursor),
}

/// What a page asks for.
#[derive(Debug, Clone, Copy)]
pub struct ReadQuery {
    /// Only events at or after this time.
    pub start_ms: Option<i64>,
    /// Only events before this time.
    pub end_ms: Option<i64>,
    /// Where to start.
    pub from: From,
    /// Most events, at least 1.
    pub limit: usize,
    /// Most bytes, counted by [`LogEvent::size_bytes`]; the first event comes whatever its size.
    pub most_bytes: usize,
}

/// A page of events, sorted by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<LogEvent>,
    /// Goes on after the page; equal to the given token when nothing came since.
    pub forward: Cursor,
    /// Goes on before the page.
    pub backward: Cursor,
}

/// The conditions of a query, and the page as it grows.
struct Gathering {
    start_ms: i64,
    end_ms: i64,
    disorder_ms: i64,
    limit: usize,
    most_bytes: usize,
    bytes: usize,
    scanned_bytes: u64,
    events: Vec<LogEvent>,
}

/// What follows from one more line.
enum Step {
    /// Look at the next one.
    Next,
    /// The page is full with this line.
    FullWith,
    /// The page is full without this line.
    FullWithout,
}

impl Gathering {
    fn new(query: &ReadQuery, disorder_ms: i64) -> Gathering {
        Gathering {
            start_ms: query.start_ms.unwrap_or(i64::MIN),
            end_ms: query.end_ms.unwrap_or(i64::MAX),
            disorder_ms: disorder_bound(disorder_ms),
            limit: query.limit.max(1),
            most_bytes: query.most_bytes,
            bytes: 0,
            scanned_bytes: 0,
            events: Vec::new(),
        }
    }

    /// Whether every event after one of this time is too new.
    fn all_later_too_new(&self, timestamp_ms: i64) -> bool {
        timestamp_ms.saturating_sub(self.disorder_ms) >= self.end_ms
    }

    /// Whether every event before one of this time is too old.
    fn all_earlier_too_old(&self, timestamp_ms: i64) -> bool {
        timestamp_ms.saturating_add(self.disorder_ms) < self.start_ms
    }

    fn take(&mut self, offset: u64, length: usize, stamp: line::Stamp, escaped: &[u8]) -> Step {
        self.scanned_bytes += length as u64;
        if (self.start_ms..self.end_ms).contains(&stamp.timestamp_ms) {
            let line::Stamp { timestamp_ms, ingested_ms } = stamp;
            let event = LogEvent { timestamp_ms, ingested_ms, text: line::unescape(escaped), offset };
            if !self.events.is_empty() && self.bytes + event.size_bytes() > self.most_bytes {
                return Step::FullWithout;
            }
            self.bytes += event.size_bytes();
            self.events.push(event);
        }
        // A page without events ends a client's loop, so one is found first, however far it is.
        let spent = self.scanned_bytes > SCAN_BUDGET_BYTES && !self.events.is_empty();
        if spent || self.events.len() == self.limit { Step::FullWith } else { Step::Next }
    }
}

/// Disorder to reckon with: what the server has recorded, and what a supervisor's clock may do.
pub(super) fn disorder_bound(recorded_ms: i64) -> i64 {
    recorded_ms.max(CLOCK_SLACK_MS)
}

/// Reads one page. `disorder_ms` is how far an event of this stream may be older than one before it.
pub(super) fn read_page(path: &Path, query: &ReadQuery, disorder_ms: i64) -> io::Result<EventPage> {
    let gathering = Gathering::new(query, disorder_ms);
    match query.from {
        From::Head => {
            let offset = match query.start_ms {
                Some(start_ms) => seek_start(path, start_ms, disorder_ms)?,
                None => start(path)?,
            };
            forward(path, offset, gathering)
        }
        From::Tail => {
            let offset = match query.end_ms {
                Some(end_ms) => seek_end(path, end_ms, disorder_ms)?,
                None => boundary_at_or_before(path, u64::MAX)?,
            };
            backward(path, offset, gathering)
        }
        From::Cursor(Cursor::Forward(offset)) => {
            forward(path, boundary_at_or_before(path, offset)?, gathering)
        }
        From::Cursor(Cursor::Backward(offset)) => {
            backward(path, boundary_at_or_before(path, offset)?, gathering)
        }
    }
}

fn forward(path: &Path, from: u64, mut gathering: Gathering) -> io::Result<EventPage> {
    let mut lines = ForwardLines::new(path, from);
    let mut next = None;
    while let Some(line) = lines.next()? {
        let Some((stamp, escaped)) = line::parse(line.bytes) else { continue };
        if gathering.all_later_too_new(stamp.timestamp_ms) {
            next = Some(line.offset);
            break;
        }
        next = match gathering.take(line.offset, line.bytes.len(), stamp, escaped) {
            Step::Next => continue,
            Step::FullWith => Some(line.end),
            Step::FullWithout => Some(line.offset),
        };
        break;
    }
    let next = next.unwrap_or_else(|| lines.position());
    let mut events = gathering.events;
    let first = events.first().map_or(from, |event| event.offset);
    events.sort_by_key(|event| event.timestamp_ms);
    Ok(EventPage { events, forward: Cursor::Forward(next), backward: Cursor::Backward(first) })
}

fn backward(path: &Path, from: u64, mut gathering: Gathering) -> io::Result<EventPage> {
    let mut lines = BackwardLines::new(path, from);
    let mut next = 0;
    while let Some(line) = lines.next()? {
        let Some((stamp, escaped)) = line::parse(line.bytes) else { continue };
        if gathering.all_earlier_too_old(stamp.timestamp_ms) {
            next = line.end;
            break;
        }
        next = match gathering.take(line.offset, line.bytes.len(), stamp, escaped) {
            Step::Next => continue,
            Step::FullWith => line.offset,
            Step::FullWithout => line.end,
        };
        break;
    }
    let mut events = gathering.events;
    events.reverse();
    events.sort_by_key(|event| event.timestamp_ms);
    Ok(EventPage { events, forward: Cursor::Forward(from), backward: Cursor::Backward(next) })
}

/// The first event in a line that starts after `middle` and before `high`: its time, start and end.
fn probe(path: &Path, middle: u64, high: u64) -> io::Result<Option<(i64, u64, u64)>> {
    let mut lines = ForwardLines::for_probe(path, middle);
    // The first one starts before the middle, most likely.
    lines.next()?;
    while let Some(line) = lines.next()? {
        if line.offset >= high {
            break;
        }
        if let Some((stamp, _)) = line::parse(line.bytes) {
            return Ok(Some((stamp.timestamp_ms, line.offset, line.end)));
        }
    }
    Ok(None)
}

/// A line before which every event is older than `start_ms`; at most about a block before the first that is not.
///
/// A single event tells of all before it: were one of them as new as `start_ms`, this one could not be more than the disorder
/// older. So the result is right even where the file is not sorted.
pub(super) fn seek_start(path: &Path, start_ms: i64, disorder_ms: i64) -> io::Result<u64> {
    let threshold_ms = start_ms.saturating_sub(disorder_bound(disorder_ms));
    let (mut low, mut high) = (start(path)?, boundary_at_or_before(path, u64::MAX)?);
    while high.saturating_sub(low) > SCAN_BLOCK_BYTES as u64 {
        let middle = low + (high - low) / 2;
        match probe(path, middle, high)? {
            Some((timestamp_ms, _, end)) if timestamp_ms < threshold_ms => low = end,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// A line from which on every event is at or after `end_ms`; at most about a block after the last that is not.
fn seek_end(path: &Path, end_ms: i64, disorder_ms: i64) -> io::Result<u64> {
    let threshold_ms = end_ms.saturating_add(disorder_bound(disorder_ms));
    let (mut low, mut high) = (start(path)?, boundary_at_or_before(path, u64::MAX)?);
    while high.saturating_sub(low) > SCAN_BLOCK_BYTES as u64 {
        let middle = low + (high - low) / 2;
        match probe(path, middle, high)? {
            Some((timestamp_ms, offset, _)) if timestamp_ms >= threshold_ms => high = offset,
            _ => low = middle,
        }
    }
    Ok(high)
}
