//! How slow a client may be: a body that comes too slowly ends, and an answer that nobody takes is cut off.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use wire::{BoxError, TooSlow};

/// The limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a client may take to send its request head, from its connection or the last answer on, and a TLS client its handshake.
    pub head: Duration,
    /// How long a body may pause.
    pub pause: Duration,
    /// How long a body may come more slowly than at `least_bytes_per_second`.
    pub grace: Duration,
    /// How fast a body must come on the whole.
    pub least_bytes_per_second: u64,
    /// How long a client may take nothing of its answer.
    pub untaken: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            // Clients look every 30 seconds at what they wait for: their connection must not go at that very moment.
            head: Duration::from_secs(75),
            pause: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            least_bytes_per_second: 1024,
            untaken: Duration::from_secs(300),
        }
    }
}

impl Patience {
    /// When a body that has brought `received_bytes`, the last of them at `last_at`, has come too slowly.
    fn deadline(&self, begun_at: Instant, last_at: Instant, received_bytes: u64) -> Instant {
        let earned = Duration::from_secs(received_bytes / self.least_bytes_per_second.max(1));
        (last_at + self.pause).min(begun_at + self.grace + earned)
    }
}

/// The body of a request, which ends with [`TooSlow`] when it comes too slowly.
pub(super) struct PatientBody {
    body: Incoming,
    patience: Patience,
    received_bytes: u64,
    /// Since when it is waited for; a body that is there at once costs no timer.
    waiting: Option<Waiting>,
}

struct Waiting {
    begun_at: Instant,
    deadline: Pin<Box<Sleep>>,
    is_new_piece_due: bool,
}

impl PatientBody {
    pub(super) fn new(body: Incoming, patience: Patience) -> PatientBody {
        PatientBody { body, patience, received_bytes: 0, waiting: None }
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let begun_at = Instant::now();
            let deadline = Box::pin(sleep_until(begun_at));
            Waiting { begun_at, deadline, is_new_piece_due: true }
        });
        if std::mem::take(&mut waiting.is_new_piece_due) {
            let deadline = self.patience.deadline(waiting.begun_at, Instant::now(), self.received_bytes);
            waiting.deadline.as_mut().reset(deadline);
        }
        waiting.deadline.as_mut().poll(context)
    }
}

impl HttpBody for PatientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(waiting) = &mut self.waiting {
                    waiting.is_new_piece_due = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_deadline(context).map(|()| Some(Err(TooSlow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The clock by which hyper limits how long the head of a request may take, for one connection.
///
/// hyper sets such a limit for each request and takes it back. Here they share one alarm of the runtime, which is left as it is as long as it
/// rings early enough: whoever is woken too early sets it anew.
#[derive(Clone, Default)]
pub(super) struct PatientTimer {
    alarm: Alarm,
}

/// Made when it is first waited for.
type Alarm = Arc<Mutex<Option<Pin<Box<Sleep>>>>>;

struct PatientSleep {
    alarm: Alarm,
    deadline: Instant,
}

impl hyper::rt::Timer for PatientTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(PatientSleep { alarm: Arc::clone(&self.alarm), deadline: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl hyper::rt::Sleep for PatientSleep {}

impl Future for PatientSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
        if alarm.deadline() > self.deadline {
            alarm.as_mut().reset(self.deadline);
        }
        while alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

/// A connection that breaks when its client takes nothing of an answer.
pub(super) struct PatientStream<S> {
    stream: S,
    untaken: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(super) fn new(stream: S, patience: Patience) -> PatientStream<S> {
        PatientStream { stream, untaken: patience.untaken, stalled: None }
    }

    /// Passes on what a write came to, and ends it when it has waited for too long.
    fn within<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let untaken = self.untaken;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + untaken)));
        stalled
            .as_mut()
            .poll(context)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.within(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer;

    use super::*;

    #[tokio::test]
    async fn sleeps_share_an_alarm_and_none_ends_early() {
        let timer = PatientTimer::default();
        let after = |milliseconds| timer.now() + Duration::from_millis(milliseconds);
        // The alarm is set for a sleep that is given up, then waited for by a later one and an earlier one.
        for (given_up, waited_for) in [(5, 30), (60_000, 10)] {
            let mut first = timer.sleep_until(after(given_up));
            assert!(futures::poll!(first.as_mut()).is_pending());
            drop(first);
            let deadline = after(waited_for);
            timer.sleep_until(deadline).await;
            assert!(timer.now() >= deadline);
        }
    }

    #[test]
    fn a_body_may_pause_and_must_come_at_a_pace() {
        let patience = Patience::default();
        let begun_at = Instant::now();
        let after = |seconds| begun_at + Duration::from_secs(seconds);
        assert_eq!(patience.deadline(begun_at, after(0), 0), after(30), "the first byte");
        assert_eq!(patience.deadline(begun_at, after(20), 1), after(50), "the next byte");
        assert_eq!(patience.deadline(begun_at, after(50), 3), after(60), "a byte every 20 seconds");
        assert_eq!(patience.deadline(begun_at, after(50), 1 << 20), after(80), "a fast one that pauses");
        assert_eq!(patience.deadline(begun_at, after(100), 45 * 1024), after(105), "too slow on the whole");
    }
}
