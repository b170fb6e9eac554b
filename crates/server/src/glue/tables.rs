//! Tables of the catalogue.

use api::glue::{
    CreateTable, CreateTableInput, CreateTableOutput, DeleteTable, DeleteTableInput, DeleteTableOutput,
    GetTable, GetTableInput, GetTableOutput, GetTables, GetTablesInput, GetTablesOutput, Table, TableInput,
    UpdateTable, UpdateTableInput, UpdateTableOutput,
};
use regex::Regex;
use serde_json::Value;
use store::resources::Resource;

use super::error::{Problem, Result};
use super::{
    DATABASE, PARTITION, TABLE, check_catalogue, databases, entry, key, member, page_query, plain_name,
    remove_below, seconds,
};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateTable, _, _, _>(create_table);
    registry.on::<GetTable, _, _, _>(get_table);
    registry.on::<GetTables, _, _, _>(get_tables);
    registry.on::<UpdateTable, _, _, _>(update_table);
    registry.on::<DeleteTable, _, _, _>(delete_table);
}

/// What a table may say of itself. Whether its files can be read is judged by the query that reads it, which names what it
/// cannot do: catalogues describe tables for other engines, too.
const HONOURED: &[&str] = &[
    "CatalogId",
    "DatabaseName",
    "SkipArchive",
    "VersionId",
    "TableInput.Name",
    "TableInput.Description",
    "TableInput.Owner",
    "TableInput.LastAccessTime",
    "TableInput.LastAnalyzedTime",
    "TableInput.Retention",
    "TableInput.StorageDescriptor.**",
    "TableInput.PartitionKeys.**",
    "TableInput.ViewOriginalText",
    "TableInput.ViewExpandedText",
    "TableInput.TableType",
    "TableInput.Parameters.**",
];

/// The refusal of a table that is not there.
pub fn missing(name: &str) -> Problem {
    Problem::missing(format!("Table {name} not found."))
}

/// A table of the caller's account.
pub async fn find(cx: &Cx, database: &str, table: &str) -> Result<Resource> {
    let name = table_name(database, table)?;
    let wanted = key(cx, TABLE, &name);
    let found = cx.state.database.read(move |session| session.find_resource(&wanted)).await?;
    found.ok_or_else(|| missing(table))
}

/// The name under which the store has a table.
pub fn table_name(database: &str, table: &str) -> Result<String> {
    Ok(format!("{}/{}", plain_name("DatabaseName", database)?, plain_name("Name", table)?))
}

/// What the model cannot say of a table: that its columns have names of their own, and where it lies.
fn check(input: &TableInput) -> Result<()> {
    let descriptor = input.storage_descriptor.as_ref();
    let columns = descriptor.and_then(|descriptor| descriptor.columns.as_deref()).unwrap_or_default();
    let keys = input.partition_keys.as_deref().unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for column in columns.iter().chain(keys) {
        let name = column.name.to_lowercase();
        if name.trim().is_empty() || name.contains(['"', '\0', '/', '=']) {
            return Err(Problem::invalid(format!(
                "TableInput: {:?} cannot be the name of a column.",
                column.name
            )));
        }
        if names.contains(&name) {
            return Err(Problem::invalid(format!("TableInput: the column {name:?} is given twice.")));
        }
        names.push(name);
    }
    let location = descriptor.and_then(|descriptor| descriptor.location.as_deref()).unwrap_or_default();
    let is_view = input.table_type.as_deref() == Some("VIRTUAL_VIEW");
    if !is_view && !location.is_empty() && crate::training::bucket_and_key(location).is_none() {
        return Err(Problem::invalid(format!(
            "TableInput.StorageDescriptor.Location: {location:?} is not an S3 URI such as s3://bucket/prefix/."
        )));
    }
    Ok(())
}

fn given(input: Option<TableInput>) -> Result<TableInput> {
    input.ok_or_else(|| Problem::invalid("TableInput must be given."))
}

async fn create_table(cx: Cx, input: CreateTableInput) -> Result<CreateTableOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, HONOURED)?;
    let table = given(input.table_input)?;
    check(&table)?;
    let database = plain_name("DatabaseName", &input.database_name)?;
    let name = plain_name("TableInput.Name", &table.name)?;
    let full = format!("{database}/{name}");
    let made = entry(&cx, TABLE, &full, &format!("table/{full}"), member(&cx, "TableInput", &name));
    let owner = key(&cx, DATABASE, &database);
    let created_by = cx.caller.principal_arn.clone();
    let stored = cx.state.database.write(move |session| {
        let mut made = made;
        made.document["CreatedBy"] = created_by.into();
        session.resource(&owner)?;
        session.insert_resource(&made)?;
        session.append_event(&made.key, "Created", &made.spec, made.created_at)
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Problem::taken(format!("Table {name} already exists.")),
        store::Error::Missing { .. } => databases::missing(&database),
        other => other.into(),
    })?;
    Ok(CreateTableOutput::default())
}

async fn get_table(cx: Cx, input: GetTableInput) -> Result<GetTableOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, &["CatalogId", "DatabaseName", "Name", "IncludeStatusDetails"])?;
    databases::find(&cx, &input.database_name).await?;
    let found = find(&cx, &input.database_name, &input.name).await?;
    Ok(GetTableOutput { table: Some(described(&found)?) })
}

async fn get_tables(cx: Cx, input: GetTablesInput) -> Result<GetTablesOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let honoured =
        ["CatalogId", "DatabaseName", "Expression", "NextToken", "MaxResults", "IncludeStatusDetails"];
    fields::check(&cx.input, &honoured)?;
    let wanted = input.expression.as_deref().filter(|text| !text.is_empty()).map(|text| {
        Regex::new(&format!("(?i)^(?:{text})$")).map_err(|error| {
            Problem::invalid(format!("Expression: {text:?} is not a regular expression: {error}"))
        })
    });
    let wanted = wanted.transpose()?;
    let database = databases::find(&cx, &input.database_name).await?.key.name;
    let query = page_query(Some(database), input.max_results, input.next_token);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let listed =
        cx.state.database.read(move |session| session.list_resources(&account, &region, TABLE, &query));
    let page = listed.await?;
    let fits = |resource: &&Resource| {
        let name = resource.spec["Name"].as_str().unwrap_or_default();
        wanted.as_ref().is_none_or(|wanted| wanted.is_match(name))
    };
    let table_list = page.resources.iter().filter(fits).map(described).collect::<Result<_>>()?;
    Ok(GetTablesOutput { table_list: Some(table_list), next_token: page.next_token })
}

async fn update_table(cx: Cx, input: UpdateTableInput) -> Result<UpdateTableOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, HONOURED)?;
    let table = given(input.table_input)?;
    check(&table)?;
    let name = plain_name("TableInput.Name", &table.name)?;
    let (full, spec) =
        (table_name(&input.database_name, &table.name)?, member(&cx, "TableInput", &table.name));
    let (key, now_ms, expected) = (key(&cx, TABLE, &full), cx.state.clock.now_ms(), input.version_id);
    let changed = cx.state.database.write(move |session| {
        let there = session.resource(&key)?;
        if expected.is_some_and(|expected| expected != version(&there)) {
            return Ok(false);
        }
        session.update_resource(&key, now_ms, |table| {
            table.spec = spec;
            table.spec["Name"] = name.into();
            Ok(())
        })?;
        session.append_event(&key, "Updated", &Value::Null, now_ms)?;
        Ok(true)
    });
    let is_changed = changed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&table.name),
        other => other.into(),
    })?;
    if !is_changed {
        let text = format!("VersionId: the table {} was changed since that version.", table.name);
        return Err(Problem::Code("ConcurrentModificationException", text));
    }
    Ok(UpdateTableOutput::default())
}

async fn delete_table(cx: Cx, input: DeleteTableInput) -> Result<DeleteTableOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, &["CatalogId", "DatabaseName", "Name"])?;
    let full = table_name(&input.database_name, &input.name)?;
    let (key, now_ms) = (key(&cx, TABLE, &full), cx.state.clock.now_ms());
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)?;
        remove_below(session, &key, PARTITION, now_ms)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&input.name),
        other => other.into(),
    })?;
    Ok(DeleteTableOutput::default())
}

/// Versions are counted from 0, as in the service; only the last one is kept.
fn version(resource: &Resource) -> String {
    (resource.generation - 1).to_string()
}

fn described(resource: &Resource) -> Result<Table> {
    let mut shown = resource.spec.clone();
    let database = resource.key.name.split('/').next().unwrap_or_default();
    shown["DatabaseName"] = database.into();
    shown["CreateTime"] = seconds(resource.created_at).into();
    shown["UpdateTime"] = seconds(resource.modified_at).into();
    shown["CreatedBy"] = resource.document["CreatedBy"].clone();
    shown["CatalogId"] = resource.key.account.clone().into();
    shown["VersionId"] = version(resource).into();
    shown["IsRegisteredWithLakeFormation"] = false.into();
    serde_json::from_value(shown).map_err(|error| Error::internal(error).into())
}
