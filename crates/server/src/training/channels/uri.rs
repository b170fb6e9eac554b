//! S3 URIs, and the paths that keys have below a channel.

use std::path::PathBuf;

/// Bucket and key of an `s3://bucket/key` URI; the key may be empty.
pub fn split_uri(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("s3://")?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

/// Path of a key below its channel: what follows the prefix, or the last part of the key where the prefix is the key or
/// ends inside a name.
pub(super) fn relative_path(key: &str, prefix: &str) -> Result<PathBuf, String> {
    let rest = match key.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() && (prefix.is_empty() || prefix.ends_with('/')) => rest,
        Some(rest) if rest.starts_with('/') => &rest[1..],
        _ => &key[prefix.rfind('/').map_or(0, |at| at + 1)..],
    };
    plain_path(rest).ok_or_else(|| {
        format!("ClientError: the object key {key:?} cannot be the path of a file; give it another key.")
    })
}

/// The text as a path, when each part of it is a plain name.
pub fn plain_path(text: &str) -> Option<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    text.split('/').all(plain).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths_below_the_channel() {
        let path = |key, prefix| relative_path(key, prefix).map(|path| path.display().to_string());
        assert_eq!(path("data/train/a.csv", "data/train"), Ok("a.csv".into()));
        assert_eq!(path("data/train/a.csv", "data/train/"), Ok("a.csv".into()));
        assert_eq!(path("data/train/x/a.csv", "data/train/"), Ok("x/a.csv".into()));
        assert_eq!(path("data/train/a.csv", "data/train/a.csv"), Ok("a.csv".into()));
        assert_eq!(path("data/part-1.csv", "data/part-"), Ok("part-1.csv".into()));
        assert_eq!(path("a.csv", ""), Ok("a.csv".into()));
        assert!(path("data/../a.csv", "data/").is_err());
        assert!(path("data//a.csv", "data/").is_err());
    }

    #[test]
    fn uris_split_into_bucket_and_key() {
        assert_eq!(split_uri("s3://b/k/l"), Some(("b", "k/l")));
        assert_eq!(split_uri("s3://b"), Some(("b", "")));
        assert_eq!(split_uri("http://b/k"), None);
        assert_eq!(split_uri("s3:///k"), None);
    }
}
