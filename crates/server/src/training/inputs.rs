//! Input channels: the objects under an S3 prefix become files under `/opt/ml/input/data/CHANNEL`.

use std::path::{Path, PathBuf};

use store::objects::ObjectStore;

/// Most objects that one page of a listing returns.
const PAGE: usize = 1_000;

/// Bucket and key of an `s3://bucket/key` URI; the key may be empty.
pub fn split_uri(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("s3://")?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

/// Copies every object whose key begins with the prefix of `uri` into `directory`; returns count and bytes.
///
/// # Errors
/// A text for the failure card.
pub async fn download_prefix(
    objects: &ObjectStore,
    account: &str,
    uri: &str,
    directory: &Path,
) -> Result<(u64, u64), String> {
    let (bucket, prefix) = split_uri(uri)
        .ok_or_else(|| format!("ClientError: {uri:?} is not an S3 URI such as s3://bucket/prefix."))?;
    let mut after: Option<Vec<u8>> = None;
    let (mut count, mut bytes) = (0, 0);
    loop {
        let page = objects
            .list_keys(account, bucket, prefix, after.as_deref(), PAGE)
            .await
            .map_err(|error| format!("ClientError: the objects under {uri:?} cannot be listed: {error}."))?;
        for object in &page {
            if object.key.ends_with('/') {
                // Folder markers that consoles make; they hold no data.
                continue;
            }
            let relative = relative_path(&object.key, prefix)?;
            let target = directory.join(relative);
            let opened = objects.open_object(account, bucket, &object.key).await;
            let mut source = opened.map_err(|error| {
                format!("ClientError: s3://{bucket}/{} cannot be read: {error}.", object.key)
            })?;
            let key = object.key.clone();
            bytes += tokio::task::spawn_blocking(move || copy(&mut source, &target))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| {
                    format!("InternalServerError: {key:?} could not be copied to the channel: {error}.")
                })?;
            count += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.key.clone().into_bytes()),
            _ => break,
        }
    }
    if count == 0 {
        return Err(format!(
            "ClientError: No S3 objects found under S3 URL {uri:?} given in input data source. \
             Please ensure that the bucket exists, and that objects exist under that prefix."
        ));
    }
    Ok((count, bytes))
}

fn copy(source: &mut std::fs::File, target: &Path) -> std::io::Result<u64> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(target)?;
    std::io::copy(source, &mut file)
}

/// Path of a key below its channel: what follows the prefix, or the last part of the key where the prefix is the key or
/// ends inside a name.
fn relative_path(key: &str, prefix: &str) -> Result<PathBuf, String> {
    let rest = match key.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() && (prefix.is_empty() || prefix.ends_with('/')) => rest,
        Some(rest) if rest.starts_with('/') => &rest[1..],
        _ => &key[prefix.rfind('/').map_or(0, |at| at + 1)..],
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if rest.split('/').all(plain) {
        Ok(PathBuf::from(rest))
    } else {
        Err(format!("ClientError: the object key {key:?} cannot be the path of a file; give it another key."))
    }
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
