//! The fleet of a job: replicas of its model that no endpoint reaches.

use serving::{DataPlane, EndpointPhase, EndpointPlan, RoutingStrategy, VariantPlan};
use store::resources::ResourceKey;

use super::plan::Plan;
use crate::app::App;
use crate::capacity::Grant;
use crate::endpoints::launcher::{self, TransformLaunch};
use crate::endpoints::{DeployedVariant, ENGINE_VARIABLE, WORKERS_VARIABLE};

/// How long a replica may take until it answers.
const STARTUP_SECONDS: f64 = 600.0;

/// The variant of all replicas.
const VARIANT: &str = "AllTraffic";

/// Name of a job's fleet.
pub fn name(key: &ResourceKey) -> String {
    format!("{}/{}/{}", key.account, key.region, key.name)
}

/// How many workers a replica runs: what the model's environment says, or else as many as there are requests at once and CPUs.
pub fn workers(model: &DeployedVariant, plan: &Plan, grant: &Grant) -> u32 {
    if model.environment.contains_key(WORKERS_VARIABLE) {
        return model.workers();
    }
    let cpus = grant.iter().map(|host| host.cpus).fold(f64::INFINITY, f64::min);
    let cpus = if cpus.is_finite() { cpus.floor().max(1.0) as u32 } else { 1 };
    plan.concurrency.clamp(1, cpus)
}

/// What a replica is told of the job. A container is told only what the request says: its own wishes fill the rest.
fn variables(plan: &Plan, workers: u32, is_container: bool) -> Vec<(String, String)> {
    let open = plan.left_open;
    let of_the_job = [
        ("SAGEMAKER_BATCH", false, "true".to_owned()),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", open.payload, plan.payload_mb.to_string()),
        ("SAGEMAKER_BATCH_STRATEGY", open.strategy, plan.strategy().to_owned()),
        (
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
            open.concurrency,
            requests_at_once(plan, workers).to_string(),
        ),
    ];
    let told = of_the_job.into_iter().filter(|(_, is_open, _)| !(is_container && *is_open));
    told.map(|(name, _, value)| (name.to_owned(), value)).collect()
}

/// Brings up the fleet, or takes up the one that an earlier server left. `engine` is what has answered before, if anything has: what goes on
/// in the middle of an output must go on with the same digits.
///
/// # Errors
/// A text that says why the model does not come into service.
pub async fn bring_up(
    app: &App,
    plane: &DataPlane,
    key: &ResourceKey,
    model: &DeployedVariant,
    engine: Option<&str>,
    plan: &Plan,
    grant: &Grant,
) -> Result<(), String> {
    let workers = workers(model, plan, grant);
    let mut model = model.clone();
    let is_container = |image: &str| app.containers.is_container(&app.catalogue, image);
    model.environment.extend(variables(plan, workers, is_container(&model.image)));
    model.environment.extend(engine.map(|engine| (ENGINE_VARIABLE.to_owned(), engine.to_owned())));
    for container in &mut model.containers {
        container.environment.extend(variables(plan, workers, is_container(&container.image)));
    }
    let launch = TransformLaunch { job: key.name.clone(), grant: grant.clone() };
    let variant = VariantPlan {
        name: VARIANT.into(),
        weight: 1.0,
        replicas: grant.len() as u32,
        routing: RoutingStrategy::LeastOutstandingRequests,
        workers,
        composition: model.composition(Some(workers)),
        startup_timeout_seconds: STARTUP_SECONDS,
        model_timeout_seconds: f64::from(plan.timeout_seconds),
        launch: launcher::transform_payload(key, &model, launch),
        on_demand: None,
    };
    let wanted = EndpointPlan { endpoint: name(key), generation: 1, variants: vec![variant] };
    let mut status = plane.apply(wanted).map_err(|error| error.to_string())?;
    let settled = status.wait_for(|status| status.has_settled(1)).await;
    match settled.map(|status| status.phase.clone()) {
        Ok(EndpointPhase::InService) => Ok(()),
        Ok(EndpointPhase::Failed { reason } | EndpointPhase::UpdateFailed { reason }) => Err(reason),
        _ => Err("the model was taken out of service".into()),
    }
}

/// Requests that one instance answers at once.
pub fn requests_at_once(plan: &Plan, workers: u32) -> u32 {
    if plan.concurrency == 0 { workers } else { plan.concurrency }
}
