//! The rows of remote buckets, what is kept of their objects, and the uploads that only this server knows of.

use rusqlite::{OptionalExtension, params};

use super::rows::key_text;
use super::{BUCKET_KIND, Bucket, Object, Refusal, Remote};
use crate::database::Session;
use crate::error::{Error, Result};

/// An upload in parts that the server began in a remote bucket by itself.
pub(super) struct Transfer {
    pub remote_id: String,
    pub bucket: String,
    pub key: String,
}

impl Session<'_> {
    /// Makes a bucket of another store one of this one.
    ///
    /// # Errors
    /// [`Error::Refused`] for an illegal name, [`Error::Exists`] for one that is taken.
    pub fn insert_remote_bucket(&self, bucket: &Bucket) -> Result<()> {
        if !super::names::is_bucket_name(&bucket.name) {
            return Err(Refusal::BucketName(bucket.name.clone()).into());
        }
        let taken = || Error::Exists { kind: BUCKET_KIND.into(), name: bucket.name.clone() };
        if !self.insert_bucket(bucket)? {
            return Err(taken());
        }
        let remote = bucket.remote.as_ref().ok_or_else(taken)?;
        self.connection
            .prepare_cached("INSERT INTO bucket_remotes (bucket, place, credentials) VALUES (?1, ?2, ?3)")?
            .execute(params![bucket.name, serde_json::to_string(remote)?, remote.credentials])?;
        Ok(())
    }

    /// Forgets a remote bucket; its objects stay where they are.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], and [`Error::Invalid`] for a bucket that is no remote one.
    pub fn delete_remote_bucket(&self, account: &str, name: &str) -> Result<()> {
        self.owned_remote(account, name)?;
        for table in ["folder_files", "remote_transfers", "bucket_remotes"] {
            let sql = format!("DELETE FROM {table} WHERE bucket = ?1");
            self.connection.prepare_cached(&sql)?.execute(params![name])?;
        }
        self.delete_bucket_rows(name)
    }

    /// The registration of a remote bucket.
    ///
    /// # Errors
    /// As [`Session::delete_remote_bucket`].
    pub fn owned_remote(&self, account: &str, name: &str) -> Result<Remote> {
        let remote = self.owned_bucket(account, name)?.remote;
        remote.ok_or_else(|| Error::Invalid(format!("{name} is no remote bucket")))
    }

    /// Replaces the sealed credentials of a remote bucket.
    ///
    /// # Errors
    /// As [`Session::delete_remote_bucket`].
    pub fn set_remote_credentials(&self, account: &str, name: &str, sealed: &[u8]) -> Result<()> {
        self.owned_remote(account, name)?;
        self.connection
            .prepare_cached("UPDATE bucket_remotes SET credentials = ?2 WHERE bucket = ?1")?
            .execute(params![name, sealed])?;
        Ok(())
    }

    /// An object with what was kept of it, where it is still that object. Headers and metadata are the remote store's.
    pub(super) fn with_kept(&self, bucket: &str, found: Object) -> Result<Object> {
        let (headers, metadata) = (found.attributes.headers.clone(), found.attributes.metadata.clone());
        let mut object = self.with_row(bucket, found)?;
        object.attributes.headers = headers;
        object.attributes.metadata = metadata;
        Ok(object)
    }

    pub(super) fn bucket_named(&self, name: &str) -> Result<Bucket> {
        let account = self
            .connection
            .prepare_cached("SELECT account FROM buckets WHERE name = ?1")?
            .query_row(params![name], |row| row.get::<_, String>(0))
            .optional()?;
        let missing = || Error::Missing { kind: BUCKET_KIND.into(), name: name.into() };
        self.owned_bucket(&account.ok_or_else(missing)?, name)
    }

    pub(super) fn insert_transfer(&self, transfer: &Transfer) -> Result<()> {
        self.connection
            .prepare_cached("INSERT INTO remote_transfers (remote_id, bucket, key) VALUES (?1, ?2, ?3)")?
            .execute(params![transfer.remote_id, transfer.bucket, transfer.key.as_bytes()])?;
        Ok(())
    }

    pub(super) fn delete_transfer(&self, remote_id: &str) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM remote_transfers WHERE remote_id = ?1")?
            .execute(params![remote_id])?;
        Ok(())
    }

    pub(super) fn transfers(&self) -> Result<Vec<Transfer>> {
        let mut statement =
            self.connection.prepare_cached("SELECT remote_id, bucket, key FROM remote_transfers")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut transfers = Vec::new();
        for row in rows {
            let (remote_id, bucket, key) = row?;
            transfers.push(Transfer { remote_id, bucket, key: key_text(key)? });
        }
        Ok(transfers)
    }
}
