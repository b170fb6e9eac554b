//! What is read of remote buckets beside the bytes of objects: single descriptions and lists.

use tokio::task::JoinSet;

use super::remotes::is_sendable;
use super::{
    Bound, Bucket, ListObjects, Listing, OBJECT_KIND, Object, ObjectStore, Remote, RemoteList, RemoteProblem,
};
use crate::error::{Error, Result};

/// Most entries of a page, as in S3.
const MOST_ENTRIES: usize = 1_000;

/// Objects that are asked for at once.
const PARALLEL_HEADS: usize = 16;

/// The greatest character: what begins with a prefix comes before the prefix with it, but for keys that nobody makes.
const LAST_CHARACTER: char = '\u{10FFFF}';

impl ObjectStore {
    /// The object of a key as it is now.
    pub(super) async fn remote_object(
        &self,
        bucket: &Bucket,
        remote: &Remote,
        key: &str,
    ) -> Result<Option<Object>> {
        if key.is_empty() || !is_sendable(key) {
            return Ok(None);
        }
        let Some(found) = self.reach(bucket, remote)?.head(key).await? else { return Ok(None) };
        let name = bucket.name.clone();
        self.database.read(move |session| session.with_kept(&name, found.into())).await.map(Some)
    }

    /// As [`ObjectStore::remote_object`], of many keys, in their order.
    pub(super) async fn remote_objects(
        &self,
        bucket: Bucket,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Object>>> {
        let mut found: Vec<Option<Object>> = vec![None; keys.len()];
        let mut left = keys.into_iter().enumerate();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < PARALLEL_HEADS
                && let Some((at, key)) = left.next()
            {
                let (store, bucket) = (self.clone(), bucket.clone());
                asked.spawn(async move {
                    let remote = bucket.remote.as_ref().ok_or_else(|| missing(&key))?;
                    Ok::<_, Error>((at, store.remote_object(&bucket, remote, &key).await?))
                });
            }
            let Some(done) = asked.join_next().await else { return Ok(found) };
            let (at, object) =
                done.unwrap_or_else(|_| Err(Error::NotCommitted("a look at an object panicked".into())))?;
            found[at] = object;
        }
    }

    /// Lists a remote bucket with the same bounds as a local one.
    pub(super) async fn list_remote(&self, bucket: &Bucket, list: ListObjects) -> Result<Listing> {
        let Some(remote) = &bucket.remote else { return Ok(Listing::default()) };
        let reached = self.reach(bucket, remote)?;
        let mut listing = Listing::default();
        let mut from = list.start;
        loop {
            let wanted = list.limit - listing.objects.len() - listing.common_prefixes.len();
            if wanted == 0 {
                listing.next = from;
                return Ok(listing);
            }
            let page = reached
                .list(&RemoteList {
                    prefix: list.prefix.clone(),
                    delimiter: list.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
                    after: from.as_ref().and_then(Bound::to_key),
                    limit: wanted.min(MOST_ENTRIES),
                })
                .await?;
            let last_key = page.objects.last().map(|last| last.key.clone());
            let last_prefix = page.common_prefixes.last().cloned();
            let reaches = if last_prefix > last_key {
                last_prefix.map(|prefix| Bound::beyond(prefix.as_bytes()))
            } else {
                last_key.map(|key| Bound { bytes: key.into_bytes(), inclusive: false })
            };
            let objects =
                page.objects.into_iter().filter(|one| from.as_ref().is_none_or(|from| from.admits(&one.key)));
            let (name, objects) = (bucket.name.clone(), objects.map(Object::from).collect::<Vec<_>>());
            let kept = move |session: &crate::Session<'_>| {
                objects.into_iter().map(|object| session.with_kept(&name, object)).collect::<Result<Vec<_>>>()
            };
            listing.objects.extend(self.database.read(kept).await?);
            let prefixes = page.common_prefixes.into_iter();
            listing.common_prefixes.extend(
                prefixes.filter(|prefix| from.as_ref().is_none_or(|from| from.admits_some_below(prefix))),
            );
            if !page.is_truncated {
                return Ok(listing);
            }
            // An inclusive bound stands before its own key, an exclusive one behind it.
            let is_ahead = |next: &Bound| {
                from.as_ref()
                    .is_none_or(|from| (&next.bytes, !next.inclusive) > (&from.bytes, !from.inclusive))
            };
            match reaches.filter(is_ahead) {
                Some(next) => from = Some(next),
                None => {
                    let text = format!("{} does not list what comes after a key, as S3 does", remote.url());
                    return Err(RemoteProblem::Refused(text).into());
                }
            }
        }
    }
}

impl Bound {
    /// A key after which the list may start: what it lets in beside what the bound admits is left out afterwards.
    fn to_key(&self) -> Option<String> {
        if !self.inclusive {
            return String::from_utf8(self.bytes.clone()).ok();
        }
        // Such a bound lies just beyond all that begins with a prefix.
        let mut prefix = self.bytes.clone();
        *prefix.last_mut()? = prefix.last()?.checked_sub(1)?;
        let mut key = String::from_utf8(prefix).ok()?;
        key.push(LAST_CHARACTER);
        Some(key)
    }

    fn admits(&self, key: &str) -> bool {
        key.as_bytes() > self.bytes.as_slice() || self.inclusive && key.as_bytes() == self.bytes
    }

    /// Whether a key that begins with `prefix` may be admitted.
    fn admits_some_below(&self, prefix: &str) -> bool {
        prefix.as_bytes() >= self.bytes.as_slice() || self.bytes.starts_with(prefix.as_bytes())
    }
}

fn missing(key: &str) -> Error {
    Error::Missing { kind: OBJECT_KIND.into(), name: key.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_become_keys_to_start_after() {
        let after = Bound::after("a/b", "", None);
        assert_eq!(after.to_key().as_deref(), Some("a/b"));
        assert!(after.admits("a/c") && !after.admits("a/b") && after.admits_some_below("a/"));
        for prefix in ["a/", "é", "x\u{7f}"] {
            let beyond = Bound::beyond(prefix.as_bytes());
            let key = beyond.to_key().unwrap();
            assert!(key.starts_with(prefix) && key.as_bytes() < beyond.bytes.as_slice(), "{prefix}");
            assert!(!beyond.admits(&format!("{prefix}z")) && !beyond.admits_some_below(prefix), "{prefix}");
        }
        assert!(Bound::beyond(b"a/").admits("a0"));
    }
}
