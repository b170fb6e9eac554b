//! A pipeline definition of version 2020-12-01, read and checked once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::conditions::Condition;
use super::expressions::{Expression, Flaw, shortened};
use super::{graph, reading};

/// A definition that has been found right.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Parameters in their order.
    pub parameters: Vec<Parameter>,
    /// Every step in the order of the text; those of a Condition's branches follow it.
    pub steps: Vec<Step>,
    /// Names of experiment and trial.
    pub experiment: Option<Experiment>,
    positions: HashMap<String, usize>,
}

/// Names of the experiment and trial that an execution belongs to.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Name of the experiment.
    pub experiment_name: Option<Expression>,
    /// Name of the trial.
    pub trial_name: Option<Expression>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: ParameterKind,
    /// Value when the caller gives none.
    pub default: Option<Value>,
    /// The only values that it takes; any when empty.
    pub allowed: Vec<Value>,
}

/// Type of a parameter or of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// Text.
    String,
    /// Whole number.
    Integer,
    /// Number.
    Float,
    /// `true` or `false`.
    Boolean,
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Name, unique in the pipeline.
    pub name: String,
    /// Type.
    pub kind: StepKind,
    /// Where it stands in the definition.
    pub place: String,
    /// `DisplayName`.
    pub display_name: Option<String>,
    /// `Description`.
    pub description: Option<String>,
    /// `Arguments`; of a Condition an empty structure.
    pub arguments: Expression,
    /// Further members that only its type has, such as `FunctionArn`.
    pub settings: BTreeMap<String, Expression>,
    /// What a Condition asks.
    pub conditions: Vec<Condition>,
    /// The Condition whose branch it stands in, and which branch.
    pub branch: Option<(usize, bool)>,
    /// Positions of the steps that must have ended well before it starts.
    pub dependencies: BTreeSet<usize>,
    /// Whether results are reused; with the time after which they are not, in milliseconds.
    pub cache: Option<Cache>,
    /// Retry policies.
    pub retries: Vec<RetryPolicy>,
    /// Property files.
    pub property_files: Vec<PropertyFile>,
    /// `OutputParameters`.
    pub outputs: Vec<(String, ParameterKind)>,
    /// `DependsOn` as written.
    pub(super) depends_on: Vec<String>,
}

/// `CacheConfig` that is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// How long a result may be reused.
    pub expires_after: Option<super::duration::Period>,
}

/// When a failed step is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Which failures.
    pub exceptions: Vec<String>,
    /// Seconds before the first retry.
    pub interval_seconds: f64,
    /// By what the wait grows with each retry.
    pub backoff_rate: f64,
    /// Most retries.
    pub max_attempts: Option<u32>,
    /// Minutes after the first failure when no retry is started any more.
    pub expire_after_minutes: Option<u32>,
}

/// A JSON file in an output of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyFile {
    /// Name by which expressions refer to it.
    pub name: String,
    /// Output of the step.
    pub output_name: String,
    /// Path below the output.
    pub file_path: String,
}

/// Types of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "these are the service's own names")]
pub enum StepKind {
    Processing,
    Training,
    Tuning,
    Transform,
    Model,
    RegisterModel,
    Condition,
    Fail,
    Lambda,
    Callback,
    QualityCheck,
    ClarifyCheck,
    Emr,
    EmrServerless,
    AutoMl,
    NotebookJob,
}

impl StepKind {
    /// Every type, with the service's name of it.
    pub const ALL: &[(&str, StepKind)] = &[
        ("Processing", StepKind::Processing),
        ("Training", StepKind::Training),
        ("Tuning", StepKind::Tuning),
        ("Transform", StepKind::Transform),
        ("Model", StepKind::Model),
        ("RegisterModel", StepKind::RegisterModel),
        ("Condition", StepKind::Condition),
        ("Fail", StepKind::Fail),
        ("Lambda", StepKind::Lambda),
        ("Callback", StepKind::Callback),
        ("QualityCheck", StepKind::QualityCheck),
        ("ClarifyCheck", StepKind::ClarifyCheck),
        ("EMR", StepKind::Emr),
        ("EMRServerless", StepKind::EmrServerless),
        ("AutoML", StepKind::AutoMl),
        ("NotebookJob", StepKind::NotebookJob),
    ];

    /// The service's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Members that only this type has beside those of all steps.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            StepKind::Lambda => &["FunctionArn"],
            StepKind::Callback => &["SqsQueueUrl"],
            StepKind::QualityCheck | StepKind::ClarifyCheck => &[
                "CheckType",
                "ModelPackageGroupName",
                "SkipCheck",
                "FailOnViolation",
                "RegisterNewBaseline",
                "SuppliedBaselineStatistics",
                "SuppliedBaselineConstraints",
            ],
            _ => &[],
        }
    }
}

impl ParameterKind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<ParameterKind> {
        Some(match name {
            "String" => ParameterKind::String,
            "Integer" => ParameterKind::Integer,
            "Float" => ParameterKind::Float,
            "Boolean" => ParameterKind::Boolean,
            _ => return None,
        })
    }

    /// Whether a value of a definition is of this kind.
    pub fn fits(self, value: &Value) -> bool {
        match self {
            ParameterKind::String => value.is_string(),
            ParameterKind::Integer => value.is_i64() || value.is_u64(),
            ParameterKind::Float => value.is_number(),
            ParameterKind::Boolean => value.is_boolean(),
        }
    }

    /// Reads a value that came as text, as those of StartPipelineExecution do.
    pub fn from_text(self, text: &str) -> Option<Value> {
        match self {
            ParameterKind::String => Some(text.into()),
            ParameterKind::Integer => text.trim().parse::<i64>().ok().map(Value::from),
            ParameterKind::Float => {
                text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
            }
            ParameterKind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
                "true" => Some(true.into()),
                "false" => Some(false.into()),
                _ => None,
            },
        }
    }

    /// The service's name.
    pub fn name(self) -> &'static str {
        match self {
            ParameterKind::String => "String",
            ParameterKind::Integer => "Integer",
            ParameterKind::Float => "Float",
            ParameterKind::Boolean => "Boolean",
        }
    }
}

impl Definition {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// The first flaw with its place.
    pub fn parse(text: &str) -> Result<Definition, Flaw> {
        // The reader refuses more than 128 levels, so that what follows cannot run out of stack.
        let whole: Value = serde_json::from_str(text).map_err(|error| {
            Flaw::new("PipelineDefinition", format!("this is not JSON that can be read ({error})"))
        })?;
        let (parameters, steps, experiment) = reading::read(&whole)?;
        let mut positions = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            if positions.insert(step.name.clone(), at).is_some() {
                return Err(Flaw::new(
                    &format!("{}.Name", step.place),
                    format!("another step is called {:?} too; names must be unique", step.name),
                ));
            }
        }
        let mut definition = Definition { parameters, steps, experiment, positions };
        graph::connect(&mut definition)?;
        Ok(definition)
    }

    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.position(name).map(|at| &self.steps[at])
    }

    /// Position of the step of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// Values of the parameters, from what the caller gave and the defaults.
    ///
    /// # Errors
    /// One sentence that names the parameter.
    pub fn parameter_values(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Value>, String> {
        if let Some(name) = given.keys().find(|name| !self.parameters.iter().any(|one| one.name == **name)) {
            return Err(format!("PipelineParameters: the pipeline has no parameter {name:?}."));
        }
        let mut values = BTreeMap::new();
        for parameter in &self.parameters {
            let (name, kind) = (&parameter.name, parameter.kind);
            let value = match (given.get(name), &parameter.default) {
                (Some(text), _) => kind.from_text(text).ok_or_else(|| {
                    format!(
                        "PipelineParameters: {text:?} is no {} as the parameter {name:?} needs.",
                        kind.name()
                    )
                })?,
                (None, Some(default)) => default.clone(),
                (None, None) => {
                    return Err(format!(
                        "PipelineParameters: the parameter {name:?} has no default and must be given."
                    ));
                }
            };
            if !parameter.allowed.is_empty() && !parameter.allowed.contains(&value) {
                let allowed = shortened(&Value::from(parameter.allowed.clone()).to_string());
                return Err(format!(
                    "PipelineParameters: {value} is not one of the values {allowed} of {name:?}."
                ));
            }
            values.insert(name.clone(), value);
        }
        Ok(values)
    }
}

impl Step {
    /// Calls `visit` for every expression of the step.
    pub fn each_expression<'a>(&'a self, visit: &mut impl FnMut(&'a Expression)) {
        visit(&self.arguments);
        self.settings.values().for_each(&mut *visit);
        self.conditions.iter().for_each(|condition| condition.each(visit));
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
