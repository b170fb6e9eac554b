//! The local SQL engine: one query over tables of the catalogue, in a sandboxed process of its own.

mod catalogue;
mod description;
mod files;
mod format;
mod hive_type;
mod mentions;
mod process;

use serde::{Deserialize, Serialize};

pub use catalogue::tables;
pub use description::routes;
pub use process::{OUTPUT_FOLDER, Place, Room, TABLES_FOLDER, begin, is_begun, outcome, request};

/// Image under which the engine's environment stands in the catalogue of images.
const ENGINE_IMAGE: &str = "modelyard/sql-engine";

/// The only catalogue of data that there is.
pub const DATA_CATALOGUE: &str = "awsdatacatalog";

/// In whose words a query is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Athena's, which are Trino's.
    Athena,
    /// Redshift's.
    Redshift,
}

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its text.
    pub text: String,
    /// In whose words.
    pub dialect: Dialect,
    /// The database of tables that are named without one.
    pub database: String,
    /// Form of the result's files: `PARQUET`, `JSON`, `TEXTFILE` or `CSV`.
    pub format: String,
    /// `NONE`, `GZIP`, `SNAPPY`, `ZSTD` or `BZIP2`; as the format prescribes when it is left out.
    pub compression: Option<String>,
    /// How many files there are at least.
    pub parts: usize,
}

/// A query that has a result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Rows of the result.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Names of its files.
    pub files: Vec<String>,
    /// What files say of themselves, where that was asked.
    description: Option<description::Described>,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// The query, or what it reads, is wrong; a sentence without a full stop of its own.
    Query(String),
    /// It ran for longer than it may.
    TimeLimit,
    /// It was ended from outside.
    Stopped,
    /// Its supervisor was killed, and it with it: it may be run again.
    Lost,
    /// Fault of the server's own, or of the machine.
    Server(String),
}

/// What is wrong with a query, as the engine says it.
#[derive(Clone, Debug, Deserialize)]
struct QueryFault {
    code: String,
    message: String,
    line: Option<u64>,
    column: Option<u64>,
}

impl QueryFault {
    fn sentence(&self) -> String {
        let place = match (self.line, self.column) {
            (Some(line), Some(column)) => format!("line {line}:{column}: "),
            (Some(line), None) => format!("line {line}: "),
            _ => String::new(),
        };
        format!("{}: {place}{}", self.code, self.message.trim_end_matches('.'))
    }
}

/// Refuses a form of results that the engine cannot write; `field` begins the names of its members.
///
/// # Errors
/// A text that names the member.
pub fn check_output(field: &str, format: &str, compression: Option<&str>) -> Result<(), String> {
    let known: &[&str] = match format {
        "PARQUET" => &["NONE", "GZIP", "SNAPPY", "ZSTD"],
        "JSON" | "TEXTFILE" => &["NONE", "GZIP"],
        "CSV" => &["NONE", "GZIP", "ZSTD", "BZIP2"],
        other => {
            return Err(format!(
                "{field}.OutputFormat: {other} cannot be written by the local engine; take PARQUET, JSON or a text format."
            ));
        }
    };
    match compression {
        Some(wanted) if !known.contains(&wanted) => Err(format!(
            "{field}.OutputCompression: {wanted} cannot be written by the local engine for {format}; take one of {}.",
            known.join(", ")
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_cannot_be_written_are_named() {
        assert_eq!(check_output("F", "PARQUET", Some("SNAPPY")), Ok(()));
        assert_eq!(check_output("F", "CSV", Some("BZIP2")), Ok(()));
        assert_eq!(check_output("F", "JSON", None), Ok(()));
        for (format, compression, named) in [
            ("ORC", None, "F.OutputFormat: ORC"),
            ("AVRO", None, "F.OutputFormat: AVRO"),
            ("PARQUET", Some("ZLIB"), "F.OutputCompression: ZLIB"),
            ("CSV", Some("SNAPPY"), "F.OutputCompression: SNAPPY"),
            ("TEXTFILE", Some("SNAPPY"), "F.OutputCompression: SNAPPY"),
        ] {
            let problem = check_output("F", format, compression).unwrap_err();
            assert!(problem.starts_with(named), "{problem}");
        }
    }

    #[test]
    fn a_fault_has_its_place() {
        let fault: QueryFault = serde_json::from_value(serde_json::json!({
            "code": "COLUMN_NOT_FOUND", "message": "Column 'x' cannot be resolved.", "line": 2, "column": 8}))
        .unwrap();
        assert_eq!(fault.sentence(), "COLUMN_NOT_FOUND: line 2:8: Column 'x' cannot be resolved");
    }
}
