//! `modelyard endpoints replay`: what an endpoint's users asked is asked of a candidate, and the answers are compared.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use serving::Latencies;

use super::client::Client;
use super::output::{self, Format};
use crate::capture::replay::{Report, USUAL_TOLERANCE, latencies};

/// Pause between two looks at an endpoint that starts.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Flags of `modelyard endpoints replay`.
#[derive(clap::Args)]
pub struct Flags {
    /// The endpoint whose captured traffic is replayed; it gets no request
    name: String,
    /// The endpoint that answers, or a model, for which an endpoint is made and removed again
    #[arg(long, value_name = "ENDPOINT|MODEL")]
    against: String,
    /// Only what was captured in the last hours (30m, 12h, 7d), or since a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Most requests that are sent
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// How far apart two numbers may be, relative to the greater one
    #[arg(long, value_name = "X", default_value_t = USUAL_TOLERANCE)]
    tolerance: f64,
    /// Per cent of the answers that may differ or fail before the command ends with code 1
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    allow_percent: f64,
    /// Instance type of the endpoint that is made for a model
    #[arg(long, value_name = "TYPE", default_value = "ml.m5.large")]
    instance_type: String,
}

/// Runs the command.
///
/// # Errors
/// The server's error, why it was not reached, or that there is nothing to replay.
pub async fn replay(client: &Client, flags: &Flags, format: Format) -> Result<ExitCode, String> {
    let since =
        flags.since.as_deref().map(|text| moment(text, store::Clock::system().now_ms())).transpose()?;
    let candidate = Candidate::find(client, &flags.against, &flags.instance_type).await?;
    let replayed = replay_all(client, flags, &candidate.endpoint, since).await;
    candidate.remove(client).await?;
    let report = replayed?;
    if report.requests == 0 && report.skipped == 0 {
        return Err(format!(
            "no captured traffic of {} was found{}; nothing was replayed",
            flags.name,
            if since.is_some() { " since then" } else { "" }
        ));
    }
    show(&report, flags, format);
    let apart = (report.different + report.failed) as f64 * 100.0;
    let is_too_much = report.requests == 0 || apart > flags.allow_percent * report.requests as f64;
    Ok(if is_too_much { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn replay_all(
    client: &Client,
    flags: &Flags,
    candidate: &str,
    since: Option<i64>,
) -> Result<Report, String> {
    let mut sum = Report::default();
    let mut input =
        json!({"EndpointName": flags.name, "CandidateName": candidate, "Tolerance": flags.tolerance});
    if let Some(since) = since {
        input["Since"] = json!(since);
    }
    while sum.requests < flags.limit {
        input["MaxResults"] = json!((flags.limit - sum.requests).min(200));
        let mut answer = client.call("Modelyard.ReplayCapture", &input).await?;
        let report: Report =
            serde_json::from_value(answer["Report"].take()).map_err(|error| error.to_string())?;
        sum.merge(report);
        match answer["After"].take() {
            Value::Null => break,
            after => input["After"] = after,
        }
    }
    Ok(sum)
}

/// The endpoint that answers.
struct Candidate {
    endpoint: String,
    /// It was made for this, with a configuration of the same name.
    is_made: bool,
}

impl Candidate {
    async fn find(client: &Client, name: &str, instance_type: &str) -> Result<Candidate, String> {
        let described = client.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": name})).await;
        let Err(missing) = described else {
            return Ok(Candidate { endpoint: name.to_owned(), is_made: false });
        };
        if client.call("SageMaker.DescribeModel", &json!({"ModelName": name})).await.is_err() {
            return Err(format!("--against: there is no endpoint and no model {name} ({})", missing.message));
        }
        let short: String = name.chars().take(40).collect();
        let id = uuid::Uuid::new_v4().simple().to_string();
        let candidate = Candidate { endpoint: format!("replay-{short}-{}", &id[..8]), is_made: true };
        let variant = json!({
            "VariantName": "candidate", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": instance_type,
        });
        let name = &candidate.endpoint;
        let config = json!({"EndpointConfigName": name, "ProductionVariants": [variant]});
        client.call("SageMaker.CreateEndpointConfig", &config).await?;
        let made = async {
            let endpoint = json!({"EndpointName": name, "EndpointConfigName": name});
            client.call("SageMaker.CreateEndpoint", &endpoint).await?;
            loop {
                let shown = client.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": name})).await?;
                match shown["EndpointStatus"].as_str().unwrap_or_default() {
                    "InService" => return Ok(()),
                    "Failed" => {
                        let reason = shown["FailureReason"].as_str().unwrap_or_default();
                        return Err(format!("the endpoint for the model failed: {reason}"));
                    }
                    _ => tokio::time::sleep(LOOK_PAUSE).await,
                }
            }
        };
        match made.await {
            Ok(()) => Ok(candidate),
            Err(text) => {
                // The first error says more than one of the clean-up.
                let _ = candidate.remove(client).await;
                Err(text)
            }
        }
    }

    async fn remove(&self, client: &Client) -> Result<(), String> {
        if !self.is_made {
            return Ok(());
        }
        let name = &self.endpoint;
        let endpoint = client.call("SageMaker.DeleteEndpoint", &json!({"EndpointName": name})).await;
        let config =
            client.call("SageMaker.DeleteEndpointConfig", &json!({"EndpointConfigName": name})).await;
        endpoint.and(config).map(drop).map_err(|failure| {
            format!("the endpoint {name} that was made for this could not be removed: {}", failure.message)
        })
    }
}

fn show(report: &Report, flags: &Flags, format: Format) {
    let times = |latencies: &Latencies| {
        let of = |share| latencies.percentile(share).map(|microseconds| microseconds / 1000.0);
        (of(0.5), of(0.99))
    };
    let (original, candidate) =
        (latencies(&report.original_latencies), latencies(&report.candidate_latencies));
    let shown = [(flags.name.as_str(), times(&original)), (flags.against.as_str(), times(&candidate))];
    if format == Format::Json {
        let latency = shown
            .map(|(name, (p50, p99))| json!({"Name": name, "P50Milliseconds": p50, "P99Milliseconds": p99}));
        output::json(&json!({
            "Requests": report.requests, "Equal": report.equal, "Different": report.different, "Failed": report.failed,
            "Skipped": report.skipped, "Latencies": latency, "Findings": report.findings,
        }));
        return;
    }
    output::fields(&[
        ("Requests", report.requests.to_string()),
        ("Equal", report.equal.to_string()),
        ("Different", report.different.to_string()),
        ("Failed", report.failed.to_string()),
        ("Skipped", report.skipped.to_string()),
    ]);
    output::line("");
    let milliseconds =
        |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} ms"));
    let rows = shown.map(|(name, (p50, p99))| vec![name.to_owned(), milliseconds(p50), milliseconds(p99)]);
    output::table(&["LATENCY OF", "P50", "P99"], &rows);
    if report.findings.is_empty() {
        return;
    }
    output::line("");
    let row = |finding: &crate::capture::replay::Finding| {
        let relative = finding.relative.map(|relative| format!("{relative:.2e}")).unwrap_or_default();
        vec![finding.event_id.clone(), finding.outcome.clone(), relative, finding.text.clone()]
    };
    let rows: Vec<Vec<String>> = report.findings.iter().map(row).collect();
    output::table(&["EVENT", "OUTCOME", "DIFFERENCE", "WHAT"], &rows);
}

/// A moment in milliseconds since 1970: a time, or so long ago.
fn moment(text: &str, now_ms: i64) -> Result<i64, String> {
    let wrong = || {
        format!(
            "--since: {text:?} is neither an age such as 30m, 12h or 7d nor a time such as 2026-01-31T12:00:00Z"
        )
    };
    let seconds = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => {
            let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
            return at.map(|at| at.unix_timestamp() * 1000).map_err(|_| wrong());
        }
    };
    let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0).ok_or_else(wrong)?;
    count.checked_mul(seconds * 1000).map(|age_ms| (now_ms - age_ms).max(0)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        let now_ms = 1_769_860_800_000;
        assert_eq!(moment("90s", now_ms), Ok(now_ms - 90_000));
        assert_eq!(moment("2h", now_ms), Ok(now_ms - 7_200_000));
        assert_eq!(moment("36500d", now_ms), Ok(0));
        assert_eq!(moment("2026-01-31T12:00:00Z", 0), Ok(now_ms));
        for wrong in ["", "h", "-3h", "yesterday", "99999999999999999999d", "2026-01-31", "é"] {
            assert!(moment(wrong, now_ms).is_err(), "{wrong}");
        }
    }
}
