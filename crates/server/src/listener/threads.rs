//! Threads that serve connections. Each waits for its own ones by itself, so that a request is met where it arrives: no thread has to be woken
//! to take it from another.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long what is still computed for a connection may hold up the end of its thread.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Where connections are served.
pub struct Threads(Vec<Thread>);

struct Thread {
    runtime: Handle,
    /// Held by each of its connections.
    connections: Arc<()>,
    /// What ends it, where it is there for connections alone.
    own: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// A connection's place; the thread counts it until this is dropped.
pub(super) struct Place {
    pub(super) runtime: Handle,
    pub(super) held: Arc<()>,
}

impl Threads {
    /// One for each processor. They end when this is dropped, and what they have not finished with them.
    ///
    /// # Errors
    /// When the system has no threads left, or no files for what they wait with.
    pub fn start() -> io::Result<Threads> {
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        (0..count).map(Thread::start).collect::<io::Result<Vec<_>>>().map(Threads)
    }

    /// No threads of their own: connections are served by the runtime of the caller.
    pub fn of_caller() -> Threads {
        Threads(vec![Thread { runtime: Handle::current(), connections: Arc::default(), own: None }])
    }

    /// A place where the fewest connections are.
    pub(super) fn place(&self) -> Place {
        let thread = self.0.iter().min_by_key(|thread| Arc::strong_count(&thread.connections));
        let thread = thread.expect("there is a thread for each processor, and a processor");
        Place { runtime: thread.runtime.clone(), held: Arc::clone(&thread.connections) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.0.drain(..).filter_map(|thread| thread.own).unzip();
        drop(stops);
        for thread in threads {
            // It panics only where the runtime does, which has told so.
            let _ = thread.join();
        }
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            // The other end is dropped, and nothing is ever sent.
            let _: Result<(), _> = runtime.block_on(stopped);
            runtime.shutdown_timeout(END_TIMEOUT);
        })?;
        Ok(Thread { runtime: handle, connections: Arc::default(), own: Some((stop, thread)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are_and_end_with_the_threads() {
        let threads = Threads(vec![Thread::start(0).unwrap(), Thread::start(1).unwrap()]);
        let which =
            |place: &Place| threads.0.iter().position(|thread| Arc::ptr_eq(&thread.connections, &place.held));
        let (first, second) = (threads.place(), threads.place());
        assert_ne!(which(&first), which(&second));
        let freed = which(&first);
        drop(first);
        assert_eq!(which(&threads.place()), freed);
        // It runs there, and is dropped with its thread.
        let (name, named) = std::sync::mpsc::channel();
        let task = second.runtime.spawn(async move {
            name.send(std::thread::current().name().map(str::to_owned)).unwrap();
            std::future::pending::<()>().await;
            drop(second.held);
        });
        assert!(named.recv().unwrap().unwrap().starts_with("connections-"));
        drop(threads);
        assert!(named.recv().is_err(), "the task is gone");
        assert!(task.is_finished());
    }
}
