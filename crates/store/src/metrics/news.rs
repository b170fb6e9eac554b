//! For readers that look at the same metrics again and again: which series got samples since they last asked, and reads of many
//! series at once. What nothing came to need not be read again.

use std::collections::{BTreeMap, HashMap};

use super::MetricStore;
use super::aggregate::{Aggregate, Window};
use super::head::SeriesId;
use super::rows::Metric;
use super::sample::{Sample, SeriesKey};
use crate::error::Result;

/// Series that got samples, each with the second of the oldest of them.
pub type News = HashMap<SeriesId, i64>;

/// A metric that somebody reads again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMetric {
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// The metric.
    pub metric: Metric,
    /// Only samples in this unit.
    pub unit: Option<String>,
}

/// One read: series whose samples are put together, and the periods that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesRead {
    /// The series.
    pub series: Vec<SeriesId>,
    /// The periods.
    pub window: Window,
    /// Whether the values themselves are needed.
    pub with_distribution: bool,
}

/// Notes what comes, while somebody wants to know.
#[derive(Default)]
pub(super) struct Recorder {
    is_followed: bool,
    oldest: News,
}

impl Recorder {
    pub(super) fn record(&mut self, series: SeriesId, samples: &[Sample]) {
        if !self.is_followed {
            return;
        }
        let Some(oldest) = samples.iter().map(|sample| sample.at_seconds).min() else { return };
        let noted = self.oldest.entry(series).or_insert(oldest);
        *noted = (*noted).min(oldest);
    }
}

impl MetricStore {
    /// Notes from now on which series get samples, for the one reader that takes the notes.
    pub fn follow(&self) {
        self.shared.lock().news.is_followed = true;
    }

    /// Stops to note them.
    pub fn unfollow(&self) {
        self.shared.lock().news = Recorder::default();
    }

    /// What came since the last call. A sample that a later read does not see is in the news of a later call.
    pub fn take_news(&self) -> News {
        std::mem::take(&mut self.shared.lock().news.oldest)
    }

    /// Numbers of the series of each metric.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn series_of_many(&self, wanted: Vec<WantedMetric>) -> Result<Vec<Vec<SeriesId>>> {
        let read = self.database.read(move |session| {
            let mut found = Vec::with_capacity(wanted.len());
            for one in wanted {
                let series = session.series_of(&one.account, &one.region, &one.metric)?;
                let of_unit = |unit: &String| one.unit.as_ref().is_none_or(|wanted| wanted == unit);
                found.push(series.into_iter().filter(|(unit, _)| of_unit(unit)).map(|(_, id)| id).collect());
            }
            Ok(found)
        });
        read.await
    }

    /// What names each series; those that are gone are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys_of(&self, series: Vec<SeriesId>) -> Result<Vec<(SeriesId, SeriesKey)>> {
        let read = self.database.read(move |session| {
            let mut found = Vec::with_capacity(series.len());
            for id in series {
                found.extend(session.series_key(id)?.map(|key| (id, key)));
            }
            Ok(found)
        });
        read.await
    }

    /// What each read finds, in one go.
    ///
    /// # Errors
    /// When a file cannot be read, or is damaged.
    pub async fn aggregate_many(&self, reads: Vec<SeriesRead>) -> Result<Vec<BTreeMap<i64, Aggregate>>> {
        self.scan(move |shared| {
            reads
                .iter()
                .map(|read| shared.aggregate(&read.series, read.window, read.with_distribution))
                .collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sample_of_a_series_is_noted_while_somebody_follows() {
        let mut recorder = Recorder::default();
        recorder.record(1, &[Sample::value(5, 1.0)]);
        assert!(recorder.oldest.is_empty());
        recorder.is_followed = true;
        recorder.record(1, &[Sample::value(9, 1.0), Sample::value(7, 1.0)]);
        recorder.record(1, &[Sample::value(8, 1.0)]);
        recorder.record(2, &[]);
        assert_eq!(recorder.oldest, HashMap::from([(1, 7)]));
    }
}
