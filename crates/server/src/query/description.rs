//! DescribeFiles of our own service: a table for files in S3, with the columns that they say they have.

use std::collections::BTreeSet;
use std::path::Path;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::objects::{Export, ExportedObject, Object};

use super::files::is_hidden;
use super::{Answer, Place, Problem, Room, TABLES_FOLDER, begin, format, outcome};
use crate::job_log::JobLog;
use crate::own_service::own_operation;
use crate::training::bucket_and_key;
use crate::workloads::{job_directory, make_fresh, remove_directory};
use crate::{Cx, Error, Registry, Result};

/// Objects that are looked for under a prefix.
const LISTED: usize = 1_000;
/// Files that are looked into.
const LOOKED_INTO: usize = 8;
/// What looking may take.
const ROOM: Room =
    Room { memory_bytes: 1 << 30, cpus: 1, disk_bytes: Some(1 << 30), time_limit_seconds: 120 };
/// Where the engine's log goes.
const LOG_GROUP: &str = "/modelyard/tables";

/// What the engine says of files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Described {
    columns: Vec<Value>,
    delimiter: Option<String>,
    skip_lines: Option<u32>,
}

own_operation! {
    /// Answers a table for the files below a URI.
    DescribeFiles(DescribeFilesInput) -> DescribeFilesOutput
}

/// Input of [`DescribeFiles`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeFilesInput {
    /// Prefix of the files, for example `s3://bucket/orders/`.
    pub uri: String,
}

/// Output of [`DescribeFiles`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeFilesOutput {
    /// A `TableInput` of Glue without a name.
    pub table: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeFiles, _, _, _>(describe_files);
}

async fn describe_files(cx: Cx, input: DescribeFilesInput) -> Result<DescribeFilesOutput> {
    let (bucket, key) = bucket_and_key(&input.uri).ok_or_else(|| {
        Error::Validation(format!("Uri: {:?} is not an S3 URI such as s3://bucket/prefix/.", input.uri))
    })?;
    let prefix = if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
    let location = format!("s3://{bucket}/{prefix}");
    let listed = cx.state.objects.list_keys(&cx.caller.account, bucket, &prefix, None, LISTED).await;
    let listed = listed.map_err(|error| match error {
        store::Error::Missing { .. } | store::Error::Denied(_) => Error::Validation(format!("Uri: {error}.")),
        other => other.into(),
    })?;
    let objects: Vec<Object> = listed
        .into_iter()
        .filter(|object| object.size > 0 && !is_hidden(&object.key[prefix.len()..]))
        .collect();
    let Some(first) = objects.first() else {
        return Err(Error::Validation(format!("Uri: there are no files below {location}.")));
    };
    let Some(kind) = kind_of(&first.key) else {
        return Err(Error::Validation(format!(
            "Uri: the end of the name of s3://{bucket}/{} does not say what it is; .csv, .tsv, .json, .jsonl, .ndjson (perhaps with .gz or \
             .zst) and .parquet do. Make the table with glue CreateTable.",
            first.key
        )));
    };
    let keys = partition_keys(objects.iter().map(|object| &object.key[prefix.len()..]));
    // Also when the caller goes: what was begun is removed.
    let bucket = bucket.to_owned();
    let looking = tokio::spawn(async move { look(&cx, &bucket, objects, kind).await });
    let described = looking.await.map_err(Error::internal)??;
    Ok(DescribeFilesOutput { table: table(kind, &location, &keys, described) })
}

/// Has the engine look into the first files.
async fn look(cx: &Cx, bucket: &str, objects: Vec<Object>, kind: &str) -> Result<Described> {
    let app = &cx.state;
    let id = format!("job-query-{}", uuid::Uuid::new_v4());
    let directory = job_directory(&app.config, &id);
    let folder = directory.join(TABLES_FOLDER);
    make_fresh(&directory, &folder).await.map_err(Error::internal)?;
    let exported = objects.into_iter().take(LOOKED_INTO).enumerate().map(|(number, object)| {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let target = folder.join(format!("{number:04}-{name}"));
        ExportedObject { bucket: bucket.to_owned(), object, target }
    });
    let made = app.objects.export(&cx.caller.account, exported.collect(), Export::Shared).await;
    let answered = match made {
        Ok(()) => run(cx, &id, &directory, kind).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = app.executor.remove(&id) {
        tracing::debug!(id, %error, "there was no process that looked into files");
    }
    remove_directory(&directory).await;
    answered
}

async fn run(cx: &Cx, id: &str, directory: &Path, kind: &str) -> Result<Described> {
    let (app, account, region) = (&cx.state, &cx.caller.account, &cx.caller.region);
    let log_path = app.logs.ensure_stream(account, region, LOG_GROUP, id).await?;
    let log = JobLog::new(app, account, region, LOG_GROUP, id);
    let place = Place { id, directory, log: &log, log_path: &log_path };
    let answered = match begin(app, &place, json!({"describe": kind}), ROOM).await {
        Ok(()) => outcome(app, id, directory).await.0,
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(Answer { description: Some(described), .. }) => Ok(described),
        Err(Problem::Query(text)) => {
            Err(Error::Validation(format!("Uri: the files cannot be read as {kind}: {text}.")))
        }
        Err(Problem::TimeLimit) => {
            Err(Error::Validation("Uri: the files were not read within two minutes.".into()))
        }
        other => Err(Error::Unavailable(format!("The engine did not answer: {other:?}."))),
    }
}

/// What a file is by the end of its name.
fn kind_of(key: &str) -> Option<&'static str> {
    let lower = key.to_lowercase();
    let plain = lower.strip_suffix(".gz").or_else(|| lower.strip_suffix(".zst")).unwrap_or(&lower);
    match plain.rsplit('.').next()? {
        "csv" | "tsv" => Some("csv"),
        "json" | "jsonl" | "ndjson" => Some("json"),
        "parquet" if plain == lower => Some("parquet"),
        _ => None,
    }
}

/// Names and types of the partition keys that the folders of all files agree on.
fn partition_keys<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<(String, &'static str)> {
    let mut common: Option<Vec<String>> = None;
    let mut values: Vec<BTreeSet<String>> = Vec::new();
    for path in paths {
        let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
        let pairs: Vec<(&str, &str)> =
            folders.split('/').map_while(|folder| folder.split_once('=')).collect();
        let names: Vec<String> = pairs.iter().map(|(name, _)| name.to_lowercase()).collect();
        values.resize(values.len().max(names.len()), BTreeSet::new());
        for (own, (_, value)) in values.iter_mut().zip(&pairs) {
            own.insert(percent_decode_str(value).decode_utf8_lossy().into_owned());
        }
        let agreed = match &common {
            None => names,
            Some(common) => common
                .iter()
                .zip(names)
                .take_while(|(one, other)| *one == other)
                .map(|(one, _)| one.clone())
                .collect(),
        };
        common = Some(agreed);
    }
    let named = common.unwrap_or_default().into_iter().zip(values);
    named.map(|(name, values)| (name, type_of(&values))).collect()
}

fn type_of(values: &BTreeSet<String>) -> &'static str {
    let is_date = |value: &String| {
        let parts: Vec<&str> = value.split('-').collect();
        let digits = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        digits && parts.iter().map(|part| part.len()).eq([4, 2, 2])
    };
    // 07 as a number would be another folder than 7.
    let is_number = |value: &String| value.parse::<i64>().is_ok_and(|number| number.to_string() == *value);
    match () {
        () if values.iter().all(is_number) => "bigint",
        () if values.iter().all(is_date) => "date",
        () => "string",
    }
}

fn table(kind: &str, location: &str, keys: &[(String, &'static str)], described: Described) -> Value {
    let (library, parameters) = match kind {
        "csv" => {
            let delimiter = described.delimiter.unwrap_or_else(|| ",".into());
            (format::OPEN_CSV, json!({"separatorChar": delimiter, "quoteChar": "\"", "escapeChar": "\\"}))
        }
        "json" => (format::OPENX_JSON, json!({})),
        _ => (format::PARQUET, json!({"serialization.format": "1"})),
    };
    let (input, output) = if kind == "parquet" {
        (
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        )
    } else {
        (
            "org.apache.hadoop.mapred.TextInputFormat",
            "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
        )
    };
    let is_key = |column: &Value| keys.iter().any(|(name, _)| column["Name"] == name.as_str());
    let columns: Vec<Value> = described.columns.into_iter().filter(|column| !is_key(column)).collect();
    let keys: Vec<Value> = keys.iter().map(|(name, kind)| json!({"Name": name, "Type": kind})).collect();
    let mut table_parameters = json!({"classification": kind, "EXTERNAL": "TRUE"});
    if let Some(lines) = described.skip_lines.filter(|lines| *lines > 0) {
        table_parameters["skip.header.line.count"] = lines.to_string().into();
    }
    json!({
        "TableType": "EXTERNAL_TABLE",
        "Parameters": table_parameters,
        "PartitionKeys": keys,
        "StorageDescriptor": {
            "Location": location,
            "Columns": columns,
            "InputFormat": input,
            "OutputFormat": output,
            "SerdeInfo": {"SerializationLibrary": library, "Parameters": parameters},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        assert_eq!(kind_of("a/B.CSV.gz"), Some("csv"));
        assert_eq!(kind_of("a/x.jsonl"), Some("json"));
        assert_eq!(kind_of("a/x.snappy.parquet"), Some("parquet"));
        assert_eq!((kind_of("a/x.parquet.gz"), kind_of("a/x"), kind_of("a.csv/x")), (None, None, None));
    }

    #[test]
    fn partition_keys_follow_from_folders() {
        let keys = |paths: &[&str]| partition_keys(paths.iter().copied());
        assert_eq!(
            keys(&["year=2024/day=2024-01-01/c=07/a", "Year=2025/day=2024-01-02/c=8/b"]),
            [("year".to_owned(), "bigint"), ("day".to_owned(), "date"), ("c".to_owned(), "string")]
        );
        assert_eq!(keys(&["year=2024/a", "b"]), []);
        assert_eq!(keys(&["x/year=2024/a"]), []);
    }

    #[test]
    fn a_described_table_can_be_read() {
        let described = || Described {
            columns: vec![json!({"Name": "id", "Type": "bigint"}), json!({"Name": "day", "Type": "date"})],
            delimiter: Some(";".into()),
            skip_lines: Some(1),
        };
        for kind in ["csv", "json", "parquet"] {
            let made = table(kind, "s3://b/p/", &[("day".into(), "date")], described());
            assert!(format::format(&made).is_ok(), "{kind}");
            assert_eq!(made["StorageDescriptor"]["Columns"].as_array().unwrap().len(), 1);
        }
    }
}
