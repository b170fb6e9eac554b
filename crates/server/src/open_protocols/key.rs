//! Inference keys: what clients of the open protocols send as `Authorization: Bearer`. They follow from an access key, open
//! nothing but inference, and end with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wire::{Caller, CredentialProblem, Credentials};

/// What a key begins with; the digit is the version of its form.
const PREFIX: &str = "mik1";

/// Why a key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProblem {
    /// It is no key, or not one of this server's access keys.
    Invalid,
    /// It has ended.
    Expired,
    /// Access keys cannot be looked up now.
    Unavailable,
}

/// What a key says before its seal.
struct Claims<'a> {
    access_key_id: &'a str,
    region: &'a str,
    /// Seconds since 1970; 0 for a key that ends with its access key only.
    expires_at_seconds: i64,
}

impl Claims<'_> {
    fn text(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.access_key_id, self.region, self.expires_at_seconds)
    }

    fn mac(&self, secret_access_key: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret_access_key.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(self.text().as_bytes());
        mac
    }
}

/// The key for the endpoints of a region, made from an access key; `session_token` is that of short-lived ones.
pub fn inference_key(
    access_key_id: &str,
    secret_access_key: &str,
    session_token: Option<&str>,
    region: &str,
    expires_at_seconds: i64,
) -> String {
    let claims = Claims { access_key_id, region, expires_at_seconds };
    let seal = URL_SAFE_NO_PAD.encode(claims.mac(secret_access_key).finalize().into_bytes());
    let token = session_token.map(|token| format!(".{token}")).unwrap_or_default();
    format!("{}.{seal}{token}", claims.text())
}

/// The caller that a key stands for.
///
/// # Errors
/// Why it stands for none.
pub async fn caller(key: &str, credentials: &dyn Credentials, now_ms: i64) -> Result<Caller, KeyProblem> {
    let mut parts = key.splitn(6, '.');
    let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(KeyProblem::Invalid);
    if part()? != PREFIX {
        return Err(KeyProblem::Invalid);
    }
    let (access_key_id, region, expires, seal) = (part()?, part()?, part()?, part()?);
    let session_token = parts.next();
    let expires_at_seconds: i64 = expires.parse().map_err(|_| KeyProblem::Invalid)?;
    let seal = URL_SAFE_NO_PAD.decode(seal).map_err(|_| KeyProblem::Invalid)?;
    let found = credentials.find(access_key_id, session_token).await;
    let credential = found.map_err(|problem| match problem {
        CredentialProblem::Unknown | CredentialProblem::InvalidToken => KeyProblem::Invalid,
        CredentialProblem::Expired => KeyProblem::Expired,
        CredentialProblem::Unavailable => KeyProblem::Unavailable,
    })?;
    let claims = Claims { access_key_id, region, expires_at_seconds };
    // Compared in constant time.
    claims.mac(&credential.secret_access_key).verify_slice(&seal).map_err(|_| KeyProblem::Invalid)?;
    let has_ended = expires_at_seconds != 0 && expires_at_seconds <= now_ms / 1000;
    if has_ended || credential.expires_at_ms.is_some_and(|end_ms| end_ms <= now_ms) {
        return Err(KeyProblem::Expired);
    }
    Ok(Caller::of(&credential, region, access_key_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use wire::{Credential, SessionTags};

    struct One;

    impl Credentials for One {
        fn find<'a>(
            &'a self,
            access_key_id: &'a str,
            session_token: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Arc<Credential>, CredentialProblem>> {
            let is_known = matches!((access_key_id, session_token), ("AKIA1", None) | ("ASIA1", Some("a.b")));
            Box::pin(async move {
                is_known.then_some(()).ok_or(CredentialProblem::Unknown)?;
                Ok(Arc::new(Credential {
                    secret_access_key: "secret".into(),
                    account: "123456789012".into(),
                    principal_arn: "arn".into(),
                    principal_id: "id".into(),
                    expires_at_ms: None,
                    session_tags: SessionTags::default(),
                }))
            })
        }
    }

    #[tokio::test]
    async fn a_key_is_good_for_its_region_until_it_ends() {
        let key = inference_key("AKIA1", "secret", None, "eu-west-1", 1_000);
        let found = caller(&key, &One, 999_999).await.unwrap();
        assert_eq!((found.account.as_str(), found.region.as_str()), ("123456789012", "eu-west-1"));
        assert_eq!(caller(&key, &One, 1_000_000).await, Err(KeyProblem::Expired));
        let lasting = inference_key("ASIA1", "secret", Some("a.b"), "eu-west-1", 0);
        assert!(caller(&lasting, &One, i64::MAX).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_changed_or_sealed_with_another_secret_opens_nothing() {
        let key = inference_key("AKIA1", "secret", None, "eu-west-1", 0);
        let forged = inference_key("AKIA1", "other", None, "eu-west-1", 0);
        let unknown = inference_key("AKIA2", "secret", None, "eu-west-1", 0);
        let session = inference_key("ASIA1", "secret", Some("a.c"), "eu-west-1", 0);
        let moved = key.replace("eu-west-1", "us-east-1");
        let longer = key.replace(".0.", ".9999999999.");
        let cut = key[..key.len() - 4].to_owned();
        for wrong in [
            forged,
            unknown,
            session,
            moved,
            longer,
            cut,
            "AKIA1:secret".into(),
            String::new(),
            "mik1....".into(),
        ] {
            assert_eq!(caller(&wrong, &One, 0).await, Err(KeyProblem::Invalid), "{wrong}");
        }
    }
}
