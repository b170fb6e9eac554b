//! What is stored of an execution and of each of its steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::resources::Resource;

use super::cache::{Facts, Receipt};
use super::engine::{Phase, Progress};
use super::retry::Used;

/// The request of an execution, with all that it needed at its start; it is the spec of the resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutionSpec {
    /// Name of the pipeline.
    pub pipeline: String,
    /// ARN of the pipeline.
    pub pipeline_arn: String,
    /// Version of its definition.
    pub version: i64,
    /// `PipelineExecutionDisplayName`.
    pub display_name: String,
    /// `PipelineExecutionDescription`.
    pub description: Option<String>,
    /// Role that the steps' operations are called as.
    pub role_arn: String,
    /// `MaxParallelExecutionSteps`.
    pub most_parallel: Option<usize>,
    /// Values of all parameters.
    pub parameters: BTreeMap<String, Value>,
    /// `SelectiveExecutionConfig`.
    pub selective: Option<Selective>,
    /// Alias by which the version was named.
    pub version_alias: Option<String>,
    /// Who started it: ARN and id of the principal.
    pub created_by: (String, String),
}

/// A selective execution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selective {
    /// `SourcePipelineExecutionArn`.
    pub source_arn: Option<String>,
    /// `SelectedSteps`.
    pub steps: Vec<String>,
}

/// What happened to an execution; it is the document of the resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionRecord {
    /// Why it failed.
    pub failure: Option<String>,
    /// Milliseconds since 1970.
    pub ended_at: Option<i64>,
    /// Names of experiment and trial.
    pub experiment: Option<(Option<String>, Option<String>)>,
    /// Whether experiment and trial were entered, so that jobs can name them.
    pub experiment_entered: bool,
    /// Who changed it last.
    pub modified_by: Option<(String, String)>,
    /// Times it was retried.
    pub retries: u32,
}

impl ExecutionSpec {
    /// Reads the spec of an execution.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(resource: &Resource) -> store::Result<ExecutionSpec> {
        Ok(serde_json::from_value(resource.spec.clone())?)
    }
}

impl ExecutionRecord {
    /// Reads the document of an execution.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(resource: &Resource) -> store::Result<ExecutionRecord> {
        Ok(serde_json::from_value(resource.document.clone())?)
    }

    /// The document.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("plain values always serialize")
    }
}

/// What is known of a step that has begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where it is.
    pub phase: Phase,
    /// Counts from 1.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Milliseconds since 1970.
    pub ended_at: Option<i64>,
    /// Arguments with every reference replaced by its value.
    #[serde(default)]
    pub arguments: Value,
    /// Settings of its type, likewise.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// What DescribePipelineExecution's `Metadata` shows.
    #[serde(default)]
    pub metadata: Value,
    /// What `Steps.NAME.` leads into.
    #[serde(default)]
    pub properties: Value,
    /// What a Condition came to.
    pub outcome: Option<bool>,
    /// Why it failed, or why its last attempt did.
    pub failure: Option<String>,
    /// What is used up of its retry policies.
    #[serde(default)]
    pub used: Used,
    /// Why a result was reused or not.
    pub receipt: Option<Receipt>,
    /// What its result depends on, where the result may be reused.
    pub facts: Option<Facts>,
    /// ARN of the execution whose cached result it has.
    pub cached_from: Option<String>,
    /// ARN of the execution whose result a selective execution took.
    pub selected_from: Option<String>,
}

impl StepRecord {
    /// A step that begins.
    pub fn begin(now_ms: i64, attempt: u32) -> StepRecord {
        StepRecord {
            phase: Phase::Starting,
            attempt,
            started_at: now_ms,
            ended_at: None,
            arguments: Value::Null,
            settings: BTreeMap::new(),
            metadata: Value::Null,
            properties: Value::Null,
            outcome: None,
            failure: None,
            used: Used::default(),
            receipt: None,
            facts: None,
            cached_from: None,
            selected_from: None,
        }
    }

    /// Reads a stored step.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<StepRecord> {
        Ok(serde_json::from_value(document.clone())?)
    }

    /// The document.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("plain values always serialize")
    }

    /// The part that the engine looks at.
    pub fn progress(&self) -> Progress {
        Progress { phase: self.phase, outcome: self.outcome }
    }
}
