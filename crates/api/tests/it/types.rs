//! The generated types and the markers of operations.

use api::Operation;
use api::sagemaker::{
    CreateTrainingJob, CreateTrainingJobInput, DescribeTrainingJobOutput, ListModels, TrainingJobStatus,
};
use serde_json::{Value, json};

fn training_job() -> Value {
    json!({
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/R",
        "HyperParameters": {"epochs": "10"},
        "InputDataConfig": [{
            "ChannelName": "train",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}},
        }],
        "OutputDataConfig": {"S3OutputPath": "s3://b/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "EnableNetworkIsolation": false,
    })
}

#[test]
fn an_input_goes_through_its_type_unchanged() {
    let input: CreateTrainingJobInput = serde_json::from_value(training_job()).unwrap();
    assert_eq!(input.training_job_name, "job");
    let channels = input.input_data_config.as_ref().unwrap();
    let source = channels[0].data_source.s3_data_source.as_ref().unwrap();
    assert_eq!(source.s3_uri, "s3://b/k");
    assert_eq!(
        input.resource_config.as_ref().unwrap().instance_type.as_ref().unwrap().as_str(),
        "ml.m5.large"
    );
    assert_eq!(serde_json::to_value(&input).unwrap(), training_job());
}

#[test]
fn an_input_without_a_required_member_is_refused_by_name() {
    let mut without = training_job();
    without["OutputDataConfig"].as_object_mut().unwrap().remove("S3OutputPath");
    let error = serde_json::from_value::<CreateTrainingJobInput>(without).unwrap_err();
    assert!(error.to_string().contains("OutputDataConfig.S3OutputPath must be given"), "{error}");
}

#[test]
fn outputs_leave_out_what_is_not_set() {
    let output = DescribeTrainingJobOutput {
        training_job_status: Some(TrainingJobStatus::Completed),
        creation_time: Some(api::Timestamp::from_millis(1_770_000_000_500)),
        ..Default::default()
    };
    let form = serde_json::to_value(output).unwrap();
    assert_eq!(form, json!({"TrainingJobStatus": "Completed", "CreationTime": 1_770_000_000.5}));
}

#[test]
fn an_unknown_text_of_an_enumeration_is_kept() {
    let shown = json!({"TrainingJobStatus": "Resting"});
    let output: DescribeTrainingJobOutput = serde_json::from_value(shown.clone()).unwrap();
    assert_eq!(output.training_job_status.as_ref().unwrap().to_string(), "Resting");
    assert_eq!(serde_json::to_value(&output).unwrap(), shown);
}

#[test]
fn markers_tie_operations_to_their_service_and_types() {
    fn named<O: Operation>() -> (&'static str, &'static str) {
        (O::SERVICE.id, O::NAME)
    }
    assert_eq!(named::<CreateTrainingJob>(), ("sagemaker", "CreateTrainingJob"));
    assert_eq!(named::<api::logs::PutLogEvents>(), ("logs", "PutLogEvents"));
    let empty = json!({});
    let _: <ListModels as Operation>::Input = serde_json::from_value(empty.clone()).unwrap();
    let nothing: <api::sagemaker::DeleteModel as Operation>::Output =
        serde_json::from_value(empty.clone()).unwrap();
    assert_eq!(serde_json::to_value(nothing).unwrap(), empty);
}

#[test]
fn recursive_structures_are_typed() {
    let nested = json!({
        "Resource": "TrainingJob",
        "SearchExpression": {"SubExpressions": [{"SubExpressions": [{"Operator": "Or"}]}]},
    });
    let input: api::sagemaker::SearchInput = serde_json::from_value(nested.clone()).unwrap();
    assert_eq!(serde_json::to_value(input).unwrap(), nested);
}
