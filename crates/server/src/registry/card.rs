//! What is kept of a model card and its versions, and how a card reads as a document.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::resources::ResourceKey;

use super::package::Author;
use crate::sagemaker::kinds::MODEL_CARD_VERSION;

/// The document of a model card, and of each of its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CardRecord {
    /// Version of the content.
    pub version: u32,
    /// Who made the card, or this version of it.
    pub created_by: Author,
    /// Who changed it last.
    pub modified_by: Option<Author>,
}

impl CardRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<CardRecord> {
        Ok(CardRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings and numbers always serialize")
    }
}

/// Key of a version of a card; padded, so that names sort as versions do.
pub fn version_key(card: &ResourceKey, version: u32) -> ResourceKey {
    let name = format!("{}/{version:09}", card.name);
    ResourceKey::new(&*card.account, &*card.region, MODEL_CARD_VERSION, name)
}

/// A piece of a card as a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A heading; 1 is the title.
    Heading(u8, String),
    /// A labelled text.
    Field(String, String),
    /// A table: headings, rows.
    Table(Vec<String>, Vec<Vec<String>>),
}

/// Sections in the order in which a reader wants them.
const SECTIONS: &[&str] = &[
    "model_overview",
    "model_package_details",
    "intended_uses",
    "business_details",
    "training_details",
    "evaluation_details",
    "additional_information",
];

/// A card as a document: title, facts about the card, then its sections.
pub fn document(title: &str, facts: &[(&str, String)], content: &Value) -> Vec<Block> {
    let mut blocks = vec![Block::Heading(1, title.to_owned())];
    blocks.extend(facts.iter().map(|(label, text)| Block::Field((*label).to_owned(), text.clone())));
    for section in SECTIONS {
        let value = &content[*section];
        if !is_empty(value) {
            blocks.push(Block::Heading(2, words(section)));
            add(value, "", 3, &mut blocks);
        }
    }
    blocks
}

fn add(value: &Value, label: &str, level: u8, blocks: &mut Vec<Block>) {
    match value {
        value if is_empty(value) => {}
        Value::Object(members) => {
            if !label.is_empty() {
                blocks.push(Block::Heading(level, label.to_owned()));
            }
            // What is short comes before what opens a section of its own.
            let (plain, deep): (Vec<_>, Vec<_>) = members.iter().partition(|(_, value)| is_plain(value));
            for (name, value) in plain.into_iter().chain(deep) {
                add(value, &words(name), level + 1, blocks);
            }
        }
        Value::Array(elements) if elements.iter().all(is_row) => {
            blocks.push(Block::Heading(level, label.to_owned()));
            blocks.push(table(elements));
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => {
            for element in elements {
                let name = element["name"].as_str().unwrap_or(label).to_owned();
                add(element, &name, level, blocks);
            }
        }
        plain => blocks.push(Block::Field(label.to_owned(), text(plain))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        _ => false,
    }
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(elements) => !elements.iter().any(Value::is_object),
        _ => true,
    }
}

/// Whether an element is a row of a table: a named value, as metrics and hyperparameters are.
fn is_row(value: &Value) -> bool {
    value.as_object().is_some_and(|members| members.contains_key("name") && members.contains_key("value"))
}

fn table(elements: &[Value]) -> Block {
    let mut columns: Vec<&String> = Vec::new();
    for name in elements.iter().filter_map(Value::as_object).flat_map(|members| members.keys()) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let order = |name: &str| ["name", "value", "type"].iter().position(|first| *first == name).unwrap_or(9);
    columns.sort_by_key(|name| order(name));
    let rows = elements.iter().map(|row| columns.iter().map(|column| text(&row[column.as_str()])).collect());
    Block::Table(columns.iter().map(|name| words(name)).collect(), rows.collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(elements) if elements.iter().all(|one| !one.is_array()) => {
            elements.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// `risk_rating` as people write it.
fn words(name: &str) -> String {
    let spaced = name.replace('_', " ");
    let mut letters = spaced.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

/// The document as one HTML page without scripts or anything from elsewhere.
pub fn html(blocks: &[Block]) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n",
    );
    if let Some(Block::Heading(_, title)) = blocks.first() {
        page.push_str(&format!("<title>{}</title>\n", escaped(title)));
    }
    page.push_str(concat!(
        "<style>body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}",
        "table{border-collapse:collapse;width:100%}th,td{border:1px solid #999;padding:.3rem .5rem;text-align:left;",
        "vertical-align:top;overflow-wrap:anywhere}p{overflow-wrap:anywhere}</style>\n</head>\n<body>\n"
    ));
    for block in blocks {
        match block {
            Block::Heading(level, text) => {
                let level = (*level).min(6);
                page.push_str(&format!("<h{level}>{}</h{level}>\n", escaped(text)));
            }
            Block::Field(label, text) => {
                page.push_str(&format!("<p><strong>{}:</strong> {}</p>\n", escaped(label), escaped(text)));
            }
            Block::Table(headings, rows) => {
                let cells = |tag: &str, cells: &[String]| {
                    let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
                    format!("<tr>{}</tr>\n", cells.collect::<String>())
                };
                page.push_str(&format!("<table>\n<thead>{}</thead>\n<tbody>", cells("th", headings)));
                page.extend(rows.iter().map(|row| cells("td", row)));
                page.push_str("</tbody>\n</table>\n");
            }
        }
    }
    page + "</body>\n</html>\n"
}

fn escaped(text: &str) -> String {
    let plain = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    plain.replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_reads_from_top_to_bottom() {
        let content = json!({
            "intended_uses": {"risk_rating": "Low", "purpose_of_model": ""},
            "training_details": {"training_job_details": {"hyper_parameters": [{"name": "lr", "value": "0.1"}]}, "training_observations": "fine"},
            "evaluation_details": [{"name": "holdout", "datasets": ["s3://a", "s3://b"]}],
        });
        let blocks = document("Churn", &[("Version", "3".into())], &content);
        let field = |label: &str, text: &str| Block::Field(label.into(), text.into());
        assert_eq!(
            blocks,
            [
                Block::Heading(1, "Churn".into()),
                field("Version", "3"),
                Block::Heading(2, "Intended uses".into()),
                field("Risk rating", "Low"),
                Block::Heading(2, "Training details".into()),
                field("Training observations", "fine"),
                Block::Heading(4, "Training job details".into()),
                Block::Heading(5, "Hyper parameters".into()),
                Block::Table(vec!["Name".into(), "Value".into()], vec![vec!["lr".into(), "0.1".into()]]),
                Block::Heading(2, "Evaluation details".into()),
                Block::Heading(3, "holdout".into()),
                field("Name", "holdout"),
                field("Datasets", "s3://a, s3://b"),
            ]
        );
    }

    #[test]
    fn html_holds_no_markup_of_the_card() {
        let page =
            html(&[Block::Heading(1, "<script>".into()), Block::Field("a&b".into(), "\"x\"\ny".into())]);
        assert!(page.contains("<h1>&lt;script&gt;</h1>") && page.contains("a&amp;b"), "{page}");
        assert!(page.contains("&quot;x&quot;<br>y") && !page.contains("<script"), "{page}");
    }
}
