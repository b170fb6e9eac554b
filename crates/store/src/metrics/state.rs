//! What the threads of the metric store share: the newest samples in memory, those on their way to the disk, and the segments.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::aggregate::{Aggregate, Window};
use super::head::{Head, SeriesId};
use super::journal::{Journal, sync_folder_of};
use super::news::Recorder;
use super::segment::{Periods, Segment, SegmentName};

/// A head that takes no more samples and waits to become segments.
pub(super) struct Frozen {
    pub(super) generation: u64,
    pub(super) head: Head,
    /// Its journal, which goes once the segments are there.
    pub(super) journal: PathBuf,
}

/// Everything there is to read.
#[derive(Default)]
pub(super) struct State {
    pub(super) active: Head,
    pub(super) frozen: VecDeque<Arc<Frozen>>,
    /// By day, then by age.
    pub(super) days: BTreeMap<i64, Vec<Arc<Segment>>>,
    pub(super) news: Recorder,
}

/// Shared by the store and its threads.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    state: Mutex<State>,
    /// Rung whenever the state changes.
    pub(super) changed: Condvar,
    closing: AtomicBool,
}

impl Shared {
    /// Puts together what earlier processes left in `folder`; returns the journal to go on with, and its generation.
    pub(super) fn open(folder: PathBuf) -> io::Result<(Arc<Shared>, Journal, u64)> {
        std::fs::create_dir_all(&folder)?;
        let Found { mut generations, segments } = find(&folder)?;
        let mut state = State::default();
        for name in segments {
            let segment = Arc::new(Segment::open(&folder, name)?);
            state.days.entry(name.day).or_default().push(segment);
        }
        let newest = generations.pop();
        for generation in generations {
            let journal = journal_path(&folder, generation);
            let mut head = Head::default();
            drop(Journal::reopen(journal.clone(), &mut head)?);
            state.frozen.push_back(Arc::new(Frozen { generation, head, journal }));
        }
        let last = state.days.values().flatten().map(|segment| segment.name.last).max().unwrap_or(0);
        let generation = newest.unwrap_or(last + 1);
        let path = journal_path(&folder, generation);
        let journal = match newest {
            Some(_) => Journal::reopen(path, &mut state.active)?,
            None => Journal::create(path)?,
        };
        let shared = Shared {
            folder,
            state: Mutex::new(state),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        };
        Ok((Arc::new(shared), journal, generation))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only says that another thread panicked; every change of the state is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // The lock makes sure that nobody is between a look at the flag and the wait for the bell.
        let _state = self.lock();
        self.changed.notify_all();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The periods of several series, put together.
    pub(super) fn aggregate(
        &self,
        series: &[SeriesId],
        window: Window,
        with_distribution: bool,
    ) -> io::Result<BTreeMap<i64, Aggregate>> {
        let mut periods = Periods::new(window, with_distribution);
        let (frozen, segments) = {
            let state = self.lock();
            for id in series {
                periods.add_all(state.active.of(*id));
            }
            let wanted = state.days.values().flatten().filter(|segment| segment.overlaps(&window));
            (state.frozen.clone(), wanted.cloned().collect::<Vec<_>>())
        };
        for id in series {
            for frozen in &frozen {
                periods.add_all(frozen.head.of(*id));
            }
            for segment in &segments {
                segment.scan(*id, &mut periods)?;
            }
        }
        Ok(periods.found)
    }
}

pub(super) fn journal_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation}.journal"))
}

struct Found {
    /// Of journals, oldest first.
    generations: Vec<u64>,
    /// Oldest first within each day.
    segments: Vec<SegmentName>,
}

/// Reads the names in the folder, and removes what a crash left half done: unfinished files, segments of which the journal is
/// still there, and segments that a merge has replaced.
fn find(folder: &Path) -> io::Result<Found> {
    let mut found = Found { generations: Vec::new(), segments: Vec::new() };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(generation) = name.strip_suffix(".journal").and_then(|number| number.parse().ok()) {
            found.generations.push(generation);
        } else if let Some(segment) = SegmentName::parse(&name) {
            found.segments.push(segment);
        } else if name.ends_with(".partial") {
            std::fs::remove_file(entry.path())?;
        }
    }
    found.generations.sort_unstable();
    found.segments.sort_unstable();
    let names = found.segments.clone();
    let stale = |segment: &SegmentName| {
        let unfinished = segment.level == 0 && found.generations.contains(&segment.first);
        unfinished || names.iter().any(|other| other.replaces(segment))
    };
    for segment in names.iter().filter(|segment| stale(segment)) {
        std::fs::remove_file(segment.path(folder))?;
    }
    found.segments = names.iter().filter(|segment| !stale(segment)).copied().collect();
    sync_folder_of(&folder.join("any"))?;
    Ok(found)
}
