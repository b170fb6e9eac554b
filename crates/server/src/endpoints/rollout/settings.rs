//! Settings of the guards that watch a new fleet by themselves.

use serde::Deserialize;

/// The `[endpoints.guards]` table of the settings file. A limit of 0 turns its guard off.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardSettings {
    /// Seconds that the fleet before is kept after an update without a `DeploymentConfig`, while the new one must not fail most requests.
    pub update_watch_seconds: u32,
    /// Requests that the new fleet must have ended before its errors are judged.
    pub min_requests: u32,
    /// How much the rate of 5XX answers may be above that of the fleet before, as a part of the requests.
    pub max_error_rate_increase: f64,
    /// How high that rate may be where there is nothing to compare it with, and after an update without a `DeploymentConfig`.
    pub max_error_rate: f64,
    /// Answers that each fleet must have given before latencies and outputs are compared.
    pub min_answers: u32,
    /// How many times the 99th percentile of the latency may be that of the fleet before.
    pub max_p99_ratio: f64,
    /// And by how many milliseconds it must be longer at least.
    pub min_p99_increase_milliseconds: f64,
    /// How far the distributions of outputs may be apart, from 0 to 1.
    pub max_output_distance: f64,
}

impl Default for GuardSettings {
    fn default() -> GuardSettings {
        GuardSettings {
            update_watch_seconds: 30,
            min_requests: 20,
            max_error_rate_increase: 0.05,
            max_error_rate: 0.5,
            min_answers: 100,
            max_p99_ratio: 2.0,
            min_p99_increase_milliseconds: 50.0,
            max_output_distance: 0.35,
        }
    }
}

impl GuardSettings {
    /// Checks the rules that the field descriptions state.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn check(&self) -> Result<(), String> {
        let part = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("endpoints.guards.{name} must be from 0 to 1")),
        };
        part("max_error_rate_increase", self.max_error_rate_increase)?;
        part("max_error_rate", self.max_error_rate)?;
        part("max_output_distance", self.max_output_distance)?;
        if self.update_watch_seconds > 3600 {
            return Err("endpoints.guards.update_watch_seconds must be from 0 to 3600".into());
        }
        if self.max_p99_ratio != 0.0 && !(1.0..=1e6).contains(&self.max_p99_ratio) {
            return Err("endpoints.guards.max_p99_ratio must be at least 1, or 0 for no limit".into());
        }
        if !(0.0..=1e9).contains(&self.min_p99_increase_milliseconds) {
            return Err("endpoints.guards.min_p99_increase_milliseconds must be 0 or more".into());
        }
        if self.min_requests == 0 || self.min_answers == 0 {
            return Err("endpoints.guards.min_requests and min_answers must be at least 1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let read = |text: &str| toml::from_str::<GuardSettings>(text).unwrap();
        assert_eq!(read("").check(), Ok(()));
        assert_eq!(read("max_p99_ratio = 0\nmax_output_distance = 0.0").check(), Ok(()));
        for (text, name) in [
            ("max_error_rate = 1.1", "max_error_rate"),
            ("max_error_rate_increase = -0.1", "max_error_rate_increase"),
            ("max_output_distance = 2", "max_output_distance"),
            ("max_p99_ratio = 0.5", "max_p99_ratio"),
            ("min_p99_increase_milliseconds = -1", "min_p99_increase_milliseconds"),
            ("min_requests = 0", "min_requests"),
            ("update_watch_seconds = 4000", "update_watch_seconds"),
        ] {
            assert!(read(text).check().unwrap_err().contains(name), "{text}");
        }
    }
}
