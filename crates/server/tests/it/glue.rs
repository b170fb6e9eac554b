//! The catalogue of tables: databases, tables and partitions, in the codes of Glue.

use serde_json::{Value, json};

use crate::app::TestApp;

const CSV: &str = "org.apache.hadoop.hive.serde2.OpenCSVSerde";

fn table(name: &str) -> Value {
    json!({
        "Name": name,
        "Parameters": {"skip.header.line.count": "1"},
        "PartitionKeys": [{"Name": "year", "Type": "int"}, {"Name": "city", "Type": "string"}],
        "StorageDescriptor": {
            "Location": "s3://data/orders/",
            "Columns": [{"Name": "id", "Type": "bigint"}],
            "SerdeInfo": {"SerializationLibrary": CSV},
        },
    })
}

async fn made() -> TestApp {
    let app = TestApp::new().await;
    app.ok("AWSGlue.CreateDatabase", json!({"DatabaseInput": {"Name": "Shop"}})).await;
    app.ok("AWSGlue.CreateTable", json!({"DatabaseName": "shop", "TableInput": table("Orders")})).await;
    app
}

fn names<'a>(answer: &'a Value, list: &str) -> Vec<&'a str> {
    answer[list].as_array().unwrap().iter().map(|one| one["Name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn databases_are_made_changed_listed_and_removed_with_their_tables() {
    let app = made().await;
    let input = json!({"DatabaseInput": {"Name": "other", "Description": "one more"}});
    app.ok("AWSGlue.CreateDatabase", input).await;
    let shown = app.ok("AWSGlue.GetDatabase", json!({"Name": "OTHER"})).await;
    assert_eq!(shown["Database"]["Description"], "one more");
    assert_eq!(shown["Database"]["CatalogId"], "123456789012");
    let change = json!({"Name": "other", "DatabaseInput": {"Name": "other", "Description": "changed"}});
    app.ok("AWSGlue.UpdateDatabase", change).await;
    let shown = app.ok("AWSGlue.GetDatabase", json!({"Name": "other"})).await;
    assert_eq!(shown["Database"]["Description"], "changed");
    let first = app.ok("AWSGlue.GetDatabases", json!({"MaxResults": 1})).await;
    assert_eq!(names(&first, "DatabaseList"), ["other"]);
    let rest = app.ok("AWSGlue.GetDatabases", json!({"NextToken": first["NextToken"]})).await;
    assert_eq!(names(&rest, "DatabaseList"), ["shop"]);

    let partition = json!({"DatabaseName": "shop", "TableName": "orders", "PartitionInput": {"Values": ["2024", "Bern"]}});
    app.ok("AWSGlue.CreatePartition", partition).await;
    app.ok("AWSGlue.DeleteDatabase", json!({"Name": "shop"})).await;
    let (code, text) = app.refused("AWSGlue.GetDatabase", json!({"Name": "shop"})).await;
    assert_eq!((code.as_str(), text.as_str()), ("EntityNotFoundException", "Database shop not found."));
    app.ok("AWSGlue.CreateDatabase", json!({"DatabaseInput": {"Name": "shop"}})).await;
    let (code, _) = app.refused("AWSGlue.GetTable", json!({"DatabaseName": "shop", "Name": "orders"})).await;
    assert_eq!(code, "EntityNotFoundException", "its tables went with it");
}

#[tokio::test]
async fn tables_are_made_changed_listed_and_removed() {
    let app = made().await;
    let shown = app.ok("AWSGlue.GetTable", json!({"DatabaseName": "shop", "Name": "ORDERS"})).await;
    let shown = &shown["Table"];
    assert_eq!((shown["Name"].as_str(), shown["DatabaseName"].as_str()), (Some("orders"), Some("shop")));
    assert_eq!(shown["VersionId"], "0");
    assert_eq!(shown["StorageDescriptor"]["Location"], "s3://data/orders/");
    app.ok("AWSGlue.CreateTable", json!({"DatabaseName": "shop", "TableInput": table("clients")})).await;
    let listed = app.ok("AWSGlue.GetTables", json!({"DatabaseName": "shop", "Expression": "or.*"})).await;
    assert_eq!(names(&listed, "TableList"), ["orders"]);
    let mut changed = table("orders");
    changed["Description"] = "changed".into();
    let update = json!({"DatabaseName": "shop", "TableInput": changed, "VersionId": "0"});
    app.ok("AWSGlue.UpdateTable", update.clone()).await;
    let (code, _) = app.refused("AWSGlue.UpdateTable", update).await;
    assert_eq!(code, "ConcurrentModificationException");
    app.ok("AWSGlue.DeleteTable", json!({"DatabaseName": "shop", "Name": "orders"})).await;
    let (code, text) =
        app.refused("AWSGlue.DeleteTable", json!({"DatabaseName": "shop", "Name": "orders"})).await;
    assert_eq!((code.as_str(), text.as_str()), ("EntityNotFoundException", "Table orders not found."));
}

#[tokio::test]
async fn partitions_are_made_found_and_removed() {
    let app = made().await;
    let of = |more: Value| {
        let mut input = json!({"DatabaseName": "shop", "TableName": "orders"});
        for (name, value) in more.as_object().unwrap() {
            input[name] = value.clone();
        }
        input
    };
    let one =
        |city: &str| json!({"Values": ["2024", city], "StorageDescriptor": {"Columns": [{"Name": "id"}]}});
    app.ok("AWSGlue.CreatePartition", of(json!({"PartitionInput": one("a/b")}))).await;
    let list = json!({"PartitionInputList": [one("a/b"), one("Bern"), {"Values": ["2024"]}]});
    let errors = app.ok("AWSGlue.BatchCreatePartition", of(list)).await["Errors"].clone();
    let codes: Vec<_> =
        errors.as_array().unwrap().iter().map(|one| one["ErrorDetail"]["ErrorCode"].clone()).collect();
    assert_eq!(codes, ["InvalidInputException", "AlreadyExistsException"]);
    let found = app.ok("AWSGlue.GetPartition", of(json!({"PartitionValues": ["2024", "a/b"]}))).await;
    assert_eq!(found["Partition"]["TableName"], "orders");
    let filtered = json!({"Expression": "year = 2024 AND city = 'Bern'", "ExcludeColumnSchema": true});
    let filtered = app.ok("AWSGlue.GetPartitions", of(filtered)).await;
    assert_eq!(filtered["Partitions"][0]["Values"], json!(["2024", "Bern"]));
    assert_eq!(filtered["Partitions"].as_array().unwrap().len(), 1);
    assert!(filtered["Partitions"][0]["StorageDescriptor"]["Columns"].is_null());
    let (code, text) = app.refused("AWSGlue.GetPartitions", of(json!({"Expression": "year > 2000"}))).await;
    assert!(code == "InvalidInputException" && text.contains("year > 2000"), "{code} {text}");
    app.ok("AWSGlue.DeletePartition", of(json!({"PartitionValues": ["2024", "a/b"]}))).await;
    let (code, _) =
        app.refused("AWSGlue.GetPartition", of(json!({"PartitionValues": ["2024", "a/b"]}))).await;
    assert_eq!(code, "EntityNotFoundException");
    let (code, _) = app.refused("AWSGlue.DeletePartition", of(json!({"PartitionValues": ["2024"]}))).await;
    assert_eq!(code, "InvalidInputException");
}

#[tokio::test]
async fn what_is_not_done_is_refused_by_name() {
    let app = made().await;
    let mut twice = table("t");
    twice["PartitionKeys"][0]["Name"] = "ID".into();
    let mut elsewhere = table("t");
    elsewhere["StorageDescriptor"]["Location"] = "hdfs://x/y".into();
    let mut linked = table("t");
    linked["TargetTable"] = json!({"DatabaseName": "shop", "Name": "orders"});
    for (target, input, code, said) in [
        (
            "CreateDatabase",
            json!({"DatabaseInput": {"Name": "SHOP"}}),
            "AlreadyExistsException",
            "shop already exists",
        ),
        (
            "CreateDatabase",
            json!({"DatabaseInput": {"Name": "a/b"}}),
            "InvalidInputException",
            "DatabaseInput.Name",
        ),
        (
            "CreateTable",
            json!({"DatabaseName": "none", "TableInput": table("t")}),
            "EntityNotFoundException",
            "none",
        ),
        (
            "CreateTable",
            json!({"DatabaseName": "shop", "TableInput": table("ORDERS")}),
            "AlreadyExistsException",
            "orders",
        ),
        (
            "CreateTable",
            json!({"DatabaseName": "shop", "TableInput": twice}),
            "InvalidInputException",
            "\"id\"",
        ),
        (
            "CreateTable",
            json!({"DatabaseName": "shop", "TableInput": elsewhere}),
            "InvalidInputException",
            "Location",
        ),
        (
            "CreateTable",
            json!({"DatabaseName": "shop", "TableInput": linked}),
            "InvalidInputException",
            "TargetTable",
        ),
        (
            "GetTables",
            json!({"DatabaseName": "shop", "Expression": "("}),
            "InvalidInputException",
            "Expression",
        ),
        (
            "GetDatabase",
            json!({"Name": "shop", "CatalogId": "999999999999"}),
            "AccessDeniedException",
            "CatalogId",
        ),
    ] {
        let (got, text) = app.refused(&format!("AWSGlue.{target}"), input).await;
        assert!(got == code && text.contains(said), "{target}: {got}: {text}");
    }
    for (uri, said) in [("orders/", "is not an S3 URI"), ("s3://nothere/orders/", "nothere")] {
        let (code, text) = app.refused("Modelyard.DescribeFiles", json!({"Uri": uri})).await;
        assert!(code == "ValidationException" && text.contains(said), "{code}: {text}");
    }
    let other = app.other_account("222233334444").await;
    let input = json!({"DatabaseName": "shop", "Name": "orders"});
    assert_eq!(app.refused_as("AWSGlue.GetTable", input, &other).await.0, "EntityNotFoundException");
}
