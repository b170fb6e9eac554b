//! The `[capacity]` part of the settings file: how the machine is shared out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::instance_types::Profile;

/// How instance types are held against the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// An instance type is an upper limit, cut down to the machine; jobs share CPUs and memory, GPUs are exclusive.
    #[default]
    Shared,
    /// An instance type is a reservation: what does not fit now waits, what can never fit fails at once.
    Reserved,
}

/// Settings of the `[capacity]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapacitySettings {
    /// Shared or reserved.
    pub mode: Mode,
    /// CPUs that jobs may use [all of the machine].
    pub cpus: Option<f64>,
    /// Memory in GiB that jobs may use [all of the machine].
    pub memory_gib: Option<f64>,
    /// After how many seconds the first, the second and further runs of each spot job are interrupted; runs beyond the list are not.
    pub spot_interrupt_after_seconds: Vec<u64>,
    /// Types of the user's own, by name (`ml.FAMILY.SIZE`).
    pub instance_types: BTreeMap<String, Profile>,
    /// Queues by name; a job names its queue by the tag `modelyard:queue`.
    pub queues: BTreeMap<String, Share>,
    /// Shares of accounts by id; an account that is not listed has the weight 1.
    pub accounts: BTreeMap<String, Share>,
}

/// What a queue or an account may have of the machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Share {
    /// Relative weight: twice the weight gets twice as much while both want more.
    pub weight: f64,
    /// Most jobs of it that run at once.
    pub max_running_jobs: Option<usize>,
}

impl Default for Share {
    fn default() -> Share {
        Share { weight: 1.0, max_running_jobs: None }
    }
}

impl CapacitySettings {
    /// Refuses numbers that make no sense.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64| {
            let sound = value.is_finite() && value > 0.0;
            if sound { Ok(()) } else { Err(format!("capacity.{name} must be above 0")) }
        };
        positive("cpus", self.cpus.unwrap_or(1.0))?;
        positive("memory_gib", self.memory_gib.unwrap_or(1.0))?;
        for (name, share) in &self.queues {
            positive(&format!("queues.{name}.weight"), share.weight)?;
        }
        for (account, share) in &self.accounts {
            positive(&format!("accounts.{account}.weight"), share.weight)?;
        }
        for (name, profile) in &self.instance_types {
            if !name.starts_with("ml.") || name.split('.').count() != 3 {
                return Err(format!("capacity.instance_types: {name:?} must look like ml.FAMILY.SIZE"));
            }
            positive(&format!("instance_types.{name}.vcpus"), profile.vcpus)?;
            positive(&format!("instance_types.{name}.memory_gib"), profile.memory_gib)?;
        }
        Ok(())
    }
}
