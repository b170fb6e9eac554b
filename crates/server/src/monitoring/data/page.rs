//! Pages of datapoints over all results.

use api::Timestamp;
use api::cloudwatch::{MetricDataResult, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::super::math::Points;
use super::super::refusal::{Refusal, Result};

/// Most datapoints of a page.
const MOST_DATAPOINTS: i32 = 100_800;

/// A result, whole and in the order of the answer.
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) label: String,
    pub(super) points: Points,
}

/// Which part of all datapoints, in the order of the results, an answer has.
pub(super) struct Page {
    first: usize,
    most: usize,
    fingerprint: u64,
}

impl Page {
    /// The page that a request asks for. A token fits only the request that it came from.
    pub(super) fn of(input: &Value, token: Option<&str>, most: Option<i32>) -> Result<Page> {
        let most = most.unwrap_or(MOST_DATAPOINTS);
        if !(1..=MOST_DATAPOINTS).contains(&most) {
            return Err(Refusal::Validation(format!(
                "The value {most} for parameter MaxDatapoints is invalid; it must be from 1 to {MOST_DATAPOINTS}."
            )));
        }
        let fingerprint = fingerprint(input);
        let first = token.map_or(Ok(0), |token| decode(token, fingerprint))?;
        Ok(Page { first, most: usize::try_from(most).unwrap_or_default(), fingerprint })
    }

    /// The results of this page, and the token of the next one. Results without datapoints are on the first page.
    pub(super) fn cut(&self, all: Vec<Shown>) -> (Vec<MetricDataResult>, Option<String>) {
        let last = self.first.saturating_add(self.most);
        let total: usize = all.iter().map(|shown| shown.points.len()).sum();
        let mut results = Vec::new();
        let mut start = 0;
        for shown in all {
            let end = start + shown.points.len();
            let (from, to) = (self.first.clamp(start, end) - start, last.clamp(start, end) - start);
            let on_first_page = shown.points.is_empty() && self.first == 0;
            if to > from || on_first_page {
                let points = &shown.points[from..to];
                let complete = to == shown.points.len();
                results.push(MetricDataResult {
                    id: Some(shown.id),
                    label: Some(shown.label),
                    timestamps: Some(
                        points.iter().map(|(at, _)| Timestamp::from_millis(at * 1000)).collect(),
                    ),
                    values: Some(points.iter().map(|(_, value)| *value).collect()),
                    status_code: Some(if complete { StatusCode::Complete } else { StatusCode::PartialData }),
                    messages: None,
                });
            }
            start = end;
        }
        (results, (last < total).then(|| encode(last, self.fingerprint)))
    }
}

/// FNV-1a of the request without what may differ from page to page.
fn fingerprint(input: &Value) -> u64 {
    let mut input = input.clone();
    if let Some(members) = input.as_object_mut() {
        members.remove("NextToken");
        members.remove("MaxDatapoints");
    }
    input
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn encode(first: usize, fingerprint: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{first}.{fingerprint:x}"))
}

fn decode(token: &str, fingerprint: u64) -> Result<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::Token)?;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Token)?;
    let (first, of) = text.split_once('.').ok_or(Refusal::Token)?;
    if of != format!("{fingerprint:x}") {
        return Err(Refusal::Token);
    }
    first.parse().map_err(|_| Refusal::Token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown() -> Vec<Shown> {
        let one = |id: &str, count: i64| Shown {
            id: id.into(),
            label: id.into(),
            points: (0..count).map(|at| (at, at as f64)).collect(),
        };
        vec![one("a", 3), one("b", 0), one("c", 2)]
    }

    #[test]
    fn pages_go_through_all_results_and_end() {
        let mut input = json!({"MetricDataQueries": []});
        let mut seen = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = Page::of(&input, token.as_deref(), Some(2)).unwrap();
            let (results, next) = page.cut(shown());
            for result in results {
                seen.push((result.id.unwrap(), result.values.unwrap(), result.status_code.unwrap()));
            }
            let Some(next) = next else { break };
            input["NextToken"] = next.clone().into();
            token = Some(next);
        }
        let complete = || StatusCode::Complete;
        assert_eq!(
            seen,
            [
                ("a".into(), vec![0.0, 1.0], StatusCode::PartialData),
                ("b".into(), vec![], complete()),
                ("a".into(), vec![2.0], complete()),
                ("c".into(), vec![0.0], StatusCode::PartialData),
                ("c".into(), vec![1.0], complete()),
            ]
        );
    }

    #[test]
    fn tokens_belong_to_their_request() {
        let input = json!({"StartTime": 1});
        let (_, token) = Page::of(&input, None, Some(1)).unwrap().cut(shown());
        assert!(Page::of(&json!({"StartTime": 2}), token.as_deref(), None).is_err());
        assert!(Page::of(&input, Some("x"), None).is_err());
        assert!(Page::of(&input, None, Some(0)).is_err());
        assert!(Page::of(&input, None, Some(100_801)).is_err());
    }
}
