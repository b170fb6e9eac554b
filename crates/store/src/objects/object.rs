//! What is known of buckets and objects beside the bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Encryption, Folder, OBJECT_KIND, Remote};
use crate::error::{Error, Result};

/// A bucket. Names are unique over all accounts, as in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Account that owns it.
    pub account: String,
    /// Region it was made in.
    pub region: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The folder of the machine that it is, when it is one.
    pub folder: Option<Folder>,
    /// The bucket of another store that it is, when it is one.
    pub remote: Option<Remote>,
}

/// What is kept of an object beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Headers that come back as they were given: `content-type` and the like, in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The user's metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Checksums by algorithm (`crc32`, `sha256` and so on), as the protocol writes them.
    #[serde(default)]
    pub checksums: BTreeMap<String, String>,
    /// The user's tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How the object came together, when it was uploaded in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assembly: Option<Assembly>,
    /// How the bytes are encrypted, when they are. Writes set it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// The parts that an object was uploaded in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assembly {
    /// Id of the upload.
    pub upload: String,
    /// Sizes in bytes, each with how many parts in a row have it: all but the last are mostly equal.
    pub runs: Vec<(u64, u32)>,
}

impl Assembly {
    /// Of the sizes of all parts, in order.
    pub fn of(upload: &str, sizes: impl Iterator<Item = u64>) -> Assembly {
        let mut runs: Vec<(u64, u32)> = Vec::new();
        for size in sizes {
            match runs.last_mut() {
                Some((last, count)) if *last == size => *count += 1,
                _ => runs.push((size, 1)),
            }
        }
        Assembly { upload: upload.to_owned(), runs }
    }

    /// Where the part at `position`, from 1, lies in the object.
    fn range(&self, position: u32) -> Option<Range<u64>> {
        let (mut start, mut before) = (0, 0);
        for (size, count) in &self.runs {
            if position > before && position <= before + count {
                let start = start + u64::from(position - before - 1) * size;
                return Some(start..start + size);
            }
            start += size * u64::from(*count);
            before += count;
        }
        None
    }
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// MD5 in hex, or digest-of-digests with the number of parts; without quotes.
    pub etag: String,
    /// Number of parts it was uploaded in, when in parts.
    pub parts: Option<u32>,
    /// Headers, metadata, checksums.
    pub attributes: Attributes,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    /// Its file, relative to the folder of the bucket; in a folder of the machine or a remote bucket, what tells it from a
    /// later one.
    pub(super) path: PathBuf,
}

impl Object {
    /// Where part `number` lies; an object that was uploaded whole is one part. `None` beyond the last.
    pub fn part_range(&self, number: u32) -> Option<Range<u64>> {
        match &self.attributes.assembly {
            Some(assembly) => assembly.range(number),
            None => (number == 1).then_some(0..self.size),
        }
    }
}

/// Under which condition a write happens; checked in the transaction that makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// The present object must have this entity tag; `*` is any.
    pub if_match: Option<String>,
    /// There must be no object.
    pub if_none_match: bool,
}

impl Condition {
    pub(super) fn check(&self, present: Option<&Object>) -> Result<()> {
        let holds = match (&self.if_match, present) {
            (Some(wanted), Some(object)) => wanted == "*" || *wanted == object.etag,
            (Some(_), None) => return Err(Error::Missing { kind: OBJECT_KIND.into(), name: String::new() }),
            (None, present) => !(self.if_none_match && present.is_some()),
        };
        if holds {
            Ok(())
        } else {
            Err(Error::Precondition("at least one of the preconditions did not hold".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_one_after_the_other() {
        let assembly = Assembly::of("u", [5, 5, 7, 0, 2].into_iter());
        assert_eq!(assembly.runs, [(5, 2), (7, 1), (0, 1), (2, 1)]);
        let ranges: Vec<_> = (0..7).map(|position| assembly.range(position)).collect();
        assert_eq!(ranges, [None, Some(0..5), Some(5..10), Some(10..17), Some(17..17), Some(17..19), None]);
    }
}
