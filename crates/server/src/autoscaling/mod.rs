//! Application Auto Scaling for endpoint variants: targets, policies, scheduled actions and activities, and who acts on them.

mod acting;
mod activities;
mod alarmed;
mod alarms;
mod decider;
mod policies;
mod policy;
mod scheduled_actions;
mod step_policies;
mod steps;
mod tags;
mod targets;
mod tracking;

pub use alarms::{ALARMED, missing_policy, on_alarm};
use serde_json::Value;

pub use activities::SCALING_ACTIVITY_STATE;
pub use decider::Scaling;
pub use scheduled_actions::{SCHEDULED_ACTION, fire};
pub use step_policies::{Breach, execute_step_policy};
pub use targets::is_scaled;

use crate::endpoints::EndpointRecord;
use crate::endpoints::components::MOST_COPIES;
use crate::endpoints::scaled::Scaled;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT};
use crate::{Cx, Error, Registry, Result};

/// Decides for as long as the process state lives.
pub fn start(app: &std::sync::Arc<crate::app::App>) {
    decider::start(app);
    alarmed::start(app);
}

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    targets::routes(registry);
    policies::routes(registry);
    scheduled_actions::routes(registry);
    activities::routes(registry);
    tags::routes(registry);
}

/// What names a scalable target.
struct Target<'a> {
    resource_id: &'a str,
    dimension: &'a str,
}

impl Target<'_> {
    /// Name of its record.
    fn name(&self) -> String {
        format!("{}|{}", self.resource_id, self.dimension)
    }

    /// Refuses what is not a variant of an endpoint that exists.
    async fn check(&self, cx: &Cx, input: &Value) -> Result<()> {
        check_namespace(input)?;
        let Some(scaled) = Scaled::of_dimension(self.dimension) else {
            return Err(Error::Validation(format!(
                "ScalableDimension {} does not belong to the service namespace sagemaker.",
                self.dimension
            )));
        };
        if scaled == Scaled::Copies {
            return self.check_component(cx, input).await;
        }
        let parts: Vec<&str> = self.resource_id.split('/').collect();
        let ["endpoint", endpoint, "variant", variant] = parts[..] else {
            return Err(Error::Validation(format!(
                "ResourceId {:?} must have the form endpoint/NAME/variant/NAME.",
                self.resource_id
            )));
        };
        let key = crate::sagemaker::record_key(cx, ENDPOINT, endpoint);
        let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
        let record = found.map(|resource| EndpointRecord::read(&resource.document)).transpose()?;
        let named = record.iter().flat_map(|record| &record.variants).find(|one| one.name == variant);
        match named.map(|named| (scaled.of(named), scaled.most(named))) {
            Some((Some(_), most))
                if input["MaxCapacity"].as_u64().is_none_or(|max| max <= u64::from(most)) =>
            {
                Ok(())
            }
            Some((Some(_), most)) => Err(Error::Validation(format!(
                "MaxCapacity must not be above the variant's MaxConcurrency, {most}."
            ))),
            Some((None, _)) => Err(Error::Validation(match scaled {
                _ if named.is_some_and(|named| named.host.is_some()) => format!(
                    "The variant {variant} is for inference components, and its instances follow them by ManagedInstanceScaling: scale \
                     {} of a component.",
                    Scaled::Copies.dimension()
                ),
                Scaled::Instances => format!(
                    "The variant {variant} is serverless and has no instances: scale {}.",
                    Scaled::ProvisionedConcurrency.dimension()
                ),
                _ => format!(
                    "The variant {variant} is not serverless and has no provisioned concurrency: scale {}.",
                    Scaled::Instances.dimension()
                ),
            })),
            None => Err(Error::Validation(format!(
                "No endpoint variant found for service namespace: sagemaker, resource ID: {}, scalable dimension: {}",
                self.resource_id, self.dimension
            ))),
        }
    }

    /// Refuses what is no inference component that exists.
    async fn check_component(&self, cx: &Cx, input: &Value) -> Result<()> {
        if input["MaxCapacity"].as_u64().is_some_and(|most| most > u64::from(MOST_COPIES)) {
            return Err(Error::Validation(format!(
                "MaxCapacity must not be above {MOST_COPIES}, the most copies of an inference component."
            )));
        }
        let Some(name) = self.resource_id.strip_prefix("inference-component/") else {
            return Err(Error::Validation(format!(
                "ResourceId {:?} must have the form inference-component/NAME.",
                self.resource_id
            )));
        };
        let key = crate::sagemaker::record_key(cx, INFERENCE_COMPONENT, name);
        match cx.state.database.read(move |session| session.find_resource(&key)).await? {
            Some(_) => Ok(()),
            None => Err(Error::Validation(format!(
                "No inference component found for service namespace: sagemaker, resource ID: {}, scalable dimension: {}",
                self.resource_id, self.dimension
            ))),
        }
    }
}

fn check_namespace(input: &Value) -> Result<()> {
    match input["ServiceNamespace"].as_str() {
        Some("sagemaker") => Ok(()),
        other => Err(Error::field(&format!("ServiceNamespace {}", other.unwrap_or_default()))),
    }
}

/// Pages of a list that is short by nature: tokens count rows.
fn paged<T>(rows: Vec<T>, max_results: Option<i32>, token: Option<&str>) -> Result<(Vec<T>, Option<String>)> {
    let start = match token {
        None => 0,
        Some(token) => token
            .parse::<usize>()
            .map_err(|_| Error::Validation("The pagination token NextToken is not valid.".into()))?,
    };
    let count = max_results.map_or(50, |rows| rows.clamp(1, 50) as usize);
    let next_token = (rows.len() > start + count).then(|| (start + count).to_string());
    Ok((rows.into_iter().skip(start).take(count).collect(), next_token))
}
