//! The alarms in memory: what each reads and how it stands, so that a look at thousands of them costs what has changed.

use std::collections::{BTreeMap, HashMap, HashSet};

use store::metrics::{Aggregate, News, SeriesId, SeriesKey, SeriesRead, WantedMetric};
use store::resources::{Resource, ResourceKey};

use super::super::math::{self, Series, Value};
use super::composite;
use super::judge::{Slot, Verdict, judge};
use super::plan::Plan;
use super::readings::Reading;
use super::reason::{self, Point};
use super::record::Record;
use super::rule::Rule;
use super::suppression::{Situation, suppressor};
use super::transition::Change;
use super::{ALARM, State, is_composite, name_of, state_of};

/// Time that samples of a minute have to arrive in before the minute is judged; alarms differ by some seconds, so that not all are
/// looked at in the same one.
const DELAY_MS: std::ops::RangeInclusive<i64> = 1_000..=10_000;

/// A reading of an alarm: number of the alarm, and position of the reading in it.
type Place = (u64, usize);

/// What names a metric.
type MetricKey = (String, String, String, String, Vec<(String, String)>);

/// An alarm.
pub(super) struct Loaded {
    pub(super) key: ResourceKey,
    pub(super) arn: String,
    pub(super) generation: i64,
    pub(super) state: State,
    transitioned_at: i64,
    left_alarm_at: Option<i64>,
    /// Whether its actions have not been run for its state.
    is_owed: bool,
    suppressed_by: Option<String>,
    body: Body,
}

enum Body {
    Metric(Box<Watched>),
    Composite(Box<Combined>),
    /// Its settings cannot be read; the log says why.
    Unreadable,
}

/// An alarm over metrics.
struct Watched {
    plan: Plan,
    configurations: u64,
    readings: Vec<Reading>,
    /// End of the window that was judged last.
    judged_to: Option<i64>,
    delay_ms: i64,
}

/// An alarm over alarms.
struct Combined {
    rule: Rule,
    suppressor: Option<String>,
    wait_seconds: i64,
    extension_seconds: i64,
}

/// Between these moments, in milliseconds since 1970, nobody could put metrics: the server was down.
pub(super) type Blind = Option<(i64, i64)>;

/// All alarms of all accounts.
#[derive(Default)]
pub(super) struct LoadedAlarms {
    alarms: BTreeMap<u64, Loaded>,
    by_key: HashMap<ResourceKey, u64>,
    next_number: u64,
    by_series: HashMap<SeriesId, Vec<Place>>,
    by_metric: HashMap<MetricKey, Vec<Place>>,
    known_series: HashSet<SeriesId>,
    /// Readings whose series have not been looked up.
    fresh: Vec<Place>,
}

impl LoadedAlarms {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.alarms.is_empty()
    }

    /// An alarm by its number.
    pub(super) fn get(&self, number: u64) -> Option<&Loaded> {
        self.alarms.get(&number)
    }

    /// Takes an alarm as it is stored. One whose settings are the same keeps what was read.
    pub(super) fn put(&mut self, alarm: &Resource) {
        let record = match Record::read(alarm) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(alarm = alarm.arn, %error, "an alarm cannot be read and is not watched");
                return self.remove(&alarm.key);
            }
        };
        if let Some(loaded) = self.by_key.get(&alarm.key).and_then(|number| self.alarms.get_mut(number))
            && let Body::Metric(watched) = &loaded.body
            && watched.configurations == record.configurations
        {
            loaded.stand(alarm, &record);
            return;
        }
        self.remove(&alarm.key);
        let number = self.next_number;
        self.next_number += 1;
        let mut loaded = Loaded {
            key: alarm.key.clone(),
            arn: alarm.arn.clone(),
            generation: 0,
            state: state_of(alarm),
            transitioned_at: 0,
            left_alarm_at: None,
            is_owed: false,
            suppressed_by: None,
            body: body(alarm, record.configurations, number),
        };
        loaded.stand(alarm, &record);
        if let Body::Metric(watched) = &loaded.body {
            for (position, reading) in watched.readings.iter().enumerate() {
                let place = (number, position);
                self.fresh.push(place);
                self.by_metric.entry(metric_key(reading.wanted())).or_default().push(place);
            }
        }
        self.by_key.insert(alarm.key.clone(), number);
        self.alarms.insert(number, loaded);
    }

    /// Forgets an alarm.
    pub(super) fn remove(&mut self, key: &ResourceKey) {
        let Some(number) = self.by_key.remove(key) else { return };
        let Some(Loaded { body: Body::Metric(watched), .. }) = self.alarms.remove(&number) else { return };
        for reading in &watched.readings {
            let wanted = metric_key(reading.wanted());
            if let Some(places) = self.by_metric.get_mut(&wanted) {
                places.retain(|(of, _)| *of != number);
                if places.is_empty() {
                    self.by_metric.remove(&wanted);
                }
            }
            for series in reading.series().unwrap_or_default() {
                if let Some(places) = self.by_series.get_mut(series) {
                    places.retain(|(of, _)| *of != number);
                    if places.is_empty() {
                        self.by_series.remove(series);
                    }
                }
            }
        }
        self.fresh.retain(|(of, _)| *of != number);
    }

    /// Readings whose series are to be looked up, and the metrics they are of.
    pub(super) fn take_fresh(&mut self) -> Vec<(Place, WantedMetric)> {
        let fresh = std::mem::take(&mut self.fresh);
        let wanted = fresh.into_iter().filter_map(|place| {
            let watched = self.watched(place.0)?;
            Some((place, watched.readings.get(place.1)?.wanted().clone()))
        });
        wanted.collect()
    }

    /// The series of a reading.
    pub(super) fn found(&mut self, place: Place, series: Vec<SeriesId>) {
        for id in &series {
            self.known_series.insert(*id);
            self.by_series.entry(*id).or_default().push(place);
        }
        if let Some(reading) = self.reading_mut(place) {
            reading.found(series);
        }
    }

    /// Series that are heard of for the first time.
    pub(super) fn unknown(&self, news: &News) -> Vec<SeriesId> {
        news.keys().filter(|id| !self.known_series.contains(id)).copied().collect()
    }

    /// What the series are that were unknown.
    pub(super) fn learn(&mut self, unknown: Vec<SeriesId>, keys: Vec<(SeriesId, SeriesKey)>) {
        self.known_series.extend(unknown);
        for (id, key) in keys {
            let unit = key.unit.clone();
            let metric = (key.account, key.region, key.namespace, key.name, key.dimensions);
            for place in self.by_metric.get(&metric).cloned().unwrap_or_default() {
                let Some(reading) = self.reading_mut(place) else { continue };
                let is_of_unit = reading.wanted().unit.as_ref().is_none_or(|wanted| *wanted == unit);
                if is_of_unit && reading.attach(id) {
                    self.by_series.entry(id).or_default().push(place);
                }
            }
        }
    }

    /// Samples came.
    pub(super) fn got(&mut self, news: &News) {
        for (id, oldest_seconds) in news {
            for place in self.by_series.get(id).cloned().unwrap_or_default() {
                if let Some(reading) = self.reading_mut(place) {
                    reading.got(*oldest_seconds);
                }
            }
        }
    }

    /// Alarms over metrics that are to be looked at: a period has ended, or samples came for short periods.
    pub(super) fn due(&self, now_ms: i64) -> Vec<u64> {
        let is_due = |watched: &Watched| {
            let end = watched.plan.window(now_ms - watched.delay_ms).end_seconds;
            let is_short = watched.plan.period_seconds < 60;
            watched.judged_to != Some(end) || (is_short && watched.readings.iter().any(Reading::is_dirty))
        };
        let metrics = self.alarms.iter().filter(|(_, loaded)| match &loaded.body {
            Body::Metric(watched) => is_due(watched),
            Body::Composite(_) | Body::Unreadable => false,
        });
        metrics.map(|(number, _)| *number).collect()
    }

    /// What must be read for alarms that are due.
    pub(super) fn reads(&mut self, due: &[u64], now_ms: i64) -> Vec<(Place, SeriesRead)> {
        let mut reads = Vec::new();
        for number in due {
            let Some(Loaded { body: Body::Metric(watched), .. }) = self.alarms.get_mut(number) else {
                continue;
            };
            let window = watched.plan.window(now_ms - watched.delay_ms);
            for (position, reading) in watched.readings.iter_mut().enumerate() {
                reads.extend(reading.read(&window).map(|read| ((*number, position), read)));
            }
        }
        reads
    }

    /// What was read.
    pub(super) fn keep(&mut self, place: Place, found: BTreeMap<i64, Aggregate>) {
        if let Some(reading) = self.reading_mut(place) {
            reading.keep(found);
        }
    }

    /// The state that an alarm over metrics should be in, if it is another one.
    pub(super) fn judged(&mut self, number: u64, now_ms: i64, blind: Blind) -> Option<Change> {
        let loaded = self.alarms.get_mut(&number)?;
        let Body::Metric(watched) = &mut loaded.body else { return None };
        watched.judged_to = Some(watched.plan.window(now_ms - watched.delay_ms).end_seconds);
        match watched.change(loaded.state, now_ms, blind) {
            Ok(change) => change,
            Err(problem) => {
                tracing::warn!(alarm = loaded.arn, problem, "the expressions of an alarm cannot be computed");
                None
            }
        }
    }

    /// Composite alarms that should be in another state.
    pub(super) fn combined(&self) -> Vec<(u64, Change)> {
        let composites = self.alarms.iter().filter_map(|(number, loaded)| match &loaded.body {
            Body::Composite(combined) => Some((*number, loaded, &combined.rule)),
            Body::Metric(_) | Body::Unreadable => None,
        });
        let change = |(number, loaded, rule): (u64, &Loaded, &Rule)| {
            let child = |name: &str| self.sibling(&loaded.key, name);
            let holds = rule.holds(&|name| child(name).map(|child| child.state));
            let state = if holds { State::Alarm } else { State::Ok };
            if state == loaded.state {
                return None;
            }
            let mut children: Vec<_> = rule
                .alarms()
                .into_iter()
                .filter_map(child)
                .map(|child| (child.arn.clone(), child.state, child.transitioned_at))
                .collect();
            children.sort_by_key(|(_, _, at)| std::cmp::Reverse(*at));
            let reason = match children.first() {
                Some((arn, state, at)) => reason::of_child(arn, *state, *at),
                None => format!("The alarm rule evaluates to {}", if holds { "TRUE" } else { "FALSE" }),
            };
            Some((number, Change { state, reason, reason_data: Some(reason::of_children(&children)) }))
        };
        composites.filter_map(change).collect()
    }

    /// Composite alarms whose actions wait, and what keeps them is over or has become something else.
    pub(super) fn released(&self, now_ms: i64) -> Vec<u64> {
        let is_released = |loaded: &Loaded| {
            let Body::Composite(combined) = &loaded.body else { return false };
            let Some(name) = combined.suppressor.as_deref().filter(|_| loaded.is_owed) else { return false };
            let by = self.sibling(&loaded.key, name).and_then(|found| {
                let situation = Situation {
                    state: loaded.state,
                    since_ms: loaded.transitioned_at,
                    suppressor: found.state,
                    left_alarm_at: found.left_alarm_at,
                    wait_seconds: combined.wait_seconds,
                    extension_seconds: combined.extension_seconds,
                };
                suppressor(&situation, now_ms)
            });
            by.map(|by| by.as_str()) != loaded.suppressed_by.as_deref() || by.is_none()
        };
        self.alarms.iter().filter(|(_, loaded)| is_released(loaded)).map(|(number, _)| *number).collect()
    }

    fn sibling(&self, key: &ResourceKey, name: &str) -> Option<&Loaded> {
        let key = ResourceKey::new(&*key.account, &*key.region, ALARM, name);
        self.alarms.get(self.by_key.get(&key)?)
    }

    fn watched(&self, number: u64) -> Option<&Watched> {
        match &self.alarms.get(&number)?.body {
            Body::Metric(watched) => Some(watched),
            Body::Composite(_) | Body::Unreadable => None,
        }
    }

    fn reading_mut(&mut self, (number, position): Place) -> Option<&mut Reading> {
        match &mut self.alarms.get_mut(&number)?.body {
            Body::Metric(watched) => watched.readings.get_mut(position),
            Body::Composite(_) | Body::Unreadable => None,
        }
    }
}

impl Loaded {
    fn stand(&mut self, alarm: &Resource, record: &Record) {
        self.generation = alarm.generation;
        self.state = state_of(alarm);
        self.transitioned_at = record.transitioned_at;
        self.left_alarm_at = record.left_alarm_at;
        self.is_owed = record.told != alarm.status;
        self.suppressed_by = record.suppressed.as_ref().map(|(by, _)| by.clone());
    }
}

impl Watched {
    fn change(&self, state: State, now_ms: i64, blind: Blind) -> Result<Option<Change>, String> {
        let condition = &self.plan.condition;
        let window = self.plan.window(now_ms - self.delay_ms);
        let period_seconds = window.period_seconds;
        let starts = (0..condition.range_periods()).map(|position| {
            window.start_seconds + i64::try_from(position).unwrap_or_default() * period_seconds
        });
        let starts: Vec<i64> = starts.collect();
        let points = self.points(&starts)?;
        let slots: Vec<Slot> = starts
            .iter()
            .zip(&points)
            .map(|(start, point)| slot(*start, period_seconds, point.map(|point| point.value), blind))
            .collect();
        let Verdict { state: wanted, judged, filled } = judge(condition, &slots);
        let Some(wanted) = wanted.filter(|wanted| *wanted != state) else { return Ok(None) };
        let judged: Vec<Point> = judged.into_iter().filter_map(|position| points[position]).collect();
        if let Some(least) = self.plan.least_samples
            && judged.iter().any(|point| point.samples.is_some_and(|samples| samples < least))
        {
            return Ok(None);
        }
        Ok(Some(Change {
            state: wanted,
            reason: reason::sentence(condition, wanted, &judged, filled),
            reason_data: Some(reason::data(&self.plan, window.start_seconds, &judged, now_ms)),
        }))
    }

    /// The data points of the periods that begin at these seconds.
    fn points(&self, starts: &[i64]) -> Result<Vec<Option<Point>>, String> {
        let period_seconds = self.plan.period_seconds;
        let of = |reading: &Reading, at_seconds: i64| {
            let (value, samples) = reading.at(at_seconds, period_seconds)?;
            Some(Point { at_seconds, value, samples: Some(samples) })
        };
        if !self.plan.is_math {
            return Ok(starts.iter().map(|start| of(&self.readings[0], *start)).collect());
        }
        let mut values = BTreeMap::new();
        for (metric, reading) in self.plan.metrics.iter().zip(&self.readings) {
            let points = starts.iter().filter_map(|start| of(reading, *start));
            let points = points.map(|point| (point.at_seconds, point.value)).collect();
            let series = Series { label: metric.metric.name.clone(), period_seconds, points };
            values.insert(metric.id.clone(), Value::Series(series));
        }
        let ids: Vec<String> = self.plan.metrics.iter().map(|metric| metric.id.clone()).collect();
        let window = store::metrics::Window {
            start_seconds: starts[0],
            end_seconds: starts[starts.len() - 1] + period_seconds,
            period_seconds,
        };
        math::evaluate(&self.plan.expressions, &ids, window, &mut values)
            .map_err(|(id, problem)| format!("{id}: {problem}"))?;
        let value = values.remove(&self.plan.returned).ok_or("nothing is returned")?;
        let mut shown = math::shown(value, window, &mut 0)?;
        let series = shown.pop().filter(|_| shown.is_empty()).ok_or("it is not one time series")?;
        let points: BTreeMap<i64, f64> = series.points.into_iter().collect();
        let point = |start: &i64| {
            points.get(start).map(|value| Point { at_seconds: *start, value: *value, samples: None })
        };
        Ok(starts.iter().map(point).collect())
    }
}

/// A period as it is judged. One in which the server was down is not missing, and what was measured in the rest of it says little.
fn slot(start_seconds: i64, period_seconds: i64, value: Option<f64>, blind: Blind) -> Slot {
    let (start_ms, end_ms) = (start_seconds * 1000, (start_seconds + period_seconds) * 1000);
    let blind_ms = blind.map_or(0, |(from, to)| (to.min(end_ms) - from.max(start_ms)).max(0));
    match value {
        Some(value) if blind_ms * 10 <= period_seconds * 1000 => Slot::Value(value),
        None if blind_ms == 0 => Slot::Missing,
        _ => Slot::Blind,
    }
}

fn body(alarm: &Resource, configurations: u64, number: u64) -> Body {
    let place = (&*alarm.key.account, &*alarm.key.region);
    let unreadable = |problem: String| {
        tracing::error!(alarm = alarm.arn, problem, "the settings of an alarm cannot be read");
        Body::Unreadable
    };
    if is_composite(alarm) {
        let seconds = |name: &str| alarm.spec[name].as_i64().unwrap_or_default();
        let suppressor = alarm.spec["ActionsSuppressor"].as_str();
        return match composite::rule(alarm) {
            Ok(rule) => Body::Composite(Box::new(Combined {
                rule,
                suppressor: suppressor.and_then(|name| name_of(name, place).ok()).map(str::to_owned),
                wait_seconds: seconds("ActionsSuppressorWaitPeriod"),
                extension_seconds: seconds("ActionsSuppressorExtensionPeriod"),
            })),
            Err(problem) => unreadable(problem),
        };
    }
    match Plan::stored(&alarm.key.name, &alarm.spec, place.0) {
        Ok(plan) => {
            let readings = plan.metrics.iter().map(|metric| Reading::new(metric, place)).collect();
            let spread = i64::try_from(number % 10).unwrap_or_default() * 1_000;
            let delay_ms =
                if plan.period_seconds < 60 { 0 } else { (DELAY_MS.start() + spread).min(*DELAY_MS.end()) };
            Body::Metric(Box::new(Watched { plan, configurations, readings, judged_to: None, delay_ms }))
        }
        Err(problem) => unreadable(problem),
    }
}

fn metric_key(wanted: &WantedMetric) -> MetricKey {
    let metric = &wanted.metric;
    (
        wanted.account.clone(),
        wanted.region.clone(),
        metric.namespace.clone(),
        metric.name.clone(),
        metric.dimensions.clone(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};
    use store::metrics::Sample;

    use super::*;

    const NOW_MS: i64 = 1_770_000_000_000;

    fn alarm(name: &str, spec: Json) -> Resource {
        let key = ResourceKey::new("123456789012", "us-east-1", ALARM, name);
        Resource {
            arn: super::super::arn(&key),
            key,
            status: "INSUFFICIENT_DATA".into(),
            spec,
            document: Record::new(true, NOW_MS).write(),
            generation: 1,
            created_at: NOW_MS,
            modified_at: NOW_MS,
        }
    }

    fn over(metric: &str, period_seconds: i64) -> Json {
        json!({
            "MetricName": metric, "Namespace": "Tests", "Statistic": "Maximum", "Period": period_seconds,
            "EvaluationPeriods": 1, "Threshold": 0.5, "ComparisonOperator": "GreaterThanThreshold",
        })
    }

    /// What the store would find in these seconds.
    fn found(read: &SeriesRead, values: &[(i64, f64)]) -> BTreeMap<i64, Aggregate> {
        let mut found = BTreeMap::new();
        for (at, value) in values.iter().filter(|(at, _)| read.window.contains(*at)) {
            let period = found.entry(read.window.period_of(*at));
            period.or_insert_with(|| Aggregate::empty(false)).add(&Sample::value(*at, *value));
        }
        found
    }

    #[test]
    fn thousands_of_alarms_are_read_only_where_samples_came() {
        let count = 5_000;
        let mut alarms = LoadedAlarms::default();
        for number in 0..count {
            alarms.put(&alarm(&format!("a{number}"), over(&format!("m{number}"), 10)));
        }
        let fresh = alarms.take_fresh();
        assert_eq!(fresh.len(), count);
        for (series, (place, _)) in (0..).zip(fresh) {
            alarms.found(place, vec![series]);
        }
        let mut reads = 0;
        let mut raised = 0;
        for second in 0..20 {
            let now_ms = NOW_MS + second * 1000;
            // Of one in a hundred alarms comes a sample of the second before.
            let news: News = (0..50).map(|series| (series * 100, now_ms / 1000 - 1)).collect();
            assert!(alarms.unknown(&news).is_empty());
            alarms.got(&news);
            let due = alarms.due(now_ms);
            // Each of them when a period ends, and in between those that got samples.
            assert_eq!(due.len(), if second % 10 == 0 { count } else { 50 }, "second {second}");
            let wanted = alarms.reads(&due, now_ms);
            reads += wanted.len();
            for (place, read) in wanted {
                alarms.keep(place, found(&read, &[(now_ms / 1000 - 1, 1.0)]));
            }
            raised += due.iter().filter(|number| alarms.judged(**number, now_ms, None).is_some()).count();
        }
        assert_eq!(reads, count + 19 * 50);
        assert!(raised >= 50 * 6, "{raised}");
    }

    #[test]
    fn series_that_come_later_are_found_by_their_metric() {
        let mut alarms = LoadedAlarms::default();
        alarms.put(&alarm("a", over("m", 10)));
        for (place, _) in alarms.take_fresh() {
            alarms.found(place, Vec::new());
        }
        let key =
            |name: &str| SeriesKey::new(("123456789012", "us-east-1"), "Tests", name, Vec::new(), "None");
        let news = News::from([(1, NOW_MS / 1000 - 5), (2, NOW_MS / 1000 - 5)]);
        let mut unknown = alarms.unknown(&news);
        unknown.sort_unstable();
        assert_eq!(unknown, [1, 2]);
        alarms.learn(unknown, vec![(1, key("m")), (2, key("other"))]);
        assert!(alarms.unknown(&news).is_empty());
        alarms.got(&news);
        let due = alarms.due(NOW_MS);
        let reads = alarms.reads(&due, NOW_MS);
        assert_eq!(reads.len(), 1);
        assert_eq!(reads[0].1.series, [1]);
        alarms.keep(reads[0].0, found(&reads[0].1, &[(NOW_MS / 1000 - 5, 1.0)]));
        let change = alarms.judged(due[0], NOW_MS, None).unwrap();
        assert_eq!(change.state, State::Alarm);
        // While the server was down nothing could be measured.
        let later = NOW_MS + 60_000;
        assert_eq!(alarms.judged(due[0], later, Some((NOW_MS, later))), None);
        alarms.remove(&ResourceKey::new("123456789012", "us-east-1", ALARM, "a"));
        assert!(alarms.is_empty() && alarms.by_series.is_empty() && alarms.by_metric.is_empty());
    }

    #[test]
    fn periods_in_which_the_server_was_down_say_nothing() {
        let down = Some((100_000, 130_000));
        assert_eq!(slot(0, 60, None, down), Slot::Missing);
        assert_eq!(slot(60, 60, None, down), Slot::Blind);
        assert_eq!(slot(60, 60, Some(1.0), down), Slot::Blind);
        assert_eq!(slot(120, 60, None, down), Slot::Blind);
        assert_eq!(slot(0, 3_600, Some(1.0), down), Slot::Value(1.0));
        assert_eq!(slot(60, 60, Some(1.0), None), Slot::Value(1.0));
    }
}
