//! The canonical form of a request, over which a signature is made.

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::form::{self, FormProblem};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As [`RESERVED`], for whole paths.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Percent-encodes a query name or value, or a credential.
pub(super) fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), RESERVED).to_string()
}

/// The path as it is signed. S3 keeps it as sent; all others remove dot segments and double slashes and encode once more.
pub(super) fn path(raw: &str, service: &str) -> String {
    if service == "s3" {
        return if raw.is_empty() { "/".to_owned() } else { raw.to_owned() };
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
    let end = if raw.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    let normal = format!("/{}{end}", kept.join("/"));
    percent_encode(normal.as_bytes(), RESERVED_IN_PATH).to_string()
}

/// The query as it is signed: sorted, encoded, without the signature itself.
pub(super) fn query(raw: &str) -> Result<String, FormProblem> {
    let mut pairs: Vec<(String, String)> = form::pairs(raw.as_bytes())?
        .into_iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    let parts: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(parts.join("&"))
}

/// The lines of the signed headers. The error names a header that is not there, or whose value is not text.
pub(super) fn headers(
    headers: &HeaderMap,
    authority: Option<&str>,
    signed: &[String],
) -> Result<String, String> {
    let mut lines = String::new();
    for name in signed {
        lines.push_str(name);
        lines.push(':');
        let mut values = headers.get_all(name.as_str()).iter().peekable();
        if values.peek().is_none() {
            match authority {
                // HTTP/2 and absolute URIs carry the host beside the headers.
                Some(authority) if name == "host" => lines.push_str(authority),
                _ => return Err(name.clone()),
            }
        }
        for (index, value) in values.enumerate() {
            if index > 0 {
                lines.push(',');
            }
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| name.clone())?;
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            lines.push_str(&words.join(" "));
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// Puts the parts together.
pub(super) fn request(
    method: &str,
    path: &str,
    query: &str,
    headers: &str,
    signed: &[String],
    payload: &str,
) -> String {
    format!("{method}\n{path}\n{query}\n{headers}\n{}\n{payload}", signed.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_encoded_twice_except_for_s3() {
        assert_eq!(path("", "iam"), "/");
        assert_eq!(path("/", "iam"), "/");
        assert_eq!(path("/a/./b/../c//d/", "iam"), "/a/c/d/");
        assert_eq!(path("/endpoints/a%20b/invocations", "sagemaker"), "/endpoints/a%2520b/invocations");
        assert_eq!(path("/bucket//a%20b/..", "s3"), "/bucket//a%20b/..");
    }

    #[test]
    fn queries_are_sorted_and_encoded_once() {
        assert_eq!(query("b=2&a=1&a=0&c").unwrap(), "a=0&a=1&b=2&c=");
        assert_eq!(query("A=x%20y&B=%7E%2f&X-Amz-Signature=00").unwrap(), "A=x%20y&B=~%2F");
        assert!(query("a=%").is_err());
    }

    #[test]
    fn header_values_are_trimmed_joined_and_must_be_there() {
        let mut map = HeaderMap::new();
        map.append("x-a", "  one   two ".parse().unwrap());
        map.append("x-a", "three".parse().unwrap());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            headers(&map, Some("h:1"), &names(&["host", "x-a"])).unwrap(),
            "host:h:1\nx-a:one two,three\n"
        );
        assert_eq!(headers(&map, None, &names(&["host"])), Err("host".into()));
        assert_eq!(headers(&map, None, &names(&["x-b"])), Err("x-b".into()));
    }
}
