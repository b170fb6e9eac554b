//! From the JSON of a definition to typed parameters and steps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::conditions::Condition;
use super::definition::{
    Cache, Experiment, Parameter, ParameterKind, PropertyFile, RetryPolicy, Step, StepKind,
};
use super::duration::Period;
use super::expressions::{Expression, Flaw, only};
use super::step_arguments;

/// Most parameters of a pipeline, as in the service.
const MOST_PARAMETERS: usize = 200;
/// Failures that retry policies can name.
pub const EXCEPTIONS: &[&str] = &[
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
];

type Read<T> = Result<T, Flaw>;

/// Reads the parts of a definition.
///
/// # Errors
/// The first flaw with its place.
pub(super) fn read(whole: &Value) -> Read<(Vec<Parameter>, Vec<Step>, Option<Experiment>)> {
    let known = ["Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps"];
    only(whole, &known, "PipelineDefinition")?;
    if whole["Version"] != "2020-12-01" {
        return Err(Flaw::new("Version", "this must be \"2020-12-01\""));
    }
    if !whole["MlflowConfig"].is_null() {
        return Err(Flaw::new("MlflowConfig", "Modelyard does not honour this member yet; leave it out"));
    }
    let parameters = parameters(&whole["Parameters"])?;
    let experiment = experiment(&whole["PipelineExperimentConfig"])?;
    let mut steps = Vec::new();
    let listed =
        whole["Steps"].as_array().ok_or_else(|| Flaw::new("Steps", "this must be a list of steps"))?;
    if listed.is_empty() {
        return Err(Flaw::new("Steps", "a pipeline must have at least one step"));
    }
    read_steps(listed, "Steps", None, &mut steps)?;
    Ok((parameters, steps, experiment))
}

fn parameters(value: &Value) -> Read<Vec<Parameter>> {
    let listed = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(listed) => listed,
        _ => return Err(Flaw::new("Parameters", "this must be a list")),
    };
    if listed.len() > MOST_PARAMETERS {
        return Err(Flaw::new("Parameters", format!("a pipeline has at most {MOST_PARAMETERS} parameters")));
    }
    let mut parameters: Vec<Parameter> = Vec::new();
    for (at, value) in listed.iter().enumerate() {
        let place = format!("Parameters[{at}]");
        let parameter = parameter(value, &place)?;
        if parameters.iter().any(|other| other.name == parameter.name) {
            return Err(Flaw::new(
                &format!("{place}.Name"),
                format!("{:?} is declared twice", parameter.name),
            ));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

fn parameter(value: &Value, place: &str) -> Read<Parameter> {
    only(value, &["Name", "Type", "DefaultValue", "EnumValues"], place)?;
    let name = name(value, place, 256)?;
    let kind = value["Type"].as_str().and_then(ParameterKind::named);
    let kind = kind.ok_or_else(|| {
        Flaw::new(&format!("{place}.Type"), "this must be String, Integer, Float or Boolean")
    })?;
    let fit = |value: &Value, member: &str| {
        if kind.fits(value) {
            return Ok(());
        }
        Err(Flaw::new(&format!("{place}.{member}"), format!("{value} is no {}", kind.name())))
    };
    let default = Some(&value["DefaultValue"]).filter(|value| !value.is_null()).cloned();
    if let Some(default) = &default {
        fit(default, "DefaultValue")?;
    }
    let allowed = match &value["EnumValues"] {
        Value::Null => Vec::new(),
        Value::Array(allowed) => allowed.clone(),
        _ => return Err(Flaw::new(&format!("{place}.EnumValues"), "this must be a list")),
    };
    allowed.iter().try_for_each(|value| fit(value, "EnumValues"))?;
    if let Some(default) = default.as_ref().filter(|value| !allowed.is_empty() && !allowed.contains(value)) {
        return Err(Flaw::new(
            &format!("{place}.DefaultValue"),
            format!("{default} is not one of the EnumValues"),
        ));
    }
    Ok(Parameter { name, kind, default, allowed })
}

fn experiment(value: &Value) -> Read<Option<Experiment>> {
    if value.is_null() {
        return Ok(None);
    }
    let place = "PipelineExperimentConfig";
    only(value, &["ExperimentName", "TrialName"], place)?;
    let part = |name: &str| match &value[name] {
        Value::Null => Ok(None),
        value => Expression::parse(value, &format!("{place}.{name}")).map(Some),
    };
    Ok(Some(Experiment { experiment_name: part("ExperimentName")?, trial_name: part("TrialName")? }))
}

fn read_steps(
    listed: &[Value],
    place: &str,
    branch: Option<(usize, bool)>,
    steps: &mut Vec<Step>,
) -> Read<()> {
    for (at, value) in listed.iter().enumerate() {
        read_step(value, &format!("{place}[{at}]"), branch, steps)?;
    }
    Ok(())
}

fn read_step(value: &Value, place: &str, branch: Option<(usize, bool)>, steps: &mut Vec<Step>) -> Read<()> {
    if !value.is_object() {
        return Err(Flaw::new(place, "a step must be a structure"));
    }
    let given = value["Type"].as_str().unwrap_or_default();
    let kind = StepKind::ALL.iter().find(|(name, _)| *name == given).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| {
        let known: Vec<&str> = StepKind::ALL.iter().map(|(name, _)| *name).collect();
        Flaw::new(
            &format!("{place}.Type"),
            format!("Modelyard has no step type {given:?}; it has {}", known.join(", ")),
        )
    })?;
    let mut known = vec![
        "Name",
        "Type",
        "Arguments",
        "DependsOn",
        "DisplayName",
        "Description",
        "CacheConfig",
        "RetryPolicies",
        "PropertyFiles",
        "OutputParameters",
    ];
    known.extend(kind.settings());
    only(value, &known, place)?;
    let inner = |name: &str| format!("{place}.{name}");
    let mut settings = BTreeMap::new();
    for name in kind.settings() {
        if !value[name].is_null() {
            settings.insert((*name).to_owned(), Expression::parse(&value[name], &inner(name))?);
        }
    }
    let is_condition = kind == StepKind::Condition;
    let nothing = Value::Object(Map::new());
    let arguments = match &value["Arguments"] {
        Value::Null => &nothing,
        given if given.is_object() => given,
        _ => return Err(Flaw::new(&inner("Arguments"), "this must be a structure")),
    };
    let conditions = if is_condition {
        only(arguments, &["Conditions", "IfSteps", "ElseSteps"], &inner("Arguments"))?;
        let place = inner("Arguments.Conditions");
        let listed = arguments["Conditions"].as_array().filter(|listed| !listed.is_empty());
        let listed =
            listed.ok_or_else(|| Flaw::new(&place, "a Condition step must have at least one condition"))?;
        Condition::parse_all(listed, &place)?
    } else {
        step_arguments::check(kind, arguments, &inner("Arguments"))?;
        Vec::new()
    };
    let own = if is_condition { &nothing } else { arguments };
    let position = steps.len();
    steps.push(Step {
        name: name(value, place, 64)?,
        kind,
        place: place.to_owned(),
        display_name: text(value, "DisplayName", place)?,
        description: text(value, "Description", place)?,
        arguments: Expression::parse(own, &inner("Arguments"))?,
        settings,
        conditions,
        branch,
        dependencies: BTreeSet::new(),
        cache: cache(&value["CacheConfig"], &inner("CacheConfig"))?,
        retries: elements(value, "RetryPolicies", place, retry_policy)?,
        property_files: elements(value, "PropertyFiles", place, property_file)?,
        outputs: elements(value, "OutputParameters", place, output)?,
        depends_on: elements(value, "DependsOn", place, |value, place| {
            value
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| Flaw::new(place, "this must be the name of a step"))
        })?,
    });
    if is_condition {
        for (member, outcome) in [("IfSteps", true), ("ElseSteps", false)] {
            let place = inner(&format!("Arguments.{member}"));
            match &arguments[member] {
                Value::Null => {}
                Value::Array(listed) => read_steps(listed, &place, Some((position, outcome)), steps)?,
                _ => return Err(Flaw::new(&place, "this must be a list of steps")),
            }
        }
    }
    Ok(())
}

fn elements<T>(
    value: &Value,
    name: &str,
    place: &str,
    one: impl Fn(&Value, &str) -> Read<T>,
) -> Read<Vec<T>> {
    let place = format!("{place}.{name}");
    match &value[name] {
        Value::Null => Ok(Vec::new()),
        Value::Array(listed) => {
            listed.iter().enumerate().map(|(at, value)| one(value, &format!("{place}[{at}]"))).collect()
        }
        _ => Err(Flaw::new(&place, "this must be a list")),
    }
}

fn name(value: &Value, place: &str, longest: usize) -> Read<String> {
    let place = format!("{place}.Name");
    let name = value["Name"].as_str().ok_or_else(|| Flaw::new(&place, "this must be a text"))?;
    let fits = name.chars().all(|character| character.is_ascii_alphanumeric() || "-_".contains(character));
    if name.is_empty() || name.len() > longest || !fits {
        let rule = format!("{name:?} must be 1 to {longest} letters, digits, hyphens or underscores");
        return Err(Flaw::new(&place, rule));
    }
    Ok(name.to_owned())
}

fn text(value: &Value, name: &str, place: &str) -> Read<Option<String>> {
    match &value[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(Flaw::new(&format!("{place}.{name}"), "this must be a text")),
    }
}

fn cache(value: &Value, place: &str) -> Read<Option<Cache>> {
    if value.is_null() {
        return Ok(None);
    }
    only(value, &["Enabled", "ExpireAfter"], place)?;
    let expires_after = match &value["ExpireAfter"] {
        Value::Null => None,
        given => Some(given.as_str().and_then(Period::parse).ok_or_else(|| {
            Flaw::new(
                &format!("{place}.ExpireAfter"),
                format!("{given} is no ISO 8601 duration such as P30D or PT1H"),
            )
        })?),
    };
    match &value["Enabled"] {
        Value::Bool(true) => Ok(Some(Cache { expires_after })),
        Value::Bool(false) | Value::Null => Ok(None),
        _ => Err(Flaw::new(&format!("{place}.Enabled"), "this must be true or false")),
    }
}

fn retry_policy(value: &Value, place: &str) -> Read<RetryPolicy> {
    let known = ["ExceptionType", "IntervalSeconds", "BackoffRate", "MaxAttempts", "ExpireAfterMin"];
    only(value, &known, place)?;
    let exceptions = elements(value, "ExceptionType", place, |value, place| match value.as_str() {
        Some(name) if EXCEPTIONS.contains(&name) => Ok(name.to_owned()),
        _ => Err(Flaw::new(place, format!("{value} is none of {}", EXCEPTIONS.join(", ")))),
    })?;
    if exceptions.is_empty() {
        return Err(Flaw::new(
            &format!("{place}.ExceptionType"),
            "this must name at least one exception type",
        ));
    }
    let number = |name: &str, least: f64, most: f64| match &value[name] {
        Value::Null => Ok(None),
        given => given.as_f64().filter(|number| (least..=most).contains(number)).map(Some).ok_or_else(|| {
            Flaw::new(&format!("{place}.{name}"), format!("{given} is no number from {least} to {most}"))
        }),
    };
    let max_attempts = number("MaxAttempts", 0.0, 20.0)?.map(|count| count as u32);
    let expire_after_minutes = number("ExpireAfterMin", 0.0, 14_400.0)?.map(|count| count as u32);
    if max_attempts.is_some() && expire_after_minutes.is_some() {
        return Err(Flaw::new(place, "MaxAttempts and ExpireAfterMin cannot both be given"));
    }
    Ok(RetryPolicy {
        exceptions,
        interval_seconds: number("IntervalSeconds", 0.0, 43_200.0)?.unwrap_or(1.0),
        backoff_rate: number("BackoffRate", 0.0, 1_000.0)?.unwrap_or(2.0),
        max_attempts,
        expire_after_minutes,
    })
}

fn property_file(value: &Value, place: &str) -> Read<PropertyFile> {
    only(value, &["PropertyFileName", "OutputName", "FilePath"], place)?;
    let member = |name: &str| {
        let text = value[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| Flaw::new(&format!("{place}.{name}"), "this must be given as a text"))
    };
    Ok(PropertyFile {
        name: member("PropertyFileName")?,
        output_name: member("OutputName")?,
        file_path: member("FilePath")?,
    })
}

fn output(value: &Value, place: &str) -> Read<(String, ParameterKind)> {
    only(value, &["OutputName", "OutputType"], place)?;
    let name = value["OutputName"].as_str().filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| Flaw::new(&format!("{place}.OutputName"), "this must be given as a text"))?;
    let kind = value["OutputType"].as_str().and_then(ParameterKind::named);
    let kind = kind.ok_or_else(|| {
        Flaw::new(&format!("{place}.OutputType"), "this must be String, Integer, Float or Boolean")
    })?;
    Ok((name.to_owned(), kind))
}
