//! Encrypted objects: nothing readable on the disk, all of it through the store, and only with a key that may be used.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use store::Error;
use store::keys::{Key, KeyProblem, KeyReference, KeyState};
use store::objects::{Attributes, CompletedPart, Condition, Object, Protection, SMALLEST_PART_BYTES};

use crate::objects::{ACCOUNT, BUCKET, Objects};

const TEXT: &[u8] = b"a text that must not be found on the disk";

fn with_key(reference: Option<&str>) -> Protection {
    let context = BTreeMap::from([("team".to_owned(), "vision".to_owned())]);
    Protection::Key { reference: reference.map(str::to_owned), context, bucket_key: false }
}

async fn put(objects: &Objects, key: &str, bytes: &[u8], wish: Option<Protection>) -> Object {
    let mut incoming = objects.store.begin_protected(ACCOUNT, BUCKET, wish).await.unwrap();
    incoming.write(bytes).unwrap();
    let (attributes, condition) = (Attributes::default(), Condition::default());
    objects.store.commit(ACCOUNT, BUCKET, key, incoming, attributes, condition).await.unwrap()
}

/// Whether some file of the buckets holds these bytes.
fn on_disk(objects: &Objects, wanted: &[u8]) -> bool {
    let mut folders = vec![objects.folder()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if std::fs::read(entry.path()).unwrap().windows(wanted.len()).any(|bytes| bytes == wanted)
            {
                return true;
            }
        }
    }
    false
}

async fn key(objects: &Objects) -> Key {
    let arn = |key: &Key| key.id.clone();
    objects.keys.create(ACCOUNT, "us-east-1", "", "{}", Vec::new(), arn).await.unwrap()
}

#[tokio::test]
async fn bytes_come_back_and_do_not_lie_open() {
    let objects = Objects::open().await;
    let key = key(&objects).await;
    put(&objects, "plain", TEXT, None).await;
    assert!(on_disk(&objects, TEXT), "the search finds what is not encrypted");
    objects.store.delete(ACCOUNT, BUCKET, "plain", Condition::default()).await.unwrap();
    let plain_etag = put(&objects, "account", TEXT, Some(Protection::Account)).await.etag;
    let own = put(&objects, "own", TEXT, Some(with_key(Some(&key.id)))).await;
    let managed = put(&objects, "managed", TEXT, Some(with_key(None))).await;
    assert!(!on_disk(&objects, TEXT));
    for key in ["account", "own", "managed"] {
        assert_eq!(objects.get(key).await.unwrap(), TEXT, "{key}");
        assert_eq!(objects.store.head(ACCOUNT, BUCKET, key).await.unwrap().size, TEXT.len() as u64);
    }
    assert_ne!(own.etag, plain_etag, "the tag does not say what the bytes are");
    assert_eq!(own.attributes.encryption.unwrap().key.unwrap().id, key.id);
    assert_ne!(managed.attributes.encryption.unwrap().key.unwrap().id, key.id);
    let objects = objects.reopened().await;
    assert_eq!(objects.get("own").await.unwrap(), TEXT);
}

#[tokio::test]
async fn a_key_that_may_not_be_used_opens_nothing() {
    let objects = Objects::open().await;
    let key = key(&objects).await;
    put(&objects, "own", TEXT, Some(with_key(Some(&key.id)))).await;
    let reference = KeyReference::Id(key.id.clone());
    let disable = |key: &mut Key, _| {
        key.state = KeyState::Disabled;
        Ok(())
    };
    objects.keys.update(ACCOUNT, "us-east-1", &reference, disable).await.unwrap();
    let disabled = KeyProblem::Disabled(key.id.clone());
    let read = objects.get("own").await;
    assert!(matches!(&read, Err(Error::Key(problem)) if *problem == disabled), "{read:?}");
    let wish = Some(with_key(Some(&key.id)));
    let written = objects.store.begin_protected(ACCOUNT, BUCKET, wish).await.err().unwrap();
    assert!(matches!(written, Error::Key(problem) if problem == disabled));
    let wish = Some(with_key(Some("alias/none")));
    let unknown = objects.store.begin_protected(ACCOUNT, BUCKET, wish).await.err().unwrap();
    assert!(matches!(unknown, Error::Key(KeyProblem::MissingAlias(_))));
}

#[tokio::test]
async fn the_bucket_prescribes_where_a_write_does_not() {
    let objects = Objects::open().await;
    let set = |wish: Option<Protection>| {
        let store = objects.store.clone();
        async move { store.set_default_protection(ACCOUNT, BUCKET, wish.as_ref()).await.unwrap() }
    };
    set(Some(Protection::Account)).await;
    assert!(put(&objects, "by default", TEXT, None).await.attributes.encryption.is_some());
    assert!(!on_disk(&objects, TEXT));
    set(None).await;
    assert!(put(&objects, "plain", TEXT, None).await.attributes.encryption.is_none());
    assert_eq!(objects.get("by default").await.unwrap(), TEXT, "what is written stays as it is");
}

#[tokio::test]
async fn parts_are_joined_under_the_key_of_their_upload() {
    let objects = Objects::open().await;
    let wish = Some(with_key(None));
    let upload =
        objects.store.create_upload(ACCOUNT, BUCKET, "big", Attributes::default(), None, wish).await.unwrap();
    let first: Vec<u8> = TEXT.iter().copied().cycle().take(SMALLEST_PART_BYTES as usize).collect();
    let mut named: Vec<CompletedPart> = Vec::new();
    for (number, bytes) in [(1, first.as_slice()), (2, TEXT)] {
        named.push(objects.part(&upload, number, bytes).await);
    }
    assert!(!on_disk(&objects, TEXT), "parts lie encrypted");
    let mut plain = objects.store.begin(ACCOUNT, BUCKET).await.unwrap();
    plain.write(TEXT).unwrap();
    assert!(objects.store.put_part(&upload, 3, plain, BTreeMap::new()).await.is_err(), "a plain part");
    let object = objects.complete(&upload, &named).await.unwrap();
    assert_eq!(object.size, (first.len() + TEXT.len()) as u64);
    assert!(!on_disk(&objects, TEXT));
    let whole = [first.as_slice(), TEXT].concat();
    assert!(objects.get("big").await.unwrap() == whole);
    let (_, mut file) = objects.store.open_version(ACCOUNT, BUCKET, "big").await.unwrap();
    file.seek(SeekFrom::Start(first.len() as u64 - 7)).unwrap();
    let mut bytes = [0; 14];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, whole[first.len() - 7..first.len() + 7]);
}
