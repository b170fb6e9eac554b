//! Which key protects an object: what a write asks for, what a bucket prescribes, and what the object remembers.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Bucket, ObjectStore, Refusal};
use crate::error::{Error, Result};
use crate::keys::{KeyProblem, KeyReference};
use crate::seal::SecretKey;

/// Kind of the document that holds a bucket's [`Protection`].
pub const PROTECTION_DOCUMENT: &str = "encryption";

/// Alias of the key that encrypts objects of an account where a write asks for a key and names none.
const MANAGED_ALIAS: &str = "alias/aws/s3";

/// Description of that key.
const MANAGED_DESCRIPTION: &str = "Default key that protects my S3 objects when no other key is defined";

/// How a write wants its bytes encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// Not at all.
    Plain,
    /// By the key of the account.
    Account,
    /// By a key of the account's own.
    Key {
        /// Its id, alias or ARN; the account's managed key when it is left out.
        reference: Option<String>,
        /// What is authenticated together with the data key.
        context: BTreeMap<String, String>,
        /// Whether the wish for fewer uses of the key was made; it is kept and shown.
        bucket_key: bool,
    },
}

/// How an object's bytes are encrypted. The data key is wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The key that wraps the data key; that of the account when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<EncryptionKey>,
    /// The wrapped data key, in base64.
    data_key: String,
}

/// The account's own key that an object is encrypted with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionKey {
    /// Id of the key.
    pub id: String,
    /// Region of the key.
    pub region: String,
    /// What was authenticated together with the data key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// Whether the write wished for fewer uses of the key.
    #[serde(default)]
    pub bucket_key: bool,
}

impl ObjectStore {
    /// What the bucket prescribes for writes that ask for nothing, when it does.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Denied`] of the bucket.
    pub async fn default_protection(&self, account: &str, bucket: &str) -> Result<Option<Protection>> {
        let document = self.bucket_document(account, bucket, PROTECTION_DOCUMENT).await?;
        Ok(document.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Sets what the bucket prescribes for writes that ask for nothing.
    ///
    /// # Errors
    /// As [`ObjectStore::default_protection`].
    pub async fn set_default_protection(
        &self,
        account: &str,
        bucket: &str,
        protection: Option<&Protection>,
    ) -> Result<()> {
        if protection.is_some() {
            let owned = self.bucket(account, bucket).await?;
            if owned.folder.is_some() {
                return Err(Refusal::OfFolder("its files are not encrypted").into());
            }
            if owned.remote.is_some() {
                return Err(Refusal::OfRemote("this server does not encrypt its objects").into());
            }
        }
        let text = protection.map(serde_json::to_string).transpose()?;
        self.set_bucket_document(account, bucket, PROTECTION_DOCUMENT, text).await
    }

    /// The bucket of a write, and how the write is encrypted that wishes so.
    pub(super) async fn written_bucket(
        &self,
        account: &str,
        bucket: &str,
        wish: Option<Protection>,
    ) -> Result<(Bucket, Protection)> {
        let (owner, name, is_open) = (account.to_owned(), bucket.to_owned(), wish.is_none());
        let (bucket, document) = self
            .database
            .read(move |session| {
                let bucket = session.owned_bucket(&owner, &name)?;
                let document = match is_open {
                    true => session.bucket_document(&name, PROTECTION_DOCUMENT)?,
                    false => None,
                };
                Ok((bucket, document))
            })
            .await?;
        let prescribed: Option<Protection> = document.map(|text| serde_json::from_str(&text)).transpose()?;
        let protection = wish.or(prescribed).unwrap_or(Protection::Plain);
        if let Some(remote) = &bucket.remote {
            remote.check_writable()?;
            if protection != Protection::Plain {
                let text = "this server does not encrypt its objects; leave the encryption out";
                return Err(Refusal::OfRemote(text).into());
            }
        }
        if let Some(folder) = &bucket.folder {
            folder.check_writable()?;
            if protection != Protection::Plain {
                return Err(Refusal::OfFolder("its files are not encrypted; leave the encryption out").into());
            }
        }
        Ok((bucket, protection))
    }

    /// A new data key for an object of the bucket and how it is wrapped; `None` for one that stays plain.
    pub(super) async fn new_data_key(
        &self,
        bucket: &Bucket,
        protection: Protection,
    ) -> Result<Option<(Encryption, SecretKey)>> {
        let (account, region, bucket) = (&bucket.account, &bucket.region, &bucket.name);
        let data_key = SecretKey::random();
        let (key, wrapped) = match protection {
            Protection::Plain => return Ok(None),
            Protection::Account => {
                (None, self.keys.of_account(account).seal(bucket.as_bytes(), data_key.expose()))
            }
            Protection::Key { reference, context, bucket_key } => {
                let key = match reference {
                    None => self.keys.managed(account, region, MANAGED_ALIAS, MANAGED_DESCRIPTION).await?,
                    Some(text) => self.referenced_key(account, region, &text).await?,
                };
                let wrapped = self.keys.encrypt(&key, &bound(&context, bucket), data_key.expose()).await?;
                (Some(EncryptionKey { id: key.id, region: key.region, context, bucket_key }), wrapped)
            }
        };
        Ok(Some((Encryption { key, data_key: STANDARD.encode(wrapped) }, data_key)))
    }

    async fn referenced_key(&self, account: &str, region: &str, text: &str) -> Result<crate::keys::Key> {
        let missing = || Error::from(KeyProblem::Missing(text.to_owned()));
        let (reference, place) = KeyReference::parse(text).ok_or_else(missing)?;
        let (region, owner) = place.unwrap_or_else(|| (region.to_owned(), account.to_owned()));
        if owner != account {
            return Err(missing());
        }
        self.keys.find(account, &region, &reference).await
    }

    /// The data key of an object or upload.
    pub(super) async fn data_key(
        &self,
        account: &str,
        bucket: &str,
        encryption: &Encryption,
    ) -> Result<SecretKey> {
        let wrapped = STANDARD.decode(&encryption.data_key).map_err(|_| KeyProblem::Ciphertext)?;
        let bytes = match &encryption.key {
            None => {
                let opened = self.keys.of_account(account).open(bucket.as_bytes(), &wrapped);
                opened.map_err(|_| KeyProblem::Ciphertext)?
            }
            Some(key) => {
                let context = bound(&key.context, bucket);
                let decrypted = self.keys.decrypt(account, None, &context, &wrapped).await;
                let unknown = |error| match error {
                    Error::Key(KeyProblem::UnknownKey) => KeyProblem::Missing(key.id.clone()).into(),
                    other => other,
                };
                decrypted.map_err(unknown)?.1
            }
        };
        SecretKey::from_bytes(&bytes).ok_or_else(|| KeyProblem::Ciphertext.into())
    }
}

/// The context of a wrapped data key: the caller's, and the bucket, so that rows cannot be moved to another one.
fn bound(context: &BTreeMap<String, String>, bucket: &str) -> BTreeMap<String, String> {
    let mut context = context.clone();
    context.insert("modelyard:bucket".into(), bucket.into());
    context
}
