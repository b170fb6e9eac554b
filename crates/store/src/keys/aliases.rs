//! Aliases: names of keys that can be pointed at another key.

use super::{KeyProblem, KeyReference, KeyStore};
use crate::error::Result;

/// A name of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name, which begins with `alias/`.
    pub name: String,
    /// Id of the key.
    pub key: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

/// Whether a name is new or was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// No key has it yet.
    New,
    /// It is pointed at another key.
    Present,
}

impl KeyStore {
    /// Points a name at a key.
    ///
    /// # Errors
    /// [`KeyProblem::AliasExists`] of a new name, [`KeyProblem::MissingAlias`] of one that should be there,
    /// [`KeyProblem::Missing`], [`KeyProblem::PendingDeletion`].
    pub async fn point_alias(
        &self,
        account: &str,
        region: &str,
        name: &str,
        key: &KeyReference,
        naming: Naming,
    ) -> Result<()> {
        let (account, region, name) = (account.to_owned(), region.to_owned(), name.to_owned());
        let (key, now_ms) = (key.clone(), self.clock.now_ms());
        self.database
            .write(move |session| {
                let key = session.nameable_key(&account, &region, &key, now_ms)?;
                match naming {
                    Naming::New => session.insert_alias(&account, &region, &name, &key.id, now_ms),
                    Naming::Present if session.update_alias(&account, &region, &name, &key.id, now_ms)? => {
                        Ok(())
                    }
                    Naming::Present => Err(KeyProblem::MissingAlias(name).into()),
                }
            })
            .await
    }

    /// Takes a name away from its key.
    ///
    /// # Errors
    /// [`KeyProblem::MissingAlias`].
    pub async fn delete_alias(&self, account: &str, region: &str, name: &str) -> Result<()> {
        let (account, region, name) = (account.to_owned(), region.to_owned(), name.to_owned());
        self.database
            .write(move |session| {
                if session.delete_alias(&account, &region, &name)? {
                    return Ok(());
                }
                Err(KeyProblem::MissingAlias(name).into())
            })
            .await
    }

    /// Aliases of an account and region, or of one key there, in the order of their names, after one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn aliases(
        &self,
        account: &str,
        region: &str,
        key: Option<String>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Alias>> {
        let (account, region, after) = (account.to_owned(), region.to_owned(), after.to_owned());
        self.database
            .read(move |session| session.aliases(&account, &region, key.as_deref(), &after, limit))
            .await
    }
}
