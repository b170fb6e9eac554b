//! The rows of keys and aliases.

use rusqlite::{OptionalExtension, Row, params};

use super::{Alias, Key, KeyProblem, KeyReference, KeyState};
use crate::database::Session;
use crate::error::{Error, Result};

/// Columns that [`key_row`] reads.
const COLUMNS: &str =
    "id, account, region, state, is_managed, description, policy, created_at, deletion_at, material";

impl Session<'_> {
    pub(super) fn insert_key(&self, key: &Key, material: &[u8]) -> Result<()> {
        let sql = format!(
            "INSERT INTO encryption_keys ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        );
        self.connection.prepare_cached(&sql)?.execute(params![
            key.id,
            key.account,
            key.region,
            key.state.as_str(),
            key.is_managed,
            key.description,
            key.policy,
            key.created_at,
            key.deletion_at,
            material,
        ])?;
        Ok(())
    }

    pub(super) fn update_key(&self, key: &Key) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE encryption_keys SET state = ?2, description = ?3, policy = ?4, deletion_at = ?5 WHERE id = ?1",
            )?
            .execute(params![key.id, key.state.as_str(), key.description, key.policy, key.deletion_at])?;
        Ok(())
    }

    pub(super) fn key(&self, id: &str) -> Result<Option<Key>> {
        Ok(self.key_with_material(id)?.map(|(key, _)| key))
    }

    /// A key with its wrapped material, unless its time has come.
    pub(super) fn key_material(&self, id: &str, now_ms: i64) -> Result<Option<(Key, Vec<u8>)>> {
        Ok(self.key_with_material(id)?.filter(|(key, _)| !is_expired(key, now_ms)))
    }

    fn key_with_material(&self, id: &str) -> Result<Option<(Key, Vec<u8>)>> {
        let sql = format!("SELECT {COLUMNS} FROM encryption_keys WHERE id = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_row(params![id], |row| Ok(key_row(row))).optional()?.transpose()
    }

    pub(super) fn find_key(
        &self,
        account: &str,
        region: &str,
        reference: &KeyReference,
        now_ms: i64,
    ) -> Result<Key> {
        let id = match reference {
            KeyReference::Id(id) => id.clone(),
            KeyReference::Alias(name) => {
                let aliased = self.aliased_key(account, region, name)?;
                aliased.ok_or_else(|| KeyProblem::MissingAlias(name.clone()))?
            }
        };
        let found = self.key_material(&id, now_ms)?.map(|(key, _)| key);
        let found = found.filter(|key| key.account == account && key.region == region);
        found.ok_or_else(|| KeyProblem::Missing(id).into())
    }

    /// A key that an alias may point at.
    pub(super) fn nameable_key(
        &self,
        account: &str,
        region: &str,
        reference: &KeyReference,
        now_ms: i64,
    ) -> Result<Key> {
        let key = self.find_key(account, region, reference, now_ms)?;
        match key.state {
            KeyState::PendingDeletion => Err(KeyProblem::PendingDeletion(key.id).into()),
            KeyState::Enabled | KeyState::Disabled => Ok(key),
        }
    }

    pub(super) fn keys(
        &self,
        account: &str,
        region: &str,
        after: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<Key>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM encryption_keys WHERE account = ?1 AND region = ?2 AND id > ?3
             AND (deletion_at IS NULL OR deletion_at > ?4) ORDER BY id LIMIT ?5"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut keys = Vec::new();
        for row in
            statement.query_map(params![account, region, after, now_ms, limit], |row| Ok(key_row(row)))?
        {
            keys.push(row??.0);
        }
        Ok(keys)
    }

    pub(super) fn has_expired_keys(&self, now_ms: i64) -> Result<bool> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM encryption_keys WHERE deletion_at <= ?1 LIMIT 1")?;
        Ok(statement.exists(params![now_ms])?)
    }

    pub(super) fn purge_keys(&self, now_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM key_aliases WHERE key IN (SELECT id FROM encryption_keys WHERE deletion_at <= ?1)",
            )?
            .execute(params![now_ms])?;
        self.connection
            .prepare_cached(
                "DELETE FROM tags WHERE arn IN (SELECT 'arn:aws:kms:' || region || ':' || account || ':key/' || id
                 FROM encryption_keys WHERE deletion_at <= ?1)",
            )?
            .execute(params![now_ms])?;
        self.connection
            .prepare_cached("DELETE FROM encryption_keys WHERE deletion_at <= ?1")?
            .execute(params![now_ms])?;
        Ok(())
    }

    pub(super) fn aliased_key(&self, account: &str, region: &str, name: &str) -> Result<Option<String>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key FROM key_aliases WHERE account = ?1 AND region = ?2 AND name = ?3")?;
        Ok(statement.query_row(params![account, region, name], |row| row.get(0)).optional()?)
    }

    pub(super) fn insert_alias(
        &self,
        account: &str,
        region: &str,
        name: &str,
        key: &str,
        now_ms: i64,
    ) -> Result<()> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO key_aliases (account, region, name, key, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT DO NOTHING",
            )?
            .execute(params![account, region, name, key, now_ms])?;
        if added == 0 {
            return Err(KeyProblem::AliasExists(name.to_owned()).into());
        }
        Ok(())
    }

    pub(super) fn update_alias(
        &self,
        account: &str,
        region: &str,
        name: &str,
        key: &str,
        now_ms: i64,
    ) -> Result<bool> {
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE key_aliases SET key = ?4, updated_at = ?5 WHERE account = ?1 AND region = ?2 AND name = ?3",
            )?
            .execute(params![account, region, name, key, now_ms])?;
        Ok(changed > 0)
    }

    pub(super) fn delete_alias(&self, account: &str, region: &str, name: &str) -> Result<bool> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM key_aliases WHERE account = ?1 AND region = ?2 AND name = ?3")?
            .execute(params![account, region, name])?;
        Ok(removed > 0)
    }

    pub(super) fn aliases(
        &self,
        account: &str,
        region: &str,
        key: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Alias>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, key, created_at, updated_at FROM key_aliases
             WHERE account = ?1 AND region = ?2 AND (?3 IS NULL OR key = ?3) AND name > ?4 ORDER BY name LIMIT ?5",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![account, region, key, after, limit], |row| {
            Ok(Alias {
                name: row.get(0)?,
                key: row.get(1)?,
                created_at: row.get(2)?,
                updated_at: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn is_expired(key: &Key, now_ms: i64) -> bool {
    key.deletion_at.is_some_and(|at| at <= now_ms)
}

fn key_row(row: &Row<'_>) -> Result<(Key, Vec<u8>)> {
    let state: String = row.get(3)?;
    let states = [KeyState::Enabled, KeyState::Disabled, KeyState::PendingDeletion];
    let known = states.into_iter().find(|known| known.as_str() == state);
    let key = Key {
        id: row.get(0)?,
        account: row.get(1)?,
        region: row.get(2)?,
        state: known.ok_or_else(|| Error::Invalid(format!("a stored key has the unknown state {state}")))?,
        is_managed: row.get(4)?,
        description: row.get(5)?,
        policy: row.get(6)?,
        created_at: row.get(7)?,
        deletion_at: row.get(8)?,
    };
    Ok((key, row.get(9)?))
}
