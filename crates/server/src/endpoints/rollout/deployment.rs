//! What is kept of a deployment that goes on, and of the last one.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serving::Shift;

use super::config;
use super::guards::Finding;
use super::machine::{Policy, Progress, Stage};
use super::settings::GuardSettings;
use crate::Result;
use crate::async_inference::AsyncSettings;
use crate::endpoints::record::{DeployedVariant, EndpointRecord};
use crate::sagemaker::records;

/// Most steps that are kept of a deployment.
const KEPT_STEPS: usize = 100;

/// What one fleet serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Side {
    /// Name of the configuration it came from.
    pub config: String,
    /// Tells its fleet from others.
    pub generation: u64,
    /// What it serves.
    pub variants: Vec<DeployedVariant>,
    /// What gets copies of its requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<DeployedVariant>,
    /// `DataCaptureConfig`, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_capture: Option<Value>,
    /// How it answers later, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsyncSettings>,
}

/// A deployment that goes on. Everything that a restarted server needs to go on with it is here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployment {
    /// What comes; once all traffic has moved, what was before.
    pub other: Side,
    /// `DeploymentConfig`, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Who asked for it.
    #[serde(default)]
    pub by: Value,
    /// Where it stands.
    pub progress: Progress,
    /// The steps so far.
    pub steps: Vec<Progress>,
    /// Why it goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The last deployment that has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// Name of the configuration that was deployed.
    pub config: String,
    /// Whether it stayed.
    pub is_deployed: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Milliseconds since 1970.
    pub ended_at: i64,
    /// Its steps.
    pub steps: Vec<Progress>,
    /// What the guards found last.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

impl Deployment {
    /// How it moves the traffic; an update without a configuration moves it at once, and is watched for a short time.
    ///
    /// # Errors
    /// When the configuration does not fit.
    pub fn policy(&self, instances: u32, guards: &GuardSettings) -> Result<Policy> {
        match &self.config {
            Some(given) => config::policy(given, instances),
            None => Ok(Policy::plain(i64::from(guards.update_watch_seconds) * 1000)),
        }
    }

    /// Whether it was asked for without a configuration.
    pub fn is_plain(&self) -> bool {
        self.config.is_none()
    }

    /// Whether the new fleet is what the endpoint shows, and the one before is kept beside it.
    pub fn is_kept(&self) -> bool {
        self.progress.stage == Stage::Keeping
    }

    /// Notes the next step.
    pub fn go(&mut self, progress: Progress) {
        if self.steps.len() < KEPT_STEPS {
            self.steps.push(progress);
        }
        self.progress = progress;
    }
}

impl EndpointRecord {
    /// What the endpoint shows that it serves.
    pub fn side(&self) -> Side {
        Side {
            config: self.config.clone(),
            generation: self.generation,
            variants: self.variants.clone(),
            shadows: self.shadows.clone(),
            data_capture: self.data_capture.clone(),
            asynchronous: self.asynchronous.clone(),
        }
    }

    /// Has the endpoint show another fleet, which serves; gives the one that it showed.
    pub fn show(&mut self, side: Side) -> Side {
        let before = self.side();
        self.config = side.config;
        self.generation = side.generation;
        self.variants = side.variants;
        self.shadows = side.shadows;
        self.data_capture = side.data_capture;
        self.asynchronous = side.asynchronous;
        self.served_generation = Some(self.generation);
        before
    }

    /// The generation of the next fleet: none comes again, since replicas of an earlier one may still be on their way out.
    pub fn next_generation(&mut self) -> u64 {
        self.last_generation = self.last_generation.max(self.generation) + 1;
        self.last_generation
    }

    /// Ends a time in which the fleet before is only kept: another change comes.
    pub fn end_keeping(&mut self) {
        self.deployment.take_if(|deployment| deployment.is_kept());
    }

    /// `PendingDeploymentSummary`, while a deployment goes on.
    pub fn pending_summary(&self) -> Option<Value> {
        let deployment = self.deployment.as_ref().filter(|deployment| !deployment.is_kept())?;
        let progress = &deployment.progress;
        let (status, message) = match progress.stage {
            Stage::Starting => ("Creating", "Instances start.".to_owned()),
            Stage::Baking => ("Baking", format!("{:.0} % of the traffic has moved.", progress.share * 100.0)),
            Stage::Keeping | Stage::RollingBack => {
                ("Deleting", deployment.reason.clone().unwrap_or_default())
            }
        };
        let message: String = message.chars().take(1024).collect();
        let variant = |variant: &DeployedVariant| {
            json!({
                "VariantName": variant.name,
                "DeployedImages": [{"SpecifiedImage": variant.image, "ResolvedImage": variant.image}],
                "CurrentWeight": variant.weight * progress.share,
                "DesiredWeight": variant.weight,
                "CurrentInstanceCount": part_of(variant.replicas, progress.new_part),
                "DesiredInstanceCount": variant.replicas,
                "VariantStatus": [{"Status": status, "StatusMessage": message, "StartTime": records::seconds(progress.since)}],
            })
        };
        Some(json!({
            "EndpointConfigName": deployment.other.config,
            "ProductionVariants": deployment.other.variants.iter().map(variant).collect::<Vec<_>>(),
            "StartTime": records::seconds(deployment.started_at),
        }))
    }
}

/// How many of so many instances a part is; a part that is not nothing is at least one.
pub fn part_of(replicas: u32, part: f64) -> u32 {
    (f64::from(replicas) * part - 1e-9).ceil().max(0.0) as u32
}

/// The instances of the largest variant.
pub fn instances(variants: &[DeployedVariant]) -> u32 {
    variants.iter().map(|variant| variant.replicas).max().unwrap_or(1)
}

/// The fleets as the data plane is to have them: `plan` makes a plan of generation, variants and the wanted part of the instances.
pub fn shift(
    record: &EndpointRecord,
    deployment: &Deployment,
    is_back: bool,
    plan: impl Fn(&Side, f64) -> serving::EndpointPlan,
) -> Shift {
    let progress = &deployment.progress;
    let (shown, other) = (record.side(), &deployment.other);
    // A new fleet that has not been up under an earlier server must show that it comes up.
    let has_been_up = progress.stage != Stage::Starting || progress.step > 1;
    if deployment.is_kept() {
        return Shift {
            main: plan(&shown, progress.new_part),
            beside: plan(other, progress.old_part),
            share: 0.0,
            main_has_served: is_back,
            beside_has_served: is_back,
        };
    }
    Shift {
        main: plan(&shown, progress.old_part),
        beside: plan(other, progress.new_part),
        share: progress.share,
        main_has_served: is_back,
        beside_has_served: is_back && has_been_up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_instances() {
        for (replicas, part, expected) in [
            (4, 0.25, 1),
            (3, 1.0 / 3.0, 1),
            (3, 2.0 / 3.0, 2),
            (1, 0.5, 1),
            (5, 0.5, 3),
            (4, 0.0, 0),
            (0, 1.0, 0),
        ] {
            assert_eq!(part_of(replicas, part), expected, "{part} of {replicas}");
        }
    }
}
