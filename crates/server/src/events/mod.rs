//! What happens here as EventBridge tells it: one envelope, with the state of a job or what is known of an object as its detail.

pub mod list;

use serde_json::{Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::sagemaker::kinds::{ENDPOINT, MODEL_PACKAGE, PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};
use crate::training::record::TrainingRecord;

/// What the envelope of a training job's new state says it is.
pub const TRAINING_JOB_STATE: &str = "SageMaker Training Job State Change";

/// What the envelope of a processing job's new state says it is.
pub const PROCESSING_JOB_STATE: &str = "SageMaker Processing Job State Change";

/// What the envelope of a transform job's new state says it is.
pub const TRANSFORM_JOB_STATE: &str = "SageMaker Transform Job State Change";

/// What the envelope of an endpoint's new state says it is.
pub const ENDPOINT_STATE: &str = "SageMaker Endpoint State Change";

/// What the envelope of a model package's new state says it is.
pub const MODEL_PACKAGE_STATE: &str = "SageMaker Model Package State Change";

/// What the envelope of a new object says it is.
pub const OBJECT_CREATED: &str = "Object Created";

/// What the envelope of a removed object says it is.
pub const OBJECT_DELETED: &str = "Object Deleted";

/// Every kind of event that has an envelope.
pub const ENVELOPED: &[&str] = &[
    TRAINING_JOB_STATE,
    PROCESSING_JOB_STATE,
    TRANSFORM_JOB_STATE,
    ENDPOINT_STATE,
    MODEL_PACKAGE_STATE,
    OBJECT_CREATED,
    OBJECT_DELETED,
    crate::pipelines::state_events::EXECUTION_STATE,
    crate::pipelines::state_events::STEP_STATE,
    crate::autoscaling::SCALING_ACTIVITY_STATE,
    crate::monitoring::ALARM_STATE,
];

/// Members of a description that are moments.
const MOMENTS: &[&str] = &[
    "CreationTime",
    "LastModifiedTime",
    "TrainingStartTime",
    "TrainingEndTime",
    "ProcessingStartTime",
    "ProcessingEndTime",
    "TransformStartTime",
    "TransformEndTime",
    "StartTime",
    "EndTime",
    "Timestamp",
];

/// Appends the event of a resource's new state, where its kind has one. Call it in the transaction that changed the resource.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn append_state(session: &Session<'_>, resource: &Resource, now_ms: i64) -> store::Result<()> {
    let (state, detail) = match resource.key.kind.as_str() {
        TRAINING_JOB => (TRAINING_JOB_STATE, job_detail(resource)?),
        PROCESSING_JOB => (PROCESSING_JOB_STATE, job_detail(resource)?),
        TRANSFORM_JOB => (TRANSFORM_JOB_STATE, job_detail(resource)?),
        ENDPOINT => (ENDPOINT_STATE, endpoint_detail(resource)?),
        MODEL_PACKAGE => (MODEL_PACKAGE_STATE, crate::registry::package::state_detail(resource)?),
        _ => return Ok(()),
    };
    let event = envelope(state, "aws.sagemaker", &resource.key, &resource.arn, &detail, now_ms);
    session.append_event(&resource.key, state, &event, now_ms)
}

/// An event as EventBridge tells it.
pub fn envelope(
    kind: &str,
    source: &str,
    key: &ResourceKey,
    arn: &str,
    detail: &Value,
    now_ms: i64,
) -> Value {
    json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": kind,
        "source": source,
        "account": key.account,
        "time": moment(now_ms),
        "region": key.region,
        "resources": [arn],
        "detail": detail,
    })
}

/// What the job's Describe operation answers, with moments in milliseconds, as EventBridge has them.
fn job_detail(resource: &Resource) -> store::Result<Value> {
    let record = TrainingRecord::read(&resource.document)?;
    let mut detail = resource.spec.clone();
    let described = match resource.key.kind.as_str() {
        PROCESSING_JOB => crate::sagemaker::processing_jobs::description(resource, &record),
        TRANSFORM_JOB => crate::sagemaker::transform_jobs::description(resource, &record),
        _ => crate::sagemaker::training_jobs::description(resource, &record),
    };
    if let (Some(members), Value::Object(described)) = (detail.as_object_mut(), described) {
        members.extend(described.into_iter().filter(|(_, value)| !value.is_null()));
    }
    in_milliseconds(&mut detail);
    Ok(detail)
}

/// What is told of an endpoint: its variants as they are wanted, and its state in capitals, as EventBridge has them.
fn endpoint_detail(resource: &Resource) -> store::Result<Value> {
    let record = crate::endpoints::EndpointRecord::read(&resource.document)?;
    let variant = |variant: &crate::endpoints::DeployedVariant| {
        json!({
            "VariantName": variant.name,
            "DesiredWeight": variant.weight,
            "DesiredInstanceCount": variant.replicas,
        })
    };
    let mut state = String::new();
    for letter in resource.status.chars() {
        if letter.is_uppercase() && !state.is_empty() {
            state.push('_');
        }
        state.extend(letter.to_uppercase());
    }
    let mut detail = json!({
        "EndpointName": resource.key.name,
        "EndpointArn": resource.arn,
        "EndpointConfigName": record.config,
        "ProductionVariants": record.variants.iter().map(variant).collect::<Vec<_>>(),
        "EndpointStatus": state,
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
    });
    if let Some(reason) = record.failure_reason {
        detail["FailureReason"] = reason.into();
    }
    Ok(detail)
}

fn in_milliseconds(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_f64() {
                    Some(seconds) if MOMENTS.contains(&name.as_str()) => {
                        *value = Value::from((seconds * 1000.0).round() as i64);
                    }
                    _ => in_milliseconds(value),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(in_milliseconds),
        _ => {}
    }
}

/// A moment as EventBridge writes it.
pub fn moment(ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let moment =
        OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_milliseconds_and_other_numbers_stay() {
        let mut value = json!({"CreationTime": 1.5, "HyperParameters": {"x": "1.5"}, "Steps": [{"StartTime": 2, "Count": 2}]});
        in_milliseconds(&mut value);
        assert_eq!(
            value,
            json!({"CreationTime": 1500, "HyperParameters": {"x": "1.5"}, "Steps": [{"StartTime": 2000, "Count": 2}]})
        );
        assert_eq!(moment(1_769_860_800_999), "2026-01-31T12:00:00Z");
    }
}
