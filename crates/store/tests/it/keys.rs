//! Encryption keys: whose they are, when they work, and what a lost master key means.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use store::keys::{Key, KeyProblem, KeyReference, KeyState, KeyStore, Naming};
use store::{Clock, Database, Error};

const ACCOUNT: &str = "111111111111";
const REGION: &str = "us-east-1";

async fn open(directory: &Path, clock: &Clock) -> Result<KeyStore, Error> {
    let database = Database::open(&directory.join("modelyard.db")).unwrap();
    KeyStore::open(database, &directory.join("keys/master.key"), clock.clone()).await
}

async fn create(keys: &KeyStore) -> Key {
    let arn = |key: &Key| format!("key/{}", key.id);
    keys.create(ACCOUNT, REGION, "text", "{}", Vec::new(), arn).await.unwrap()
}

fn problem<T>(result: Result<T, Error>) -> KeyProblem {
    match result.err() {
        Some(Error::Key(problem)) => problem,
        other => panic!("not a problem of a key: {other:?}"),
    }
}

fn id(key: &Key) -> KeyReference {
    KeyReference::Id(key.id.clone())
}

#[tokio::test]
async fn what_is_encrypted_names_its_key_and_belongs_to_its_account() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1_000);
    let keys = open(directory.path(), &clock).await.unwrap();
    let (key, other) = (create(&keys).await, create(&keys).await);
    let context = BTreeMap::from([("purpose".to_owned(), "test".to_owned())]);
    let blob = keys.encrypt(&key, &context, b"plain").await.unwrap();
    let (found, plain) = keys.decrypt(ACCOUNT, Some(REGION), &context, &blob).await.unwrap();
    assert_eq!((found.id.as_str(), plain.as_slice()), (key.id.as_str(), b"plain".as_slice()));
    let refused = async |account: &str, region: &str, context: &BTreeMap<String, String>, blob: &[u8]| {
        problem(keys.decrypt(account, Some(region), context, blob).await)
    };
    assert_eq!(refused(ACCOUNT, REGION, &BTreeMap::new(), &blob).await, KeyProblem::Ciphertext);
    assert_eq!(refused("222222222222", REGION, &context, &blob).await, KeyProblem::UnknownKey);
    assert_eq!(refused(ACCOUNT, "eu-west-1", &context, &blob).await, KeyProblem::UnknownKey);
    assert_eq!(refused(ACCOUNT, REGION, &context, b"short").await, KeyProblem::Ciphertext);
    let mut exchanged = blob.clone();
    exchanged[1..17].copy_from_slice(&keys.encrypt(&other, &context, b"x").await.unwrap()[1..17]);
    assert_eq!(refused(ACCOUNT, REGION, &context, &exchanged).await, KeyProblem::Ciphertext);

    let reopened = open(directory.path(), &clock).await.unwrap();
    assert_eq!(reopened.decrypt(ACCOUNT, None, &context, &blob).await.unwrap().1, b"plain");
}

#[tokio::test]
async fn a_key_goes_when_its_time_comes() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1_000);
    let keys = open(directory.path(), &clock).await.unwrap();
    let key = create(&keys).await;
    keys.point_alias(ACCOUNT, REGION, "alias/a", &id(&key), Naming::New).await.unwrap();
    let blob = keys.encrypt(&key, &BTreeMap::new(), b"plain").await.unwrap();
    let schedule = |key: &mut Key, now_ms: i64| {
        (key.state, key.deletion_at) = (KeyState::PendingDeletion, Some(now_ms + 500));
        Ok(())
    };
    keys.update(ACCOUNT, REGION, &id(&key), schedule).await.unwrap();
    let pending = KeyProblem::PendingDeletion(key.id.clone());
    assert_eq!(problem(keys.encrypt(&key, &BTreeMap::new(), b"x").await), pending);
    assert_eq!(problem(keys.decrypt(ACCOUNT, None, &BTreeMap::new(), &blob).await), pending);
    assert_eq!(problem(keys.point_alias(ACCOUNT, REGION, "alias/b", &id(&key), Naming::New).await), pending);
    clock.advance(500);
    let missing = KeyProblem::Missing(key.id.clone());
    assert_eq!(
        problem(keys.find(ACCOUNT, REGION, &id(&key)).await),
        missing,
        "at its time, not at the next purge"
    );
    assert_eq!(keys.list(ACCOUNT, REGION, "", 10).await.unwrap(), []);
    keys.purge().await.unwrap();
    assert_eq!(keys.aliases(ACCOUNT, REGION, None, "", 10).await.unwrap(), []);
    assert_eq!(problem(keys.decrypt(ACCOUNT, None, &BTreeMap::new(), &blob).await), KeyProblem::UnknownKey);
}

#[tokio::test]
async fn the_managed_key_is_made_once_and_nobody_changes_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = open(directory.path(), &Clock::fixed(0)).await.unwrap();
    let ask = || keys.managed(ACCOUNT, REGION, "alias/aws/s3", "text");
    let (one, two) = tokio::join!(ask(), ask());
    assert_eq!(one.as_ref().unwrap().id, two.unwrap().id);
    let key = one.unwrap();
    let changed = keys.update(ACCOUNT, REGION, &id(&key), |_, _| Ok(())).await;
    assert_eq!(problem(changed), KeyProblem::Managed(key.id));
}

#[tokio::test]
async fn aliases_point_at_one_key_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let keys = open(directory.path(), &Clock::fixed(0)).await.unwrap();
    let (one, two) = (create(&keys).await, create(&keys).await);
    let alias = KeyReference::Alias("alias/a".into());
    assert_eq!(problem(keys.find(ACCOUNT, REGION, &alias).await), KeyProblem::MissingAlias("alias/a".into()));
    keys.point_alias(ACCOUNT, REGION, "alias/a", &id(&one), Naming::New).await.unwrap();
    let again = keys.point_alias(ACCOUNT, REGION, "alias/a", &id(&two), Naming::New).await;
    assert_eq!(problem(again), KeyProblem::AliasExists("alias/a".into()));
    keys.point_alias(ACCOUNT, REGION, "alias/a", &id(&two), Naming::Present).await.unwrap();
    assert_eq!(keys.find(ACCOUNT, REGION, &alias).await.unwrap().id, two.id);
    let elsewhere = keys.find(ACCOUNT, "eu-west-1", &alias).await;
    assert_eq!(problem(elsewhere), KeyProblem::MissingAlias("alias/a".into()));
    keys.delete_alias(ACCOUNT, REGION, "alias/a").await.unwrap();
    let gone = keys.delete_alias(ACCOUNT, REGION, "alias/a").await;
    assert_eq!(problem(gone), KeyProblem::MissingAlias("alias/a".into()));
}

#[tokio::test]
async fn the_master_key_is_private_and_must_be_the_right_one() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(0);
    open(directory.path(), &clock).await.unwrap();
    let path = directory.path().join("keys/master.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let right = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = open(directory.path(), &clock).await.err().unwrap().to_string();
    assert!(text.contains("is missing: put it back from a backup"), "{text}");
    assert!(!path.exists(), "no other key takes its place");
    for (wrong, wanted) in
        [("00".repeat(32), "is not the master key that"), ("short".into(), "is not a master key")]
    {
        std::fs::write(&path, wrong).unwrap();
        let text = open(directory.path(), &clock).await.err().unwrap().to_string();
        assert!(text.contains(wanted), "{text}");
    }
    std::fs::write(&path, right).unwrap();
    assert!(open(directory.path(), &clock).await.is_ok());
}
