//! Where captured data lies in S3, and how it is put there.

use std::collections::BTreeMap;

use store::objects::{Attributes, Condition, Incoming, Protection};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::app::App;
use crate::training::bucket_and_key;

/// A prefix in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Whose bucket it is.
    pub account: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    prefix: &'a str,
}

impl<'a> Place<'a> {
    /// The place of an S3 URI; none when it is no such URI.
    pub fn of(account: &'a str, uri: &'a str) -> Option<Place<'a>> {
        let (bucket, prefix) = bucket_and_key(uri)?;
        Some(Place { account, bucket, prefix: prefix.trim_end_matches('/') })
    }

    /// A key below the prefix.
    pub fn key(&self, name: &str) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}{slash}{name}", self.prefix)
    }
}

/// Puts an object whose bytes `write` writes; `metadata` is made of what it returns.
///
/// # Errors
/// A text without the object's name.
pub async fn put<T: Send + 'static>(
    app: &App,
    place: Place<'_>,
    key: &str,
    protection: Option<Protection>,
    content_type: &str,
    write: impl FnOnce(&mut Incoming) -> Result<T, String> + Send + 'static,
    metadata: impl FnOnce(T) -> BTreeMap<String, String>,
) -> Result<(), String> {
    let of_store = |error: store::Error| error.with_cause();
    let begun = app.objects.begin_protected(place.account, place.bucket, protection).await;
    let mut incoming = begun.map_err(of_store)?;
    let written =
        tokio::task::spawn_blocking(move || write(&mut incoming).map(|made| (incoming, made))).await;
    let (incoming, made) = written.map_err(|error| error.to_string())??;
    let headers = [("content-type".to_owned(), content_type.to_owned())].into_iter().collect();
    let attributes = Attributes { headers, metadata: metadata(made), ..Attributes::default() };
    let put =
        app.objects.commit(place.account, place.bucket, key, incoming, attributes, Condition::default());
    put.await.map(drop).map_err(of_store)
}

/// The folder of an hour, `yyyy/mm/dd/hh`.
pub fn hour_of(at_ms: i64) -> String {
    formatted(at_ms, format_description!("[year]/[month]/[day]/[hour]"))
}

/// The name of a file of captured data below the prefix.
pub fn file_of(endpoint: &str, variant: &str, at_ms: i64, id: &str) -> String {
    let hour = hour_of(at_ms);
    let minute = formatted(at_ms, format_description!("[minute]-[second]-[subsecond digits:3]"));
    format!("{endpoint}/{variant}/{hour}/{minute}-{id}.jsonl")
}

fn formatted(at_ms: i64, format: &[time::format_description::BorrowedFormatItem<'_>]) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(format).unwrap_or_default()
}

/// How objects are encrypted by a key that a request names, if it names one.
pub fn protection(key: Option<&str>) -> Option<Protection> {
    let key = key.filter(|key| !key.is_empty())?;
    Some(Protection::Key { reference: Some(key.to_owned()), context: BTreeMap::new(), bucket_key: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_by_endpoint_variant_and_hour() {
        let name = file_of("e", "v", 1_769_860_805_042, "x-y");
        assert_eq!(name, "e/v/2026/01/31/12/00-05-042-x-y.jsonl");
        assert_eq!(Place::of("1", "s3://b/p/q/").unwrap().key(&name), format!("p/q/{name}"));
        assert_eq!(Place::of("1", "s3://b").unwrap().key(&name), name);
        assert_eq!(Place::of("1", "https://b/p"), None);
    }
}
