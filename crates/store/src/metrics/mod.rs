//! Metrics: samples by series, held for months, put durably and summed up by period.
//!
//! A put goes to a journal, which is synced before the put is answered, and to the head in memory. A full head becomes one
//! segment file for each day it touches; segments are merged in the background, so that a query of a day reads a handful of them,
//! however many samples there are. Numbers of series are rows of the database. Everything else is in `<root>`:
//! `<generation>.journal`, and `<day>-<first>-<last>-<level>.segment` as [`segment`] explains.

mod aggregate;
mod background;
mod codec;
mod cursors;
mod head;
mod journal;
mod news;
mod rows;
mod sample;
mod segment;
mod segment_file;
mod sink;
mod state;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

pub use aggregate::{Aggregate, Distribution, Window};
pub use cursors::FollowedJob;
pub use head::SeriesId;
pub use news::{News, SeriesRead, WantedMetric};
pub use rows::{Metric, MetricList};
pub use sample::{NewSamples, Sample, SeriesKey};
pub use sink::MetricSink;
use tokio::sync::oneshot;
pub use writer::HeadLimits;

use crate::clock::Clock;
use crate::database::Database;
use crate::error::{Error, Result};
use head::DAY_SECONDS;
use state::{Shared, State};
use writer::{Put, Writer};

/// Days that samples are kept, unless the settings say otherwise: fifteen months.
pub const DEFAULT_RETENTION_DAYS: u32 = 455;

/// How far the time of the newest sample of a series, as its row says it, may be behind.
const FRESH_SECONDS: i64 = 600;

/// Series whose numbers are kept in memory.
const MOST_KNOWN_SERIES: usize = 200_000;

/// Units of a metric, each with what was found for its periods.
pub type ByUnit = Vec<(String, BTreeMap<i64, Aggregate>)>;

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricStoreSize {
    /// Series, by the database.
    pub series: u64,
    /// Samples in segments and in memory.
    pub samples: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of the segments.
    pub bytes: u64,
}

/// All metrics.
pub struct MetricStore {
    database: Database,
    clock: Clock,
    shared: Arc<Shared>,
    known: Mutex<HashMap<SeriesKey, Known>>,
    puts: Mutex<Option<mpsc::Sender<Put>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is known of a series.
#[derive(Clone, Copy)]
struct Known {
    id: SeriesId,
    /// Time of the newest sample as its row has it.
    last_at: i64,
}

impl MetricStore {
    /// Opens the metrics under `root`, which is made if it is missing.
    ///
    /// # Errors
    /// When a file cannot be read, or is damaged.
    pub fn open(database: Database, root: PathBuf, clock: Clock) -> Result<MetricStore> {
        MetricStore::open_with(database, root, clock, HeadLimits::default())
    }

    /// As [`MetricStore::open`], with other limits.
    ///
    /// # Errors
    /// As [`MetricStore::open`].
    pub fn open_with(
        database: Database,
        root: PathBuf,
        clock: Clock,
        limits: HeadLimits,
    ) -> Result<MetricStore> {
        let context = format!("open the metrics in {}", root.display());
        let (shared, journal, generation) = Shared::open(root).map_err(Error::file(context))?;
        let (sender, receiver) = mpsc::channel();
        let head_since = Instant::now();
        let writer = Writer { shared: shared.clone(), journal, generation, limits, head_since };
        let (flushing, merging) = (shared.clone(), shared.clone());
        let threads = vec![
            spawn("metric-writer", move || writer.run(&receiver))?,
            spawn("metric-flusher", move || background::flush(&flushing))?,
            spawn("metric-merger", move || background::merge(&merging))?,
        ];
        Ok(MetricStore {
            database,
            clock,
            shared,
            known: Mutex::default(),
            puts: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
        })
    }

    /// Puts samples and returns when they are on the disk.
    ///
    /// # Errors
    /// [`Error::NotCommitted`] when they are not.
    pub async fn put(&self, samples: Vec<NewSamples>) -> Result<()> {
        let ids = self.numbers(&samples).await?;
        let batches = ids.into_iter().zip(samples).map(|(id, new)| (id, new.samples)).collect();
        let (answer, answered) = oneshot::channel();
        let gone = || Error::NotCommitted("the metric store is closed".into());
        lock(&self.puts).as_ref().ok_or_else(gone)?.send(Put { batches, answer }).map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// What was measured of a metric in each period of a window, by unit. Periods without samples are left out.
    ///
    /// # Errors
    /// When a file cannot be read, or is damaged.
    pub async fn aggregate(
        &self,
        owner: (&str, &str),
        metric: Metric,
        unit: Option<String>,
        window: Window,
        with_distribution: bool,
    ) -> Result<ByUnit> {
        let series = self.series(owner, metric, unit).await?;
        self.scan(move |shared| {
            let of = |(unit, id)| Ok((unit, shared.aggregate(&[id], window, with_distribution)?));
            series.into_iter().map(of).collect()
        })
        .await
    }

    /// As [`MetricStore::aggregate`], with the samples of all units put together.
    ///
    /// # Errors
    /// As [`MetricStore::aggregate`].
    pub async fn aggregate_units(
        &self,
        owner: (&str, &str),
        metric: Metric,
        unit: Option<String>,
        window: Window,
        with_distribution: bool,
    ) -> Result<BTreeMap<i64, Aggregate>> {
        let series = self.series(owner, metric, unit).await?;
        let ids: Vec<SeriesId> = series.into_iter().map(|(_, id)| id).collect();
        self.scan(move |shared| shared.aggregate(&ids, window, with_distribution)).await
    }

    async fn series(
        &self,
        (account, region): (&str, &str),
        metric: Metric,
        unit: Option<String>,
    ) -> Result<Vec<(String, SeriesId)>> {
        let (account, region) = (account.to_owned(), region.to_owned());
        let mut series =
            self.database.read(move |session| session.series_of(&account, &region, &metric)).await?;
        series.retain(|(own, _)| unit.as_ref().is_none_or(|unit| unit == own));
        Ok(series)
    }

    async fn scan<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let scanned = tokio::task::spawn_blocking(move || work(&shared)).await;
        let scanned = scanned.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
        scanned.map_err(Error::file("read the metrics"))
    }

    /// Lists metrics by namespace, name and dimensions.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, account: &str, region: &str, list: MetricList) -> Result<Vec<Metric>> {
        let (account, region) = (account.to_owned(), region.to_owned());
        self.database.read(move |session| session.list_metrics(&account, &region, &list)).await
    }

    /// How much there is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn size(&self) -> Result<MetricStoreSize> {
        let series = self.database.read(|session| session.count_series()).await?;
        let state = self.shared.lock();
        let mut size = MetricStoreSize { series: series.unsigned_abs(), ..MetricStoreSize::default() };
        size.samples =
            (state.active.len() + state.frozen.iter().map(|frozen| frozen.head.len()).sum::<usize>()) as u64;
        for segment in state.days.values().flatten() {
            size.samples += segment.samples();
            size.segments += 1;
            size.bytes += segment.bytes();
        }
        Ok(size)
    }

    /// How many segments [`MetricStore::expire`] would remove, and their bytes.
    pub fn expired(&self, retention_days: u32) -> (u64, u64) {
        let first_day =
            (self.clock.now_ms() / 1000 - i64::from(retention_days) * DAY_SECONDS).div_euclid(DAY_SECONDS);
        let state = self.shared.lock();
        let old = state.days.range(..first_day).flat_map(|(_, segments)| segments);
        old.fold((0, 0), |(count, bytes), segment| (count + 1, bytes + segment.bytes()))
    }

    /// Removes whole days that are older than `retention_days`, and series that have nothing younger. Call it now and then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(&self, retention_days: u32) -> Result<()> {
        let before_seconds = self.clock.now_ms() / 1000 - i64::from(retention_days) * DAY_SECONDS;
        let first_day = before_seconds.div_euclid(DAY_SECONDS);
        {
            let mut state = self.shared.lock();
            let kept = state.days.split_off(&first_day);
            for segment in std::mem::replace(&mut state.days, kept).into_values().flatten() {
                segment.replace();
            }
        }
        self.database.write(move |session| session.delete_old_series(before_seconds - FRESH_SECONDS)).await?;
        // A number that is kept in memory may be of a row that is gone.
        lock(&self.known).clear();
        Ok(())
    }

    /// Waits until nothing waits to be moved to segments or to be merged, or the store is closed.
    pub async fn settle(&self) {
        let shared = self.shared.clone();
        let settled = tokio::task::spawn_blocking(move || {
            let busy = |state: &mut State| {
                !shared.is_closing() && (!state.frozen.is_empty() || background::has_mergeable(state))
            };
            drop(shared.changed.wait_while(shared.lock(), busy).unwrap_or_else(PoisonError::into_inner));
        });
        // Nothing in there panics; were it to, there would be nothing to wait for.
        let _ = settled.await;
    }

    /// Finishes the puts under way, then stops. Later puts fail.
    pub fn close(&self) {
        drop(lock(&self.puts).take());
        self.shared.close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panicked thread has already answered its callers by dropping them.
            let _ = thread.join();
        }
    }

    /// Numbers of series; those that are new, or whose rows are behind, are written first.
    async fn numbers(&self, samples: &[NewSamples]) -> Result<Vec<SeriesId>> {
        let newest = |new: &NewSamples| new.samples.iter().map(|sample| sample.at_seconds).max().unwrap_or(0);
        let mut ids: Vec<Option<SeriesId>> = Vec::with_capacity(samples.len());
        let mut unknown: BTreeMap<usize, (SeriesKey, i64)> = BTreeMap::new();
        {
            let known = lock(&self.known);
            for (index, new) in samples.iter().enumerate() {
                let newest = newest(new);
                let fresh = known.get(&new.series).filter(|known| newest < known.last_at + FRESH_SECONDS);
                ids.push(fresh.map(|known| known.id));
                if fresh.is_none() {
                    unknown.insert(index, (new.series.clone(), newest));
                }
            }
        }
        if !unknown.is_empty() {
            let written = self.database.write(move |session| {
                let mut written = Vec::with_capacity(unknown.len());
                for (index, (key, last_at)) in unknown {
                    let id = session.ensure_series(&key, last_at)?;
                    written.push((index, key, Known { id, last_at }));
                }
                Ok(written)
            });
            let written = written.await?;
            let mut known = lock(&self.known);
            if known.len() + written.len() > MOST_KNOWN_SERIES {
                known.clear();
            }
            for (index, key, found) in written {
                ids[index] = Some(found.id);
                let entry = known.entry(key).or_insert(found);
                *entry = Known { id: found.id, last_at: entry.last_at.max(found.last_at) };
            }
        }
        Ok(ids.into_iter().map(|id| id.expect("each index is known or was written")).collect())
    }
}

impl Drop for MetricStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(Error::file(format!("start the {name}")))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A poisoned lock only says that another thread panicked; the value behind it is a plain map or handle.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
