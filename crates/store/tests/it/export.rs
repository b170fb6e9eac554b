//! Objects as files outside the store: shared or not, and what replaces and deletions do to them.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use store::keys::KeyStore;
use store::objects::{Attributes, Condition, Export, ExportedObject, Object, ObjectStore, Protection};
use store::{Clock, Database, Error};

const ACCOUNT: &str = "111111111111";
const NOW_MS: i64 = 1_700_000_000_123;

struct Buckets {
    store: ObjectStore,
    directory: tempfile::TempDir,
}

impl Buckets {
    async fn open() -> Buckets {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("test.db")).unwrap();
        let root = directory.path().join("buckets");
        let clock = Clock::fixed(NOW_MS);
        let master_key = directory.path().join("keys/master.key");
        let keys = KeyStore::open(database.clone(), &master_key, clock.clone());
        let store = ObjectStore::open(database, root, clock, keys.await.unwrap()).await.unwrap();
        store.create_bucket(ACCOUNT, "us-east-1", "bucket").await.unwrap();
        Buckets { store, directory }
    }

    async fn put(&self, key: &str, content: &str) -> Object {
        let mut incoming = self.store.begin(ACCOUNT, "bucket").await.unwrap();
        incoming.write(content.as_bytes()).unwrap();
        let (attributes, condition) = (Attributes::default(), Condition::default());
        self.store.commit(ACCOUNT, "bucket", key, incoming, attributes, condition).await.unwrap()
    }

    fn target(&self, path: &str) -> PathBuf {
        self.directory.path().join("out").join(path)
    }

    async fn export(&self, objects: &[(&Object, &str)], how: Export) -> Result<(), Error> {
        let exported = objects.iter().map(|(object, path)| ExportedObject {
            bucket: "bucket".into(),
            object: (*object).clone(),
            target: self.target(path),
        });
        self.store.export(ACCOUNT, exported.collect(), how).await
    }
}

#[tokio::test]
async fn shared_files_keep_what_is_replaced_or_deleted() {
    let buckets = Buckets::open().await;
    let (one, two) = (buckets.put("deep/one", "first").await, buckets.put("two", "kept").await);
    buckets.export(&[(&one, "deep/one"), (&two, "two")], Export::Shared).await.unwrap();
    buckets.put("deep/one", "second").await;
    buckets.store.delete(ACCOUNT, "bucket", "two", Condition::default()).await.unwrap();
    assert_eq!(fs::read_to_string(buckets.target("deep/one")).unwrap(), "first");
    assert_eq!(fs::read_to_string(buckets.target("two")).unwrap(), "kept");
    let mode = |path| fs::metadata(buckets.target(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("deep"), mode("deep/one")), (0o755, 0o644), "another user has to read it");
}

#[tokio::test]
async fn own_files_may_be_changed() {
    let buckets = Buckets::open().await;
    let one = buckets.put("one", "stored").await;
    buckets.export(&[(&one, "one")], Export::Own).await.unwrap();
    let metadata = fs::metadata(buckets.target("one")).unwrap();
    assert_eq!(metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000, NOW_MS);
    fs::write(buckets.target("one"), "changed").unwrap();
    let (_, file) = buckets.store.open_version(ACCOUNT, "bucket", "one").await.unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "stored");
}

#[tokio::test]
async fn a_version_that_went_since_it_was_listed_is_looked_up_again() {
    let buckets = Buckets::open().await;
    let (stale, gone) = (buckets.put("one", "first").await, buckets.put("gone", "x").await);
    buckets.put("one", "second").await;
    for how in [Export::Shared, Export::Own] {
        let path = format!("{how:?}");
        buckets.export(&[(&stale, &path)], how).await.unwrap();
        assert_eq!(fs::read_to_string(buckets.target(&path)).unwrap(), "second");
    }
    buckets.store.delete(ACCOUNT, "bucket", "gone", Condition::default()).await.unwrap();
    let error = buckets.export(&[(&gone, "gone")], Export::Shared).await.unwrap_err();
    assert!(matches!(&error, Error::Missing { name, .. } if name == "gone"), "{error}");
}

#[tokio::test]
async fn two_objects_cannot_be_one_path() {
    let buckets = Buckets::open().await;
    let (file, below) = (buckets.put("a", "file").await, buckets.put("a/b", "below").await);
    for how in [Export::Shared, Export::Own] {
        let top = format!("{how:?}/a");
        let error = buckets.export(&[(&file, &top), (&below, &format!("{top}/b"))], how).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains("\"a/b\"")), "{error}");
    }
}

#[tokio::test]
async fn many_keys_are_found_in_their_order() {
    let buckets = Buckets::open().await;
    buckets.put("b", "").await;
    buckets.put("a", "").await;
    let keys = ["b", "none", "a"].map(str::to_owned).to_vec();
    let found = buckets.store.find_many(ACCOUNT, "bucket", keys.clone()).await.unwrap();
    let found: Vec<Option<String>> = found.into_iter().map(|row| row.map(|row| row.key)).collect();
    assert_eq!(found, [Some("b".to_owned()), None, Some("a".to_owned())]);
    assert!(buckets.store.find_many("222222222222", "bucket", keys).await.is_err());
}

#[tokio::test]
async fn encrypted_objects_become_plain_copies() {
    let buckets = Buckets::open().await;
    let mut incoming =
        buckets.store.begin_protected(ACCOUNT, "bucket", Some(Protection::Account)).await.unwrap();
    incoming.write(&[7; 100_000]).unwrap();
    let (attributes, condition) = (Attributes::default(), Condition::default());
    let stored = buckets.store.commit(ACCOUNT, "bucket", "secret", incoming, attributes, condition).await;
    let stored = stored.unwrap();
    for (how, path) in [(Export::Shared, "shared"), (Export::Own, "own")] {
        buckets.export(&[(&stored, path)], how).await.unwrap();
        let target = buckets.target(path);
        assert_eq!(fs::read(&target).unwrap(), [7; 100_000]);
        assert_eq!(fs::metadata(&target).unwrap().nlink(), 1, "{how:?} shares nothing with the store");
    }
}
