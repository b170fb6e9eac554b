//! Inputs that are results of queries: each query is run before the job's program, and its result becomes objects that the job
//! reads like any others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use api::sagemaker::{
    AthenaDatasetDefinition, CreateProcessingJobInput, ProcessingInput, ProcessingS3Input,
    RedshiftDatasetDefinition,
};
use runner::diagnosis::{Cause, Diagnosis};
use runner::tree::Tree;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::objects::{Condition, Protection};

use super::super::attempt::Attempt;
use super::super::prepare::{Step, job_directory};
use super::super::put::{Growing, PutError, Target};
use super::super::record::{FailureCard, HostRecord};
use super::super::{bucket_and_key, hosts, restart};
use crate::capacity::HostGrant;
use crate::internal_call;
use crate::job_log::JobLog;
use crate::query::{self, Answer, Dialect, Place, Problem, Query, Room};
use crate::workloads;

/// Session name of the role with which a query reads tables, as in the service.
const SESSION_NAME: &str = "SageMaker";
/// How often a query is run whose supervisor is killed.
const TRIES: usize = 3;
/// Objects of one page of leftovers.
const PAGE: usize = 1_000;

/// A query of a job, as it stands in the job's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// Name of the input.
    pub input: String,
    /// Id of the query, the name of its folder below `OutputS3Uri`.
    pub id: String,
    /// Id of its workload.
    pub workload: String,
    /// URI of its result, once that is stored.
    #[serde(default)]
    pub result: Option<String>,
    /// Rows of the result.
    #[serde(default)]
    pub rows: u64,
}

/// A data set as both kinds of definitions have it.
struct Dataset<'a> {
    input: &'a str,
    query: Query,
    role_arn: &'a str,
    output_uri: &'a str,
    kms_key: Option<&'a str>,
    /// What it stands for, for the log.
    described: String,
}

/// Whether a job has inputs that queries make.
pub fn has_queries(input: &CreateProcessingJobInput) -> bool {
    input.processing_inputs.iter().flatten().any(|one| one.dataset_definition.is_some())
}

/// The data sets of a request; `hosts` is how many share the job.
fn datasets(input: &CreateProcessingJobInput, hosts: usize) -> Vec<Dataset<'_>> {
    let each = input.processing_inputs.iter().flatten().filter_map(|one| {
        let definition = one.dataset_definition.as_ref()?;
        let distribution = definition.data_distribution_type.as_ref().map(|kind| kind.as_str());
        let parts = if distribution == Some("ShardedByS3Key") { hosts.max(1) } else { 1 };
        let name = one.input_name.as_str();
        match (&definition.athena_dataset_definition, &definition.redshift_dataset_definition) {
            (Some(athena), _) => Some(of_athena(name, athena, &input.role_arn, parts)),
            (None, Some(redshift)) => Some(of_redshift(name, redshift, parts)),
            (None, None) => None,
        }
    });
    each.collect()
}

fn of_athena<'a>(
    input: &'a str,
    athena: &'a AthenaDatasetDefinition,
    role_arn: &'a str,
    parts: usize,
) -> Dataset<'a> {
    Dataset {
        input,
        query: Query {
            text: athena.query_string.clone(),
            dialect: Dialect::Athena,
            database: athena.database.clone(),
            format: athena.output_format.to_string(),
            compression: athena.output_compression.as_ref().map(ToString::to_string),
            parts,
        },
        role_arn,
        output_uri: &athena.output_s3_uri,
        kms_key: athena.kms_key_id.as_deref(),
        described: format!("the local SQL engine stands for Athena, database {}", athena.database),
    }
}

fn of_redshift<'a>(input: &'a str, redshift: &'a RedshiftDatasetDefinition, parts: usize) -> Dataset<'a> {
    Dataset {
        input,
        query: Query {
            text: redshift.query_string.clone(),
            dialect: Dialect::Redshift,
            database: redshift.database.clone(),
            format: redshift.output_format.to_string(),
            compression: redshift.output_compression.as_ref().map(|kind| kind.to_string().to_uppercase()),
            parts,
        },
        role_arn: &redshift.cluster_role_arn,
        output_uri: &redshift.output_s3_uri,
        kms_key: redshift.kms_key_id.as_deref(),
        described: format!(
            "the local SQL engine stands for the Redshift cluster {} with its user {}, and reads the database {} of the catalogue",
            redshift.cluster_id, redshift.db_user, redshift.database
        ),
    }
}

/// The request with the results of its queries in the place of what they are defined by.
pub fn with_results(input: &CreateProcessingJobInput, queries: &[QueryRecord]) -> CreateProcessingJobInput {
    let mut resolved = input.clone();
    for one in resolved.processing_inputs.iter_mut().flatten() {
        let result = queries.iter().find(|query| query.input == one.input_name);
        if let Some(uri) = result.and_then(|query| query.result.as_deref()) {
            one.s3_input = source(one, uri);
        }
    }
    resolved
}

fn source(input: &ProcessingInput, uri: &str) -> Option<ProcessingS3Input> {
    let definition = input.dataset_definition.as_ref()?;
    let source = json!({
        "S3Uri": uri,
        "LocalPath": definition.local_path,
        "S3DataType": "S3Prefix",
        "S3InputMode": definition.input_mode,
        "S3DataDistributionType": definition.data_distribution_type,
    });
    serde_json::from_value(source).ok()
}

/// Runs the queries of a processing job that have no result yet, one after the other; other jobs have none. A query that an earlier
/// server has begun is awaited, one that it has stored is not run again.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn run_queries(
    attempt: &Attempt<'_>,
    host: &HostRecord,
    log_path: &Path,
    granted: &HostGrant,
) -> store::Result<Step<()>> {
    let Some(input) = attempt.kind.processing() else { return Ok(Ok(())) };
    let all = hosts::count(&hosts::groups(&attempt.request));
    let log = attempt.log(&host.log_stream);
    for dataset in datasets(input, all) {
        let record = recorded(attempt, dataset.input).await?;
        if record.result.is_some() {
            continue;
        }
        let running = Running { attempt, dataset: &dataset, record: &record, log: &log };
        let (answered, ran_ms) = running.answer(log_path, granted).await?;
        let stored = match answered {
            Ok(answer) => running.store(&answer).await.map(|uri| (uri, answer)),
            Err(problem) => Err(problem),
        };
        let (result, problem) = match stored {
            Ok(stored) => (Some(stored), None),
            Err(problem) => (None, Some(problem)),
        };
        let name = dataset.input.to_owned();
        let done = result.clone();
        attempt
            .update(move |record, _| {
                record.attempts.ran_before_ms += ran_ms;
                if let Some((uri, answer)) = done
                    && let Some(own) = record.queries.iter_mut().find(|query| query.input == name)
                {
                    own.result = Some(uri);
                    own.rows = answer.rows;
                }
            })
            .await?;
        hosts::clean_up_workloads(attempt.app, std::slice::from_ref(&record.workload)).await;
        if let Some((uri, answer)) = result {
            let (rows, files, input) = (answer.rows, answer.files.len(), dataset.input);
            let line = format!("modelyard: the input {input:?} has {rows} rows in {files} files below {uri}");
            log.line(&line).await;
        }
        if let Some(problem) = problem {
            return Ok(Err(Box::new(card(&dataset, problem))));
        }
    }
    Ok(Ok(()))
}

/// The record of a query, made when there is none.
async fn recorded(attempt: &Attempt<'_>, input: &str) -> store::Result<QueryRecord> {
    let known = attempt.record()?.queries.into_iter().find(|query| query.input == input);
    if let Some(known) = known {
        return Ok(known);
    }
    let id = uuid::Uuid::new_v4().to_string();
    let made = QueryRecord {
        input: input.to_owned(),
        workload: format!("job-query-{id}"),
        id,
        result: None,
        rows: 0,
    };
    let written = made.clone();
    let message = format!("Running the query of the input {input}");
    attempt
        .update(move |record, now_ms| {
            record.queries.push(written);
            record.enter("Downloading", &message, now_ms);
        })
        .await?;
    Ok(made)
}

/// A query on its way.
struct Running<'a> {
    attempt: &'a Attempt<'a>,
    dataset: &'a Dataset<'a>,
    record: &'a QueryRecord,
    log: &'a JobLog,
}

impl Running<'_> {
    /// The answer of the engine, and how long it ran for it, in milliseconds.
    async fn answer(
        &self,
        log_path: &Path,
        granted: &HostGrant,
    ) -> store::Result<(Result<Answer, Problem>, i64)> {
        let app = self.attempt.app;
        let directory = job_directory(app, &self.record.workload);
        let place = Place { id: &self.record.workload, directory: &directory, log: self.log, log_path };
        for _ in 0..TRIES {
            match query::is_begun(app, place.id) {
                Ok(true) => {}
                Ok(false) => {
                    let attempts = self.attempt.record()?.attempts;
                    let room = Room {
                        memory_bytes: granted.memory_bytes,
                        cpus: granted.cpus.ceil() as u32,
                        disk_bytes: self.volume_bytes(),
                        time_limit_seconds: restart::time_left_seconds(self.attempt, &attempts),
                    };
                    if let Err(problem) = self.begin(&place, room).await {
                        return Ok((Err(problem), 0));
                    }
                }
                Err(problem) => return Ok((Err(problem), 0)),
            }
            match query::outcome(app, place.id, &directory).await {
                (Err(Problem::Lost), _) => {
                    self.log
                        .line("modelyard: the supervisor of the query was killed; the query is run again")
                        .await;
                    hosts::clean_up_workloads(app, std::slice::from_ref(&self.record.workload)).await;
                }
                ended => return Ok(ended),
            }
        }
        Ok((Err(Problem::Lost), 0))
    }

    fn volume_bytes(&self) -> Option<u64> {
        let resources = self.attempt.request.resource_config.as_ref()?;
        u64::try_from(resources.volume_size_in_gb?).ok().map(|gib| gib << 30)
    }

    async fn begin(&self, place: &Place<'_>, room: Room) -> Result<(), Problem> {
        let (app, key, dataset) = (self.attempt.app, &self.attempt.work.key, self.dataset);
        self.log
            .line(&format!(
                "modelyard: the query of the input {:?} begins; {}",
                dataset.input, dataset.described
            ))
            .await;
        let caller =
            internal_call::as_role(app, &key.account, &key.region, dataset.role_arn, SESSION_NAME).await;
        let caller = caller.map_err(|error| Problem::Query(format!("ACCESS_DENIED: {error}")))?;
        let folder = place.directory.join(query::TABLES_FOLDER);
        let made = workloads::make_fresh(place.directory, &folder).await;
        made.map_err(Problem::Server)?;
        let tables = query::tables(app, &caller, &dataset.query, &folder).await?;
        query::begin(app, place, query::request(&dataset.query, &tables), room).await
    }

    /// Stores the files of the result below a folder of its own, and removes what an attempt before has left there.
    async fn store(&self, answer: &Answer) -> Result<String, Problem> {
        let (app, key) = (self.attempt.app, &self.attempt.work.key);
        let uri = format!("{}/{}/", self.dataset.output_uri.trim_end_matches('/'), self.record.id);
        let (bucket, prefix) = bucket_and_key(&uri)
            .ok_or_else(|| Problem::Query(format!("OutputS3Uri: {uri:?} is not an S3 URI")))?;
        let reference = self.dataset.kms_key.filter(|key| !key.is_empty()).map(str::to_owned);
        let protection = reference.map(|reference| Protection::Key {
            reference: Some(reference),
            context: BTreeMap::new(),
            bucket_key: false,
        });
        let target = Target {
            app,
            account: &key.account,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            protection,
        };
        let directory = job_directory(app, &self.record.workload);
        let looked = tokio::task::spawn_blocking(move || {
            let tree = Tree::open(&directory, Path::new(query::OUTPUT_FOLDER))?
                .ok_or_else(|| std::io::Error::other("the folder of the result is gone"))?;
            let scan = tree.scan()?;
            Ok::<_, std::io::Error>((Arc::new(tree), scan))
        });
        let server = Problem::Server;
        let (tree, scan) = looked
            .await
            .map_err(|error| server(error.to_string()))?
            .map_err(|error| server(format!("the result of the query cannot be read: {error}")))?;
        let mut stored = Vec::new();
        for (path, stamp) in scan.files {
            if !answer.files.iter().any(|name| Path::new(name) == path) {
                continue;
            }
            match target.put(&tree, &path, stamp, Growing::Later).await {
                Ok(()) => stored.push(format!("{prefix}{}", path.display())),
                Err(PutError::Changing) => {
                    return Err(server(format!("{} changed after the query had ended", path.display())));
                }
                Err(PutError::Failed { text, is_passing: true }) => return Err(server(text)),
                Err(PutError::Failed { text, is_passing: false }) => return Err(Problem::Query(text)),
            }
        }
        if stored.len() != answer.files.len() {
            return Err(server("files of the query's result are missing".to_owned()));
        }
        let listed = app.objects.list_keys(&key.account, bucket, prefix, None, PAGE).await;
        let listed = listed.map_err(|error| server(error.to_string()))?;
        let leftovers: Vec<_> = listed
            .into_iter()
            .filter(|object| !stored.contains(&object.key))
            .map(|object| (object.key, Condition::default()))
            .collect();
        if !leftovers.is_empty() {
            let removed = app.objects.delete_many(&key.account, bucket, leftovers).await;
            removed.map_err(|error| server(error.to_string()))?;
        }
        Ok(uri)
    }
}

/// Why a job has no input.
fn card(dataset: &Dataset<'_>, problem: Problem) -> FailureCard {
    let input = dataset.input;
    let text = match problem {
        Problem::Query(text) => text,
        Problem::TimeLimit => {
            return FailureCard::new("time_limit", "ClientError: the query ran into MaxRuntimeInSeconds.");
        }
        Problem::Stopped => "it was ended from outside".to_owned(),
        Problem::Lost => {
            let text = "InternalServerError: the supervisor of the query was killed again and again.";
            return FailureCard::new("supervisor", text);
        }
        Problem::Server(text) => {
            let text =
                format!("InternalServerError: the query of the input {input:?} could not be run: {text}");
            return FailureCard::new("input", text);
        }
    };
    let sentence = format!("The query of the input {input:?} failed: {text}.");
    let hint = "Correct the QueryString of the input's DatasetDefinition, or the table in the catalogue; docs/tables.md says what is read.";
    let diagnosis =
        Diagnosis::new(Cause::Input, sentence.clone(), hint, vec![dataset.query.text.clone()], &[&text]);
    FailureCard {
        cause: diagnosis.cause.word().to_owned(),
        sentence: diagnosis.sentence,
        hint: diagnosis.hint,
        evidence: diagnosis.evidence,
        fingerprint: diagnosis.fingerprint,
        ..FailureCard::new("input", format!("ClientError: {}", uncapitalized(&sentence)))
    }
}

fn uncapitalized(sentence: &str) -> String {
    sentence.strip_prefix("The ").map_or_else(|| sentence.to_owned(), |rest| format!("the {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn request(definition: Value) -> CreateProcessingJobInput {
        let mut request = json!({
            "ProcessingJobName": "p", "RoleArn": "job-role", "AppSpecification": {"ImageUri": "i"},
            "ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}},
            "ProcessingInputs": [{"InputName": "rows"}],
        });
        request["ProcessingInputs"][0]["DatasetDefinition"] = definition;
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn definitions_become_queries_and_results_become_inputs() {
        let athena = request(json!({
            "LocalPath": "/opt/ml/processing/rows", "DataDistributionType": "ShardedByS3Key", "InputMode": "File",
            "AthenaDatasetDefinition": {"Catalog": "AwsDataCatalog", "Database": "db", "QueryString": "select 1",
                "OutputS3Uri": "s3://b/o/", "OutputFormat": "PARQUET", "OutputCompression": "SNAPPY"}}));
        let found = datasets(&athena, 3);
        assert_eq!((found[0].query.parts, found[0].role_arn), (3, "job-role"));
        assert_eq!(
            (found[0].query.format.as_str(), found[0].query.compression.as_deref()),
            ("PARQUET", Some("SNAPPY"))
        );
        let record = QueryRecord {
            input: "rows".into(),
            id: "1".into(),
            workload: "w".into(),
            result: Some("s3://b/o/1/".into()),
            rows: 1,
        };
        let resolved = with_results(&athena, &[record]);
        let source = resolved.processing_inputs.unwrap()[0].s3_input.clone().unwrap();
        assert_eq!(source.s3_uri, "s3://b/o/1/");
        assert_eq!(source.local_path.as_deref(), Some("/opt/ml/processing/rows"));
        assert_eq!(source.s3_data_distribution_type.unwrap().as_str(), "ShardedByS3Key");

        let redshift = request(json!({
            "LocalPath": "/opt/ml/processing/rows",
            "RedshiftDatasetDefinition": {"ClusterId": "c", "Database": "db", "DbUser": "u", "QueryString": "select 1",
                "ClusterRoleArn": "cluster-role", "OutputS3Uri": "s3://b/o", "OutputFormat": "CSV", "OutputCompression": "None"}}));
        let found = datasets(&redshift, 1);
        assert_eq!(
            (found[0].role_arn, found[0].query.compression.as_deref()),
            ("cluster-role", Some("NONE"))
        );
        assert!(found[0].described.contains("cluster c"));
    }

    #[test]
    fn the_card_names_the_input_and_the_place() {
        let athena = request(json!({
            "AthenaDatasetDefinition": {"Catalog": "c", "Database": "db", "QueryString": "select x",
                "OutputS3Uri": "s3://b/o/", "OutputFormat": "PARQUET"}}));
        let found = card(
            &datasets(&athena, 1)[0],
            Problem::Query("COLUMN_NOT_FOUND: line 1:8: Column 'x' cannot be resolved".into()),
        );
        assert_eq!(
            found.reason,
            "ClientError: the query of the input \"rows\" failed: COLUMN_NOT_FOUND: line 1:8: Column 'x' cannot be resolved."
        );
        assert_eq!(found.evidence, ["select x"]);
        let server = card(&datasets(&athena, 1)[0], Problem::Server("no disk".into()));
        assert!(server.reason.starts_with("InternalServerError: "));
    }
}
