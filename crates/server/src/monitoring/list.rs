//! ListMetrics.

use api::cloudwatch::{self, Dimension, ListMetrics, ListMetricsInput, ListMetricsOutput};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::metrics::{Metric, MetricList};

use super::refusal::{Refusal, Result};
use crate::{Cx, Error, Registry};

/// Metrics on a page.
const PAGE_METRICS: usize = 500;

/// Metrics without a sample for this long are not listed.
const LISTED_SECONDS: i64 = 14 * 86_400;

/// What counts as recent, with what the store's knowledge of the newest sample may be behind.
const RECENT_SECONDS: i64 = 3 * 3_600 + 600;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<ListMetrics, _, _, _>(list_metrics);
}

async fn list_metrics(cx: Cx, input: ListMetricsInput) -> Result<ListMetricsOutput> {
    // There are no source accounts, so that with or without them the list is the same.
    if let Some(account) = input.owning_account.filter(|account| *account != cx.caller.account) {
        return Err(Error::field(&format!("OwningAccount {account}, which is not the caller's")).into());
    }
    let after = input.next_token.as_deref().map(decode).transpose()?;
    let age_seconds = if input.recently_active.is_some() { RECENT_SECONDS } else { LISTED_SECONDS };
    let list = MetricList {
        namespace: input.namespace,
        name: input.metric_name,
        dimensions: input
            .dimensions
            .unwrap_or_default()
            .into_iter()
            .map(|one| (one.name, one.value))
            .collect(),
        active_since_seconds: cx.state.clock.now_ms() / 1000 - age_seconds,
        after,
        limit: PAGE_METRICS + 1,
    };
    let mut metrics = cx.state.metrics.list(&cx.caller.account, &cx.caller.region, list).await?;
    let more = metrics.len() > PAGE_METRICS;
    metrics.truncate(PAGE_METRICS);
    let next_token = metrics.last().filter(|_| more).map(encode);
    let owners = input.include_linked_accounts == Some(true);
    let owning_accounts = owners.then(|| vec![cx.caller.account.clone(); metrics.len()]);
    let metrics = metrics.into_iter().map(shown).collect();
    Ok(ListMetricsOutput { metrics: Some(metrics), next_token, owning_accounts })
}

fn shown(metric: Metric) -> cloudwatch::Metric {
    let dimension = |(name, value)| Dimension { name, value };
    cloudwatch::Metric {
        namespace: Some(metric.namespace),
        metric_name: Some(metric.name),
        dimensions: Some(metric.dimensions.into_iter().map(dimension).collect()),
    }
}

/// The last metric of a page is where the next one begins.
fn encode(last: &Metric) -> String {
    let position = serde_json::json!([last.namespace, last.name, last.dimensions]);
    URL_SAFE_NO_PAD.encode(position.to_string())
}

fn decode(token: &str) -> Result<Metric> {
    let wrong = || Refusal::value(token, "NextToken");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let (namespace, name, dimensions) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    Ok(Metric { namespace, name, dimensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hold_a_position_and_nothing_else_is_one() {
        let metric =
            Metric { namespace: "N/ä".into(), name: "m".into(), dimensions: vec![("a".into(), "b".into())] };
        assert_eq!(decode(&encode(&metric)).ok(), Some(metric));
        for token in ["", "x", "W10", "bm90aGluZw"] {
            assert!(decode(token).is_err());
        }
    }
}
