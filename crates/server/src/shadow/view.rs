//! DescribeShadow of our own service: what a shadow answers beside production, and what that says.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serving::Latencies;
use store::resources::ResourceKey;

use super::comparison::Comparison;
use super::{comparison_of, verdict};
use crate::app::App;
use crate::endpoints::{EndpointRecord, shadow_share};
use crate::own_service::own_operation;
use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::records;
use crate::{Cx, Error, Registry, Result};

own_operation! {
    /// Answers what is known of the shadow of an endpoint.
    DescribeShadow(DescribeShadowInput) -> DescribeShadowOutput
}

/// Input of [`DescribeShadow`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeShadowInput {
    /// The endpoint.
    pub endpoint_name: String,
}

/// Output of [`DescribeShadow`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeShadowOutput {
    /// Counts, differences, latencies, verdict and examples.
    pub shadow: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeShadow, _, _, _>(describe_shadow);
}

async fn describe_shadow(cx: Cx, input: DescribeShadowInput) -> Result<DescribeShadowOutput> {
    let name = &input.endpoint_name;
    let endpoint = records::find(&cx, ENDPOINT, name).await?;
    let record = EndpointRecord::read(&endpoint.document)?;
    let Some(mut shadow) = picture_of(&cx.state, &endpoint.key).await? else {
        return Err(Error::Validation(format!(
            "Endpoint {name} has no shadow variant: update it with a configuration that has ShadowProductionVariants, or create an \
             inference experiment."
        )));
    };
    let share = record.variants.first().zip(record.shadows.first());
    let share = share.map(|(production, shadow)| shadow_share(production, shadow));
    shadow["EndpointName"] = json!(endpoint.key.name);
    shadow["IsRunning"] = json!(share.is_some());
    shadow["SharePercent"] = json!(share.unwrap_or(0.0) * 100.0);
    Ok(DescribeShadowOutput { shadow })
}

/// What is known of the shadow that an endpoint has, or had last.
///
/// # Errors
/// When the database fails, or the stored comparison is damaged.
pub async fn picture_of(app: &App, endpoint: &ResourceKey) -> store::Result<Option<Value>> {
    if let Some(comparison) = app.endpoints.shadows.current(endpoint) {
        return Ok(Some(picture(&comparison)));
    }
    let key = comparison_of(endpoint);
    let stored = app.database.read(move |session| session.find_resource(&key)).await?;
    let comparison = stored.map(|stored| Comparison::deserialize(&stored.document)).transpose()?;
    Ok(comparison.as_ref().map(picture))
}

/// Everything that a comparison says.
fn picture(comparison: &Comparison) -> Value {
    let judged = verdict::verdict(comparison);
    let share = |count: u64, all: u64| (all > 0).then(|| count as f64 / all as f64);
    let numbers = |value: f64| (comparison.numbers > 0).then_some(value);
    let ratio = comparison.ratio.interval().map(
        |(low, high)| json!({"Mean": comparison.ratio.mean.exp(), "Low": low.exp(), "High": high.exp()}),
    );
    json!({
        "Since": records::seconds(comparison.since_ms),
        "Requests": comparison.pairs(),
        "Answered": comparison.answered(),
        "Equal": comparison.equal,
        "Different": comparison.different,
        "ProductionFailed": comparison.production_failed,
        "ShadowFailed": comparison.shadow_failed,
        "BothFailed": comparison.both_failed,
        "Dropped": comparison.dropped,
        "DifferentRate": share(comparison.different, comparison.answered()),
        "LabelDisagreementRate": share(comparison.labels_apart, comparison.labels),
        "MeanAbsoluteDifference": numbers(comparison.absolute_sum / comparison.numbers.max(1) as f64),
        "MaxAbsoluteDifference": numbers(comparison.absolute_max),
        "Latencies": [
            latencies(&comparison.models[0]["VariantName"], &comparison.production_latencies),
            latencies(&comparison.models[1]["VariantName"], &comparison.shadow_latencies),
        ],
        "LatencyRatio": ratio,
        "Verdict": judged.verdict,
        "Sentence": judged.sentence,
        "Examples": comparison.examples,
    })
}

fn latencies(variant: &Value, latencies: &Latencies) -> Value {
    let milliseconds = |share| latencies.percentile(share).map(|microseconds| microseconds / 1000.0);
    json!({
        "VariantName": variant,
        "P50Milliseconds": milliseconds(0.5),
        "P95Milliseconds": milliseconds(0.95),
        "P99Milliseconds": milliseconds(0.99),
    })
}
