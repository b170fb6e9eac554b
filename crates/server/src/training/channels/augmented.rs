//! Augmented manifests: JSON lines, of which the chosen attributes are sent in order; those that end with `-ref` name objects.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use api::sagemaker::S3DataSource;
use runner::feed::plan::{Part, PlanWriter};
use serde_json::Value;
use store::objects::{Export, ExportedObject, ObjectStore};

use super::manifest::MAX_ENTRIES;
use super::objects::{PAGE, open_manifest};
use super::uri::split_uri;
use super::{export_failed, numbered, plan_failed};

/// The longest line.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// An attribute of a line.
#[derive(Debug, PartialEq, Eq)]
enum Attribute {
    /// URI of the object whose content is sent.
    Object(String),
    /// Sent as it is.
    Text(String),
}

/// Reads the manifest of a channel into its plan; the objects it names become files below `files`.
///
/// # Errors
/// A text for the failure card, which names the line.
pub(super) async fn plan(
    objects: &ObjectStore,
    account: &str,
    source: &S3DataSource,
    files: &Path,
    writer: &mut PlanWriter,
) -> Result<(), String> {
    let uri = source.s3_uri.as_str();
    let named = |problem: String| format!("ClientError: the augmented manifest {uri:?}: {problem}.");
    let file = open_manifest(objects, account, uri).await?;
    let names = source.attribute_names.clone().unwrap_or_default();
    let mut lines = Lines { reader: BufReader::new(file), number: 0 };
    let mut known: HashMap<String, String> = HashMap::new();
    loop {
        let attributes = names.clone();
        let read = tokio::task::spawn_blocking(move || {
            let page = lines.page(&attributes);
            (lines, page)
        });
        let (back, page) = read.await.map_err(|error| named(error.to_string()))?;
        lines = back;
        let page = page.map_err(named)?;
        if page.is_empty() {
            break;
        }
        let fresh =
            page.iter().flat_map(|(number, line)| line.iter().map(move |attribute| (*number, attribute)));
        let fresh = fresh.filter_map(|(number, attribute)| match attribute {
            Attribute::Object(uri) if !known.contains_key(uri) => Some((number, uri.clone())),
            _ => None,
        });
        let fresh: Vec<(u64, String)> = fresh.collect();
        let exported = find(objects, account, fresh, files, &mut known).await.map_err(named)?;
        objects
            .export(account, exported, Export::Shared)
            .await
            .map_err(|error| export_failed("of an augmented manifest", &error))?;
        for (_, line) in page {
            let parts: Vec<Part> = line
                .into_iter()
                .map(|attribute| match attribute {
                    Attribute::Text(text) => Part::Text(text),
                    Attribute::Object(name) => {
                        Part::File { path: known.get(&name).cloned().unwrap_or_default(), name }
                    }
                })
                .collect();
            writer.entry(&parts).map_err(plan_failed)?;
        }
    }
    if writer.entries() == 0 {
        return Err(named("it has no lines".into()));
    }
    Ok(())
}

/// Looks the objects up, bucket by bucket, and gives each a file.
async fn find(
    objects: &ObjectStore,
    account: &str,
    fresh: Vec<(u64, String)>,
    files: &Path,
    known: &mut HashMap<String, String>,
) -> Result<Vec<ExportedObject>, String> {
    let mut buckets: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for (number, uri) in fresh {
        let Some((bucket, key)) = split_uri(&uri).filter(|(_, key)| !key.is_empty()) else {
            return Err(format!("line {number} names {uri:?}, which is not the S3 URI of an object"));
        };
        if known.contains_key(&uri) {
            continue;
        }
        buckets.entry(bucket.to_owned()).or_default().push((number, key.to_owned()));
        let path = numbered(known.len() as u64);
        known.insert(uri, path);
    }
    let mut exported = Vec::new();
    for (bucket, wanted) in buckets {
        let keys = wanted.iter().map(|(_, key)| key.clone()).collect();
        let line = wanted.first().map_or(0, |(number, _)| *number);
        let rows = objects.find_many(account, &bucket, keys).await;
        let rows = rows.map_err(|error| format!("line {line}: {error}"))?;
        for ((number, key), row) in wanted.into_iter().zip(rows) {
            let uri = format!("s3://{bucket}/{key}");
            let object =
                row.ok_or_else(|| format!("the object {uri}, which line {number} names, does not exist"))?;
            let path = known.get(&uri).cloned().unwrap_or_default();
            exported.push(ExportedObject { bucket: bucket.clone(), object, target: files.join(path) });
        }
    }
    Ok(exported)
}

/// The lines of a manifest that are still to come.
struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Up to a page of lines with their numbers. The error is a part of a sentence.
    fn page(&mut self, attributes: &[String]) -> Result<Vec<(u64, Vec<Attribute>)>, String> {
        let mut page = Vec::new();
        let mut line = Vec::new();
        while page.len() < PAGE {
            line.clear();
            let count = Read::by_ref(&mut self.reader).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
            if count.map_err(|error| error.to_string())? == 0 {
                break;
            }
            self.number += 1;
            let number = self.number;
            if line.len() as u64 > MAX_LINE_BYTES {
                return Err(format!("line {number} is longer than {} MiB", MAX_LINE_BYTES >> 20));
            }
            if number > MAX_ENTRIES as u64 {
                return Err(format!("it has more than {MAX_ENTRIES} lines"));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            page.push((
                number,
                chosen(&line, attributes).map_err(|problem| format!("line {number} {problem}"))?,
            ));
        }
        Ok(page)
    }
}

/// The attributes of a line that are wanted, in the wanted order.
fn chosen(line: &[u8], attributes: &[String]) -> Result<Vec<Attribute>, String> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("is not a JSON object: {error}"))?;
    let attribute = |name: &String| match object.get(name) {
        None => Err(format!("has no attribute {name:?}, which AttributeNames lists")),
        Some(Value::String(uri)) if name.ends_with("-ref") => Ok(Attribute::Object(uri.clone())),
        Some(other) if name.ends_with("-ref") => {
            Err(format!("has {other} as {name:?}, which must be the S3 URI of an object"))
        }
        Some(Value::String(text)) => Ok(Attribute::Text(text.clone())),
        Some(other) => Ok(Attribute::Text(other.to_string())),
    };
    attributes.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<(u64, Vec<Attribute>)>, String> {
        let attributes = ["image-ref", "label"].map(str::to_owned);
        Lines { reader: text.as_bytes(), number: 0 }.page(&attributes)
    }

    #[test]
    fn attributes_come_in_the_wanted_order() {
        let text = "{\"label\": {\"a\": [1, 2]}, \"other\": 1, \"image-ref\": \"s3://b/1\"}\n\n{\"image-ref\": \"s3://b/2\", \"label\": \"cat\"}";
        let image = |key: &str| Attribute::Object(format!("s3://b/{key}"));
        let label = |text: &str| Attribute::Text(text.to_owned());
        assert_eq!(
            lines(text).unwrap(),
            [(1, vec![image("1"), label("{\"a\":[1,2]}")]), (3, vec![image("2"), label("cat")])]
        );
    }

    #[test]
    fn bad_lines_are_named() {
        let long = format!("\n{{\"image-ref\": \"{}\"}}", "x".repeat(MAX_LINE_BYTES as usize));
        let deep = "[".repeat(1 << 20);
        for (text, expected) in [
            ("{\"image-ref\": \"s3://b/1\"}", "line 1 has no attribute \"label\""),
            ("\n{\"image-ref\": 7, \"label\": 1}", "line 2 has 7 as \"image-ref\""),
            ("[1]", "line 1 is not a JSON object"),
            (&deep, "line 1 is not a JSON object"),
            (&long, "line 2 is longer than 4 MiB"),
        ] {
            let problem = lines(text).unwrap_err();
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}
