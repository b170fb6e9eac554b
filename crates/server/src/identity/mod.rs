//! Who may call: accounts, long-lived keys, and short-lived sessions of roles.

mod bootstrap;
mod known_sessions;
mod sessions;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use futures::future::BoxFuture;
use store::{Clock, Database};
use wire::{Credential, CredentialProblem};

use self::known_sessions::KnownSessions;

pub use bootstrap::{EXECUTION_ROLE, create_account, create_key, prepare};
pub use sessions::{Session, SessionIssuer, random_id};

/// Looks credentials up for the signature check.
#[derive(Clone)]
pub struct Identity {
    database: Database,
    clock: Clock,
    sessions: SessionIssuer,
    known: Arc<RwLock<HashMap<String, Arc<Credential>>>>,
    known_sessions: Arc<KnownSessions>,
}

impl Identity {
    /// Reads the installation's secret; [`prepare`] must have run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open(database: Database, clock: Clock) -> store::Result<Identity> {
        let secret = database.read(|session| session.setting(bootstrap::SESSION_SECRET)).await?;
        let secret =
            secret.ok_or_else(|| store::Error::Invalid("the data directory has no session secret".into()))?;
        Ok(Identity {
            database,
            clock: clock.clone(),
            sessions: SessionIssuer::new(&secret, clock),
            known: Arc::default(),
            known_sessions: Arc::default(),
        })
    }

    /// Makes short-lived credentials.
    pub fn sessions(&self) -> &SessionIssuer {
        &self.sessions
    }

    fn find_session(&self, access_key_id: &str, token: &str) -> Result<Arc<Credential>, CredentialProblem> {
        let now_ms = self.clock.now_ms();
        if let Some(known) = self.known_sessions.find(access_key_id, token, now_ms) {
            return Ok(known);
        }
        let credential = Arc::new(self.sessions.verify(access_key_id, token, now_ms)?);
        self.known_sessions.keep(access_key_id, token, &credential, now_ms);
        Ok(credential)
    }

    async fn find_key(&self, access_key_id: &str) -> Result<Arc<Credential>, CredentialProblem> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        let known =
            self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(access_key_id).cloned();
        if let Some(credential) = known {
            return Ok(credential);
        }
        let wanted = access_key_id.to_owned();
        let found = self.database.read(move |session| session.access_key(&wanted)).await;
        let key = found
            .map_err(|error| {
                tracing::error!(%error, "an access key could not be looked up");
                CredentialProblem::Unavailable
            })?
            .ok_or(CredentialProblem::Unknown)?;
        let credential = Arc::new(Credential {
            secret_access_key: key.secret_access_key,
            account: key.account,
            principal_arn: key.principal_arn,
            principal_id: key.principal_id,
            expires_at_ms: None,
            session_tags: wire::SessionTags::default(),
        });
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(access_key_id.to_owned(), credential.clone());
        Ok(credential)
    }
}

impl wire::Credentials for Identity {
    fn find<'a>(
        &'a self,
        access_key_id: &'a str,
        session_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Arc<Credential>, CredentialProblem>> {
        Box::pin(async move {
            match session_token {
                Some(token) => self.find_session(access_key_id, token),
                None if access_key_id.starts_with("ASIA") => Err(CredentialProblem::InvalidToken),
                None => self.find_key(access_key_id).await,
            }
        })
    }
}
