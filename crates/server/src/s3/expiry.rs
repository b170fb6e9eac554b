//! Acts on lifecycle rules: expired objects are removed, and uploads that nobody completes are given up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use s3s::dto::*;
use store::objects::{Object, ObjectStore};
use tokio::sync::Notify;

use super::lifecycle::{DAY_MS, DOCUMENT};

/// How often the rules are looked at. S3 itself takes up to days.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// Objects or uploads that are looked at together.
const BATCH: usize = 1000;

/// Acts on the rules of all buckets now and then, and when some change, for as long as the store lives.
pub fn start(objects: &Arc<ObjectStore>) -> Arc<Notify> {
    let changed = Arc::new(Notify::new());
    let (store, woken): (Weak<ObjectStore>, _) = (Arc::downgrade(objects), changed.clone());
    tokio::spawn(async move {
        while let Some(objects) = store.upgrade() {
            act(&objects).await;
            drop(objects);
            // Time passes or rules change; which of both does not matter.
            let _ = tokio::time::timeout(PERIOD, woken.notified()).await;
        }
    });
    changed
}

/// Acts on the rules of all buckets once. A bucket that fails is tried again the next time.
async fn act(objects: &ObjectStore) {
    let documents = match objects.documents(DOCUMENT).await {
        Ok(documents) => documents,
        Err(error) => return tracing::warn!(%error, "the lifecycle rules could not be read"),
    };
    for (account, bucket, text) in documents {
        let done = match serde_json::from_str::<LifecycleRules>(&text) {
            Ok(rules) => act_on(objects, &account, &bucket, &rules).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::warn!(bucket, %error, "the lifecycle rules of a bucket could not be acted on");
        }
    }
}

async fn act_on(
    objects: &ObjectStore,
    account: &str,
    bucket: &str,
    rules: &LifecycleRules,
) -> store::Result<()> {
    let now_ms = objects.now_ms();
    for rule in rules.iter().filter(|rule| rule.status.as_str() == ExpirationStatus::ENABLED) {
        if rule.expiration.is_some() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = objects.list_keys(account, bucket, prefix(rule), after.as_deref(), BATCH).await?;
                let full = page.len() == BATCH;
                after = page.last().map(|object| object.key.clone().into_bytes());
                let expired: Vec<Object> =
                    page.into_iter().filter(|object| is_expired(rule, object, now_ms)).collect();
                if !expired.is_empty() {
                    let removed = objects.delete_unchanged(account, bucket, expired).await?;
                    tracing::info!(bucket, removed, rule = rule.id, "objects expired");
                }
                if !full {
                    break;
                }
            }
        }
        let abort = rule.abort_incomplete_multipart_upload.as_ref();
        if let Some(days) = abort.and_then(|abort| abort.days_after_initiation) {
            give_up(objects, account, bucket, prefix(rule), now_ms, i64::from(days)).await?;
        }
    }
    Ok(())
}

async fn give_up(
    objects: &ObjectStore,
    account: &str,
    bucket: &str,
    prefix: &str,
    now_ms: i64,
    days: i64,
) -> store::Result<()> {
    let mut after = None;
    loop {
        let page = objects.uploads(account, bucket, prefix, after.take(), BATCH).await?;
        let full = page.len() == BATCH;
        after = page.last().map(|upload| (upload.key.clone(), upload.id.clone()));
        for upload in page.iter().filter(|upload| now_ms >= due_ms(upload.created_at, days)) {
            match objects.abort_upload(upload).await {
                // Completed or given up meanwhile.
                Ok(()) | Err(store::Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !full {
            return Ok(());
        }
    }
}

/// When something of that time is due: so many days later, at the next midnight UTC, as S3 rounds.
fn due_ms(at_ms: i64, days: i64) -> i64 {
    let exact = at_ms + days * DAY_MS;
    let midnight = exact.div_euclid(DAY_MS) * DAY_MS;
    if midnight == exact { exact } else { midnight + DAY_MS }
}

/// Milliseconds since 1970.
pub fn millis(at: &Timestamp) -> i64 {
    let at = time::OffsetDateTime::from(at.clone());
    at.unix_timestamp() * 1000 + i64::from(at.millisecond())
}

fn prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter.as_ref();
    let and = filter.and_then(|filter| filter.and.as_ref());
    let given = [
        rule.prefix.as_deref(),
        filter.and_then(|filter| filter.prefix.as_deref()),
        and.and_then(|and| and.prefix.as_deref()),
    ];
    given.into_iter().flatten().next().unwrap_or_default()
}

fn is_expired(rule: &LifecycleRule, object: &Object, now_ms: i64) -> bool {
    let due = rule.expiration.as_ref().is_some_and(|expiration| {
        expiration.date.as_ref().is_some_and(|date| now_ms >= millis(date))
            || expiration.days.is_some_and(|days| now_ms >= due_ms(object.modified_at, i64::from(days)))
    });
    due && matches(rule, object)
}

/// Whether the filter of a rule takes the object.
fn matches(rule: &LifecycleRule, object: &Object) -> bool {
    let Some(filter) = &rule.filter else { return object.key.starts_with(prefix(rule)) };
    let and = filter.and.as_ref();
    let tags = filter.tag.iter().chain(and.and_then(|and| and.tags.as_ref()).into_iter().flatten());
    let has = |tag: &Tag| {
        let value = tag.key.as_ref().and_then(|key| object.attributes.tags.get(key));
        value.is_some_and(|value| *value == *tag.value.as_deref().unwrap_or_default())
    };
    let size = i64::try_from(object.size).unwrap_or(i64::MAX);
    let above = [filter.object_size_greater_than, and.and_then(|and| and.object_size_greater_than)];
    let below = [filter.object_size_less_than, and.and_then(|and| and.object_size_less_than)];
    object.key.starts_with(prefix(rule))
        && tags.into_iter().all(has)
        && above.into_iter().flatten().all(|limit| size > limit)
        && below.into_iter().flatten().all(|limit| size < limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::objects::{Attributes, Condition};
    use store::{Clock, Database};

    const ACCOUNT: &str = "111111111111";

    async fn put(objects: &ObjectStore, key: &str, bytes: &[u8], tags: &[(&str, &str)]) {
        let mut incoming = objects.begin(ACCOUNT, "bucket").await.unwrap();
        incoming.write(bytes).unwrap();
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let attributes = Attributes { tags, ..Attributes::default() };
        objects.commit(ACCOUNT, "bucket", key, incoming, attributes, Condition::default()).await.unwrap();
    }

    async fn keys(objects: &ObjectStore) -> Vec<String> {
        let listed = objects.list_keys(ACCOUNT, "bucket", "", None, 100).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    fn rule(filter: LifecycleRuleFilter, expiration: LifecycleExpiration) -> LifecycleRule {
        LifecycleRule {
            abort_incomplete_multipart_upload: Some(AbortIncompleteMultipartUpload {
                days_after_initiation: Some(1),
            }),
            expiration: Some(expiration),
            filter: Some(filter),
            id: Some("rule".into()),
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: None,
            status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
            transitions: None,
        }
    }

    async fn set(objects: &ObjectStore, rules: &[LifecycleRule]) {
        let text = serde_json::to_string(rules).unwrap();
        objects.set_bucket_document(ACCOUNT, "bucket", DOCUMENT, Some(text)).await.unwrap();
    }

    #[tokio::test]
    async fn what_expires_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // Noon of a day.
        let clock = Clock::fixed(1_700_000_000_000 / DAY_MS * DAY_MS + DAY_MS / 2);
        let database = Database::open(&folder.path().join("test.db")).unwrap();
        let master_key = folder.path().join("keys/master.key");
        let key_store =
            store::keys::KeyStore::open(database.clone(), &master_key, clock.clone()).await.unwrap();
        let objects = ObjectStore::open(database, folder.path().join("buckets"), clock.clone(), key_store)
            .await
            .unwrap();
        objects.create_bucket(ACCOUNT, "us-east-1", "bucket").await.unwrap();
        put(&objects, "logs/old", b"x", &[]).await;
        put(&objects, "logs/tagged", b"large", &[("keep", "no")]).await;
        put(&objects, "models/old", b"x", &[]).await;
        let upload =
            objects.create_upload(ACCOUNT, "bucket", "logs/up", Attributes::default(), None, None).await;
        let upload = upload.unwrap();
        let days = |days| LifecycleExpiration { days: Some(days), ..Default::default() };
        let logs = LifecycleRuleFilter { prefix: Some("logs/".into()), ..Default::default() };
        set(&objects, &[rule(logs.clone(), days(1))]).await;

        clock.advance(DAY_MS);
        act(&objects).await;
        assert_eq!(keys(&objects).await.len(), 3, "the day is full at the midnight after it");
        assert!(objects.upload(ACCOUNT, "bucket", "logs/up", &upload.id).await.is_ok());
        put(&objects, "logs/new", b"x", &[]).await;
        clock.advance(DAY_MS / 2);
        act(&objects).await;
        assert_eq!(keys(&objects).await, ["logs/new", "models/old"]);
        assert!(objects.upload(ACCOUNT, "bucket", "logs/up", &upload.id).await.is_err());

        put(&objects, "models/tagged", b"large", &[("keep", "no"), ("more", "1")]).await;
        put(&objects, "models/small", b"x", &[("keep", "no")]).await;
        let tag = Tag { key: Some("keep".into()), value: Some("no".into()) };
        let and = LifecycleRuleAndOperator {
            object_size_greater_than: Some(2),
            tags: Some(vec![tag]),
            prefix: Some("models/".into()),
            ..Default::default()
        };
        let past =
            LifecycleExpiration { date: Some(super::super::upload::timestamp(0)), ..Default::default() };
        let mut disabled = rule(logs, past.clone());
        disabled.status = ExpirationStatus::from_static(ExpirationStatus::DISABLED);
        let filter = LifecycleRuleFilter { and: Some(and), ..Default::default() };
        set(&objects, &[disabled, rule(filter, past)]).await;
        act(&objects).await;
        assert_eq!(keys(&objects).await, ["logs/new", "models/old", "models/small"]);
    }

    #[test]
    fn days_end_at_midnight() {
        assert_eq!(due_ms(0, 1), DAY_MS);
        assert_eq!(due_ms(1, 1), 2 * DAY_MS);
        assert_eq!(due_ms(DAY_MS - 1, 30), 31 * DAY_MS);
        assert_eq!(due_ms(0, i64::from(i32::MAX)), i64::from(i32::MAX) * DAY_MS);
    }
}
