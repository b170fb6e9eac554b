//! What is known of a metric that an alarm watches: kept from look to look, and read anew only from where samples came.

use std::collections::BTreeMap;

use store::metrics::{Aggregate, Sample, SeriesId, SeriesRead, WantedMetric, Window};

use super::super::data::MetricQuery;
use super::super::statistic::Statistic;

/// How far ahead of the clock samples may be put.
const AHEAD_SECONDS: i64 = 3 * 3_600;

/// A metric of an alarm.
#[derive(Debug)]
pub(super) struct Reading {
    wanted: WantedMetric,
    statistic: Statistic,
    /// Seconds that are kept together: a minute or less for sums, a whole period for what needs the values themselves.
    base_seconds: i64,
    with_distribution: bool,
    /// The series of the metric, once they have been looked up.
    series: Option<Vec<SeriesId>>,
    kept: BTreeMap<i64, Kept>,
    /// What is kept is all there is from this second on.
    covered_from: Option<i64>,
    /// But samples came from this second on.
    dirty_from: Option<i64>,
}

/// What is kept of a stretch of time.
#[derive(Debug)]
struct Kept {
    sums: Sample,
    /// The statistic, where it needs the values themselves.
    value: Option<f64>,
}

impl Reading {
    /// The reading of a metric of `(account, region)`, of which nothing is known yet.
    pub(super) fn new(query: &MetricQuery, (account, region): (&str, &str)) -> Reading {
        let with_distribution = query.statistic.needs_distribution();
        Reading {
            wanted: WantedMetric {
                account: account.to_owned(),
                region: region.to_owned(),
                metric: query.metric.clone(),
                unit: query.unit.clone(),
            },
            statistic: query.statistic.clone(),
            base_seconds: if with_distribution { query.period_seconds } else { query.period_seconds.min(60) },
            with_distribution,
            series: None,
            kept: BTreeMap::new(),
            covered_from: None,
            dirty_from: None,
        }
    }

    /// The metric.
    pub(super) fn wanted(&self) -> &WantedMetric {
        &self.wanted
    }

    /// Its series; none before they have been looked up.
    pub(super) fn series(&self) -> Option<&[SeriesId]> {
        self.series.as_deref()
    }

    /// Its series have been looked up.
    pub(super) fn found(&mut self, series: Vec<SeriesId>) {
        self.series = Some(series);
    }

    /// It has one more series; `false` for one that is known.
    pub(super) fn attach(&mut self, series: SeriesId) -> bool {
        match &mut self.series {
            Some(known) if !known.contains(&series) => {
                known.push(series);
                true
            }
            _ => false,
        }
    }

    /// Samples came, the oldest of this second.
    pub(super) fn got(&mut self, oldest_seconds: i64) {
        self.dirty_from = Some(self.dirty_from.map_or(oldest_seconds, |from| from.min(oldest_seconds)));
    }

    /// Whether samples came that have not been read.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_from.is_some()
    }

    /// What must be read to know the periods of a window; nothing when nothing came. What is read must be [`Reading::keep`]t.
    pub(super) fn read(&mut self, window: &Window) -> Option<SeriesRead> {
        let start = window.start_seconds;
        let is_aligned = |from: i64| (start - from).rem_euclid(self.base_seconds) == 0;
        let is_known = self.covered_from.is_some_and(|from| from <= start && is_aligned(from));
        self.covered_from = Some(start);
        let dirty_from = self.dirty_from.take();
        let mut from = start;
        if is_known {
            self.kept = self.kept.split_off(&start);
            let into = dirty_from?.max(start) - start;
            from += into - into.rem_euclid(self.base_seconds);
        }
        drop(self.kept.split_off(&from));
        let series = self.series.clone().filter(|series| !series.is_empty())?;
        let window = Window {
            start_seconds: from,
            end_seconds: window.end_seconds + AHEAD_SECONDS,
            period_seconds: self.base_seconds,
        };
        Some(SeriesRead { series, window, with_distribution: self.with_distribution })
    }

    /// Keeps what was read.
    pub(super) fn keep(&mut self, found: BTreeMap<i64, Aggregate>) {
        for (at_seconds, aggregate) in found {
            let value = if self.with_distribution { self.statistic.of(&aggregate) } else { None };
            let Aggregate { count, sum, minimum, maximum, .. } = aggregate;
            self.kept.insert(
                at_seconds,
                Kept { sums: Sample { at_seconds, count, sum, minimum, maximum }, value },
            );
        }
    }

    /// The statistic of a period and how many values it stands for.
    pub(super) fn at(&self, start_seconds: i64, period_seconds: i64) -> Option<(f64, f64)> {
        if self.with_distribution {
            let kept = self.kept.get(&start_seconds)?;
            return Some((kept.value?, kept.sums.count));
        }
        let mut parts = self.kept.range(start_seconds..start_seconds + period_seconds).peekable();
        parts.peek()?;
        let mut sums = Aggregate::empty(false);
        parts.for_each(|(_, kept)| sums.add(&kept.sums));
        Some((self.statistic.of(&sums)?, sums.count))
    }
}

#[cfg(test)]
mod tests {
    use store::metrics::Metric;

    use super::*;

    fn reading(statistic: &str, period_seconds: i64) -> Reading {
        let query = MetricQuery {
            id: "m".into(),
            metric: Metric { namespace: "Tests".into(), name: "m".into(), dimensions: Vec::new() },
            period_seconds,
            statistic: Statistic::parse(statistic).unwrap(),
            statistic_name: statistic.into(),
            unit: None,
        };
        let mut reading = Reading::new(&query, ("123456789012", "us-east-1"));
        reading.found(vec![7]);
        reading
    }

    fn window(start_seconds: i64, end_seconds: i64, period_seconds: i64) -> Window {
        Window { start_seconds, end_seconds, period_seconds }
    }

    /// What the store would find: a value of 1 in each of these seconds.
    fn found(read: &SeriesRead, seconds: &[i64]) -> BTreeMap<i64, Aggregate> {
        let mut found = BTreeMap::new();
        for at in seconds.iter().filter(|at| read.window.contains(**at)) {
            let aggregate = found
                .entry(read.window.period_of(*at))
                .or_insert_with(|| Aggregate::empty(read.with_distribution));
            aggregate.add(&Sample::value(*at, 1.0));
        }
        found
    }

    #[test]
    fn only_what_changed_is_read_again() {
        let mut reading = reading("Sum", 300);
        let read = reading.read(&window(0, 900, 300)).unwrap();
        assert_eq!((read.window.start_seconds, read.window.period_seconds), (0, 60));
        reading.keep(found(&read, &[0, 30, 61, 299, 300]));
        assert_eq!(reading.at(0, 300), Some((4.0, 4.0)));
        assert_eq!(reading.at(300, 300), Some((1.0, 1.0)));
        assert_eq!(reading.at(600, 300), None);
        // A minute later the periods begin elsewhere, and nothing is read.
        assert_eq!(reading.read(&window(60, 960, 300)), None);
        assert_eq!(reading.at(60, 300), Some((3.0, 3.0)));
        // A late sample and a new one.
        reading.got(700);
        reading.got(310);
        let read = reading.read(&window(60, 960, 300)).unwrap();
        assert_eq!(read.window.start_seconds, 300);
        reading.keep(found(&read, &[300, 310, 700]));
        assert_eq!(reading.at(60, 300), Some((4.0, 4.0)));
        assert_eq!(reading.at(660, 300), Some((1.0, 1.0)));
        assert_eq!(reading.read(&window(60, 960, 300)), None);
    }

    #[test]
    fn percentiles_are_read_anew_when_periods_begin_elsewhere() {
        let mut reading = reading("p50", 300);
        let read = reading.read(&window(0, 900, 300)).unwrap();
        assert_eq!((read.window.period_seconds, read.with_distribution), (300, true));
        reading.keep(found(&read, &[0, 299]));
        assert_eq!(reading.at(0, 300), Some((1.0, 2.0)));
        assert!(reading.read(&window(60, 960, 300)).is_some());
        assert_eq!(reading.read(&window(360, 1260, 300)), None);
    }

    #[test]
    fn a_metric_without_series_is_not_read() {
        let mut reading = reading("Sum", 60);
        reading.found(Vec::new());
        assert_eq!(reading.read(&window(0, 300, 60)), None);
        assert!(reading.attach(9) && !reading.attach(9));
        reading.got(130);
        let read = reading.read(&window(0, 300, 60)).unwrap();
        assert_eq!((read.series, read.window.start_seconds), (vec![9], 120));
    }
}
