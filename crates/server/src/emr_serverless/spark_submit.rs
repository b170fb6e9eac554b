//! `sparkSubmit` of a job run: what the local Spark is told, and how much of the machine it gets.

use serde_json::{Value, json};

use crate::capacity::InstanceTypes;
use crate::emr::spark_job;

/// CPUs of a worker that says nothing about them, as in the service.
const CPUS: u32 = 4;

/// What the program `spark-step` is told. The configurations of the run come after those of its application.
pub fn step(run: &Value, application: &Value) -> Value {
    let submit = &run["jobDriver"]["sparkSubmit"];
    let lists =
        [&application["runtimeConfiguration"], &run["configurationOverrides"]["applicationConfiguration"]];
    let configurations: Vec<Value> =
        lists.into_iter().flat_map(|list| list.as_array().into_iter().flatten()).map(renamed).collect();
    json!({
        "SparkSubmit": {
            "EntryPoint": submit["entryPoint"],
            "Arguments": submit["entryPointArguments"],
            "Parameters": submit["sparkSubmitParameters"],
        },
        "Configurations": configurations,
    })
}

/// A configuration with the names of its members as EMR's own clusters have them.
fn renamed(configuration: &Value) -> Value {
    let inner = configuration["configurations"].as_array();
    json!({
        "Classification": configuration["classification"],
        "Properties": configuration["properties"],
        "Configurations": inner.map(|inner| inner.iter().map(renamed).collect::<Vec<Value>>()),
    })
}

/// The type of instance that has the CPUs of one worker.
///
/// # Errors
/// One sentence when there is none.
pub fn instance_type(run: &Value, types: &InstanceTypes) -> Result<String, String> {
    let parameters = run["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"].as_str().unwrap_or_default();
    let cores = ["spark.driver.cores=", "spark.executor.cores="].iter().filter_map(|name| {
        let (_, rest) = parameters.split_once(name)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let size = match cores.max().unwrap_or(CPUS) {
        0..=2 => "large",
        3..=4 => "xlarge",
        5..=8 => "2xlarge",
        _ => "4xlarge",
    };
    spark_job::instance_type(types, &format!("m5.{size}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_the_cpus_of_its_workers() {
        let types = InstanceTypes::with(Default::default());
        let of = |parameters: &str| {
            let run = json!({"jobDriver": {"sparkSubmit": {"sparkSubmitParameters": parameters}}});
            instance_type(&run, &types).unwrap()
        };
        assert_eq!(of(""), "ml.m5.xlarge");
        assert_eq!(of("--conf spark.executor.cores=1 --conf spark.driver.cores=2"), "ml.m5.large");
        assert_eq!(of("--conf spark.executor.cores=16"), "ml.m5.4xlarge");
    }

    #[test]
    fn configurations_of_the_run_come_last() {
        let run = json!({"jobDriver": {"sparkSubmit": {"entryPoint": "s3://b/a.py"}}, "configurationOverrides":
            {"applicationConfiguration": [{"classification": "spark-defaults", "properties": {"a": "2"}}]}});
        let application =
            json!({"runtimeConfiguration": [{"classification": "spark-defaults", "properties": {"a": "1"}}]});
        let step = step(&run, &application);
        assert_eq!(step["Configurations"][1]["Properties"], json!({"a": "2"}));
        assert_eq!(step["SparkSubmit"]["EntryPoint"], "s3://b/a.py");
    }
}
