//! Guards over the table of operations.

use std::collections::BTreeSet;

const IMPLEMENTED: &str = include_str!("../../operations.txt");

/// Sources of every test that may call an operation.
const TESTS: &[&str] = &[
    include_str!("accounts.rs"),
    include_str!("alarms.rs"),
    include_str!("autoscaling.rs"),
    include_str!("emr.rs"),
    include_str!("events.rs"),
    include_str!("glue.rs"),
    include_str!("monitoring.rs"),
    include_str!("neighbours.rs"),
    include_str!("retention.rs"),
    include_str!("sns.rs"),
    include_str!("sqs.rs"),
    include_str!("sts.rs"),
    include_str!("tags.rs"),
    include_str!("sagemaker/async_inference.rs"),
    include_str!("sagemaker/data_capture.rs"),
    include_str!("sagemaker/deployments.rs"),
    include_str!("sagemaker/endpoints.rs"),
    include_str!("sagemaker/experiments.rs"),
    include_str!("sagemaker/failures.rs"),
    include_str!("sagemaker/inference_components.rs"),
    include_str!("sagemaker/inference_experiments.rs"),
    include_str!("sagemaker/model_cards.rs"),
    include_str!("sagemaker/model_packages.rs"),
    include_str!("sagemaker/lineage.rs"),
    include_str!("sagemaker/models.rs"),
    include_str!("sagemaker/pipelines.rs"),
    include_str!("sagemaker/processing_jobs.rs"),
    include_str!("sagemaker/search.rs"),
    include_str!("sagemaker/shadow_variants.rs"),
    include_str!("sagemaker/spot.rs"),
    include_str!("sagemaker/training_jobs.rs"),
    include_str!("sagemaker/transform_jobs.rs"),
    include_str!("../../../../tests/clients/conftest.py"),
    include_str!("../../../../tests/clients/test_async_inference.py"),
    include_str!("../../../../tests/clients/test_kms.py"),
    include_str!("../../../../tests/clients/test_logs.py"),
    include_str!("../../../../tests/clients/test_neighbours.py"),
    include_str!("../../../../tests/clients/test_serving.py"),
    include_str!("../../../../tests/clients/test_shadow.py"),
    include_str!("../../../../tests/clients/test_training.py"),
    include_str!("../../../../tests/clients/test_transform.py"),
];

fn registered() -> BTreeSet<String> {
    let registry = server::app::registry();
    registry.operations().map(|(service, operation)| format!("{service} {operation}")).collect()
}

#[test]
fn the_list_of_operations_is_the_registry() {
    let listed: BTreeSet<String> = IMPLEMENTED.lines().map(str::to_owned).collect();
    let lines: Vec<String> = registered().into_iter().collect();
    assert_eq!(listed, registered(), "crates/server/operations.txt should read:\n{}", lines.join("\n"));
}

#[test]
fn every_operation_is_called_by_a_test() {
    let uncalled: Vec<String> = registered()
        .into_iter()
        .filter(|line| {
            let operation = line.split(' ').nth(1).unwrap();
            let method = snake(operation);
            !TESTS.iter().any(|text| text.contains(operation) || text.contains(&format!(".{method}(")))
        })
        .collect();
    assert!(uncalled.is_empty(), "no test calls {uncalled:?}");
}

/// The name of the operation's method in boto3.
fn snake(operation: &str) -> String {
    let mut name = String::new();
    for (at, character) in operation.char_indices() {
        if character.is_uppercase() && at > 0 {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    name
}
