//! Partitions of tables.

use api::glue::{
    BatchCreatePartition, BatchCreatePartitionInput, BatchCreatePartitionOutput, CreatePartition,
    CreatePartitionInput, CreatePartitionOutput, DeletePartition, DeletePartitionInput,
    DeletePartitionOutput, ErrorDetail, GetPartition, GetPartitionInput, GetPartitionOutput, GetPartitions,
    GetPartitionsInput, GetPartitionsOutput, Partition, PartitionError, PartitionInput,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use store::resources::Resource;

use super::error::{Problem, Result};
use super::{
    PARTITION, check_catalogue, databases, entry, key, page_query, partition_filter, seconds, tables,
};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// Partitions of one BatchCreatePartition, as in the service.
const MOST_AT_ONCE: usize = 100;

/// What stays as it is in the name of a partition.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreatePartition, _, _, _>(create_partition);
    registry.on::<BatchCreatePartition, _, _, _>(batch_create_partition);
    registry.on::<GetPartition, _, _, _>(get_partition);
    registry.on::<GetPartitions, _, _, _>(get_partitions);
    registry.on::<DeletePartition, _, _, _>(delete_partition);
}

/// The name of a partition in the store.
fn partition_name(table: &str, values: &[String]) -> String {
    values.iter().fold(table.to_owned(), |name, value| format!("{name}/{}", utf8_percent_encode(value, KEPT)))
}

fn partition_keys(table: &Resource) -> Vec<String> {
    let keys = table.spec["PartitionKeys"].as_array();
    let names = keys.into_iter().flatten().filter_map(|key| key["Name"].as_str());
    names.map(str::to_lowercase).collect()
}

fn check_values(field: &str, table: &Resource, values: &[String]) -> Result<()> {
    let keys = partition_keys(table);
    if keys.is_empty() {
        return Err(Problem::invalid(format!(
            "{field}: the table {} has no PartitionKeys.",
            table.spec["Name"]
        )));
    }
    if keys.len() != values.len() {
        return Err(Problem::invalid(format!(
            "{field}: the number of values, {}, is not that of the table's partition keys, {}.",
            values.len(),
            keys.len()
        )));
    }
    Ok(())
}

/// Why a partition was not made.
struct NotMade {
    code: &'static str,
    text: String,
}

/// Checks one partition and gives its row.
fn made(
    cx: &Cx,
    table: &Resource,
    raw: &Value,
    input: &PartitionInput,
) -> std::result::Result<Resource, NotMade> {
    let not_made = |problem: Problem| match problem {
        Problem::Code(code, text) => NotMade { code, text },
        Problem::Other(error) => NotMade { code: "InternalServiceException", text: error.to_string() },
    };
    let values = input.values.clone().unwrap_or_default();
    check_values("PartitionInput.Values", table, &values).map_err(not_made)?;
    let location = input.storage_descriptor.as_ref().and_then(|one| one.location.as_deref());
    if let Some(location) = location.filter(|location| !location.is_empty())
        && crate::training::bucket_and_key(location).is_none()
    {
        let text = format!(
            "PartitionInput.StorageDescriptor.Location: {location:?} is not an S3 URI such as s3://bucket/prefix/."
        );
        return Err(not_made(Problem::invalid(text)));
    }
    let name = partition_name(&table.key.name, &values);
    Ok(entry(cx, PARTITION, &name, &format!("partition/{name}"), raw.clone()))
}

async fn create_partition(cx: Cx, input: CreatePartitionInput) -> Result<CreatePartitionOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let table = tables::find(&cx, &input.database_name, &input.table_name).await?;
    let made = made(&cx, &table, &cx.input["PartitionInput"], &input.partition_input)
        .map_err(|problem| Problem::Code(problem.code, problem.text))?;
    let table_key = table.key.clone();
    let stored = cx.state.database.write(move |session| {
        session.resource(&table_key)?;
        session.insert_resource(&made)?;
        session.append_event(&made.key, "Created", &made.spec, made.created_at)
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Problem::taken("Partition already exists."),
        store::Error::Missing { .. } => tables::missing(&input.table_name),
        other => other.into(),
    })?;
    Ok(CreatePartitionOutput::default())
}

async fn batch_create_partition(
    cx: Cx,
    input: BatchCreatePartitionInput,
) -> Result<BatchCreatePartitionOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let list = input.partition_input_list;
    if list.len() > MOST_AT_ONCE {
        return Err(Problem::invalid(format!(
            "PartitionInputList: {} partitions are more than the {MOST_AT_ONCE} that one request may have.",
            list.len()
        )));
    }
    let table = tables::find(&cx, &input.database_name, &input.table_name).await?;
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    let failed = |values: Option<Vec<String>>, code: &str, text: String| PartitionError {
        partition_values: values,
        error_detail: Some(ErrorDetail { error_code: Some(code.into()), error_message: Some(text) }),
    };
    for (one, raw) in list.into_iter().zip(cx.input["PartitionInputList"].as_array().into_iter().flatten()) {
        match made(&cx, &table, raw, &one) {
            Ok(row) => rows.push((one.values, row)),
            Err(problem) => errors.push(failed(one.values, problem.code, problem.text)),
        }
    }
    let table_key = table.key.clone();
    let stored = cx.state.database.write(move |session| {
        session.resource(&table_key)?;
        let mut present = Vec::new();
        for (values, row) in rows {
            match session.insert_resource(&row) {
                Ok(()) => session.append_event(&row.key, "Created", &row.spec, row.created_at)?,
                Err(store::Error::Exists { .. }) => present.push(values),
                Err(error) => return Err(error),
            }
        }
        Ok(present)
    });
    let present = stored.await.map_err(|error| match error {
        store::Error::Missing { .. } => tables::missing(&input.table_name),
        other => other.into(),
    })?;
    let taken = present
        .into_iter()
        .map(|values| failed(values, "AlreadyExistsException", "Partition already exists.".into()));
    errors.extend(taken);
    Ok(BatchCreatePartitionOutput { errors: (!errors.is_empty()).then_some(errors) })
}

async fn get_partition(cx: Cx, input: GetPartitionInput) -> Result<GetPartitionOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, &["CatalogId", "DatabaseName", "TableName", "PartitionValues"])?;
    let table = tables::find(&cx, &input.database_name, &input.table_name).await?;
    check_values("PartitionValues", &table, &input.partition_values)?;
    let wanted = key(&cx, PARTITION, &partition_name(&table.key.name, &input.partition_values));
    let found = cx.state.database.read(move |session| session.find_resource(&wanted)).await?;
    let found = found.ok_or_else(missing)?;
    Ok(GetPartitionOutput { partition: Some(described(&found)?) })
}

async fn get_partitions(cx: Cx, input: GetPartitionsInput) -> Result<GetPartitionsOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let honoured = [
        "CatalogId",
        "DatabaseName",
        "TableName",
        "Expression",
        "NextToken",
        "MaxResults",
        "ExcludeColumnSchema",
    ];
    fields::check(&cx.input, &honoured)?;
    databases::find(&cx, &input.database_name).await?;
    let table = tables::find(&cx, &input.database_name, &input.table_name).await?;
    let wanted = match input.expression.as_deref().filter(|text| !text.trim().is_empty()) {
        None => Vec::new(),
        Some(text) => partition_filter::parse(text, &partition_keys(&table)).map_err(Problem::invalid)?,
    };
    let query = page_query(Some(table.key.name.clone()), input.max_results, input.next_token);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let listed =
        cx.state.database.read(move |session| session.list_resources(&account, &region, PARTITION, &query));
    let page = listed.await?;
    let mut partitions = Vec::new();
    for one in &page.resources {
        let fits = wanted.iter().all(|(position, value)| one.spec["Values"][*position] == value.as_str());
        if fits {
            let mut shown = described(one)?;
            if input.exclude_column_schema == Some(true)
                && let Some(descriptor) = &mut shown.storage_descriptor
            {
                descriptor.columns = None;
            }
            partitions.push(shown);
        }
    }
    Ok(GetPartitionsOutput { partitions: Some(partitions), next_token: page.next_token })
}

async fn delete_partition(cx: Cx, input: DeletePartitionInput) -> Result<DeletePartitionOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let table = tables::find(&cx, &input.database_name, &input.table_name).await?;
    check_values("PartitionValues", &table, &input.partition_values)?;
    let key = key(&cx, PARTITION, &partition_name(&table.key.name, &input.partition_values));
    let now_ms = cx.state.clock.now_ms();
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(),
        other => other.into(),
    })?;
    Ok(DeletePartitionOutput::default())
}

fn missing() -> Problem {
    Problem::missing("Cannot find partition.")
}

fn described(resource: &Resource) -> Result<Partition> {
    let mut names = resource.key.name.split('/');
    let mut shown = resource.spec.clone();
    shown["DatabaseName"] = names.next().unwrap_or_default().into();
    shown["TableName"] = names.next().unwrap_or_default().into();
    shown["CreationTime"] = seconds(resource.created_at).into();
    shown["CatalogId"] = resource.key.account.clone().into();
    serde_json::from_value(shown).map_err(|error| Error::internal(error).into())
}
