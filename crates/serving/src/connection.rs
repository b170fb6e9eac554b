//! One connection to one worker of a replica: connecting, sending a request, reading its answer.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::frame::{
    self, CHUNK_ERROR, CHUNKED, MAX_HEADER_BYTES, PREFIX_BYTES, Prefix, RequestHeader, ResponseHeader,
};

/// What a connection knows of the replica it leads to.
#[derive(Debug)]
pub(crate) struct ReplicaLink {
    pub(crate) id: String,
    /// Set once the replica must get no more requests.
    pub(crate) retired: AtomicBool,
    /// How many of its connections carry a request now.
    pub(crate) in_use: AtomicUsize,
    /// Told of each connection that was closed, so that it is replaced.
    pub(crate) lost: mpsc::UnboundedSender<()>,
}

impl ReplicaLink {
    pub(crate) fn new(id: String, lost: mpsc::UnboundedSender<()>) -> Arc<Self> {
        Arc::new(Self { id, retired: AtomicBool::new(false), in_use: AtomicUsize::new(0), lost })
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// A connection to one worker. It carries one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    buffer: BytesMut,
    pub(crate) link: Arc<ReplicaLink>,
    pub(crate) last_answer_at: Instant,
    /// Set once its worker has proved ready; only then is its loss news.
    pub(crate) proven: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.proven {
            // Nobody listens once the replica has been given up; then there is nothing to replace.
            let _ = self.link.lost.send(());
        }
    }
}

/// Why an exchange with a worker came to nothing.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The worker closed the connection without having read the request whole; it can be sent to another.
    NotRead,
    /// The worker went away while it had the request, or answered against the protocol.
    Lost(String),
    /// The answer is larger than allowed.
    TooLarge(u64),
}

impl ExchangeError {
    /// A Unix socket reports a reset (and not an end of file) exactly when the peer left data unread.
    fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::NotRead,
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// What follows an answer's header.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Bytes),
    /// To be read with [`Connection::read_chunk`].
    Chunked,
}

/// A piece of a streamed answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Data(Bytes),
    /// The model failed in the middle; the text says how.
    Failed(Bytes),
    End,
}

const FIRST_READ_BYTES: usize = 16 * 1024;

impl Connection {
    /// Connects to the socket of a replica. A job owns the folder of its socket, so a link there is not followed.
    pub(crate) async fn open(socket: &Path, link: Arc<ReplicaLink>) -> io::Result<Self> {
        use rustix::fs::{FileType, Mode, OFlags, fstat, open};
        let handle = open(socket, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&handle)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a socket"));
        }
        // Going through the handle also lifts the limit of 107 bytes on the path of a socket.
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", handle.as_raw_fd())).await?;
        Ok(Self { stream, buffer: BytesMut::new(), link, last_answer_at: Instant::now(), proven: false })
    }

    /// Sends one request. Nothing may be left of an earlier answer.
    pub(crate) async fn send(&mut self, header: Bytes, body: Bytes) -> Result<(), ExchangeError> {
        debug_assert!(self.buffer.is_empty(), "an answer has not been read to its end");
        let mut frame = header.chain(body);
        self.stream.write_all_buf(&mut frame).await.map_err(|error| ExchangeError::from_io(&error))
    }

    /// Reads an answer up to the end of its body, or, for a streamed one, up to the first chunk.
    pub(crate) async fn receive(
        &mut self,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let prefix = self.read_prefix().await?;
        if prefix.header_bytes > MAX_HEADER_BYTES {
            return Err(ExchangeError::Lost("The model host sent a header that is too long.".into()));
        }
        self.fill(prefix.header_bytes).await?;
        let header = frame::decode_response_header(&self.buffer[..prefix.header_bytes])
            .map_err(ExchangeError::Lost)?;
        self.buffer.advance(prefix.header_bytes);
        if prefix.body_bytes == CHUNKED {
            return Ok((header, AnswerBody::Chunked));
        }
        if prefix.body_bytes > max_body_bytes {
            return Err(ExchangeError::TooLarge(prefix.body_bytes));
        }
        let body = self.take(prefix.body_bytes as usize).await?;
        self.last_answer_at = Instant::now();
        Ok((header, AnswerBody::Whole(body)))
    }

    /// Reads the next piece of a streamed answer.
    pub(crate) async fn read_chunk(&mut self, max_chunk_bytes: u64) -> Result<Chunk, ExchangeError> {
        self.fill(4).await?;
        let length = self.buffer.get_u32();
        let failed = length == CHUNK_ERROR;
        let length = if failed {
            self.fill(4).await?;
            self.buffer.get_u32()
        } else {
            length
        };
        if u64::from(length) > max_chunk_bytes {
            return Err(ExchangeError::TooLarge(u64::from(length)));
        }
        let data = self.take(length as usize).await?;
        if failed || length == 0 {
            self.last_answer_at = Instant::now();
        }
        Ok(match (failed, length) {
            (true, _) => Chunk::Failed(data),
            (false, 0) => Chunk::End,
            (false, _) => Chunk::Data(data),
        })
    }

    /// Asks the worker whether it is ready. The inner error is the text of a host that could not load its model.
    pub(crate) async fn ping(&mut self) -> Result<Result<(), String>, ExchangeError> {
        let header = frame::encode_request(&RequestHeader { kind: "ping", ..RequestHeader::default() }, 0);
        self.send(header, Bytes::new()).await?;
        let (header, _) = self.receive(0).await?;
        Ok(if header.status == 200 {
            Ok(())
        } else {
            Err(header
                .error
                .unwrap_or_else(|| format!("The model host answered a ping with status {}.", header.status)))
        })
    }

    /// Whether an idle connection is of no more use: closed by the worker, or out of step with it.
    pub(crate) fn is_broken(&self) -> bool {
        let mut byte = [0_u8];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read_prefix(&mut self) -> Result<Prefix, ExchangeError> {
        self.fill(PREFIX_BYTES).await?;
        Ok(frame::take_prefix(&mut self.buffer).expect("the buffer was filled up to it"))
    }

    /// Reads until the buffer holds that many bytes.
    async fn fill(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        if self.buffer.len() < bytes {
            self.buffer.reserve((bytes - self.buffer.len()).max(FIRST_READ_BYTES));
        }
        while self.buffer.len() < bytes {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ExchangeError::Lost("The worker ended before it had answered.".into())),
                Ok(_) => {}
                Err(error) => return Err(ExchangeError::from_io(&error)),
            }
        }
        Ok(())
    }

    async fn take(&mut self, bytes: usize) -> Result<Bytes, ExchangeError> {
        self.fill(bytes).await?;
        Ok(self.buffer.split_to(bytes).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn link() -> Arc<ReplicaLink> {
        ReplicaLink::new("replica".into(), mpsc::unbounded_channel().0)
    }

    async fn open_error(path: &Path) -> String {
        Connection::open(path, link()).await.expect_err("it must not be opened").to_string()
    }

    #[tokio::test]
    async fn only_a_socket_itself_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("host.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        Connection::open(&socket, link()).await.unwrap();
        listener.accept().await.unwrap();

        // A job owns this folder and could point elsewhere, for instance at a socket that only the server may use.
        let symlink = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&socket, &symlink).unwrap();
        assert_eq!(open_error(&symlink).await, "it is not a socket");
        let file = folder.path().join("file.sock");
        std::fs::write(&file, "").unwrap();
        assert_eq!(open_error(&file).await, "it is not a socket");
    }

    #[tokio::test]
    async fn the_path_may_be_longer_than_a_socket_name() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let listener = UnixListener::bind(folder.path().join("host.sock")).unwrap();
        std::fs::rename(folder.path().join("host.sock"), deep.join("host.sock")).unwrap();
        Connection::open(&deep.join("host.sock"), link()).await.unwrap();
        listener.accept().await.unwrap();
    }

    async fn pair() -> (Connection, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("host.sock")).unwrap();
        let connection = Connection::open(&folder.path().join("host.sock"), link()).await.unwrap();
        (connection, listener.accept().await.unwrap().0)
    }

    async fn ask(connection: &mut Connection) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let header = frame::encode_request(&RequestHeader { kind: "invoke", ..RequestHeader::default() }, 4);
        connection.send(header, Bytes::from_static(b"body")).await?;
        connection.receive(1000).await
    }

    #[tokio::test]
    async fn a_request_that_was_not_read_whole_may_go_elsewhere() {
        let (mut connection, worker) = pair().await;
        assert!(!connection.is_broken());
        drop(worker);
        connection.stream.readable().await.unwrap();
        assert!(connection.is_broken());
        assert!(matches!(ask(&mut connection).await, Err(ExchangeError::NotRead)));

        let (mut connection, mut worker) = pair().await;
        let worker = async {
            worker.read_u32().await.unwrap();
            drop(worker);
        };
        let (result, ()) = tokio::join!(ask(&mut connection), worker);
        assert!(matches!(result, Err(ExchangeError::NotRead)), "{result:?}");
    }

    #[tokio::test]
    async fn a_request_that_was_read_may_not() {
        let (mut connection, mut worker) = pair().await;
        let worker = async {
            let mut request = [0; 12 + 17 + 4];
            worker.read_exact(&mut request).await.unwrap();
            drop(worker);
        };
        let (result, ()) = tokio::join!(ask(&mut connection), worker);
        assert!(matches!(result, Err(ExchangeError::Lost(_))), "{result:?}");
    }

    #[tokio::test]
    async fn answers_against_the_protocol_are_refused() {
        let too_long_header = (u32::MAX, 0, "");
        for (header_bytes, body_bytes, rest) in
            [too_long_header, (2, 0, "{}"), (3, 0, "abc"), (14, 2, "{\"status\":200}")]
        {
            let (mut connection, mut worker) = pair().await;
            let worker = async {
                worker.write_u32(header_bytes).await.unwrap();
                worker.write_u64(body_bytes).await.unwrap();
                worker.write_all(rest.as_bytes()).await.unwrap();
                let mut request = Vec::new();
                worker.shutdown().await.unwrap();
                let _ = worker.read_to_end(&mut request).await;
            };
            let answer = async {
                let result = ask(&mut connection).await;
                drop(connection);
                result
            };
            let (result, ()) = tokio::join!(answer, worker);
            assert!(matches!(result, Err(ExchangeError::Lost(_))), "{rest}: {result:?}");
        }
    }
}
