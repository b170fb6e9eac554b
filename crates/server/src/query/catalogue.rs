//! What a query may read: the tables of the catalogue that its text names, as the caller sees them.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use wire::Caller;

use super::files::Source;
use super::format::{self, Column, Format};
use super::mentions::mentions;
use super::{Problem, Query};
use crate::app::App;
use crate::internal_call::{CallError, call};

/// A table as the engine is told of it.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    database: String,
    name: String,
    columns: Vec<Column>,
    partition_keys: Vec<Column>,
    format: Option<Format>,
    /// Its folder below that of all tables.
    folder: String,
    /// Why it cannot be read; a query that reads it is told so.
    refusal: Option<String>,
}

/// The tables that a query may mean, with their files made below `folder`; the catalogue and the objects are read as `caller`.
///
/// # Errors
/// What keeps the query from being run.
pub async fn tables(
    app: &Arc<App>,
    caller: &Caller,
    query: &Query,
    folder: &Path,
) -> Result<Vec<Table>, Problem> {
    let text = query.text.to_lowercase();
    let default = query.database.to_lowercase();
    let found = call(app, caller, "glue", "GetDatabase", json!({"Name": default})).await;
    found.map_err(|error| match error.code.as_str() {
        "EntityNotFoundException" | "InvalidInputException" => Problem::Query(format!(
            "SCHEMA_NOT_FOUND: the database {:?} is not in the catalogue of this account; make it with glue CreateDatabase",
            query.database
        )),
        _ => problem(&error),
    })?;
    let databases = all(app, caller, "GetDatabases", json!({}), "DatabaseList").await?;
    let named = databases.iter().filter_map(|database| database["Name"].as_str());
    let named: Vec<&str> = named.filter(|name| *name == default || mentions(&text, name)).collect();
    let mut tables = Vec::new();
    for database in named {
        let listed = all(app, caller, "GetTables", json!({"DatabaseName": database}), "TableList").await?;
        for table in listed {
            let name = table["Name"].as_str().unwrap_or_default();
            if mentions(&text, name) {
                let number = tables.len().to_string();
                tables.push(described(app, caller, database, name, &table, folder, number).await?);
            }
        }
    }
    Ok(tables)
}

async fn described(
    app: &Arc<App>,
    caller: &Caller,
    database: &str,
    name: &str,
    table: &Value,
    root: &Path,
    number: String,
) -> Result<Table, Problem> {
    let mut made = Table {
        database: database.to_owned(),
        name: name.to_owned(),
        columns: Vec::new(),
        partition_keys: Vec::new(),
        format: None,
        folder: number,
        refusal: None,
    };
    let readable = format::columns(&table["StorageDescriptor"]["Columns"])
        .and_then(|columns| Ok((columns, format::columns(&table["PartitionKeys"])?, format::format(table)?)));
    match readable {
        Ok((columns, keys, format)) => {
            (made.columns, made.partition_keys, made.format) = (columns, keys, Some(format));
        }
        Err(text) => {
            made.refusal = Some(text);
            return Ok(made);
        }
    }
    if made.columns.is_empty() {
        made.refusal = Some("its StorageDescriptor has no Columns".into());
        return Ok(made);
    }
    let partitions = if made.partition_keys.is_empty() {
        Vec::new()
    } else {
        let of = json!({"DatabaseName": database, "TableName": name});
        all(app, caller, "GetPartitions", of, "Partitions").await?
    };
    let odd = partitions.iter().find_map(|partition| format::check_partition(table, partition).err());
    if odd.is_some() {
        made.refusal = odd;
        return Ok(made);
    }
    let keys: Vec<String> = made.partition_keys.iter().map(|key| key.name.clone()).collect();
    let own = root.join(&made.folder);
    let source = Source { objects: &app.objects, account: &caller.account, folder: &own, keys: &keys };
    // A table that the query names in a comment only must not fail it.
    made.refusal = source.table(table, &partitions).await.err();
    Ok(made)
}

/// All pages of a list.
async fn all(
    app: &Arc<App>,
    caller: &Caller,
    operation: &str,
    mut input: Value,
    member: &str,
) -> Result<Vec<Value>, Problem> {
    let mut found = Vec::new();
    loop {
        let mut page =
            call(app, caller, "glue", operation, input.clone()).await.map_err(|error| problem(&error))?;
        if let Value::Array(list) = page[member].take() {
            found.extend(list);
        }
        match page["NextToken"].take() {
            Value::String(token) => input["NextToken"] = token.into(),
            _ => return Ok(found),
        }
    }
}

fn problem(error: &CallError) -> Problem {
    if error.status >= 500 {
        Problem::Server(format!("the catalogue cannot be read: {}", error.message))
    } else {
        Problem::Query(format!("{}: {}", error.code, error.message.trim_end_matches('.')))
    }
}
