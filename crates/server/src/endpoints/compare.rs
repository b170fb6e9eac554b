//! CompareEndpointVariants of our own service: whether the variants of an endpoint really differ in errors, latency and an outcome.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::metrics::{Aggregate, Metric, Window};
use store::resources::ResourceKey;

use crate::app::App;
use crate::endpoints::EndpointRecord;
use crate::own_service::own_operation;
use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::records;
use crate::statistics::{self, Rates, Weighted};
use crate::{Cx, Error, Registry, Result};

/// Namespace of what is measured at invocations.
const NAMESPACE: &str = "AWS/SageMaker";
/// How far back it looks when the caller does not say.
const USUAL_HOURS: i32 = 24;
/// Requests of each variant below which nothing is said.
const LEAST_REQUESTS: f64 = 30.0;
/// A difference that comes by chance more often than this is none; shared by all tests of one comparison.
const SIGNIFICANCE: f64 = 0.05;

own_operation! {
    /// Compares the variants of an endpoint.
    CompareEndpointVariants(CompareEndpointVariantsInput) -> CompareEndpointVariantsOutput
}

/// Input of [`CompareEndpointVariants`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CompareEndpointVariantsInput {
    /// The endpoint.
    pub endpoint_name: String,
    /// How many hours back.
    pub hours: Option<i32>,
    /// Namespace of an outcome that the user measures with the dimension `VariantName`.
    pub namespace: Option<String>,
    /// Its name.
    pub metric_name: Option<String>,
}

/// Output of [`CompareEndpointVariants`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CompareEndpointVariantsOutput {
    /// Numbers of each variant, and what they say.
    pub comparison: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<CompareEndpointVariants, _, _, _>(compare_endpoint_variants);
}

/// What was measured of a variant.
#[derive(Debug, Default)]
struct Measured {
    name: String,
    requests: f64,
    errors_4xx: f64,
    errors_5xx: f64,
    /// Requests that came to an end.
    ended: f64,
    /// Milliseconds.
    latencies: Weighted,
    outcome: Weighted,
}

async fn compare_endpoint_variants(
    cx: Cx,
    input: CompareEndpointVariantsInput,
) -> Result<CompareEndpointVariantsOutput> {
    let endpoint = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = EndpointRecord::read(&endpoint.document)?;
    let outcome = match (&input.namespace, &input.metric_name) {
        (Some(namespace), Some(name)) => Some((namespace.as_str(), name.as_str())),
        (None, None) => None,
        _ => {
            return Err(Error::Validation(
                "Namespace and MetricName go together: give both, or none.".into(),
            ));
        }
    };
    let hours = i64::from(input.hours.unwrap_or(USUAL_HOURS));
    let end_seconds = cx.state.clock.now_ms().div_euclid(1000) + 1;
    let start_seconds = end_seconds - hours * 3600;
    let window = Window { start_seconds, end_seconds, period_seconds: end_seconds - start_seconds };
    let mut measured = Vec::new();
    for variant in &record.variants {
        measured.push(measure(&cx.state, &endpoint.key, &variant.name, window, outcome).await?);
    }
    let weights = record.variants.iter().map(|variant| variant.weight);
    let shown: Vec<Value> =
        measured.iter().zip(weights).map(|(measured, weight)| described(measured, weight)).collect();
    let comparisons: Vec<Value> = match measured.split_first() {
        Some((first, others)) => others.iter().map(|other| compared(first, other, outcome)).collect(),
        None => Vec::new(),
    };
    Ok(CompareEndpointVariantsOutput {
        comparison: json!({
            "EndpointName": endpoint.key.name,
            "Hours": hours,
            "Variants": shown,
            "Comparisons": comparisons,
        }),
    })
}

async fn measure(
    app: &App,
    key: &ResourceKey,
    variant: &str,
    window: Window,
    outcome: Option<(&str, &str)>,
) -> Result<Measured> {
    let dimensions = |names: &[(&str, &str)]| -> Vec<(String, String)> {
        names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let both = dimensions(&[("EndpointName", &key.name), ("VariantName", variant)]);
    let read = async |namespace: &str, name: &str, dimensions: Vec<(String, String)>, with_values: bool| {
        let metric = Metric { namespace: namespace.to_owned(), name: name.to_owned(), dimensions };
        let found = app
            .metrics
            .aggregate_units((&key.account, &key.region), metric, None, window, with_values)
            .await?;
        let mut sum = Aggregate::empty(with_values);
        let mut values = Weighted::new();
        for one in found.values() {
            sum.count += one.count;
            sum.sum += one.sum;
            values.extend(one.distribution.sorted().unwrap_or_default());
        }
        values.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok::<_, Error>((sum.count, sum.sum, values))
    };
    let (_, requests, _) = read(NAMESPACE, "Invocations", both.clone(), false).await?;
    let (ended, errors_5xx, _) = read(NAMESPACE, "Invocation5XXErrors", both.clone(), false).await?;
    let (_, errors_4xx, _) = read(NAMESPACE, "Invocation4XXErrors", both.clone(), false).await?;
    let (_, _, latencies) = read(NAMESPACE, "ModelLatency", both.clone(), true).await?;
    let mut outcomes = Weighted::new();
    if let Some((namespace, name)) = outcome {
        (_, _, outcomes) = read(namespace, name, both, true).await?;
        if outcomes.is_empty() {
            let variant = dimensions(&[("VariantName", variant)]);
            (_, _, outcomes) = read(namespace, name, variant, true).await?;
        }
    }
    Ok(Measured {
        name: variant.to_owned(),
        requests,
        errors_4xx,
        errors_5xx,
        ended,
        latencies: latencies
            .into_iter()
            .map(|(microseconds, count)| (microseconds / 1000.0, count))
            .collect(),
        outcome: outcomes,
    })
}

fn described(measured: &Measured, weight: f64) -> Value {
    let rate = |errors: f64| (measured.ended > 0.0).then(|| errors / measured.ended);
    let outcome = statistics::moments(&measured.outcome);
    json!({
        "VariantName": measured.name,
        "Weight": weight,
        "Requests": measured.requests,
        "Rate4XX": rate(measured.errors_4xx),
        "Rate5XX": rate(measured.errors_5xx),
        "MedianMilliseconds": statistics::quantile(&measured.latencies, 0.5),
        "P99Milliseconds": statistics::quantile(&measured.latencies, 0.99),
        "Outcomes": statistics::count(&measured.outcome),
        "OutcomeMean": outcome.map(|(mean, _)| mean),
    })
}

/// One difference, in numbers and in words.
struct Difference {
    p_value: f64,
    shown: Value,
    /// What is said when it is significant.
    words: String,
    /// What does not differ when it is not.
    what: &'static str,
}

fn compared(first: &Measured, other: &Measured, outcome: Option<(&str, &str)>) -> Value {
    let mut comparison = json!({"Baseline": first.name, "VariantName": other.name});
    let fewest = first.ended.min(other.ended);
    if fewest < LEAST_REQUESTS {
        comparison["Verdict"] = format!(
            "Too few requests to compare {} with {}: {fewest} of {LEAST_REQUESTS} that each needs.",
            other.name, first.name
        )
        .into();
        return comparison;
    }
    let differences: Vec<(&str, Difference)> = [
        ("Errors", errors(first, other)),
        ("Latency", latency(first, other)),
        ("Outcome", outcome.and_then(|(_, name)| outcomes(first, other, name))),
    ]
    .into_iter()
    .filter_map(|(member, difference)| Some((member, difference?)))
    .collect();
    let limit = SIGNIFICANCE / differences.len().max(1) as f64;
    let (mut said, mut equal) = (Vec::new(), Vec::new());
    for (member, difference) in differences {
        let is_significant = difference.p_value < limit;
        comparison[member] = difference.shown;
        comparison[member]["PValue"] = difference.p_value.into();
        comparison[member]["IsSignificant"] = is_significant.into();
        match is_significant {
            true => said.push(format!("{} ({}).", difference.words, chance(difference.p_value))),
            false => equal.push(difference.what),
        }
    }
    if !equal.is_empty() {
        said.push(format!("No significant difference in {}.", equal.join(" or ")));
    }
    comparison["Verdict"] = said.join(" ").into();
    comparison
}

fn chance(p_value: f64) -> String {
    if p_value < 1e-4 { "p < 0.0001".into() } else { format!("p = {p_value:.4}") }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

fn errors(first: &Measured, other: &Measured) -> Option<Difference> {
    let Rates { difference, interval, p_value } =
        statistics::rates((first.errors_5xx, first.ended), (other.errors_5xx, other.ended))?;
    let word = if difference > 0.0 { "more" } else { "less" };
    Some(Difference {
        p_value,
        shown: json!({"Difference": difference, "Low": interval.0, "High": interval.1}),
        words: format!(
            "{} fails {word} often than {}: {} of {} requests against {} of {}, a difference from {} to {}",
            other.name,
            first.name,
            percent(other.errors_5xx / other.ended),
            other.ended,
            percent(first.errors_5xx / first.ended),
            first.ended,
            percent(interval.0),
            percent(interval.1)
        ),
        what: "errors",
    })
}

fn latency(first: &Measured, other: &Measured) -> Option<Difference> {
    let (superiority, p_value) = statistics::mann_whitney(&first.latencies, &other.latencies)?;
    let (before, after) =
        (statistics::quantile(&first.latencies, 0.5)?, statistics::quantile(&other.latencies, 0.5)?);
    let (word, odds) =
        if superiority > 0.5 { ("slower", superiority) } else { ("faster", 1.0 - superiority) };
    Some(Difference {
        p_value,
        shown: json!({"MedianDifferenceMilliseconds": after - before, "ChanceOfSlower": superiority}),
        words: format!(
            "{} is {word} than {}: {after:.2} ms against {before:.2} ms in the middle, and an answer of it is {word} {:.0} times in 100",
            other.name,
            first.name,
            odds * 100.0
        ),
        what: "latency",
    })
}

fn outcomes(first: &Measured, other: &Measured, name: &str) -> Option<Difference> {
    let (superiority, p_value) = statistics::mann_whitney(&first.outcome, &other.outcome)?;
    let (before, spread) = statistics::moments(&first.outcome)?;
    let (after, other_spread) = statistics::moments(&other.outcome)?;
    let error = (spread / statistics::count(&first.outcome)
        + other_spread / statistics::count(&other.outcome))
    .sqrt();
    let difference = after - before;
    let interval = (difference - 1.959_963_985 * error, difference + 1.959_963_985 * error);
    let word = if superiority > 0.5 { "higher" } else { "lower" };
    Some(Difference {
        p_value,
        shown: json!({"Difference": difference, "Low": interval.0, "High": interval.1}),
        words: format!(
            "{name} of {} is {word} than that of {}: {after:.4} against {before:.4} on average, a difference from {:.4} to {:.4}",
            other.name, first.name, interval.0, interval.1
        ),
        what: "the outcome",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, requests: f64, errors_5xx: f64, milliseconds: f64) -> Measured {
        Measured {
            name: name.into(),
            requests,
            ended: requests,
            errors_5xx,
            latencies: vec![(milliseconds, requests / 2.0), (milliseconds * 1.2, requests / 2.0)],
            outcome: vec![(0.0, requests * 0.9), (1.0, requests * 0.1)],
            ..Measured::default()
        }
    }

    fn verdict(first: &Measured, other: &Measured) -> String {
        compared(first, other, Some(("Mine", "Clicks")))["Verdict"].as_str().unwrap().to_owned()
    }

    #[test]
    fn verdicts_are_sentences() {
        let base = measured("a", 1_000.0, 10.0, 5.0);
        let text = verdict(&base, &measured("b", 20.0, 10.0, 5.0));
        assert_eq!(text, "Too few requests to compare b with a: 20 of 30 that each needs.");
        let text = verdict(&base, &measured("b", 1_000.0, 12.0, 5.0));
        assert_eq!(text, "No significant difference in errors or latency or the outcome.");
        let text = verdict(&base, &measured("b", 1_000.0, 80.0, 9.0));
        assert!(
            text.contains("b fails more often than a: 8.00 % of 1000 requests against 1.00 % of 1000"),
            "{text}"
        );
        assert!(text.contains("b is slower than a") && text.contains("p < 0.0001"), "{text}");
        let mut better = measured("b", 1_000.0, 10.0, 5.0);
        better.outcome = vec![(0.0, 800.0), (1.0, 200.0)];
        let text = verdict(&base, &better);
        assert!(text.contains("Clicks of b is higher than that of a: 0.2000 against 0.1000"), "{text}");
    }
}
