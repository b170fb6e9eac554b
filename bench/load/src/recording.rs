//! Recorded requests.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Reads a file of requests, one JSON object per line.
pub fn read(path: &Path) -> Result<Vec<Request<Full<Bytes>>>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let numbered = text.lines().enumerate();
    let requests: Result<Vec<_>, _> = numbered
        .map(|(index, line)| {
            request(line).map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))
        })
        .collect();
    let requests = requests?;
    if requests.is_empty() {
        return Err(format!("{} has no request", path.display()));
    }
    Ok(requests)
}

fn request(line: &str) -> Result<Request<Full<Bytes>>, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut request = Request::builder().method(line.method.as_str()).uri(line.target);
    for (name, value) in line.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from(line.body))).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_the_request_it_describes() {
        let line =
            r#"{"method": "POST", "target": "/a?b=c", "headers": {"Host": "h", "X-Y": "z"}, "body": "[1]"}"#;
        let request = request(line).expect("the line is a request");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["x-y"], "z");
    }

    #[test]
    fn a_line_that_lacks_a_part_is_an_error() {
        assert!(request(r#"{"method": "POST"}"#).is_err());
    }
}
