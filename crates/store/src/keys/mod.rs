//! Encryption keys of accounts, their aliases, and what is done with them. Key material is stored wrapped: by a key that
//! belongs to the account and is derived from the master key of the data directory.

mod aliases;
mod master;
mod reference;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use aliases::{Alias, Naming};
pub use reference::KeyReference;

use crate::clock::Clock;
use crate::database::Database;
use crate::error::Result;
use crate::seal::{SecretKey, context_bytes};

/// First byte of what [`KeyStore::encrypt`] makes.
const FORMAT: u8 = 1;

/// Bytes of a key's id in what is encrypted with it.
const ID_BYTES: usize = 16;

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It encrypts and decrypts.
    Enabled,
    /// It does neither until it is enabled again.
    Disabled,
    /// As disabled; at its time it goes for good.
    PendingDeletion,
}

impl KeyState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Enabled => "Enabled",
            KeyState::Disabled => "Disabled",
            KeyState::PendingDeletion => "PendingDeletion",
        }
    }
}

/// What is known of a key; never its material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id, a UUID.
    pub id: String,
    /// Account that owns it.
    pub account: String,
    /// Region it belongs to.
    pub region: String,
    /// Whether it may be used.
    pub state: KeyState,
    /// Whether the server made it for its own use of the account's data.
    pub is_managed: bool,
    /// Free text.
    pub description: String,
    /// A policy document as JSON text.
    pub policy: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When it goes, in milliseconds since 1970, while its deletion is pending.
    pub deletion_at: Option<i64>,
}

/// Why a key or what was encrypted with it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// There is no such key, or it was deleted.
    #[error("the key {0} does not exist")]
    Missing(String),
    /// There is no such alias.
    #[error("the alias {0} does not exist")]
    MissingAlias(String),
    /// The alias is taken.
    #[error("the alias {0} exists already")]
    AliasExists(String),
    /// The key is disabled.
    #[error("the key {0} is disabled")]
    Disabled(String),
    /// The key will be deleted.
    #[error("the key {0} is pending deletion")]
    PendingDeletion(String),
    /// The key is in a state that does not allow the change.
    #[error("the key {0} is not pending deletion")]
    NotPendingDeletion(String),
    /// The key is the server's own.
    #[error("the key {0} is managed by the server")]
    Managed(String),
    /// The bytes were encrypted with another key than the caller names.
    #[error("the key {0} is not the one that these bytes were encrypted with")]
    Incorrect(String),
    /// The bytes name a key that is not there for this account and region.
    #[error("the encrypted bytes refer to a key that does not exist here")]
    UnknownKey,
    /// The bytes, or the context, are not those of an encryption.
    #[error("the encrypted bytes were changed, or their encryption context is another")]
    Ciphertext,
}

/// The keys of a data directory; clones share them.
#[derive(Clone)]
pub struct KeyStore {
    database: Database,
    clock: Clock,
    master: Arc<SecretKey>,
}

impl KeyStore {
    /// Opens the keys whose master key lies at `master_key`; it is made where the data directory never had one.
    ///
    /// # Errors
    /// A text for people when the master key is missing, or another one than before.
    pub async fn open(database: Database, master_key: &Path, clock: Clock) -> Result<KeyStore> {
        let master = Arc::new(master::open(&database, master_key).await?);
        let keys = KeyStore { database, clock, master };
        keys.purge().await?;
        Ok(keys)
    }

    /// The key that protects an account's objects where nobody asks for another one.
    pub(crate) fn of_account(&self, account: &str) -> SecretKey {
        self.master.derive(b"", &[b"objects of ", account.as_bytes()])
    }

    /// The key that protects what an account's remote buckets are reached with.
    pub(crate) fn of_remotes(&self, account: &str) -> SecretKey {
        self.master.derive(b"", &[b"remote buckets of ", account.as_bytes()])
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create(
        &self,
        account: &str,
        region: &str,
        description: &str,
        policy: &str,
        tags: Vec<(String, String)>,
        tagged_arn: impl FnOnce(&Key) -> String,
    ) -> Result<Key> {
        let mut key = self.new_key(account, region, description);
        policy.clone_into(&mut key.policy);
        let (material, stored, arn) = (self.wrap_new(&key), key.clone(), tagged_arn(&key));
        self.database
            .write(move |session| {
                session.insert_key(&stored, &material)?;
                session.put_tags(&arn, &tags)
            })
            .await?;
        Ok(key)
    }

    fn new_key(&self, account: &str, region: &str, description: &str) -> Key {
        Key {
            id: uuid::Uuid::new_v4().to_string(),
            account: account.to_owned(),
            region: region.to_owned(),
            state: KeyState::Enabled,
            is_managed: false,
            description: description.to_owned(),
            policy: String::new(),
            created_at: self.clock.now_ms(),
            deletion_at: None,
        }
    }

    /// New material of a key, wrapped. The id is part of the context, so that rows cannot be exchanged.
    fn wrap_new(&self, key: &Key) -> Vec<u8> {
        self.wrapping(&key.account).seal(key.id.as_bytes(), SecretKey::random().expose())
    }

    fn wrapping(&self, account: &str) -> SecretKey {
        self.master.derive(b"", &[b"keys of ", account.as_bytes()])
    }

    /// The key that the server uses for an account by itself, under the alias `alias`; it is made when it is first asked for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn managed(&self, account: &str, region: &str, alias: &str, description: &str) -> Result<Key> {
        let mut key = self.new_key(account, region, description);
        key.is_managed = true;
        let material = self.wrap_new(&key);
        let (alias, now_ms) = (alias.to_owned(), self.clock.now_ms());
        self.database
            .write(move |session| {
                if let Some(present) = session.aliased_key(&key.account, &key.region, &alias)? {
                    return session.key(&present)?.ok_or_else(|| KeyProblem::Missing(present).into());
                }
                session.insert_key(&key, &material)?;
                session.insert_alias(&key.account, &key.region, &alias, &key.id, now_ms)?;
                Ok(key)
            })
            .await
    }

    /// The key that a reference names in an account and region.
    ///
    /// # Errors
    /// [`KeyProblem::Missing`] or [`KeyProblem::MissingAlias`].
    pub async fn find(&self, account: &str, region: &str, reference: &KeyReference) -> Result<Key> {
        let (account, region) = (account.to_owned(), region.to_owned());
        let (reference, now_ms) = (reference.clone(), self.clock.now_ms());
        self.database.read(move |session| session.find_key(&account, &region, &reference, now_ms)).await
    }

    /// Keys of an account and region in the order of their ids, after one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, account: &str, region: &str, after: &str, limit: usize) -> Result<Vec<Key>> {
        let (account, region, after) = (account.to_owned(), region.to_owned(), after.to_owned());
        let now_ms = self.clock.now_ms();
        self.database.read(move |session| session.keys(&account, &region, &after, limit, now_ms)).await
    }

    /// Changes a key in one transaction.
    ///
    /// # Errors
    /// Those of [`KeyStore::find`], [`KeyProblem::Managed`], and what `change` says.
    pub async fn update(
        &self,
        account: &str,
        region: &str,
        reference: &KeyReference,
        change: impl FnOnce(&mut Key, i64) -> Result<(), KeyProblem> + Send + 'static,
    ) -> Result<Key> {
        let (account, region) = (account.to_owned(), region.to_owned());
        let (reference, now_ms) = (reference.clone(), self.clock.now_ms());
        self.database
            .write(move |session| {
                let mut key = session.find_key(&account, &region, &reference, now_ms)?;
                if key.is_managed {
                    return Err(KeyProblem::Managed(key.id).into());
                }
                change(&mut key, now_ms)?;
                session.update_key(&key)?;
                Ok(key)
            })
            .await
    }

    /// Encrypts bytes with a key that [`KeyStore::find`] gave. The result names the key.
    ///
    /// # Errors
    /// [`KeyProblem::Disabled`], [`KeyProblem::PendingDeletion`], [`KeyProblem::Missing`].
    pub async fn encrypt(
        &self,
        key: &Key,
        context: &BTreeMap<String, String>,
        plain: &[u8],
    ) -> Result<Vec<u8>> {
        let secret = self.material(&key.id).await?.1;
        let mut blob = vec![FORMAT];
        // Ids are UUIDs that this store made.
        blob.extend(uuid::Uuid::parse_str(&key.id).unwrap_or_default().as_bytes());
        blob.extend(secret.seal(&context_bytes(context), plain));
        Ok(blob)
    }

    /// The bytes behind what [`KeyStore::encrypt`] made, and their key.
    ///
    /// # Errors
    /// [`KeyProblem::Ciphertext`], [`KeyProblem::UnknownKey`] when the key is none of the account (and of the region, when
    /// it is given), [`KeyProblem::Disabled`], [`KeyProblem::PendingDeletion`].
    pub async fn decrypt(
        &self,
        account: &str,
        region: Option<&str>,
        context: &BTreeMap<String, String>,
        blob: &[u8],
    ) -> Result<(Key, Vec<u8>)> {
        let id = key_of(blob).ok_or(KeyProblem::Ciphertext)?;
        let (key, secret) = match self.material(&id).await {
            Err(crate::Error::Key(KeyProblem::Missing(_))) => return Err(KeyProblem::UnknownKey.into()),
            found => found?,
        };
        if key.account != account || region.is_some_and(|region| region != key.region) {
            return Err(KeyProblem::UnknownKey.into());
        }
        let opened = secret.open(&context_bytes(context), &blob[1 + ID_BYTES..]);
        Ok((key, opened.map_err(|_| KeyProblem::Ciphertext)?))
    }

    /// A key with its material, when it may be used now.
    async fn material(&self, id: &str) -> Result<(Key, SecretKey)> {
        let (wanted, now_ms) = (id.to_owned(), self.clock.now_ms());
        let found = self.database.read(move |session| session.key_material(&wanted, now_ms)).await?;
        let (key, wrapped) = found.ok_or_else(|| KeyProblem::Missing(id.to_owned()))?;
        match key.state {
            KeyState::Enabled => {}
            KeyState::Disabled => return Err(KeyProblem::Disabled(key.id).into()),
            KeyState::PendingDeletion => return Err(KeyProblem::PendingDeletion(key.id).into()),
        }
        let material = self.wrapping(&key.account).open(key.id.as_bytes(), &wrapped);
        let secret = material.ok().and_then(|bytes| SecretKey::from_bytes(&bytes));
        Ok((key, secret.ok_or(KeyProblem::Ciphertext)?))
    }

    /// Removes the keys whose time has come, with their material, aliases and whatever was encrypted with them for good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge(&self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        if self.database.read(move |session| session.has_expired_keys(now_ms)).await? {
            self.database.write(move |session| session.purge_keys(now_ms)).await?;
        }
        Ok(())
    }
}

/// Id of the key that some bytes were encrypted with.
fn key_of(blob: &[u8]) -> Option<String> {
    let rest = blob.strip_prefix(&[FORMAT])?;
    let id = rest.get(..ID_BYTES)?.try_into().ok()?;
    Some(uuid::Uuid::from_bytes(id).to_string())
}
