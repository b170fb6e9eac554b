//! Handlers are carried out to their end, also when the client goes away in the middle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

/// Operations that wait and then take something: when the client is gone, nobody is left to take it for.
const CUT_OFF: &[&str] = &["ReceiveMessage"];

/// A handler's future. One that is dropped before its end goes on by itself: what follows a commit, such as telling a driver of
/// the work that was queued, must not be left out because a connection broke.
pub(crate) struct Finishing<T: Send + 'static> {
    running: Option<BoxFuture<'static, T>>,
    is_cut_off: bool,
}

impl<T: Send + 'static> Finishing<T> {
    /// The handler of `operation`.
    pub(crate) fn new(operation: &str, handler: BoxFuture<'static, T>) -> Finishing<T> {
        Finishing { running: Some(handler), is_cut_off: CUT_OFF.contains(&operation) }
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out while it is polled: one that panics is gone, and is not taken up again.
        let Some(mut running) = self.running.take() else { return Poll::Pending };
        let polled = running.as_mut().poll(context);
        if polled.is_pending() {
            self.running = Some(running);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        let running = self.running.take().filter(|_| !self.is_cut_off);
        if let (Some(running), Ok(runtime)) = (running, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { drop(running.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::Finishing;

    /// Polls a handler that waits for `go`, drops it, and says whether it told `done`.
    async fn is_finished(operation: &str) -> bool {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (waits, tells) = (go.clone(), done.clone());
        let handler = async move {
            waits.notified().await;
            tells.notify_one();
        };
        let mut finishing = Finishing::new(operation, handler.boxed());
        assert!((&mut finishing).now_or_never().is_none());
        drop(finishing);
        go.notify_one();
        // One that went on holds `done`; of one that was dropped this is the last.
        while Arc::strong_count(&done) > 1 {
            tokio::task::yield_now().await;
        }
        done.notified().now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_handler_that_nobody_waits_for_ends_all_the_same() {
        assert!(is_finished("CreateTrainingJob").await);
        assert!(!is_finished("ReceiveMessage").await, "it would take a message for nobody");
    }
}
