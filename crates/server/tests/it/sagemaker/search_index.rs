//! A search that an index narrows finds what a search finds that looks at every row.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::experiments::metrics;
use crate::app::{TestApp, training_job};

const NAMES: &[&str] =
    &["lr", "a.b", "kind", "NumberValue", "lr.NumberValue", "loss", "Max", "loss.Max", "Value"];
const TEXTS: &[&str] = &["a", "0.1", "1", "2026-01-31T12:00:00Z", "", "true", "1e0", "inf"];
const NUMBERS: &[f64] = &[0.0, 0.1, 1.0, -1.0, 1_769_860_800.0];
/// What may come behind a name.
const ENDS: &[&str] = &[
    "",
    ".NumberValue",
    ".StringValue",
    ".Max",
    ".Min",
    ".Last",
    ".Avg",
    ".Count",
    ".StdDev",
    ".TimeStamp",
    ".x",
];
const OPERATORS: &[&str] = &[
    "Equals",
    "NotEquals",
    "GreaterThan",
    "GreaterThanOrEqualTo",
    "LessThan",
    "LessThanOrEqualTo",
    "Contains",
    "In",
    "Exists",
    "NotExists",
];

fn parameter() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(NUMBERS).prop_map(|number| json!({"NumberValue": number})),
        select(TEXTS).prop_map(|text| json!({"StringValue": text})),
    ]
}

fn parameters() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(select(NAMES), parameter(), 0..4).prop_map(|entries| json!(entries))
}

fn filter() -> impl Strategy<Value = Value> {
    let named = (select(&["Parameters.", "Metrics.", "HyperParameters."][..]), select(NAMES), select(ENDS));
    let name = prop_oneof![
        6 => named.prop_map(|(property, name, end)| format!("{property}{name}{end}")),
        1 => select(&["Tags.team", "Tags.Key", "Tags.Value", "Parameters.", "Metrics.", "Metrics.Last", "Parameters", "Tags."][..])
            .prop_map(str::to_owned),
    ];
    (name, select(OPERATORS), select(TEXTS)).prop_map(|(name, operator, value)| match operator {
        "Exists" | "NotExists" => json!({"Name": name, "Operator": operator}),
        // Nothing else can be compared.
        operator if operator.contains("Than") && ["a", "", "true"].contains(&value) => {
            json!({"Name": name, "Operator": operator, "Value": "0.1"})
        }
        // A filter must have a value.
        operator => {
            let value = if value.is_empty() { "none" } else { value };
            json!({"Name": name, "Operator": operator, "Value": value})
        }
    })
}

fn one<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).expect("these strategies reject nothing").current()
}

async fn found(app: &TestApp, resource: &str, expression: &Value) -> Vec<Value> {
    let member = if resource == "TrainingJob" { "TrainingJob" } else { "TrialComponent" };
    let input = json!({"Resource": resource, "SearchExpression": expression});
    let answer = app.ok("SageMaker.Search", input).await;
    let rows = answer["Results"].as_array().unwrap().iter();
    rows.map(|row| row[member][format!("{member}Name")].clone()).collect()
}

#[tokio::test]
async fn what_an_index_narrows_is_what_a_look_at_every_row_finds() {
    let app = TestApp::new().await;
    let mut runner = TestRunner::deterministic();
    for number in 0..40 {
        let name = format!("run-{number}");
        let tags = match number % 4 {
            0 => json!([{"Key": "team", "Value": "a"}]),
            1 => json!([{"Key": "Key", "Value": "a"}, {"Key": "Value", "Value": "1"}]),
            _ => json!([]),
        };
        let component =
            json!({"TrialComponentName": name, "Parameters": one(&parameters(), &mut runner), "Tags": tags});
        app.ok("SageMaker.CreateTrialComponent", component).await;
        let series = proptest::collection::vec((select(NAMES), select(NUMBERS)), 1..4);
        let points = one(&series, &mut runner)
            .into_iter()
            .map(|(name, value)| json!({"MetricName": name, "Timestamp": 1_770_000_000, "Value": value}));
        let points: Vec<Value> = points.collect();
        if number % 3 != 0 {
            let put = json!({"TrialComponentName": name, "MetricData": points});
            let answer = metrics(&app, "BatchPutMetrics", put).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    for number in 0..12 {
        let name = format!("run-{number}");
        if number % 4 == 0 {
            app.ok("SageMaker.DeleteTrialComponent", json!({"TrialComponentName": name})).await;
        } else {
            let update = json!({
                "TrialComponentName": name, "Parameters": one(&parameters(), &mut runner), "ParametersToRemove": [NAMES[number % 5]],
            });
            app.ok("SageMaker.UpdateTrialComponent", update).await;
        }
    }
    let texts = proptest::collection::btree_map(select(NAMES), select(&["a", "0.1", "1", "1e0"][..]), 0..3);
    for number in 0..8 {
        let mut job = training_job(&format!("job-{number}"));
        job["HyperParameters"] = json!(one(&texts, &mut runner));
        app.ok("SageMaker.CreateTrainingJob", job).await;
    }
    let mut sizes = std::collections::BTreeSet::new();
    for _ in 0..120 {
        let filter = one(&filter(), &mut runner);
        for resource in ["ExperimentTrialComponent", "TrainingJob"] {
            let narrowed = found(&app, resource, &json!({"Filters": [filter]})).await;
            // What is joined by Or is not narrowed.
            let scanned =
                found(&app, resource, &json!({"Operator": "Or", "Filters": [filter, filter]})).await;
            assert_eq!(narrowed, scanned, "{resource} {filter}");
            sizes.insert(narrowed.len());
        }
    }
    assert!(sizes.len() > 5, "the filters tell rows apart: {sizes:?}");
}
