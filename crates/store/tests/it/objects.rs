//! The object store: what is written comes back, whole or not at all, under any legal key.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use store::keys::KeyStore;
use store::objects::{Attributes, CompletedPart, Condition, ObjectStore, Refusal, Upload};
use store::{Clock, Database, Error};

pub const ACCOUNT: &str = "111111111111";
pub const BUCKET: &str = "bucket";

pub struct Objects {
    pub store: ObjectStore,
    pub clock: Clock,
    pub keys: KeyStore,
    directory: tempfile::TempDir,
}

impl Objects {
    pub async fn open() -> Objects {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(1_700_000_000_000);
        let (store, keys) = open(directory.path(), &clock).await;
        store.create_bucket(ACCOUNT, "us-east-1", BUCKET).await.unwrap();
        Objects { store, clock, keys, directory }
    }

    /// Opens the same directory again, as after a crash, and waits for the sweep.
    pub async fn reopened(self) -> Objects {
        let Objects { store, clock, keys, directory } = self;
        drop((store, keys));
        let (store, keys) = open(directory.path(), &clock).await;
        store.swept().await;
        Objects { store, clock, keys, directory }
    }

    pub async fn put(&self, key: &str, bytes: &[u8]) {
        self.put_if(key, bytes, Condition::default()).await.unwrap();
    }

    pub async fn put_if(&self, key: &str, bytes: &[u8], condition: Condition) -> Result<String, Error> {
        let mut incoming = self.store.begin(ACCOUNT, BUCKET).await?;
        incoming.write(bytes)?;
        let stored = self.store.commit(ACCOUNT, BUCKET, key, incoming, Attributes::default(), condition);
        stored.await.map(|object| object.etag)
    }

    pub async fn get(&self, key: &str) -> Result<Vec<u8>, Error> {
        let mut file = self.store.open_object(ACCOUNT, BUCKET, key).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    pub fn folder(&self) -> PathBuf {
        self.directory.path().join("buckets").join(BUCKET)
    }

    /// Every file below the bucket's folder.
    pub fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// Waits until what goes on in the background has left just so many files.
    async fn settle(&self, files: usize) {
        for _ in 0..2_000 {
            if self.files().len() == files {
                return;
            }
            // A read gives what is under way time to go on.
            self.store.bucket(ACCOUNT, BUCKET).await.unwrap();
        }
        panic!("stray files stay: {:?}", self.files());
    }

    pub async fn upload(&self, key: &str) -> Upload {
        self.store.create_upload(ACCOUNT, BUCKET, key, Attributes::default(), None, None).await.unwrap()
    }

    pub async fn part(&self, upload: &Upload, number: u32, bytes: &[u8]) -> CompletedPart {
        let mut incoming = self.store.begin_part(ACCOUNT, upload).await.unwrap();
        incoming.write(bytes).unwrap();
        let part = self.store.put_part(upload, number, incoming, BTreeMap::new()).await.unwrap();
        CompletedPart { number, etag: part.etag, checksums: BTreeMap::new() }
    }

    pub async fn complete(
        &self,
        upload: &Upload,
        named: &[CompletedPart],
    ) -> Result<store::objects::Object, Error> {
        let parts = self.store.named_parts(upload, named).await?;
        let none = BTreeMap::new();
        self.store.complete_upload(ACCOUNT, upload, parts, none, Condition::default()).await
    }
}

async fn open(directory: &Path, clock: &Clock) -> (ObjectStore, KeyStore) {
    let database = Database::open(&directory.join("modelyard.db")).unwrap();
    let master_key = directory.join("keys/master.key");
    let keys = KeyStore::open(database.clone(), &master_key, clock.clone()).await.unwrap();
    let store = ObjectStore::open(database, directory.join("buckets"), clock.clone(), keys.clone()).await;
    (store.unwrap(), keys)
}

pub fn is_missing(error: &Error, wanted: &str) -> bool {
    matches!(error, Error::Missing { kind, .. } if kind == wanted)
}

#[tokio::test]
async fn an_object_is_replaced_and_removed_and_leaves_no_file() {
    let objects = Objects::open().await;
    objects.put("models/a.bin", b"one").await;
    objects.put("models/a.bin", b"two!").await;
    assert_eq!(objects.get("models/a.bin").await.unwrap(), b"two!");
    let stored = objects.store.head(ACCOUNT, BUCKET, "models/a.bin").await.unwrap();
    assert_eq!((stored.size, stored.etag.as_str()), (4, "9f5b6d9a034d175868bf593885b7dc4e"));
    assert_eq!(objects.files().len(), 1, "the replaced version is gone");
    assert!(objects.files()[0].starts_with(objects.folder().join("models")), "the path can be read");
    assert!(objects.store.delete(ACCOUNT, BUCKET, "models/a.bin", Condition::default()).await.unwrap());
    assert!(!objects.store.delete(ACCOUNT, BUCKET, "models/a.bin", Condition::default()).await.unwrap());
    assert!(objects.files().is_empty());
    assert!(!objects.folder().join("models").exists(), "no empty folder stays");
    assert!(is_missing(&objects.get("models/a.bin").await.unwrap_err(), "object"));
}

#[tokio::test]
async fn a_reader_keeps_the_version_that_it_opened() {
    let objects = Objects::open().await;
    objects.put("key", b"old").await;
    let mut opened = objects.store.open_object(ACCOUNT, BUCKET, "key").await.unwrap();
    objects.put("key", b"new").await;
    let mut text = String::new();
    opened.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[tokio::test]
async fn folders_and_files_are_closed_to_others() {
    let objects = Objects::open().await;
    objects.put("a/b", b"x").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&objects.folder()), 0o700);
    assert_eq!(mode(&objects.folder().join("a")), 0o700);
    assert_eq!(mode(&objects.files()[0]), 0o600);
}

#[tokio::test]
async fn an_abandoned_write_leaves_nothing() {
    let objects = Objects::open().await;
    objects.put("key", b"old").await;
    let mut incoming = objects.store.begin(ACCOUNT, BUCKET).await.unwrap();
    incoming.write(b"half").unwrap();
    drop(incoming);
    assert_eq!(objects.get("key").await.unwrap(), b"old");
    assert_eq!(objects.files().len(), 1);
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_nothing_else() {
    let objects = Objects::open().await;
    objects.put("kept/key", b"kept").await;
    let upload = objects.upload("big").await;
    let part = objects.part(&upload, 1, b"part").await;
    let folder = objects.folder();
    // A write that did not finish, a version whose row was never written, and a file that somebody put there by hand.
    std::fs::write(folder.join(".incoming/0123456789abcdef0123456789abcdef"), b"half").unwrap();
    std::fs::create_dir_all(folder.join("lost/deep")).unwrap();
    std::fs::write(folder.join("lost/deep/key@0123456789abcdef0123456789abcdef"), b"stray").unwrap();
    std::fs::write(folder.join("kept/notes.txt"), b"by hand").unwrap();
    // A bucket whose row went before its folder did.
    let deleted = folder.with_file_name("deleted-bucket");
    std::fs::create_dir_all(deleted.join(".incoming")).unwrap();
    std::fs::write(deleted.join(".incoming/0123456789abcdef0123456789abcdef"), b"half").unwrap();
    let objects = objects.reopened().await;
    assert_eq!(objects.get("kept/key").await.unwrap(), b"kept");
    assert!(!folder.join("lost").exists());
    assert!(!deleted.exists());
    assert!(folder.join("kept/notes.txt").exists());
    assert_eq!(objects.files().len(), 3, "key, notes and part: {:?}", objects.files());
    objects.complete(&upload, &[part]).await.unwrap();
    assert_eq!(objects.get("big").await.unwrap(), b"part");
}

#[tokio::test]
async fn the_sweep_spares_what_is_being_written() {
    let objects = Objects::open().await;
    for number in 0..50 {
        objects.put(&format!("folder-{number}/key"), b"old").await;
    }
    let Objects { store, clock, keys, directory } = objects;
    drop((store, keys));
    // Writes race with the background sweep of the store that was just opened.
    let (store, keys) = open(directory.path(), &clock).await;
    let objects = Objects { store, clock, keys, directory };
    for number in 0..50 {
        objects.put(&format!("folder-{number}/key"), b"new").await;
    }
    objects.store.swept().await;
    for number in 0..50 {
        assert_eq!(objects.get(&format!("folder-{number}/key")).await.unwrap(), b"new");
    }
    assert_eq!(objects.files().len(), 50);
}

#[tokio::test]
async fn of_many_writers_that_want_to_be_first_one_is() {
    let objects = Arc::new(Objects::open().await);
    let writers: Vec<_> = (0..16)
        .map(|number| {
            let objects = objects.clone();
            tokio::spawn(async move {
                let condition = Condition { if_none_match: true, ..Condition::default() };
                objects.put_if("lock", format!("{number}").as_bytes(), condition).await
            })
        })
        .collect();
    let mut winners = Vec::new();
    for (number, writer) in writers.into_iter().enumerate() {
        match writer.await.unwrap() {
            Ok(_) => winners.push(number),
            Err(error) => assert!(matches!(error, Error::Precondition(_)), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(objects.get("lock").await.unwrap(), winners[0].to_string().as_bytes());
    assert_eq!(objects.files().len(), 1, "the losers' files are gone");
}

#[tokio::test]
async fn a_write_can_insist_on_the_version_it_replaces() {
    let objects = Objects::open().await;
    let matches = |etag: &str| Condition { if_match: Some(etag.to_owned()), if_none_match: false };
    let missing = objects.put_if("key", b"x", matches("*")).await.unwrap_err();
    assert!(is_missing(&missing, "object"));
    let first = objects.put_if("key", b"one", Condition::default()).await.unwrap();
    let second = objects.put_if("key", b"two", matches(&first)).await.unwrap();
    let late = objects.put_if("key", b"three", matches(&first)).await.unwrap_err();
    assert!(matches!(late, Error::Precondition(_)));
    let spared = objects.store.delete(ACCOUNT, BUCKET, "key", matches(&first)).await.unwrap_err();
    assert!(matches!(spared, Error::Precondition(_)));
    assert_eq!(objects.get("key").await.unwrap(), b"two");
    assert!(objects.store.delete(ACCOUNT, BUCKET, "key", matches(&second)).await.unwrap());
}

#[tokio::test]
async fn many_deletions_answer_each_for_itself() {
    let objects = Objects::open().await;
    for key in ["a", "b"] {
        objects.put(key, b"x").await;
    }
    let other = Condition { if_match: Some("other".into()), if_none_match: false };
    let keys = vec![
        ("a".to_owned(), Condition::default()),
        ("b".to_owned(), other),
        ("c".to_owned(), Condition::default()),
    ];
    let done = objects.store.delete_many(ACCOUNT, BUCKET, keys).await.unwrap();
    assert!(matches!(done.as_slice(), [Ok(true), Err(Error::Precondition(_)), Ok(false)]), "{done:?}");
    assert_eq!(objects.get("b").await.unwrap(), b"x");
    assert_eq!(objects.files().len(), 1);
}

#[tokio::test]
async fn a_deletion_of_what_was_read_spares_what_was_written_since() {
    let objects = Objects::open().await;
    for key in ["kept", "gone"] {
        objects.put(key, b"x").await;
    }
    let read = objects.store.list_keys(ACCOUNT, BUCKET, "", None, 10).await.unwrap();
    objects.put("kept", b"x").await;
    assert_eq!(objects.store.delete_unchanged(ACCOUNT, BUCKET, read.clone()).await.unwrap(), 1);
    assert_eq!(objects.store.delete_unchanged(ACCOUNT, BUCKET, read).await.unwrap(), 0);
    assert_eq!(objects.get("kept").await.unwrap(), b"x");
    assert!(is_missing(&objects.get("gone").await.unwrap_err(), "object"));
}

#[tokio::test]
async fn buckets_belong_to_accounts_and_names_to_all() {
    let objects = Objects::open().await;
    let store = &objects.store;
    assert!(!store.create_bucket(ACCOUNT, "us-east-1", BUCKET).await.unwrap(), "it is there already");
    let taken = store.create_bucket("222222222222", "us-east-1", BUCKET).await.unwrap_err();
    assert!(matches!(taken, Error::Exists { .. }));
    for name in ["..", "a/b", "Upper", "ab", ".hidden", "a..b"] {
        let refused = store.create_bucket(ACCOUNT, "us-east-1", name).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::BucketName(_))), "{name}");
    }
    objects.put("key", b"mine").await;
    let foreign = store.head("222222222222", BUCKET, "key").await.unwrap_err();
    assert!(matches!(foreign, Error::Denied(_)));
    let foreign = store.begin("222222222222", BUCKET).await.err().unwrap();
    assert!(matches!(foreign, Error::Denied(_)));
    assert!(store.buckets("222222222222").await.unwrap().is_empty());
    let full = store.delete_bucket(ACCOUNT, BUCKET).await.unwrap_err();
    assert!(matches!(full, Error::WrongStatus { .. }));
    store.delete(ACCOUNT, BUCKET, "key", Condition::default()).await.unwrap();
    store.delete_bucket(ACCOUNT, BUCKET).await.unwrap();
    assert!(!objects.folder().exists());
    assert!(is_missing(&store.bucket(ACCOUNT, BUCKET).await.unwrap_err(), "bucket"));
}

#[tokio::test]
async fn a_write_begun_before_its_bucket_went_is_refused_and_harmless() {
    let objects = Objects::open().await;
    let mut incoming = objects.store.begin(ACCOUNT, BUCKET).await.unwrap();
    incoming.write(b"late").unwrap();
    objects.store.delete_bucket(ACCOUNT, BUCKET).await.unwrap();
    let condition = Condition::default();
    let late = objects.store.commit(ACCOUNT, BUCKET, "key", incoming, Attributes::default(), condition).await;
    assert!(is_missing(&late.unwrap_err(), "bucket"));
    objects.store.create_bucket(ACCOUNT, "us-east-1", BUCKET).await.unwrap();
    objects.put("key", b"new").await;
    assert_eq!(objects.get("key").await.unwrap(), b"new");
}

#[tokio::test]
async fn a_finished_file_is_taken_in() {
    let objects = Objects::open().await;
    let source = objects.directory.path().join("model.tar.gz");
    std::fs::write(&source, b"model").unwrap();
    let mut held = std::fs::File::options().write(true).open(&source).unwrap();
    let kind = Some("application/gzip");
    let put = objects.store.put_from_path(ACCOUNT, BUCKET, "m/model.tar.gz", &source, kind, None);
    let stored = put.await.unwrap();
    assert_eq!(stored.etag, "20f35e630daf44dbfa4c3f68f5399d8c");
    assert_eq!(stored.attributes.headers["content-type"], "application/gzip");
    std::io::Write::write_all(&mut held, b"other").unwrap();
    assert_eq!(
        objects.get("m/model.tar.gz").await.unwrap(),
        b"model",
        "whoever made the file cannot change it"
    );
}

#[tokio::test]
async fn keys_beyond_the_limit_are_refused() {
    let objects = Objects::open().await;
    let longest = "é".repeat(512);
    objects.put(&longest, b"x").await;
    assert_eq!(objects.get(&longest).await.unwrap(), b"x");
    for (key, wanted) in [(format!("{longest}x"), Refusal::KeyTooLong), (String::new(), Refusal::KeyEmpty)] {
        let early = objects.store.check(ACCOUNT, BUCKET, &key, &Condition::default()).await.unwrap_err();
        let refused = objects.put_if(&key, b"x", Condition::default()).await.unwrap_err();
        for error in [early, refused] {
            assert!(matches!(&error, Error::Refused(refusal) if *refusal == wanted), "{error}");
        }
    }
    assert_eq!(objects.files().len(), 1);
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_whole_or_leaves_nothing() {
    let objects = Objects::open().await;
    objects.put("key", b"first").await;
    for polls in 1..20 {
        let put = Box::pin(objects.put_if("key", b"other", Condition::default()));
        drop_after(put, polls).await;
        objects.settle(1).await;
    }
    assert!(objects.get("key").await.is_ok());
}

/// Polls a future so many times, then drops it wherever it is, as when a client hangs up.
async fn drop_after<F: Future>(mut future: std::pin::Pin<Box<F>>, mut polls: usize) {
    std::future::poll_fn(|context| {
        polls -= 1;
        match future.as_mut().poll(context) {
            std::task::Poll::Pending if polls > 0 => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    })
    .await;
}

#[tokio::test]
async fn tags_and_documents_are_kept_and_go_with_what_they_belong_to() {
    let objects = Objects::open().await;
    let store = &objects.store;
    objects.put("key", b"x").await;
    let before = store.head(ACCOUNT, BUCKET, "key").await.unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    store.set_tags(ACCOUNT, BUCKET, "key", tags.clone()).await.unwrap();
    let after = store.head(ACCOUNT, BUCKET, "key").await.unwrap();
    assert_eq!(
        (after.attributes.tags, after.etag, after.modified_at),
        (tags, before.etag, before.modified_at)
    );
    let missing = store.set_tags(ACCOUNT, BUCKET, "other", BTreeMap::new()).await.unwrap_err();
    assert!(is_missing(&missing, "object"));
    objects.put("key", b"y").await;
    assert!(store.head(ACCOUNT, BUCKET, "key").await.unwrap().attributes.tags.is_empty());

    store.set_bucket_document(ACCOUNT, BUCKET, "policy", Some("one".into())).await.unwrap();
    store.set_bucket_document(ACCOUNT, BUCKET, "policy", Some("two".into())).await.unwrap();
    assert_eq!(store.bucket_document(ACCOUNT, BUCKET, "policy").await.unwrap().as_deref(), Some("two"));
    let foreign = store.bucket_document("222222222222", BUCKET, "policy").await.unwrap_err();
    assert!(matches!(foreign, Error::Denied(_)));
    let all = store.documents("policy").await.unwrap();
    assert_eq!(all, [(ACCOUNT.to_owned(), BUCKET.to_owned(), "two".to_owned())]);
    store.delete(ACCOUNT, BUCKET, "key", Condition::default()).await.unwrap();
    store.delete_bucket(ACCOUNT, BUCKET).await.unwrap();
    store.create_bucket(ACCOUNT, "us-east-1", BUCKET).await.unwrap();
    assert_eq!(store.bucket_document(ACCOUNT, BUCKET, "policy").await.unwrap(), None);
}

#[tokio::test]
async fn a_bucket_that_is_made_again_at_once_keeps_what_is_put() {
    let objects = Objects::open().await;
    let store = &objects.store;
    for number in 0..5 {
        // The second begins before the first has removed the folder.
        let (deleted, made) = tokio::join!(
            store.delete_bucket(ACCOUNT, BUCKET),
            store.create_bucket(ACCOUNT, "us-east-1", BUCKET),
        );
        assert!(deleted.is_ok() && made.unwrap(), "round {number}");
        objects.put("key", b"kept").await;
        assert_eq!(objects.get("key").await.unwrap(), b"kept");
        store.delete(ACCOUNT, BUCKET, "key", Condition::default()).await.unwrap();
    }
}

/// Keys that are likely to collide, to escape or to be spelled differently on the way.
pub fn nasty_key() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("."),
        Just(".."),
        Just("../"),
        Just("@"),
        Just("%"),
        Just("%2F"),
        Just("%~"),
        Just("a"),
        Just("A"),
        Just("\0"),
        Just("\n"),
        Just("\\"),
        Just(" "),
        Just("+"),
        Just("é"),
        Just("e\u{301}"),
        Just("🦀"),
        Just(".incoming"),
        Just("\u{7f}"),
        Just("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ];
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_key_round_trips_and_none_touches_another(keys in proptest::collection::btree_set(nasty_key(), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let objects = Objects::open().await;
            for key in &keys {
                objects.put(key, key.as_bytes()).await;
            }
            for key in &keys {
                assert_eq!(objects.get(key).await.unwrap(), key.as_bytes(), "{key:?}");
            }
            // All files lie in the bucket, one for each key.
            assert_eq!(objects.files().len(), keys.len());
            let listed = objects.store.list_keys(ACCOUNT, BUCKET, "", None, 100).await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|object| object.key).collect();
            assert_eq!(listed, keys.iter().cloned().collect::<Vec<_>>());
            let objects = objects.reopened().await;
            for key in &keys {
                assert_eq!(objects.get(key).await.unwrap(), key.as_bytes(), "{key:?} after the sweep");
                objects.store.delete(ACCOUNT, BUCKET, key, Condition::default()).await.unwrap();
            }
            assert!(objects.files().is_empty());
        });
    }
}
