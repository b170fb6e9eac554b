//! Expressions of a definition: read once, evaluated when a step is about to start.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::{self, Part};

/// A value of a definition that may hold references at any depth.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A value without references.
    Literal(Value),
    /// A list that holds references.
    List(Vec<Expression>),
    /// A structure that holds references.
    Structure(Vec<(String, Expression)>),
    /// `Get: Parameters.NAME`.
    Parameter(String),
    /// `Get: Execution.NAME`.
    Execution(String),
    /// `Get: Steps.STEP.PATH`.
    Property {
        /// Name of the step.
        step: String,
        /// Path into what describes the step's result.
        path: Vec<Part>,
    },
    /// `Std:Join`.
    Join {
        /// What stands between the values.
        on: String,
        /// The values.
        values: Vec<Expression>,
    },
    /// `Std:JsonGet`.
    JsonGet {
        /// Which file.
        file: JsonFile,
        /// Path into the file.
        path: Vec<Part>,
    },
}

/// A JSON file that an expression reads.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFile {
    /// A property file of a step.
    Property {
        /// Name of the step.
        step: String,
        /// Name of the file.
        name: String,
    },
    /// Any object.
    Uri(Box<Expression>),
}

/// Names after `Execution.`.
pub const EXECUTION_VARIABLES: &[&str] = &[
    "PipelineName",
    "PipelineArn",
    "PipelineExecutionId",
    "PipelineExecutionArn",
    "StartDateTime",
    "CurrentDateTime",
    "TrainingJobName",
    "ProcessingJobName",
];

/// A thing that is wrong at a place of the definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where, for example `Steps[2].Arguments.RoleArn`.
    pub place: String,
    /// What, as the rest of a sentence.
    pub text: String,
}

impl Flaw {
    /// A flaw at a place. What a definition has of any length is shown shortened.
    pub fn new(place: &str, text: impl Into<String>) -> Flaw {
        Flaw { place: shortened(place), text: shortened(&text.into()) }
    }
}

/// Longest part of an error message that comes from a definition.
const SHOWN_CHARACTERS: usize = 600;
/// Longest place that is told more exactly. Each value of a definition has one, so that long ones would add up.
const PLACE_BYTES: usize = 512;

/// The start of a text.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The place of a member.
pub(super) fn below(place: &str, name: &str) -> String {
    if place.len() + name.len() > PLACE_BYTES { place.to_owned() } else { format!("{place}.{name}") }
}

/// The place of an element.
pub(super) fn element(place: &str, at: usize) -> String {
    if place.len() > PLACE_BYTES { place.to_owned() } else { format!("{place}[{at}]") }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}.", self.place, self.text)
    }
}

impl Expression {
    /// Reads a value of a definition.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(value: &Value, place: &str) -> Result<Expression, Flaw> {
        match value {
            Value::Object(members) => match members.iter().next() {
                Some((name, inner)) if members.len() == 1 && is_operator(name) => {
                    operator(name, inner, &below(place, name))
                }
                _ => {
                    let members = members.iter().map(|(name, value)| {
                        Ok((name.clone(), Expression::parse(value, &below(place, name))?))
                    });
                    let members = members.collect::<Result<Vec<_>, Flaw>>()?;
                    if members.iter().all(|(_, member)| matches!(member, Expression::Literal(_))) {
                        return Ok(Expression::Literal(value.clone()));
                    }
                    Ok(Expression::Structure(members))
                }
            },
            Value::Array(elements) => {
                let elements = list(elements, place)?;
                if elements.iter().all(|element| matches!(element, Expression::Literal(_))) {
                    return Ok(Expression::Literal(value.clone()));
                }
                Ok(Expression::List(elements))
            }
            scalar => Ok(Expression::Literal(scalar.clone())),
        }
    }

    /// Calls `visit` for this expression and every one inside it.
    pub fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Expression)) {
        visit(self);
        match self {
            Expression::List(values) | Expression::Join { values, .. } => {
                values.iter().for_each(|value| value.each(visit));
            }
            Expression::Structure(members) => members.iter().for_each(|(_, member)| member.each(visit)),
            Expression::JsonGet { file: JsonFile::Uri(uri), .. } => uri.each(visit),
            _ => {}
        }
    }

    /// The steps that it refers to.
    pub fn steps(&self) -> BTreeSet<&str> {
        let mut steps = BTreeSet::new();
        self.each(&mut |expression| {
            if let Expression::Property { step, .. }
            | Expression::JsonGet { file: JsonFile::Property { step, .. }, .. } = expression
            {
                steps.insert(step.as_str());
            }
        });
        steps
    }
}

fn is_operator(name: &str) -> bool {
    matches!(name, "Get" | "Std:Join" | "Std:JsonGet")
}

fn list(elements: &[Value], place: &str) -> Result<Vec<Expression>, Flaw> {
    let elements = elements.iter().enumerate();
    elements.map(|(at, value)| Expression::parse(value, &element(place, at))).collect()
}

fn operator(name: &str, inner: &Value, place: &str) -> Result<Expression, Flaw> {
    match name {
        "Get" => get(inner, place),
        "Std:Join" => join(inner, place),
        _ => json_get(inner, place),
    }
}

fn get(inner: &Value, place: &str) -> Result<Expression, Flaw> {
    let text =
        inner.as_str().ok_or_else(|| Flaw::new(place, "this must be a text such as Parameters.NAME"))?;
    let unknown = || {
        Flaw::new(
            place,
            format!("{text:?} refers to nothing; it must begin with Parameters., Execution. or Steps."),
        )
    };
    let (kind, rest) = text.split_once('.').ok_or_else(unknown)?;
    match kind {
        "Parameters" => Ok(Expression::Parameter(rest.to_owned())),
        "Execution" if EXECUTION_VARIABLES.contains(&rest) => Ok(Expression::Execution(rest.to_owned())),
        "Execution" => Err(Flaw::new(
            place,
            format!("an execution has no variable {rest:?}; it has {}", EXECUTION_VARIABLES.join(", ")),
        )),
        "Steps" => {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, path) = rest.split_at(end);
            let path = path.strip_prefix('.').unwrap_or(path);
            if step.is_empty() || path.is_empty() {
                return Err(Flaw::new(place, format!("{text:?} must name a step and one of its properties")));
            }
            let path = path::parse(path).map_err(|problem| Flaw::new(place, problem))?;
            Ok(Expression::Property { step: step.to_owned(), path })
        }
        _ => Err(unknown()),
    }
}

fn join(inner: &Value, place: &str) -> Result<Expression, Flaw> {
    only(inner, &["On", "Values"], place)?;
    let on = match &inner["On"] {
        Value::Null => "",
        Value::String(on) => on,
        _ => return Err(Flaw::new(&format!("{place}.On"), "this must be a text")),
    };
    let place = format!("{place}.Values");
    let values = inner["Values"].as_array().ok_or_else(|| Flaw::new(&place, "this must be a list"))?;
    Ok(Expression::Join { on: on.to_owned(), values: list(values, &place)? })
}

fn json_get(inner: &Value, place: &str) -> Result<Expression, Flaw> {
    only(inner, &["PropertyFile", "S3Uri", "Path"], place)?;
    let text = inner["Path"]
        .as_str()
        .ok_or_else(|| Flaw::new(&format!("{place}.Path"), "this must be the path to a value of the file"))?;
    let text = text.strip_prefix("$.").unwrap_or(text);
    let path = path::parse(text).map_err(|problem| Flaw::new(&format!("{place}.Path"), problem))?;
    let file = match (&inner["PropertyFile"], &inner["S3Uri"]) {
        (Value::Null, Value::Null) => return Err(Flaw::new(place, "PropertyFile or S3Uri must be given")),
        (Value::Null, uri) => JsonFile::Uri(Box::new(Expression::parse(uri, &format!("{place}.S3Uri"))?)),
        (file, Value::Null) => {
            let place = format!("{place}.PropertyFile");
            let reference = file["Get"].as_str().unwrap_or_default();
            let named = reference.strip_prefix("Steps.").and_then(|rest| rest.split_once(".PropertyFiles."));
            let (step, name) = named.ok_or_else(|| {
                Flaw::new(&place, "this must be {\"Get\": \"Steps.STEP.PropertyFiles.NAME\"}")
            })?;
            JsonFile::Property { step: step.to_owned(), name: name.to_owned() }
        }
        _ => return Err(Flaw::new(place, "PropertyFile and S3Uri cannot both be given")),
    };
    Ok(Expression::JsonGet { file, path })
}

/// Refuses members that are not known, and what is no structure.
pub fn only(value: &Value, known: &[&str], place: &str) -> Result<(), Flaw> {
    let members = value.as_object().ok_or_else(|| Flaw::new(place, "this must be a structure"))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Flaw::new(&format!("{place}.{name}"), "this member is not known here")),
    }
}

/// What expressions are evaluated in.
pub struct Scope<'a> {
    /// Values of the parameters.
    pub parameters: &'a BTreeMap<String, Value>,
    /// Variables of the execution.
    pub execution: &'a BTreeMap<String, Value>,
    /// What describes the results of the steps that have ended well.
    pub properties: &'a BTreeMap<String, Value>,
    /// Contents of the JSON files that [`Scope::files`] named, by URI.
    pub files: &'a BTreeMap<String, Value>,
    /// Where a step's property file is.
    pub property_file: &'a dyn Fn(&str, &str) -> Result<String, String>,
    /// How much may still come of the expressions.
    pub room: Room,
}

/// Most bytes that all expressions of a step may come to. References multiply: a short definition could ask for any amount.
const MOST_BYTES: usize = 8 << 20;

/// The bytes that values may still take.
#[derive(Debug, Clone)]
pub struct Room(Cell<usize>);

impl Default for Room {
    fn default() -> Room {
        Room(Cell::new(MOST_BYTES))
    }
}

impl Room {
    fn take(&self, bytes: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(bytes).ok_or_else(|| {
            format!("The values that this step refers to come to more than {MOST_BYTES} bytes.")
        })?;
        self.0.set(left);
        Ok(())
    }

    /// Takes what a copy of a value needs, about.
    fn take_value(&self, value: &Value) -> Result<(), String> {
        match value {
            Value::String(text) => self.take(8 + text.len()),
            Value::Array(elements) => {
                self.take(8)?;
                elements.iter().try_for_each(|element| self.take_value(element))
            }
            Value::Object(members) => {
                self.take(8)?;
                members.iter().try_for_each(|(name, member)| {
                    self.take(8 + name.len())?;
                    self.take_value(member)
                })
            }
            _ => self.take(8),
        }
    }

    fn copy(&self, value: &Value) -> Result<Value, String> {
        self.take_value(value)?;
        Ok(value.clone())
    }
}

impl Scope<'_> {
    /// The value of an expression.
    ///
    /// # Errors
    /// One sentence that says which reference leads to nothing.
    pub fn value(&self, expression: &Expression) -> Result<Value, String> {
        match expression {
            Expression::Literal(value) => self.room.copy(value),
            Expression::List(elements) => {
                elements.iter().map(|element| self.value(element)).collect::<Result<_, _>>().map(Value::Array)
            }
            Expression::Structure(members) => {
                let members = members.iter().map(|(name, member)| Ok((name.clone(), self.value(member)?)));
                members.collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
            Expression::Parameter(name) => {
                let found = self.parameters.get(name);
                self.room.copy(found.ok_or_else(|| format!("The parameter {name} has no value."))?)
            }
            Expression::Execution(name) => {
                let found = self.execution.get(name);
                self.room.copy(found.ok_or_else(|| format!("Execution.{name} has no value in this step."))?)
            }
            Expression::Property { step, path } => {
                let found = self.properties.get(step).and_then(|properties| path::follow(properties, path));
                self.room.copy(found.ok_or_else(|| {
                    format!("Steps.{step}.{} leads to nothing in the result of the step.", path::text(path))
                })?)
            }
            Expression::Join { on, values } => {
                let texts = values.iter().map(|value| {
                    self.room.take(on.len())?;
                    Ok(as_text(&self.value(value)?))
                });
                let joined = texts.collect::<Result<Vec<_>, String>>()?.join(on);
                self.room.take(joined.len())?;
                Ok(joined.into())
            }
            Expression::JsonGet { file, path } => {
                let uri = self.uri(file)?;
                let content = self.files.get(&uri).ok_or_else(|| format!("The file {uri} was not read."))?;
                let found = path::follow(content, path);
                self.room.copy(found.ok_or_else(|| {
                    format!("The file {uri} has nothing at the path {:?}.", path::text(path))
                })?)
            }
        }
    }

    /// URIs of the JSON files that an expression reads.
    ///
    /// # Errors
    /// As [`Scope::value`].
    pub fn files(&self, expression: &Expression) -> Result<BTreeSet<String>, String> {
        let mut uris = Ok(BTreeSet::new());
        expression.each(&mut |inner| {
            if let (Expression::JsonGet { file, .. }, Ok(found)) = (inner, &mut uris) {
                match self.uri(file) {
                    Ok(uri) => drop(found.insert(uri)),
                    Err(problem) => uris = Err(problem),
                }
            }
        });
        uris
    }

    fn uri(&self, file: &JsonFile) -> Result<String, String> {
        match file {
            JsonFile::Property { step, name } => (self.property_file)(step, name),
            JsonFile::Uri(uri) => self.value(uri).map(|uri| as_text(&uri)),
        }
    }
}

/// A value as `Std:Join` writes it.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(expression: &Value) -> Result<Value, String> {
        let parsed = Expression::parse(expression, "Steps[0].Arguments").map_err(|flaw| flaw.to_string())?;
        let parameters = BTreeMap::from([("N".to_owned(), json!(3)), ("F".to_owned(), json!(0.5))]);
        let execution = BTreeMap::from([("PipelineName".to_owned(), json!("p"))]);
        let properties = BTreeMap::from([(
            "Train".to_owned(),
            json!({"ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"}, "FinalMetricDataList": [{"MetricName": "val:acc", "Value": 0.9}]}),
        )]);
        let files = BTreeMap::from([(
            "s3://b/train/eval.json".to_owned(),
            json!({"metrics": {"acc": [{"value": 0.75}]}}),
        )]);
        let property_file = |step: &str, name: &str| match (step, name) {
            ("Train", "Eval") => Ok("s3://b/train/eval.json".to_owned()),
            _ => Err(format!("no file {name} of {step}")),
        };
        let scope = Scope {
            parameters: &parameters,
            execution: &execution,
            properties: &properties,
            files: &files,
            property_file: &property_file,
            room: Room::default(),
        };
        scope.value(&parsed)
    }

    #[test]
    fn references_keep_their_types_and_joins_make_text() {
        assert_eq!(value(&json!({"Get": "Parameters.N"})).unwrap(), json!(3));
        let joined = json!({"Std:Join": {"On": "/", "Values": ["s3:/", {"Get": "Execution.PipelineName"}, {"Get": "Parameters.F"}, true,
            {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.N"}]}}]}});
        assert_eq!(value(&joined).unwrap(), json!("s3://p/0.5/true/3"));
        let nested =
            json!({"a": [{"b": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}}, 1], "c": null});
        assert_eq!(value(&nested).unwrap(), json!({"a": [{"b": "s3://b/m"}, 1], "c": null}));
        assert_eq!(
            value(&json!({"Get": "Steps.Train.FinalMetricDataList['val:acc'].Value"})).unwrap(),
            json!(0.9)
        );
    }

    #[test]
    fn json_files_are_read_by_property_file_and_by_uri() {
        let file = json!({"PropertyFile": {"Get": "Steps.Train.PropertyFiles.Eval"}, "Path": "metrics.acc[0].value"});
        assert_eq!(value(&json!({"Std:JsonGet": file})).unwrap(), json!(0.75));
        let file = json!({"S3Uri": {"Std:Join": {"On": "/", "Values": ["s3://b/train", "eval.json"]}}, "Path": "metrics['acc']"});
        assert_eq!(value(&json!({"Std:JsonGet": file})).unwrap(), json!([{"value": 0.75}]));
        let missing =
            json!({"PropertyFile": {"Get": "Steps.Train.PropertyFiles.Eval"}, "Path": "metrics.loss"});
        assert!(value(&json!({"Std:JsonGet": missing})).unwrap_err().contains("metrics.loss"));
    }

    #[test]
    fn what_leads_to_nothing_is_named_with_its_place() {
        for (expression, named) in [
            (json!({"Get": 3}), "Steps[0].Arguments.Get"),
            (json!({"Get": "Nothing.N"}), "Nothing.N"),
            (json!({"Get": "Execution.Weather"}), "Weather"),
            (json!({"Get": "Steps.Train"}), "Steps.Train"),
            (json!({"Std:Join": {"On": 1, "Values": []}}), "Std:Join.On"),
            (json!({"Std:Join": {"Values": "x"}}), "Std:Join.Values"),
            (
                json!({"a": [0, {"Std:Join": {"Values": [], "With": 1}}]}),
                "Steps[0].Arguments.a[1].Std:Join.With",
            ),
            (json!({"Std:JsonGet": {"Path": "a"}}), "PropertyFile or S3Uri"),
            (json!({"Get": "Steps.Train.Nope"}), "Steps.Train.Nope"),
        ] {
            let problem = value(&expression).unwrap_err();
            assert!(problem.contains(named), "{expression}: {problem}");
        }
    }
}
