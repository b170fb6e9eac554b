//! What differs between two executions, from their explanations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One line for each difference; none when the executions are alike.
pub fn differences(left: &Value, right: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for member in ["PipelineName", "PipelineVersionId", "Status"] {
        compare(member, &left[member], &right[member], &mut lines);
    }
    compare("Parameters", &left["Parameters"], &right["Parameters"], &mut lines);
    let (before, after) = (steps(left), steps(right));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (Some(before), Some(after)) => {
                for member in ["Type", "Status", "Attempt", "CachedFrom", "SelectedFrom", "Why"] {
                    compare(&format!("{name}.{member}"), &before[member], &after[member], &mut lines);
                }
                let outcome = |step: &Value| step["Metadata"]["Condition"]["Outcome"].clone();
                compare(&format!("{name}.Outcome"), &outcome(before), &outcome(after), &mut lines);
                compare(&format!("{name}.Arguments"), &before["Arguments"], &after["Arguments"], &mut lines);
            }
            (Some(_), None) => lines.push(format!("{name}: only in the first")),
            _ => lines.push(format!("{name}: only in the second")),
        }
    }
    lines
}

fn steps(explanation: &Value) -> BTreeMap<&str, &Value> {
    let steps = explanation["Steps"].as_array().into_iter().flatten();
    steps.filter_map(|step| Some((step["Name"].as_str()?, step))).collect()
}

fn compare(path: &str, left: &Value, right: &Value, lines: &mut Vec<String>) {
    match (left, right) {
        _ if left == right => {}
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let path = format!("{path}.{name}");
                compare(
                    &path,
                    before.get(name).unwrap_or(&Value::Null),
                    after.get(name).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{at}]"), before, after, lines);
            }
        }
        _ => lines.push(format!("{path}: {left} -> {right}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_told() {
        let left = json!({"Status": "Failed", "Parameters": {"N": 1, "S": "x"}, "Steps": [
            {"Name": "a", "Status": "Succeeded", "Arguments": {"H": {"lr": "0.1"}, "I": [{"U": "s3://b"}]}}, {"Name": "old", "Status": ""}]});
        let mut right = left.clone();
        assert_eq!(differences(&left, &right), Vec::<String>::new());
        right["Parameters"]["N"] = json!(2);
        right["Steps"][0]["Arguments"]["H"]["lr"] = json!("0.2");
        right["Steps"][1]["Name"] = json!("new");
        assert_eq!(
            differences(&left, &right),
            [
                "Parameters.N: 1 -> 2",
                "a.Arguments.H.lr: \"0.1\" -> \"0.2\"",
                "new: only in the second",
                "old: only in the first"
            ]
        );
    }
}
