//! Addresses of remote buckets, and of objects in them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use store::objects::Remote;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As [`RESERVED`], for keys.
const RESERVED_IN_KEY: &AsciiSet = &RESERVED.remove(b'/');

/// The parts of the URL of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Beginning of the keys, empty or with a slash at its end.
    pub prefix: String,
}

/// Takes `https://host[:port]/bucket[/prefix]` apart.
///
/// # Errors
/// What is wrong with it.
pub fn parse(url: &str) -> Result<Address, String> {
    let wrong = |why: &str| format!("--remote {why}; write it as https://host[:port]/bucket[/prefix]");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("has another scheme than http or https"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        // It is not repeated: it may hold a secret.
        return Err(wrong("has a user or a secret in it, which belong into --credentials"));
    }
    if url.contains(['?', '#', '%']) || url.contains(char::is_whitespace) {
        return Err(wrong("has characters that no such address has (?, #, %, spaces)"));
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong("has no host"))?;
    if parsed.host().is_empty() {
        return Err(wrong("has no host"));
    }
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if bucket.len() < 3 || !bucket.bytes().all(is_name) || bucket.contains("..") {
        return Err(wrong("names no bucket after the host"));
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && prefix.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(wrong("has a prefix with an empty name, `.` or `..` in it"));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Address {
        endpoint: format!("{scheme}://{}", authority.to_ascii_lowercase()),
        bucket: bucket.into(),
        prefix,
    })
}

/// The URL of a bucket in requests, without a slash at its end.
pub(crate) fn base(remote: &Remote) -> String {
    match remote.endpoint.split_once("://") {
        Some((scheme, authority)) if !remote.is_path_style => {
            format!("{scheme}://{}.{authority}", remote.bucket)
        }
        _ => format!("{}/{}", remote.endpoint, remote.bucket),
    }
}

/// A key as it stands in the path of a URL.
pub(crate) fn encoded_key(key: &str) -> String {
    utf8_percent_encode(key, RESERVED_IN_KEY).to_string()
}

/// Names and values as the query of a URL.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let address = parse("https://S3.example.org:9000/data.set/a/b/").unwrap();
        assert_eq!(address.endpoint, "https://s3.example.org:9000");
        assert_eq!((address.bucket.as_str(), address.prefix.as_str()), ("data.set", "a/b/"));
        assert_eq!(parse("http://[::1]:9/bucket").unwrap().prefix, "");
    }

    #[test]
    fn other_addresses_are_refused_without_their_secrets() {
        for (url, why) in [
            ("s3://bucket/prefix", "scheme"),
            ("bucket", "scheme"),
            ("https:///bucket", "host"),
            ("https://host", "bucket"),
            ("https://host/", "bucket"),
            ("https://host/b?x=1", "characters"),
            ("https://host/bucket/a/../b", "prefix"),
            ("https://host/bucket//a", "prefix"),
        ] {
            let text = parse(url).unwrap_err();
            assert!(text.contains(why), "{url}: {text}");
        }
        let text = parse("https://key:hidden@host/bucket").unwrap_err();
        assert!(text.contains("--credentials") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn buckets_stand_in_the_path_or_before_the_host() {
        let mut remote = Remote {
            endpoint: "https://s3.example.org:9000".into(),
            bucket: "data".into(),
            prefix: "p/".into(),
            region: "r".into(),
            is_path_style: true,
            is_read_only: false,
            allows_link_local: false,
            ca_bundle: None,
            credentials: Vec::new(),
        };
        assert_eq!(base(&remote), "https://s3.example.org:9000/data");
        remote.is_path_style = false;
        assert_eq!(base(&remote), "https://data.s3.example.org:9000");
    }

    #[test]
    fn keys_stand_in_urls_as_they_are() {
        assert_eq!(encoded_key("a//b c/ü+&~/"), "a//b%20c/%C3%BC%2B%26~/");
        assert_eq!(query(&[("prefix", "a/b"), ("uploads", "")]), "prefix=a%2Fb&uploads=");
    }
}
