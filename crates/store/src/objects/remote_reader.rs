//! The bytes of a remote object, read as a file is read. A connection that breaks is taken up where it broke.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Object, RemoteBucket, RemoteProblem};
use crate::error::{Error, Result};

/// Pieces that are fetched ahead of the reader.
const PIECES_AHEAD: usize = 8;

/// Times that a read may break without a byte between.
const MOST_BREAKS: u32 = 4;

/// Pause after the first break; each further one is as much longer.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads one version of a remote object. Reading blocks, and must not happen on an async thread.
pub(super) struct RemoteReader {
    source: Source,
    runtime: Handle,
    size: u64,
    position: u64,
    /// Where the reader will stop, so that no more is fetched.
    end: u64,
    piece: Bytes,
    coming: Option<mpsc::Receiver<Result<Bytes>>>,
}

#[derive(Clone)]
struct Source {
    bucket: Arc<dyn RemoteBucket>,
    key: String,
    etag: String,
}

impl RemoteReader {
    /// Of the version that `object` describes. Must be called on the runtime that fetches.
    pub fn new(bucket: Arc<dyn RemoteBucket>, object: &Object) -> RemoteReader {
        RemoteReader {
            source: Source { bucket, key: object.key.clone(), etag: object.etag.clone() },
            runtime: Handle::current(),
            size: object.size,
            position: 0,
            end: object.size,
            piece: Bytes::new(),
            coming: None,
        }
    }

    /// Says where the reader will stop.
    pub fn until(&mut self, end: u64) {
        self.end = end.min(self.size);
        self.forget();
    }

    fn forget(&mut self) {
        self.coming = None;
        self.piece = Bytes::new();
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.end || buffer.is_empty() {
            return Ok(0);
        }
        while !self.piece.has_remaining() {
            let (source, range) = (&self.source, self.position..self.end);
            let coming = self.coming.get_or_insert_with(|| {
                let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
                self.runtime.spawn(fetch(source.clone(), range, sender));
                receiver
            });
            self.piece = match coming.blocking_recv() {
                Some(piece) => piece.map_err(io::Error::other)?,
                None => return Err(io::Error::other("the server is stopping")),
            };
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for RemoteReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        if position != self.position {
            self.forget();
        }
        self.position = position;
        Ok(position)
    }
}

/// Sends the bytes of a range, all of them or an error at the end.
async fn fetch(source: Source, range: Range<u64>, sender: mpsc::Sender<Result<Bytes>>) {
    let (mut at, mut breaks) = (range.start, 0);
    while at < range.end {
        let mut body = match source.bucket.get(&source.key, at..range.end, &source.etag).await {
            Ok(body) => body,
            Err(error) => {
                // The reader may be gone.
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        let broken = loop {
            match body.chunk().await {
                Ok(Some(mut bytes)) => {
                    bytes.truncate(usize::try_from(range.end - at).unwrap_or(usize::MAX));
                    if bytes.is_empty() {
                        continue;
                    }
                    at += bytes.len() as u64;
                    breaks = 0;
                    if sender.send(Ok(bytes)).await.is_err() || at == range.end {
                        return;
                    }
                }
                Ok(None) => {
                    let text = format!("the remote object {:?} broke off at byte {at}", source.key);
                    break Error::from(RemoteProblem::Unavailable(text));
                }
                Err(error) => break error,
            }
        };
        breaks += 1;
        if breaks > MOST_BREAKS {
            // The reader may be gone.
            let _ = sender.send(Err(broken)).await;
            return;
        }
        tokio::time::sleep(PAUSE * breaks).await;
    }
}
