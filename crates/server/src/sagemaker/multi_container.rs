//! Models of several containers: what they may be made of, and what their containers are called.

use serde_json::Value;

use super::models;
use crate::{Error, Result};

/// Most containers of a model.
const MOST_CONTAINERS: usize = 15;

/// Rules for the containers of a model together.
///
/// # Errors
/// [`Error::Validation`] that names the field.
pub fn check(spec: &Value) -> Result<()> {
    let containers = models::containers(spec);
    let mode = spec["InferenceExecutionConfig"]["Mode"].as_str();
    if containers.len() < 2 {
        return match mode {
            None => Ok(()),
            Some(_) => Err(Error::Validation(
                "InferenceExecutionConfig needs Containers with two elements or more.".into(),
            )),
        };
    }
    if containers.len() > MOST_CONTAINERS {
        return Err(Error::Validation(format!(
            "Containers: a model has up to {MOST_CONTAINERS} containers, not {}.",
            containers.len()
        )));
    }
    if containers.iter().any(|container| models::has_many_models(container)) {
        return Err(Error::field("Mode MultiModel in one of several Containers"));
    }
    if containers.iter().any(|container| !container["ModelPackageName"].is_null()) {
        return Err(Error::field("ModelPackageName in one of several Containers"));
    }
    if is_direct(spec) && containers.iter().any(|container| container["ContainerHostname"].is_null()) {
        return Err(Error::Validation(
            "ContainerHostname must be given for each container with InferenceExecutionConfig Mode Direct."
                .into(),
        ));
    }
    let names = names(spec);
    if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
        return Err(Error::Validation(format!(
            "ContainerHostname {:?} is given to two containers; names must differ within a model.",
            names[twice]
        )));
    }
    Ok(())
}

/// Whether requests name the container that answers them.
pub fn is_direct(spec: &Value) -> bool {
    spec["InferenceExecutionConfig"]["Mode"] == "Direct"
}

/// The names of a model's containers: those that are given, and by position those that are not.
pub fn names(spec: &Value) -> Vec<String> {
    let name = |(at, container): (usize, &&Value)| match container["ContainerHostname"].as_str() {
        Some(name) => name.to_owned(),
        None => format!("container-{}", at + 1),
    };
    models::containers(spec).iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(spec: &Value) -> String {
        check(spec).unwrap_err().to_string()
    }

    #[test]
    fn containers_must_fit_together() {
        let one = json!({"Image": "i", "ContainerHostname": "one"});
        let two = json!({"Image": "i"});
        assert!(check(&json!({"PrimaryContainer": one})).is_ok());
        assert!(check(&json!({"Containers": [one, two]})).is_ok());
        assert_eq!(names(&json!({"Containers": [one, two, two]})), ["one", "container-2", "container-3"]);
        let direct = json!({"Mode": "Direct"});
        let said = problem(&json!({"PrimaryContainer": one, "InferenceExecutionConfig": direct}));
        assert!(said.contains("two elements or more"), "{said}");
        let said = problem(&json!({"Containers": [one, two], "InferenceExecutionConfig": direct}));
        assert!(said.contains("ContainerHostname must be given"), "{said}");
        assert!(problem(&json!({"Containers": [one, one]})).contains("\"one\" is given to two"));
        let many = json!({"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"});
        assert!(problem(&json!({"Containers": [one, many]})).contains("Mode MultiModel"));
        assert!(problem(&json!({"Containers": vec![two; 16]})).contains("up to 15"));
    }
}
