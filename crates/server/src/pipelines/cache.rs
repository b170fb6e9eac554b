//! Reuse of results: what a step's result depends on, and why an earlier one is taken or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::pipelines::PipelineResult;

use super::definition::{Cache, StepKind};

/// Most differences that a receipt tells.
const MOST_REASONS: usize = 20;

/// Why an earlier result was reused or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whether one was.
    pub hit: bool,
    /// The execution that was compared with.
    pub source: Option<String>,
    /// One sentence for each thing that speaks for the decision.
    pub reasons: Vec<String>,
}

/// What a result depends on: a value for each path into the arguments, and a state for each object that they name.
pub type Facts = BTreeMap<String, Value>;

/// Members of the arguments that a result depends on; `None` for types whose results are never reused.
pub fn attributes(kind: StepKind) -> Option<&'static [&'static str]> {
    Some(match kind {
        StepKind::Processing => {
            &["AppSpecification", "Environment", "ProcessingInputs", "ProcessingResources"]
        }
        StepKind::Training | StepKind::NotebookJob => &[
            "AlgorithmSpecification",
            "CheckpointConfig",
            "DebugHookConfig",
            "DebugRuleConfigurations",
            "Environment",
            "HyperParameters",
            "InputDataConfig",
        ],
        StepKind::Tuning => &[
            "HyperParameterTuningJobConfig",
            "TrainingJobDefinition",
            "TrainingJobDefinitions",
            "WarmStartConfig",
        ],
        StepKind::Transform => &[
            "BatchStrategy",
            "DataProcessing",
            "Environment",
            "MaxPayloadInMB",
            "ModelName",
            "TransformInput",
        ],
        StepKind::AutoMl => &["AutoMLJobConfig", "AutoMLJobObjective", "InputDataConfig", "ProblemType"],
        StepKind::QualityCheck | StepKind::ClarifyCheck => {
            &["AppSpecification", "Environment", "ProcessingInputs", "ProcessingResources"]
        }
        StepKind::Emr => &["ClusterId", "ClusterConfig", "StepConfig"],
        StepKind::EmrServerless => {
            &["ApplicationId", "ApplicationConfig", "ExecutionRoleArn", "JobConfig", "JobDriver"]
        }
        _ => return None,
    })
}

/// The facts that stand in the arguments themselves.
pub fn facts(kind: StepKind, arguments: &Value) -> Option<Facts> {
    let mut facts = Facts::new();
    for name in attributes(kind)? {
        if let Some(value) = arguments.get(*name) {
            flatten(value, name, &mut facts);
        }
    }
    Some(facts)
}

fn flatten(value: &Value, path: &str, facts: &mut Facts) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(value, &format!("{path}.{name}"), facts));
        }
        Value::Array(elements) => {
            let elements = elements.iter().enumerate();
            elements.for_each(|(at, value)| flatten(value, &format!("{path}[{at}]"), facts));
        }
        scalar => drop(facts.insert(path.to_owned(), scalar.clone())),
    }
}

/// Digest of facts.
pub fn fingerprint(facts: &Facts) -> String {
    let text = serde_json::to_string(facts).expect("plain values always serialize");
    hex::encode(Sha256::digest(text))
}

/// Judges the newest result of the step and the newest with the same fingerprint.
pub fn judge(
    cache: &Cache,
    facts: &Facts,
    newest: Option<&PipelineResult>,
    same: Option<&PipelineResult>,
    now_ms: i64,
) -> Receipt {
    let Some(newest) = newest else {
        let reasons = vec!["No execution of this pipeline has a result of this step.".to_owned()];
        return Receipt { hit: false, source: None, reasons };
    };
    let Some(same) = same else {
        let source = Some(newest.execution.clone());
        return Receipt { hit: false, source, reasons: differences(&newest.facts, facts) };
    };
    let source = Some(same.execution.clone());
    let age_ms = now_ms - same.ended_at;
    if let Some(period) = cache.expires_after.filter(|period| age_ms >= period.milliseconds) {
        let reasons = vec![format!(
            "The result of execution {} is {} seconds old, and CacheConfig.ExpireAfter allows {}.",
            same.execution,
            age_ms / 1_000,
            period.milliseconds / 1_000
        )];
        return Receipt { hit: false, source, reasons };
    }
    let reasons = vec![format!(
        "All {} fields and objects are as they were in execution {}.",
        facts.len(),
        same.execution
    )];
    Receipt { hit: true, source, reasons }
}

/// What changed, field by field.
fn differences(before: &Value, now: &Facts) -> Vec<String> {
    let nothing = serde_json::Map::new();
    let before = before.as_object().unwrap_or(&nothing);
    let mut reasons = Vec::new();
    for (path, value) in now {
        match before.get(path) {
            Some(old) if old == value => {}
            Some(old) => reasons.push(format!("{path} changed from {} to {}.", short(old), short(value))),
            None => reasons.push(format!("{path} is new: {}.", short(value))),
        }
    }
    for (path, old) in before.iter().filter(|(path, _)| !now.contains_key(*path)) {
        reasons.push(format!("{path} is gone; it was {}.", short(old)));
    }
    if reasons.len() > MOST_REASONS {
        let more = reasons.len() - MOST_REASONS;
        reasons.truncate(MOST_REASONS);
        reasons.push(format!("And {more} more."));
    }
    reasons
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Paths and URIs of the S3 locations among the facts that are inputs.
pub fn input_locations(facts: &Facts) -> Vec<(String, String)> {
    let inputs = facts.iter().filter_map(|(path, value)| {
        let uri = value.as_str().filter(|text| text.starts_with("s3://"))?;
        let is_input = ["S3Input.S3Uri", "S3DataSource.S3Uri"].iter().any(|end| path.ends_with(end));
        is_input.then(|| (path.clone(), uri.to_owned()))
    });
    inputs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::duration::Period;
    use serde_json::json;

    fn result(facts: &Facts, ended_at: i64) -> PipelineResult {
        PipelineResult {
            execution: "earlier".into(),
            fingerprint: fingerprint(facts),
            facts: json!(facts),
            ended_at,
        }
    }

    #[test]
    fn a_miss_says_field_by_field_what_changed() {
        let arguments = json!({"HyperParameters": {"lr": "0.1"}, "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": "s3://b/a"}}}],
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"}, "Environment": {"OLD": "1"}});
        let before = facts(StepKind::Training, &arguments).unwrap();
        let mut changed = arguments.clone();
        changed["HyperParameters"] = json!({"lr": "0.2", "epochs": "3"});
        changed["Environment"] = json!({});
        changed["OutputDataConfig"] = json!({"S3OutputPath": "s3://b/elsewhere"});
        let now = facts(StepKind::Training, &changed).unwrap();
        let cache = Cache { expires_after: None };
        let receipt = judge(&cache, &now, Some(&result(&before, 0)), None, 5);
        assert!(!receipt.hit);
        assert_eq!(
            receipt.reasons,
            [
                "HyperParameters.epochs is new: \"3\".",
                "HyperParameters.lr changed from \"0.1\" to \"0.2\".",
                "Environment.OLD is gone; it was \"1\"."
            ]
        );
        assert_eq!(
            input_locations(&now),
            [("InputDataConfig[0].DataSource.S3DataSource.S3Uri".to_owned(), "s3://b/a".to_owned())]
        );
    }

    #[test]
    fn a_hit_ends_with_its_time() {
        let facts = Facts::from([("a".to_owned(), json!(1))]);
        let earlier = result(&facts, 1_000);
        let cache = Cache { expires_after: Period::parse("PT1S") };
        assert!(judge(&cache, &facts, Some(&earlier), Some(&earlier), 1_999).hit);
        let late = judge(&cache, &facts, Some(&earlier), Some(&earlier), 2_000);
        assert!(!late.hit && late.reasons[0].contains("ExpireAfter"), "{late:?}");
        assert!(!judge(&cache, &facts, None, None, 0).hit);
        assert!(super::facts(StepKind::Lambda, &json!({})).is_none());
    }
}
