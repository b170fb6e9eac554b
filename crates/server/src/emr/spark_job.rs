//! What a cluster or application would run, as the request of a processing job on a local Spark.

use api::sagemaker::ProcessingInstanceType;
use runner::contract::SPARK_STEP;
use serde_json::{Value, json};

use crate::capacity::InstanceTypes;

/// Most pieces of a step's text, and most characters of each: the limits of a processing job's arguments.
const MOST_PIECES: usize = 100;
const PIECE_CHARACTERS: usize = 256;
/// Longest time of a processing job; a step has no limit of its own.
const MOST_SECONDS: i64 = 777_600;
/// What a step may write beside its data in S3.
const VOLUME_GIB: u32 = 100;
/// Where copies of what a step prints are put.
const LOGS: &str = "/opt/ml/processing/logs";
/// Account of the Spark images.
const IMAGE_ACCOUNT: &str = "173754725891";

/// Versions of Spark in the releases of EMR: the first release that has each, newest first.
const SPARK_VERSIONS: &[((u32, u32), &str)] =
    &[((7, 0), "3.5"), ((6, 12), "3.4"), ((6, 8), "3.3"), ((6, 6), "3.2"), ((6, 3), "3.1"), ((6, 1), "3.0")];

/// One run of a local Spark.
pub struct SparkJob<'a> {
    /// Name of the processing job.
    pub name: &'a str,
    /// Whom it acts as.
    pub role_arn: &'a str,
    /// Version of Spark, as [`spark_version`] tells it.
    pub spark_version: &'a str,
    /// Type of the one instance, as [`instance_type`] tells it.
    pub instance_type: &'a str,
    /// What the program `spark-step` is told.
    pub step: Value,
    /// Folder in S3 for what it prints.
    pub logs: Option<String>,
    /// Time limit.
    pub max_seconds: Option<i64>,
}

impl SparkJob<'_> {
    /// The input of CreateProcessingJob.
    ///
    /// # Errors
    /// One sentence when the step is too long.
    pub fn request(&self, region: &str) -> Result<Value, String> {
        let mut step = self.step.clone();
        if self.logs.is_some() {
            step["Logs"] = LOGS.into();
        }
        let image = format!(
            "{IMAGE_ACCOUNT}.dkr.ecr.{region}.amazonaws.com/sagemaker-spark-processing:{}-cpu-py39-v1.0",
            self.spark_version
        );
        let mut request = json!({
            "ProcessingJobName": self.name,
            "RoleArn": self.role_arn,
            "AppSpecification": {
                "ImageUri": image,
                "ContainerEntrypoint": [SPARK_STEP],
                "ContainerArguments": pieces(&step)?,
            },
            "ProcessingResources": {"ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": self.instance_type,
                "VolumeSizeInGB": VOLUME_GIB,
            }},
            "StoppingCondition": {
                "MaxRuntimeInSeconds": self.max_seconds.unwrap_or(MOST_SECONDS).clamp(1, MOST_SECONDS),
            },
        });
        if let Some(uri) = &self.logs {
            request["ProcessingOutputConfig"] = json!({"Outputs": [{
                "OutputName": "logs",
                "S3Output": {"S3Uri": uri, "LocalPath": LOGS, "S3UploadMode": "Continuous"},
            }]});
        }
        Ok(request)
    }
}

/// The text of a step in pieces that fit into arguments.
///
/// # Errors
/// One sentence when it is too long.
pub fn pieces(step: &Value) -> Result<Vec<String>, String> {
    let letters: Vec<char> = step.to_string().chars().collect();
    let pieces: Vec<String> = letters.chunks(PIECE_CHARACTERS).map(|piece| piece.iter().collect()).collect();
    if pieces.len() > MOST_PIECES {
        let most = MOST_PIECES * PIECE_CHARACTERS;
        return Err(format!(
            "Arguments, properties and configurations together have {} characters; at most {most} can be passed on. Put long \
             ones into a file in S3.",
            letters.len()
        ));
    }
    Ok(pieces)
}

/// The version of Spark in a release such as `emr-7.1.0`.
///
/// # Errors
/// One sentence when it is none, or has no Spark 3.
pub fn spark_version(release: &str) -> Result<&'static str, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let mut parts = release.strip_prefix("emr-").unwrap_or_default().split('.');
    let version = (parts.next().and_then(number), parts.next().and_then(number));
    let found = match version {
        (Some(major), Some(minor)) if major < 8 => {
            SPARK_VERSIONS.iter().find(|(first, _)| (major, minor) >= *first).map(|(_, spark)| *spark)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        format!("The release label {release:?} cannot be had here: give one from emr-6.1.0 to emr-7.x, which have Spark 3.")
    })
}

/// The type of a processing job's instance that stands for an EC2 type; a family that jobs do not have counts as m5.
///
/// # Errors
/// One sentence when the size means nothing.
pub fn instance_type(types: &InstanceTypes, ec2: &str) -> Result<String, String> {
    let usable = |name: &String| {
        let listed = serde_json::from_value::<ProcessingInstanceType>(json!(name));
        let is_listed =
            matches!(listed, Ok(known) if !matches!(known, ProcessingInstanceType::UnknownValue(_)));
        (is_listed || types.is_own(name)) && types.find(name).is_some()
    };
    let size = ec2.split_once('.').map(|(_, size)| size).unwrap_or_default();
    // No m5 of a job is as small as some machines of a cluster are, and not every large one is there.
    let similar = match size {
        "medium" | "small" | "micro" | "nano" => "ml.t3.medium".to_owned(),
        "8xlarge" => "ml.m5.12xlarge".to_owned(),
        "16xlarge" => "ml.m5.24xlarge".to_owned(),
        _ => format!("ml.m5.{size}"),
    };
    let mut candidates = [format!("ml.{ec2}"), similar].into_iter();
    candidates.find(usable).ok_or_else(|| {
        format!("InstanceType: {ec2:?} is not known here; a type such as m5.xlarge says how many CPUs and how much memory a step gets.")
    })
}

/// Refuses classifications that mean nothing to a local Spark.
///
/// # Errors
/// One sentence that names the classification.
pub fn check_configurations(configurations: &Value) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "spark",
        "spark-defaults",
        "core-site",
        "hdfs-site",
        "mapred-site",
        "spark-hive-site",
        "spark-env",
        "hadoop-env",
    ];
    for one in configurations.as_array().into_iter().flatten() {
        // EMR Serverless writes the member in lower case.
        let name = one["Classification"].as_str().or_else(|| one["classification"].as_str());
        let name = name.unwrap_or_default();
        if !KNOWN.contains(&name) {
            return Err(format!(
                "the classification {name:?} means nothing to a local Spark; leave it out. What does: {}.",
                KNOWN.join(", ")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_their_version_of_spark() {
        for (release, spark) in
            [("emr-6.1.0", "3.0"), ("emr-6.7.0", "3.2"), ("emr-6.15.0", "3.4"), ("emr-7.10.0", "3.5")]
        {
            assert_eq!(spark_version(release), Ok(spark), "{release}");
        }
        for release in ["emr-5.36.0", "emr-6.0.0", "emr-9.0.0", "emr-x", "7.0", ""] {
            assert!(spark_version(release).unwrap_err().contains("emr-6.1.0"), "{release}");
        }
    }

    #[test]
    fn types_of_clusters_become_types_of_jobs() {
        let types = InstanceTypes::with(Default::default());
        for (ec2, own) in [
            ("m5.xlarge", "ml.m5.xlarge"),
            ("r6gd.4xlarge", "ml.m5.4xlarge"),
            ("m6g.16xlarge", "ml.m5.24xlarge"),
            ("t2.micro", "ml.t3.medium"),
        ] {
            assert_eq!(instance_type(&types, ec2).as_deref(), Ok(own), "{ec2}");
        }
        assert!(instance_type(&types, "mainframe").is_err());
    }

    #[test]
    fn a_step_is_passed_in_pieces() {
        let long = json!({"Args": ["ä".repeat(1_000)]});
        let pieces = pieces(&long).unwrap();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.chars().count() <= 256));
        assert_eq!(pieces.concat(), long.to_string());
        assert!(super::pieces(&json!("x".repeat(30_000))).unwrap_err().contains("25600"));
    }
}
