//! Constraint checks that follow from the model alone, worded as the services word them.

mod pattern;
mod render;

use api::model::{Kind, Location, Member, Service, ShapeId, Structure};
use serde_json::Value;

/// Enough violations to mend a request by; a hostile one could have millions.
const MAX_VIOLATIONS: usize = 100;

/// One broken constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, for example `inputDataConfig.1.member.channelName`.
    pub path: String,
    /// What was given, as the message shows it: `'x'`, `null`, or nothing for values that are not shown.
    pub value: Option<String>,
    /// What the value must satisfy, for example `Member must not be null`.
    pub constraint: String,
}

/// How the constraint of an enumeration begins.
const ENUMERATION: &str = "Member must satisfy enum value set: ";

impl Violation {
    /// Whether it says that an enumeration lacks a value which `own_values` has.
    pub(crate) fn is_enumeration_without(&self, own_values: &std::collections::BTreeSet<String>) -> bool {
        let given = self.value.as_deref().map(|shown| shown.trim_matches('\''));
        self.constraint.starts_with(ENUMERATION) && given.is_some_and(|given| own_values.contains(given))
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Value ")?;
        if let Some(value) = &self.value {
            write!(formatter, "{value} ")?;
        }
        write!(formatter, "at '{}' failed to satisfy constraint: {}", self.path, self.constraint)
    }
}

/// All violations in one sentence; empty when there are none.
pub fn message(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
    match texts.len() {
        0 => String::new(),
        1 => format!("1 validation error detected: {}", texts[0]),
        count => format!("{count} validation errors detected: {}", texts.join("; ")),
    }
}

/// Checks a value keyed by model member names against its shape; at most 100 violations are told.
pub fn validate(service: &'static Service, shape: ShapeId, value: &Value) -> Vec<Violation> {
    let mut check = Check { service, path: String::new(), violations: Vec::new(), raw_body_bytes: None };
    check.nested(shape, value);
    check.violations
}

/// As [`validate`] for an input whose body is kept beside it: the body is there, and its length is `body_bytes`.
pub(crate) fn validate_raw(
    service: &'static Service,
    shape: ShapeId,
    value: &Value,
    body_bytes: usize,
) -> Vec<Violation> {
    let mut check = Check {
        service,
        path: String::new(),
        violations: Vec::new(),
        raw_body_bytes: Some(body_bytes as u64),
    };
    check.nested(shape, value);
    check.violations
}

/// Whether a body of this length may be that of a raw operation with an input of this structure.
pub(crate) fn fits_raw_body(service: &'static Service, structure: &Structure, body_bytes: usize) -> bool {
    let mut bodies = structure.members.iter().filter(|member| is_body(structure, member));
    bodies.all(|member| match service.shape(member.shape).kind {
        Kind::Blob { min, max } => length_constraints(body_bytes as u64, min, max).is_empty(),
        _ => true,
    })
}

struct Check {
    service: &'static Service,
    path: String,
    violations: Vec<Violation>,
    raw_body_bytes: Option<u64>,
}

impl Check {
    fn at(&mut self, step: &str, inside: impl FnOnce(&mut Check)) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(step);
        inside(self);
        self.path.truncate(before);
    }

    /// `TrainingJobName` is told as `trainingJobName`.
    fn at_member(&mut self, name: &str, inside: impl FnOnce(&mut Check)) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        let first = self.path.len();
        self.path.push_str(name);
        if let Some(letter) = self.path.get_mut(first..=first) {
            letter.make_ascii_lowercase();
        }
        inside(self);
        self.path.truncate(before);
    }

    fn violate(&mut self, value: Option<&Value>, constraint: String) {
        if self.violations.len() < MAX_VIOLATIONS {
            let value = value.map(render::value);
            self.violations.push(Violation { path: self.path.clone(), value, constraint });
        }
    }

    /// A value with its own constraints and those of all it holds.
    fn nested(&mut self, shape: ShapeId, value: &Value) {
        match (&self.service.shape(shape).kind, value) {
            (Kind::Structure(structure), Value::Object(_)) => self.structure(structure, value),
            (Kind::List { member, min, max, .. }, Value::Array(elements)) => {
                self.length(value, elements.len() as u64, *min, *max);
                self.elements(*member, value, elements);
            }
            (Kind::Map { key, value: shape, min, max, .. }, Value::Object(entries)) => {
                self.length(value, entries.len() as u64, *min, *max);
                let wrong_key = |name: &String| !fits(self.service, *key, &Value::String(name.clone()));
                if entries.keys().any(wrong_key) {
                    let wanted = constraints(self.service, *key).join(", ");
                    self.violate(Some(value), format!("Map keys must satisfy constraint: [{wanted}]"));
                }
                self.values(*shape, value, entries);
            }
            (Kind::Blob { min, max }, Value::String(text)) => {
                for constraint in length_constraints(base64_bytes(text), *min, *max) {
                    self.violate(None, constraint);
                }
            }
            _ => {
                for constraint in broken(self.service, shape, value) {
                    self.violate(Some(value), constraint);
                }
            }
        }
    }

    fn structure(&mut self, structure: &'static Structure, value: &Value) {
        for member in structure.members {
            match member_of(value, member.name).filter(|given| !given.is_null()) {
                Some(given) => self.at_member(member.name, |check| check.nested(member.shape, given)),
                // Most members of most requests are not there, and need not be.
                None if !member.required && !self.is_beside(structure, member) => {}
                None => self.at_member(member.name, |check| check.absent(structure, member)),
            }
        }
        let is_set = |member: &&Member| value.get(member.name).is_some_and(|value| !value.is_null());
        if structure.union && structure.members.iter().filter(is_set).count() != 1 {
            let names: Vec<&str> = structure.members.iter().map(|member| member.name).collect();
            self.violate(None, format!("Exactly one of the members [{}] must be set", names.join(", ")));
        }
    }

    /// Whether it is the body of a raw operation, which is kept beside the input.
    fn is_beside(&self, structure: &Structure, member: &Member) -> bool {
        self.raw_body_bytes.is_some() && is_body(structure, member)
    }

    fn absent(&mut self, structure: &Structure, member: &Member) {
        let beside = self.raw_body_bytes.filter(|_| self.is_beside(structure, member));
        match (beside, &self.service.shape(member.shape).kind) {
            (Some(bytes), Kind::Blob { min, max }) => {
                for constraint in length_constraints(bytes, *min, *max) {
                    self.violate(None, constraint);
                }
            }
            (Some(_), _) => {}
            (None, _) if member.required => {
                self.violate(Some(&Value::Null), "Member must not be null".into())
            }
            (None, _) => {}
        }
    }

    fn length(&mut self, value: &Value, length: u64, min: Option<u64>, max: Option<u64>) {
        for constraint in length_constraints(length, min, max) {
            self.violate(Some(value), constraint);
        }
    }

    /// Elements that hold something are told one by one; plain ones together, as the services do.
    fn elements(&mut self, shape: ShapeId, list: &Value, elements: &[Value]) {
        if holds_more(self.service, shape) {
            for (index, element) in elements.iter().enumerate() {
                self.at(&format!("{}.member", index + 1), |check| match element {
                    Value::Null => check.violate(Some(element), "Member must not be null".into()),
                    element => check.nested(shape, element),
                });
            }
        } else if elements.iter().any(|element| !fits(self.service, shape, element)) {
            let mut wanted = constraints(self.service, shape);
            if elements.iter().any(Value::is_null) {
                wanted.push("Member must not be null".into());
            }
            self.violate(Some(list), format!("Member must satisfy constraint: [{}]", wanted.join(", ")));
        }
    }

    fn values(&mut self, shape: ShapeId, map: &Value, entries: &serde_json::Map<String, Value>) {
        if holds_more(self.service, shape) {
            for (key, value) in entries {
                let step = format!("{}.member", render::shortened(key));
                self.at(&step, |check| match value {
                    Value::Null => check.violate(Some(value), "Member must not be null".into()),
                    value => check.nested(shape, value),
                });
            }
        } else if entries.values().any(|value| !fits(self.service, shape, value)) {
            let mut wanted = constraints(self.service, shape);
            if entries.values().any(Value::is_null) {
                wanted.push("Member must not be null".into());
            }
            self.violate(Some(map), format!("Map value must satisfy constraint: [{}]", wanted.join(", ")));
        }
    }
}

/// A member of a value. In a small one it is found sooner by a look at all names than by their hashes.
fn member_of<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    const SMALL: usize = 8;
    match value {
        Value::Object(members) if members.len() <= SMALL => {
            members.iter().find_map(|(given, value)| (given == name).then_some(value))
        }
        value => value.get(name),
    }
}

fn is_body(structure: &Structure, member: &Member) -> bool {
    structure.payload == Some(member.name)
        || (structure.payload.is_none() && matches!(member.location, Location::Body))
}

fn holds_more(service: &Service, shape: ShapeId) -> bool {
    matches!(service.shape(shape).kind, Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. })
}

fn fits(service: &'static Service, shape: ShapeId, value: &Value) -> bool {
    !value.is_null() && broken(service, shape, value).is_empty()
}

/// The constraints of a scalar that a value breaks. A text of the wrong length is not matched against the pattern.
fn broken(service: &'static Service, shape: ShapeId, value: &Value) -> Vec<String> {
    match (&service.shape(shape).kind, value) {
        (Kind::String { min, max, pattern, values }, Value::String(text)) => {
            let mut broken = length_constraints(text.chars().count() as u64, *min, *max);
            if let Some(pattern) =
                pattern.filter(|pattern| broken.is_empty() && !pattern::matches(pattern, text))
            {
                broken.push(pattern_constraint(pattern));
            }
            if !values.is_empty() && !values.contains(&text.as_str()) {
                broken.push(enum_constraint(values));
            }
            broken
        }
        (Kind::Blob { min, max }, Value::String(text)) => length_constraints(base64_bytes(text), *min, *max),
        (
            Kind::Integer { min, max } | Kind::Long { min, max } | Kind::Float { min, max },
            Value::Number(number),
        ) => {
            let number = number.as_f64().unwrap_or_default();
            let mut broken = Vec::new();
            broken.extend(max.filter(|max| number > *max).map(|max| value_constraint("less", max)));
            broken.extend(min.filter(|min| number < *min).map(|min| value_constraint("greater", min)));
            broken
        }
        _ => Vec::new(),
    }
}

/// All constraints of a scalar, broken or not, in the order of the services.
fn constraints(service: &'static Service, shape: ShapeId) -> Vec<String> {
    let mut all = Vec::new();
    match &service.shape(shape).kind {
        Kind::String { min, max, pattern, values } => {
            all.extend(max.map(|max| length_constraint("less", max)));
            all.extend(min.map(|min| length_constraint("greater", min)));
            all.extend(pattern.map(pattern_constraint));
            if !values.is_empty() {
                all.push(enum_constraint(values));
            }
        }
        Kind::Blob { min, max } => {
            all.extend(max.map(|max| length_constraint("less", max)));
            all.extend(min.map(|min| length_constraint("greater", min)));
        }
        Kind::Integer { min, max } | Kind::Long { min, max } | Kind::Float { min, max } => {
            all.extend(max.map(|max| value_constraint("less", max)));
            all.extend(min.map(|min| value_constraint("greater", min)));
        }
        _ => {}
    }
    all
}

fn length_constraints(length: u64, min: Option<u64>, max: Option<u64>) -> Vec<String> {
    let over = max.filter(|max| length > *max).map(|max| length_constraint("less", max));
    let under = min.filter(|min| length < *min).map(|min| length_constraint("greater", min));
    over.into_iter().chain(under).collect()
}

fn length_constraint(side: &str, bound: u64) -> String {
    format!("Member must have length {side} than or equal to {bound}")
}

fn value_constraint(side: &str, bound: f64) -> String {
    // Whole bounds print without a fraction.
    format!("Member must have value {side} than or equal to {bound}")
}

fn pattern_constraint(pattern: &str) -> String {
    format!("Member must satisfy regular expression pattern: {pattern}")
}

fn enum_constraint(values: &[&str]) -> String {
    format!("{ENUMERATION}[{}]", values.join(", "))
}

/// Length of what base64 text with padding stands for.
fn base64_bytes(text: &str) -> u64 {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    ((text.len() - padding) * 3 / 4) as u64
}

/// Compiles a pattern, for the guard over all models.
///
/// # Errors
/// The pattern with the reason when it cannot be compiled.
pub fn check_pattern(pattern: &'static str) -> Result<(), String> {
    pattern::compile(pattern).map(drop).map_err(|reason| format!("{pattern}: {reason}"))
}
