//! Short-lived credentials that need no storage: the token carries the claims, the key and its secret follow from the
//! installation's secret.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use store::Clock;
use wire::{Credential, CredentialProblem, SessionTags};

/// Short-lived credentials of an assumed role.
#[derive(Clone)]
pub struct Session {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: String,
    /// Must travel with every request.
    pub session_token: String,
    /// Identity that GetCallerIdentity answers.
    pub principal_arn: String,
    /// Unique id of the principal.
    pub principal_id: String,
    /// Milliseconds since 1970.
    pub expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    account: String,
    principal_arn: String,
    principal_id: String,
    expires_at_ms: i64,
    #[serde(default, skip_serializing_if = "SessionTags::is_empty")]
    session_tags: SessionTags,
}

/// Makes and checks sessions.
#[derive(Clone)]
pub struct SessionIssuer {
    secret: Vec<u8>,
    clock: Clock,
}

impl SessionIssuer {
    /// An issuer over the installation's secret.
    pub fn new(secret: &str, clock: Clock) -> SessionIssuer {
        SessionIssuer { secret: secret.as_bytes().to_vec(), clock }
    }

    /// Credentials for `principal_arn` with `session_tags` that end after `lifetime_seconds`.
    pub fn issue(
        &self,
        account: &str,
        principal_arn: &str,
        principal_id: &str,
        lifetime_seconds: i64,
        session_tags: SessionTags,
    ) -> Session {
        let access_key_id = format!("ASIA{}", random_id(16));
        let expires_at_ms = self.clock.now_ms() + lifetime_seconds * 1000;
        let claims = Claims {
            account: account.to_owned(),
            principal_arn: principal_arn.to_owned(),
            principal_id: principal_id.to_owned(),
            expires_at_ms,
            session_tags,
        };
        let claims = serde_json::to_vec(&claims).expect("plain strings and a number always serialize");
        let seal = self.mac(&[b"token", access_key_id.as_bytes(), &claims]);
        Session {
            secret_access_key: self.secret_of(&access_key_id),
            session_token: format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(&claims),
                URL_SAFE_NO_PAD.encode(seal.finalize().into_bytes())
            ),
            access_key_id,
            principal_arn: principal_arn.to_owned(),
            principal_id: principal_id.to_owned(),
            expires_at_ms,
        }
    }

    /// Checks a token against its key.
    ///
    /// # Errors
    /// `InvalidToken` when the token was not made here for this key, `Expired` when it has ended.
    pub fn verify(
        &self,
        access_key_id: &str,
        token: &str,
        now_ms: i64,
    ) -> Result<Credential, CredentialProblem> {
        let (claims, seal) = token.split_once('.').ok_or(CredentialProblem::InvalidToken)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| CredentialProblem::InvalidToken)?;
        let seal = URL_SAFE_NO_PAD.decode(seal).map_err(|_| CredentialProblem::InvalidToken)?;
        self.mac(&[b"token", access_key_id.as_bytes(), &claims])
            .verify_slice(&seal)
            .map_err(|_| CredentialProblem::InvalidToken)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| CredentialProblem::InvalidToken)?;
        if claims.expires_at_ms <= now_ms {
            return Err(CredentialProblem::Expired);
        }
        Ok(Credential {
            secret_access_key: self.secret_of(access_key_id),
            account: claims.account,
            principal_arn: claims.principal_arn,
            principal_id: claims.principal_id,
            expires_at_ms: Some(claims.expires_at_ms),
            session_tags: claims.session_tags,
        })
    }

    fn secret_of(&self, access_key_id: &str) -> String {
        let bytes = self.mac(&[b"secret", access_key_id.as_bytes()]).finalize().into_bytes();
        STANDARD_NO_PAD.encode(bytes).chars().take(40).collect()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        for part in parts {
            // The length keeps neighbouring parts apart.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// Random capital letters and digits, as in key ids.
pub fn random_id(length: usize) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_verifies_only_with_its_own_key_before_it_ends() {
        let clock = Clock::fixed(1_000_000);
        let issuer = SessionIssuer::new("secret", clock.clone());
        let arn = |name: &str| format!("arn:aws:sts::123456789012:assumed-role/R/{name}");
        let tags = SessionTags {
            tags: [("tenant".to_owned(), "a".to_owned())].into(),
            transitive_keys: ["tenant".to_owned()].into(),
        };
        let session = issuer.issue("123456789012", &arn("s"), "AROA:s", 60, tags.clone());
        let credential =
            issuer.verify(&session.access_key_id, &session.session_token, clock.now_ms()).unwrap();
        assert_eq!(credential.secret_access_key, session.secret_access_key);
        assert_eq!((credential.account.as_str(), credential.session_tags), ("123456789012", tags));

        let other = issuer.issue("123456789012", &arn("t"), "AROA:t", 60, SessionTags::default());
        let mixed = issuer.verify(&other.access_key_id, &session.session_token, clock.now_ms());
        assert!(matches!(mixed, Err(CredentialProblem::InvalidToken)));
        let foreign = SessionIssuer::new("another", clock.clone());
        let forged = foreign.verify(&session.access_key_id, &session.session_token, clock.now_ms());
        assert!(matches!(forged, Err(CredentialProblem::InvalidToken)));

        clock.advance(60_000);
        let late = issuer.verify(&session.access_key_id, &session.session_token, clock.now_ms());
        assert!(matches!(late, Err(CredentialProblem::Expired)));
    }
}
