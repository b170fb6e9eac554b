//! Documents of a bucket, such as its policy, as text. What they mean is not this crate's business.

use rusqlite::{OptionalExtension, params};

use super::ObjectStore;
use crate::database::Session;
use crate::error::Result;

impl ObjectStore {
    /// The document of this kind, when the bucket has one.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] or [`crate::Error::Denied`] of the bucket.
    pub async fn bucket_document(&self, account: &str, bucket: &str, kind: &str) -> Result<Option<String>> {
        let (account, bucket, kind) = (account.to_owned(), bucket.to_owned(), kind.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.bucket_document(&bucket, &kind)
            })
            .await
    }

    /// Replaces the document of this kind, or removes it.
    ///
    /// # Errors
    /// As [`ObjectStore::bucket_document`].
    pub async fn set_bucket_document(
        &self,
        account: &str,
        bucket: &str,
        kind: &str,
        body: Option<String>,
    ) -> Result<()> {
        let (account, bucket, kind) = (account.to_owned(), bucket.to_owned(), kind.to_owned());
        self.database
            .write(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.set_bucket_document(&bucket, &kind, body.as_deref())
            })
            .await
    }

    /// Account, bucket and text of every document of a kind.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn documents(&self, kind: &str) -> Result<Vec<(String, String, String)>> {
        let kind = kind.to_owned();
        self.database.read(move |session| session.documents(&kind)).await
    }
}

impl Session<'_> {
    /// The document of this kind, when the bucket has one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn bucket_document(&self, bucket: &str, kind: &str) -> Result<Option<String>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM bucket_documents WHERE bucket = ?1 AND kind = ?2")?;
        Ok(statement.query_row(params![bucket, kind], |row| row.get(0)).optional()?)
    }

    fn set_bucket_document(&self, bucket: &str, kind: &str, body: Option<&str>) -> Result<()> {
        match body {
            Some(body) => self
                .connection
                .prepare_cached(
                    "INSERT INTO bucket_documents (bucket, kind, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (bucket, kind) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![bucket, kind, body])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM bucket_documents WHERE bucket = ?1 AND kind = ?2")?
                .execute(params![bucket, kind])?,
        };
        Ok(())
    }

    fn documents(&self, kind: &str) -> Result<Vec<(String, String, String)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT buckets.account, buckets.name, body FROM bucket_documents
             JOIN buckets ON buckets.name = bucket_documents.bucket WHERE kind = ?1 ORDER BY buckets.name",
        )?;
        let rows = statement.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
