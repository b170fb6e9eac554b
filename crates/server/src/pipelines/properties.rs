//! Which properties each type of step has: what its operation describes, and what the type itself adds.

use api::model::{Kind, Service, ShapeId};

use super::definition::{Definition, Step, StepKind};
use super::expressions::{Expression, Flaw};
use super::path::{self, Part};

/// Refuses references to properties that a step cannot have.
///
/// # Errors
/// The first flaw with its place.
pub fn check(definition: &Definition) -> Result<(), Flaw> {
    for step in &definition.steps {
        let mut flaw = None;
        step.each_expression(&mut |expression| {
            expression.each(&mut |inner| {
                if let Expression::Property { step: name, path } = inner
                    && let Some(owner) = definition.step(name)
                    && let Err(problem) = lead(owner, path)
                {
                    flaw.get_or_insert_with(|| Flaw::new(&step.place, problem));
                }
            });
        });
        flaw.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// The operations whose answers a step's properties are.
fn describing(kind: StepKind) -> &'static [&'static str] {
    match kind {
        StepKind::Processing | StepKind::QualityCheck | StepKind::ClarifyCheck => &["DescribeProcessingJob"],
        StepKind::Training | StepKind::NotebookJob => &["DescribeTrainingJob"],
        StepKind::Tuning => {
            &["DescribeHyperParameterTuningJob", "ListTrainingJobsForHyperParameterTuningJob"]
        }
        StepKind::Transform => &["DescribeTransformJob"],
        StepKind::Model => &["DescribeModel"],
        StepKind::RegisterModel => &["DescribeModelPackage"],
        StepKind::AutoMl => &["DescribeAutoMLJob", "DescribeAutoMLJobV2"],
        StepKind::Condition
        | StepKind::Fail
        | StepKind::Lambda
        | StepKind::Callback
        | StepKind::Emr
        | StepKind::EmrServerless => &[],
    }
}

/// Members beside those of the operations.
fn own(kind: StepKind) -> &'static [&'static str] {
    match kind {
        StepKind::Condition => &["Outcome"],
        StepKind::QualityCheck | StepKind::ClarifyCheck => &[
            "CheckType",
            "ModelPackageGroupName",
            "CheckJobArn",
            "SkipCheck",
            "RegisterNewBaseline",
            "ViolationReport",
            "CalculatedBaselineConstraints",
            "CalculatedBaselineStatistics",
            "BaselineUsedForDriftCheckConstraints",
            "BaselineUsedForDriftCheckStatistics",
        ],
        StepKind::AutoMl => &["BestCandidateProperties"],
        _ => &[],
    }
}

/// Whether a path can lead to a property of a step.
fn lead(step: &Step, path: &[Part]) -> Result<(), String> {
    let nothing = || {
        let text = path::text(path);
        Err(format!(
            "Steps.{}.{text} leads to nothing: a {} step has no such property",
            step.name,
            step.kind.name()
        ))
    };
    let Some((Part::Name(first), rest)) = path.split_first() else { return nothing() };
    match step.kind {
        // Nothing is known of what another service would describe.
        StepKind::Emr | StepKind::EmrServerless => return Ok(()),
        StepKind::Lambda | StepKind::Callback => {
            return match rest {
                [Part::Name(name)] if first == "OutputParameters" => {
                    if step.outputs.iter().any(|(declared, _)| declared == name) {
                        return Ok(());
                    }
                    Err(format!("the OutputParameters of the step {} do not have {name:?}", step.name))
                }
                _ => nothing(),
            };
        }
        _ => {}
    }
    if own(step.kind).contains(&first.as_str()) {
        return Ok(());
    }
    let service: &'static Service = &api::sagemaker::SERVICE;
    let outputs = describing(step.kind).iter().filter_map(|name| service.operation(name)?.output);
    let mut outputs = outputs.into_iter();
    if outputs.any(|shape| leads(service, shape, path)) { Ok(()) } else { nothing() }
}

fn leads(service: &'static Service, shape: ShapeId, path: &[Part]) -> bool {
    let Some((part, rest)) = path.split_first() else { return true };
    match (&service.shape(shape).kind, part) {
        (Kind::Structure(structure), Part::Name(name)) => {
            let member = structure.members.iter().find(|member| member.name == name);
            member.is_some_and(|member| leads(service, member.shape, rest))
        }
        (Kind::Map { value, .. }, Part::Name(_)) => leads(service, *value, rest),
        // A name finds the element of a list that carries it.
        (Kind::List { member, .. }, _) => leads(service, *member, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What is wrong with a reference to a pipeline that has a step of several types.
    fn problem(reference: &str) -> Option<String> {
        let outputs = json!([{"OutputName": "sum", "OutputType": "Integer"}]);
        let equal = json!([{"Type": "Equals", "LeftValue": 1, "RightValue": 1}]);
        let steps: Vec<Value> = vec![
            json!({"Name": "Proc", "Type": "Processing", "Arguments": {}}),
            json!({"Name": "Train", "Type": "Training", "Arguments": {}}),
            json!({"Name": "Tune", "Type": "Tuning", "Arguments": {}}),
            json!({"Name": "Model", "Type": "Model", "Arguments": {}}),
            json!({"Name": "Check", "Type": "QualityCheck", "Arguments": {}}),
            json!({"Name": "Add", "Type": "Lambda", "FunctionArn": "f", "OutputParameters": outputs}),
            json!({"Name": "If", "Type": "Condition", "Arguments": {"Conditions": equal}}),
            json!({"Name": "Use", "Type": "Lambda", "FunctionArn": "f", "Arguments": {"deep": [{"Std:Join": {"Values": [{"Get": reference}]}}]}}),
        ];
        let text = json!({"Version": "2020-12-01", "Steps": steps}).to_string();
        check(&Definition::parse(&text).unwrap()).err().map(|flaw| flaw.to_string())
    }

    #[test]
    fn references_lead_to_what_a_step_describes() {
        for known in [
            "Steps.Proc.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri",
            "Steps.Proc.Environment.ANY",
            "Steps.Train.FinalMetricDataList['val:acc'].Value",
            "Steps.Tune.TrainingJobSummaries[0].TrainingJobName",
            "Steps.Tune.BestTrainingJob.TrainingJobName",
            "Steps.Model.PrimaryContainer.Image",
            "Steps.Check.CalculatedBaselineStatistics",
            "Steps.Add.OutputParameters['sum']",
            "Steps.If.Outcome",
        ] {
            assert_eq!(problem(known), None, "{known}");
        }
        for (unknown, named) in [
            ("Steps.Train.ModelArtefacts.S3ModelArtifacts", "Training step"),
            ("Steps.Train.ModelArtifacts.S3ModelArtifacts.More", "Training step"),
            ("Steps.Train.ModelArtifacts[0]", "ModelArtifacts[0]"),
            ("Steps.Model.ModelArtifacts", "Model step"),
            ("Steps.Add.OutputParameters['product']", "do not have \"product\""),
            ("Steps.Add.OutputParameters", "Lambda step"),
            ("Steps.If.Result", "Condition step"),
            ("Steps.Proc[0]", "Processing step"),
        ] {
            let said = problem(unknown).unwrap_or_else(|| panic!("{unknown} was taken"));
            assert!(said.starts_with("Steps[7]: ") && said.contains(named), "{unknown}: {said}");
        }
    }
}
