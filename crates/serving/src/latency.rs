//! Latencies in classes, counted without a lock: classes are narrow enough that percentiles of them are right within three percent.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Classes of each power of two.
const CLASSES_PER_OCTAVE: u32 = 16;
const OCTAVE_BITS: u32 = CLASSES_PER_OCTAVE.trailing_zeros();
/// Powers of two beyond the first; the last class takes what is longer than twelve days.
const OCTAVES: u32 = 36;
const CLASSES: usize = ((OCTAVES + 1) * CLASSES_PER_OCTAVE) as usize;

/// Latencies since the start. Nothing is kept for what never had one.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    classes: OnceLock<Box<[Class]>>,
}

#[derive(Debug, Default)]
struct Class {
    count: AtomicU64,
    microseconds: AtomicU64,
}

/// The latencies of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyClass {
    /// Which class; a greater one has longer latencies.
    pub class: u16,
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub microseconds: u64,
}

impl LatencyClass {
    /// Their mean, which differs from each of them by no more than a class is wide.
    pub fn mean_microseconds(&self) -> f64 {
        self.microseconds as f64 / self.count.max(1) as f64
    }
}

/// Latencies by class, those without any left out, in the order of their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// The classes.
    pub classes: Vec<LatencyClass>,
}

impl Latencies {
    pub(crate) fn record(&self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let classes = self.classes.get_or_init(|| (0..CLASSES).map(|_| Class::default()).collect());
        let class = &classes[class_of(microseconds)];
        class.count.fetch_add(1, Relaxed);
        class.microseconds.fetch_add(microseconds, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> LatencySnapshot {
        let classes = self.classes.get().map_or(&[][..], |classes| classes);
        let counted = classes.iter().enumerate().filter_map(|(number, class)| {
            let count = class.count.load(Relaxed);
            let microseconds = class.microseconds.load(Relaxed);
            (count > 0).then_some(LatencyClass { class: number as u16, count, microseconds })
        });
        LatencySnapshot { classes: counted.collect() }
    }
}

/// Below sixteen each microsecond is a class; beyond, each power of two has sixteen of equal width.
fn class_of(microseconds: u64) -> usize {
    if microseconds < u64::from(CLASSES_PER_OCTAVE) {
        return microseconds as usize;
    }
    let octave = microseconds.ilog2() - OCTAVE_BITS;
    let within = (microseconds >> octave) as usize & (CLASSES_PER_OCTAVE as usize - 1);
    ((octave as usize + 1) * CLASSES_PER_OCTAVE as usize + within).min(CLASSES - 1)
}

impl LatencySnapshot {
    /// How many latencies there are.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|class| class.count).sum()
    }

    /// The latency below which that share of them lies; 0 when there are none.
    pub fn percentile_microseconds(&self, share: f64) -> f64 {
        let mut left = (share * self.count() as f64).ceil();
        for class in &self.classes {
            left -= class.count as f64;
            if left <= 0.0 {
                return class.mean_microseconds();
            }
        }
        0.0
    }

    /// What came since an earlier snapshot of the same latencies.
    pub fn since(&self, earlier: &LatencySnapshot) -> LatencySnapshot {
        let mut before = earlier.classes.iter().peekable();
        let mut news = Vec::new();
        for now in &self.classes {
            while before.next_if(|old| old.class < now.class).is_some() {}
            let old = before.next_if(|old| old.class == now.class);
            let (count, microseconds) = old.map_or((0, 0), |old| (old.count, old.microseconds));
            let count = now.count.saturating_sub(count);
            if count > 0 {
                let microseconds = now.microseconds.saturating_sub(microseconds);
                news.push(LatencyClass { class: now.class, count, microseconds });
            }
        }
        LatencySnapshot { classes: news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_narrow_and_in_order() {
        let mut before = 0;
        for microseconds in (0..2_000).chain([60_000_000, 1 << 40, u64::MAX]) {
            let class = class_of(microseconds);
            assert!(class >= before && class < CLASSES, "{microseconds}");
            before = class;
        }
        assert_eq!(
            (class_of(15), class_of(16), class_of(31), class_of(32), class_of(33)),
            (15, 16, 31, 32, 32)
        );
        // The first and the last of a class differ by less than a sixteenth.
        assert_eq!(class_of(1_024), class_of(1_087));
        assert_ne!(class_of(1_024), class_of(1_088));
    }

    #[test]
    fn a_difference_has_what_came_since() {
        let latencies = Latencies::default();
        assert_eq!(latencies.snapshot(), LatencySnapshot::default());
        latencies.record(Duration::from_micros(100));
        latencies.record(Duration::from_millis(5));
        let first = latencies.snapshot();
        assert_eq!(first.count(), 2);
        assert_eq!(
            (first.percentile_microseconds(0.5), first.percentile_microseconds(0.99)),
            (100.0, 5_000.0)
        );
        assert_eq!(LatencySnapshot::default().percentile_microseconds(0.5), 0.0);
        latencies.record(Duration::from_micros(101));
        latencies.record(Duration::from_secs(1));
        let news = latencies.snapshot().since(&first);
        let means: Vec<f64> = news.classes.iter().map(LatencyClass::mean_microseconds).collect();
        assert_eq!(means, [101.0, 1_000_000.0]);
        assert_eq!(latencies.snapshot().since(&latencies.snapshot()), LatencySnapshot::default());
    }
}
