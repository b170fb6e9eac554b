//! A connection to one worker of a replica, or a place for one request in a container: sending a request, reading its answer.

mod frames;
mod link;

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::chain::{Chain, ChainRest};
use crate::engine::NativeModel;
use crate::frame::{self, RequestHeader, ResponseHeader};
use crate::http::{Answering, HttpReplica};
use crate::invocation::InvokeRequest;
use crate::models::{ModelCache, ModelRest, Role};
use crate::pace::Pace;
use crate::refused::Refused;
use crate::spoken::SpokenProtocol;

use self::frames::Frames;

pub(crate) use link::ReplicaLink;

/// It carries one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    channel: Channel,
    pub(crate) link: Arc<ReplicaLink>,
    pub(crate) last_answer_at: Instant,
    /// Set once its worker has proved ready; only then is its loss news.
    pub(crate) proven: bool,
    /// The number of the one worker that it leads to, if it is one.
    pub(crate) worker: Option<u64>,
    /// How many requests its worker answers together, as it says; below 2 it is one at a time.
    pub(crate) batch_limit: u32,
    /// How many it takes at once to answer them one by one, as it says.
    pub(crate) backlog_limit: u32,
    /// How quickly it answers.
    pub(crate) pace: Pace,
    /// Which worker it leads to and what for, where that has said so.
    pub(crate) told_worker: Option<(u64, Role)>,
}

/// What carries the bytes.
#[derive(Debug)]
enum Channel {
    /// Leads to one worker.
    Frames(Frames),
    /// A place among the requests that a container has at once, with what is left of the last answer.
    Http(Arc<HttpReplica>, Option<Answering>),
    /// A place among the requests that a model of this process has at once.
    Native(Arc<NativeModel>),
    /// A place among the requests that a replica of many models has at once, with what is left of the last answer.
    Models(Arc<ModelCache>, Option<Box<ModelRest>>),
    /// The same of a replica of several containers.
    Chain(Arc<Chain>, Option<Box<ChainRest>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(worker) = self.worker {
            self.link.workers().reached.remove(&worker);
        }
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
    /// Nothing listens at the replica's end.
    Unreachable(io::Error),
    /// A replica of many models or several containers says why there is no answer.
    Refused(Refused),
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

/// Reads a piece of an answer from a connection behind this one; boxed, since a connection can lead to connections.
pub(crate) type ChunkFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Chunk, ExchangeError>> + Send + Sync + 'a>>;

/// Connects to the socket of a replica. A job owns the folder of its socket, so a link there is not followed.
pub(crate) async fn open_socket(socket: &Path) -> io::Result<UnixStream> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, open};
    let handle = open(socket, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&handle)?.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a socket"));
    }
    // Going through the handle also lifts the limit of 107 bytes on the path of a socket.
    UnixStream::connect(format!("/proc/self/fd/{}", handle.as_raw_fd())).await
}

impl Connection {
    /// Connects to a worker behind the socket of a replica.
    pub(crate) async fn open(socket: &Path, link: Arc<ReplicaLink>) -> io::Result<Self> {
        let stream = open_socket(socket).await?;
        let channel = Channel::Frames(Frames { stream, buffer: BytesMut::new() });
        let worker = Some(link.number_worker());
        let mut connection = Self::over(channel, link);
        connection.worker = worker;
        Ok(connection)
    }

    fn over(channel: Channel, link: Arc<ReplicaLink>) -> Self {
        let last_answer_at = Instant::now();
        Self {
            channel,
            link,
            last_answer_at,
            proven: false,
            worker: None,
            batch_limit: 0,
            backlog_limit: 0,
            pace: Pace::default(),
            told_worker: None,
        }
    }

    /// A place for one request in a replica that speaks HTTP.
    pub(crate) fn place(replica: Arc<HttpReplica>, link: Arc<ReplicaLink>) -> Self {
        Self::over(Channel::Http(replica, None), link)
    }

    /// A place for one request at a model of this process.
    pub(crate) fn native_place(model: Arc<NativeModel>, link: Arc<ReplicaLink>) -> Self {
        Self::over(Channel::Native(model), link)
    }

    /// A place for one request at a replica of many models.
    pub(crate) fn models_place(models: Arc<ModelCache>, link: Arc<ReplicaLink>) -> Self {
        Self::over(Channel::Models(models, None), link)
    }

    /// A place for one request at a replica of several containers.
    pub(crate) fn chain_place(chain: Arc<Chain>, link: Arc<ReplicaLink>) -> Self {
        Self::over(Channel::Chain(chain, None), link)
    }

    /// Whether what it leads to keeps the time limits of requests itself: there are several of them, or a model is loaded first.
    pub(crate) fn keeps_time(&self) -> bool {
        matches!(self.channel, Channel::Models(..) | Channel::Chain(..))
    }

    /// The replica behind it, if that speaks HTTP.
    pub(crate) fn http(&self) -> Option<&Arc<HttpReplica>> {
        match &self.channel {
            Channel::Http(replica, _) => Some(replica),
            Channel::Frames(_) | Channel::Native(_) | Channel::Models(..) | Channel::Chain(..) => None,
        }
    }

    /// Whether what it leads to speaks a protocol by itself.
    pub(crate) async fn speaks(&self, protocol: SpokenProtocol) -> bool {
        match &self.channel {
            Channel::Http(replica, _) => replica.spoken(protocol).await.is_some(),
            Channel::Frames(_) | Channel::Native(_) | Channel::Models(..) | Channel::Chain(..) => false,
        }
    }

    /// Gives up all that leads to the same replica until it has answered a ping, since nothing listens there.
    pub(crate) fn lose(&self) {
        if !self.link.retired.swap(true, Ordering::AcqRel) {
            // Nobody listens once the replica has been given up.
            let _ = self.link.lost.send(());
        }
    }

    /// What is left when the answer to its request was not read to its end: a place for another one, where it is no worker's.
    pub(crate) fn after_interruption(&mut self) -> Option<Self> {
        match &mut self.channel {
            Channel::Http(replica, rest) => {
                *rest = None;
                Some(Self::place(Arc::clone(replica), Arc::clone(&self.link)))
            }
            Channel::Native(model) => Some(Self::native_place(Arc::clone(model), Arc::clone(&self.link))),
            Channel::Models(models, rest) => {
                *rest = None;
                Some(Self::models_place(Arc::clone(models), Arc::clone(&self.link)))
            }
            Channel::Chain(chain, rest) => {
                *rest = None;
                Some(Self::chain_place(Arc::clone(chain), Arc::clone(&self.link)))
            }
            Channel::Frames(_) => None,
        }
    }

    /// Sends an invocation and reads its answer up to the end of its body, or, for a streamed one, up to the first chunk. Nothing may be left
    /// of an earlier answer. `limit` is kept by those that [`Connection::keeps_time`], and by the caller for others.
    ///
    /// What takes long and much room is boxed, so that the future of all others is small.
    pub(crate) async fn invoke(
        &mut self,
        request: &InvokeRequest,
        max_body_bytes: u64,
        limit: Duration,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let answered = match &mut self.channel {
            Channel::Frames(frames) => {
                let asked_at = Instant::now();
                let header = frame::encode_request(&RequestHeader::of(request), request.body.len());
                frames.send(header, request.body.clone()).await?;
                let answered = frames.receive(max_body_bytes).await?;
                if matches!(answered.1, AnswerBody::Whole(_)) {
                    self.last_answer_at = Instant::now();
                    self.pace.note(self.last_answer_at - asked_at);
                } else {
                    self.pace = Pace::default();
                }
                return Ok(answered);
            }
            Channel::Http(replica, rest) => {
                let (header, body, answering) = Box::pin(replica.invoke(request, max_body_bytes)).await?;
                *rest = answering;
                (header, body)
            }
            Channel::Native(model) => {
                let (header, body) = model.answer(request).await;
                if body.len() as u64 > max_body_bytes {
                    return Err(ExchangeError::TooLarge(body.len() as u64));
                }
                (header, AnswerBody::Whole(body))
            }
            Channel::Models(models, rest) => {
                let (header, body, left) = Box::pin(models.invoke(request, max_body_bytes, limit)).await?;
                *rest = left;
                (header, body)
            }
            Channel::Chain(chain, rest) => {
                let (header, body, left) = chain.invoke(request, max_body_bytes, limit).await?;
                *rest = left;
                (header, body)
            }
        };
        if matches!(answered.1, AnswerBody::Whole(_)) {
            self.last_answer_at = Instant::now();
        }
        Ok(answered)
    }

    /// Reads the next piece of a streamed answer.
    pub(crate) async fn read_chunk(&mut self, max_chunk_bytes: u64) -> Result<Chunk, ExchangeError> {
        let chunk = match &mut self.channel {
            Channel::Frames(frames) => frames.read_chunk(max_chunk_bytes).await?,
            Channel::Http(replica, rest) => replica.next_chunk(rest, max_chunk_bytes).await?,
            // Its answers come in one piece.
            Channel::Native(_) => Chunk::End,
            Channel::Models(_, None) | Channel::Chain(_, None) => Chunk::End,
            Channel::Models(_, Some(rest)) => rest.next_chunk(max_chunk_bytes).await?,
            Channel::Chain(_, Some(rest)) => rest.next_chunk(max_chunk_bytes).await?,
        };
        if !matches!(chunk, Chunk::Data(_)) {
            self.drop_rest();
        }
        if !matches!(chunk, Chunk::Data(_)) {
            self.last_answer_at = Instant::now();
        }
        Ok(chunk)
    }

    fn drop_rest(&mut self) {
        match &mut self.channel {
            Channel::Models(_, rest) => *rest = None,
            Channel::Chain(_, rest) => *rest = None,
            Channel::Frames(_) | Channel::Http(..) | Channel::Native(_) => {}
        }
    }

    /// Sends several requests to a worker that takes as many. Nothing may be left of an earlier answer.
    pub(crate) async fn send_batch(&mut self, frame: Bytes) -> Result<(), ExchangeError> {
        match &mut self.channel {
            Channel::Frames(frames) => frames.send(frame, Bytes::new()).await,
            _ => Err(ExchangeError::Lost("The connection leads to no worker.".into())),
        }
    }

    /// Reads the next answer of those as [`Connection::invoke`] does. The worker has had the request since `asked_at`.
    pub(crate) async fn receive_of_batch(
        &mut self,
        max_body_bytes: u64,
        asked_at: Instant,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let Channel::Frames(frames) = &mut self.channel else {
            return Err(ExchangeError::Lost("The connection leads to no worker.".into()));
        };
        let answered = frames.receive(max_body_bytes).await?;
        self.last_answer_at = Instant::now();
        self.pace.note(self.last_answer_at - asked_at);
        Ok(answered)
    }

    /// As [`Connection::invoke`], for one of the models that a worker has.
    pub(crate) async fn invoke_model(
        &mut self,
        request: &InvokeRequest,
        model: &str,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let header = RequestHeader { model: Some(model), ..RequestHeader::of(request) };
        self.ask_worker(&header, request.body.clone(), max_body_bytes).await
    }

    /// Asks a worker to load a model from a folder, or to unload one.
    pub(crate) async fn ask_models(
        &mut self,
        kind: &'static str,
        model: &str,
        model_dir: Option<&str>,
        forgets: bool,
    ) -> Result<ResponseHeader, ExchangeError> {
        let header =
            RequestHeader { kind, model: Some(model), model_dir, forgets, ..RequestHeader::default() };
        self.ask_worker(&header, Bytes::new(), 0).await.map(|(header, _)| header)
    }

    async fn ask_worker(
        &mut self,
        header: &RequestHeader<'_>,
        body: Bytes,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody), ExchangeError> {
        let Channel::Frames(frames) = &mut self.channel else {
            return Err(ExchangeError::Lost("The connection leads to no worker.".into()));
        };
        frames.send(frame::encode_request(header, body.len()), body).await?;
        let answered = frames.receive(max_body_bytes).await?;
        self.last_answer_at = Instant::now();
        Ok(answered)
    }

    /// Asks the worker whether it is ready. The inner error is the text of a host that could not load its model.
    pub(crate) async fn ping(&mut self) -> Result<Result<(), String>, ExchangeError> {
        let Channel::Frames(frames) = &mut self.channel else { return Ok(Ok(())) };
        let header = frame::encode_request(&RequestHeader { kind: "ping", ..RequestHeader::default() }, 0);
        frames.send(header, Bytes::new()).await?;
        let (header, _) = frames.receive(0).await?;
        self.last_answer_at = Instant::now();
        self.batch_limit = header.batch_limit.unwrap_or_default();
        self.backlog_limit = header.backlog_limit.unwrap_or_default();
        let role = if header.role.as_deref() == Some("load") { Role::Load } else { Role::Invoke };
        self.told_worker = header.worker.map(|worker| (worker, role));
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
        let Channel::Frames(frames) = &self.channel else { return false };
        let mut byte = [0_u8];
        !matches!(frames.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;
    use tokio::sync::mpsc;

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
        let request = InvokeRequest { body: Bytes::from_static(b"body"), ..InvokeRequest::default() };
        connection.invoke(&request, 1000, Duration::from_secs(60)).await
    }

    #[tokio::test]
    async fn a_request_that_was_not_read_whole_may_go_elsewhere() {
        let (mut connection, worker) = pair().await;
        assert!(!connection.is_broken());
        drop(worker);
        let Channel::Frames(frames) = &connection.channel else { panic!("it leads to a worker") };
        frames.stream.readable().await.unwrap();
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
