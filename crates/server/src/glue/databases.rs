//! Databases of the catalogue.

use api::glue::{
    CreateDatabase, CreateDatabaseInput, CreateDatabaseOutput, Database, DeleteDatabase, DeleteDatabaseInput,
    DeleteDatabaseOutput, GetDatabase, GetDatabaseInput, GetDatabaseOutput, GetDatabases, GetDatabasesInput,
    GetDatabasesOutput, UpdateDatabase, UpdateDatabaseInput, UpdateDatabaseOutput,
};
use serde_json::Value;
use store::resources::Resource;

use super::error::{Problem, Result};
use super::{
    DATABASE, PARTITION, TABLE, check_catalogue, entry, key, member, page_query, plain_name, remove_below,
    seconds,
};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateDatabase, _, _, _>(create_database);
    registry.on::<GetDatabase, _, _, _>(get_database);
    registry.on::<GetDatabases, _, _, _>(get_databases);
    registry.on::<UpdateDatabase, _, _, _>(update_database);
    registry.on::<DeleteDatabase, _, _, _>(delete_database);
}

/// What a database may say of itself.
const HONOURED: &[&str] = &[
    "CatalogId",
    "Name",
    "Tags.**",
    "DatabaseInput.Name",
    "DatabaseInput.Description",
    "DatabaseInput.LocationUri",
    "DatabaseInput.Parameters.**",
    "DatabaseInput.CreateTableDefaultPermissions.**",
];

/// The refusal of a database that is not there.
pub fn missing(name: &str) -> Problem {
    Problem::missing(format!("Database {name} not found."))
}

/// A database of the caller's account.
pub async fn find(cx: &Cx, name: &str) -> Result<Resource> {
    let name = plain_name("DatabaseName", name)?;
    let wanted = key(cx, DATABASE, &name);
    let found = cx.state.database.read(move |session| session.find_resource(&wanted)).await?;
    found.ok_or_else(|| missing(&name))
}

async fn create_database(cx: Cx, input: CreateDatabaseInput) -> Result<CreateDatabaseOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, HONOURED)?;
    let name = plain_name("DatabaseInput.Name", &input.database_input.name)?;
    let made = entry(&cx, DATABASE, &name, &format!("database/{name}"), member(&cx, "DatabaseInput", &name));
    let tags: Vec<_> = input.tags.unwrap_or_default().into_iter().collect();
    let stored = cx.state.database.write(move |session| {
        session.insert_resource(&made)?;
        session.put_tags(&made.arn, &tags)?;
        session.append_event(&made.key, "Created", &made.spec, made.created_at)
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Problem::taken(format!("Database {name} already exists.")),
        other => other.into(),
    })?;
    Ok(CreateDatabaseOutput::default())
}

async fn get_database(cx: Cx, input: GetDatabaseInput) -> Result<GetDatabaseOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let found = find(&cx, &input.name).await?;
    Ok(GetDatabaseOutput { database: Some(described(&found)?) })
}

async fn get_databases(cx: Cx, input: GetDatabasesInput) -> Result<GetDatabasesOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, &["CatalogId", "NextToken", "MaxResults"])?;
    let query = page_query(None, input.max_results, input.next_token);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let listed =
        cx.state.database.read(move |session| session.list_resources(&account, &region, DATABASE, &query));
    let page = listed.await?;
    let database_list = page.resources.iter().map(described).collect::<Result<_>>()?;
    Ok(GetDatabasesOutput { database_list: Some(database_list), next_token: page.next_token })
}

async fn update_database(cx: Cx, input: UpdateDatabaseInput) -> Result<UpdateDatabaseOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    fields::check(&cx.input, HONOURED)?;
    let name = plain_name("Name", &input.name)?;
    let given = plain_name("DatabaseInput.Name", &input.database_input.name)?;
    if given != name {
        return Err(Problem::invalid(format!(
            "DatabaseInput.Name: the database {name} cannot be renamed to {given}."
        )));
    }
    let (key, spec) = (key(&cx, DATABASE, &name), member(&cx, "DatabaseInput", &name));
    let now_ms = cx.state.clock.now_ms();
    let changed = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |database| {
            database.spec = spec;
            Ok(())
        })?;
        session.append_event(&key, "Updated", &Value::Null, now_ms)
    });
    changed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&name),
        other => other.into(),
    })?;
    Ok(UpdateDatabaseOutput::default())
}

async fn delete_database(cx: Cx, input: DeleteDatabaseInput) -> Result<DeleteDatabaseOutput> {
    check_catalogue(&cx, input.catalog_id.as_deref())?;
    let name = plain_name("Name", &input.name)?;
    let (key, now_ms) = (key(&cx, DATABASE, &name), cx.state.clock.now_ms());
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)?;
        remove_below(session, &key, TABLE, now_ms)?;
        remove_below(session, &key, PARTITION, now_ms)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&name),
        other => other.into(),
    })?;
    Ok(DeleteDatabaseOutput::default())
}

fn described(resource: &Resource) -> Result<Database> {
    let mut shown = resource.spec.clone();
    shown["CreateTime"] = seconds(resource.created_at).into();
    shown["CatalogId"] = resource.key.account.clone().into();
    serde_json::from_value(shown).map_err(|error| Error::internal(error).into())
}
