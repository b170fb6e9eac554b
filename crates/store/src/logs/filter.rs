//! A search over many streams, merged by time.
//!
//! The answer is in the order (time, stream name, place in the stream) and exact, also where streams are not sorted: a stream is
//! read until nothing of it can belong to the page any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::extent::extent;
use super::line;
use super::read::{LogEvent, disorder_bound, seek_start};
use super::scan::ForwardLines;
use crate::error::{Error, Result};

/// Bytes that one page looks at before it is returned as it is, perhaps empty, with a token to go on.
const SCAN_BUDGET_BYTES: u64 = 64 * 1024 * 1024;

/// Says whether a text is wanted.
pub type Matches = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which streams of the group are searched.
#[derive(Debug, Clone)]
pub enum Streams {
    /// All.
    All,
    /// Those whose name starts so.
    Prefix(String),
    /// These; each must exist.
    Names(Vec<String>),
}

/// What a search asks for.
#[derive(Clone)]
pub struct FilterQuery {
    /// Where to search.
    pub streams: Streams,
    /// Only events at or after this time.
    pub start_ms: Option<i64>,
    /// Only events before this time.
    pub end_ms: Option<i64>,
    /// Only events whose text matches.
    pub matches: Matches,
    /// Goes on after the page before.
    pub after: Option<FilterToken>,
    /// Most events, at least 1.
    pub limit: usize,
    /// Most bytes, counted by [`LogEvent::size_bytes`].
    pub most_bytes: usize,
}

/// Up to where a search has come: everything at or before this place is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterToken {
    timestamp_ms: i64,
    stream: String,
    offset: u64,
}

impl FilterToken {
    /// The text form.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!([self.timestamp_ms, self.stream, self.offset]).to_string())
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`Error::BadToken`].
    pub fn decode(token: &str) -> Result<FilterToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::BadToken)?;
        let (timestamp_ms, stream, offset) = serde_json::from_slice(&bytes).map_err(|_| Error::BadToken)?;
        Ok(FilterToken { timestamp_ms, stream, offset })
    }
}

/// A page of a search.
#[derive(Debug, Clone)]
pub struct FilterPage {
    /// Stream names and events, in order.
    pub events: Vec<(String, LogEvent)>,
    /// Goes on after the page, where there may be more.
    pub next: Option<FilterToken>,
}

/// A stream to search.
pub(super) struct Source {
    pub name: String,
    pub path: PathBuf,
    pub disorder_ms: i64,
    pub oldest_at: Option<i64>,
    pub newest_at: Option<i64>,
}

/// One stream while it is merged.
struct Reader {
    source: Source,
    disorder_ms: i64,
    lines: Option<ForwardLines>,
    head: Option<(u64, line::Stamp, Vec<u8>)>,
}

impl Reader {
    /// Reads on to the next event; returns the bytes looked at.
    fn advance(&mut self, lower_ms: i64) -> io::Result<u64> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            unopened => {
                let from = seek_start(&self.source.path, lower_ms, self.source.disorder_ms)?;
                unopened.insert(ForwardLines::new(&self.source.path, from))
            }
        };
        let mut buffer = self.head.take().map(|(_, _, buffer)| buffer).unwrap_or_default();
        let mut looked_at = 0;
        while let Some(line) = lines.next()? {
            looked_at += line.end - line.offset;
            if let Some((stamp, escaped)) = line::parse(line.bytes) {
                buffer.clear();
                buffer.extend_from_slice(escaped);
                self.head = Some((line.offset, stamp, buffer));
                break;
            }
        }
        Ok(looked_at)
    }
}

/// Time, index of the stream in name order, offset: the order of the answer.
type Place = (i64, usize, u64);

/// The least events seen so far, as many as a page holds.
struct Selection {
    least: BTreeMap<Place, LogEvent>,
    bytes: usize,
    limit: usize,
    most_bytes: usize,
    /// The least place that did not fit: nothing from here on belongs to the page.
    cut: Option<Place>,
}

impl Selection {
    fn add(&mut self, place: Place, event: LogEvent) {
        self.bytes += event.size_bytes();
        self.least.insert(place, event);
        while self.least.len() > self.limit || (self.bytes > self.most_bytes && self.least.len() > 1) {
            if let Some((place, event)) = self.least.pop_last() {
                self.bytes -= event.size_bytes();
                self.cut = Some(place);
            }
        }
    }
}

/// Searches `sources`, which are sorted by name.
pub(super) fn filter_page(sources: Vec<Source>, query: &FilterQuery) -> io::Result<FilterPage> {
    let after = query.after.as_ref();
    let lower_ms = query.start_ms.unwrap_or(i64::MIN).max(after.map_or(i64::MIN, |after| after.timestamp_ms));
    let end_ms = query.end_ms.unwrap_or(i64::MAX);
    let mut readers = Vec::new();
    // By the least time that a stream can still give, so that a stream is opened only when the merge has come to it.
    let mut order = BinaryHeap::new();
    for source in sources {
        let Some(extent) = extent(&source.path, source.oldest_at, source.newest_at)? else { continue };
        let disorder_ms = disorder_bound(source.disorder_ms);
        let bound_ms = extent.first_event_at.max(lower_ms).saturating_sub(disorder_ms);
        if extent.last_event_at.saturating_add(disorder_ms) < lower_ms || bound_ms >= end_ms {
            continue;
        }
        order.push(Reverse((bound_ms, readers.len())));
        readers.push(Reader { source, disorder_ms, lines: None, head: None });
    }
    let mut selection = Selection {
        least: BTreeMap::new(),
        bytes: 0,
        limit: query.limit.max(1),
        most_bytes: query.most_bytes,
        cut: None,
    };
    let mut looked_at_bytes = 0;
    let mut unfinished_from_ms = None;
    while let Some(Reverse((bound_ms, index))) = order.pop() {
        if bound_ms >= end_ms || selection.cut.is_some_and(|cut| bound_ms > cut.0) {
            break;
        }
        // Everything older than the bound has been seen. A page must get further than the one before.
        if looked_at_bytes > SCAN_BUDGET_BYTES && bound_ms > lower_ms {
            unfinished_from_ms = Some(bound_ms);
            break;
        }
        let reader = &mut readers[index];
        if let Some((offset, stamp, escaped)) = &reader.head {
            let place = (stamp.timestamp_ms, index, *offset);
            let done = after.is_some_and(|after| {
                (after.timestamp_ms, after.stream.as_str(), after.offset)
                    >= (stamp.timestamp_ms, reader.source.name.as_str(), *offset)
            });
            let in_range = (lower_ms..end_ms).contains(&stamp.timestamp_ms);
            if in_range && !done && selection.cut.is_none_or(|cut| place < cut) {
                let text = line::unescape(escaped);
                if (query.matches)(&text) {
                    let line::Stamp { timestamp_ms, ingested_ms } = *stamp;
                    selection.add(place, LogEvent { timestamp_ms, ingested_ms, text, offset: *offset });
                }
            }
        }
        looked_at_bytes += reader.advance(lower_ms)?;
        if let Some((_, stamp, _)) = &reader.head {
            order.push(Reverse((stamp.timestamp_ms.saturating_sub(reader.disorder_ms), index)));
        }
    }
    let mut events: Vec<(String, LogEvent)> = Vec::with_capacity(selection.least.len());
    for ((timestamp_ms, index, _), event) in selection.least {
        if unfinished_from_ms.is_none_or(|from_ms| timestamp_ms < from_ms) {
            events.push((readers[index].source.name.clone(), event));
        }
    }
    let next = match (unfinished_from_ms, selection.cut, events.last()) {
        (Some(timestamp_ms), _, _) => Some(FilterToken { timestamp_ms, stream: String::new(), offset: 0 }),
        (None, Some(_), Some((stream, event))) => Some(FilterToken {
            timestamp_ms: event.timestamp_ms,
            stream: stream.clone(),
            offset: event.offset,
        }),
        _ => None,
    };
    Ok(FilterPage { events, next })
}
