//! What a container wishes for its transforms: its answer to `GET /execution-parameters`, for what the request leaves open.

use serde::Deserialize;
use serde_json::Value;
use serving::DataPlane;

use super::plan::Plan;
use crate::job_log::JobLog;

/// Where a container says it.
const PATH: &str = "/execution-parameters";
/// Requests at once when neither the request nor the container names a number, as in the service.
const DEFAULT_CONCURRENCY: u32 = 1;
/// The largest payload, alone and of all requests that are under way at once, as for requests.
const MOST_PAYLOAD_MB: u32 = 100;

/// A container's answer.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wishes {
    max_concurrent_transforms: Option<u32>,
    batch_strategy: Option<Strategy>,
    #[serde(rename = "MaxPayloadInMB")]
    max_payload_in_mb: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Strategy {
    #[serde(rename = "SINGLE_RECORD", alias = "SingleRecord")]
    Single,
    #[serde(rename = "MULTI_RECORD", alias = "MultiRecord")]
    Multi,
}

/// The plan with what the container of a fleet wishes in the places that the request leaves open, and defaults where it has no
/// wish. Models that are no containers are not asked.
///
/// # Errors
/// A sentence that says what is wrong with the container's answer.
pub async fn filled_in(plane: &DataPlane, fleet: &str, plan: Plan, log: &JobLog) -> Result<Plan, String> {
    let wishes = match plane.get(fleet, PATH).await {
        Ok(None) => return Ok(plan),
        Ok(Some((200, body))) => match serde_json::from_slice::<Value>(&body) {
            Ok(value) => read(&value)?,
            // A server that answers every path with some page knows nothing of this one.
            Err(_) => unanswered(log, "its answer is not JSON").await,
        },
        Ok(Some((404, _))) => Wishes::default(),
        Ok(Some((status, _))) => unanswered(log, &format!("it answered with status {status}")).await,
        Err(error) => unanswered(log, &error.to_string()).await,
    };
    with_wishes(plan, &wishes)
}

async fn unanswered(log: &JobLog, why: &str) -> Wishes {
    log.line(&format!("[sagemaker logs]: GET {PATH} says nothing ({why}); the defaults apply")).await;
    Wishes::default()
}

fn read(value: &Value) -> Result<Wishes, String> {
    Wishes::deserialize(value).map_err(|error| {
        format!("The container's answer to GET {PATH} is wrong ({error}): {value}. It may have MaxConcurrentTransforms and MaxPayloadInMB as numbers and BatchStrategy as SINGLE_RECORD or MULTI_RECORD.")
    })
}

fn with_wishes(mut plan: Plan, wishes: &Wishes) -> Result<Plan, String> {
    let open = plan.left_open;
    if open.concurrency {
        let wished = wishes.max_concurrent_transforms.filter(|at_once| *at_once > 0);
        plan.concurrency = wished.unwrap_or(DEFAULT_CONCURRENCY);
    }
    if let (true, Some(megabytes)) = (open.payload, wishes.max_payload_in_mb) {
        plan.payload_mb = megabytes;
    }
    if let (true, Some(strategy)) = (open.strategy, wishes.batch_strategy) {
        plan.is_single = strategy == Strategy::Single;
    }
    let is_too_much = plan.concurrency.saturating_mul(plan.payload_mb) > MOST_PAYLOAD_MB;
    if is_too_much && (open.concurrency || open.payload) {
        return Err(format!(
            "MaxConcurrentTransforms times MaxPayloadInMB cannot be above {MOST_PAYLOAD_MB}, and with the container's answer to \
             GET {PATH} it is {} times {}.",
            plan.concurrency, plan.payload_mb
        ));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(change: impl FnOnce(&mut Value)) -> Plan {
        let mut request = json!({
            "TransformJobName": "t", "ModelName": "m",
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}},
                "ContentType": "text/csv", "SplitType": "Line"},
            "TransformOutput": {"S3OutputPath": "s3://b/out"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        });
        change(&mut request);
        Plan::of(&serde_json::from_value(request).unwrap()).unwrap()
    }

    fn filled(plan: Plan, answer: &Value) -> (u32, u32, bool) {
        let plan = with_wishes(plan, &read(answer).unwrap()).unwrap();
        (plan.concurrency, plan.payload_mb, plan.is_single)
    }

    #[test]
    fn the_request_comes_first_then_the_container_then_the_defaults() {
        let answer = json!({"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 3, "X": 1});
        assert_eq!(filled(plan(|_| {}), &answer), (8, 3, true));
        assert_eq!(filled(plan(|_| {}), &json!({})), (1, 6, false));
        let own = |request: &mut Value| {
            request["MaxConcurrentTransforms"] = 2.into();
            request["MaxPayloadInMB"] = 0.into();
            request["BatchStrategy"] = "MultiRecord".into();
        };
        assert_eq!(filled(plan(own), &answer), (2, 0, false));
        // As if it were left out.
        assert_eq!(
            filled(plan(|request| request["MaxConcurrentTransforms"] = 0.into()), &answer),
            (8, 3, true)
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        for wrong in [
            json!({"MaxConcurrentTransforms": -1}),
            json!({"BatchStrategy": "SOME"}),
            json!({"MaxPayloadInMB": "6"}),
            json!([1]),
        ] {
            assert!(read(&wrong).unwrap_err().contains(PATH), "{wrong}");
        }
        let much = read(&json!({"MaxConcurrentTransforms": 20, "MaxPayloadInMB": 6})).unwrap();
        assert!(with_wishes(plan(|_| {}), &much).unwrap_err().contains("20 times 6"));
    }
}
