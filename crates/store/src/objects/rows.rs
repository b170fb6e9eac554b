//! The rows of buckets and objects.

use std::collections::HashSet;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};

use super::{BUCKET_KIND, Bucket, Folder, Object, Refusal, Remote};
use crate::database::Session;
use crate::error::{Error, Result};

/// Columns that [`object_row`] reads.
pub(super) const OBJECT_COLUMNS: &str = "key, path, size, etag, parts, attributes, modified_at";

/// The beginning of a query of what [`bucket_row`] reads.
const BUCKETS: &str =
    "SELECT name, account, region, created_at, path, is_read_only, place, credentials FROM buckets
    LEFT JOIN bucket_folders ON bucket_folders.bucket = buckets.name
    LEFT JOIN bucket_remotes ON bucket_remotes.bucket = buckets.name";

impl Session<'_> {
    pub(super) fn insert_bucket(&self, bucket: &Bucket) -> Result<bool> {
        let added = self.connection.prepare_cached(
            "INSERT INTO buckets (name, account, region, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?.execute(params![bucket.name, bucket.account, bucket.region, bucket.created_at])?;
        if added > 0 {
            return Ok(true);
        }
        match self.owned_bucket(&bucket.account, &bucket.name) {
            Ok(_) => Ok(false),
            Err(Error::Denied(_)) => {
                Err(Error::Exists { kind: BUCKET_KIND.into(), name: bucket.name.clone() })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn owned_bucket(&self, account: &str, name: &str) -> Result<Bucket> {
        let found = self
            .connection
            .prepare_cached(&format!("{BUCKETS} WHERE name = ?1"))?
            .query_row(params![name], |row| Ok(bucket_row(row)))
            .optional()?
            .transpose()?;
        match found {
            None => Err(Error::Missing { kind: BUCKET_KIND.into(), name: name.into() }),
            Some(bucket) if bucket.account != account => {
                Err(Error::Denied(format!("bucket {name} belongs to another account")))
            }
            Some(bucket) => Ok(bucket),
        }
    }

    /// The buckets of an account, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn buckets(&self, account: &str) -> Result<Vec<Bucket>> {
        let mut statement =
            self.connection.prepare_cached(&format!("{BUCKETS} WHERE account = ?1 ORDER BY name"))?;
        let rows = statement.query_map(params![account], |row| Ok(bucket_row(row)))?;
        rows.map(|row| row?).collect()
    }

    pub(super) fn bucket_names(&self) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached("SELECT name FROM buckets ORDER BY name")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn delete_bucket(&self, account: &str, name: &str) -> Result<()> {
        let bucket = self.owned_bucket(account, name)?;
        if bucket.remote.is_some() {
            return Err(Refusal::OfRemote("such a bucket is removed with `modelyard bucket remove`").into());
        }
        if bucket.folder.is_some() {
            return Err(Refusal::OfFolder("such a bucket is removed with `modelyard bucket remove`").into());
        }
        let used = self
            .connection
            .prepare_cached("SELECT 1 FROM objects WHERE bucket = ?1 LIMIT 1")?
            .exists(params![name])?;
        if used {
            return Err(Error::WrongStatus {
                kind: BUCKET_KIND.into(),
                name: name.into(),
                status: "not empty".into(),
            });
        }
        self.delete_bucket_rows(name)
    }

    pub(super) fn delete_bucket_rows(&self, name: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM upload_parts WHERE upload IN (SELECT id FROM uploads WHERE bucket = ?1)",
            )?
            .execute(params![name])?;
        self.connection.prepare_cached("DELETE FROM uploads WHERE bucket = ?1")?.execute(params![name])?;
        self.connection
            .prepare_cached("DELETE FROM bucket_documents WHERE bucket = ?1")?
            .execute(params![name])?;
        self.connection.prepare_cached("DELETE FROM buckets WHERE name = ?1")?.execute(params![name])?;
        Ok(())
    }

    /// The ETag of an object that the account may see, when it is there.
    pub fn object_etag(&self, account: &str, bucket: &str, key: &str) -> Result<Option<String>> {
        match self.owned_bucket(account, bucket) {
            Ok(bucket) => Ok(self.present(&bucket, key)?.map(|object| object.etag)),
            Err(Error::Missing { .. } | Error::Denied(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn find_object(&self, bucket: &str, key: &str) -> Result<Option<Object>> {
        let sql = format!("SELECT {OBJECT_COLUMNS} FROM objects WHERE bucket = ?1 AND key = ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement
            .query_row(params![bucket, key.as_bytes()], |row| Ok(object_row(row)))
            .optional()?
            .transpose()
    }

    pub(super) fn put_object(&self, bucket: &str, object: &Object) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO objects (bucket, key, path, size, etag, parts, attributes, modified_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (bucket, key) DO UPDATE SET path = excluded.path, size = excluded.size, etag = excluded.etag,
             parts = excluded.parts, attributes = excluded.attributes, modified_at = excluded.modified_at",
        )?.execute(params![
            bucket, object.key.as_bytes(), object.path.display().to_string(), object.size as i64, object.etag, object.parts,
            serde_json::to_string(&object.attributes)?, object.modified_at,
        ])?;
        Ok(())
    }

    pub(super) fn delete_object(&self, bucket: &str, key: &str) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?
            .execute(params![bucket, key.as_bytes()])?;
        Ok(())
    }

    /// Of these version files, the ones that no row of the bucket names. A row is found by its path alone, since a key cannot
    /// be read back from a shortened path.
    pub(super) fn unknown_paths(&self, bucket: &str, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM objects WHERE path = ?2 AND bucket = ?1")?;
        let mut unknown = Vec::new();
        for path in paths {
            if !statement.exists(params![bucket, path.display().to_string()])? {
                unknown.push(path);
            }
        }
        Ok(unknown)
    }

    pub(super) fn part_paths(&self, bucket: &str) -> Result<HashSet<PathBuf>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT upload_parts.path FROM upload_parts JOIN uploads ON uploads.id = upload_parts.upload WHERE uploads.bucket = ?1",
        )?;
        let rows = statement.query_map(params![bucket], |row| row.get::<_, String>(0))?;
        Ok(rows.map(|path| path.map(PathBuf::from)).collect::<Result<_, _>>()?)
    }
}

fn bucket_row(row: &Row<'_>) -> Result<Bucket> {
    let (path, is_read_only) = (row.get::<_, Option<String>>(4)?, row.get::<_, Option<bool>>(5)?);
    let folder = path.zip(is_read_only);
    let place = row.get::<_, Option<String>>(6)?;
    let mut remote: Option<Remote> = place.map(|place| serde_json::from_str(&place)).transpose()?;
    if let Some(remote) = &mut remote {
        remote.credentials = row.get(7)?;
    }
    Ok(Bucket {
        name: row.get(0)?,
        account: row.get(1)?,
        region: row.get(2)?,
        created_at: row.get(3)?,
        folder: folder.map(|(path, is_read_only)| Folder { path: path.into(), is_read_only }),
        remote,
    })
}

pub(super) fn object_row(row: &Row<'_>) -> Result<Object> {
    Ok(Object {
        key: key_text(row.get(0)?)?,
        path: PathBuf::from(row.get::<_, String>(1)?),
        size: row.get::<_, i64>(2)? as u64,
        etag: row.get(3)?,
        parts: row.get(4)?,
        attributes: serde_json::from_str(&row.get::<_, String>(5)?)?,
        modified_at: row.get(6)?,
    })
}

/// A key as text; only text is ever stored.
pub(super) fn key_text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::Invalid("a stored key is not text".into()))
}
