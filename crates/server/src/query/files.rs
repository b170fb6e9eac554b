//! The objects of a table as files that the sandbox is shown: folders of its partitions, made of what the catalogue knows, or
//! of the folders in S3.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use store::objects::{Export, ExportedObject, ObjectStore};

use crate::training::bucket_and_key;

/// Objects of one page.
const PAGE: usize = 1_000;
/// What stays as it is in the folder of a partition.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// What the files of a table are made of.
pub struct Source<'a> {
    /// The objects.
    pub objects: &'a ObjectStore,
    /// Whose buckets may be read.
    pub account: &'a str,
    /// Where the files are made.
    pub folder: &'a Path,
    /// Names of the partition keys, lower case.
    pub keys: &'a [String],
}

impl Source<'_> {
    /// Makes the files of a whole table; answers how many there are.
    ///
    /// # Errors
    /// A text for people.
    pub async fn table(&self, table: &Value, partitions: &[Value]) -> Result<u64, String> {
        let location = table["StorageDescriptor"]["Location"].as_str().unwrap_or_default();
        if self.keys.is_empty() || partitions.is_empty() {
            return self.below(location, None).await;
        }
        let mut count = 0;
        for partition in partitions {
            let values: Vec<&str> =
                partition["Values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if values.len() != self.keys.len() {
                return Err(format!("the partition {} has not a value for each key", partition["Values"]));
            }
            let own = partition["StorageDescriptor"]["Location"].as_str().filter(|uri| !uri.is_empty());
            let default = || {
                let folders = self.keys.iter().zip(&values).map(|(key, value)| format!("{key}={value}/"));
                format!("{}/{}", location.trim_end_matches('/'), folders.collect::<String>())
            };
            let uri = own.map_or_else(default, str::to_owned);
            count += self.below(&uri, Some(&values)).await?;
        }
        Ok(count)
    }

    /// Makes files of all objects below a URI; those of a partition whose values are known, or of one that follows from the
    /// folders of the object.
    async fn below(&self, uri: &str, values: Option<&[&str]>) -> Result<u64, String> {
        let (bucket, key) = bucket_and_key(uri)
            .ok_or_else(|| format!("its Location {uri:?} is not an S3 URI such as s3://bucket/prefix/"))?;
        let prefix = if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
        let mut after: Option<Vec<u8>> = None;
        let mut count = 0;
        loop {
            let listed = self.objects.list_keys(self.account, bucket, &prefix, after.as_deref(), PAGE).await;
            let page =
                listed.map_err(|error| format!("the objects below {uri} cannot be listed: {error}"))?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|last| last.key.clone().into_bytes());
            let mut exported = Vec::new();
            for object in page {
                let rest = &object.key[prefix.len()..];
                if object.size == 0 || is_hidden(rest) {
                    continue;
                }
                let folder = match values {
                    Some(values) => folder_of(self.keys, values),
                    None => {
                        discovered(self.keys, rest).ok_or_else(|| outside(bucket, &object.key, self.keys))?
                    }
                };
                let name = rest.rsplit('/').next().unwrap_or_default();
                // Objects of several folders may have one name.
                let target = self.folder.join(folder).join(format!("{count:07}-{name}"));
                exported.push(ExportedObject { bucket: bucket.to_owned(), object, target });
                count += 1;
            }
            let made = self.objects.export(self.account, exported, Export::Shared).await;
            made.map_err(|error| format!("the objects below {uri} cannot be read: {}", error.with_cause()))?;
            if is_last {
                return Ok(count);
            }
        }
    }
}

/// Folder markers, and what Hive passes over.
pub fn is_hidden(path: &str) -> bool {
    path.is_empty() || path.ends_with('/') || path.split('/').any(|part| part.starts_with(['_', '.']))
}

/// The folder of a partition for the engine, which undoes the encoding.
fn folder_of(keys: &[String], values: &[&str]) -> PathBuf {
    keys.iter()
        .zip(values)
        .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, KEPT)))
        .collect()
}

/// The folder of the partition that the folders of an object name; `None` when they name none.
fn discovered(keys: &[String], rest: &str) -> Option<PathBuf> {
    let mut parts = rest.split('/');
    let mut values = Vec::new();
    for key in keys {
        let (name, value) = parts.next()?.split_once('=')?;
        if !name.eq_ignore_ascii_case(key) {
            return None;
        }
        values.push(percent_decode_str(value).decode_utf8().ok()?.into_owned());
    }
    parts.next()?;
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Some(folder_of(keys, &values))
}

fn outside(bucket: &str, key: &str, keys: &[String]) -> String {
    let folders: Vec<String> = keys.iter().map(|key| format!("{key}=…/")).collect();
    format!(
        "the object s3://{bucket}/{key} does not lie in folders {} of its partition keys; register its partition, or move it",
        folders.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_found_by_their_folders() {
        let keys = ["year".to_owned(), "city".to_owned()];
        let found = |rest: &str| discovered(&keys, rest).map(|path| path.display().to_string());
        assert_eq!(found("year=2024/city=Bern/a.csv").as_deref(), Some("year=2024/city=Bern"));
        assert_eq!(found("Year=2024/CITY=a%2Fb/x/a.csv").as_deref(), Some("year=2024/city=a%2Fb"));
        assert_eq!(found("year=2024/a.csv"), None);
        assert_eq!(found("2024/Bern/a.csv"), None);
        assert_eq!(discovered(&[], "x/a.csv"), Some(PathBuf::new()));
        assert_eq!(folder_of(&keys, &["1", "a b/c"]), PathBuf::from("year=1/city=a%20b%2Fc"));
    }

    #[test]
    fn what_hive_passes_over_is_no_data() {
        for path in ["", "x/", "_SUCCESS", "a/.hidden/b", "_tmp/a.csv"] {
            assert!(is_hidden(path), "{path}");
        }
        assert!(!is_hidden("a_b/c.d.csv"));
    }
}
