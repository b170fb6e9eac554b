//! The content of model cards: which members there are and what they may hold, after the schema that SageMaker publishes.

use serde_json::{Map, Value, json};

/// What a value must be.
enum Rule {
    /// A text of at most so many characters.
    Text(usize),
    /// A text of at least one and at most so many characters.
    Name(usize),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Any number.
    Number,
    /// A number from 1.
    Version,
    /// A list of so many elements, from and to.
    List(usize, usize, &'static Rule),
    /// An object with these members.
    Object(&'static [Member]),
    /// An object with any names.
    Map(&'static Rule),
    /// Any object; its members are the caller's.
    AnyObject,
    /// A metric of an evaluation, whose `type` says what its value is.
    Metric,
}

/// A member of an object: its name, whether it must be there, and what it must be.
type Member = (&'static str, bool, Rule);

const LINES: Rule = Rule::Text(2048);
const LINE: Rule = Rule::Text(1024);
const AXIS: Rule = Rule::Text(63);
const AXES: Rule = Rule::List(0, usize::MAX, &AXIS);
const LOCATIONS: Rule = Rule::List(0, 15, &LINE);
const ENVIRONMENT: Rule = Rule::Object(&[("container_image", false, LOCATIONS)]);

const TRAINING_METRIC: Rule =
    Rule::Object(&[("name", true, Rule::Name(255)), ("notes", false, LINE), ("value", true, Rule::Number)]);
const HYPER_PARAMETER: Rule =
    Rule::Object(&[("name", true, Rule::Name(255)), ("value", true, Rule::Name(255))]);

const INTENDED_USES: Rule = Rule::Object(&[
    ("purpose_of_model", false, LINES),
    ("intended_uses", false, LINES),
    ("factors_affecting_model_efficiency", false, LINES),
    ("risk_rating", false, Rule::OneOf(&["High", "Medium", "Low", "Unknown"])),
    ("explanations_for_risk_rating", false, LINES),
]);

const BUSINESS_DETAILS: Rule = Rule::Object(&[
    ("business_problem", false, LINES),
    ("business_stakeholders", false, LINES),
    ("line_of_business", false, LINES),
]);

const OBJECTIVE: Rule = Rule::Object(&[
    ("function", false, Rule::OneOf(&["Maximize", "Minimize"])),
    ("facet", false, AXIS),
    ("condition", false, AXIS),
]);

const TRAINING_DETAILS: Rule = Rule::Object(&[
    ("objective_function", false, Rule::Object(&[("function", false, OBJECTIVE), ("notes", false, LINE)])),
    ("training_observations", false, LINE),
    (
        "training_job_details",
        false,
        Rule::Object(&[
            ("training_arn", false, LINE),
            ("training_datasets", false, LOCATIONS),
            ("training_environment", false, ENVIRONMENT),
            ("training_metrics", false, Rule::List(0, 50, &TRAINING_METRIC)),
            ("user_provided_training_metrics", false, Rule::List(0, 50, &TRAINING_METRIC)),
            ("hyper_parameters", false, Rule::List(0, 100, &HYPER_PARAMETER)),
            ("user_provided_hyper_parameters", false, Rule::List(0, 100, &HYPER_PARAMETER)),
        ]),
    ),
]);

const METRIC_GROUP: Rule = Rule::Object(&[
    ("name", true, Rule::Name(63)),
    ("metric_data", true, Rule::List(0, usize::MAX, &Rule::Metric)),
]);

const EVALUATION: Rule = Rule::Object(&[
    ("name", true, Rule::Name(63)),
    ("evaluation_observation", false, Rule::Text(2096)),
    ("evaluation_job_arn", false, Rule::Text(256)),
    ("datasets", false, Rule::List(0, 10, &LINE)),
    ("metadata", false, Rule::Map(&LINE)),
    ("metric_groups", false, Rule::List(0, usize::MAX, &METRIC_GROUP)),
]);

const ADDITIONAL_INFORMATION: Rule = Rule::Object(&[
    ("ethical_considerations", false, LINES),
    ("caveats_and_recommendations", false, LINES),
    ("custom_details", false, Rule::Map(&LINE)),
]);

const MODEL_OVERVIEW: Rule = Rule::Object(&[
    ("model_id", false, LINE),
    ("model_name", false, LINE),
    ("model_description", false, LINE),
    ("model_version", false, Rule::Version),
    ("problem_type", false, LINE),
    ("algorithm_type", false, LINE),
    ("model_creator", false, LINE),
    ("model_owner", false, LINE),
    ("model_artifact", false, LOCATIONS),
    ("inference_environment", false, ENVIRONMENT),
]);

const CONTAINER: Rule = Rule::Object(&[
    ("image", true, Rule::Text(255)),
    ("model_data_url", false, LINE),
    ("nearest_model_name", false, LINE),
]);

const SOURCE_ALGORITHM: Rule =
    Rule::Object(&[("algorithm_name", true, Rule::Text(170)), ("model_data_url", false, LINE)]);

const MODEL_PACKAGE_DETAILS: Rule = Rule::Object(&[
    ("model_package_arn", false, LINE),
    ("model_package_description", false, LINE),
    (
        "model_package_status",
        false,
        Rule::OneOf(&["Pending", "InProgress", "Completed", "Failed", "Deleting"]),
    ),
    ("approval_description", false, LINE),
    ("model_approval_status", false, Rule::OneOf(&["Approved", "Rejected", "PendingManualApproval"])),
    ("model_package_group_name", false, AXIS),
    ("model_package_name", false, AXIS),
    ("model_package_version", false, Rule::Version),
    ("domain", false, LINE),
    ("task", false, LINE),
    ("created_by", false, Rule::Object(&[("user_profile_name", true, AXIS)])),
    ("source_algorithms", false, Rule::List(1, 1, &SOURCE_ALGORITHM)),
    ("inference_specification", false, Rule::Object(&[("containers", true, Rule::List(1, 15, &CONTAINER))])),
    ("model_metrics", false, Rule::AnyObject),
]);

const CARD: Rule = Rule::Object(&[
    ("model_overview", false, MODEL_OVERVIEW),
    ("model_package_details", false, MODEL_PACKAGE_DETAILS),
    ("intended_uses", false, INTENDED_USES),
    ("business_details", false, BUSINESS_DETAILS),
    ("training_details", false, TRAINING_DETAILS),
    ("evaluation_details", false, Rule::List(0, usize::MAX, &EVALUATION)),
    ("additional_information", false, ADDITIONAL_INFORMATION),
]);

const PACKAGE_CARD: Rule = Rule::Object(&[
    (
        "model_overview",
        false,
        Rule::Object(&[("model_creator", false, LINE), ("model_artifact", false, LOCATIONS)]),
    ),
    ("intended_uses", false, INTENDED_USES),
    ("business_details", false, BUSINESS_DETAILS),
    ("training_details", false, TRAINING_DETAILS),
    ("evaluation_details", false, Rule::List(0, usize::MAX, &EVALUATION)),
    ("additional_information", false, ADDITIONAL_INFORMATION),
]);

const SIMPLE_METRICS: &[&str] = &["number", "string", "boolean"];
const POINT: Rule = Rule::List(2, 2, &Rule::Number);
const ROW: Rule = Rule::List(1, 20, &Rule::Number);

/// Checks the content of a model card.
///
/// # Errors
/// A sentence that names the place and what is wrong there.
pub fn check_card(content: &str) -> Result<(), String> {
    check_text(content, &CARD)
}

/// Checks the content of the card in a model package, which has no package details and less of an overview.
///
/// # Errors
/// As [`check_card`].
pub fn check_package_card(content: &str) -> Result<(), String> {
    check_text(content, &PACKAGE_CARD)
}

/// What remains of a content when only metadata is asked for.
pub fn metadata_of(content: &str) -> String {
    let content: Value = serde_json::from_str(content).unwrap_or_default();
    let mut kept = Map::new();
    for (section, member) in [
        ("model_overview", "model_id"),
        ("model_overview", "model_name"),
        ("intended_uses", "risk_rating"),
        ("model_package_details", "model_package_group_name"),
        ("model_package_details", "model_package_arn"),
    ] {
        let value = &content[section][member];
        if !value.is_null() {
            kept.entry(section).or_insert_with(|| json!({}))[member] = value.clone();
        }
    }
    Value::Object(kept).to_string()
}

fn check_text(content: &str, rule: &Rule) -> Result<(), String> {
    let value: Value = serde_json::from_str(content)
        .map_err(|error| format!("The content of a model card is JSON, and this is none: {error}."))?;
    check(&value, rule, "").map_err(|(place, problem)| {
        let place =
            if place.is_empty() { "The content".to_owned() } else { format!("{place} in the content") };
        format!("{place} of the model card {problem}.")
    })
}

type Verdict = Result<(), (String, String)>;

fn check(value: &Value, rule: &Rule, place: &str) -> Verdict {
    let wrong = |problem: String| Err((place.to_owned(), problem));
    match rule {
        Rule::Text(most) => match value.as_str() {
            Some(text) if text.chars().count() <= *most => Ok(()),
            Some(_) => wrong(format!("has more than {most} characters")),
            None => wrong("must be a string".into()),
        },
        Rule::Name(most) => match value.as_str() {
            Some(text) if (1..=*most).contains(&text.chars().count()) => Ok(()),
            _ => wrong(format!("must be a string of 1 to {most} characters")),
        },
        Rule::OneOf(known) => match value.as_str() {
            Some(text) if known.contains(&text) => Ok(()),
            _ => wrong(format!("must be one of {}", known.join(", "))),
        },
        Rule::Number => value.is_number().then_some(()).ok_or_else(|| number(place)),
        Rule::Version => {
            let is_version = value.as_f64().is_some_and(|number| number >= 1.0);
            is_version.then_some(()).ok_or_else(|| (place.to_owned(), "must be a number from 1".into()))
        }
        Rule::List(least, most, element) => {
            let Some(elements) = value.as_array() else { return wrong("must be a list".into()) };
            if elements.len() < *least || elements.len() > *most {
                let bounds = if *most == usize::MAX {
                    format!("at least {least}")
                } else {
                    format!("{least} to {most}")
                };
                return wrong(format!("must have {bounds} elements"));
            }
            let mut numbered = elements.iter().enumerate();
            numbered.try_for_each(|(number, one)| check(one, element, &format!("{place}[{number}]")))
        }
        Rule::Object(members) => check_object(value, members, place),
        Rule::Map(rule) => {
            let Some(members) = value.as_object() else { return wrong("must be an object".into()) };
            members.iter().try_for_each(|(name, one)| check(one, rule, &below(place, name)))
        }
        Rule::AnyObject => {
            value.is_object().then_some(()).ok_or_else(|| (place.to_owned(), "must be an object".into()))
        }
        Rule::Metric => check_metric(value, place),
    }
}

fn number(place: &str) -> (String, String) {
    (place.to_owned(), "must be a number".into())
}

fn check_object(value: &Value, members: &[Member], place: &str) -> Verdict {
    let wrong = |problem: String| Err((place.to_owned(), problem));
    let Some(given) = value.as_object() else { return wrong("must be an object".into()) };
    if let Some(other) = given.keys().find(|name| !members.iter().any(|(known, _, _)| known == name)) {
        return wrong(format!("has a member that no model card has: {other}"));
    }
    for (name, is_required, rule) in members {
        match given.get(*name) {
            Some(one) => check(one, rule, &below(place, name))?,
            None if *is_required => return wrong(format!("needs the member {name}")),
            None => {}
        }
    }
    Ok(())
}

fn check_metric(value: &Value, place: &str) -> Verdict {
    let kind = value["type"].as_str().unwrap_or_default();
    let (rule, x_axis, y_axis): (Rule, &Rule, &Rule) = match kind {
        "linear_graph" => (Rule::List(1, usize::MAX, &POINT), &AXIS, &AXIS),
        "bar_chart" => (Rule::List(1, usize::MAX, &Rule::Number), &AXES, &AXIS),
        "matrix" => (Rule::List(1, 20, &ROW), &AXES, &AXES),
        _ => (Rule::AnyObject, &AXIS, &AXIS),
    };
    let given = value.as_object().ok_or_else(|| (place.to_owned(), "must be an object".to_owned()))?;
    for (name, member) in given {
        let place = below(place, name);
        match name.as_str() {
            "name" => check(member, &Rule::Name(255), &place)?,
            "notes" => check(member, &LINE, &place)?,
            "type" if SIMPLE_METRICS.contains(&kind) => {}
            "type" => check(
                member,
                &Rule::OneOf(&["number", "string", "boolean", "linear_graph", "bar_chart", "matrix"]),
                &place,
            )?,
            "x_axis_name" => check(member, x_axis, &place)?,
            "y_axis_name" => check(member, y_axis, &place)?,
            "value" if !SIMPLE_METRICS.contains(&kind) => check(member, &rule, &place)?,
            "value" if member.is_string() => check(member, &AXIS, &place)?,
            "value" if member.is_number() || member.is_boolean() => {}
            "value" => return Err((place, "must be a number, a string or a boolean".into())),
            other => return Err((place, format!("is a member that no metric has: {other}"))),
        }
    }
    match ["name", "type", "value"].into_iter().find(|name| !given.contains_key(*name)) {
        Some(missing) => Err((place.to_owned(), format!("needs the member {missing}"))),
        None => Ok(()),
    }
}

fn below(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(content: &Value) -> String {
        check_card(&content.to_string()).err().unwrap_or_default()
    }

    fn metric(metric: &Value) -> String {
        problem(
            &json!({"evaluation_details": [{"name": "e", "metric_groups": [{"name": "g", "metric_data": [metric]}]}]}),
        )
    }

    #[test]
    fn a_full_card_passes() {
        let card = json!({
            "model_overview": {"model_name": "n", "model_version": 2, "model_artifact": ["s3://b/m"], "inference_environment": {"container_image": ["i"]}},
            "model_package_details": {"model_approval_status": "Approved", "inference_specification": {"containers": [{"image": "i"}]}},
            "intended_uses": {"risk_rating": "Low"},
            "business_details": {"business_problem": "p"},
            "training_details": {"objective_function": {"function": {"function": "Maximize", "facet": "AUC"}, "notes": "n"},
                "training_job_details": {"training_metrics": [{"name": "m", "value": 1}], "hyper_parameters": [{"name": "h", "value": "1"}]}},
            "evaluation_details": [{"name": "e", "metadata": {"a": "b"}}],
            "additional_information": {"custom_details": {"a": "b"}},
        });
        assert_eq!(problem(&card), "");
        assert_eq!(problem(&json!({})), "");
        assert_eq!(
            metric(
                &json!({"name": "m", "type": "linear_graph", "value": [[1, 2], [2, 3]], "x_axis_name": "x"})
            ),
            ""
        );
        assert_eq!(metric(&json!({"name": "m", "type": "matrix", "value": [[1]], "x_axis_name": ["x"]})), "");
        assert_eq!(metric(&json!({"name": "m", "type": "boolean", "value": true})), "");
    }

    #[test]
    fn the_place_of_a_fault_is_named() {
        for (card, texts) in [
            (json!([]), ["The content of the model card", "object"]),
            (json!({"other": 1}), ["other", "no model card has"]),
            (
                json!({"intended_uses": {"risk_rating": "Huge"}}),
                ["intended_uses.risk_rating", "High, Medium"],
            ),
            (json!({"model_overview": {"model_version": 0}}), ["model_overview.model_version", "from 1"]),
            (json!({"model_overview": {"model_artifact": vec!["a"; 16]}}), ["model_artifact", "0 to 15"]),
            (
                json!({"business_details": {"business_problem": "x".repeat(2049)}}),
                ["business_problem", "2048"],
            ),
            (json!({"evaluation_details": [{"name": ""}]}), ["evaluation_details[0].name", "1 to 63"]),
            (json!({"evaluation_details": [{}]}), ["evaluation_details[0]", "needs the member name"]),
        ] {
            let problem = problem(&card);
            assert!(texts.iter().all(|text| problem.contains(text)), "{card}: {problem}");
        }
        assert!(check_card("{").unwrap_err().contains("JSON"));
        assert!(metric(&json!({"name": "m", "type": "linear_graph", "value": [[1]]})).contains("value[0]"));
        assert!(metric(&json!({"name": "m", "type": "pie", "value": 1})).contains("must"));
        assert!(
            metric(&json!({"name": "m", "type": "bar_chart", "value": [1], "x_axis_name": "x"}))
                .contains("x_axis_name")
        );
        assert!(metric(&json!({"name": "m", "type": "number"})).contains("needs the member value"));
        let overview = json!({"model_overview": {"model_name": "n"}}).to_string();
        assert!(check_package_card(&overview).unwrap_err().contains("model_name"));
    }

    #[test]
    fn metadata_is_names_and_the_risk() {
        let card = json!({"model_overview": {"model_name": "n", "model_owner": "o"}, "intended_uses": {"risk_rating": "Low"}});
        let kept: Value = serde_json::from_str(&metadata_of(&card.to_string())).unwrap();
        assert_eq!(
            kept,
            json!({"model_overview": {"model_name": "n"}, "intended_uses": {"risk_rating": "Low"}})
        );
    }
}
