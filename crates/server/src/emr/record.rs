//! A cluster and its steps as they are kept.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;

use crate::sagemaker::records::seconds;

/// A cluster.
pub struct Cluster {
    /// Its row; the request without its steps is the specification.
    pub resource: Resource,
    /// What happened since.
    pub record: ClusterRecord,
}

/// The status document of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterRecord {
    /// Its steps, in their order.
    pub steps: Vec<StepRecord>,
    /// Why it ends, once that is decided.
    pub ending: Option<Ending>,
    /// Milliseconds since 1970.
    pub ended_at: Option<i64>,
}

/// Why a cluster ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// A `ClusterStateChangeReasonCode`.
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl Ending {
    /// An end with its code.
    pub fn new(code: &str, message: impl Into<String>) -> Ending {
        Ending { code: code.to_owned(), message: message.into() }
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its id.
    pub id: String,
    /// `StepConfig` as received.
    pub config: Value,
    /// Whom it acts as, where that is not the cluster's role.
    #[serde(default)]
    pub execution_role: Option<String>,
    /// Where it is.
    pub state: StepState,
    /// That it is to be cancelled while it runs.
    #[serde(default)]
    pub is_cancelled: bool,
    /// Why it failed.
    #[serde(default)]
    pub failure: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub ended_at: Option<i64>,
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// It waits for its turn.
    Pending,
    /// Its job was made, or is about to be.
    Running,
    /// It ended well.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed,
}

impl StepState {
    /// The service's name.
    pub fn name(self) -> &'static str {
        match self {
            StepState::Pending => "PENDING",
            StepState::Running => "RUNNING",
            StepState::Completed => "COMPLETED",
            StepState::Cancelled => "CANCELLED",
            StepState::Failed => "FAILED",
        }
    }
}

impl Cluster {
    /// Reads a row.
    ///
    /// # Errors
    /// When the document does not fit.
    pub fn read(resource: Resource) -> store::Result<Cluster> {
        let record = ClusterRecord::read(&resource)?;
        Ok(Cluster { resource, record })
    }

    /// Whether it takes no steps any more.
    pub fn is_ended(&self) -> bool {
        self.record.ending.is_some() || self.resource.status.starts_with("TERMINAT")
    }

    /// `Status` as it is described.
    pub fn status(&self) -> Value {
        let reason = match &self.record.ending {
            Some(ending) => json!({"Code": ending.code, "Message": ending.message}),
            None => json!({}),
        };
        json!({
            "State": self.resource.status,
            "StateChangeReason": reason,
            "Timeline": timeline(&[
                ("CreationDateTime", Some(self.resource.created_at)),
                ("ReadyDateTime", Some(self.resource.created_at)),
                ("EndDateTime", self.record.ended_at),
            ]),
        })
    }

    /// The folder in S3 for the logs of a step.
    pub fn logs(&self, step: &str) -> Option<String> {
        let uri = self.resource.spec["LogUri"].as_str().filter(|uri| !uri.is_empty())?;
        // The console writes the scheme of Hadoop's own.
        let uri = uri.strip_prefix("s3n://").map_or_else(|| uri.to_owned(), |rest| format!("s3://{rest}"));
        Some(format!("{}/{}/steps/{step}", uri.trim_end_matches('/'), self.resource.key.name))
    }

    /// A step as it is described.
    pub fn described(&self, step: &StepRecord) -> Value {
        let jar = &step.config["HadoopJarStep"];
        let properties: serde_json::Map<String, Value> = properties(jar).collect();
        let mut status = json!({
            "State": step.shown_state(),
            "StateChangeReason": {},
            "Timeline": timeline(&[
                ("CreationDateTime", Some(step.created_at)),
                ("StartDateTime", step.started_at),
                ("EndDateTime", step.ended_at),
            ]),
        });
        if let Some(message) = &step.failure {
            status["FailureDetails"] = json!({
                "Reason": "Step failed",
                "Message": message,
                "LogFile": self.logs(&step.id).map(|folder| format!("{folder}/stderr.gz")),
            });
        }
        json!({
            "Id": step.id,
            "Name": step.config["Name"],
            "Config": {
                "Jar": jar["Jar"],
                "Properties": properties,
                "MainClass": jar["MainClass"],
                "Args": jar["Args"].as_array().cloned().unwrap_or_default(),
            },
            "ActionOnFailure": step.action_on_failure(),
            "Status": status,
            "ExecutionRoleArn": step.execution_role,
            "LogUri": self.logs(&step.id),
        })
    }
}

impl ClusterRecord {
    /// Reads the document of a row.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn read(resource: &Resource) -> store::Result<ClusterRecord> {
        Ok(serde_json::from_value(resource.document.clone())?)
    }

    /// As it is kept.
    pub fn to_document(&self) -> Value {
        json!(self)
    }
}

impl StepRecord {
    /// A step that waits.
    pub fn new(id: String, config: Value, execution_role: Option<String>, now_ms: i64) -> StepRecord {
        StepRecord {
            id,
            config,
            execution_role,
            state: StepState::Pending,
            is_cancelled: false,
            failure: None,
            created_at: now_ms,
            started_at: None,
            ended_at: None,
        }
    }

    /// What its failure does to the cluster.
    pub fn action_on_failure(&self) -> &str {
        self.config["ActionOnFailure"].as_str().unwrap_or("CONTINUE")
    }

    /// The state that is shown.
    pub fn shown_state(&self) -> &'static str {
        match self.state {
            StepState::Running if self.is_cancelled => "CANCEL_PENDING",
            state => state.name(),
        }
    }
}

/// The properties of a step as a map.
pub fn properties(jar: &Value) -> impl Iterator<Item = (String, Value)> {
    let pairs = jar["Properties"].as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair["Key"].as_str()?.to_owned(), pair["Value"].clone())))
}

fn timeline(moments: &[(&str, Option<i64>)]) -> Value {
    let known = moments.iter().filter_map(|(name, at)| Some(((*name).to_owned(), json!(seconds((*at)?)))));
    Value::Object(known.collect())
}
