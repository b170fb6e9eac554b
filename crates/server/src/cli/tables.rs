//! `modelyard tables`: the tables of the catalogue, and new ones for files in S3.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::jobs::text;
use super::output::{self, Format};

/// Flags of `modelyard tables`.
#[derive(clap::Args)]
pub struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Table for people, or JSON as the API answers it
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the tables of all databases (what the command does by itself)
    List,
    /// Add a table for the files below a URI; their names and content say what its columns are
    Add {
        /// Database and table, for example shop.orders; the database is made when there is none
        name: String,
        /// Prefix of the files, for example s3://bucket/orders/
        uri: String,
    },
}

/// Runs the command.
///
/// # Errors
/// The server's error, or why it was not reached.
pub fn tables(data_dir: &Path, flags: Flags) -> Result<(), String> {
    let client = Client::open(data_dir)?;
    super::block_on(async {
        match flags.command.unwrap_or(Command::List) {
            Command::List => list(&client, flags.output).await,
            Command::Add { name, uri } => add(&client, &name, &uri, flags.output).await,
        }
    })
}

async fn list(client: &Client, format: Format) -> Result<(), String> {
    let mut found = Vec::new();
    for database in client.list("AWSGlue.GetDatabases", json!({}), "DatabaseList").await? {
        let of = json!({"DatabaseName": database["Name"]});
        found.extend(client.list("AWSGlue.GetTables", of, "TableList").await?);
    }
    if format == Format::Json {
        output::json(&Value::Array(found));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|table| {
            let library = text(&table["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"]);
            vec![
                format!("{}.{}", text(&table["DatabaseName"]), text(&table["Name"])),
                library.rsplit('.').next().unwrap_or_default().to_owned(),
                names(&table["PartitionKeys"]),
                text(&table["StorageDescriptor"]["Location"]),
            ]
        })
        .collect();
    output::table(&["TABLE", "FORMAT", "PARTITION KEYS", "LOCATION"], &rows);
    Ok(())
}

async fn add(client: &Client, name: &str, uri: &str, format: Format) -> Result<(), String> {
    let (database, table) = name
        .split_once('.')
        .ok_or_else(|| format!("{name:?} is not a database and a table, such as shop.orders"))?;
    let mut described = client.call("Modelyard.DescribeFiles", &json!({"Uri": uri})).await?;
    let mut input = described["Table"].take();
    input["Name"] = table.into();
    let made = client.call("AWSGlue.CreateDatabase", &json!({"DatabaseInput": {"Name": database}})).await;
    if let Err(failure) = made
        && failure.code != "AlreadyExistsException"
    {
        return Err(failure.into());
    }
    client.call("AWSGlue.CreateTable", &json!({"DatabaseName": database, "TableInput": input})).await?;
    if format == Format::Json {
        output::json(&input);
        return Ok(());
    }
    output::line(&format!("Added {name} over {}.", text(&input["StorageDescriptor"]["Location"])));
    let columns = [(&input["StorageDescriptor"]["Columns"], ""), (&input["PartitionKeys"], "partition key")];
    let rows: Vec<Vec<String>> = columns
        .iter()
        .flat_map(|(list, role)| {
            let list = list.as_array().map_or(&[][..], Vec::as_slice);
            list.iter().map(|column| vec![text(&column["Name"]), text(&column["Type"]), (*role).to_owned()])
        })
        .collect();
    output::table(&["COLUMN", "TYPE", ""], &rows);
    Ok(())
}

fn names(columns: &Value) -> String {
    let list = columns.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|column| text(&column["Name"])).collect::<Vec<_>>().join(", ")
}
