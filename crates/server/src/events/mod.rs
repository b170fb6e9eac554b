//! What happens here as EventBridge tells it: one envelope, with the state of a job or what is known of an object as its detail.

pub mod list;

use serde_json::{Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::sagemaker::kinds::TRAINING_JOB;
use crate::training::record::TrainingRecord;

/// What the envelope of a training job's new state says it is.
pub const TRAINING_JOB_STATE: &str = "SageMaker Training Job State Change";

/// What the envelope of a new object says it is.
pub const OBJECT_CREATED: &str = "Object Created";

/// What the envelope of a removed object says it is.
pub const OBJECT_DELETED: &str = "Object Deleted";

/// Every kind of event that has an envelope.
pub const ENVELOPED: &[&str] = &[TRAINING_JOB_STATE, OBJECT_CREATED, OBJECT_DELETED];

/// Members of a description that are moments.
const MOMENTS: &[&str] = &[
    "CreationTime",
    "LastModifiedTime",
    "TrainingStartTime",
    "TrainingEndTime",
    "StartTime",
    "EndTime",
    "Timestamp",
];

/// Appends the event of a resource's new state, where its kind has one. Call it in the transaction that changed the resource.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn append_state(session: &Session<'_>, resource: &Resource, now_ms: i64) -> store::Result<()> {
    if resource.key.kind != TRAINING_JOB {
        return Ok(());
    }
    let detail = training_job_detail(resource)?;
    let event = envelope(TRAINING_JOB_STATE, "aws.sagemaker", &resource.key, &resource.arn, &detail, now_ms);
    session.append_event(&resource.key, TRAINING_JOB_STATE, &event, now_ms)
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

/// What DescribeTrainingJob answers, with moments in milliseconds, as EventBridge has them.
fn training_job_detail(resource: &Resource) -> store::Result<Value> {
    let record = TrainingRecord::read(&resource.document)?;
    let mut detail = resource.spec.clone();
    let described = crate::sagemaker::training_jobs::description(resource, &record);
    if let (Some(members), Value::Object(described)) = (detail.as_object_mut(), described) {
        members.extend(described.into_iter().filter(|(_, value)| !value.is_null()));
    }
    in_milliseconds(&mut detail);
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

fn moment(ms: i64) -> String {
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
