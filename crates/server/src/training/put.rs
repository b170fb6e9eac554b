//! Puts files that a job has written into S3, each whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runner::tree::{Stamp, Tree};
use store::objects::{Attributes, Condition, Protection};

use crate::app::App;

/// Name of the metadata with a file's time of change, seconds since 1970 with nine decimals, as other tools write it too.
const MODIFIED: &str = "mtime";

/// What is left free on the disk.
const SPARE_BYTES: u64 = 16 << 20;

/// A prefix that takes files.
#[derive(Clone)]
pub struct Target<'a> {
    /// The process state.
    pub app: &'a App,
    /// Who owns the bucket.
    pub account: &'a str,
    /// The bucket.
    pub bucket: String,
    /// Beginning of the keys, empty or with a slash at its end.
    pub prefix: String,
    /// How the objects are encrypted; as the bucket prescribes when it is left out.
    pub protection: Option<Protection>,
}

/// How a file that is still being written is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Growing {
    /// It is left for later.
    Later,
    /// What there is so far is put.
    SoFar,
    /// It is not written where it lies, but replaced as a whole: what is there when it is opened is put.
    Replaced,
}

/// Why a file was not put.
#[derive(Debug)]
pub enum PutError {
    /// It changes, or is gone: nothing was stored.
    Changing,
    /// A sentence for people that names the object.
    Failed {
        /// The sentence.
        text: String,
        /// Whether another try may help.
        is_passing: bool,
    },
}

impl Target<'_> {
    /// The key of a file.
    ///
    /// # Errors
    /// When its name is not text.
    pub fn key(&self, path: &Path) -> Result<String, PutError> {
        match path.to_str() {
            Some(path) => Ok(format!("{}{path}", self.prefix)),
            None => Err(self.failed(&path.to_string_lossy(), "its name is not UTF-8", false)),
        }
    }

    fn failed(&self, path: &str, problem: &str, is_passing: bool) -> PutError {
        let text = format!("s3://{}/{}{path} could not be stored: {problem}.", self.bucket, self.prefix);
        PutError::Failed { text, is_passing }
    }

    /// Puts one file; it is on the disk when this returns. `seen` is what was seen of it.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put(
        &self,
        tree: &Arc<Tree>,
        path: &Path,
        seen: Stamp,
        growing: Growing,
    ) -> Result<(), PutError> {
        let key = self.key(path)?;
        let shown = path.to_string_lossy().into_owned();
        let of_store = |error: store::Error| {
            let is_passing = matches!(
                error,
                store::Error::File { .. }
                    | store::Error::Database(_)
                    | store::Error::NotCommitted(_)
                    | store::Error::Remote(store::objects::RemoteProblem::Unavailable(_))
            );
            self.failed(&shown, &error.with_cause(), is_passing)
        };
        let objects = &self.app.objects;
        let mut incoming = objects
            .begin_protected(self.account, &self.bucket, self.protection.clone())
            .await
            .map_err(of_store)?;
        let (tree, owned, data_dir) = (tree.clone(), PathBuf::from(path), self.app.config.data_dir.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let mut file = match tree.file(&owned) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(|error| (error.to_string(), false))?,
            };
            let stamp = |file: &std::fs::File| Stamp::of(file).map_err(|error| (error.to_string(), true));
            let before = stamp(&file)?;
            if growing == Growing::Later && before != seen {
                return Ok(None);
            }
            check_space(&data_dir, before.bytes).map_err(|text| (text, false))?;
            let copied = incoming.copy_from(&mut (&mut file).take(before.bytes));
            copied.map_err(|error| (error.with_cause(), true))?;
            let is_whole =
                incoming.size() == before.bytes && (growing == Growing::SoFar || stamp(&file)? == before);
            Ok(is_whole.then_some((incoming, before)))
        });
        let copied = copied.await.unwrap_or_else(|error| Err((error.to_string(), true)));
        let copied = copied.map_err(|(problem, is_passing)| self.failed(&shown, &problem, is_passing))?;
        let Some((incoming, stamp)) = copied else { return Err(PutError::Changing) };
        let metadata = BTreeMap::from([(MODIFIED.to_owned(), seconds(stamp.modified_at_ns))]);
        let attributes = Attributes { metadata, ..Attributes::default() };
        let condition = Condition::default();
        objects
            .commit(self.account, &self.bucket, &key, incoming, attributes, condition)
            .await
            .map(|_| ())
            .map_err(of_store)
    }

    /// Whether the object is this file as it was seen: put by [`Target::put`], or a file that was made of the object.
    pub fn is_stored(object: &store::objects::Object, stamp: Stamp) -> bool {
        let is_put =
            object.attributes.metadata.get(MODIFIED).is_some_and(|at| *at == seconds(stamp.modified_at_ns));
        let is_made_of_it = i128::from(object.modified_at) * 1_000_000 == stamp.modified_at_ns;
        object.size == stamp.bytes && (is_put || is_made_of_it)
    }

    /// Whether the object is of a file that was changed later than this one.
    pub fn is_newer(object: &store::objects::Object, stamp: Stamp) -> bool {
        let put = object.attributes.metadata.get(MODIFIED).and_then(|text| nanoseconds(text));
        put.unwrap_or(i128::from(object.modified_at) * 1_000_000) > stamp.modified_at_ns
    }
}

/// A file with holes may be larger than the disk.
fn check_space(data_dir: &Path, bytes: u64) -> Result<(), String> {
    let disk = rustix::fs::statvfs(data_dir).map_err(|error| error.to_string())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes.saturating_add(SPARE_BYTES) <= free {
        return Ok(());
    }
    Err(format!("it has {bytes} bytes, and the disk has {free} left"))
}

fn seconds(nanoseconds: i128) -> String {
    let (whole, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    format!("{whole}.{rest:09}")
}

/// The inverse of [`seconds`]; `None` for what somebody else wrote otherwise.
fn nanoseconds(text: &str) -> Option<i128> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let whole: i128 = whole.parse().ok()?;
    let rest: i128 = format!("{rest:0<9}").get(..9)?.parse().ok()?;
    Some(whole * 1_000_000_000 + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_nanoseconds() {
        assert_eq!(seconds(1_700_000_000_000_000_001), "1700000000.000000001");
        assert_eq!(seconds(-1), "-1.999999999");
        for at in [1_700_000_000_000_000_001, -1, 0] {
            assert_eq!(nanoseconds(&seconds(at)), Some(at));
        }
        assert_eq!(nanoseconds("12.5"), Some(12_500_000_000));
        assert_eq!(nanoseconds("yesterday"), None);
    }

    #[test]
    fn a_file_larger_than_the_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check_space(folder.path(), 0), Ok(()));
        assert!(check_space(folder.path(), u64::MAX - 1).unwrap_err().contains("left"));
    }
}
