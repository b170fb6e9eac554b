//! What an expression is made of while it is evaluated.

/// Seconds since 1970 and value, in the order of time.
pub(in crate::monitoring) type Points = Vec<(i64, f64)>;

/// A time series.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::monitoring) struct Series {
    /// What results show for it.
    pub(in crate::monitoring) label: String,
    /// Seconds between two periods.
    pub(in crate::monitoring) period_seconds: i64,
    /// Its values; a period without a value is not there.
    pub(in crate::monitoring) points: Points,
}

impl Series {
    /// The same series with other points; what is no number any more is dropped.
    pub(super) fn with(&self, mut points: Points) -> Series {
        points.retain(|(_, value)| value.is_finite());
        Series { label: self.label.clone(), period_seconds: self.period_seconds, points }
    }

    pub(super) fn map(&self, change: impl Fn(f64) -> f64) -> Series {
        self.with(self.points.iter().map(|(at, value)| (*at, change(*value))).collect())
    }

    pub(super) fn at(&self, seconds: i64) -> Option<f64> {
        let found = self.points.binary_search_by_key(&seconds, |(at, _)| *at);
        found.ok().map(|index| self.points[index].1)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = f64> + Clone + '_ {
        self.points.iter().map(|(_, value)| *value)
    }
}

/// A value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::monitoring) enum Value {
    /// A number.
    Scalar(f64),
    /// A time series.
    Series(Series),
    /// Several time series.
    Array(Vec<Series>),
}

impl Value {
    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Scalar(_) => "a number",
            Value::Series(_) => "a time series",
            Value::Array(_) => "an array of time series",
        }
    }

    /// How many points it holds.
    pub(super) fn size(&self) -> usize {
        match self {
            Value::Scalar(_) => 1,
            Value::Series(series) => series.points.len(),
            Value::Array(array) => array.iter().map(|series| series.points.len() + 1).sum(),
        }
    }
}
