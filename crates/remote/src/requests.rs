//! What requests say and answers tell, as headers and documents.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use store::objects::{Attributes, Condition, RemoteContent, RemoteObject, RemotePage};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::xml::Element;

/// Beginning of the headers with the user's metadata.
const METADATA: &str = "x-amz-meta-";

/// Headers of an object that come back as they were given.
const KEPT: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    // What no header can carry did not come by a header.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
        headers.insert(name, value);
    }
}

/// The headers of a write that describe its object.
pub fn of_attributes(attributes: &Attributes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &attributes.headers {
        insert(&mut headers, name, value);
    }
    for (name, value) in &attributes.metadata {
        insert(&mut headers, &format!("{METADATA}{name}"), value);
    }
    headers
}

/// Adds the conditions of a write.
pub fn add_condition(headers: &mut HeaderMap, condition: &Condition) {
    match condition.if_match.as_deref() {
        None => {}
        Some("*") => insert(headers, "if-match", "*"),
        Some(etag) => insert(headers, "if-match", &format!("\"{etag}\"")),
    }
    if condition.if_none_match {
        insert(headers, "if-none-match", "*");
    }
}

/// Adds the digest of what is sent.
pub fn add_digest(headers: &mut HeaderMap, content: &RemoteContent) {
    insert(headers, "content-md5", &STANDARD.encode(content.md5));
}

/// An entity tag without quotes.
pub fn bare_tag(text: &str) -> String {
    text.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// The entity tag of an answer.
pub fn tag(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::ETAG)?.to_str().ok()?;
    Some(bare_tag(value)).filter(|tag| !tag.is_empty())
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// An object as the headers of an answer describe it.
pub fn object(key: &str, headers: &HeaderMap) -> Option<RemoteObject> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.parse().ok();
    let modified = headers.get(http::header::LAST_MODIFIED).and_then(|value| value.to_str().ok());
    let modified = modified.and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
    let kept = |name: &&str| headers.get(*name).map(|value| ((*name).to_owned(), text(value)));
    let metadata = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(METADATA)?.to_owned(), text(value))));
    Some(RemoteObject {
        key: key.to_owned(),
        size: number(&http::header::CONTENT_LENGTH)?,
        etag: tag(headers)?,
        modified_at: milliseconds(modified),
        headers: KEPT.iter().filter_map(kept).collect::<BTreeMap<_, _>>(),
        metadata: metadata.collect(),
    })
}

/// To the second, as headers tell it, so that lists do not say otherwise.
fn milliseconds(at: Option<OffsetDateTime>) -> i64 {
    at.map_or(0, |at| at.unix_timestamp() * 1_000)
}

/// A page of a list. Keys outside of `prefix`, which is that of the whole bucket, are left out.
pub fn page(answer: &Element, prefix: &str) -> RemotePage {
    let is_encoded = answer.text_of("EncodingType") == "url";
    let decode = |text: &str| match is_encoded {
        true => {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        }
        false => text.to_owned(),
    };
    let inner =
        |text: &str| decode(text).strip_prefix(prefix).filter(|key| !key.is_empty()).map(str::to_owned);
    let object = |entry: &Element| {
        let modified = OffsetDateTime::parse(&entry.text_of("LastModified"), &Rfc3339).ok();
        let class =
            Some(entry.text_of("StorageClass")).filter(|class| !class.is_empty() && class != "STANDARD");
        Some(RemoteObject {
            key: inner(&entry.text_of("Key"))?,
            size: entry.text_of("Size").parse().ok()?,
            etag: bare_tag(&entry.text_of("ETag")),
            modified_at: milliseconds(modified),
            headers: class.map(|class| ("x-amz-storage-class".to_owned(), class)).into_iter().collect(),
            metadata: BTreeMap::new(),
        })
    };
    RemotePage {
        objects: answer.all("Contents").filter_map(object).collect(),
        common_prefixes: answer
            .all("CommonPrefixes")
            .filter_map(|one| inner(&one.text_of("Prefix")))
            .collect(),
        is_truncated: answer.text_of("IsTruncated") == "true",
    }
}

/// The document of a completion.
pub fn completion(parts: &[(u32, String)]) -> String {
    let escape = |etag: &str| etag.replace('&', "&amp;").replace('<', "&lt;");
    let parts = parts.iter().map(|(number, etag)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>&quot;{}&quot;</ETag></Part>", escape(etag))
    });
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</CompleteMultipartUpload>",
        parts.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_with_their_keys_below_the_prefix() {
        let answer = "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <Contents><Key>p/</Key><Size>0</Size><ETag>&quot;x&quot;</ETag></Contents>\
            <Contents><Key>p/a%2Fb+c%2B</Key><Size>7</Size><ETag>&quot;e-2&quot;</ETag>\
            <LastModified>2026-01-31T12:00:00.500Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>\
            <CommonPrefixes><Prefix>p/d%2F</Prefix></CommonPrefixes></ListBucketResult>";
        let page = page(&crate::xml::parse(answer).unwrap(), "p/");
        assert!(page.is_truncated);
        assert_eq!(page.common_prefixes, ["d/"]);
        let expected = RemoteObject {
            key: "a/b c+".into(),
            size: 7,
            etag: "e-2".into(),
            modified_at: 1_769_860_800_000,
            ..RemoteObject::default()
        };
        assert_eq!(page.objects, [expected]);
    }

    #[test]
    fn objects_are_described_by_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "7"),
            ("etag", "\"e\""),
            ("last-modified", "Sat, 31 Jan 2026 12:00:00 GMT"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "b"),
            ("server", "x"),
        ] {
            insert(&mut headers, name, value);
        }
        let object = object("k", &headers).unwrap();
        assert_eq!((object.size, object.etag.as_str(), object.modified_at), (7, "e", 1_769_860_800_000));
        assert_eq!(object.headers, BTreeMap::from([("content-type".into(), "text/plain".into())]));
        assert_eq!(object.metadata, BTreeMap::from([("a".into(), "b".into())]));
        let mut again = of_attributes(&Attributes { metadata: object.metadata, ..Attributes::default() });
        add_condition(&mut again, &Condition { if_match: Some("e".into()), if_none_match: true });
        assert_eq!(again["x-amz-meta-a"], "b");
        assert_eq!(
            (&again["if-match"], &again["if-none-match"]),
            (&HeaderValue::from_static("\"e\""), &HeaderValue::from_static("*"))
        );
    }
}
