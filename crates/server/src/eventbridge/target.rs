//! What the ARN of a target means, for rules and schedules.

use crate::deliveries::Target;

/// What is known of a destination beside its ARN.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// The role that acts.
    pub role_arn: Option<String>,
    /// Group of messages to a first-in-first-out queue.
    pub group: Option<String>,
    /// Parameters of pipeline executions.
    pub parameters: Vec<(String, String)>,
}

/// The target that an ARN of `account` names.
///
/// # Errors
/// A text for people: it belongs to another account, needs a role, or is of a kind that is not done.
pub fn destination(arn: &str, account: &str, more: Destination) -> Result<Target, String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, service, _, owner, resource] = parts.as_slice() else {
        return Err(format!("{arn:?} is not an ARN"));
    };
    if *owner != account {
        return Err(format!("{arn} belongs to another account"));
    }
    match (*service, *resource) {
        ("sqs", name) => {
            if name.ends_with(".fifo") && more.group.is_none() {
                return Err(format!("the queue {name} needs SqsParameters.MessageGroupId"));
            }
            Ok(Target::Queue { arn: arn.to_owned(), group: more.group, attributes: Default::default() })
        }
        ("lambda", _) => match crate::lambda::key_of_arn(arn) {
            Some(_) => Ok(Target::Function { arn: arn.to_owned() }),
            None => Err(format!("{arn} is no function; versions and aliases are not done")),
        },
        ("sagemaker", name) if name.starts_with("pipeline/") => match more.role_arn {
            Some(role_arn) => {
                Ok(Target::Pipeline { arn: arn.to_owned(), parameters: more.parameters, role_arn })
            }
            None => Err(format!("RoleArn is required for target {arn}")),
        },
        (service, _) => Err(format!(
            "targets of {service} are not done ({arn}); Modelyard brings events to SageMaker pipelines, Lambda functions and SQS queues"
        )),
    }
}
