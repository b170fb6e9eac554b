//! Metrics that a job prints.

use std::collections::BTreeMap;

use runner::contract::MetricScraper;

use super::attempt::Attempt;
use super::record::{FinalMetric, HostRecord};

/// Puts the values of a later attempt over those of the earlier ones.
pub fn merge(known: &mut Vec<FinalMetric>, later: Vec<FinalMetric>) {
    known.retain(|metric| later.iter().all(|one| one.name != metric.name));
    known.extend(later);
}

/// Reads the metrics of the job's definitions from the logs of its hosts; of several hosts, the latest value counts.
pub async fn final_metrics(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> Vec<FinalMetric> {
    let specification = attempt.request.algorithm_specification.as_ref();
    let definitions: Vec<(String, String)> = specification
        .and_then(|specification| specification.metric_definitions.as_ref())
        .map(|definitions| definitions.iter().map(|one| (one.name.clone(), one.regex.clone())).collect())
        .unwrap_or_default();
    if definitions.is_empty() {
        return Vec::new();
    }
    let mut last: BTreeMap<String, FinalMetric> = BTreeMap::new();
    for host in hosts {
        let mut scraper = match MetricScraper::new(&definitions) {
            Ok(scraper) => scraper,
            // CreateTrainingJob refused what does not compile; a stored one from elsewhere gives no metrics.
            Err(error) => {
                tracing::warn!(job = attempt.work.key.name, %error, "metric definitions cannot be used");
                return Vec::new();
            }
        };
        let fed = attempt.log(&host.log_stream).each(|at, line| scraper.feed(at, line)).await;
        if let Err(error) = fed {
            tracing::error!(job = attempt.work.key.name, error, "the log could not be read for metrics");
        }
        for name in scraper.given_up() {
            let text = format!(
                "modelyard: the Regex of metric {name:?} takes too long: only the beginning of the log was searched for it"
            );
            attempt.log(&host.log_stream).line(&text).await;
        }
        for (name, value, at) in scraper.final_values() {
            if last.get(&name).is_none_or(|known| known.at <= at) {
                last.insert(name.clone(), FinalMetric { name, value, at });
            }
        }
    }
    let named = definitions.iter().filter_map(|(name, _)| last.remove(name));
    named.collect()
}
