//! Arguments of a step against the model of the operation that it calls.

use api::model::{Kind, Service, ShapeId};
use serde_json::Value;

use super::definition::StepKind;
use super::expressions::{Flaw, below, element};

/// Members of an EMRServerless step's arguments that are the job run's own, where they do not stand in `JobConfig`.
pub const EMR_SERVERLESS_JOB: &[&str] = &[
    "ExecutionRoleArn",
    "JobDriver",
    "ConfigurationOverrides",
    "ExecutionTimeoutMinutes",
    "Name",
    "Tags",
    "Mode",
];

/// The operation of SageMaker whose input a step's arguments are.
pub fn operation(kind: StepKind, arguments: &Value) -> Option<&'static str> {
    Some(match kind {
        StepKind::Processing | StepKind::QualityCheck | StepKind::ClarifyCheck => "CreateProcessingJob",
        StepKind::Training | StepKind::NotebookJob => "CreateTrainingJob",
        StepKind::Tuning => "CreateHyperParameterTuningJob",
        StepKind::Transform => "CreateTransformJob",
        StepKind::Model => "CreateModel",
        StepKind::RegisterModel => "CreateModelPackage",
        StepKind::AutoMl if arguments["AutoMLProblemTypeConfig"].is_null() => "CreateAutoMLJob",
        StepKind::AutoMl => "CreateAutoMLJobV2",
        StepKind::Condition
        | StepKind::Fail
        | StepKind::Lambda
        | StepKind::Callback
        | StepKind::Emr
        | StepKind::EmrServerless => return None,
    })
}

/// Refuses members that the operation does not know, and values of another type than it takes.
///
/// # Errors
/// The first flaw with its place.
pub fn check(kind: StepKind, arguments: &Value, place: &str) -> Result<(), Flaw> {
    match kind {
        StepKind::Emr => return check_emr(arguments, place),
        StepKind::EmrServerless => {
            let known: Vec<&str> = ["ApplicationId", "ApplicationConfig", "JobConfig"]
                .iter()
                .chain(EMR_SERVERLESS_JOB)
                .copied()
                .collect();
            return super::expressions::only(arguments, &known, place);
        }
        _ => {}
    }
    let service: &'static Service = &api::sagemaker::SERVICE;
    let input =
        operation(kind, arguments).and_then(|name| service.operation(name)).and_then(|found| found.input);
    match input {
        Some(input) => walk(service, input, arguments, place),
        None if kind == StepKind::Fail => super::expressions::only(arguments, &["ErrorMessage"], place),
        None => Ok(()),
    }
}

fn check_emr(arguments: &Value, place: &str) -> Result<(), Flaw> {
    super::expressions::only(
        arguments,
        &["ClusterId", "ClusterConfig", "StepConfig", "ExecutionRoleArn"],
        place,
    )?;
    let service: &'static Service = &api::emr::SERVICE;
    let Some(input) = service.operation("RunJobFlow").and_then(|found| found.input) else { return Ok(()) };
    walk(service, input, &arguments["ClusterConfig"], &format!("{place}.ClusterConfig"))?;
    let step = match &service.shape(input).kind {
        Kind::Structure(structure) => structure.members.iter().find(|member| member.name == "Steps"),
        _ => None,
    };
    match step.map(|steps| &service.shape(steps.shape).kind) {
        Some(Kind::List { member, .. }) => {
            walk(service, *member, &arguments["StepConfig"], &format!("{place}.StepConfig"))
        }
        _ => Ok(()),
    }
}

fn walk(service: &'static Service, shape: ShapeId, value: &Value, place: &str) -> Result<(), Flaw> {
    let wrong = |wanted: &str| Err(Flaw::new(place, format!("this must be {wanted}")));
    match (&service.shape(shape).kind, value) {
        (_, Value::Null) => Ok(()),
        (_, Value::Object(members)) if is_expression(members) => Ok(()),
        (Kind::Structure(structure), Value::Object(members)) => {
            members.iter().try_for_each(|(name, value)| {
                let place = below(place, name);
                match structure.members.iter().find(|member| member.name == name) {
                    Some(member) => walk(service, member.shape, value, &place),
                    None => Err(Flaw::new(&place, format!("Unknown Argument member '{name}'"))),
                }
            })
        }
        (Kind::Map { value: inner, .. }, Value::Object(members)) => {
            members.iter().try_for_each(|(name, value)| walk(service, *inner, value, &below(place, name)))
        }
        (Kind::List { member, .. }, Value::Array(elements)) => elements
            .iter()
            .enumerate()
            .try_for_each(|(at, value)| walk(service, *member, value, &element(place, at))),
        (Kind::Structure(_) | Kind::Map { .. }, _) => wrong("a structure"),
        (Kind::List { .. }, _) => wrong("a list"),
        (Kind::String { .. }, Value::String(_)) => Ok(()),
        (Kind::String { .. }, _) => wrong("a text"),
        (Kind::Integer { .. } | Kind::Long { .. } | Kind::Float { .. }, Value::Number(_)) => Ok(()),
        (Kind::Integer { .. } | Kind::Long { .. } | Kind::Float { .. }, _) => wrong("a number"),
        (Kind::Boolean, Value::Bool(_)) => Ok(()),
        (Kind::Boolean, _) => wrong("true or false"),
        _ => Ok(()),
    }
}

/// Whether a structure is an expression, whose value is known only when the step starts.
fn is_expression(members: &serde_json::Map<String, Value>) -> bool {
    members.len() == 1
        && members.keys().all(|name| matches!(name.as_str(), "Get" | "Std:Join" | "Std:JsonGet"))
}
