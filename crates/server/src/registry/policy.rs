//! Resource policies of model package groups: who from which account may do what with a group and its packages.

use serde_json::Value;
use wire::Caller;

/// What a policy says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement is about it.
    Silent,
}

/// A policy that can be applied.
#[derive(Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    allows: bool,
    principals: Vec<String>,
    actions: Vec<String>,
    resources: Vec<String>,
}

impl Policy {
    /// Reads a policy and checks that all of it can be applied to the group with this ARN.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn parse(text: &str, group_arn: &str) -> Result<Policy, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error})."))?;
        let members = document.as_object().ok_or("it is not a JSON object.")?;
        if let Some(other) =
            members.keys().find(|name| !["Version", "Id", "Statement"].contains(&name.as_str()))
        {
            return Err(format!("{other} is no member of a policy."));
        }
        match members.get("Version").and_then(Value::as_str) {
            Some("2012-10-17" | "2008-10-17") => {}
            _ => return Err("its Version must be \"2012-10-17\".".into()),
        }
        let statements: Vec<&Value> = match members.get("Statement") {
            Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
            Some(statement @ Value::Object(_)) => vec![statement],
            _ => return Err("it has no Statement.".into()),
        };
        let statements = statements.into_iter().map(|one| Statement::parse(one, group_arn));
        Ok(Policy { statements: statements.collect::<Result<_, _>>()? })
    }

    /// What the policy says when `caller` does `action` to the resource.
    pub fn decide(&self, caller: &Caller, action: &str, resource_arn: &str) -> Decision {
        let mut decision = Decision::Silent;
        for statement in &self.statements {
            if statement.is_about(caller, action, resource_arn) {
                if !statement.allows {
                    return Decision::Denied;
                }
                decision = Decision::Allowed;
            }
        }
        decision
    }
}

impl Statement {
    fn parse(statement: &Value, group_arn: &str) -> Result<Statement, String> {
        let members = statement.as_object().ok_or("a Statement is not an object.")?;
        // What is not applied is refused: a condition that is ignored would open more than its author wants.
        let known = ["Sid", "Effect", "Principal", "Action", "Resource"];
        if let Some(other) = members.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("Modelyard does not apply {other} in a Statement; leave it out."));
        }
        let allows = match members.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err("the Effect of a Statement must be Allow or Deny.".into()),
        };
        let principals = match members.get("Principal") {
            Some(Value::String(any)) if any == "*" => vec!["*".to_owned()],
            Some(Value::Object(kinds)) if kinds.keys().all(|kind| kind == "AWS") => {
                texts(kinds.get("AWS")).ok_or("the Principal of a Statement names nobody.")?
            }
            _ => return Err("the Principal of a Statement must be \"*\" or {\"AWS\": ...}.".into()),
        };
        if let Some(wrong) = principals.iter().find(|principal| !is_principal(principal)) {
            return Err(format!("{wrong:?} is neither an account nor the ARN of a role or user."));
        }
        let actions = texts(members.get("Action")).ok_or("a Statement has no Action.")?;
        if let Some(wrong) = actions.iter().find(|action| !action.to_lowercase().starts_with("sagemaker:")) {
            return Err(format!("{wrong:?} is not an action of SageMaker."));
        }
        let resources = texts(members.get("Resource")).ok_or("a Statement has no Resource.")?;
        let resources: Vec<String> = resources.iter().map(|arn| arn.to_lowercase()).collect();
        let packages = format!("{}/", package_prefix(group_arn));
        if let Some(wrong) =
            resources.iter().find(|arn| arn.as_str() != group_arn && !arn.starts_with(&packages))
        {
            return Err(format!("{wrong:?} is neither the group {group_arn} nor below {packages}."));
        }
        Ok(Statement { allows, principals, actions, resources })
    }

    fn is_about(&self, caller: &Caller, action: &str, resource_arn: &str) -> bool {
        let action = action.to_lowercase();
        self.principals.iter().any(|principal| is_principal_of(principal, caller))
            && self.actions.iter().any(|pattern| matches(&pattern.to_lowercase(), &action))
            && self.resources.iter().any(|pattern| matches(pattern, resource_arn))
    }
}

/// ARN of a group's packages, without the version.
pub fn package_prefix(group_arn: &str) -> String {
    group_arn.replacen(":model-package-group/", ":model-package/", 1)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_principal(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    text == "*"
        || is_account(text)
        || (next() == "arn"
            && next().starts_with("aws")
            && matches!(next(), "iam" | "sts")
            && next().is_empty()
            && is_account(next())
            && !next().is_empty())
}

/// Whether a principal of a policy stands for the caller: an account for all of it, a role for its sessions.
fn is_principal_of(principal: &str, caller: &Caller) -> bool {
    let account_of = |arn: &str| arn.split(':').nth(4).unwrap_or_default().to_owned();
    if principal == "*" || principal == caller.account || principal == caller.principal_arn {
        return true;
    }
    if account_of(principal) != caller.account {
        return false;
    }
    match principal.rsplit_once(':').map_or("", |(_, resource)| resource) {
        "root" => true,
        resource => match resource.strip_prefix("role/") {
            Some(path) => {
                let role = path.rsplit('/').next().unwrap_or_default();
                caller.principal_arn.contains(&format!(":assumed-role/{role}/"))
            }
            None => false,
        },
    }
}

/// One text, or a list of at least one.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(|one| one.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

/// Whether a text fits a pattern, in which `*` stands for any text and `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut of, mut star) = (0, 0, None);
    while at < text.len() {
        if of < pattern.len() && pattern[of] == '*' {
            star = Some((of, at));
            of += 1;
        } else if of < pattern.len() && (pattern[of] == '?' || pattern[of] == text[at]) {
            of += 1;
            at += 1;
        } else if let Some((star_of, star_at)) = star {
            // The last star takes one character more.
            star = Some((star_of, star_at + 1));
            of = star_of + 1;
            at = star_at + 1;
        } else {
            return false;
        }
    }
    pattern[of..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GROUP: &str = "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/churn";
    const PACKAGE: &str = "arn:aws:sagemaker:us-east-1:123456789012:model-package/churn/3";

    fn caller(account: &str, role: &str) -> Caller {
        Caller {
            account: account.into(),
            region: "us-east-1".into(),
            principal_arn: format!("arn:aws:sts::{account}:assumed-role/{role}/ann"),
            principal_id: "AROA:ann".into(),
            access_key_id: "AKIA".into(),
            session_tags: wire::SessionTags::default(),
        }
    }

    fn statement(effect: &str, principal: &str, action: &str) -> Value {
        json!({"Effect": effect, "Principal": {"AWS": principal}, "Action": action,
               "Resource": [GROUP, format!("{}/*", package_prefix(GROUP))]})
    }

    fn policy(statements: &[Value]) -> Policy {
        let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        Policy::parse(&text, GROUP).unwrap()
    }

    #[test]
    fn a_denial_beats_what_is_allowed_and_silence_is_neither() {
        let root = "arn:aws:iam::999999999999:root";
        let one = policy(&[
            statement("Allow", root, "sagemaker:Describe*"),
            statement("Deny", "arn:aws:iam::999999999999:role/Intern", "sagemaker:DescribeModelPackage"),
        ]);
        let decide = |role: &str, action: &str| one.decide(&caller("999999999999", role), action, PACKAGE);
        assert_eq!(decide("Dev", "sagemaker:DescribeModelPackage"), Decision::Allowed);
        assert_eq!(decide("Intern", "sagemaker:DescribeModelPackage"), Decision::Denied);
        assert_eq!(decide("Intern", "sagemaker:DescribeModelPackageGroup"), Decision::Allowed);
        assert_eq!(decide("Dev", "sagemaker:CreateModel"), Decision::Silent);
        let other = one.decide(&caller("888888888888", "Dev"), "sagemaker:DescribeModelPackage", PACKAGE);
        assert_eq!(other, Decision::Silent);
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let with = |name: &str, value: Value| {
            let mut changed = statement("Allow", "999999999999", "sagemaker:*");
            changed[name] = value;
            let text = json!({"Version": "2012-10-17", "Statement": changed}).to_string();
            Policy::parse(&text, GROUP).map(|_| ()).unwrap_err()
        };
        assert!(with("Condition", json!({})).contains("Condition"));
        assert!(with("Principal", json!({"AWS": "me"})).contains("\"me\""));
        assert!(with("Action", json!("s3:GetObject")).contains("s3:GetObject"));
        assert!(with("Resource", json!(format!("{GROUP}-other"))).contains("neither"));
        assert!(with("Effect", json!("Perhaps")).contains("Effect"));
        assert!(Policy::parse("{}", GROUP).unwrap_err().contains("Version"));
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("a*", "a", true),
            ("*c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
