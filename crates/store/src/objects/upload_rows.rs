//! The rows of uploads and their parts.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};

use super::names::successor;
use super::rows::key_text;
use super::{Part, UPLOAD_KIND, Upload};
use crate::database::Session;
use crate::error::{Error, Result};

impl Session<'_> {
    pub(super) fn insert_upload(&self, upload: &Upload) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO uploads (id, bucket, key, attributes, checksum, created_at, remote_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                upload.id,
                upload.bucket,
                upload.key.as_bytes(),
                serde_json::to_string(&upload.attributes)?,
                upload.checksum.as_ref().map(serde_json::to_string).transpose()?,
                upload.created_at,
                upload.remote_id,
            ])?;
        Ok(())
    }

    pub(super) fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Upload> {
        let found = self
            .connection
            .prepare_cached("SELECT id, bucket, key, attributes, checksum, created_at, remote_id FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3")?
            .query_row(params![id, bucket, key.as_bytes()], |row| Ok(upload_row(row)))
            .optional()?
            .transpose()?;
        found.ok_or_else(|| Error::Missing { kind: UPLOAD_KIND.into(), name: id.into() })
    }

    pub(super) fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&(String, String)>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let end = successor(prefix.as_bytes()).unwrap_or_else(|| vec![0xFF]);
        let (key, id) =
            after.map_or((Vec::new(), String::new()), |(key, id)| (key.clone().into_bytes(), id.clone()));
        let mut statement = self.connection.prepare_cached(
            "SELECT id, bucket, key, attributes, checksum, created_at, remote_id FROM uploads
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

    /// Uploads to local buckets that have not grown since a time, in the order of their ids, with their bytes.
    pub(super) fn idle_uploads(
        &self,
        before_ms: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Upload, u64)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT u.id, u.bucket, u.key, u.attributes, u.checksum, u.created_at, u.remote_id,
             (SELECT coalesce(sum(size), 0) FROM upload_parts p WHERE p.upload = u.id) FROM uploads u
             WHERE u.id > ?1 AND u.created_at < ?2 AND u.remote_id IS NULL
             AND NOT EXISTS (SELECT 1 FROM upload_parts p WHERE p.upload = u.id AND p.modified_at >= ?2)
             ORDER BY u.id LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut uploads = Vec::new();
        let rows = statement.query_map(params![after, before_ms, limit], |row| {
            Ok((upload_row(row), row.get::<_, i64>(7)?.unsigned_abs()))
        })?;
        for row in rows {
            let (upload, bytes) = row?;
            uploads.push((upload?, bytes));
        }
        Ok(uploads)
    }

    pub(super) fn put_part(&self, upload: &str, part: &Part) -> Result<()> {
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

    pub(super) fn parts(&self, upload: &str) -> Result<Vec<Part>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, path, size, etag, checksums, modified_at FROM upload_parts WHERE upload = ?1 ORDER BY number",
        )?;
        let mut parts = Vec::new();
        for row in statement.query_map(params![upload], |row| Ok(part_row(row)))? {
            parts.push(row??);
        }
        Ok(parts)
    }

    pub(super) fn delete_upload(&self, id: &str) -> Result<()> {
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
        checksum: row.get::<_, Option<String>>(4)?.map(|text| serde_json::from_str(&text)).transpose()?,
        created_at: row.get(5)?,
        remote_id: row.get(6)?,
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
