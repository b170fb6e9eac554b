//! Uploads in parts: each part is a file, completion joins them into one object.

use std::fs::File;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};

use super::rows::key_text;
use super::{
    Attributes, Condition, Incoming, NewVersion, Object, ObjectStore, UPLOAD_KIND, blocking, check_key,
    files, hex, md5_of,
};
use crate::database::Session;
use crate::error::{Error, Result};

/// Smallest part but for the last, as in S3.
pub const SMALLEST_PART_BYTES: u64 = 5 * 1024 * 1024;

/// An upload in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// Bucket it goes to.
    pub bucket: String,
    /// Key it goes to.
    pub key: String,
    /// What the object will carry.
    pub attributes: Attributes,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Size in bytes.
    pub size: u64,
    /// MD5 in hex.
    pub etag: String,
    /// Checksums by algorithm.
    pub checksums: std::collections::BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    path: PathBuf,
}

/// A part as the caller names it at completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// The entity tag it was answered with, without quotes.
    pub etag: String,
}

impl ObjectStore {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], [`Error::Invalid`] for an illegal key.
    pub async fn create_upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        attributes: Attributes,
    ) -> Result<Upload> {
        check_key(key)?;
        let upload = Upload {
            id: uuid::Uuid::now_v7().simple().to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            attributes,
            created_at: self.clock.now_ms(),
        };
        let (owner, stored) = (account.to_owned(), upload.clone());
        self.database
            .write(move |session| {
                session.owned_bucket(&owner, &stored.bucket)?;
                session.insert_upload(&stored)
            })
            .await?;
        Ok(upload)
    }

    /// An upload of this bucket and key.
    ///
    /// # Errors
    /// [`Error::Missing`] of kind [`UPLOAD_KIND`] and the bucket's errors.
    pub async fn upload(&self, account: &str, bucket: &str, key: &str, id: &str) -> Result<Upload> {
        let (account, bucket, key, id) =
            (account.to_owned(), bucket.to_owned(), key.to_owned(), id.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.upload(&bucket, &key, &id)
            })
            .await
    }

    /// Makes what was written part `number` of an upload, replacing an earlier one.
    ///
    /// # Errors
    /// When the upload is gone or the disk fails.
    pub async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        incoming: Incoming,
        checksums: std::collections::BTreeMap<String, String>,
    ) -> Result<Part> {
        let written = blocking(move || incoming.finish()).await?;
        let folder = self.root.join(&upload.bucket);
        let path = written.file.strip_prefix(&folder).unwrap_or(&written.file).to_owned();
        let part = Part {
            number,
            size: written.size,
            etag: hex(&written.md5),
            checksums,
            modified_at: self.clock.now_ms(),
            path: path.clone(),
        };
        let (owner, stored) = (upload.clone(), part.clone());
        let replaced = self
            .database
            .write(move |session| {
                session.upload(&owner.bucket, &owner.key, &owner.id)?;
                let before = session.parts(&owner.id)?.into_iter().find(|part| part.number == stored.number);
                session.put_part(&owner.id, &stored)?;
                Ok(before)
            })
            .await;
        match replaced {
            Ok(before) => {
                if let Some(before) = before {
                    files::remove_version(&folder, &before.path);
                }
                Ok(part)
            }
            Err(error) => {
                files::remove_version(&folder, &path);
                Err(error)
            }
        }
    }

    /// The parts of an upload, by number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let id = upload.id.clone();
        self.database.read(move |session| session.parts(&id)).await
    }

    /// The uploads under way in a bucket whose key begins with `prefix`, by key and id, after a position.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Denied`] of the bucket.
    pub async fn uploads(
        &self,
        account: &str,
        bucket: &str,
        prefix: &str,
        after: Option<(String, String)>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let (account, bucket, prefix) = (account.to_owned(), bucket.to_owned(), prefix.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.uploads(&bucket, &prefix, after.as_ref(), limit)
            })
            .await
    }

    /// Joins the named parts into the object and ends the upload.
    ///
    /// # Errors
    /// [`Error::Invalid`] beginning with `InvalidPart`, `InvalidPartOrder` or `EntityTooSmall`; [`Error::Precondition`].
    pub async fn complete_upload(
        &self,
        account: &str,
        upload: &Upload,
        named: Vec<CompletedPart>,
        condition: Condition,
    ) -> Result<Object> {
        let present = self.parts(upload).await?;
        let chosen = choose(&present, &named)?;
        let folder = self.root.join(&upload.bucket);
        let mut digests = Vec::new();
        for part in &chosen {
            digests.extend(unhex(&part.etag));
        }
        let etag = format!("{}-{}", hex(&md5_of(&digests)), chosen.len());
        let sources: Vec<PathBuf> = chosen.iter().map(|part| folder.join(&part.path)).collect();
        let mut joined = Incoming::create(&folder)?;
        let written = blocking(move || {
            for source in &sources {
                let mut file =
                    File::open(source).map_err(Error::file(format!("open {}", source.display())))?;
                joined.copy_from(&mut file)?;
            }
            joined.finish()
        })
        .await?;
        let version = NewVersion {
            size: written.size,
            etag,
            parts: Some(chosen.len() as u32),
            attributes: upload.attributes.clone(),
        };
        let object =
            self.place(account, &upload.bucket, &upload.key, written.file, version, condition).await?;
        self.end_upload(upload).await?;
        Ok(object)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_upload(&self, upload: &Upload) -> Result<()> {
        let id = upload.id.clone();
        let parts = self
            .database
            .write(move |session| {
                let parts = session.parts(&id)?;
                session.delete_upload(&id)?;
                Ok(parts)
            })
            .await?;
        let folder = self.root.join(&upload.bucket);
        for part in parts {
            files::remove_version(&folder, &part.path);
        }
        Ok(())
    }
}

fn choose<'a>(present: &'a [Part], named: &[CompletedPart]) -> Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(Error::Invalid("InvalidPart: name at least one part".into()));
    }
    if !named.windows(2).all(|pair| pair[0].number < pair[1].number) {
        return Err(Error::Invalid("InvalidPartOrder: the parts must be named in ascending order".into()));
    }
    let mut chosen = Vec::new();
    for (position, wanted) in named.iter().enumerate() {
        let found = present.iter().find(|part| part.number == wanted.number && part.etag == wanted.etag);
        let part = found.ok_or_else(|| {
            Error::Invalid(format!(
                "InvalidPart: part {} was not uploaded, or its entity tag is another",
                wanted.number
            ))
        })?;
        if position + 1 < named.len() && part.size < SMALLEST_PART_BYTES {
            return Err(Error::Invalid(format!(
                "EntityTooSmall: part {} is smaller than 5 MiB",
                part.number
            )));
        }
        chosen.push(part);
    }
    Ok(chosen)
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |value, byte| value * 16 + digit(*byte)))
        .collect()
}

impl Session<'_> {
    fn insert_upload(&self, upload: &Upload) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO uploads (id, bucket, key, attributes, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                upload.id,
                upload.bucket,
                upload.key.as_bytes(),
                serde_json::to_string(&upload.attributes)?,
                upload.created_at,
            ])?;
        Ok(())
    }

    fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Upload> {
        let found = self
            .connection
            .prepare_cached("SELECT id, bucket, key, attributes, created_at FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3")?
            .query_row(params![id, bucket, key.as_bytes()], |row| Ok(upload_row(row)))
            .optional()?
            .transpose()?;
        found.ok_or_else(|| Error::Missing { kind: UPLOAD_KIND.into(), name: id.into() })
    }

    fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&(String, String)>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let end = super::names::successor(prefix.as_bytes()).unwrap_or_else(|| vec![0xFF]);
        let (key, id) =
            after.map_or((Vec::new(), String::new()), |(key, id)| (key.clone().into_bytes(), id.clone()));
        let mut statement = self.connection.prepare_cached(
            "SELECT id, bucket, key, attributes, created_at FROM uploads
             WHERE bucket = ?1 AND key >= ?2 AND key < ?3 AND (key, id) > (?4, ?5) ORDER BY key, id LIMIT ?6",
        )?;
        let mut uploads = Vec::new();
        let rows = statement.query_map(
            params![bucket, prefix.as_bytes(), end, key, id, i64::try_from(limit).unwrap_or(i64::MAX)],
            |row| Ok(upload_row(row)),
        )?;
        for row in rows {
            uploads.push(row??);
        }
        Ok(uploads)
    }

    fn put_part(&self, upload: &str, part: &Part) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO upload_parts (upload, number, path, size, etag, checksums, modified_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (upload, number) DO UPDATE SET path = excluded.path, size = excluded.size, etag = excluded.etag,
             checksums = excluded.checksums, modified_at = excluded.modified_at",
        )?.execute(params![
            upload, part.number, part.path.display().to_string(), part.size as i64, part.etag,
            serde_json::to_string(&part.checksums)?, part.modified_at,
        ])?;
        Ok(())
    }

    fn parts(&self, upload: &str) -> Result<Vec<Part>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, path, size, etag, checksums, modified_at FROM upload_parts WHERE upload = ?1 ORDER BY number",
        )?;
        let mut parts = Vec::new();
        for row in statement.query_map(params![upload], |row| Ok(part_row(row)))? {
            parts.push(row??);
        }
        Ok(parts)
    }

    fn delete_upload(&self, id: &str) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM upload_parts WHERE upload = ?1")?.execute(params![id])?;
        self.connection.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute(params![id])?;
        Ok(())
    }
}

fn upload_row(row: &Row<'_>) -> Result<Upload> {
    Ok(Upload {
        id: row.get(0)?,
        bucket: row.get(1)?,
        key: key_text(row.get(2)?)?,
        attributes: serde_json::from_str(&row.get::<_, String>(3)?)?,
        created_at: row.get(4)?,
    })
}

fn part_row(row: &Row<'_>) -> Result<Part> {
    Ok(Part {
        number: row.get(0)?,
        path: PathBuf::from(row.get::<_, String>(1)?),
        size: row.get::<_, i64>(2)? as u64,
        etag: row.get(3)?,
        checksums: serde_json::from_str(&row.get::<_, String>(4)?)?,
        modified_at: row.get(5)?,
    })
}
