//! Log groups and streams. A stream is one append-only file, written by this server and by the supervisors of jobs alike.
//!
//! `<root>/<account>/<region>/<group>/<stream>.log`, each part escaped by [`names::file_name`], each line in the format of
//! [`line`]. Names and creation times are rows; everything else is learnt from the file when it is asked for. What is appended
//! survives the end of any process; what clients put is on the disk when they are told so, the output of jobs is not forced there
//! line by line.

mod extent;
mod file;
mod filter;
pub mod line;
pub mod names;
mod read;
mod rows;
mod scan;
mod trim;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failpoint::Point;

pub use extent::Extent;
pub use filter::{FilterPage, FilterQuery, FilterToken, Matches, Streams};
pub use read::{Cursor, EVENT_OVERHEAD_BYTES, EventPage, From, LogEvent, ReadQuery};
pub use rows::{GroupList, StreamList};
pub use trim::{TrimQuery, Trimmed};

use file::{
    append_lines, bring_to_disk, folder_bytes, group_folder, open_for_append, stream_file, unless_missing,
};

use crate::clock::Clock;
use crate::database::{Database, Session};
use crate::error::{Error, Result};

/// Kind of a log group in errors.
pub const GROUP_KIND: &str = "log group";

/// Kind of a log stream in errors.
pub const STREAM_KIND: &str = "log stream";

/// Locks that appends to one stream share; more only save waiting.
const APPEND_LOCKS: usize = 64;

/// What names a log group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Name, for example `/aws/sagemaker/TrainingJobs`.
    pub group: String,
}

impl GroupKey {
    /// A key from its parts.
    pub fn new(account: impl Into<String>, region: impl Into<String>, group: impl Into<String>) -> GroupKey {
        GroupKey { account: account.into(), region: region.into(), group: group.into() }
    }

    /// The key of a stream of this group.
    pub fn stream(self, stream: impl Into<String>) -> StreamKey {
        StreamKey { group: self, stream: stream.into() }
    }
}

/// What names a log stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// Its group.
    pub group: GroupKey,
    /// Its name within the group.
    pub stream: String,
}

/// A log group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Days that its events are kept; without a number, as long as the group.
    pub retention_days: Option<u32>,
    /// Size of its events.
    pub stored_bytes: u64,
}

/// A log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// What it holds, when it holds something.
    pub extent: Option<Extent>,
    disorder_ms: i64,
    oldest_at: Option<i64>,
    newest_at: Option<i64>,
}

impl LogStream {
    fn last_event_at(&self) -> i64 {
        self.extent.map_or(-1, |extent| extent.last_event_at)
    }
}

/// An event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When it happened, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its text.
    pub text: String,
}

/// All logs. Methods answer [`Error::Missing`] with [`GROUP_KIND`] or [`STREAM_KIND`] for what does not exist.
pub struct LogStore {
    database: Database,
    root: Arc<Path>,
    clock: Clock,
    append_locks: Vec<tokio::sync::Mutex<()>>,
}

impl LogStore {
    /// Opens the logs under `root`, which is made if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(database: Database, root: PathBuf, clock: Clock) -> Result<LogStore> {
        std::fs::create_dir_all(&root).map_err(Error::file(format!("make {}", root.display())))?;
        let append_locks = std::iter::repeat_with(tokio::sync::Mutex::default).take(APPEND_LOCKS).collect();
        Ok(LogStore { database, root: root.into(), clock, append_locks })
    }

    /// Creates an empty group without tags.
    ///
    /// # Errors
    /// As [`LogStore::create_tagged_group`].
    pub async fn create_group(&self, key: GroupKey) -> Result<()> {
        self.create_tagged_group(key, String::new(), Vec::new()).await
    }

    /// Creates an empty group, whose tags are kept under `arn`.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken, [`Error::Invalid`] for too many tags.
    pub async fn create_tagged_group(
        &self,
        key: GroupKey,
        arn: String,
        tags: Vec<(String, String)>,
    ) -> Result<()> {
        let (root, now_ms) = (self.root.clone(), self.clock.now_ms());
        self.database
            .write(move |session| {
                if add_group(session, &root, &key, now_ms)? {
                    return session.put_tags(&arn, &tags);
                }
                Err(Error::Exists { kind: GROUP_KIND.into(), name: key.group })
            })
            .await
    }

    /// Creates an empty stream in a group that exists.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken.
    pub async fn create_stream(&self, key: StreamKey) -> Result<()> {
        let (root, now_ms) = (self.root.clone(), self.clock.now_ms());
        self.database
            .write(move |session| {
                session.log_group(&key.group)?;
                if add_stream(session, &root, &key, now_ms)? {
                    return Ok(());
                }
                Err(Error::Exists { kind: STREAM_KIND.into(), name: key.stream })
            })
            .await
    }

    /// Makes sure that group, stream and file exist, and returns the file: what a job needs before it starts. Whoever appends to
    /// it writes whole lines in the format of [`line`], each batch with one `write` to a file opened for appending.
    ///
    /// # Errors
    /// When the rows or the file cannot be written.
    pub async fn ensure_stream(
        &self,
        account: &str,
        region: &str,
        group: &str,
        stream: &str,
    ) -> Result<PathBuf> {
        let key = GroupKey::new(account, region, group).stream(stream);
        let path = stream_file(&self.root, &key);
        if path.exists() {
            match self.stream_row(&key) {
                Ok(_) => return Ok(path),
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (root, now_ms) = (self.root.clone(), self.clock.now_ms());
        self.database
            .write(move |session| {
                add_group(session, &root, &key.group, now_ms)?;
                add_stream(session, &root, &key, now_ms)?;
                let path = stream_file(&root, &key);
                open_for_append(&path).map_err(Error::file(format!("open {}", path.display())))?;
                Ok(path)
            })
            .await
    }

    /// Says how many days the events of a group are kept; without a number, as long as the group.
    ///
    /// # Errors
    /// When there is no such group.
    pub async fn set_retention(&self, key: GroupKey, days: Option<u32>) -> Result<()> {
        self.database.write(move |session| session.set_log_retention(&key, days)).await
    }

    /// Deletes a group with its streams and their events.
    ///
    /// # Errors
    /// When there is none, or its files cannot be removed.
    pub async fn delete_group(&self, key: GroupKey) -> Result<()> {
        self.delete_tagged_group(key, String::new()).await
    }

    /// As [`LogStore::delete_group`], with the tags that are kept under `arn`.
    ///
    /// # Errors
    /// As there.
    pub async fn delete_tagged_group(&self, key: GroupKey, arn: String) -> Result<()> {
        let folder = group_folder(&self.root, &key);
        let gone = key.clone();
        let removed = self.database.write(move |session| {
            session.delete_log_group(&gone)?;
            session.delete_all_tags(&arn)
        });
        removed.await?;
        failpoint::pass(Point::LogRemove);
        // In a transaction of its own: before it, a crash would leave the group without its events; without it, a new group of
        // the same name could lose its own. What a crash leaves here is cleared by the next group of that name.
        self.database
            .write(move |session| match session.log_group(&key) {
                Err(Error::Missing { .. }) => unless_missing(std::fs::remove_dir_all(&folder))
                    .map_err(Error::file(format!("remove {}", folder.display()))),
                again => again.map(drop),
            })
            .await
    }

    /// Deletes a stream with its events.
    ///
    /// # Errors
    /// When there is none, or its file cannot be removed.
    pub async fn delete_stream(&self, key: StreamKey) -> Result<()> {
        let path = stream_file(&self.root, &key);
        let gone = key.clone();
        self.database.write(move |session| session.delete_log_stream(&gone)).await?;
        failpoint::pass(Point::LogRemove);
        // As for a group.
        self.database
            .write(move |session| match session.log_stream(&key) {
                Err(Error::Missing { .. }) => unless_missing(std::fs::remove_file(&path))
                    .map_err(Error::file(format!("remove {}", path.display()))),
                again => again.map(drop),
            })
            .await
    }

    /// Lists groups in name order.
    ///
    /// # Errors
    /// When rows or files cannot be read.
    pub async fn groups(&self, account: &str, region: &str, list: GroupList) -> Result<Vec<LogGroup>> {
        let (account, region) = (account.to_owned(), region.to_owned());
        let root = self.root.clone();
        self.database
            .read(move |session| {
                let mut groups = session.log_groups(&account, &region, &list)?;
                for group in &mut groups {
                    let folder = group_folder(&root, &GroupKey::new(&account, &region, &group.name));
                    group.stored_bytes =
                        folder_bytes(&folder).map_err(Error::file(format!("read {}", folder.display())))?;
                }
                Ok(groups)
            })
            .await
    }

    /// Reads one group, without its size.
    ///
    /// # Errors
    /// When there is none.
    pub async fn group(&self, key: GroupKey) -> Result<LogGroup> {
        self.database.read(move |session| session.log_group(&key)).await
    }

    /// Lists streams in name order.
    ///
    /// # Errors
    /// When the group is missing, or rows or files cannot be read.
    pub async fn streams(&self, group: GroupKey, list: StreamList) -> Result<Vec<LogStream>> {
        let root = self.root.clone();
        self.database
            .read(move |session| {
                let mut streams = session.log_streams(&group, &list)?;
                for stream in &mut streams {
                    fill_extent(&root, &group, stream)?;
                }
                Ok(streams)
            })
            .await
    }

    /// Lists streams by the time of their last event, then by name; a stream without events counts as the oldest. `after` is
    /// time and name of the last stream of the page before, as [`last_event_position`] gives them.
    ///
    /// # Errors
    /// When the group is missing, or rows or files cannot be read.
    pub async fn streams_by_last_event(
        &self,
        group: GroupKey,
        after: Option<(i64, String)>,
        descending: bool,
        limit: usize,
    ) -> Result<Vec<LogStream>> {
        let mut streams =
            self.streams(group, StreamList { limit: usize::MAX, ..StreamList::default() }).await?;
        streams.sort_by(|left, right| last_event_position(left).cmp(&last_event_position(right)));
        if descending {
            streams.reverse();
        }
        if let Some((at, name)) = after {
            let after = (at, name.as_str());
            streams.retain(|stream| match descending {
                true => last_event_position(stream) < after,
                false => last_event_position(stream) > after,
            });
        }
        streams.truncate(limit);
        Ok(streams)
    }

    /// As [`LogStore::append`]; the events are on the disk when this returns.
    ///
    /// # Errors
    /// As there; also when they cannot be brought to the disk: they may be there or not.
    pub async fn append_durably(&self, key: StreamKey, events: Vec<NewEvent>) -> Result<u64> {
        let path = stream_file(&self.root, &key);
        let root = self.root.clone();
        let size_bytes = self.append(key, events).await?;
        let file = path.clone();
        // After the lock: what others append meanwhile comes to the disk with it.
        blocking(&path, move || bring_to_disk(&file, &root)).await?;
        Ok(size_bytes)
    }

    /// Appends events, which must be in chronological order; returns the size of the file after them.
    ///
    /// # Errors
    /// When the stream is missing, the order is wrong, or the file cannot be written.
    pub async fn append(&self, key: StreamKey, events: Vec<NewEvent>) -> Result<u64> {
        if !events.is_sorted_by_key(|event| event.timestamp_ms) {
            return Err(Error::Invalid(
                "log events must be in chronological order; sort them by timestamp".into(),
            ));
        }
        if events.first().is_some_and(|event| event.timestamp_ms < 0) {
            return Err(Error::Invalid("the timestamp of a log event must not be before 1970".into()));
        }
        // What is recorded of the disorder must be true before the events can be seen, and two appends could not know it of
        // each other.
        let _appending = self.append_lock(&key).lock().await;
        let stream = self.stream_row(&key)?;
        let path = stream_file(&self.root, &key);
        let ingested_ms = self.clock.now_ms();
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (first_ms, last_ms) = (first.timestamp_ms, last.timestamp_ms);
            self.record_disorder(key, stream, &path, first_ms, last_ms, ingested_ms).await?;
        }
        let written = path.clone();
        blocking(&path, move || {
            let mut lines = Vec::new();
            for event in &events {
                line::append(
                    &mut lines,
                    line::Stamp { timestamp_ms: event.timestamp_ms, ingested_ms },
                    &event.text,
                );
            }
            append_lines(&written, &lines)
        })
        .await
    }

    /// Reads one page of a stream.
    ///
    /// # Errors
    /// When the stream is missing or the file cannot be read.
    pub async fn read(&self, key: &StreamKey, query: ReadQuery) -> Result<EventPage> {
        let stream = self.stream_row(key)?;
        let path = stream_file(&self.root, key);
        let file = path.clone();
        blocking(&path, move || read::read_page(&file, &query, stream.disorder_ms)).await
    }

    /// Searches streams of a group.
    ///
    /// # Errors
    /// When the group or a named stream is missing, or a file cannot be read.
    pub async fn filter(&self, group: GroupKey, query: FilterQuery) -> Result<FilterPage> {
        let folder = group_folder(&self.root, &group);
        let (root, streams) = (self.root.clone(), query.streams.clone());
        let sources = self
            .database
            .read(move |session| {
                let found = match streams {
                    Streams::Names(mut names) => {
                        session.log_group(&group)?;
                        names.sort();
                        names.dedup();
                        let key = |name| group.clone().stream(name);
                        names.into_iter().map(|name| session.log_stream(&key(name))).collect::<Result<_>>()?
                    }
                    streams => {
                        let prefix = if let Streams::Prefix(prefix) = streams { Some(prefix) } else { None };
                        let list = StreamList { prefix, limit: usize::MAX, ..StreamList::default() };
                        session.log_streams(&group, &list)?
                    }
                };
                let source = |stream: LogStream| filter::Source {
                    path: stream_file(&root, &group.clone().stream(&stream.name)),
                    name: stream.name,
                    disorder_ms: stream.disorder_ms,
                    oldest_at: stream.oldest_at,
                    newest_at: stream.newest_at,
                };
                Ok(found.into_iter().map(source).collect::<Vec<_>>())
            })
            .await?;
        blocking(&folder, move || filter::filter_page(sources, &query)).await
    }

    fn stream_row(&self, key: &StreamKey) -> Result<LogStream> {
        self.database.look(|session| session.log_stream(key))
    }

    fn append_lock(&self, key: &StreamKey) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.append_locks[(hasher.finish() % APPEND_LOCKS as u64) as usize]
    }

    /// Records how far events from `first_ms` to `last_ms` are out of order, where they are.
    async fn record_disorder(
        &self,
        key: StreamKey,
        stream: LogStream,
        path: &Path,
        first_ms: i64,
        last_ms: i64,
        now_ms: i64,
    ) -> Result<()> {
        let file = path.to_owned();
        let extent =
            blocking(path, move || extent::extent(&file, stream.oldest_at, stream.newest_at)).await?;
        let newest_ms = extent.map(|extent| extent.last_event_at);
        let lag_ms = newest_ms.map_or(0, |newest_ms| newest_ms - first_ms);
        // A supervisor that appends after events of the future writes behind them.
        let lead_ms = last_ms - now_ms;
        let disorder_ms = lag_ms.max(lead_ms);
        let newest_ms = newest_ms.map_or(last_ms, |newest_ms| newest_ms.max(last_ms));
        let known = disorder_ms <= stream.disorder_ms
            && stream.oldest_at.is_some_and(|oldest_at| oldest_at <= first_ms)
            && stream.newest_at.is_some_and(|newest_at| newest_at >= newest_ms);
        if disorder_ms <= 0 || known {
            return Ok(());
        }
        self.database
            .write(move |session| session.widen_log_stream_disorder(&key, disorder_ms, first_ms, newest_ms))
            .await
    }
}

/// Where a stream stands in [`LogStore::streams_by_last_event`].
pub fn last_event_position(stream: &LogStream) -> (i64, &str) {
    (stream.last_event_at(), &stream.name)
}

/// Runs file work away from the async threads.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done =
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    done.map_err(Error::file(format!("read or write logs in {}", path.display())))
}

/// Adds the row of a group; a new one starts without files, whatever a crash may have left.
fn add_group(session: &Session<'_>, root: &Path, key: &GroupKey, now_ms: i64) -> Result<bool> {
    let added = session.insert_log_group(key, now_ms)?;
    if added {
        let folder = group_folder(root, key);
        unless_missing(std::fs::remove_dir_all(&folder))
            .map_err(Error::file(format!("clear {}", folder.display())))?;
    }
    Ok(added)
}

/// Adds the row of a stream; a new one starts with an empty file.
fn add_stream(session: &Session<'_>, root: &Path, key: &StreamKey, now_ms: i64) -> Result<bool> {
    let added = session.insert_log_stream(key, now_ms)?;
    if added {
        let path = stream_file(root, key);
        unless_missing(std::fs::remove_file(&path))
            .and_then(|()| open_for_append(&path))
            .map_err(Error::file(format!("make {}", path.display())))?;
    }
    Ok(added)
}

fn fill_extent(root: &Path, group: &GroupKey, stream: &mut LogStream) -> Result<()> {
    let path = stream_file(root, &group.clone().stream(&stream.name));
    stream.extent = extent::extent(&path, stream.oldest_at, stream.newest_at)
        .map_err(Error::file(format!("read {}", path.display())))?;
    Ok(())
}
