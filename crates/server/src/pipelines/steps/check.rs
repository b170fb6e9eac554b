//! QualityCheck and ClarifyCheck steps: a processing job, whose report of violations is judged.

use serde_json::{Value, json};

use super::{Ended, Run, job};
use crate::pipelines::definition::StepKind;
use crate::pipelines::files;

/// What the listing shows, from the first moment on.
pub fn metadata(run: &Run, arn: &str) -> Value {
    let folder = output(&run.arguments);
    let at = |file: &str| folder.as_deref().map(|folder| format!("{folder}/{file}"));
    let supplied = |name: &str| run.setting(name).cloned();
    let constraints = at("constraints.json");
    let mut shown = json!({
        "CheckType": run.setting("CheckType"),
        "ModelPackageGroupName": run.setting("ModelPackageGroupName"),
        "CheckJobArn": arn,
        "SkipCheck": is_set(run, "SkipCheck"),
        "RegisterNewBaseline": is_set(run, "RegisterNewBaseline"),
        "ViolationReport": at("constraint_violations.json"),
        "CalculatedBaselineConstraints": constraints,
        "BaselineUsedForDriftCheckConstraints":
            supplied("SuppliedBaselineConstraints").or_else(|| constraints.clone().map(Value::from)),
    });
    let member = if run.step().kind == StepKind::QualityCheck {
        let statistics = at("statistics.json");
        shown["BaselineUsedForDriftCheckStatistics"] =
            json!(supplied("SuppliedBaselineStatistics").or_else(|| statistics.clone().map(Value::from)));
        shown["CalculatedBaselineStatistics"] = json!(statistics);
        "QualityCheck"
    } else {
        "ClarifyCheck"
    };
    json!({member: shown})
}

fn is_set(run: &Run, name: &str) -> bool {
    run.setting(name) == Some(&Value::Bool(true))
}

/// Location of the job's first output.
fn output(arguments: &Value) -> Option<String> {
    let uri = arguments["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"].as_str()?;
    Some(uri.trim_end_matches('/').to_owned())
}

/// Waits for the job, then judges its report.
pub async fn wait(run: &Run) -> Ended {
    match job::wait(run).await {
        Ended::Succeeded { metadata, properties } => judge(run, metadata, properties).await,
        other => other,
    }
}

async fn judge(run: &Run, metadata: Value, described: Value) -> Ended {
    let member = if run.step().kind == StepKind::QualityCheck { "QualityCheck" } else { "ClarifyCheck" };
    let mut properties = described;
    if let (Value::Object(properties), Some(Value::Object(shown))) =
        (&mut properties, run.metadata.get(member))
    {
        properties.extend(shown.clone());
    }
    let report = run.metadata[member]["ViolationReport"].as_str().unwrap_or_default();
    let account = &run.execution.key.account;
    let judged = !is_set(run, "SkipCheck") && is_set(run, "FailOnViolation");
    if judged && files::exists(&run.app, account, report).await {
        let violations = match files::read_json(&run.app, account, report).await {
            Ok((report, _)) => report["violations"].as_array().map_or(0, Vec::len),
            Err(problem) => return super::failed(problem).into(),
        };
        if violations > 0 {
            let reason = format!("The check found {violations} violations; {report} has them.");
            return Ended::Failed { reason, exception: None, metadata, properties };
        }
    }
    super::done(metadata, properties)
}
