//! `DeploymentConfig` of an endpoint: what it means, and what is refused of it.

use serde_json::Value;

use super::machine::{Kind, Policy};
use crate::{Error, Result};

/// Reads a deployment configuration for a fleet whose largest variant has that many instances.
///
/// # Errors
/// [`Error::Validation`] that names the field.
pub fn policy(config: &Value, instances: u32) -> Result<Policy> {
    let (blue_green, rolling) = (&config["BlueGreenUpdatePolicy"], &config["RollingUpdatePolicy"]);
    if !blue_green.is_null() && !rolling.is_null() {
        return refuse("give either BlueGreenUpdatePolicy or RollingUpdatePolicy, not both");
    }
    let policy = if rolling.is_null() {
        blue_green_policy(blue_green, instances)
    } else {
        rolling_policy(rolling, instances)
    }?;
    if let Some(limit_ms) = policy.limit_ms
        && limit_ms <= policy.keep_ms + policy.wait_ms
    {
        return refuse(
            "MaximumExecutionTimeoutInSeconds must be larger than WaitIntervalInSeconds and TerminationWaitInSeconds together",
        );
    }
    Ok(policy)
}

/// The alarms that roll a deployment back, by name.
pub fn alarms(config: &Value) -> Vec<String> {
    let none = Vec::new();
    let alarms = config["AutoRollbackConfiguration"]["Alarms"].as_array().unwrap_or(&none);
    alarms.iter().filter_map(|alarm| alarm["AlarmName"].as_str()).map(str::to_owned).collect()
}

fn refuse<T>(text: &str) -> Result<T> {
    Err(Error::Validation(format!("DeploymentConfig: {text}.")))
}

fn milliseconds(value: &Value) -> Option<i64> {
    value.as_i64().map(|seconds| seconds * 1000)
}

fn blue_green_policy(config: &Value, instances: u32) -> Result<Policy> {
    let routing = &config["TrafficRoutingConfiguration"];
    let (canary, linear) = (&routing["CanarySize"], &routing["LinearStepSize"]);
    let kind = match routing["Type"].as_str().unwrap_or("ALL_AT_ONCE") {
        "CANARY" if linear.is_null() => {
            Kind::Canary(size(canary, "CanarySize", instances, (0.0, 0.5), "at most 50 percent")?)
        }
        "LINEAR" if canary.is_null() => {
            Kind::Linear(size(linear, "LinearStepSize", instances, (0.1, 0.5), "from 10 to 50 percent")?)
        }
        "ALL_AT_ONCE" if canary.is_null() && linear.is_null() => Kind::AllAtOnce,
        "CANARY" => return refuse("LinearStepSize does not go with Type CANARY"),
        "LINEAR" => return refuse("CanarySize does not go with Type LINEAR"),
        "ALL_AT_ONCE" => return refuse("CanarySize and LinearStepSize do not go with Type ALL_AT_ONCE"),
        other => return refuse(&format!("TrafficRoutingConfiguration.Type {other} is not supported")),
    };
    Ok(Policy {
        kind,
        wait_ms: milliseconds(&routing["WaitIntervalInSeconds"]).unwrap_or(0),
        keep_ms: milliseconds(&config["TerminationWaitInSeconds"]).unwrap_or(0),
        limit_ms: milliseconds(&config["MaximumExecutionTimeoutInSeconds"]),
    })
}

fn rolling_policy(config: &Value, instances: u32) -> Result<Policy> {
    let size = |name: &str, most: f64, words: &str| {
        let given = &config[name];
        // One instance is always a batch, also of a fleet that has no other.
        if given["Type"] == "INSTANCE_COUNT" && given["Value"] == 1 {
            return Ok(1.0 / f64::from(instances.max(1)));
        }
        size(given, name, instances, (0.05, most), words)
    };
    let batch = size("MaximumBatchSize", 0.5, "from 5 to 50 percent")?;
    let rollback_batch = match config["RollbackMaximumBatchSize"].is_null() {
        true => 1.0,
        false => size("RollbackMaximumBatchSize", 1.0, "from 5 to 100 percent")?,
    };
    Ok(Policy {
        kind: Kind::Rolling { batch, rollback_batch },
        wait_ms: milliseconds(&config["WaitIntervalInSeconds"]).unwrap_or(0),
        keep_ms: 0,
        limit_ms: milliseconds(&config["MaximumExecutionTimeoutInSeconds"]),
    })
}

/// A `CapacitySize` as a part of the fleet.
fn size(size: &Value, name: &str, instances: u32, (least, most): (f64, f64), words: &str) -> Result<f64> {
    let Some(value) = size["Value"].as_u64() else {
        return refuse(&format!("{name} is missing"));
    };
    let part = match size["Type"].as_str() {
        Some("CAPACITY_PERCENT") => value as f64 / 100.0,
        Some("INSTANCE_COUNT") => value as f64 / f64::from(instances.max(1)),
        other => return refuse(&format!("{name}.Type {} is not supported", other.unwrap_or_default())),
    };
    let slack = 1e-9;
    if part > least - slack && part < most + slack {
        return Ok(part.min(1.0));
    }
    let of = match size["Type"] == "INSTANCE_COUNT" {
        true => format!("{value} of {instances} instances"),
        false => format!("{value} percent"),
    };
    refuse(&format!("{name} must be {words} of the variant's capacity; it is {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn blue_green(routing: &Value) -> Result<Policy> {
        policy(&json!({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}), 4)
    }

    #[test]
    fn each_policy_is_read() {
        let size = |kind: &str, value: u32| json!({"Type": kind, "Value": value});
        let canary = blue_green(
            &json!({"Type": "CANARY", "WaitIntervalInSeconds": 7, "CanarySize": size("INSTANCE_COUNT", 1)}),
        );
        let canary = canary.unwrap();
        assert_eq!((canary.kind, canary.wait_ms, canary.keep_ms), (Kind::Canary(0.25), 7_000, 0));
        let linear = json!({"Type": "LINEAR", "WaitIntervalInSeconds": 0, "LinearStepSize": size("CAPACITY_PERCENT", 30)});
        assert_eq!(blue_green(&linear).unwrap().kind, Kind::Linear(0.3));
        let only_alarms =
            json!({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}, {"AlarmName": "b"}]}});
        assert_eq!(policy(&only_alarms, 1).unwrap().kind, Kind::AllAtOnce);
        assert_eq!(alarms(&only_alarms), ["a", "b"]);
        let rolling = json!({"RollingUpdatePolicy": {
            "MaximumBatchSize": size("INSTANCE_COUNT", 1), "WaitIntervalInSeconds": 3,
            "RollbackMaximumBatchSize": size("CAPACITY_PERCENT", 100), "MaximumExecutionTimeoutInSeconds": 600,
        }});
        let read = policy(&rolling, 3).unwrap();
        assert_eq!(read.kind, Kind::Rolling { batch: 1.0 / 3.0, rollback_batch: 1.0 });
        assert_eq!((read.wait_ms, read.limit_ms), (3_000, Some(600_000)));
        assert_eq!(policy(&rolling, 1).unwrap().kind.steps(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let size = |kind: &str, value: u32| json!({"Type": kind, "Value": value});
        let canary = |size: Value| json!({"Type": "CANARY", "WaitIntervalInSeconds": 1, "CanarySize": size});
        let linear =
            |size: Value| json!({"Type": "LINEAR", "WaitIntervalInSeconds": 1, "LinearStepSize": size});
        for (routing, told) in [
            (canary(size("CAPACITY_PERCENT", 51)), "CanarySize must be at most 50 percent"),
            (canary(size("INSTANCE_COUNT", 3)), "it is 3 of 4 instances"),
            (canary(Value::Null), "CanarySize is missing"),
            (linear(size("CAPACITY_PERCENT", 9)), "LinearStepSize must be from 10 to 50 percent"),
            (
                json!({"Type": "ALL_AT_ONCE", "CanarySize": size("CAPACITY_PERCENT", 5)}),
                "do not go with Type ALL_AT_ONCE",
            ),
            (
                json!({"Type": "LINEAR", "CanarySize": size("CAPACITY_PERCENT", 5)}),
                "CanarySize does not go with",
            ),
        ] {
            let error = blue_green(&routing).unwrap_err().to_string();
            assert!(error.starts_with("DeploymentConfig: ") && error.contains(told), "{error}");
        }
        let both = json!({"BlueGreenUpdatePolicy": {"TerminationWaitInSeconds": 1}, "RollingUpdatePolicy": {"WaitIntervalInSeconds": 1}});
        assert!(policy(&both, 1).unwrap_err().to_string().contains("not both"));
        let short = json!({"BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300},
            "TerminationWaitInSeconds": 300, "MaximumExecutionTimeoutInSeconds": 600,
        }});
        assert!(policy(&short, 1).unwrap_err().to_string().contains("MaximumExecutionTimeoutInSeconds"));
    }
}
