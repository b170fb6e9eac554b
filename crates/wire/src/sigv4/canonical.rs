//! The canonical form of a request, over which a signature is made.

use http::HeaderMap;
use http::header::HOST;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::terms::SignedHeaders;
use crate::form::{self, FormProblem};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a query name or value, or a credential.
pub(super) fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), RESERVED).to_string()
}

/// A request whose signature is made or checked.
pub(super) struct Request<'a> {
    /// Its method.
    pub(super) method: &'a str,
    /// Its path as sent.
    pub(super) path: &'a str,
    /// Its query as sent.
    pub(super) query: &'a str,
    /// Its headers.
    pub(super) headers: &'a HeaderMap,
    /// Where HTTP/2 and absolute URIs carry the host.
    pub(super) authority: Option<&'a str>,
    /// The signed headers.
    pub(super) signed: &'a SignedHeaders,
    /// The hash of the body, or what stands for it.
    pub(super) payload: &'a str,
}

/// Why a request has no canonical form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unclear {
    /// Its query cannot be read.
    Query(FormProblem),
    /// A signed header is not there, or is no text.
    Header(String),
}

impl Request<'_> {
    /// What is signed. All is written into one buffer: each request that comes has its signature checked.
    pub(super) fn text(&self, service: &str) -> Result<String, Unclear> {
        let mut text = String::with_capacity(1024);
        text.push_str(self.method);
        text.push('\n');
        path(&mut text, self.path, service);
        text.push('\n');
        query(&mut text, self.query).map_err(Unclear::Query)?;
        text.push('\n');
        headers(&mut text, self.headers, self.authority, self.signed).map_err(Unclear::Header)?;
        text.push('\n');
        text.push_str(&self.signed.text);
        text.push('\n');
        text.push_str(self.payload);
        Ok(text)
    }
}

/// Writes the path as it is signed. S3 keeps it as sent; all others remove dot segments and double slashes and encode once more.
fn path(text: &mut String, raw: &str, service: &str) {
    if service == "s3" {
        text.push_str(if raw.is_empty() { "/" } else { raw });
        return;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    for segment in &kept {
        text.push('/');
        text.extend(percent_encode(segment.as_bytes(), RESERVED));
    }
    if kept.is_empty() || raw.ends_with('/') {
        text.push('/');
    }
}

/// Writes the query as it is signed: sorted, encoded, without the signature itself.
fn query(text: &mut String, raw: &str) -> Result<(), FormProblem> {
    let mut pairs: Vec<(String, String)> = form::pairs(raw.as_bytes())?
        .into_iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    Ok(())
}

/// Writes the lines of the signed headers. The error names a header that is not there, or whose value is not text.
fn headers(
    text: &mut String,
    headers: &HeaderMap,
    authority: Option<&str>,
    signed: &SignedHeaders,
) -> Result<(), String> {
    for name in &signed.names {
        text.push_str(name.as_str());
        text.push(':');
        let mut values = headers.get_all(name).iter().peekable();
        if values.peek().is_none() {
            match authority {
                // HTTP/2 and absolute URIs carry the host beside the headers.
                Some(authority) if name == HOST => text.push_str(authority),
                _ => return Err(name.to_string()),
            }
        }
        for (index, value) in values.enumerate() {
            if index > 0 {
                text.push(',');
            }
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| name.to_string())?;
            for (index, word) in value.split_ascii_whitespace().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text.push('\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str, service: &str) -> String {
        let mut text = String::new();
        super::path(&mut text, raw, service);
        text
    }

    #[test]
    fn paths_are_normalised_and_encoded_twice_except_for_s3() {
        assert_eq!(path("", "iam"), "/");
        assert_eq!(path("/", "iam"), "/");
        assert_eq!(path("/a/./b/../c//d/", "iam"), "/a/c/d/");
        assert_eq!(path("/a/..", "iam"), "/");
        assert_eq!(path("/endpoints/a%20b/invocations", "sagemaker"), "/endpoints/a%2520b/invocations");
        assert_eq!(path("/bucket//a%20b/..", "s3"), "/bucket//a%20b/..");
    }

    #[test]
    fn queries_are_sorted_and_encoded_once() {
        let query = |raw| {
            let mut text = String::new();
            query(&mut text, raw).map(|()| text)
        };
        assert_eq!(query("b=2&a=1&a=0&c").unwrap(), "a=0&a=1&b=2&c=");
        assert_eq!(query("A=x%20y&B=%7E%2f&X-Amz-Signature=00").unwrap(), "A=x%20y&B=~%2F");
        assert_eq!(query("").unwrap(), "");
        assert!(query("a=%").is_err());
    }

    #[test]
    fn header_values_are_trimmed_joined_and_must_be_there() {
        let mut map = HeaderMap::new();
        map.append("x-a", "  one   two ".parse().unwrap());
        map.append("x-a", "three".parse().unwrap());
        let headers = |authority, signed: &str| {
            let mut text = String::new();
            let names = str::split(signed, ';').map(|name| name.parse().unwrap()).collect();
            headers(&mut text, &map, authority, &SignedHeaders::of(names)).map(|()| text)
        };
        assert_eq!(headers(Some("h:1"), "host;x-a").unwrap(), "host:h:1\nx-a:one two,three\n");
        assert_eq!(headers(None, "host"), Err("host".into()));
        assert_eq!(headers(None, "x-b"), Err("x-b".into()));
    }
}
