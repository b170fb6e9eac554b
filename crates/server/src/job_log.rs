//! The server's own view of one log stream: it writes progress lines and reads what user code wrote.

use std::sync::Arc;

use store::Clock;
use store::logs::{Cursor, From, GroupKey, LogStore, NewEvent, ReadQuery, StreamKey};

use crate::app::App;

/// Events that are read at a time.
const BATCH: usize = 10_000;
/// Bytes that are read at a time.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One log stream.
pub struct JobLog {
    logs: Arc<LogStore>,
    clock: Clock,
    key: StreamKey,
}

impl JobLog {
    /// The stream of a group; it need not exist yet to be written to later.
    pub fn new(app: &App, account: &str, region: &str, group: &str, stream: &str) -> JobLog {
        let key = GroupKey::new(account, region, group).stream(stream);
        JobLog { logs: app.logs.clone(), clock: app.clock.clone(), key }
    }

    /// Appends a line. A log that cannot be written must not fail the job; the server's own log says so.
    pub async fn line(&self, text: &str) {
        let event = NewEvent { timestamp_ms: self.clock.now_ms(), text: text.to_owned() };
        if let Err(error) = self.logs.append(self.key.clone(), vec![event]).await {
            tracing::error!(stream = self.key.stream, %error, "a progress line was lost");
        }
    }

    /// The last lines, oldest first.
    pub async fn tail(&self, lines: usize) -> Vec<String> {
        self.timed_tail(lines).await.into_iter().map(|(_, text)| text).collect()
    }

    /// The last lines with their times (milliseconds since 1970), oldest first.
    pub async fn timed_tail(&self, lines: usize) -> Vec<(i64, String)> {
        let query = ReadQuery {
            start_ms: None,
            end_ms: None,
            from: From::Tail,
            limit: lines,
            most_bytes: BATCH_BYTES,
        };
        match self.logs.read(&self.key, query).await {
            Ok(page) => page.events.into_iter().map(|event| (event.timestamp_ms, event.text)).collect(),
            Err(store::Error::Missing { .. }) => Vec::new(),
            Err(error) => {
                tracing::error!(stream = self.key.stream, %error, "the end of a log could not be read");
                Vec::new()
            }
        }
    }

    /// Calls `take` with the time (milliseconds since 1970) and text of each line.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn each(&self, mut take: impl FnMut(i64, &str)) -> Result<(), String> {
        let mut from = From::Head;
        loop {
            let query =
                ReadQuery { start_ms: None, end_ms: None, from, limit: BATCH, most_bytes: BATCH_BYTES };
            let page = match self.logs.read(&self.key, query).await {
                Ok(page) => page,
                Err(store::Error::Missing { .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            if page.events.is_empty() {
                return Ok(());
            }
            for event in &page.events {
                take(event.timestamp_ms, &event.text);
            }
            from = next(page.forward);
        }
    }
}

fn next(cursor: Cursor) -> From {
    From::Cursor(cursor)
}
