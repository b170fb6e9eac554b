//! Settings of what is kept for how long.

use serde::Deserialize;

/// The `[retention]` table of the settings file. Without a number of days, things are kept until somebody deletes them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Days that the records of ended training, processing and transform jobs are kept.
    pub jobs_days: Option<u32>,
    /// Days that ended executions of pipelines are kept.
    pub executions_days: Option<u32>,
    /// Days that log events are kept in groups without a retention policy.
    pub logs_days: Option<u32>,
    /// Days that the event log goes back.
    pub events_days: Option<u32>,
    /// Days after which a multipart upload that nobody goes on with is given up.
    pub uploads_days: Option<u32>,
    /// Days that a Python environment is kept after its last use.
    pub environments_days: Option<u32>,
}

impl RetentionSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn check(&self) -> Result<(), String> {
        for (name, days) in [
            ("jobs_days", self.jobs_days),
            ("executions_days", self.executions_days),
            ("logs_days", self.logs_days),
            ("events_days", self.events_days),
            ("uploads_days", self.uploads_days),
            ("environments_days", self.environments_days),
        ] {
            if !days.is_none_or(is_number_of_days) {
                return Err(format!(
                    "retention.{name} must be from 1 to {MOST_DAYS}; leave it out to keep everything"
                ));
            }
        }
        Ok(())
    }
}

/// A hundred years.
pub const MOST_DAYS: u32 = 36_500;

/// Whether so many days can be meant.
pub fn is_number_of_days(days: u32) -> bool {
    (1..=MOST_DAYS).contains(&days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_days_are_checked_and_unknown_settings_refused() {
        let read = |text| toml::from_str::<RetentionSettings>(text);
        assert!(read("jobs_days = 30\nlogs_days = 1").unwrap().check().is_ok());
        assert!(read("jobs_days = 0").unwrap().check().unwrap_err().contains("retention.jobs_days"));
        assert!(read("events_days = 40000").unwrap().check().unwrap_err().contains("retention.events_days"));
        assert!(read("job_days = 1").is_err());
    }
}
