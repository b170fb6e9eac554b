//! Packages of functions: the archive with the code, as it was uploaded.

use rusqlite::{OptionalExtension, params};

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

impl Session<'_> {
    /// Keeps the package of a function, in place of the one before.
    pub fn put_function_package(&self, key: &ResourceKey, bytes: &[u8]) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO function_packages (account, region, name, bytes) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (account, region, name) DO UPDATE SET bytes = excluded.bytes",
            )?
            .execute(params![key.account, key.region, key.name, bytes])?;
        Ok(())
    }

    /// The package of a function.
    pub fn function_package(&self, key: &ResourceKey) -> Result<Option<Vec<u8>>> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT bytes FROM function_packages WHERE account = ?1 AND region = ?2 AND name = ?3",
            )?
            .query_row(params![key.account, key.region, key.name], |row| row.get(0))
            .optional()?)
    }

    /// Removes the package of a function that goes.
    pub fn delete_function_package(&self, key: &ResourceKey) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM function_packages WHERE account = ?1 AND region = ?2 AND name = ?3")?
            .execute(params![key.account, key.region, key.name])?;
        Ok(())
    }
}
