//! What an experiment may be made of, when it runs, and what a stop leaves: rules without a database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long an experiment runs when nobody says, as in the service.
pub const USUAL_MS: i64 = 7 * DAY_MS;
/// The longest that one may run, as in the service.
const LONGEST_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// When an experiment runs, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Its begin.
    pub start_at: i64,
    /// Its end.
    pub end_at: i64,
}

/// When an experiment runs that asks for these times now.
///
/// # Errors
/// A sentence naming the field.
pub fn schedule(start_at: Option<i64>, end_at: Option<i64>, now_ms: i64) -> Result<Schedule, String> {
    let start_at = start_at.unwrap_or(now_ms).max(now_ms);
    let end_at = end_at.unwrap_or(start_at + USUAL_MS);
    if end_at <= start_at {
        return Err("Schedule.EndTime: it must be in the future and after StartTime.".into());
    }
    if end_at - start_at > LONGEST_MS {
        return Err("Schedule: an experiment runs for 30 days at most.".into());
    }
    Ok(Schedule { start_at, end_at })
}

/// The two variants of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variants<'a> {
    /// The element of `ModelVariants` that takes all requests.
    pub production: &'a Value,
    /// The one that gets copies.
    pub shadow: &'a Value,
    /// Per cent of the requests that are copied.
    pub percentage: i64,
}

/// The variants of a stored or given experiment.
///
/// # Errors
/// A sentence naming the field.
pub fn variants(spec: &Value) -> Result<Variants<'_>, String> {
    let given = spec["ModelVariants"].as_array().map_or(&[][..], Vec::as_slice);
    let mode = &spec["ShadowModeConfig"];
    let of = |name: &Value, member: &str| {
        let found = given.iter().find(|variant| variant["VariantName"] == *name);
        found.ok_or_else(|| format!("ShadowModeConfig.{member}: ModelVariants has no variant {name}."))
    };
    let [one, other] = given else {
        return Err("ModelVariants: a shadow test has two variants, production and shadow.".into());
    };
    if one["VariantName"] == other["VariantName"] {
        return Err(format!("ModelVariants: the variant name {} is given twice.", one["VariantName"]));
    }
    let [shadow] = mode["ShadowModelVariants"].as_array().map_or(&[][..], Vec::as_slice) else {
        return Err("ShadowModeConfig.ShadowModelVariants: give one shadow variant.".into());
    };
    if mode["SourceModelVariantName"] == shadow["ShadowModelVariantName"] {
        return Err("ShadowModeConfig: production and shadow must be different variants.".into());
    }
    let percentage = shadow["SamplingPercentage"].as_i64().unwrap_or_default();
    if !(0..=100).contains(&percentage) {
        return Err("ShadowModeConfig.ShadowModelVariants.SamplingPercentage: give 0 to 100.".into());
    }
    Ok(Variants {
        production: of(&mode["SourceModelVariantName"], "SourceModelVariantName")?,
        shadow: of(&shadow["ShadowModelVariantName"], "ShadowModelVariants.ShadowModelVariantName")?,
        percentage,
    })
}

/// What is served after an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Production alone.
    Production,
    /// The shadow, as production.
    Promoted,
    /// Both, as before.
    Both,
}

/// What the actions of a stop leave. A production variant without an action stays unless the shadow takes its place; a shadow without
/// one goes.
///
/// # Errors
/// A sentence naming the field.
pub fn outcome(variants: &Variants<'_>, actions: &BTreeMap<String, String>) -> Result<Outcome, String> {
    let name = |variant: &Value| variant["VariantName"].as_str().unwrap_or_default().to_owned();
    let (production, shadow) = (name(variants.production), name(variants.shadow));
    if let Some(unknown) = actions.keys().find(|name| **name != production && **name != shadow) {
        return Err(format!("ModelVariantActions: the experiment has no variant {unknown:?}."));
    }
    let action = |name: &str| actions.get(name).map(String::as_str);
    match (action(&production), action(&shadow)) {
        (Some("Promote"), _) => Err(format!(
            "ModelVariantActions: {production} is the production variant already; Promote is for the shadow variant."
        )),
        (None | Some("Remove"), Some("Promote")) => Ok(Outcome::Promoted),
        (Some("Retain"), Some("Promote")) => Err(format!(
            "ModelVariantActions: an endpoint has one production variant after a shadow test; give {production} the action Remove to \
             promote {shadow}."
        )),
        (None | Some("Retain"), None | Some("Remove")) => Ok(Outcome::Production),
        (None | Some("Retain"), Some("Retain")) => Ok(Outcome::Both),
        (Some("Remove"), _) => Err(format!(
            "ModelVariantActions: without {production} the endpoint needs a production variant; promote {shadow}."
        )),
        (action, other) => Err(format!("ModelVariantActions: {action:?} and {other:?} do not go together.")),
    }
}

/// The variants that are deployed after a stop with these `DesiredModelVariants`, laid over those of the experiment.
///
/// # Errors
/// A sentence naming the field.
pub fn desired(variants: &Variants<'_>, outcome: Outcome, given: &[Value]) -> Result<Vec<Value>, String> {
    let left = match outcome {
        Outcome::Production => vec![variants.production],
        Outcome::Promoted => vec![variants.shadow],
        Outcome::Both => vec![variants.production, variants.shadow],
    };
    let named = |name: &Value| left.iter().any(|variant| variant["VariantName"] == *name);
    if let Some(unknown) = given.iter().find(|variant| !named(&variant["VariantName"])) {
        return Err(format!(
            "DesiredModelVariants: variant {} is not deployed after this stop.",
            unknown["VariantName"]
        ));
    }
    let of = |variant: &Value| {
        let wanted = given.iter().find(|given| given["VariantName"] == variant["VariantName"]);
        if wanted.is_some_and(|wanted| wanted["ModelName"] != variant["ModelName"]) {
            return Err(format!(
                "DesiredModelVariants: variant {} serves model {}; only its infrastructure can be another one.",
                variant["VariantName"], variant["ModelName"]
            ));
        }
        Ok(wanted.unwrap_or(variant).clone())
    };
    left.into_iter().map(of).collect()
}

/// The endpoint configuration of these variants. What `before`, the configuration that the endpoint had, says of the production variant
/// and of data capture stays, where the experiment does not say otherwise.
pub fn endpoint_config(
    name: &str,
    production: &Value,
    shadow: Option<(&Value, i64)>,
    storage: &Value,
    before: &Value,
) -> Value {
    let mut same = before["ProductionVariants"].as_array().into_iter().flatten();
    let same = same.find(|variant| variant["VariantName"] == production["VariantName"]);
    let mut served = same.cloned().unwrap_or_else(|| json!({}));
    lay_over(&mut served, &variant(production, 1.0));
    let mut config = json!({"EndpointConfigName": name, "ProductionVariants": [served]});
    if let Some((shadow, percentage)) = shadow {
        config["ShadowProductionVariants"] = json!([variant(shadow, percentage as f64 / 100.0)]);
    }
    let capture = if storage.is_null() { before["DataCaptureConfig"].clone() } else { capture(storage) };
    if !capture.is_null() {
        config["DataCaptureConfig"] = capture;
    }
    config
}

fn variant(given: &Value, weight: f64) -> Value {
    let infrastructure = &given["InfrastructureConfig"]["RealTimeInferenceConfig"];
    json!({
        "VariantName": given["VariantName"],
        "ModelName": given["ModelName"],
        "InstanceType": infrastructure["InstanceType"],
        "InitialInstanceCount": infrastructure["InstanceCount"],
        "InitialVariantWeight": weight,
    })
}

fn capture(storage: &Value) -> Value {
    let mut capture = json!({
        "EnableCapture": true,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": storage["Destination"],
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
    });
    for (name, value) in
        [("KmsKeyId", &storage["KmsKey"]), ("CaptureContentTypeHeader", &storage["ContentType"])]
    {
        if !value.is_null() {
            capture[name] = value.clone();
        }
    }
    capture
}

/// Puts the members of `over` into `base`.
pub fn lay_over(base: &mut Value, over: &Value) {
    if let (Value::Object(base), Value::Object(over)) = (base, over) {
        base.extend(over.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, model: &str, count: i64) -> Value {
        json!({"VariantName": name, "ModelName": model, "InfrastructureConfig": {
            "InfrastructureType": "RealTimeInference",
            "RealTimeInferenceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": count},
        }})
    }

    fn given() -> Value {
        json!({
            "ModelVariants": [model("p", "m", 1), model("s", "n", 2)],
            "ShadowModeConfig": {
                "SourceModelVariantName": "p",
                "ShadowModelVariants": [{"ShadowModelVariantName": "s", "SamplingPercentage": 25}],
            },
        })
    }

    #[test]
    fn the_two_variants_are_found_or_what_is_wrong_is_named() {
        let spec = given();
        let found = variants(&spec).unwrap();
        assert_eq!((&found.production["ModelName"], found.percentage), (&json!("m"), 25));
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 6] = [
            (|spec| spec["ModelVariants"] = json!([model("p", "m", 1)]), "two variants"),
            (|spec| spec["ModelVariants"][1]["VariantName"] = json!("p"), "given twice"),
            (
                |spec| spec["ShadowModeConfig"]["SourceModelVariantName"] = json!("x"),
                "SourceModelVariantName",
            ),
            (|spec| spec["ShadowModeConfig"]["SourceModelVariantName"] = json!("s"), "different variants"),
            (
                |spec| {
                    spec["ShadowModeConfig"]["ShadowModelVariants"][0]["ShadowModelVariantName"] = json!("x")
                },
                "ShadowModelVariantName",
            ),
            (
                |spec| spec["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = json!(-1),
                "SamplingPercentage",
            ),
        ];
        for (change, named) in cases {
            let mut spec = given();
            change(&mut spec);
            let refused = variants(&spec).unwrap_err();
            assert!(refused.contains(named), "{named}: {refused}");
        }
    }

    #[test]
    fn a_schedule_begins_now_and_ends_within_thirty_days() {
        let of = |start, end| schedule(start, end, 1000).map(|found| (found.start_at, found.end_at));
        assert_eq!(of(None, None), Ok((1000, 1000 + USUAL_MS)));
        assert_eq!(of(Some(5000), Some(6000)), Ok((5000, 6000)));
        assert_eq!(of(Some(0), Some(6000)), Ok((1000, 6000)), "what is past begins now");
        assert!(of(Some(5000), Some(5000)).unwrap_err().contains("EndTime"));
        assert!(of(None, Some(500)).unwrap_err().contains("EndTime"));
        assert!(of(None, Some(1001 + LONGEST_MS)).unwrap_err().contains("30 days"));
    }

    #[test]
    fn actions_leave_one_production_variant() {
        let spec = given();
        let variants = variants(&spec).unwrap();
        let of = |actions: &[(&str, &str)]| {
            let actions = actions.iter().map(|(name, action)| ((*name).to_owned(), (*action).to_owned()));
            outcome(&variants, &actions.collect())
        };
        assert_eq!(of(&[("s", "Promote")]), Ok(Outcome::Promoted));
        assert_eq!(of(&[("p", "Remove"), ("s", "Promote")]), Ok(Outcome::Promoted));
        assert_eq!(of(&[("p", "Retain"), ("s", "Remove")]), Ok(Outcome::Production));
        assert_eq!(of(&[("p", "Retain")]), Ok(Outcome::Production));
        assert_eq!(of(&[("s", "Remove")]), Ok(Outcome::Production));
        assert_eq!(of(&[("p", "Retain"), ("s", "Retain")]), Ok(Outcome::Both));
        for (actions, named) in [
            (&[("x", "Remove")][..], "no variant \"x\""),
            (&[("p", "Promote")], "production variant already"),
            (&[("p", "Retain"), ("s", "Promote")], "action Remove"),
            (&[("p", "Remove")], "promote s"),
            (&[("p", "Remove"), ("s", "Retain")], "promote s"),
        ] {
            let refused = of(actions).unwrap_err();
            assert!(refused.contains(named), "{named}: {refused}");
        }
    }

    #[test]
    fn what_is_desired_is_of_the_variants_that_stay() {
        let spec = given();
        let variants = variants(&spec).unwrap();
        let grown = model("s", "n", 5);
        assert_eq!(
            desired(&variants, Outcome::Promoted, std::slice::from_ref(&grown)),
            Ok(vec![grown.clone()])
        );
        assert_eq!(desired(&variants, Outcome::Production, &[]), Ok(vec![model("p", "m", 1)]));
        assert!(desired(&variants, Outcome::Production, &[grown]).unwrap_err().contains("not deployed"));
        let other = model("s", "other", 1);
        assert!(desired(&variants, Outcome::Promoted, &[other]).unwrap_err().contains("serves model"));
    }

    #[test]
    fn a_configuration_keeps_what_the_experiment_does_not_change() {
        let spec = given();
        let variants = variants(&spec).unwrap();
        let before = json!({
            "ProductionVariants": [{"VariantName": "p", "ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 3,
                "RoutingConfig": {"RoutingStrategy": "RANDOM"}}],
            "DataCaptureConfig": {"DestinationS3Uri": "s3://before"},
        });
        let config =
            endpoint_config("c", variants.production, Some((variants.shadow, 25)), &Value::Null, &before);
        let production = &config["ProductionVariants"][0];
        assert_eq!(
            (&production["InitialInstanceCount"], &production["InstanceType"]),
            (&json!(1), &json!("ml.m5.large"))
        );
        assert_eq!(production["RoutingConfig"]["RoutingStrategy"], "RANDOM");
        let shadow = &config["ShadowProductionVariants"][0];
        assert_eq!((&shadow["InitialVariantWeight"], &shadow["ModelName"]), (&json!(0.25), &json!("n")));
        assert_eq!(config["DataCaptureConfig"]["DestinationS3Uri"], "s3://before");
        let storage = json!({"Destination": "s3://b/p", "ContentType": {"CsvContentTypes": ["text/csv"]}});
        let config = endpoint_config("c", variants.shadow, None, &storage, &Value::Null);
        assert!(config.get("ShadowProductionVariants").is_none());
        assert_eq!(
            config["DataCaptureConfig"],
            json!({
                "EnableCapture": true, "InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://b/p",
                "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
                "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
            })
        );
    }
}
