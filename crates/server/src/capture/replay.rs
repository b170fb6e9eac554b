//! ReplayCapture of our own service: captured requests of one endpoint go to another one, and the answers are compared.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serving::{InvokeError, InvokeRequest, Latencies};

use super::compare::{Difference, compare};
use super::format::media_type;
use super::traffic::{Next, Position, Recorded, Traffic};
use super::{Place, hour_of};
use crate::endpoints::EndpointRecord;
use crate::own_service::own_operation;
use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::records;
use crate::{Cx, Error, Registry, Result};

/// Requests of one call when the caller does not say.
const USUAL_REQUESTS: i32 = 200;
/// A call begins no request after this time; the caller goes on with the next call.
const CALL_TIME: Duration = Duration::from_secs(15);
/// Differences that an answer shows.
const SHOWN_DIFFERENCES: usize = 20;
/// How far apart numbers may be when the caller does not say.
pub const USUAL_TOLERANCE: f64 = 1e-6;

own_operation! {
    /// Replays some captured requests.
    ReplayCapture(ReplayCaptureInput) -> ReplayCaptureOutput
}

/// Input of [`ReplayCapture`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplayCaptureInput {
    /// Whose captured traffic it is.
    pub endpoint_name: String,
    /// Who answers it.
    pub candidate_name: String,
    /// Only what was captured since then, milliseconds since 1970.
    pub since: Option<i64>,
    /// How far apart numbers may be.
    pub tolerance: Option<f64>,
    /// Most requests of this call.
    pub max_results: Option<i32>,
    /// Where the call before ended.
    pub after: Option<String>,
}

/// Output of [`ReplayCapture`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplayCaptureOutput {
    /// A [`Report`].
    pub report: Value,
    /// Where to go on; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What came of the requests of one call, or of several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Requests that were sent.
    pub requests: u64,
    /// Answers that are the same.
    pub equal: u64,
    /// Answers that are not.
    pub different: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Captured invocations that have only one side, or cannot be read: nothing was sent.
    pub skipped: u64,
    /// Why requests failed or were skipped, and where answers differ the most.
    pub findings: Vec<Finding>,
    /// How long the captured invocations took, in classes; of whole files of captured data.
    pub original_latencies: String,
    /// How long the candidate took, in classes.
    pub candidate_latencies: String,
}

/// One request that did not go as it should.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// `eventId` of the captured invocation.
    pub event_id: String,
    /// When it was captured.
    pub at: String,
    /// `different`, `failed` or `skipped`.
    pub outcome: String,
    /// The greatest relative difference of two numbers, when only numbers differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// What it is.
    pub text: String,
}

impl Report {
    /// Adds what came of further requests.
    pub fn merge(&mut self, other: Report) {
        self.requests += other.requests;
        self.equal += other.equal;
        self.different += other.different;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.findings.extend(other.findings);
        self.keep_the_worst();
        for (sum, more) in [
            (&mut self.original_latencies, &other.original_latencies),
            (&mut self.candidate_latencies, &other.candidate_latencies),
        ] {
            let mut merged = latencies(sum);
            merged.merge(&latencies(more));
            *sum = merged.to_string();
        }
    }

    fn find(&mut self, recorded: &Recorded, outcome: &str, relative: Option<f64>, text: String) {
        let (event_id, at) = (recorded.event_id.clone(), recorded.at.clone());
        // JSON has no infinity.
        let relative = relative.map(|relative| relative.min(f64::MAX));
        self.findings.push(Finding { event_id, at, outcome: outcome.to_owned(), relative, text });
        if self.findings.len() > 2 * SHOWN_DIFFERENCES {
            self.keep_the_worst();
        }
    }

    fn keep_the_worst(&mut self) {
        let weight = |finding: &Finding| match finding.outcome.as_str() {
            "failed" => f64::INFINITY,
            "skipped" => -1.0,
            _ => finding.relative.unwrap_or(f64::MAX),
        };
        self.findings.sort_by(|one, other| weight(other).total_cmp(&weight(one)));
        self.findings.truncate(SHOWN_DIFFERENCES);
    }
}

/// Latencies in a report.
pub fn latencies(text: &str) -> Latencies {
    // What this module wrote is read; of anything else nothing is known.
    text.parse().unwrap_or_default()
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<ReplayCapture, _, _, _>(replay_capture);
}

async fn replay_capture(cx: Cx, input: ReplayCaptureInput) -> Result<ReplayCaptureOutput> {
    let (name, candidate) = (&input.endpoint_name, &input.candidate_name);
    if name.eq_ignore_ascii_case(candidate) {
        return Err(Error::Validation(format!(
            "CandidateName: {candidate} is the endpoint whose traffic is replayed; name another one, so that its users notice nothing."
        )));
    }
    let resource = records::find(&cx, ENDPOINT, name).await?;
    let config = EndpointRecord::read(&resource.document)?.data_capture.ok_or_else(|| {
        Error::Validation(format!(
            "Endpoint {name} captures nothing: update it with a configuration that has a DataCaptureConfig."
        ))
    })?;
    let answering = records::find(&cx, ENDPOINT, candidate).await?;
    if answering.status != "InService" {
        return Err(Error::Validation(format!(
            "CandidateName: endpoint {candidate} is {}; wait until it is InService.",
            answering.status
        )));
    }
    let uri = config["DestinationS3Uri"].as_str().unwrap_or_default();
    let place = Place::of(&cx.caller.account, uri).ok_or_else(|| {
        Error::Validation(format!("The captured data of {name} is not in S3 but at {uri:?}."))
    })?;
    let (since, first_hour) = match input.since {
        Some(since) => (crate::events::moment(since), hour_of(since)),
        None => Default::default(),
    };
    let position = input.after.as_deref().map(Position::parse).transpose()?.unwrap_or_default();
    let mut replay = Replay {
        cx: &cx,
        candidate: &answering.key,
        tolerance: input.tolerance.unwrap_or(USUAL_TOLERANCE),
        report: Report::default(),
        candidate_latencies: Latencies::default(),
    };
    let mut traffic = Traffic::new(&cx.state, place, &resource.key.name, first_hour, position);
    let mut original_latencies = Latencies::default();
    let most = u64::try_from(input.max_results.unwrap_or(USUAL_REQUESTS)).unwrap_or(1);
    let began_at = Instant::now();
    let mut is_end = false;
    while replay.report.requests < most && began_at.elapsed() < CALL_TIME {
        match traffic.next().await? {
            Next::End => {
                is_end = true;
                break;
            }
            Next::Object(latencies) => original_latencies.merge(&latencies.unwrap_or_default()),
            Next::Unreadable(text) => replay.skip_unreadable(&text),
            // Times of one form are in order as texts, too.
            Next::Line(recorded) if recorded.at < since => {}
            Next::Line(recorded) => replay.one(&recorded).await?,
        }
    }
    let Replay { mut report, candidate_latencies, .. } = replay;
    report.keep_the_worst();
    report.original_latencies = original_latencies.to_string();
    report.candidate_latencies = candidate_latencies.to_string();
    let after = (!is_end).then(|| traffic.position().text());
    Ok(ReplayCaptureOutput { report: json!(report), after })
}

struct Replay<'a> {
    cx: &'a Cx,
    candidate: &'a store::resources::ResourceKey,
    tolerance: f64,
    report: Report,
    candidate_latencies: Latencies,
}

impl Replay<'_> {
    fn skip_unreadable(&mut self, text: &str) {
        self.report.skipped += 1;
        let nobody = Recorded {
            event_id: String::new(),
            input: None,
            output: None,
            inference_id: None,
            custom_attributes: None,
            target_model: None,
            target_container: None,
            at: String::new(),
        };
        self.report.find(&nobody, "skipped", None, format!("a captured line cannot be read: {text}"));
    }

    async fn one(&mut self, recorded: &Recorded) -> Result<()> {
        let (Some(input), Some(output)) = (&recorded.input, &recorded.output) else {
            self.report.skipped += 1;
            let text = "only one side was captured; CaptureOptions must have Input and Output".to_owned();
            self.report.find(recorded, "skipped", None, text);
            return Ok(());
        };
        let request = InvokeRequest {
            content_type: input.content_type.clone(),
            // The same form as before, whatever the caller had asked for.
            accept: output.content_type.as_deref().map(media_type).filter(|kind| !kind.is_empty()),
            custom_attributes: recorded.custom_attributes.clone(),
            inference_id: recorded.inference_id.clone(),
            target_model: recorded.target_model.clone(),
            target_container: recorded.target_container.clone(),
            request_id: Some(recorded.event_id.clone()),
            body: input.data.clone(),
            ..InvokeRequest::default()
        };
        self.report.requests += 1;
        let began_at = Instant::now();
        let answered = self.cx.state.endpoints.invoke(self.candidate, request).await;
        let microseconds = u64::try_from(began_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let answer = match answered {
            Ok(answer) => answer,
            Err(error @ (InvokeError::NoSuchEndpoint { .. } | InvokeError::NotInService { .. })) => {
                let name = &self.candidate.name;
                return Err(Error::Validation(format!(
                    "CandidateName: endpoint {name} cannot be asked: {error}"
                )));
            }
            Err(error) => {
                self.report.failed += 1;
                let text = match &error {
                    InvokeError::ModelError { answer, body, .. } => {
                        let body: String = String::from_utf8_lossy(body).chars().take(300).collect();
                        format!("status {}: {body}", answer.status)
                    }
                    error => error.to_string(),
                };
                self.report.find(recorded, "failed", None, text);
                return Ok(());
            }
        };
        self.candidate_latencies.add(microseconds);
        let found = super::traffic::Body { content_type: answer.answer.content_type, data: answer.body };
        match compare(output, &found, self.tolerance) {
            Ok(()) => self.report.equal += 1,
            Err(Difference { relative, text }) => {
                self.report.different += 1;
                self.report.find(recorded, "different", relative, text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up_and_keep_the_worst() {
        let finding = |outcome: &str, relative: Option<f64>| Finding {
            event_id: "e".into(),
            at: String::new(),
            outcome: outcome.into(),
            relative,
            text: String::new(),
        };
        let mut sum = Report::default();
        for round in 0..30 {
            let mut candidate = Latencies::default();
            candidate.add(1000);
            sum.merge(Report {
                requests: 3,
                equal: 1,
                different: 1,
                failed: 1,
                skipped: 0,
                findings: vec![finding("different", Some(f64::from(round))), finding("skipped", None)],
                original_latencies: String::new(),
                candidate_latencies: candidate.to_string(),
            });
        }
        sum.merge(Report { findings: vec![finding("failed", None)], ..Report::default() });
        assert_eq!((sum.requests, sum.equal, sum.different, sum.failed), (90, 30, 30, 30));
        assert_eq!(sum.findings.len(), SHOWN_DIFFERENCES);
        assert_eq!(sum.findings[0].outcome, "failed");
        assert_eq!(sum.findings[1].relative, Some(29.0));
        assert_eq!(latencies(&sum.candidate_latencies).count(), 30);
        let read: Report = serde_json::from_value(json!(sum)).unwrap();
        assert_eq!(read, sum);
    }
}
