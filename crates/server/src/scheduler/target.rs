//! Targets of schedules: those of rules, and any operation that this server does.

use serde_json::{Value, json};

use crate::deliveries::{self, RetryPolicy, Target};
use crate::eventbridge::{Destination, destination};
use crate::events;

/// What the ARNs of operations begin with.
const OPERATIONS: &str = "arn:aws:scheduler:::aws-sdk:";

/// A target of a schedule, read from its request.
pub struct ScheduleTarget {
    /// Where it goes.
    pub target: Target,
    /// What it brings, where the schedule says so.
    pub input: Option<String>,
    /// How often it tries.
    pub policy: RetryPolicy,
    /// Queue for what could not be brought.
    pub dead_letter: Option<String>,
}

impl ScheduleTarget {
    /// Reads a target in the form of the request.
    ///
    /// # Errors
    /// A text for people.
    pub fn read(value: &Value, account: &str) -> Result<ScheduleTarget, String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let arn = value["Arn"].as_str().unwrap_or_default();
        let role_arn = value["RoleArn"].as_str().unwrap_or_default().to_owned();
        let input = text(&value["Input"]);
        let target = match arn.strip_prefix(OPERATIONS) {
            Some(named) => operation(named, role_arn, input.as_deref())?,
            None => {
                let parameters = value["SageMakerPipelineParameters"]["PipelineParameterList"].as_array();
                let parameters = parameters.into_iter().flatten();
                let more = Destination {
                    role_arn: Some(role_arn),
                    group: text(&value["SqsParameters"]["MessageGroupId"]),
                    parameters: parameters
                        .filter_map(|one| Some((text(&one["Name"])?, text(&one["Value"])?)))
                        .collect(),
                };
                destination(arn, account, more)?
            }
        };
        let dead_letter = text(&value["DeadLetterConfig"]["Arn"]);
        if let Some(queue) = &dead_letter {
            match destination(
                queue,
                account,
                Destination { group: Some("-".into()), ..Destination::default() },
            )? {
                Target::Queue { .. } => {}
                _ => return Err(format!("DeadLetterConfig.Arn: {queue} is no queue")),
            }
        }
        let default = RetryPolicy::default();
        let number = |name: &str, default: i64| value["RetryPolicy"][name].as_i64().unwrap_or(default);
        let policy = RetryPolicy {
            most_retries: number("MaximumRetryAttempts", default.most_retries),
            most_age_seconds: number("MaximumEventAgeInSeconds", default.most_age_seconds),
        };
        Ok(ScheduleTarget { target, input, policy, dead_letter })
    }

    /// What is brought at a tick.
    pub fn payload(&self, arn: &str, account: &str, region: &str, tick_at: i64, id: &str) -> String {
        let time = events::moment(tick_at);
        let Some(input) = &self.input else {
            return json!({
                "version": "0",
                "id": id,
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": account,
                "time": time,
                "region": region,
                "resources": [arn],
                "detail": "{}",
            })
            .to_string();
        };
        input
            .replace("<aws.scheduler.schedule-arn>", arn)
            .replace("<aws.scheduler.scheduled-time>", &time)
            .replace("<aws.scheduler.execution-id>", id)
            .replace("<aws.scheduler.attempt-number>", "1")
    }
}

/// An operation by `service:nameOfTheOperation`.
fn operation(named: &str, role_arn: String, input: Option<&str>) -> Result<Target, String> {
    let unknown = || format!("{OPERATIONS}{named} is no operation that Modelyard does");
    let (service, name) = named.split_once(':').ok_or_else(unknown)?;
    let mut letters = name.chars();
    let first = letters.next().ok_or_else(unknown)?;
    let name: String = first.to_uppercase().chain(letters).collect();
    let is_done = crate::app::registry().operations().any(|known| known == (service, name.as_str()));
    if !is_done {
        return Err(unknown());
    }
    let input: Value = serde_json::from_str(input.unwrap_or("{}"))
        .map_err(|error| format!("Input is not valid JSON: {error}"))?;
    if !input.is_object() {
        return Err("Input must be a JSON object with the parameters of the operation".into());
    }
    Ok(Target::Operation { service: service.to_owned(), operation: name, role_arn })
}

/// The id of what a tick asks for: the same tick is the same work.
pub fn tick_id(arn: &str, generation: i64, tick_at: i64) -> String {
    deliveries::id_of(&[arn, &generation.to_string(), &tick_at.to_string()])
}
