//! The captures of all endpoints: begun, changed, ended, flushed, and taken up again after a crash.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::counts::Counts;
use super::delivery::{Delivery, Order};
use super::plan::{CapturePlan, CaptureStore};
use super::queue::{Capture, Room, Tally};
use super::recovery::{self, Label, Recovered};
use super::spool::Spool;
use super::writer::Writer;

/// How captures work, the same for all endpoints.
#[derive(Clone)]
pub struct CaptureSettings {
    /// Where spools lie; nothing else does.
    pub folder: PathBuf,
    /// Where captured data goes.
    pub store: Arc<dyn CaptureStore>,
    /// The time, in milliseconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// How much memory captured invocations of one endpoint may take.
    pub memory_limit_bytes: usize,
    /// How much of the disk those of one endpoint may take that cannot be stored.
    pub spool_limit_bytes: u64,
    /// How much is captured of a streamed answer.
    pub streamed_limit_bytes: usize,
}

impl CaptureSettings {
    /// The usual limits.
    pub fn new(
        folder: PathBuf,
        store: Arc<dyn CaptureStore>,
        clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    ) -> CaptureSettings {
        CaptureSettings {
            folder,
            store,
            clock,
            memory_limit_bytes: 64 << 20,
            spool_limit_bytes: 4 << 30,
            streamed_limit_bytes: 1 << 20,
        }
    }
}

/// What was counted of an endpoint's captures since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounts {
    /// The endpoint.
    pub endpoint: String,
    /// Invocations taken for capture.
    pub captured: u64,
    /// Invocations that were to be captured and were not, for want of room.
    pub dropped: u64,
    /// Captured invocations whose data is stored.
    pub stored: u64,
    /// Captured invocations that a crash took, or that nothing took for a week.
    pub lost: u64,
    /// Bytes that wait to be stored.
    pub waiting_bytes: u64,
}

/// The captures of all endpoints.
pub struct Captures {
    settings: CaptureSettings,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    live: HashMap<String, Arc<Capture>>,
    /// Ways to the writers of all spools, also of those that end.
    flushes: Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>,
    tallies: BTreeMap<String, Arc<Tally>>,
}

impl Registry {
    fn tally(&mut self, endpoint: &str) -> Arc<Tally> {
        Arc::clone(self.tallies.entry(endpoint.to_owned()).or_default())
    }
}

impl Captures {
    /// Opens the folder, and delivers in the background what an earlier process left there. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(settings: CaptureSettings) -> io::Result<Arc<Captures>> {
        std::fs::create_dir_all(&settings.folder)?;
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&settings.folder)? {
            left.push(entry?.path());
        }
        let captures = Arc::new(Captures { settings, registry: Mutex::default() });
        for folder in left {
            tokio::spawn(Arc::clone(&captures).take_up(folder));
        }
        Ok(captures)
    }

    async fn take_up(self: Arc<Captures>, folder: PathBuf) {
        let looked_into = folder.clone();
        let recovered = tokio::task::spawn_blocking(move || recovery::recover(&looked_into)).await;
        let recovered = recovered.unwrap_or_else(|error| Err(io::Error::other(error)));
        match recovered {
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "captured data of an earlier start cannot be read");
            }
            Ok(None) => remove_folder(&folder),
            Ok(Some(recovered)) => self.deliver_recovered(&folder, recovered).await,
        }
    }

    async fn deliver_recovered(&self, folder: &Path, recovered: Recovered) {
        let Recovered { label, counts, segments, delivered_lines, lost } = recovered;
        let tally = self.lock().tally(&label.endpoint);
        if lost > 0 {
            tally.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(
                endpoint = label.endpoint,
                lost,
                "captured invocations were lost: the server was killed before they were on the disk"
            );
            self.settings.store.lost(&label.target, lost).await;
            if let Err(error) = counts.delivered(0, delivered_lines) {
                tracing::warn!(%error, "lost captured data may be reported again");
            }
        }
        let (orders, received) = mpsc::unbounded_channel();
        for segment in segments {
            tally.waiting_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
            // The receiver is right here.
            let _ = orders.send(Order::Segment(segment));
        }
        drop(orders);
        self.delivery(label.target, counts, tally, delivered_lines).run(received).await;
        remove_folder(folder);
    }

    fn delivery(
        &self,
        target: serde_json::Value,
        counts: Arc<Counts>,
        tally: Arc<Tally>,
        delivered_lines: u64,
    ) -> Delivery {
        let (store, clock) = (Arc::clone(&self.settings.store), Arc::clone(&self.settings.clock));
        Delivery { store, target, counts, clock, tally, delivered_lines }
    }

    /// The capture of an endpoint by this plan. One that has the same plan goes on.
    ///
    /// # Errors
    /// When the spool cannot be made.
    pub fn start(&self, endpoint: &str, plan: CapturePlan) -> io::Result<Arc<Capture>> {
        let mut registry = self.lock();
        let same = |live: &&Arc<Capture>| {
            let of = |plan: &CapturePlan| (plan.percentage, plan.input, plan.output);
            of(&live.plan) == of(&plan) && live.plan.target == plan.target
        };
        if let Some(live) = registry.live.get(endpoint).filter(same) {
            return Ok(Arc::clone(live));
        }
        let folder = self.settings.folder.join(uuid::Uuid::new_v4().simple().to_string());
        std::fs::create_dir(&folder)?;
        Label { endpoint: endpoint.to_owned(), target: plan.target.clone() }.write(&folder)?;
        let counts = Arc::new(Counts::create(&folder)?);
        let room = Arc::new(Room::new(self.settings.memory_limit_bytes));
        let tally = registry.tally(endpoint);
        let (sender, queue) = mpsc::unbounded_channel();
        let (flush, flushes) = mpsc::unbounded_channel();
        let (orders, received) = mpsc::unbounded_channel();
        let writer = Writer {
            queue,
            flushes,
            spool: Spool::new(folder.clone(), Arc::clone(&plan.format)),
            room: Arc::clone(&room),
            tally: Arc::clone(&tally),
            clock: Arc::clone(&self.settings.clock),
            orders,
        };
        let delivery = self.delivery(plan.target.clone(), Arc::clone(&counts), Arc::clone(&tally), 0);
        tokio::spawn(writer.run());
        tokio::spawn(async move {
            delivery.run(received).await;
            remove_folder(&folder);
        });
        let capture = Arc::new(Capture {
            endpoint: endpoint.to_owned(),
            plan,
            room,
            tally,
            counts,
            clock: Arc::clone(&self.settings.clock),
            streamed_limit_bytes: self.settings.streamed_limit_bytes,
            spool_limit_bytes: self.settings.spool_limit_bytes,
            sender,
        });
        registry.flushes.retain(|flush| !flush.is_closed());
        registry.flushes.push(flush);
        registry.live.insert(endpoint.to_owned(), Arc::clone(&capture));
        Ok(capture)
    }

    /// Ends the capture of an endpoint. What was captured, and what invocations under way still bring, is delivered.
    pub fn end(&self, endpoint: &str) {
        self.lock().live.remove(endpoint);
    }

    /// Brings everything that was captured so far to the disk, tries to deliver it, and returns when that is done.
    pub async fn flush(&self) {
        let flushes = self.lock().flushes.clone();
        let mut answers = Vec::new();
        for flush in flushes {
            let (answer, answered) = oneshot::channel();
            if flush.send(answer).is_ok() {
                answers.push(answered);
            }
        }
        for answered in answers {
            // A writer that ends has flushed.
            let _ = answered.await;
        }
    }

    /// What was counted, by endpoint.
    pub fn counts(&self) -> Vec<CaptureCounts> {
        let count = |(endpoint, tally): (&String, &Arc<Tally>)| CaptureCounts {
            endpoint: endpoint.clone(),
            captured: tally.accepted.load(Ordering::Relaxed),
            dropped: tally.dropped.load(Ordering::Relaxed),
            stored: tally.delivered.load(Ordering::Relaxed),
            lost: tally.lost.load(Ordering::Relaxed),
            waiting_bytes: tally.waiting_bytes.load(Ordering::Relaxed),
        };
        self.lock().tallies.iter().map(count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A poisoned lock only says that another thread panicked; the registry is still one.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the folder of a spool of which everything is delivered.
fn remove_folder(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "a spool of captured data stays");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use tokio::runtime::Runtime;

    use super::super::{CaptureFormat, CapturedInvocation, Draft, Segment};
    use super::*;
    use crate::invocation::{InvokeRequest, InvokeResponse, ModelAnswer};
    use crate::launcher::BoxFuture;

    /// Keeps lines in memory, unless it refuses.
    #[derive(Default)]
    struct Memory {
        lines: Mutex<Vec<String>>,
        refuses: AtomicBool,
        lost: AtomicU64,
    }

    impl Memory {
        fn count(&self) -> usize {
            self.lines.lock().unwrap().len()
        }
    }

    impl CaptureStore for Memory {
        fn deliver<'a>(
            &'a self,
            target: &'a Value,
            segment: &'a Segment,
        ) -> BoxFuture<'a, Result<(), String>> {
            Box::pin(async move {
                assert_eq!(target, "somewhere");
                if self.refuses.load(Ordering::SeqCst) {
                    return Err("not now".into());
                }
                let mut lines = Vec::new();
                let add = |line: &[u8]| {
                    lines.push(String::from_utf8_lossy(line).into_owned());
                    Ok(())
                };
                let latencies = segment.read(add).unwrap();
                assert_eq!((latencies.count(), lines.len() as u64), (segment.lines, segment.lines));
                self.lines.lock().unwrap().extend(lines);
                Ok(())
            })
        }

        fn lost<'a>(&'a self, _: &'a Value, count: u64) -> BoxFuture<'a, ()> {
            Box::pin(async move {
                self.lost.fetch_add(count, Ordering::SeqCst);
            })
        }
    }

    struct Plain;

    impl CaptureFormat for Plain {
        fn write(&self, captured: &CapturedInvocation, line: &mut Vec<u8>) {
            let length =
                |body: &Option<super::super::CapturedBody>| body.as_ref().map(|body| body.data.len());
            let text = json!({"in": length(&captured.input), "out": length(&captured.output)});
            line.extend_from_slice(text.to_string().as_bytes());
        }
    }

    fn plan() -> CapturePlan {
        CapturePlan {
            percentage: 100,
            input: true,
            output: true,
            target: json!("somewhere"),
            format: Arc::new(Plain),
        }
    }

    fn settings(folder: &Path, store: &Arc<Memory>) -> CaptureSettings {
        CaptureSettings::new(
            folder.join("captures"),
            Arc::<Memory>::clone(store),
            Arc::new(|| 1_770_000_000_000),
        )
    }

    fn invoke(capture: &Arc<Capture>, size: usize) {
        let request = InvokeRequest { body: Bytes::from(vec![b'x'; size]), ..InvokeRequest::default() };
        let answer = ModelAnswer { status: 200, invoked_variant: "v".into(), ..ModelAnswer::default() };
        if let Some(draft) = Draft::begin(capture, &request) {
            draft.whole(&InvokeResponse { answer, body: request.body });
        }
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    fn folders(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("captures")).unwrap().count()
    }

    #[tokio::test]
    async fn a_flush_stores_everything_and_an_end_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let captures = Captures::open(settings(folder.path(), &store)).unwrap();
        let capture = captures.start("e", plan()).unwrap();
        assert!(Arc::ptr_eq(&capture, &captures.start("e", plan()).unwrap()), "the same plan goes on");
        (0..300).for_each(|_| invoke(&capture, 10));
        captures.flush().await;
        assert_eq!(store.count(), 300);
        assert_eq!(store.lines.lock().unwrap()[0], "{\"in\":10,\"out\":10}\n");
        let none = captures.start("e", CapturePlan { percentage: 0, ..plan() }).unwrap();
        invoke(&none, 10);
        // One that was under way when the plan changed.
        invoke(&capture, 20);
        drop((capture, none));
        captures.end("e");
        until("all spools are gone", || folders(folder.path()) == 0).await;
        assert_eq!(store.count(), 301);
        let counts = &captures.counts()[0];
        assert_eq!((counts.captured, counts.stored, counts.dropped, counts.waiting_bytes), (301, 301, 0, 0));
    }

    #[tokio::test]
    async fn little_traffic_is_stored_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let captures = Captures::open(settings(folder.path(), &store)).unwrap();
        let capture = captures.start("e", plan()).unwrap();
        invoke(&capture, 10);
        until("it is stored once nothing more comes", || store.count() == 1).await;
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let limits = CaptureSettings { memory_limit_bytes: 20_000, ..settings(folder.path(), &store) };
        let captures = Captures::open(limits).unwrap();
        let capture = captures.start("e", plan()).unwrap();
        (0..100).for_each(|_| invoke(&capture, 1000));
        let counts = captures.counts().remove(0);
        assert_eq!((counts.captured, counts.dropped), (7, 93), "{counts:?}");
        captures.flush().await;
        invoke(&capture, 1000);
        captures.flush().await;
        assert_eq!(store.count(), 8, "there is room again");
    }

    #[tokio::test]
    async fn a_spool_that_is_not_taken_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        store.refuses.store(true, Ordering::SeqCst);
        let limits = CaptureSettings { spool_limit_bytes: 1000, ..settings(folder.path(), &store) };
        let captures = Captures::open(limits).unwrap();
        let capture = captures.start("e", plan()).unwrap();
        (0..100).for_each(|_| invoke(&capture, 10));
        captures.flush().await;
        (0..5).for_each(|_| invoke(&capture, 10));
        let counts = captures.counts().remove(0);
        assert_eq!((counts.captured, counts.dropped, counts.stored), (100, 5, 0), "{counts:?}");
        assert!(counts.waiting_bytes > 1000);
        store.refuses.store(false, Ordering::SeqCst);
        captures.flush().await;
        assert_eq!(store.count(), 100, "nothing that was taken is lost");
    }

    #[tokio::test]
    async fn a_disk_that_fails_for_a_while_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let captures = Captures::open(settings(folder.path(), &store)).unwrap();
        let capture = captures.start("e", plan()).unwrap();
        let spool =
            std::fs::read_dir(folder.path().join("captures")).unwrap().next().unwrap().unwrap().path();
        let aside = folder.path().join("aside");
        std::fs::rename(&spool, &aside).unwrap();
        (0..3).for_each(|_| invoke(&capture, 10));
        captures.flush().await;
        assert_eq!(store.count(), 0);
        std::fs::rename(&aside, &spool).unwrap();
        captures.flush().await;
        assert_eq!(store.count(), 3);
    }

    #[test]
    fn a_crash_loses_what_is_not_written_and_says_how_much() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let first = runtime();
        first.block_on(async {
            let captures = Captures::open(settings(folder.path(), &store)).unwrap();
            let capture = captures.start("e", plan()).unwrap();
            (0..20).for_each(|_| invoke(&capture, 10));
            captures.flush().await;
            store.refuses.store(true, Ordering::SeqCst);
            (0..50).for_each(|_| invoke(&capture, 10));
            captures.flush().await;
            // These are in the queue when everything stops.
            (0..7).for_each(|_| invoke(&capture, 10));
        });
        drop(first);
        assert_eq!(store.count(), 20);
        store.refuses.store(false, Ordering::SeqCst);
        runtime().block_on(async {
            let captures = Captures::open(settings(folder.path(), &store)).unwrap();
            until("what was written is stored", || folders(folder.path()) == 0).await;
            assert_eq!((store.count(), store.lost.load(Ordering::SeqCst)), (70, 7));
            let counts = captures.counts().remove(0);
            assert_eq!((counts.stored, counts.lost, &*counts.endpoint), (50, 7, "e"));
        });
        runtime().block_on(async {
            let captures = Captures::open(settings(folder.path(), &store)).unwrap();
            assert!(captures.counts().is_empty(), "nothing is told twice");
        });
    }

    #[test]
    fn a_clean_stop_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::default());
        let first = runtime();
        first.block_on(async {
            let captures = Captures::open(settings(folder.path(), &store)).unwrap();
            let capture = captures.start("e", plan()).unwrap();
            (0..20).for_each(|_| invoke(&capture, 10));
            captures.flush().await;
        });
        drop(first);
        runtime().block_on(async {
            let _captures = Captures::open(settings(folder.path(), &store)).unwrap();
            until("the spool is gone", || folders(folder.path()) == 0).await;
            assert_eq!((store.count(), store.lost.load(Ordering::SeqCst)), (20, 0));
        });
    }
}
