//! Whole models: what the real libraries say of them, and what is left of them when bytes change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

use super::*;

/// A model, and what its library predicted.
#[derive(Deserialize)]
struct Case {
    model: String,
    rows: Vec<Vec<Option<f64>>>,
    predictions: serde_json::Value,
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(models().join("cases.json")).unwrap()).unwrap()
}

fn load(name: &str) -> Result<NativeModel, Refusal> {
    NativeModel::load(&models().join(name), AnswerSettings::default())
}

/// Rows as CSV; what is missing is an empty cell.
fn csv(rows: &[Vec<Option<f64>>]) -> String {
    let cell = |cell: &Option<f64>| cell.map(|number| number.to_string()).unwrap_or_default();
    let line = |row: &Vec<Option<f64>>| row.iter().map(cell).collect::<Vec<_>>().join(",");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn ask(model: NativeModel, content_type: &str, body: impl Into<Bytes>, accept: &str) -> (u16, String) {
    let request = InvokeRequest {
        content_type: Some(content_type.into()),
        accept: Some(accept.into()),
        body: body.into(),
        ..InvokeRequest::default()
    };
    let (header, body) = Arc::new(model).answer(&request).await;
    (header.status, String::from_utf8(body.to_vec()).unwrap())
}

/// The numbers of an answer in JSON, row by row.
fn scores(body: &str) -> Vec<f64> {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    let rows = answer["predictions"].as_array().unwrap();
    rows.iter().flat_map(|row| numbers(&row["score"])).collect()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(numbers).collect(),
        None => vec![value.as_f64().unwrap()],
    }
}

#[tokio::test]
async fn predictions_are_those_of_the_libraries() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = &case.model;
        let model = load(name).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        // A few units of the last place of the precision in which the library computes.
        let tolerance = if matches!(model.booster, Booster::Xgboost(_)) { 4e-7 } else { 1e-13 };
        let (status, body) = ask(model, "text/csv", csv(&case.rows), "application/json").await;
        assert_eq!(status, 200, "{name}: {body}");
        let (ours, theirs) = (scores(&body), numbers(&case.predictions));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let pairs = ours.iter().zip(&theirs).enumerate();
        let off: Vec<_> = pairs
            .filter(|(_, (ours, theirs))| (*ours - *theirs).abs() > tolerance * theirs.abs().max(1e-3))
            .collect();
        if let Some(first) = off.first() {
            wrong.push(format!("{name}: {} of {}, first {first:?}", off.len(), ours.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn all_media_types_lead_to_the_same_answer() {
    let case = cases().into_iter().find(|case| case.model == "logistic.ubj").unwrap();
    let rows = &case.rows[..5];
    let expected = ask(load(&case.model).unwrap(), "text/csv", csv(rows), "*/*").await;
    assert_eq!(expected.1.split(',').count(), 5);
    let json = serde_json::to_string(rows).unwrap();
    assert_eq!(
        ask(load(&case.model).unwrap(), "application/json; charset=utf-8", json, "text/csv").await,
        expected
    );
    let items = |row: &Vec<Option<f64>>| {
        let items =
            row.iter().enumerate().filter_map(|(at, cell)| cell.map(|number| format!("{at}:{number}")));
        items.collect::<Vec<_>>().join(" ")
    };
    let libsvm = rows.iter().map(|row| format!("1 {}", items(row))).collect::<Vec<_>>().join("\n");
    assert_eq!(ask(load(&case.model).unwrap(), "text/x-libsvm", libsvm, "text/csv").await, expected);
}

#[tokio::test]
async fn long_bodies_are_answered_as_short_ones_are() {
    let case = cases().into_iter().find(|case| case.model == "softprob.ubj").unwrap();
    let body = csv(&case.rows);
    let (_, once) = ask(load(&case.model).unwrap(), "text/csv", body.clone(), "text/csv").await;
    let many = vec![body; 100].join("\n");
    let model = load(&case.model).unwrap();
    assert!(model.steps(many.as_bytes()) > INLINE_STEPS);
    let (status, answer) = ask(model, "text/csv", many, "text/csv").await;
    assert!(status == 200 && answer == vec![once; 100].join(","));
}

#[tokio::test]
async fn wrong_requests_are_answered_in_the_words_of_the_container() {
    let wrong = [
        ("text/csv", "1,2,3,4,5,6,7", 400, "Unable to evaluate payload provided"),
        ("text/csv", "1,2,3,4,5,a", 415, "Loading csv data failed"),
        ("image/png", "1", 415, "Content-type image/png is not supported"),
        ("text/csv", "", 204, ""),
    ];
    for (content_type, body, status, says) in wrong {
        let answered = ask(load("regression.json").unwrap(), content_type, body, "text/csv").await;
        assert!(answered.0 == status && answered.1.starts_with(says), "{answered:?}");
    }
    assert_eq!(ask(load("regression.json").unwrap(), "text/csv", "1", "image/png").await.0, 406);
    assert_eq!(ask(load("regression.txt").unwrap(), "text/csv", "1", "text/csv").await.0, 400);
}

#[test]
fn what_is_not_computed_is_refused_with_the_reason() {
    for (name, says) in [
        ("refused-vector-leaves.json", "multi_output_tree"),
        ("refused-cox.ubj", "survival:cox"),
        ("refused-linear-classes.ubj", "several base scores"),
        ("refused-linear-leaves.txt", "linear_tree"),
        ("generate.py", "no format"),
        ("absent", "cannot be read"),
    ] {
        let refusal = load(name).unwrap_err().to_string();
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
    for (bytes, says) in [
        (&b"\x80\x04\x95"[..], "pickle"),
        (b"", "empty"),
        (b"binf\x00", "old binary format"),
        (b"{\"learner\": 1}", "damaged"),
        (b"{L\x00", "damaged"),
        (b"tree\nversion=v4\n", "not whole"),
    ] {
        let refusal = NativeModel::read(bytes, AnswerSettings::default()).unwrap_err().to_string();
        assert!(refusal.contains(says), "{bytes:?}: {refusal}");
    }
}

/// Files that lie: each must be refused, or answered; nothing may panic, hang or grow without bound.
#[test]
fn damaged_models_do_no_harm() {
    let mut random = SmallRng::seed_from_u64(11);
    let row = b"0.5,1,-1,,2,39\n0:1 5:2";
    let (mut refused, mut answered) = (0, 0);
    for case in cases() {
        let whole = std::fs::read(models().join(&case.model)).unwrap();
        for attempt in 0..40 {
            let mut bytes = whole.clone();
            if attempt % 8 == 0 {
                bytes.truncate(random.random_range(0..bytes.len()));
            }
            for _ in 0..random.random_range(0..4) {
                let Some(last) = bytes.len().checked_sub(1) else { break };
                let at = random.random_range(0..=last);
                match random.random_range(0..3) {
                    0 => bytes[at] = random.random(),
                    1 => bytes[at] = b"0123456789-.,[]{}= "[random.random_range(0..19)],
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            match NativeModel::read(&bytes, AnswerSettings::default()) {
                Err(_) => refused += 1,
                Ok(model) => {
                    for media_type in ["text/csv", "text/libsvm"] {
                        let asked = Asked {
                            media_type: media_type.into(),
                            accept: None,
                            body: Bytes::from_static(row),
                        };
                        let _ = model.compute(&asked, &AtomicBool::new(false));
                    }
                    answered += 1;
                }
            }
        }
    }
    assert!(refused > 100 && answered > 100, "{refused} refused, {answered} answered");
}
