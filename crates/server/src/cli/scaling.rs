//! `modelyard endpoints scaling`: what scales an endpoint, what it did lately, and why it did not.

use serde_json::{Value, json};

use super::client::Client;
use super::components;
use super::jobs::text;
use super::output::{self, Format};
use super::resources::instances;

/// Activities that are shown.
const SHOWN_ACTIVITIES: usize = 10;

/// Shows targets, policies, scheduled actions and the last activities of an endpoint.
///
/// # Errors
/// The server's error, or why it was not reached.
pub async fn show(client: &Client, name: &str, format: Format) -> Result<(), String> {
    let mut endpoint = client.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": name})).await?;
    components::add(client, &mut endpoint).await?;
    let components = components::as_variants(&endpoint);
    let ids: Vec<String> = components
        .iter()
        .map(|component| format!("inference-component/{}", text(&component["VariantName"])))
        .collect();
    if let Some(variants) = endpoint["ProductionVariants"].as_array_mut() {
        variants.extend(components);
    }
    let prefix = format!("endpoint/{}/", text(&endpoint["EndpointName"]));
    let of_endpoint = |found: Vec<Value>| -> Vec<Value> {
        let own = |row: &Value| {
            let id = row["ResourceId"].as_str();
            id.is_some_and(|id| id.starts_with(&prefix) || ids.iter().any(|own| own == id))
        };
        found.into_iter().filter(own).collect()
    };
    let list = async |operation: &str, member: &str, more: Value| {
        let mut input = json!({"ServiceNamespace": "sagemaker"});
        if let (Some(input), Value::Object(more)) = (input.as_object_mut(), more) {
            input.extend(more);
        }
        client.list(&format!("AnyScaleFrontendService.{operation}"), input, member).await.map(of_endpoint)
    };
    let targets = list("DescribeScalableTargets", "ScalableTargets", json!({})).await?;
    let policies = list("DescribeScalingPolicies", "ScalingPolicies", json!({})).await?;
    let actions = list("DescribeScheduledActions", "ScheduledActions", json!({})).await?;
    let with_refusals = json!({"IncludeNotScaledActivities": true});
    let mut activities = list("DescribeScalingActivities", "ScalingActivities", with_refusals).await?;
    activities.truncate(SHOWN_ACTIVITIES);
    if format == Format::Json {
        output::json(&json!({
            "ScalableTargets": targets,
            "ScalingPolicies": policies,
            "ScheduledActions": actions,
            "ScalingActivities": activities,
        }));
        return Ok(());
    }
    if targets.is_empty() {
        output::line(&format!(
            "Nothing scales {name}: no variant or component of it is registered with RegisterScalableTarget."
        ));
    } else {
        let variants = &endpoint["ProductionVariants"];
        output::table(
            &["VARIANT", "INSTANCES", "LEAST", "MOST", "SUSPENDED"],
            &targets.iter().map(|target| target_row(target, variants)).collect::<Vec<_>>(),
        );
    }
    section("POLICIES", &["NAME", "VARIANT", "WHAT IT DOES"], &policies, policy_row);
    section("SCHEDULED ACTIONS", &["NAME", "VARIANT", "WHEN", "BOUNDS"], &actions, action_row);
    section("ACTIVITIES", &["STARTED (UTC)", "STATUS", "WHAT", "WHY"], &activities, activity_row);
    Ok(())
}

fn section(title: &str, headings: &[&str], found: &[Value], row: fn(&Value) -> Vec<String>) {
    if !found.is_empty() {
        output::line("");
        output::line(title);
        output::table(headings, &found.iter().map(row).collect::<Vec<_>>());
    }
}

/// The variant's or component's name, from `endpoint/NAME/variant/NAME` or `inference-component/NAME`.
fn variant(row: &Value) -> String {
    text(&row["ResourceId"]).rsplit('/').next().unwrap_or_default().to_owned()
}

fn target_row(target: &Value, variants: &Value) -> Vec<String> {
    let name = variant(target);
    let none = Vec::new();
    let found = variants.as_array().unwrap_or(&none).iter().find(|one| one["VariantName"] == name.as_str());
    let instances = found.map(instances);
    let suspended: Vec<&str> = [
        ("DynamicScalingOutSuspended", "out"),
        ("DynamicScalingInSuspended", "in"),
        ("ScheduledScalingSuspended", "scheduled"),
    ]
    .into_iter()
    .filter(|(member, _)| target["SuspendedState"][*member] == true)
    .map(|(_, word)| word)
    .collect();
    vec![
        name,
        instances.unwrap_or_default(),
        target["MinCapacity"].to_string(),
        target["MaxCapacity"].to_string(),
        suspended.join(", "),
    ]
}

fn policy_row(policy: &Value) -> Vec<String> {
    let tracking = &policy["TargetTrackingScalingPolicyConfiguration"];
    let predefined = &tracking["PredefinedMetricSpecification"]["PredefinedMetricType"];
    let customized = &tracking["CustomizedMetricSpecification"]["MetricName"];
    let metric = [predefined, customized].into_iter().find_map(Value::as_str).unwrap_or("an expression");
    let what = match tracking["TargetValue"].as_f64() {
        Some(target) => format!("keeps {metric} at {target}"),
        None => "steps when an alarm goes off".to_owned(),
    };
    vec![text(&policy["PolicyName"]), variant(policy), what]
}

fn action_row(action: &Value) -> Vec<String> {
    let bounds = &action["ScalableTargetAction"];
    let of = |member: &str, word: &str| bounds[member].as_i64().map(|number| format!("{word} {number}"));
    let bounds: Vec<String> =
        [of("MinCapacity", "least"), of("MaxCapacity", "most")].into_iter().flatten().collect();
    let when = format!("{} {}", text(&action["Schedule"]), text(&action["Timezone"]));
    vec![text(&action["ScheduledActionName"]), variant(action), when.trim_end().to_owned(), bounds.join(", ")]
}

fn activity_row(activity: &Value) -> Vec<String> {
    let refusal = activity["NotScaledReasons"][0]["Code"].as_str();
    let what = match refusal {
        Some(code) => format!("Not scaled: {code}"),
        None => text(&activity["Description"]),
    };
    let failure = activity["StatusMessage"].as_str().filter(|_| activity["StatusCode"] == "Failed");
    let why = match failure {
        Some(failure) => format!("{}; {failure}", text(&activity["Cause"])),
        None => text(&activity["Cause"]),
    };
    vec![output::time(activity["StartTime"].as_f64()), text(&activity["StatusCode"]), what, why]
}
