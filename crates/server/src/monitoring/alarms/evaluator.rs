//! Looks at the alarms each second, and writes what has become of them. The server that owns the data directory has the one evaluator.

use std::sync::Arc;
use std::time::Duration;

use store::resources::ResourceKey;
use tokio::sync::watch;

use super::loaded::{Blind, LoadedAlarms};
use super::transition::{self, Change};
use super::{ALARM, ALARM_STATE, CONFIGURED, DELETED};
use crate::app::App;

/// Alarms that are written in one transaction.
const BATCH: usize = 200;

/// Looks in one turn: composite alarms follow others, level by level.
const MOST_ROUNDS: usize = 100;

/// Pause after a failure of the database or of a file.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How often it is noted that alarms are looked at.
const BEAT_MS: i64 = 15_000;

/// How long the history is kept.
const HISTORY_MS: i64 = 30 * 86_400_000;

/// How often old history is removed.
const SWEEP_MS: i64 = 3_600_000;

/// Looks at the alarms for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let weak = Arc::downgrade(app);
    let alarms = app.alarms.clone();
    let mut evaluator = Evaluator::new(app.database.watch_events());
    tokio::spawn(async move {
        loop {
            let Some(app) = weak.upgrade() else { return };
            let pause = match evaluator.turn(&app).await {
                Ok(()) => {
                    let into_second = app.clock.now_ms().rem_euclid(1000).unsigned_abs();
                    Duration::from_millis(1001 - into_second)
                }
                Err(error) => {
                    tracing::error!(%error, "alarms could not be looked at");
                    evaluator.forget();
                    FAILURE_PAUSE
                }
            };
            drop(app);
            tokio::select! {
                () = alarms.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

struct Evaluator {
    events: watch::Receiver<u64>,
    alarms: LoadedAlarms,
    /// Position in the event log up to which the alarms are known; `None` before they have been loaded.
    position: Option<i64>,
    is_following: bool,
    blind: Blind,
    /// Whether it is known since when nobody looked.
    has_begun: bool,
    beat_at: Option<i64>,
    swept_at: Option<i64>,
}

impl Evaluator {
    fn new(events: watch::Receiver<u64>) -> Evaluator {
        Evaluator {
            events,
            alarms: LoadedAlarms::default(),
            position: None,
            is_following: false,
            blind: None,
            has_begun: false,
            beat_at: None,
            swept_at: None,
        }
    }

    /// Begins anew with the next turn: what is in memory may have missed something.
    fn forget(&mut self) {
        self.alarms = LoadedAlarms::default();
        self.position = None;
    }

    /// One look at everything.
    async fn turn(&mut self, app: &App) -> store::Result<()> {
        let now_ms = app.clock.now_ms();
        self.begin(app, now_ms).await?;
        self.refresh(app).await?;
        self.beat(app, now_ms).await?;
        if self.alarms.is_empty() {
            return Ok(());
        }
        let mut changes = self.judge_metrics(app, now_ms).await?;
        for _ in 0..MOST_ROUNDS {
            changes.extend(self.alarms.combined());
            let released = self.alarms.released(now_ms);
            if changes.is_empty() && released.is_empty() {
                return Ok(());
            }
            self.write(app, std::mem::take(&mut changes), released, now_ms).await?;
            self.refresh(app).await?;
        }
        Ok(())
    }

    /// Finds out since when nobody looked.
    async fn begin(&mut self, app: &App, now_ms: i64) -> store::Result<()> {
        if !self.has_begun {
            let alive_at = app.database.read(|session| session.alarms_alive_at()).await?;
            self.blind = alive_at.filter(|alive_at| *alive_at < now_ms).map(|alive_at| (alive_at, now_ms));
            self.has_begun = true;
        }
        Ok(())
    }

    /// Notes now and then that alarms are looked at, and removes old history.
    async fn beat(&mut self, app: &App, now_ms: i64) -> store::Result<()> {
        let is_over = |last: Option<i64>, pause_ms: i64| last.is_none_or(|last| now_ms - last >= pause_ms);
        if !self.alarms.is_empty() && is_over(self.beat_at, BEAT_MS) {
            app.database.write(move |session| session.set_alarms_alive_at(now_ms)).await?;
            self.beat_at = Some(now_ms);
        }
        if is_over(self.swept_at, SWEEP_MS) {
            app.database.write(move |session| session.delete_alarm_history(now_ms - HISTORY_MS)).await?;
            self.swept_at = Some(now_ms);
        }
        Ok(())
    }

    /// Takes over what has been written of alarms: all of them at first, then those that the event log names.
    async fn refresh(&mut self, app: &App) -> store::Result<()> {
        let Some(position) = self.position else {
            self.events.mark_unchanged();
            let read =
                app.database.read(|session| Ok((session.last_event()?, session.all_resources(ALARM)?)));
            let (last, alarms) = read.await?;
            alarms.iter().for_each(|alarm| self.alarms.put(alarm));
            self.position = Some(last);
            self.follow(app);
            return Ok(());
        };
        // A sender that is gone has nothing new.
        if !self.events.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.events.mark_unchanged();
        let read = app.database.read(move |session| {
            let last = session.last_event()?;
            let what = [ALARM_STATE, CONFIGURED, DELETED];
            let events = session.all_events_after(&what, position, usize::MAX)?;
            let mut keys: Vec<ResourceKey> =
                events.into_iter().map(|(key, _)| key).filter(|key| key.kind == ALARM).collect();
            keys.sort();
            keys.dedup();
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let alarm = session.find_resource(&key)?;
                found.push((key, alarm));
            }
            Ok((last, found))
        });
        let (last, found) = read.await?;
        for (key, alarm) in &found {
            match alarm {
                Some(alarm) => self.alarms.put(alarm),
                None => self.alarms.remove(key),
            }
        }
        self.position = Some(last);
        self.follow(app);
        if !found.is_empty() {
            app.alarms.changed();
        }
        Ok(())
    }

    /// Has the metric store note what comes, while there are alarms.
    fn follow(&mut self, app: &App) {
        let should = !self.alarms.is_empty();
        if should == self.is_following {
            return;
        }
        self.is_following = should;
        if should {
            app.metrics.follow();
        } else {
            app.metrics.unfollow();
            self.alarms = LoadedAlarms::default();
        }
    }

    /// Judges the alarms over metrics that are due; gives what should change.
    async fn judge_metrics(&mut self, app: &App, now_ms: i64) -> store::Result<Vec<(u64, Change)>> {
        // Before anything is looked up or read: what comes later is in the next news.
        let news = app.metrics.take_news();
        let unknown = self.alarms.unknown(&news);
        if !unknown.is_empty() {
            let keys = app.metrics.keys_of(unknown.clone()).await?;
            self.alarms.learn(unknown, keys);
        }
        let fresh = self.alarms.take_fresh();
        if !fresh.is_empty() {
            let (places, wanted): (Vec<_>, Vec<_>) = fresh.into_iter().unzip();
            let found = app.metrics.series_of_many(wanted).await?;
            places.into_iter().zip(found).for_each(|(place, series)| self.alarms.found(place, series));
        }
        self.alarms.got(&news);
        let due = self.alarms.due(now_ms);
        let reads = self.alarms.reads(&due, now_ms);
        if !reads.is_empty() {
            let (places, reads): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
            let found = app.metrics.aggregate_many(reads).await?;
            places.into_iter().zip(found).for_each(|(place, found)| self.alarms.keep(place, found));
        }
        let change = |number: u64| Some((number, self.alarms.judged(number, now_ms, self.blind)?));
        Ok(due.into_iter().filter_map(change).collect())
    }

    /// Writes new states, unless an alarm is another one than was judged.
    async fn write(
        &self,
        app: &App,
        changes: Vec<(u64, Change)>,
        released: Vec<u64>,
        now_ms: i64,
    ) -> store::Result<()> {
        let changed = changes.into_iter().map(|(number, change)| (number, Some(change)));
        let all = changed.chain(released.into_iter().map(|number| (number, None)));
        let known = all.filter_map(|(number, change)| {
            let alarm = self.alarms.get(number)?;
            Some((alarm.key.clone(), alarm.generation, change))
        });
        let mut known: Vec<(ResourceKey, i64, Option<Change>)> = known.collect();
        while !known.is_empty() {
            let batch: Vec<_> = known.drain(..known.len().min(BATCH)).collect();
            let written = app.database.write(move |session| {
                for (key, generation, change) in batch {
                    let Some(alarm) = session.find_resource(&key)? else { continue };
                    // An alarm that is both changed and released is settled by its change.
                    if alarm.generation != generation {
                        continue;
                    }
                    match change {
                        Some(change) => transition::apply(session, alarm, change, now_ms)?,
                        None => transition::resettle(session, &alarm, now_ms)?,
                    }
                }
                Ok(())
            });
            written.await?;
        }
        app.deliveries.ring();
        Ok(())
    }
}
