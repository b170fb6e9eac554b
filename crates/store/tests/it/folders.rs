//! Folders as buckets: lists in the order of keys whatever lies there, and writes that are whole or leave nothing.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use store::keys::KeyStore;
use store::objects::{Attributes, Bound, Bucket, Condition, Folder, ListObjects, ObjectStore, Refusal};
use store::{Clock, Database, Error};

use crate::objects::{ACCOUNT, BUCKET};

/// A store with one bucket, which is the folder `files` beside its data directory.
async fn open(directory: &Path, is_read_only: bool) -> ObjectStore {
    let data_dir = directory.join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let database = Database::open(&data_dir.join("modelyard.db")).unwrap();
    let clock = Clock::fixed(1_700_000_000_000);
    let keys = KeyStore::open(database.clone(), &data_dir.join("keys/master.key"), clock.clone()).await;
    let buckets = data_dir.join("buckets");
    let store = ObjectStore::open(database.clone(), buckets, clock, keys.unwrap()).await.unwrap();
    std::fs::create_dir_all(directory.join("files")).unwrap();
    let folder = Folder::check(&directory.join("files"), &data_dir, is_read_only).unwrap();
    let bucket = Bucket {
        name: BUCKET.into(),
        account: ACCOUNT.into(),
        region: "us-east-1".into(),
        created_at: 0,
        folder: Some(folder),
        remote: None,
    };
    database.write(move |session| session.insert_folder_bucket(&bucket)).await.unwrap();
    store
}

async fn put(store: &ObjectStore, key: &str, condition: Condition) -> Result<String, Error> {
    let mut incoming = store.begin(ACCOUNT, BUCKET).await?;
    incoming.write(b"content")?;
    let stored = store.commit(ACCOUNT, BUCKET, key, incoming, Attributes::default(), condition).await?;
    Ok(stored.etag)
}

fn incoming(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("data/buckets").join(BUCKET).join(".incoming")).unwrap().count()
}

#[tokio::test]
async fn pages_together_are_all_files_in_the_order_of_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), false).await;
    let files = directory.path().join("files");
    let mut wanted = BTreeSet::new();
    for folder in ["", "a/", "a-/", "a.b/", "a/b/", "a/b/c/", "é/", ".hidden/"] {
        for name in ["0", "a0", "y", "z", "ü"] {
            let key = format!("{folder}{name}");
            let path = files.join(&key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &key).unwrap();
            wanted.insert(key);
        }
    }
    symlink(files.join("a"), files.join("link")).unwrap();
    for prefix in ["", "a", "a/", "a/b/", "é", "none", "a/b/c/z"] {
        for limit in [1, 3, 1000] {
            let (mut found, mut start) = (Vec::new(), None);
            loop {
                let list = ListObjects { prefix: prefix.into(), delimiter: None, start, limit };
                let page = store.list(ACCOUNT, BUCKET, list).await.unwrap();
                found.extend(page.objects.into_iter().map(|object| object.key));
                start = page.next;
                if start.is_none() {
                    break;
                }
            }
            let all: Vec<String> = wanted.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
            assert_eq!(found, all, "{prefix:?} by {limit}");
        }
    }
    let (delimiter, start) = (Some("/".to_owned()), Some(Bound::after("a", "", Some("/"))));
    let list = ListObjects { prefix: String::new(), delimiter, start, limit: 1000 };
    let page = store.list(ACCOUNT, BUCKET, list).await.unwrap();
    assert_eq!(page.common_prefixes, ["a-/", "a.b/", "a/", "é/"]);
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), false).await;
    let etag = put(&store, "deep/key", Condition::default()).await.unwrap();
    assert_eq!(store.head(ACCOUNT, BUCKET, "deep/key").await.unwrap().etag, etag);
    let first = Condition { if_match: None, if_none_match: true };
    assert!(matches!(put(&store, "deep/key", first).await, Err(Error::Precondition(_))));
    let other = Condition { if_match: Some("other".into()), if_none_match: false };
    assert!(matches!(put(&store, "deep/key", other).await, Err(Error::Precondition(_))));
    for key in ["deep", "deep/key/below", "a//b", "../out"] {
        let refused = put(&store, key, Condition::default()).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::NoFileName(_)))), "{key}: {refused:?}");
    }
    assert_eq!(incoming(directory.path()), 0);
    assert_eq!(std::fs::read_dir(directory.path().join("files/deep")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_for_reading_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("files")).unwrap();
    std::fs::write(directory.path().join("files/key"), b"here").unwrap();
    let store = open(directory.path(), true).await;
    assert!(matches!(put(&store, "new", Condition::default()).await, Err(Error::Denied(_))));
    let removed = store.delete(ACCOUNT, BUCKET, "key", Condition::default()).await;
    assert!(matches!(removed, Err(Error::Denied(_))), "{removed:?}");
    assert!(store.open_object(ACCOUNT, BUCKET, "key").await.is_ok());
}
