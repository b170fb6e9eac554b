//! The one thread that writes the journal: puts that wait at the same time share one sync of the disk.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::head::{Head, SeriesId};
use super::journal::Journal;
use super::sample::Sample;
use super::state::{Frozen, Shared, State, journal_path};
use crate::error::{Error, Result};

/// When the newest samples, which are in memory, become segments.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// At this many in any case.
    pub samples: usize,
    /// At a thirty-second part of that many once the first of them is this old: busy endpoints measure some hundred a second, and the
    /// memory for them is not to grow for a quarter of an hour.
    pub age: Duration,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits { samples: 256 * 1024, age: Duration::from_secs(30) }
    }
}

impl HeadLimits {
    fn are_reached(&self, samples: usize, age: Duration) -> bool {
        samples >= self.samples || (samples >= (self.samples / 32).max(1) && age >= self.age)
    }
}

/// Frozen heads that may wait; beyond, puts wait for the disk.
const MOST_FROZEN: usize = 4;

/// Most samples that share one sync.
const MOST_SAMPLES_PER_COMMIT: usize = 64 * 1024;

/// How long a put waits for room before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(20);

/// Samples of one put, and who waits for it.
pub(super) struct Put {
    pub(super) batches: Vec<(SeriesId, Vec<Sample>)>,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    pub(super) generation: u64,
    pub(super) limits: HeadLimits,
    /// When the head got its first sample; those of an earlier process count from the start of this one.
    pub(super) head_since: Instant,
}

impl Writer {
    pub(super) fn run(mut self, puts: &Receiver<Put>) {
        while let Ok(first) = puts.recv() {
            let mut waiting = vec![first];
            let mut samples = size(&waiting[0]);
            while samples < MOST_SAMPLES_PER_COMMIT {
                let Ok(put) = puts.try_recv() else { break };
                samples += size(&put);
                waiting.push(put);
            }
            let mut batches = Vec::new();
            for put in &mut waiting {
                batches.append(&mut put.batches);
            }
            let committed = self.commit(&batches).map_err(|error| error.commit_text());
            for put in waiting {
                // The caller may have gone away; the samples stand all the same.
                let _ = put.answer.send(committed.clone().map_err(Error::NotCommitted));
            }
        }
    }

    fn commit(&mut self, batches: &[(SeriesId, Vec<Sample>)]) -> Result<()> {
        if self.journal.is_broken() {
            self.freeze()?;
        }
        let context = || format!("write {}", self.journal.path().display());
        let context = context();
        self.journal.append(batches).map_err(Error::file(context))?;
        let full = {
            let mut state = self.shared.lock();
            if state.active.len() == 0 {
                self.head_since = Instant::now();
            }
            for (series, samples) in batches {
                state.active.insert(*series, samples);
                state.news.record(*series, samples);
            }
            self.limits.are_reached(state.active.len(), self.head_since.elapsed())
        };
        if full && let Err(error) = self.freeze() {
            // The samples are durable where they are; the next put tries again.
            tracing::error!(%error, "the newest metrics stay in their journal");
        }
        Ok(())
    }

    /// Hands the head over to the flusher and begins a new one with a new journal.
    fn freeze(&mut self) -> Result<()> {
        let state = self.shared.lock();
        let full = |state: &mut State| state.frozen.len() >= MOST_FROZEN && !self.shared.is_closing();
        let waited = self.shared.changed.wait_timeout_while(state, ROOM_WAIT, full);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if timeout.timed_out() {
            return Err(Error::NotCommitted(
                "metrics cannot be moved to segments; the server's log has the cause".into(),
            ));
        }
        let generation = self.generation + 1;
        let path = journal_path(&self.shared.folder, generation);
        let context = format!("make {}", path.display());
        let journal = Journal::create(path).map_err(Error::file(context))?;
        let before = std::mem::replace(&mut self.journal, journal);
        let mut state = self.shared.lock();
        let head = std::mem::take::<Head>(&mut state.active);
        let frozen = Frozen { generation: self.generation, head, journal: before.path().to_owned() };
        state.frozen.push_back(Arc::new(frozen));
        self.generation = generation;
        self.shared.changed.notify_all();
        Ok(())
    }
}

fn size(put: &Put) -> usize {
    put.batches.iter().map(|(_, samples)| samples.len()).sum()
}
