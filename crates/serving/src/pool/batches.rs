//! Requests in the line that one worker gets together: taking them out of it, asking the worker, and telling each its own answer. The worker
//! joins them for one call of its model, or, where it is quick, answers them one by one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Acquire, Lease, Pool};
use crate::batch::{BatchRequest, BatchSettings};
use crate::connection::{AnswerBody, Chunk, Connection, ExchangeError, ReplicaLink};
use crate::frame::{self, ResponseHeader};
use crate::launcher::BoxFuture;
use crate::metrics::Counters;
use crate::shelf::Shelf;
use crate::told;

/// The headers of a batch take at most this much of a frame's.
const MOST_HEADER_BYTES: usize = frame::MAX_HEADER_BYTES / 2;
/// How many that do not fit in are passed by in the search for others.
const MOST_PASSED_BY: usize = 64;

/// How a pool lets workers have several requests at once.
#[derive(Debug)]
pub(super) struct Batches {
    settings: BatchSettings,
    counters: Arc<Counters>,
    /// As the worker said that was put back last; below 2 it joins none.
    limit: AtomicU32,
    /// Whether that worker is given more than one request.
    are_formed: AtomicBool,
}

/// One in the line.
#[derive(Debug)]
pub(super) enum Waiter {
    /// Waits for a connection.
    Alone(oneshot::Sender<Lease>),
    /// Waits for a connection, or for an answer that comes with others'.
    Joinable(Rider),
}

#[derive(Debug)]
pub(super) struct Rider {
    grant: oneshot::Sender<Grant>,
    request: BatchRequest,
}

/// What one in the line gets.
#[derive(Debug)]
pub(crate) enum Grant {
    Alone(Lease),
    Joined(Seat),
}

/// What a worker makes of the requests that it gets together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers them together.
    Joined,
    /// It answers them one by one, in their order.
    Backlog,
}

/// A place in a batch that has been sent.
pub(crate) struct Seat {
    pub(crate) link: Arc<ReplicaLink>,
    outcome: oneshot::Receiver<Outcome>,
}

/// What becomes of a request in a batch.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are answers")]
pub(crate) enum Outcome {
    Answered(ResponseHeader, Bytes),
    /// The model failed in the middle of its answer; the text says how.
    Broken(String),
    /// Nothing has been made of it, and it can be sent again.
    Again,
    /// Its worker went away; what befell it may be told later.
    Lost(String, BoxFuture<'static, Option<String>>),
    TooLarge(u64),
    TimedOut,
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seat").field("replica", &self.link.id).finish_non_exhaustive()
    }
}

impl Grant {
    /// The connection, where it is one.
    pub(crate) fn alone(self) -> Option<Lease> {
        match self {
            Grant::Alone(lease) => Some(lease),
            Grant::Joined(_) => None,
        }
    }
}

impl Seat {
    pub(crate) async fn outcome(self) -> Outcome {
        let lost = || Outcome::Lost("The batch was given up.".into(), Box::pin(async { None::<String> }));
        self.outcome.await.unwrap_or_else(|_| lost())
    }
}

impl Acquire {
    /// Waits for what one in the line gets; `None` when it is sent away.
    pub(crate) async fn granted(self) -> Option<Grant> {
        match self {
            Acquire::Ready(lease) => Some(Grant::Alone(lease)),
            Acquire::Wait(line) => line.await.ok().map(Grant::Alone),
            Acquire::Join(line) => line.await.ok(),
            Acquire::Full | Acquire::Gone | Acquire::Draining => None,
        }
    }
}

impl Waiter {
    pub(super) fn new(request: Option<BatchRequest>) -> (Waiter, Acquire) {
        match request {
            None => {
                let (sender, receiver) = oneshot::channel();
                (Waiter::Alone(sender), Acquire::Wait(receiver))
            }
            Some(request) => {
                let (grant, receiver) = oneshot::channel();
                (Waiter::Joinable(Rider { grant, request }), Acquire::Join(receiver))
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Waiter::Alone(sender) => sender.is_closed(),
            Waiter::Joinable(rider) => rider.grant.is_closed(),
        }
    }

    /// Gives it a connection; whoever has gone away leaves that behind.
    fn give(self, lease: Lease) -> Option<Lease> {
        match self {
            Waiter::Alone(sender) => sender.send(lease).err(),
            Waiter::Joinable(rider) => rider.grant.send(Grant::Alone(lease)).err().and_then(Grant::alone),
        }
    }
}

impl Batches {
    pub(super) fn new(settings: BatchSettings, counters: Arc<Counters>) -> Option<Batches> {
        (settings.requests > 1).then(|| Batches {
            settings,
            counters,
            limit: AtomicU32::new(0),
            are_formed: AtomicBool::new(false),
        })
    }

    /// Takes down how many requests the worker of a connection gets together.
    pub(super) fn note(&self, connection: &Connection) {
        let limit = self.limit_of(connection);
        if self.limit.load(Ordering::Relaxed) != limit {
            self.limit.store(limit, Ordering::Relaxed);
            self.counters.batches.set_limit(limit);
        }
        let are_formed = self.most_of(connection) > 1;
        if self.are_formed.load(Ordering::Relaxed) != are_formed {
            self.are_formed.store(are_formed, Ordering::Relaxed);
        }
    }

    /// Whether workers get several requests at once now.
    pub(super) fn are_formed(&self) -> bool {
        self.are_formed.load(Ordering::Relaxed)
    }

    /// How many requests the worker of a connection gets at once.
    fn most_of(&self, connection: &Connection) -> u32 {
        match self.limit_of(connection) {
            0 => {
                let most = connection.pace.most_at_once(self.settings.backlog);
                most.min(connection.backlog_limit).min(self.settings.requests)
            }
            joined => joined,
        }
    }

    /// How many of them it joins; 0 for none.
    fn limit_of(&self, connection: &Connection) -> u32 {
        match connection.batch_limit.min(self.settings.requests) {
            0 | 1 => 0,
            limit => limit,
        }
    }

    /// Takes out of the line what the worker is to answer with the riders that it has.
    fn fill(&self, riders: &mut Vec<Rider>, most: usize, line: &mut VecDeque<Waiter>) {
        let mut bytes: usize = riders.iter().map(|rider| rider.request.bytes()).sum();
        let mut header_bytes: usize = riders.iter().map(|rider| rider.request.header.len()).sum();
        let mut passed_by = Vec::new();
        while riders.len() < most
            && passed_by.len() < MOST_PASSED_BY
            && let Some(waiter) = line.pop_front()
        {
            match waiter {
                closed if closed.is_closed() => {}
                Waiter::Joinable(rider)
                    if bytes + rider.request.bytes() <= self.settings.bytes
                        && header_bytes + rider.request.header.len() <= MOST_HEADER_BYTES =>
                {
                    bytes += rider.request.bytes();
                    header_bytes += rider.request.header.len();
                    riders.push(rider);
                }
                other => passed_by.push(other),
            }
        }
        passed_by.into_iter().rev().for_each(|waiter| line.push_front(waiter));
    }
}

impl Pool {
    /// As [`Pool::acquire`], for a request that may be answered together with others when it has to wait.
    pub(crate) fn acquire_or_join(self: &Arc<Self>, request: impl FnOnce() -> BatchRequest) -> Acquire {
        if let Some(acquired) = self.acquire_now(None) {
            return acquired;
        }
        let joins = self.batches.as_ref().is_some_and(Batches::are_formed);
        self.wait_in_line(joins.then(request))
    }

    /// Gives a connection to the first of the line, or sends what it and others behind it ask for together. A lease that nobody took
    /// comes back.
    pub(super) fn grant(
        &self,
        first: Waiter,
        mut lease: Lease,
        line: &mut VecDeque<Waiter>,
    ) -> Option<Lease> {
        let Some(batches) = &self.batches else { return first.give(lease) };
        let most = batches.most_of(lease.connection()) as usize;
        let rider = match first {
            Waiter::Joinable(rider) if most > 1 => rider,
            alone => return alone.give(lease),
        };
        let kind = if batches.limit_of(lease.connection()) > 0 { Kind::Joined } else { Kind::Backlog };
        let delay = if kind == Kind::Joined { batches.settings.delay } else { Duration::ZERO };
        let mut riders = vec![rider];
        batches.fill(&mut riders, self.share(most, 1 + line.len()), line);
        if riders.len() == 1 && delay.is_zero() {
            return riders.pop().and_then(|rider| Waiter::Joinable(rider).give(lease));
        }
        // Without a runtime there is nobody left who waits.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(drive(lease, kind, riders, most, delay));
        }
        None
    }

    /// How many of so many that wait are one worker's: the others come free, too.
    fn share(&self, limit: usize, waiting: usize) -> usize {
        let workers = |shelf: &Arc<Shelf>| shelf.link.outstanding() + shelf.count();
        let workers: usize = self.shelves.load().iter().map(workers).sum();
        waiting.div_ceil(workers.max(1)).clamp(1, limit)
    }

    /// Lets those come along that came meanwhile.
    fn top_up(&self, riders: &mut Vec<Rider>, limit: usize) {
        let Some(batches) = &self.batches else { return };
        let mut line = self.line();
        let most = self.share(limit, riders.len() + line.len());
        batches.fill(riders, most, &mut line);
        self.note_length(&line);
    }

    fn count_batch(&self, kind: Kind, requests: usize) {
        if let Some(batches) = &self.batches {
            match kind {
                Kind::Joined => batches.counters.batches.count(requests),
                Kind::Backlog => batches.counters.batches.count_backlog(requests),
            }
        }
    }
}

/// One whose request has been sent.
struct Passenger {
    outcome: oneshot::Sender<Outcome>,
    request: BatchRequest,
}

impl Passenger {
    fn hear(self, outcome: Outcome) {
        // One that has gone away needs no answer.
        let _ = self.outcome.send(outcome);
    }
}

/// Asks a worker for all of them, and tells each what becomes of its request. It is a task of its own, so that no caller who goes away
/// takes the others along.
async fn drive(mut lease: Lease, kind: Kind, mut riders: Vec<Rider>, limit: usize, delay: Duration) {
    if !delay.is_zero() && riders.len() < limit {
        tokio::time::sleep(delay).await;
        lease.pool.top_up(&mut riders, limit);
    }
    riders.retain(|rider| !rider.grant.is_closed());
    if riders.len() < 2 {
        let unused = match riders.pop() {
            Some(rider) => Waiter::Joinable(rider).give(lease),
            None => Some(lease),
        };
        if let Some(unused) = unused {
            unused.give_back();
        }
        return;
    }
    let link = Arc::clone(&lease.connection().link);
    let mut passengers = VecDeque::with_capacity(riders.len());
    for rider in riders {
        let (outcome, receiver) = oneshot::channel();
        let seat = Seat { link: Arc::clone(&link), outcome: receiver };
        if rider.grant.send(Grant::Joined(seat)).is_ok() {
            passengers.push_back(Passenger { outcome, request: rider.request });
        }
    }
    if passengers.is_empty() {
        return lease.give_back();
    }
    lease.pool.count_batch(kind, passengers.len());
    let Some(end) = ride(&mut lease, &mut passengers).await else { return lease.give_back() };
    // Of a backlog only the first can have been begun.
    let begun = if kind == Kind::Backlog { 1 } else { passengers.len() };
    let untouched = passengers.split_off(begun.min(passengers.len()));
    match end {
        End::TimedOut => {
            drop(lease);
            passengers.into_iter().for_each(|passenger| passenger.hear(Outcome::TimedOut));
        }
        End::Again => {
            drop(lease);
            passengers.into_iter().for_each(|passenger| passenger.hear(Outcome::Again));
        }
        End::Lost(message) => {
            // Listening begins before the connection is dropped, which has the replica look what happened.
            let endings: Vec<_> = passengers.iter().map(|_| told::ending(&link)).collect();
            drop(lease);
            for (passenger, ending) in passengers.into_iter().zip(endings) {
                passenger.hear(Outcome::Lost(message.clone(), ending));
            }
        }
    }
    untouched.into_iter().for_each(|passenger| passenger.hear(Outcome::Again));
}

/// Why the connection is of no more use, and what that means for those who are left.
enum End {
    Again,
    Lost(String),
    TimedOut,
}

impl From<ExchangeError> for End {
    fn from(error: ExchangeError) -> End {
        match error {
            ExchangeError::NotRead => End::Again,
            ExchangeError::Lost(message) => End::Lost(message),
            ExchangeError::Unreachable(error) => End::Lost(error.to_string()),
            ExchangeError::TooLarge(_) | ExchangeError::Refused(_) => {
                End::Lost("The worker broke the protocol.".into())
            }
        }
    }
}

/// Sends the requests and reads the answers in their order; passengers leave as theirs come.
async fn ride(lease: &mut Lease, passengers: &mut VecDeque<Passenger>) -> Option<End> {
    let frame = frame::encode_batch(passengers.iter().map(|passenger| &passenger.request));
    let limit = passengers.front()?.request.time_limit;
    match tokio::time::timeout(limit, lease.connection().send_batch(frame)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Some(error.into()),
        Err(_) => return Some(End::TimedOut),
    }
    let mut is_first = true;
    let mut asked_at = Instant::now();
    while let Some(passenger) = passengers.front() {
        let (limit, most_bytes) = (passenger.request.time_limit, passenger.request.most_answer_bytes);
        let outcome = match tokio::time::timeout(limit, answer(lease, most_bytes, asked_at)).await {
            Ok(Ok(outcome)) => outcome,
            // What has been read in part was read whole once the first is answered.
            Ok(Err(ExchangeError::NotRead)) if !is_first => {
                return Some(End::Lost("The worker ended before it had answered.".into()));
            }
            Ok(Err(ExchangeError::TooLarge(bytes))) => Outcome::TooLarge(bytes),
            Ok(Err(error)) => return Some(error.into()),
            Err(_) => return Some(End::TimedOut),
        };
        is_first = false;
        asked_at = Instant::now();
        let is_too_large = matches!(outcome, Outcome::TooLarge(_));
        passengers.pop_front()?.hear(outcome);
        if is_too_large {
            // The rest of it would have to be read before the answers of the others, who ask again.
            return Some(End::Again);
        }
    }
    None
}

/// Reads one answer whole.
async fn answer(lease: &mut Lease, most_bytes: u64, asked_at: Instant) -> Result<Outcome, ExchangeError> {
    let (header, body) = lease.connection().receive_of_batch(most_bytes, asked_at).await?;
    if let AnswerBody::Whole(body) = body {
        return Ok(Outcome::Answered(header, body));
    }
    let mut whole = BytesMut::new();
    loop {
        match lease.connection().read_chunk(most_bytes).await? {
            Chunk::Data(data) => whole.extend_from_slice(&data),
            Chunk::End => return Ok(Outcome::Answered(header, whole.freeze())),
            Chunk::Failed(text) => return Ok(Outcome::Broken(String::from_utf8_lossy(&text).into_owned())),
        }
        if whole.len() as u64 > most_bytes {
            return Err(ExchangeError::TooLarge(whole.len() as u64));
        }
    }
}
