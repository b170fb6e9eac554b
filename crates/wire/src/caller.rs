//! Who calls, and the two questions that the protocols ask the product about a caller.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::sigv4::Terms;

/// The identity behind a verified request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Twelve-digit account.
    pub account: String,
    /// Region of the credential scope.
    pub region: String,
    /// ARN that GetCallerIdentity answers.
    pub principal_arn: String,
    /// Unique id of the principal, `AROA…:session` for a session of a role.
    pub principal_id: String,
    /// The key that signed the request.
    pub access_key_id: String,
    /// What the session of the key carries.
    pub session_tags: SessionTags,
}

/// Callers that each thread keeps. Two that want the same place take turns.
const PLACES: usize = 64;

/// A caller with the terms and the credential that it follows from.
type Kept = (Arc<Terms>, Arc<Credential>, Arc<Caller>);

thread_local! {
    // Of each thread, so that nobody waits for a lock. A caller follows from both alone: nothing here can be out of date.
    static KEPT: RefCell<[Option<Kept>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

impl Caller {
    /// Who calls with a credential that was found for a key.
    pub fn of(credential: &Credential, region: &str, access_key_id: &str) -> Caller {
        Caller {
            account: credential.account.clone(),
            region: region.to_owned(),
            principal_arn: credential.principal_arn.clone(),
            principal_id: credential.principal_id.clone(),
            access_key_id: access_key_id.to_owned(),
            session_tags: credential.session_tags.clone(),
        }
    }

    /// Who signed with a credential. The same terms and the same credential, which are told by their places in memory, make the same caller.
    pub(crate) fn signed(terms: &Arc<Terms>, credential: &Arc<Credential>) -> Arc<Caller> {
        let place = (Arc::as_ptr(terms).addr() / size_of::<Terms>()) % PLACES;
        KEPT.with_borrow_mut(|kept| match &mut kept[place] {
            Some((with, of, caller)) if Arc::ptr_eq(with, terms) && Arc::ptr_eq(of, credential) => {
                Arc::clone(caller)
            }
            kept => {
                let caller = Arc::new(Caller::of(credential, &terms.region, &terms.access_key_id));
                *kept = Some((Arc::clone(terms), Arc::clone(credential), Arc::clone(&caller)));
                caller
            }
        })
    }
}

/// Tags of a session, as AssumeRole gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionTags {
    /// Values by key.
    pub tags: BTreeMap<String, String>,
    /// Keys of those that go on to every session that is begun with this one.
    pub transitive_keys: BTreeSet<String>,
}

impl SessionTags {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// What a session inherits that is begun with this one.
    pub fn inherited(&self) -> SessionTags {
        let mut inherited = self.clone();
        inherited.tags.retain(|key, _| self.transitive_keys.contains(key));
        inherited
    }
}

/// What a handler knows of its request beside the typed input.
#[derive(Debug, Clone)]
pub struct Context<S> {
    /// The process state.
    pub state: S,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Id of the request, as in the answer's `x-amzn-RequestId`.
    pub request_id: String,
    /// Name of the operation.
    pub operation: &'static str,
    /// Id under which the effect of the call happens at most once; only calls from inside the process have one.
    pub effect_id: Option<String>,
    /// The whole input keyed by model member names: timestamps as seconds since 1970, blobs as base64. Only members that were
    /// set are there. Raw operations find all but their body here.
    pub input: Arc<Value>,
}

/// Address of the client, in the extensions of requests that the server's own pages or open protocols answer.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What an access key stands for.
#[derive(Clone)]
pub struct Credential {
    /// Secret half, which signs.
    pub secret_access_key: String,
    /// Twelve-digit account.
    pub account: String,
    /// ARN of the principal.
    pub principal_arn: String,
    /// Unique id of the principal.
    pub principal_id: String,
    /// When it ends, in milliseconds since 1970; `None` for long-lived keys.
    pub expires_at_ms: Option<i64>,
    /// Tags of a session; long-lived keys have none.
    pub session_tags: SessionTags,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not reach a log.
        formatter
            .debug_struct("Credential")
            .field("principal_arn", &self.principal_arn)
            .finish_non_exhaustive()
    }
}

/// Why there is no credential for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialProblem {
    /// No such key.
    Unknown,
    /// The session has ended.
    Expired,
    /// The session token does not belong to the key, or was not made here.
    InvalidToken,
    /// The store of keys does not answer; the caller may try again.
    Unavailable,
}

/// Looks access keys up.
pub trait Credentials: Send + Sync {
    /// Finds what signs for `access_key_id`; `session_token` is what the request carries.
    fn find<'a>(
        &'a self,
        access_key_id: &'a str,
        session_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Arc<Credential>, CredentialProblem>>;
}

/// Decides whether a caller may do something. Asked for every operation, after the input passed its constraint checks.
pub trait Authorize: Send + Sync {
    /// `action` is a service prefix and an operation, for example `sagemaker:CreateTrainingJob`; `input` is as in
    /// [`Context::input`]. The error is what the caller gets.
    fn authorize<'a>(
        &'a self,
        caller: &'a Caller,
        action: &'a str,
        input: &'a Value,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_that_of_its_own_terms_and_credential() {
        let credential = |account: String| Credential {
            secret_access_key: "secret".into(),
            principal_arn: format!("arn:aws:iam::{account}:user/u"),
            principal_id: "ID".into(),
            account,
            expires_at_ms: None,
            session_tags: SessionTags::default(),
        };
        // More than there are places.
        let all: Vec<_> = (0..3 * PLACES)
            .map(|number| {
                let scope = format!("KEY{number}/20260131/region-{number}/s3/aws4_request");
                let terms = Arc::new(Terms::of(&scope, "host").unwrap());
                (terms, Arc::new(credential(format!("{number:012}"))), number)
            })
            .collect();
        for (terms, credential, number) in all.iter().chain(&all) {
            let caller = Caller::signed(terms, credential);
            assert_eq!(*caller, Caller::of(credential, &format!("region-{number}"), &format!("KEY{number}")));
            assert!(Arc::ptr_eq(&caller, &Caller::signed(terms, credential)), "it is kept");
            let (_, another, _) = &all[(number + 1) % all.len()];
            assert_eq!(Caller::signed(terms, another).account, another.account);
        }
    }
}
