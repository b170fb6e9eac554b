//! What is kept of a function beside its settings, and how its configuration is shown.

use api::lambda::FunctionConfiguration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;
use time::OffsetDateTime;
use time::macros::format_description;

use super::error::{Problem, Result};
use crate::{Cx, Error};

/// Seconds that an invocation may take, unless the function says otherwise.
const TIMEOUT_SECONDS: i64 = 3;
/// Longest time of an invocation.
const MOST_TIMEOUT_SECONDS: i64 = 900;
/// Memory of a function in MiB, unless it says otherwise.
const MEMORY_MIB: i64 = 128;
/// Most memory of a function in MiB.
const MOST_MEMORY_MIB: i64 = 10_240;
/// Bytes of all environment variables together.
const MOST_ENVIRONMENT_BYTES: usize = 4096;

/// Names that the runtime sets.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
];

/// What is kept of a function beside its settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionRecord {
    /// Differs with each change of code or settings.
    pub revision_id: String,
    /// SHA-256 of the package, in base64.
    pub code_sha256: String,
    /// Bytes of the package.
    pub code_size: i64,
    /// Statements of the policy, as they are shown.
    pub statements: Vec<Value>,
}

impl FunctionRecord {
    /// Reads the record of a function.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(resource: &Resource) -> Result<FunctionRecord, Error> {
        FunctionRecord::deserialize(&resource.document).map_err(Error::internal)
    }

    /// As the document of the resource.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("texts, numbers and JSON always serialize")
    }
}

/// The settings of a function, read out of its request.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Version of Python, such as `3.11`.
    pub python: String,
    /// Module and name of the function.
    pub handler: String,
    /// Role that it acts as.
    pub role_arn: String,
    /// Longest time of an invocation.
    pub timeout_seconds: u64,
    /// Memory of one instance.
    pub memory_mib: u64,
    /// Its variables.
    pub variables: Vec<(String, String)>,
    /// ARN of the queue for events that failed.
    pub dead_letter: Option<String>,
}

/// Members of requests that are honoured, in both operations that set them.
pub const HONOURED: &[&str] = &[
    "FunctionName",
    "Role",
    "Handler",
    "Description",
    "Timeout",
    "MemorySize",
    "Environment.**",
    "Runtime",
    "DeadLetterConfig.TargetArn",
    "RevisionId",
    "PackageType",
    "Architectures",
    "TracingConfig.Mode",
    "EphemeralStorage.Size",
    "LoggingConfig.LogFormat",
    "Tags.**",
    "Code.**",
];

impl Settings {
    /// Reads and checks the settings in a request, or what is stored of one.
    ///
    /// # Errors
    /// [`Problem::Code`] naming the field.
    pub fn read(cx: &Cx, spec: &Value) -> Result<Settings> {
        let settings = Settings::stored(spec)?;
        let text = |name: &str| spec[name].as_str().unwrap_or_default();
        if text("PackageType") == "Image" || !spec["Code"]["ImageUri"].is_null() {
            return Err(Problem::field("PackageType Image"));
        }
        if settings.handler.is_empty() {
            return Err(Problem::invalid(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
            ));
        }
        if settings.timeout_seconds > MOST_TIMEOUT_SECONDS as u64 {
            return Err(Problem::invalid(format!("Timeout: at most {MOST_TIMEOUT_SECONDS} seconds.")));
        }
        if settings.memory_mib > MOST_MEMORY_MIB as u64 {
            return Err(Problem::invalid(format!("MemorySize: at most {MOST_MEMORY_MIB} MB.")));
        }
        match crate::iam::split_role_arn(&settings.role_arn) {
            Some((account, _)) if account == cx.caller.account => {
                if !crate::iam::is_assumable(cx, &settings.role_arn)? {
                    let text = "The role defined for the function cannot be assumed by Lambda.";
                    return Err(Problem::invalid(format!("{text} There is no role {}.", settings.role_arn)));
                }
            }
            Some(_) => return Err(Problem::Denied("Cross-account pass role is not allowed.".into())),
            None => return Err(Problem::invalid("Role: this is not the ARN of a role.")),
        }
        if spec["TracingConfig"]["Mode"] == "Active" {
            return Err(Problem::field("TracingConfig.Mode Active"));
        }
        if spec["EphemeralStorage"]["Size"].as_i64().is_some_and(|size| size != 512) {
            return Err(Problem::field("EphemeralStorage.Size other than 512"));
        }
        if spec["LoggingConfig"]["LogFormat"] == "JSON" {
            return Err(Problem::field("LoggingConfig.LogFormat JSON"));
        }
        if let Some(other) = spec["Architectures"]
            .as_array()
            .and_then(|names| names.iter().find(|name| name.as_str() != Some(architecture())))
        {
            return Err(Problem::invalid(format!(
                "Architectures: this machine is {}, not {other}.",
                architecture()
            )));
        }
        if let Some(queue) = settings.dead_letter.as_ref().filter(|arn| !arn.starts_with("arn:aws:sqs:")) {
            return Err(Problem::field(&format!("DeadLetterConfig.TargetArn {queue} (only queues of SQS)")));
        }
        let reserved: Vec<&str> = settings
            .variables
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| RESERVED.contains(name))
            .collect();
        if !reserved.is_empty() {
            return Err(Problem::invalid(format!(
                "Lambda was unable to configure your environment variables because the environment variables you have provided \
                 contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {}",
                reserved.join(", ")
            )));
        }
        let bytes: usize = settings.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MOST_ENVIRONMENT_BYTES {
            return Err(Problem::invalid(format!(
                "Lambda was unable to configure your environment variables because the environment variables you have provided \
                 exceeded the {MOST_ENVIRONMENT_BYTES} bytes limit."
            )));
        }
        Ok(settings)
    }

    /// Reads what was checked before.
    ///
    /// # Errors
    /// [`Problem::Code`] for a runtime that is not done.
    pub fn stored(spec: &Value) -> Result<Settings> {
        let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
        let runtime = text("Runtime");
        let python = runtime.strip_prefix("python").filter(|version| version.starts_with("3."));
        let Some(python) = python else {
            return Err(match runtime.as_str() {
                "" => Problem::invalid(
                    "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
                ),
                other => Problem::invalid(format!("Runtime: Modelyard runs python3.x only, not {other}.")),
            });
        };
        let variables = spec["Environment"]["Variables"].as_object().into_iter().flatten();
        let variables =
            variables.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let dead_letter = spec["DeadLetterConfig"]["TargetArn"].as_str().filter(|arn| !arn.is_empty());
        Ok(Settings {
            python: python.to_owned(),
            handler: text("Handler"),
            role_arn: text("Role"),
            timeout_seconds: spec["Timeout"].as_i64().unwrap_or(TIMEOUT_SECONDS).unsigned_abs(),
            memory_mib: spec["MemorySize"].as_i64().unwrap_or(MEMORY_MIB).unsigned_abs(),
            variables: variables.collect(),
            dead_letter: dead_letter.map(str::to_owned),
        })
    }
}

/// The machine's architecture in the service's word.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// The configuration of a function as the service shows it.
///
/// # Errors
/// When what is stored is damaged.
pub fn configuration(resource: &Resource) -> Result<FunctionConfiguration> {
    let record = FunctionRecord::read(resource)?;
    let mut shown = json!({
        "FunctionName": resource.key.name,
        "FunctionArn": resource.arn,
        "Description": "",
        "Timeout": TIMEOUT_SECONDS,
        "MemorySize": MEMORY_MIB,
        "CodeSize": record.code_size,
        "CodeSha256": record.code_sha256,
        "LastModified": moment(resource.modified_at),
        "Version": super::LATEST,
        "RevisionId": record.revision_id,
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": [architecture()],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": log_group(&resource.key.name)},
    });
    let settings = [
        "Role",
        "Handler",
        "Description",
        "Timeout",
        "MemorySize",
        "Runtime",
        "DeadLetterConfig",
        "Environment",
    ];
    for name in settings {
        let value = &resource.spec[name];
        let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
        if !value.is_null() && !is_empty {
            shown[name] = value.clone();
        }
    }
    FunctionConfiguration::deserialize(shown).map_err(|error| Error::internal(error).into())
}

/// Log group of a function.
pub fn log_group(name: &str) -> String {
    format!("/aws/lambda/{name}")
}

fn moment(ms: i64) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]+0000");
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    moment.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(format).unwrap_or_default()
}
