//! Tags of resources, by ARN.

use rusqlite::params;

use crate::database::Session;
use crate::error::{Error, Result};

/// Most tags on one resource, as in the service.
pub const MOST_TAGS: usize = 50;

impl Session<'_> {
    /// Adds tags, replacing the values of keys that are set already.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the resource would carry more than [`MOST_TAGS`].
    pub fn put_tags(&self, arn: &str, tags: &[(String, String)]) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO tags (arn, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value",
        )?;
        for (key, value) in tags {
            statement.execute(params![arn, key, value])?;
        }
        if self.tags(arn)?.len() > MOST_TAGS {
            return Err(Error::Invalid(format!("a resource carries at most {MOST_TAGS} tags")));
        }
        Ok(())
    }

    /// Tags in key order.
    pub fn tags(&self, arn: &str) -> Result<Vec<(String, String)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT key, value FROM tags WHERE arn = ?1 ORDER BY key")?;
        let rows = statement.query_map(params![arn], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes the tags of what is gone.
    pub fn delete_all_tags(&self, arn: &str) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM tags WHERE arn = ?1")?.execute(params![arn])?;
        Ok(())
    }

    /// Removes tags; keys that are not set are passed over.
    pub fn delete_tags(&self, arn: &str, keys: &[String]) -> Result<()> {
        let mut statement = self.connection.prepare_cached("DELETE FROM tags WHERE arn = ?1 AND key = ?2")?;
        for key in keys {
            statement.execute(params![arn, key])?;
        }
        Ok(())
    }
}
