//! Definitions that the SDK wrote, and malformed ones.

use serde_json::{Value, json};

use super::*;

macro_rules! written {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/definitions/", $name, ".json")))),*]
    };
}

pub(super) const WRITTEN: [(&str, &str); 15] = written![
    "clarify_check",
    "condition_fail",
    "emr",
    "framework_processor",
    "function_step",
    "lambda_callback",
    "modelstep_create_with_repack",
    "modelstep_register",
    "processing_cache_retry",
    "quality_check",
    "registermodel_collection",
    "training_property_ref",
    "transform",
    "tuning",
    "listing3_definition"
];

/// The graph as text: each step with what it waits for.
fn graph_of(name: &str) -> Vec<String> {
    let (_, text) = WRITTEN.iter().find(|(known, _)| *known == name).unwrap();
    let mut whole: Value = serde_json::from_str(text).unwrap();
    // They were recorded without the declarations of these parameters.
    for (recorded, parameter, kind, default) in [
        ("quality_check", "Skip", "Boolean", json!(false)),
        ("modelstep_register", "Appr", "String", json!("PendingManualApproval")),
    ] {
        if name == recorded {
            let declared = json!({"Name": parameter, "Type": kind, "DefaultValue": default});
            whole["Parameters"].as_array_mut().unwrap().push(declared);
        }
    }
    let definition = Definition::parse(&whole.to_string()).unwrap_or_else(|flaw| panic!("{name}: {flaw}"));
    let steps = definition.steps.iter();
    let shown = steps.map(|step| {
        let waits: Vec<&str> =
            step.dependencies.iter().map(|at| definition.steps[*at].name.as_str()).collect();
        let branch = step.branch.map(|(_, side)| if side { " if" } else { " else" }).unwrap_or_default();
        format!("{}{branch} <- {}", step.name, waits.join(" "))
    });
    shown.collect()
}

#[test]
fn every_definition_of_the_sdk_has_its_graph() {
    for (name, graph) in [
        ("clarify_check", vec!["CC <- "]),
        ("condition_fail", vec!["Proc <- ", "Cond <- Proc", "Train if <- Proc Cond", "Fail else <- Cond"]),
        ("emr", vec!["Emr <- "]),
        ("framework_processor", vec!["FwProc <- "]),
        ("function_step", vec!["gstep <- fstep", "fstep <- "]),
        ("lambda_callback", vec!["Proc <- ", "Lam <- Proc", "CB <- Lam"]),
        (
            "modelstep_create_with_repack",
            vec![
                "Proc <- ",
                "Train <- Proc",
                "Create-RepackModel-0 <- Train",
                "Create-CreateModel <- Create-RepackModel-0",
            ],
        ),
        (
            "modelstep_register",
            vec![
                "Proc <- ",
                "Train <- Proc",
                "Reg-RepackModel-0 <- Train",
                "Reg-RegisterModel <- Proc Reg-RepackModel-0",
            ],
        ),
        ("processing_cache_retry", vec!["Proc <- "]),
        ("quality_check", vec!["QC <- "]),
        (
            "registermodel_collection",
            vec![
                "Proc <- ",
                "Train <- Proc",
                "RM-RepackModel <- Train",
                "RM-RegisterModel <- RM-RepackModel",
            ],
        ),
        ("training_property_ref", vec!["Proc <- ", "Train <- Proc"]),
        (
            "transform",
            vec![
                "Proc <- ",
                "Train <- Proc",
                "C2-RepackModel-0 <- Train",
                "C2-CreateModel <- C2-RepackModel-0",
                "Tr <- C2-CreateModel",
            ],
        ),
        ("tuning", vec!["Tune <- ", "Best-RepackModel-0 <- Tune", "Best-CreateModel <- Best-RepackModel-0"]),
        ("listing3_definition", vec!["PreprocessData <- ", "TrainModel <- ", "EvaluateModel <- TrainModel"]),
    ] {
        assert_eq!(graph_of(name), graph, "{name}");
    }
}

#[test]
fn an_undeclared_parameter_is_named() {
    let (_, text) = WRITTEN.iter().find(|(name, _)| *name == "quality_check").unwrap();
    let flaw = Definition::parse(text).unwrap_err().to_string();
    assert!(flaw.contains("Steps[0]") && flaw.contains("Parameters.Skip"), "{flaw}");
}

fn flaw(change: impl FnOnce(&mut Value)) -> String {
    let mut whole = json!({
        "Version": "2020-12-01",
        "Parameters": [{"Name": "N", "Type": "Integer", "DefaultValue": 1}],
        "Steps": [
            {"Name": "a", "Type": "Training", "Arguments": {"RoleArn": {"Get": "Parameters.N"}, "HyperParameters": {"n": "1"}}},
            {"Name": "b", "Type": "Lambda", "FunctionArn": "f", "DependsOn": ["a"], "Arguments": {}},
            {"Name": "c", "Type": "Condition", "Arguments": {
                "Conditions": [{"Type": "Equals", "LeftValue": {"Get": "Parameters.N"}, "RightValue": 1}],
                "IfSteps": [{"Name": "d", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}]}},
        ],
    });
    Definition::parse(&whole.to_string()).unwrap();
    change(&mut whole);
    Definition::parse(&whole.to_string()).unwrap_err().to_string()
}

#[test]
fn each_flaw_names_its_place() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|whole| whole["Version"] = json!("2021"), "Version: "),
        (|whole| whole["Steps"] = json!([]), "Steps: "),
        (|whole| whole["Extra"] = json!(1), "PipelineDefinition.Extra: "),
        (|whole| whole["Parameters"][0]["Type"] = json!("Number"), "Parameters[0].Type: "),
        (|whole| whole["Parameters"][0]["DefaultValue"] = json!("one"), "Parameters[0].DefaultValue: "),
        (|whole| whole["Parameters"][0]["EnumValues"] = json!([2, 3]), "Parameters[0].DefaultValue: "),
        (|whole| whole["Steps"][0]["Type"] = json!("Dance"), "Steps[0].Type: "),
        (|whole| whole["Steps"][0]["Name"] = json!("a b"), "Steps[0].Name: "),
        (|whole| whole["Steps"][1]["Name"] = json!("a"), "Steps[1].Name: "),
        (
            |whole| whole["Steps"][2]["Arguments"]["IfSteps"][0]["Name"] = json!("a"),
            "Steps[2].Arguments.IfSteps[0].Name: ",
        ),
        (|whole| whole["Steps"][0]["Arguments"]["Nope"] = json!(1), "Unknown Argument member 'Nope'"),
        (
            |whole| whole["Steps"][0]["Arguments"]["HyperParameters"]["n"] = json!(1),
            "Steps[0].Arguments.HyperParameters.n: ",
        ),
        (|whole| whole["Steps"][0]["Arguments"]["RoleArn"]["Get"] = json!("Parameters.M"), "Parameters.M"),
        (|whole| whole["Steps"][0]["Arguments"]["RoleArn"]["Get"] = json!("Steps.z.RoleArn"), "Steps.z"),
        (|whole| whole["Steps"][1]["DependsOn"] = json!(["z"]), "Steps[1].DependsOn[0]: "),
        (|whole| whole["Steps"][1]["DependsOn"] = json!("a"), "Steps[1].DependsOn: "),
        (|whole| whole["Steps"][0]["DependsOn"] = json!(["b"]), "a waits for b waits for a"),
        (|whole| whole["Steps"][2]["DependsOn"] = json!(["d"]), "circle"),
        (|whole| whole["Steps"][1]["DependsOn"] = json!(["b"]), "b waits for b"),
        (|whole| whole["Steps"][2]["Arguments"]["Conditions"] = json!([]), "Steps[2].Arguments.Conditions: "),
        (
            |whole| whole["Steps"][0]["CacheConfig"] = json!({"Enabled": true, "ExpireAfter": "30 days"}),
            "Steps[0].CacheConfig.ExpireAfter: ",
        ),
        (
            |whole| whole["Steps"][0]["RetryPolicies"] = json!([{"ExceptionType": ["Rain"]}]),
            "Steps[0].RetryPolicies[0].ExceptionType[0]: ",
        ),
        (
            |whole| {
                whole["Steps"][0]["RetryPolicies"] =
                    json!([{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 2, "ExpireAfterMin": 3}])
            },
            "Steps[0].RetryPolicies[0]: ",
        ),
        (
            |whole| {
                whole["Steps"][1]["OutputParameters"] = json!([{"OutputName": "o", "OutputType": "Blob"}])
            },
            "Steps[1].OutputParameters[0].OutputType: ",
        ),
        (
            |whole| {
                whole["Steps"][2]["Arguments"]["Conditions"][0]["LeftValue"] =
                    json!({"Std:JsonGet": {"Path": "a", "PropertyFile": {"Get": "Steps.a.PropertyFiles.P"}}})
            },
            "no property file \"P\"",
        ),
    ];
    for (at, (change, named)) in cases.iter().enumerate() {
        let said = flaw(change);
        assert!(said.contains(named), "case {at}: {said}");
    }
}

#[test]
fn a_megabyte_of_nesting_is_refused_and_a_long_chain_is_not() {
    for nest in [["[", "]"], ["{\"a\":", "}"]] {
        let depth = 500_000 / nest[0].len();
        let text = format!(
            "{{\"Version\": \"2020-12-01\", \"Steps\": {}1{}}}",
            nest[0].repeat(depth),
            nest[1].repeat(depth)
        );
        assert!(Definition::parse(&text).unwrap_err().text.contains("recursion"));
    }
    let chain: Vec<Value> = (0..5_000)
        .rev()
        .map(|at| {
            let before: Vec<String> = (at > 0).then(|| format!("s{}", at - 1)).into_iter().collect();
            json!({"Name": format!("s{at}"), "Type": "Lambda", "FunctionArn": "f", "DependsOn": before})
        })
        .collect();
    let definition =
        Definition::parse(&json!({"Version": "2020-12-01", "Steps": chain}).to_string()).unwrap();
    assert_eq!(graph::order(&definition).unwrap().first(), definition.position("s0").as_ref());
}

#[test]
fn parameters_take_their_types_from_text() {
    let definition = Definition::parse(
        &json!({"Version": "2020-12-01", "Steps": [{"Name": "a", "Type": "Lambda", "FunctionArn": "f"}], "Parameters": [
            {"Name": "N", "Type": "Integer", "DefaultValue": 1}, {"Name": "F", "Type": "Float"}, {"Name": "B", "Type": "Boolean", "DefaultValue": false},
            {"Name": "S", "Type": "String", "DefaultValue": "x", "EnumValues": ["x", "y"]}]})
        .to_string(),
    )
    .unwrap();
    let values = |given: &[(&str, &str)]| {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        definition.parameter_values(&given).map(|values| json!(values))
    };
    assert_eq!(
        values(&[("F", "0.5"), ("B", "True"), ("N", "7"), ("S", "y")]).unwrap(),
        json!({"B": true, "F": 0.5, "N": 7, "S": "y"})
    );
    for (given, named) in [
        (&[("N", "1")][..], "\"F\" has no default"),
        (&[("F", "1"), ("Z", "1")], "no parameter \"Z\""),
        (&[("F", "NaN")], "\"NaN\" is no Float"),
        (&[("F", "1"), ("N", "1.5")], "\"1.5\" is no Integer"),
        (&[("F", "1"), ("S", "z")], "is not one of the values"),
    ] {
        assert!(values(given).unwrap_err().contains(named), "{given:?}");
    }
}
