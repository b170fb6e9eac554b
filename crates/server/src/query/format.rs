//! How the files of a table are read: from its definition in the catalogue to what the engine is told.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::hive_type;

/// What the engine is told of a table's files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Format {
    /// Delimited text.
    Csv(Csv),
    /// One JSON object on each line.
    Json(Json),
    /// Parquet.
    Parquet {},
}

/// Delimited text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Csv {
    /// What stands between values.
    pub delimiter: String,
    /// What stands around values that have a delimiter in them.
    pub quote: Option<String>,
    /// What stands before a character that means itself.
    pub escape: Option<String>,
    /// What stands for no value.
    pub null: Option<String>,
    /// Lines at the beginning of each file that are no rows.
    pub skip_lines: u32,
    /// Whether times and dates may be numbers since 1970: milliseconds, and days.
    pub numeric_times: bool,
}

/// JSON lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Json {
    /// Whether lines that are no objects are left out.
    pub ignore_malformed: bool,
    /// Keys of objects by the columns that they stand for.
    pub mapping: BTreeMap<String, String>,
}

/// A column as the engine is told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Lower case.
    pub name: String,
    /// In the engine's words.
    #[serde(rename = "type")]
    pub type_: String,
}

const LAZY: &str = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
/// SerDe of CSV.
pub const OPEN_CSV: &str = "org.apache.hadoop.hive.serde2.OpenCSVSerde";
/// SerDe of JSON lines.
pub const OPENX_JSON: &str = "org.openx.data.jsonserde.JsonSerDe";
const HIVE_JSON: [&str; 2] =
    ["org.apache.hive.hcatalog.data.JsonSerDe", "org.apache.hadoop.hive.serde2.JsonSerDe"];
/// SerDe of Parquet.
pub const PARQUET: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

/// Parameters of tables that change what is read, and that are not done.
const REFUSED_PARAMETERS: &[&str] = &[
    "skip.footer.line.count",
    "storage.location.template",
    "transactional",
    "spark.sql.sources.provider",
    "metadata_location",
];

/// The columns of a list of the catalogue.
///
/// # Errors
/// A text that names the column.
pub fn columns(list: &Value) -> Result<Vec<Column>, String> {
    let each = list.as_array().into_iter().flatten().map(|column| {
        let name = column["Name"].as_str().unwrap_or_default().to_lowercase();
        // A column without a type is text, as in Hive.
        let declared = column["Type"].as_str().filter(|text| !text.trim().is_empty()).unwrap_or("string");
        let type_ = hive_type::to_engine(declared).map_err(|text| format!("its column {name:?}: {text}"))?;
        Ok(Column { name, type_ })
    });
    each.collect()
}

/// How the files of a table are read.
///
/// # Errors
/// A text that names what is not done.
pub fn format(table: &Value) -> Result<Format, String> {
    let descriptor = &table["StorageDescriptor"];
    let kind = table["TableType"].as_str().unwrap_or("EXTERNAL_TABLE");
    if kind == "VIRTUAL_VIEW" {
        return Err("it is a view, and views are not done here; query the tables that it reads".into());
    }
    let parameters = texts(&table["Parameters"]);
    check_parameters(&parameters)?;
    let input = descriptor["InputFormat"].as_str().unwrap_or_default();
    let library = descriptor["SerdeInfo"]["SerializationLibrary"].as_str().unwrap_or_default();
    let serde = texts(&descriptor["SerdeInfo"]["Parameters"]);
    let (format, wanted) = match library {
        LAZY => (Format::Csv(delimited(&serde, &parameters)?), "TextInputFormat"),
        OPEN_CSV => (Format::Csv(quoted(&serde, &parameters)?), "TextInputFormat"),
        OPENX_JSON => (Format::Json(openx(&serde)?), "TextInputFormat"),
        hive if HIVE_JSON.contains(&hive) => {
            check_known(&serde, &["serialization.format", "paths"])?;
            (Format::Json(Json { ignore_malformed: false, mapping: BTreeMap::new() }), "TextInputFormat")
        }
        PARQUET => {
            check_known(&serde, &["serialization.format"])?;
            (Format::Parquet {}, "MapredParquetInputFormat")
        }
        "" => return Err("its StorageDescriptor has no SerdeInfo.SerializationLibrary".into()),
        other => {
            return Err(format!(
                "its SerdeInfo.SerializationLibrary {other} is not read here; CSV (OpenCSVSerde, LazySimpleSerDe), JSON (JsonSerDe) and \
                 Parquet are"
            ));
        }
    };
    if !input.is_empty() && !input.ends_with(wanted) {
        return Err(format!("its InputFormat {input} is not read here with {library}"));
    }
    if let Format::Csv(_) = &format {
        check_flat(&descriptor["Columns"])?;
    }
    Ok(format)
}

/// Whether a partition is described as its table; a text says how it is not.
///
/// # Errors
/// The text.
pub fn check_partition(table: &Value, partition: &Value) -> Result<(), String> {
    let (whole, own) =
        (&table["StorageDescriptor"]["SerdeInfo"], &partition["StorageDescriptor"]["SerdeInfo"]);
    for member in ["SerializationLibrary", "Parameters"] {
        if !own[member].is_null() && own[member] != whole[member] {
            return Err(format!(
                "its partition {} has another SerdeInfo.{member} than the table, which is not done here",
                partition["Values"]
            ));
        }
    }
    Ok(())
}

fn check_parameters(parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let is_true = |name: &str| parameters.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_true("projection.enabled") {
        return Err(
            "its parameter projection.enabled is not done here; partitions are found by their folders".into(),
        );
    }
    if let Some(kind) = parameters.get("table_type").filter(|kind| kind.eq_ignore_ascii_case("iceberg")) {
        return Err(format!("its parameter table_type {kind} is not read here"));
    }
    let refused = REFUSED_PARAMETERS.iter().find(|name| {
        parameters.get(**name).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
    });
    match refused {
        Some(name) => Err(format!("its parameter {name} is not done here")),
        None => Ok(()),
    }
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Refuses parameters of a SerDe that are not known: each of them may change what is read.
fn check_known(serde: &BTreeMap<String, String>, known: &[&str]) -> Result<(), String> {
    match serde.keys().find(|name| !known.contains(&name.as_str()) && !name.starts_with("mapping.")) {
        Some(name) => Err(format!("its SerdeInfo parameter {name} is not done here")),
        None => Ok(()),
    }
}

fn check_flat(columns: &Value) -> Result<(), String> {
    for column in columns.as_array().into_iter().flatten() {
        let kind = column["Type"].as_str().unwrap_or_default().to_lowercase();
        if ["array", "map", "struct"].iter().any(|nested| kind.trim_start().starts_with(nested)) {
            return Err(format!(
                "its column {} of the type {kind} is not read from delimited text here; JSON and Parquet can hold it",
                column["Name"]
            ));
        }
    }
    Ok(())
}

fn skipped(serde: &BTreeMap<String, String>, parameters: &BTreeMap<String, String>) -> Result<u32, String> {
    let given = parameters.get("skip.header.line.count").or_else(|| serde.get("skip.header.line.count"));
    given.map_or(Ok(0), |text| {
        text.trim()
            .parse()
            .map_err(|_| format!("its parameter skip.header.line.count {text:?} is no number of lines"))
    })
}

/// One character, written as itself or as the number of its code, as Hive does.
fn character(field: &str, text: &str) -> Result<String, String> {
    let unescaped = match text {
        "\\t" => "\t",
        "\\\\" => "\\",
        other => other,
    };
    if unescaped.chars().count() == 1 && !(unescaped.chars().all(|one| one.is_ascii_digit())) {
        return Ok(unescaped.to_owned());
    }
    let octal = unescaped.strip_prefix("\\u").map(|digits| u32::from_str_radix(digits, 16).ok());
    let code = octal.unwrap_or_else(|| unescaped.trim_start_matches('\\').parse().ok());
    match code.and_then(char::from_u32).filter(char::is_ascii) {
        Some(one) => Ok(one.to_string()),
        None => Err(format!(
            "its SerdeInfo parameter {field} {text:?} is not one character, and only that is done here"
        )),
    }
}

fn delimited(serde: &BTreeMap<String, String>, parameters: &BTreeMap<String, String>) -> Result<Csv, String> {
    let known = [
        "field.delim",
        "serialization.format",
        "escape.delim",
        "line.delim",
        "serialization.null.format",
        "skip.header.line.count",
        "collection.delim",
        "mapkey.delim",
        "colelction.delim",
    ];
    check_known(serde, &known)?;
    if let Some(line) = serde.get("line.delim").filter(|line| !["\n", "\\n", "10"].contains(&line.as_str())) {
        return Err(format!("its SerdeInfo parameter line.delim {line:?} is not done here"));
    }
    let delimiter = serde.get("field.delim").or_else(|| serde.get("serialization.format"));
    Ok(Csv {
        delimiter: character("field.delim", delimiter.map_or("\u{1}", String::as_str))?,
        quote: None,
        escape: serde.get("escape.delim").map(|text| character("escape.delim", text)).transpose()?,
        null: Some(serde.get("serialization.null.format").cloned().unwrap_or_else(|| "\\N".into())),
        skip_lines: skipped(serde, parameters)?,
        numeric_times: false,
    })
}

fn quoted(serde: &BTreeMap<String, String>, parameters: &BTreeMap<String, String>) -> Result<Csv, String> {
    let known =
        ["separatorChar", "quoteChar", "escapeChar", "serialization.format", "skip.header.line.count"];
    check_known(serde, &known)?;
    let one = |name: &str, default: &str| character(name, serde.get(name).map_or(default, String::as_str));
    let (quote, escape) = (one("quoteChar", "\"")?, one("escapeChar", "\\")?);
    Ok(Csv {
        delimiter: one("separatorChar", ",")?,
        quote: Some(quote),
        escape: Some(escape),
        null: None,
        skip_lines: skipped(serde, parameters)?,
        numeric_times: true,
    })
}

fn openx(serde: &BTreeMap<String, String>) -> Result<Json, String> {
    // `paths` is what crawlers note of the keys that they saw.
    let known =
        ["serialization.format", "ignore.malformed.json", "case.insensitive", "dots.in.keys", "paths"];
    check_known(serde, &known)?;
    let is = |name: &str, value: &str| serde.get(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    if is("case.insensitive", "false") {
        return Err("its SerdeInfo parameter case.insensitive false is not done here".into());
    }
    if is("dots.in.keys", "true") {
        return Err("its SerdeInfo parameter dots.in.keys true is not done here".into());
    }
    let mapping = serde
        .iter()
        .filter_map(|(name, key)| Some((name.strip_prefix("mapping.")?.to_lowercase(), key.clone())));
    Ok(Json { ignore_malformed: is("ignore.malformed.json", "true"), mapping: mapping.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(library: &str, serde: Value, parameters: Value) -> Value {
        let mut made = json!({"Name": "t", "StorageDescriptor": {
            "Columns": [{"Name": "A", "Type": "int"}, {"Name": "b"}],
            "SerdeInfo": {"SerializationLibrary": library}}});
        made["Parameters"] = parameters;
        made["StorageDescriptor"]["SerdeInfo"]["Parameters"] = serde;
        made
    }

    #[test]
    fn delimited_text_is_read_as_it_is_described() {
        let described = table(
            LAZY,
            json!({"field.delim": "|", "escape.delim": "\\"}),
            json!({"skip.header.line.count": "1"}),
        );
        let Ok(Format::Csv(csv)) = format(&described) else { panic!("it is CSV") };
        assert_eq!((csv.delimiter.as_str(), csv.skip_lines, csv.quote), ("|", 1, None));
        let Ok(Format::Csv(csv)) = format(&table(LAZY, json!({"serialization.format": "1"}), json!({})))
        else {
            panic!("it is CSV")
        };
        assert_eq!((csv.delimiter.as_str(), csv.null.as_deref()), ("\u{1}", Some("\\N")));
        let Ok(Format::Csv(csv)) =
            format(&table(OPEN_CSV, json!({"separatorChar": ";", "escapeChar": "\\\\"}), json!({})))
        else {
            panic!("it is CSV")
        };
        assert_eq!(
            (csv.delimiter.as_str(), csv.quote.as_deref(), csv.escape.as_deref()),
            (";", Some("\""), Some("\\"))
        );
        let columns = columns(&described["StorageDescriptor"]["Columns"]).unwrap();
        assert_eq!((columns[0].name.as_str(), columns[1].type_.as_str()), ("a", "VARCHAR"));
    }

    #[test]
    fn json_and_parquet_are_read() {
        let described = table(
            OPENX_JSON,
            json!({"mapping.At": "@at", "ignore.malformed.json": "TRUE", "paths": "a"}),
            json!({}),
        );
        let Ok(Format::Json(found)) = format(&described) else { panic!("it is JSON") };
        assert!(found.ignore_malformed && found.mapping["at"] == "@at");
        let described =
            table(PARQUET, json!({"serialization.format": "1"}), json!({"classification": "parquet"}));
        assert_eq!(format(&described), Ok(Format::Parquet {}));
    }

    #[test]
    fn what_is_not_done_is_named() {
        for (described, named) in [
            (table("org.apache.hadoop.hive.ql.io.orc.OrcSerde", json!({}), json!({})), "OrcSerde"),
            (table("", json!({}), json!({})), "SerializationLibrary"),
            (table(LAZY, json!({"timestamp.formats": "x"}), json!({})), "timestamp.formats"),
            (table(LAZY, json!({"field.delim": "||"}), json!({})), "field.delim"),
            (table(LAZY, json!({"line.delim": ";"}), json!({})), "line.delim"),
            (table(PARQUET, json!({"parquet.column.index.access": "true"}), json!({})), "index.access"),
            (table(PARQUET, json!({}), json!({"projection.enabled": "true"})), "projection.enabled"),
            (table(PARQUET, json!({}), json!({"table_type": "ICEBERG"})), "ICEBERG"),
            (table(LAZY, json!({}), json!({"skip.footer.line.count": "1"})), "skip.footer"),
            (table(OPENX_JSON, json!({"case.insensitive": "false"}), json!({})), "case.insensitive"),
        ] {
            let problem = format(&described).unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
        let mut nested = table(LAZY, json!({}), json!({}));
        nested["StorageDescriptor"]["Columns"][0]["Type"] = "array<int>".into();
        assert!(format(&nested).unwrap_err().contains("\"A\""));
        let mut view = table(LAZY, json!({}), json!({}));
        view["TableType"] = "VIRTUAL_VIEW".into();
        assert!(format(&view).unwrap_err().contains("view"));
    }
}
