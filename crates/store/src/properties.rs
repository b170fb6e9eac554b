//! An index of what users name themselves in a resource: parameters, hyperparameters, final metrics; and of what executions belong to.
//!
//! It follows the resources in their own transactions. It leaves rows out of a search and never decides one: whoever searches
//! judges the rows that are left, so that a row too many is no fault here, and a row too few is.

use rusqlite::params;
use rusqlite::types::Value as SqlValue;
use serde_json::Value;

use crate::database::Session;
use crate::error::Result;
use crate::links::Narrowing;
use crate::resources::Resource;

/// Characters of a text that are indexed.
const TEXT_CHARACTERS: usize = 200;

/// Rows up to which an index leads a list. Beyond, reading in the order of the list fills a page sooner.
pub(crate) const FEW: i64 = 500;

/// Where a kind has entries with names, or a text.
struct Source {
    kind: &'static str,
    property: &'static str,
    entries: fn(&Resource) -> &Value,
}

const SOURCES: &[Source] = &[
    Source {
        kind: "experiment-trial-component",
        property: "Parameters",
        entries: |resource| &resource.spec["Parameters"],
    },
    Source {
        kind: "training-job",
        property: "HyperParameters",
        entries: |resource| &resource.spec["HyperParameters"],
    },
    Source {
        kind: "training-job",
        property: "Metrics",
        entries: |resource| &resource.document["final_metrics"],
    },
    Source {
        kind: "pipeline-execution",
        property: "PipelineExecutionDisplayName",
        entries: |resource| &resource.spec["display_name"],
    },
];

/// What is looked for in the values of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum PropertyTest {
    /// Any value.
    Exists,
    /// This text or, where the value is a number, this number.
    Equals {
        /// The text.
        text: String,
        /// What it says as a number.
        number: Option<f64>,
    },
    /// A number from the first to the second, both included.
    Between(f64, f64),
}

/// A statistic of a series of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesStatistic {
    /// The value of the newest time.
    Last,
    /// The greatest value.
    Maximum,
    /// The smallest value.
    Minimum,
    /// The arithmetic mean.
    Mean,
    /// The number of points.
    Count,
}

impl SeriesStatistic {
    fn column(self) -> &'static str {
        match self {
            SeriesStatistic::Last => "last",
            SeriesStatistic::Maximum => "maximum",
            SeriesStatistic::Minimum => "minimum",
            SeriesStatistic::Mean => "mean",
            SeriesStatistic::Count => "count",
        }
    }
}

/// A series of points of a resource that is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesTest {
    /// Its name.
    pub name: String,
    /// A statistic and the values it may have, both included; any when there is none.
    pub between: Option<(SeriesStatistic, f64, f64)>,
}

/// A property as it is indexed.
#[derive(Debug, PartialEq)]
pub(crate) struct Property {
    path: String,
    text: Option<String>,
    number: Option<f64>,
}

impl Property {
    fn new(path: String, value: &Value) -> Property {
        let value = match value {
            // A parameter is an object with one member.
            Value::Object(members) if members.len() == 1 => members.values().next().unwrap_or(&Value::Null),
            value => value,
        };
        let (text, number) = match value {
            Value::String(text) => {
                (Some(cut(text)), text.parse().ok().filter(|number: &f64| !number.is_nan()))
            }
            other => (None, other.as_f64()),
        };
        Property { path, text, number }
    }
}

/// The properties of a resource that are indexed.
pub(crate) fn of(resource: &Resource) -> Vec<Property> {
    let mut found: Vec<Property> = Vec::new();
    for source in SOURCES.iter().filter(|source| source.kind == resource.key.kind) {
        let named = |name: &str, value: &Value| Property::new(format!("{}.{name}", source.property), value);
        match (source.entries)(resource) {
            Value::Object(members) => found.extend(members.iter().map(|(name, value)| named(name, value))),
            Value::Array(entries) => {
                let entries = entries.iter().filter_map(|one| Some((one["name"].as_str()?, &one["value"])));
                found.extend(entries.map(|(name, value)| named(name, value)));
            }
            text @ Value::String(_) => found.push(Property::new(source.property.to_owned(), text)),
            _ => {}
        }
    }
    found
}

/// The beginning of a text that is indexed.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS).collect()
}

/// A query for the ARNs that a condition leaves, with its values in the order of their marks.
pub(crate) struct Arns {
    pub(crate) query: String,
    pub(crate) values: Vec<SqlValue>,
}

impl Narrowing {
    /// The ARNs that the condition leaves, where it is about other tables that know them.
    pub(crate) fn arns(&self) -> Option<Arns> {
        let text = |value: &str| SqlValue::from(value.to_owned());
        let mut values: Vec<SqlValue> = Vec::new();
        let query = match self {
            Narrowing::Tag { key, value } => {
                values.extend([text(key), text(value)]);
                "SELECT arn FROM tags WHERE key = ? AND value = ?".to_owned()
            }
            Narrowing::Property { paths, test } => {
                let mut parts = Vec::new();
                for path in paths {
                    let mut part = |condition: &str, wanted: &[SqlValue]| {
                        parts.push(format!("SELECT arn FROM properties WHERE path = ?{condition}"));
                        values.push(text(path));
                        values.extend_from_slice(wanted);
                    };
                    match test {
                        PropertyTest::Exists => part("", &[]),
                        PropertyTest::Equals { text: wanted, number } => {
                            part(" AND text = ?", &[text(&cut(wanted))]);
                            if let Some(number) = number {
                                part(" AND text IS NULL AND number = ?", &[(*number).into()]);
                            }
                            part(" AND text IS NULL AND number IS NULL", &[]);
                        }
                        PropertyTest::Between(least, most) => {
                            part(" AND number >= ? AND number <= ?", &[(*least).into(), (*most).into()]);
                            // A text may be a time.
                            part(" AND number IS NULL", &[]);
                        }
                    }
                }
                parts.join(" UNION ALL ")
            }
            Narrowing::Series(tests) => {
                let mut parts = Vec::new();
                for test in tests {
                    let mut part = "SELECT owner FROM point_series WHERE name = ?".to_owned();
                    values.push(text(&test.name));
                    if let Some((statistic, least, most)) = test.between {
                        let column = statistic.column();
                        part.push_str(&format!(" AND {column} >= ? AND {column} <= ?"));
                        values.extend([least.into(), most.into()]);
                    }
                    parts.push(part);
                }
                parts.join(" UNION ALL ")
            }
            _ => return None,
        };
        Some(Arns { query, values })
    }
}

impl Session<'_> {
    /// Whether a query gives so few ARNs that a list should begin with them.
    pub(crate) fn are_few(&self, arns: &Arns) -> Result<bool> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT {})", arns.query, FEW + 1);
        let count: i64 = self
            .connection
            .prepare_cached(&sql)?
            .query_row(rusqlite::params_from_iter(&arns.values), |row| row.get(0))?;
        Ok(count <= FEW)
    }

    /// Brings the index from the properties that a resource had to those that it has.
    pub(crate) fn index_properties(&self, arn: &str, before: &[Property], now: &[Property]) -> Result<()> {
        if before == now {
            return Ok(());
        }
        for gone in before.iter().filter(|gone| now.iter().all(|one| one.path != gone.path)) {
            self.connection
                .prepare_cached("DELETE FROM properties WHERE arn = ?1 AND path = ?2")?
                .execute(params![arn, gone.path])?;
        }
        for new in now.iter().filter(|new| !before.contains(new)) {
            self.connection
                .prepare_cached(
                    "INSERT INTO properties (arn, path, text, number) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (arn, path) DO UPDATE SET text = excluded.text, number = excluded.number",
                )?
                .execute(params![arn, new.path, new.text, new.number])?;
        }
        Ok(())
    }

    /// Removes a resource from the index.
    pub(crate) fn forget_properties(&self, resource: &Resource) -> Result<()> {
        if SOURCES.iter().any(|source| source.kind == resource.key.kind) {
            self.connection
                .prepare_cached("DELETE FROM properties WHERE arn = ?1")?
                .execute(params![resource.arn])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::ResourceKey;
    use serde_json::json;

    fn resource(kind: &str, spec: Value, document: Value) -> Resource {
        Resource {
            key: ResourceKey::new("1", "r", kind, "n"),
            arn: "arn:n".into(),
            status: String::new(),
            spec,
            document,
            generation: 1,
            created_at: 0,
            modified_at: 0,
        }
    }

    #[test]
    fn parameters_are_numbers_texts_or_neither() {
        let parameters =
            json!({"lr": {"NumberValue": 0.1}, "kind": {"StringValue": "a"}, "odd": {"A": 1, "B": 2}});
        let mut found =
            of(&resource("experiment-trial-component", json!({"Parameters": parameters}), json!({})));
        // Whether a document keeps its order depends on who else builds the JSON library.
        found.sort_by(|one, next| one.path.cmp(&next.path));
        let property = |path: &str, text: Option<&str>, number| Property {
            path: path.into(),
            text: text.map(str::to_owned),
            number,
        };
        assert_eq!(
            found,
            [
                property("Parameters.kind", Some("a"), None),
                property("Parameters.lr", None, Some(0.1)),
                property("Parameters.odd", None, None),
            ]
        );
        let (spec, document) = (
            json!({"HyperParameters": {"lr": "1e-3", "x": "nan"}}),
            json!({"final_metrics": [{"name": "acc", "value": 0.5}]}),
        );
        assert_eq!(
            of(&resource("training-job", spec, document)),
            [
                property("HyperParameters.lr", Some("1e-3"), Some(0.001)),
                property("HyperParameters.x", Some("nan"), None),
                property("Metrics.acc", None, Some(0.5)),
            ]
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ü".repeat(TEXT_CHARACTERS + 1);
        let spec = json!({"Parameters": {"long": {"StringValue": long}}});
        let found = of(&resource("experiment-trial-component", spec, json!({})));
        assert_eq!(found[0].text.as_ref().map(|text| text.chars().count()), Some(TEXT_CHARACTERS));
        assert!(of(&resource("model", json!({"Parameters": {"a": 1}}), json!({}))).is_empty());
    }
}
