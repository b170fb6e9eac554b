//! Accounts, access keys and roles.

use rusqlite::{OptionalExtension, Row, params};

use crate::database::Session;
use crate::error::{Error, Result};

/// A long-lived access key and the identity it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Public half.
    pub access_key_id: String,
    /// Twelve-digit account.
    pub account: String,
    /// Secret half.
    pub secret_access_key: String,
    /// ARN that GetCallerIdentity answers.
    pub principal_arn: String,
    /// Unique id of the principal, for example `AROA…:alice`.
    pub principal_id: String,
    /// User the key was given to.
    pub user_name: String,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Twelve-digit account.
    pub account: String,
    /// Name without path.
    pub name: String,
    /// Path, `/` by default.
    pub path: String,
    /// Unique id, `AROA…`.
    pub role_id: String,
    /// Who may assume it: a policy document as JSON text.
    pub trust_policy: String,
    /// Free text.
    pub description: Option<String>,
    /// Longest session that AssumeRole gives.
    pub max_session_seconds: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl Role {
    /// The role's ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:role{}{}", self.account, self.path, self.name)
    }
}

impl Session<'_> {
    /// Reads a named setting of the installation.
    pub fn setting(&self, name: &str) -> Result<Option<String>> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM settings WHERE name = ?1")?;
        Ok(statement.query_row(params![name], |row| row.get(0)).optional()?)
    }

    /// Sets a named setting.
    pub fn put_setting(&self, name: &str, value: &str) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?.execute(params![name, value])?;
        Ok(())
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn insert_account(&self, id: &str, name: &str, now_ms: i64) -> Result<()> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO accounts (id, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![id, name, now_ms])?;
        if added == 0 {
            return Err(Error::Exists { kind: "account".into(), name: id.into() });
        }
        Ok(())
    }

    /// When an account was made, milliseconds since 1970.
    pub fn account_created_at(&self, id: &str) -> Result<Option<i64>> {
        let mut statement =
            self.connection.prepare_cached("SELECT created_at FROM accounts WHERE id = ?1")?;
        Ok(statement.query_row(params![id], |row| row.get(0)).optional()?)
    }

    /// Ids and names of all accounts.
    pub fn accounts(&self) -> Result<Vec<(String, String)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, name FROM accounts ORDER BY created_at, id")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds an access key.
    pub fn insert_access_key(&self, key: &AccessKey, now_ms: i64) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO access_keys (access_key_id, account, secret_access_key, principal_arn, principal_id, user_name, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?.execute(params![
            key.access_key_id, key.account, key.secret_access_key, key.principal_arn, key.principal_id, key.user_name, now_ms,
        ])?;
        Ok(())
    }

    /// Finds an access key.
    pub fn access_key(&self, access_key_id: &str) -> Result<Option<AccessKey>> {
        let sql = format!("SELECT {KEY_COLUMNS} FROM access_keys WHERE access_key_id = ?1");
        Ok(self.connection.prepare_cached(&sql)?.query_row(params![access_key_id], key_row).optional()?)
    }

    /// All access keys of an account, oldest first.
    pub fn access_keys(&self, account: &str) -> Result<Vec<AccessKey>> {
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM access_keys WHERE account = ?1 ORDER BY created_at, access_key_id"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![account], key_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a role.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken.
    pub fn insert_role(&self, role: &Role) -> Result<()> {
        let added = self.connection.prepare_cached(
            "INSERT INTO roles (account, name, path, role_id, trust_policy, description, max_session_seconds, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )?.execute(params![
            role.account, role.name, role.path, role.role_id, role.trust_policy, role.description,
            role.max_session_seconds, role.created_at,
        ])?;
        if added == 0 {
            return Err(Error::Exists { kind: "role".into(), name: role.name.clone() });
        }
        Ok(())
    }

    /// Finds a role by its name.
    pub fn role(&self, account: &str, name: &str) -> Result<Option<Role>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT account, name, path, role_id, trust_policy, description, max_session_seconds, created_at
             FROM roles WHERE account = ?1 AND name = ?2",
        )?;
        Ok(statement.query_row(params![account, name], role_row).optional()?)
    }

    /// Attaches a managed policy to a role; a second time changes nothing.
    pub fn attach_role_policy(&self, account: &str, role: &str, policy_arn: &str, now_ms: i64) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO role_policies (account, role, policy_arn, attached_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?.execute(params![account, role, policy_arn, now_ms])?;
        Ok(())
    }

    /// ARNs of the managed policies of a role.
    pub fn role_policies(&self, account: &str, role: &str) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT policy_arn FROM role_policies WHERE account = ?1 AND role = ?2 ORDER BY attached_at, policy_arn",
        )?;
        let rows = statement.query_map(params![account, role], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

const KEY_COLUMNS: &str = "access_key_id, account, secret_access_key, principal_arn, principal_id, user_name";

fn key_row(row: &Row<'_>) -> rusqlite::Result<AccessKey> {
    Ok(AccessKey {
        access_key_id: row.get(0)?,
        account: row.get(1)?,
        secret_access_key: row.get(2)?,
        principal_arn: row.get(3)?,
        principal_id: row.get(4)?,
        user_name: row.get(5)?,
    })
}

fn role_row(row: &Row<'_>) -> rusqlite::Result<Role> {
    Ok(Role {
        account: row.get(0)?,
        name: row.get(1)?,
        path: row.get(2)?,
        role_id: row.get(3)?,
        trust_policy: row.get(4)?,
        description: row.get(5)?,
        max_session_seconds: row.get(6)?,
        created_at: row.get(7)?,
    })
}
