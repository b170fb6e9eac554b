//! What is measured: series, and samples of them.

/// What names a series of samples. Samples of one metric in different units are different series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Namespace, for example `/aws/sagemaker/TrainingJobs`.
    pub namespace: String,
    /// Name of the metric.
    pub name: String,
    /// Name and value of each dimension, sorted by name.
    pub dimensions: Vec<(String, String)>,
    /// Unit, for example `Percent`; `None` is a unit, too.
    pub unit: String,
}

impl SeriesKey {
    /// A key from its parts; the dimensions may come in any order.
    pub fn new(
        (account, region): (&str, &str),
        namespace: impl Into<String>,
        name: impl Into<String>,
        mut dimensions: Vec<(String, String)>,
        unit: impl Into<String>,
    ) -> SeriesKey {
        dimensions.sort();
        SeriesKey {
            account: account.into(),
            region: region.into(),
            namespace: namespace.into(),
            name: name.into(),
            dimensions,
            unit: unit.into(),
        }
    }
}

/// One measured value, a value that was measured several times, or the summary of several values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since 1970.
    pub at_seconds: i64,
    /// How many values it stands for.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The least of them.
    pub minimum: f64,
    /// The greatest of them.
    pub maximum: f64,
}

impl Sample {
    /// One value.
    pub fn value(at_seconds: i64, value: f64) -> Sample {
        Sample { at_seconds, count: 1.0, sum: value, minimum: value, maximum: value }
    }

    /// The same value `count` times.
    pub fn repeated(at_seconds: i64, value: f64, count: f64) -> Sample {
        Sample { at_seconds, count, sum: value * count, minimum: value, maximum: value }
    }

    /// Whether the sample says what each of its values was.
    pub fn is_exact(&self) -> bool {
        self.minimum == self.maximum
    }
}

/// Samples of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSamples {
    /// Whose they are.
    pub series: SeriesKey,
    /// What was measured, in any order.
    pub samples: Vec<Sample>,
}
