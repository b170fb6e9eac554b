//! Expressions and what comes of them.

use super::*;

const WINDOW: Window = Window { start_seconds: 0, end_seconds: 240, period_seconds: 60 };

fn metric(label: &str, points: &[(i64, f64)]) -> Value {
    Value::Series(Series { label: label.into(), period_seconds: 60, points: points.to_vec() })
}

/// The value of `text` beside `m1` (1, 2, 3, 4), `m2` (10 and 30, with a gap at 60 and at 180) and `m3`, which is empty.
fn value(text: &str) -> Result<Value, String> {
    let mut values = BTreeMap::from([
        ("m1".to_owned(), metric("one", &[(0, 1.0), (60, 2.0), (120, 3.0), (180, 4.0)])),
        ("m2".to_owned(), metric("two", &[(0, 10.0), (120, 30.0)])),
        ("m3".to_owned(), metric("three", &[])),
    ]);
    let metrics = ["m1", "m2", "m3"].map(String::from);
    let expression = Expression::parse(text)?;
    evaluate(&[("e1".into(), expression)], &metrics, WINDOW, &mut values).map_err(|(_, text)| text)?;
    Ok(values.remove("e1").unwrap())
}

fn points(text: &str) -> Points {
    match value(text) {
        Ok(Value::Series(series)) => series.points,
        other => panic!("{text}: {other:?}"),
    }
}

fn number(text: &str) -> f64 {
    match value(text) {
        Ok(Value::Scalar(number)) => number,
        other => panic!("{text}: {other:?}"),
    }
}

fn labels(text: &str) -> Vec<String> {
    match value(text) {
        Ok(Value::Array(array)) => array.into_iter().map(|series| series.label).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn series_meet_where_both_have_a_value() {
    assert_eq!(points("m1 * 2 + 1"), [(0, 3.0), (60, 5.0), (120, 7.0), (180, 9.0)]);
    assert_eq!(points("m2 - m1"), [(0, 9.0), (120, 27.0)]);
    assert_eq!(points("2 ^ m1"), [(0, 2.0), (60, 4.0), (120, 8.0), (180, 16.0)]);
    assert_eq!(points("-m2"), [(0, -10.0), (120, -30.0)]);
    // A division by nothing has no value.
    assert_eq!(points("1 / (m1 - 2)"), [(0, -1.0), (120, 1.0), (180, 0.5)]);
    assert_eq!(points("m1 + m3"), []);
}

#[test]
fn comparisons_and_logic_give_ones_and_zeros() {
    assert_eq!(points("m1 >= 3"), [(0, 0.0), (60, 0.0), (120, 1.0), (180, 1.0)]);
    assert_eq!(points("m1 > 1 AND m1 < 4"), [(0, 0.0), (60, 1.0), (120, 1.0), (180, 0.0)]);
    assert_eq!(points("m1 == 1 || m1 != 1"), [(0, 1.0), (60, 1.0), (120, 1.0), (180, 1.0)]);
}

#[test]
fn a_series_is_summed_up_to_a_number() {
    for (text, expected) in [
        ("AVG(m1)", 2.5),
        ("SUM(m1)", 10.0),
        ("MIN(m1)", 1.0),
        ("MAX(m1)", 4.0),
        ("STDDEV(m1)", 1.25f64.sqrt()),
        ("DATAPOINT_COUNT(m2)", 2.0),
        ("PERIOD(m2)", 60.0),
        ("METRIC_COUNT(METRICS())", 3.0),
        ("ABS(-3)", 3.0),
        ("MAX(m1) - MIN(m1)", 3.0),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
    assert!(number("AVG(m3)").is_nan());
}

#[test]
fn an_array_is_summed_up_to_a_series() {
    assert_eq!(points("SUM([m1, m2])"), [(0, 11.0), (60, 2.0), (120, 33.0), (180, 4.0)]);
    assert_eq!(points("SUM(METRICS())"), points("SUM([m1,m2,m3])"));
    assert_eq!(points("MAX(METRICS('2'))"), [(0, 10.0), (120, 30.0)]);
    assert_eq!(points("AVG([m1, 3])")[0], (0, 2.0));
}

#[test]
fn values_are_changed_one_by_one() {
    assert_eq!(points("CEIL(m1 / 2)"), [(0, 1.0), (60, 1.0), (120, 2.0), (180, 2.0)]);
    assert_eq!(points("FLOOR(m1 / 2)"), [(0, 0.0), (60, 1.0), (120, 1.0), (180, 2.0)]);
    assert_eq!(points("LOG10(m2)")[0], (0, 1.0));
    assert_eq!(points("LOG(m1)")[0], (0, 0.0));
    assert_eq!(points("DIFF(m1)"), [(60, 1.0), (120, 1.0), (180, 1.0)]);
    assert_eq!(points("DIFF_TIME(m2)"), [(120, 120.0)]);
    assert_eq!(points("RATE(m2) * 60"), [(120, 10.0)]);
    assert_eq!(points("RUNNING_SUM(m1)"), [(0, 1.0), (60, 3.0), (120, 6.0), (180, 10.0)]);
    assert_eq!(points("FILL(m2, 0)"), [(0, 10.0), (60, 0.0), (120, 30.0), (180, 0.0)]);
    assert_eq!(points("FILL(m2, LINEAR)"), [(0, 10.0), (60, 20.0), (120, 30.0)]);
    assert_eq!(points("FILL(m2, repeat)"), [(0, 10.0), (60, 10.0), (120, 30.0), (180, 30.0)]);
    assert_eq!(points("FILL(m2, m1)"), [(0, 10.0), (60, 2.0), (120, 30.0), (180, 4.0)]);
}

#[test]
fn conditions_choose_moment_by_moment() {
    assert_eq!(points("IF(m1 > 2, m1, 0)"), [(0, 0.0), (60, 0.0), (120, 3.0), (180, 4.0)]);
    assert_eq!(points("IF(m1 > 2, m1)"), [(120, 3.0), (180, 4.0)]);
    assert_eq!(points("IF(m1 > 0, m2, m1)"), [(0, 10.0), (120, 30.0)]);
    assert_eq!(number("IF(1, 5, 6)"), 5.0);
    assert_eq!(points("IF(0, m1)"), []);
}

#[test]
fn moments_have_a_calendar() {
    assert_eq!(points("MINUTE(m2)"), [(0, 0.0), (120, 2.0)]);
    assert_eq!(points("EPOCH(m2)"), [(0, 0.0), (120, 120.0)]);
    // 1 January 1970 was a Thursday.
    for (name, expected) in [("HOUR", 0.0), ("DAY", 4.0), ("DATE", 1.0), ("MONTH", 1.0), ("YEAR", 1970.0)] {
        assert_eq!(points(&format!("{name}(m2)"))[0], (0, expected), "{name}");
    }
}

#[test]
fn arrays_are_sorted_sliced_and_thinned() {
    assert_eq!(labels("METRICS()"), ["one", "two", "three"]);
    assert_eq!(labels("REMOVE_EMPTY(METRICS())"), ["one", "two"]);
    assert_eq!(labels("SORT(METRICS(), AVG, DESC)"), ["two", "one", "three"]);
    assert_eq!(labels("SORT(METRICS(), max, asc, 1)"), ["one"]);
    assert_eq!(labels("SLICE(METRICS(), 1, 3)"), ["two", "three"]);
    assert_eq!(points("SLICE(METRICS(), 1)"), points("m2"));
    assert_eq!(points("FIRST(METRICS())"), points("m1"));
    assert_eq!(points("LAST([m1, m2])"), points("m2"));
    assert_eq!(labels("METRICS() * 2"), ["one", "two", "three"]);
    assert_eq!(points("SUM(m1 - METRICS('m2'))"), [(0, -9.0), (120, -27.0)]);
}

#[test]
fn a_number_becomes_a_series_of_the_window() {
    assert_eq!(points("TIME_SERIES(7)"), [(0, 7.0), (60, 7.0), (120, 7.0), (180, 7.0)]);
    let mut points = 0;
    assert_eq!(shown(Value::Scalar(1.0), WINDOW, &mut points).unwrap()[0].points.len(), 4);
    assert_eq!(shown(Value::Scalar(f64::NAN), WINDOW, &mut points).unwrap()[0].points.len(), 0);
    assert_eq!(points, 8);
}

#[test]
fn expressions_cannot_ask_for_more_points_than_fit() {
    let window = Window { start_seconds: 0, end_seconds: 1_000_000, period_seconds: 1 };
    let many = |what: &str| vec![what; 200].join(",");
    for text in [
        format!("[{}]", many("1")),
        format!("FILL([{}], 0)", many("m3")),
        format!("SUM([{}])", many("TIME_SERIES(1)")),
    ] {
        let empty = Series { label: String::new(), period_seconds: 1, points: Vec::new() };
        let mut values = BTreeMap::from([("m3".to_owned(), Value::Series(empty))]);
        let expressions = [("e1".to_owned(), Expression::parse(&text).unwrap())];
        let (_, problem) = evaluate(&expressions, &[], window, &mut values).unwrap_err();
        assert!(problem.contains("too many data points"), "{problem}");
    }
    let mut points = 0;
    let shown: Vec<_> = (0..9).map(|_| shown(Value::Scalar(1.0), window, &mut points).is_ok()).collect();
    assert_eq!(shown, [true, true, true, true, true, false, false, false, false]);
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    for (text, problem) in [
        ("m9", "there is no query with the Id m9"),
        ("NOSUCH(m1)", "there is no function NOSUCH"),
        ("SEARCH('{A}', 'Sum')", "does not have the function SEARCH"),
        ("SUM(m1, m2)", "SUM takes one argument, not 2"),
        ("SUM(1)", "SUM takes a time series"),
        ("PERIOD(METRICS())", "PERIOD takes a time series, not an array"),
        ("METRICS() + METRICS()", "at most one array"),
        ("SORT(METRICS(), AVG)", "SORT takes"),
        ("SORT(METRICS(), STDDEV, ASC)", "SORT takes"),
        ("SLICE(METRICS(), -1)", "an index is"),
        ("SLICE(METRICS(), 9)", "beyond the array"),
        ("FILL(m1)", "FILL takes two"),
        ("IF(m1)", "IF takes two or three"),
        ("FIRST([])", "empty array"),
        ("'text'", "no value here"),
        ("e1 + 1", "depends on itself"),
    ] {
        let error = value(text).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn expressions_wait_for_those_that_they_name() {
    let mut values = BTreeMap::from([("m1".to_owned(), metric("one", &[(0, 2.0)]))]);
    let expression = |id: &str, text: &str| (id.to_owned(), Expression::parse(text).unwrap());
    let expressions = [expression("a", "b + 1"), expression("b", "c * 10"), expression("c", "m1 + 1")];
    evaluate(&expressions, &["m1".into()], WINDOW, &mut values).unwrap();
    assert_eq!(values["a"], metric("one", &[(0, 31.0)]));
    let circle = [expression("x", "y"), expression("y", "x")];
    assert_eq!(evaluate(&circle, &[], WINDOW, &mut values).unwrap_err().0, "x");
}
