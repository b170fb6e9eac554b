//! The newest samples, in memory; the journal has them, too.

use std::collections::HashMap;

use super::sample::Sample;

/// Identifies a series in journals, heads and segments.
pub type SeriesId = u32;

/// Seconds of the stretch of time that a segment covers.
pub(super) const DAY_SECONDS: i64 = 86_400;

/// Samples by series, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Head {
    series: HashMap<SeriesId, Vec<Sample>>,
    samples: usize,
}

impl Head {
    pub(super) fn insert(&mut self, series: SeriesId, samples: &[Sample]) {
        self.series.entry(series).or_default().extend_from_slice(samples);
        self.samples += samples.len();
    }

    /// How many samples there are.
    pub(super) fn len(&self) -> usize {
        self.samples
    }

    pub(super) fn of(&self, series: SeriesId) -> &[Sample] {
        self.series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// All samples as segments want them: by day, then by series, then by time.
    pub(super) fn by_day(&self) -> Vec<(i64, Vec<(SeriesId, Sample)>)> {
        let mut rows: Vec<(SeriesId, Sample)> = self
            .series
            .iter()
            .flat_map(|(series, samples)| samples.iter().map(move |sample| (*series, *sample)))
            .collect();
        let day = |sample: &Sample| sample.at_seconds.div_euclid(DAY_SECONDS);
        // Stable: samples of the same second stay in the order in which they came.
        rows.sort_by_key(|(series, sample)| (day(sample), *series, sample.at_seconds));
        let mut days: Vec<(i64, Vec<(SeriesId, Sample)>)> = Vec::new();
        for (series, sample) in rows {
            let of = day(&sample);
            match days.last_mut() {
                Some((last, rows)) if *last == of => rows.push((series, sample)),
                _ => days.push((of, vec![(series, sample)])),
            }
        }
        days
    }
}
