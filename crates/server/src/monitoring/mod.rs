//! CloudWatch: metrics are put, summed up, computed with and listed; alarms watch them.

mod alarms;
mod data;
mod label;
mod list;
mod math;
mod put;
mod refusal;
mod statistic;
mod statistics;
mod window;

use std::sync::Arc;
use std::time::Duration;

use api::cloudwatch::Dimension;

use crate::Registry;
use crate::app::App;
pub use alarms::{ALARM_STATE, Alarms, State as AlarmState, start as watch_alarms, states as alarm_states};
pub use alarms::{ScalingAlarm, alarms_by_policy, scaling_alarms};
pub use data::TrackedMetric;
use refusal::{Refusal, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    put::routes(registry);
    statistics::routes(registry);
    data::routes(registry);
    list::routes(registry);
    alarms::routes(registry);
}

/// Time between two looks for samples that are too old.
const EXPIRY_PAUSE: Duration = Duration::from_secs(24 * 3_600);

/// Removes samples that are too old now and each day, as long as the server runs.
pub fn expire_daily(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut days = tokio::time::interval(EXPIRY_PAUSE);
        loop {
            days.tick().await;
            let Some(app) = app.upgrade() else { return };
            if let Err(error) = app.metrics.expire(app.config.metrics_retention_days).await {
                tracing::error!(%error, "old metrics could not be removed");
            }
        }
    });
}

/// Name and value of each dimension, sorted by name.
fn dimension_pairs(dimensions: Option<Vec<Dimension>>, parameter: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> =
        dimensions.unwrap_or_default().into_iter().map(|one| (one.name, one.value)).collect();
    pairs.sort();
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let text = format!("The dimension {} is given more than once in parameter {parameter}.", twice[0].0);
        return Err(Refusal::Value(text));
    }
    Ok(pairs)
}
