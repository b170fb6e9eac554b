//! Lists in key order; a delimiter folds what lies below it, and the list seeks past each fold.

use rusqlite::params;

use super::names::successor;
use super::rows::{OBJECT_COLUMNS, object_row};
use super::{Bucket, Object, ObjectStore};
use crate::database::Session;
use crate::error::Result;

/// Rows that are read at a time.
const BATCH: usize = 500;

/// Where a list starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// A key, or the beginning of keys.
    pub bytes: Vec<u8>,
    /// Whether a key with just these bytes belongs to the list.
    pub inclusive: bool,
}

impl Bound {
    /// Everything after `key`, which need not exist. Where a list with this prefix and delimiter folds to just `key`,
    /// everything beyond what is folded there.
    pub fn after(key: &str, prefix: &str, delimiter: Option<&str>) -> Bound {
        let folds = |delimiter: &str| {
            let rest = key.strip_prefix(prefix)?;
            let at = rest.find(delimiter).filter(|_| !delimiter.is_empty())?;
            Some(at + delimiter.len() == rest.len())
        };
        match delimiter.and_then(folds) {
            Some(true) => Bound::beyond(key.as_bytes()),
            _ => Bound { bytes: key.as_bytes().to_vec(), inclusive: false },
        }
    }

    pub(super) fn beyond(prefix: &[u8]) -> Bound {
        // No UTF-8 text begins with 0xFF, so that the fallback ends every list.
        Bound { bytes: successor(prefix).unwrap_or_else(|| vec![0xFF]), inclusive: true }
    }
}

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub struct ListObjects {
    /// Beginning of the keys.
    pub prefix: String,
    /// Text that ends a folded prefix.
    pub delimiter: Option<String>,
    /// Where to start.
    pub start: Option<Bound>,
    /// Most keys and folded prefixes together.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects, in key order.
    pub objects: Vec<Object>,
    /// Folded prefixes, in order.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts, when there is more.
    pub next: Option<Bound>,
}

impl ObjectStore {
    /// Lists objects of a bucket.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] or [`crate::Error::Denied`] of the bucket.
    pub async fn list(&self, account: &str, bucket: &str, list: ListObjects) -> Result<Listing> {
        let (account, bucket, wanted) = (account.to_owned(), bucket.to_owned(), list.clone());
        let looked = self.database.read(move |session| {
            let bucket = session.owned_bucket(&account, &bucket)?;
            match bucket.remote {
                None => Ok((session.list_objects(&bucket, &wanted)?, None)),
                Some(_) => Ok((Listing::default(), Some(bucket))),
            }
        });
        match looked.await? {
            (_, Some(bucket)) => self.list_remote(&bucket, list).await,
            (listing, None) => Ok(listing),
        }
    }

    /// Objects whose key begins with `prefix`, after a key, without folding.
    ///
    /// # Errors
    /// As [`ObjectStore::list`].
    pub async fn list_keys(
        &self,
        account: &str,
        bucket: &str,
        prefix: &str,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Object>> {
        let start = after.map(|bytes| Bound { bytes: bytes.to_vec(), inclusive: false });
        let list = ListObjects { prefix: prefix.to_owned(), delimiter: None, start, limit };
        Ok(self.list(account, bucket, list).await?.objects)
    }
}

impl Session<'_> {
    fn list_objects(&self, bucket: &Bucket, list: &ListObjects) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut from = Bound { bytes: list.prefix.as_bytes().to_vec(), inclusive: true };
        if let Some(start) = &list.start
            && start.bytes >= from.bytes
        {
            from = start.clone();
        }
        let delimiter = list.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        loop {
            let batch = self.objects_from(bucket, &list.prefix, &from)?;
            let full = batch.len() == BATCH;
            let mut folded = false;
            for object in batch {
                if listing.objects.len() + listing.common_prefixes.len() == list.limit {
                    listing.next = Some(from);
                    return Ok(listing);
                }
                let rest = &object.key[list.prefix.len()..];
                let fold =
                    delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
                match fold {
                    Some(end) => {
                        let prefix = object.key[..list.prefix.len() + end].to_owned();
                        from = Bound::beyond(prefix.as_bytes());
                        listing.common_prefixes.push(prefix);
                        folded = true;
                        break;
                    }
                    None => {
                        from = Bound { bytes: object.key.clone().into_bytes(), inclusive: false };
                        listing.objects.push(object);
                    }
                }
            }
            if !folded && !full {
                return Ok(listing);
            }
        }
    }

    fn objects_from(&self, bucket: &Bucket, prefix: &str, from: &Bound) -> Result<Vec<Object>> {
        if let Some(folder) = &bucket.folder {
            let found = super::folder_listing::objects_from(folder, prefix, from, BATCH)?;
            return found.into_iter().map(|one| self.with_row(&bucket.name, one)).collect();
        }
        let above = if from.inclusive { ">=" } else { ">" };
        let end = successor(prefix.as_bytes()).unwrap_or_else(|| vec![0xFF]);
        let sql = format!(
            "SELECT {OBJECT_COLUMNS} FROM objects WHERE bucket = ?1 AND key {above} ?2 AND key < ?3 ORDER BY key LIMIT {BATCH}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut objects = Vec::new();
        for row in statement.query_map(params![bucket.name, from.bytes, end], |row| Ok(object_row(row)))? {
            objects.push(row??);
        }
        Ok(objects)
    }
}
