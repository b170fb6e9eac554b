//! Failures of the same cause are found again, in their order, and within their account alone.

use store::Database;
use store::failures::{Failure, Occurrence, Occurrences};
use store::resources::ResourceKey;

fn failure(account: &str, name: &str, fingerprint: &str, at: i64) -> Failure {
    let key = ResourceKey::new(account, "us-east-1", "training-job", name);
    Failure { key, fingerprint: fingerprint.into(), cause: "exception".into(), at }
}

#[tokio::test]
async fn earlier_and_later_failures_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("db")).unwrap();
    let all = [
        failure("1", "a", "f", 10),
        failure("1", "b", "f", 20),
        failure("1", "b2", "f", 20),
        failure("1", "c", "other", 25),
        failure("2", "d", "f", 26),
        failure("1", "a", "f", 30),
        failure("1", "a", "f", 30),
    ];
    database
        .write(move |session| all.iter().try_for_each(|failure| session.record_failure(failure)))
        .await
        .unwrap();
    let around = |at: Failure| database.read(move |session| session.failures_around(&at));
    let seen = |name: &str, at| Some(Occurrence { name: name.into(), at });
    let (earlier, later) = around(failure("1", "b2", "f", 20)).await.unwrap();
    assert_eq!(earlier, Occurrences { count: 2, first: seen("a", 10), last: seen("b", 20) });
    assert_eq!(later, Occurrences { count: 1, first: seen("a", 30), last: seen("a", 30) });
    let (earlier, later) = around(failure("1", "c", "other", 25)).await.unwrap();
    assert_eq!((earlier, later), (Occurrences::default(), Occurrences::default()));
}
