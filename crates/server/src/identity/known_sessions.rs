//! Session tokens that were checked before, so that each request of a client need not be sealed and parsed anew.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;
use wire::Credential;

/// Most tokens that are kept.
const MOST: usize = 4096;

/// Tokens that hold, by access key. A token follows from the installation's secret and ends at its time: nothing here can become wrong
/// before, and the end is looked at for each request.
#[derive(Default)]
pub struct KnownSessions {
    known: RwLock<HashMap<String, Arc<Known>>>,
}

struct Known {
    token: String,
    credential: Arc<Credential>,
}

impl KnownSessions {
    /// What the token of a key stands for, if it was checked before and has not ended.
    pub fn find(&self, access_key_id: &str, token: &str, now_ms: i64) -> Option<Arc<Credential>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(access_key_id).cloned()?;
        let is_same = bool::from(known.token.as_bytes().ct_eq(token.as_bytes()));
        (is_same && !has_ended(&known.credential, now_ms)).then(|| known.credential.clone())
    }

    /// Keeps a token that holds.
    pub fn keep(&self, access_key_id: &str, token: &str, credential: &Arc<Credential>, now_ms: i64) {
        let kept = Arc::new(Known { token: token.to_owned(), credential: credential.clone() });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, one| !has_ended(&one.credential, now_ms));
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(access_key_id.to_owned(), kept);
    }
}

fn has_ended(credential: &Credential, now_ms: i64) -> bool {
    credential.expires_at_ms.is_some_and(|end_ms| end_ms <= now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(expires_at_ms: i64) -> Arc<Credential> {
        Arc::new(Credential {
            secret_access_key: "secret".into(),
            account: "123456789012".into(),
            principal_arn: "arn".into(),
            principal_id: "id".into(),
            expires_at_ms: Some(expires_at_ms),
            session_tags: wire::SessionTags::default(),
        })
    }

    #[test]
    fn a_token_is_known_as_it_was_until_it_ends() {
        let sessions = KnownSessions::default();
        sessions.keep("ASIA1", "token", &credential(100), 0);
        assert!(sessions.find("ASIA1", "token", 99).is_some());
        assert!(sessions.find("ASIA1", "token", 100).is_none(), "it has ended");
        assert!(sessions.find("ASIA1", "tokem", 99).is_none(), "it is another token");
        assert!(sessions.find("ASIA2", "token", 99).is_none(), "it is another key");
    }

    #[test]
    fn the_number_is_bounded() {
        let sessions = KnownSessions::default();
        for number in 0..MOST + 10 {
            sessions.keep(&format!("ASIA{number}"), "token", &credential(100), 0);
            assert!(sessions.known.read().unwrap().len() <= MOST);
        }
        assert!(sessions.find(&format!("ASIA{}", MOST + 9), "token", 0).is_some());
    }
}
