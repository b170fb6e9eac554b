//! DescribeEndpointDeployment of our own service: where a deployment stands, what its guards and alarms say, and how the last one ended.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::Progress;
use super::{Deployment, config};
use crate::endpoints::EndpointRecord;
use crate::monitoring::alarm_states;
use crate::own_service::own_operation;
use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::records;
use crate::{Cx, Registry, Result};

own_operation! {
    /// Answers where a deployment stands.
    DescribeEndpointDeployment(DescribeEndpointDeploymentInput) -> DescribeEndpointDeploymentOutput
}

/// Input of [`DescribeEndpointDeployment`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeEndpointDeploymentInput {
    /// The endpoint.
    pub endpoint_name: String,
}

/// Output of [`DescribeEndpointDeployment`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeEndpointDeploymentOutput {
    /// What goes on, and what was last.
    pub deployment: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeEndpointDeployment, _, _, _>(describe_endpoint_deployment);
}

async fn describe_endpoint_deployment(
    cx: Cx,
    input: DescribeEndpointDeploymentInput,
) -> Result<DescribeEndpointDeploymentOutput> {
    let endpoint = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = EndpointRecord::read(&endpoint.document)?;
    let current = match &record.deployment {
        None => Value::Null,
        Some(deployment) => {
            let mut shown = described(&record, deployment);
            let findings = cx.state.endpoints.findings.of(&endpoint.key);
            shown["Guards"] = serde_json::to_value(&*findings).map_err(crate::Error::internal)?;
            let names = deployment.config.as_ref().map(config::alarms).unwrap_or_default();
            let owner = (&*endpoint.key.account, &*endpoint.key.region);
            let states = alarm_states(&cx.state, owner, &names).await?;
            let alarm = |name: &String| json!({"AlarmName": name, "State": states.get(name).map_or("deleted", |state| state.as_str())});
            shown["Alarms"] = names.iter().map(alarm).collect();
            shown
        }
    };
    let last = record.last_deployment.as_ref().map(|last| {
        json!({
            "EndpointConfigName": last.config,
            "Outcome": if last.is_deployed { "Deployed" } else { "RolledBack" },
            "Reason": last.reason,
            "StartTime": records::seconds(last.started_at),
            "EndTime": records::seconds(last.ended_at),
            "Steps": last.steps.iter().map(step).collect::<Vec<_>>(),
            "Guards": last.findings,
        })
    });
    Ok(DescribeEndpointDeploymentOutput {
        deployment: json!({
            "EndpointName": endpoint.key.name,
            "EndpointStatus": endpoint.status,
            "EndpointConfigName": record.config,
            "Current": current,
            "Last": last,
        }),
    })
}

fn described(record: &EndpointRecord, deployment: &Deployment) -> Value {
    let (shown, other) = (&record.config, &deployment.other.config);
    let (before, after) = if deployment.is_kept() { (other, shown) } else { (shown, other) };
    json!({
        "EndpointConfigName": after,
        "PreviousEndpointConfigName": before,
        "StartTime": records::seconds(deployment.started_at),
        "Stage": deployment.progress.stage,
        "TrafficShare": deployment.progress.share,
        "Reason": deployment.reason,
        "Steps": deployment.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(progress: &Progress) -> Value {
    json!({
        "Stage": progress.stage,
        "Step": progress.step,
        "StartTime": records::seconds(progress.since),
        "TrafficShare": progress.share,
        "NewCapacity": progress.new_part,
        "OldCapacity": progress.old_part,
    })
}
