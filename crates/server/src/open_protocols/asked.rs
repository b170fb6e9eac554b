//! A request of a client that is known: what it may do, and the models that it sees.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use serde_json::json;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};
use wire::{Authorize, Caller, Credentials};

use super::key::{self, KeyProblem};
use super::model::COMPONENT_HEADER;
use super::refusal::{Reason, Refusal};
use crate::app::App;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT};

/// Most endpoints, and most inference components, that a list names.
const MOST_LISTED: usize = 1000;

/// The way on which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// Whether requests of this machine's own programs may come without a key.
    pub opens_without_key: bool,
}

/// A request with its caller.
#[derive(Clone)]
pub struct Asked {
    /// The process state.
    pub app: Arc<App>,
    /// Who asks.
    pub caller: Caller,
    /// The name of this request in logs.
    pub request_id: String,
    /// The inference component that its header names.
    pub component: Option<String>,
}

impl Asked {
    /// Finds out who asks.
    ///
    /// # Errors
    /// When nobody is known by the key, or there is none.
    pub async fn by(
        app: &Arc<App>,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        door: Door,
        request_id: &str,
    ) -> Result<Asked, Refusal> {
        let refused = |text: &str| Refusal::new(Reason::Unauthenticated, text);
        let now_ms = app.clock.now_ms();
        let caller = match headers.get(AUTHORIZATION) {
            Some(given) => {
                let given = given.to_str().unwrap_or_default();
                let key = given.strip_prefix("Bearer ").ok_or_else(|| {
                    refused("Send an inference key as Authorization: Bearer KEY; `modelyard endpoints key` prints one.")
                })?;
                key::caller(key.trim(), &app.identity, now_ms).await.map_err(|problem| match problem {
                    KeyProblem::Invalid => refused(
                        "The inference key is not valid; `modelyard endpoints key` prints a good one.",
                    ),
                    KeyProblem::Expired => {
                        refused("The inference key has expired; `modelyard endpoints key` prints a new one.")
                    }
                    KeyProblem::Unavailable => {
                        Refusal::new(Reason::Unavailable, "Keys cannot be looked up now; try again.")
                    }
                })?
            }
            None if door.opens_without_key && is_own_program(headers, peer) => first_account(app).await?,
            None => {
                return Err(refused(
                    "The request has no inference key; send one as Authorization: Bearer KEY. `modelyard endpoints key` prints one.",
                ));
            }
        };
        let component = headers.get(COMPONENT_HEADER).and_then(|name| name.to_str().ok()).map(str::to_owned);
        Ok(Asked { app: app.clone(), caller, request_id: request_id.to_owned(), component })
    }

    /// The key of an endpoint that the caller names.
    pub fn endpoint(&self, name: &str) -> ResourceKey {
        ResourceKey::new(&*self.caller.account, &*self.caller.region, ENDPOINT, name)
    }

    /// Asks the policies, as InvokeEndpoint does.
    ///
    /// # Errors
    /// When they say no.
    pub async fn may_invoke(&self, endpoint: &str) -> Result<(), Refusal> {
        self.may("sagemaker:InvokeEndpoint", &json!({"EndpointName": endpoint})).await
    }

    async fn may(&self, action: &str, input: &serde_json::Value) -> Result<(), Refusal> {
        let authorized = crate::authorize::WithinAccount.authorize(&self.caller, action, input).await;
        authorized.map_err(|error| Refusal::new(Reason::Denied, error.message))
    }

    /// The models that the caller sees, by name: inference components in service, and endpoints in service that have models of their own.
    ///
    /// # Errors
    /// When the policies say no, or the database fails.
    pub async fn models(&self) -> Result<Vec<Resource>, Refusal> {
        self.may("sagemaker:ListEndpoints", &json!({})).await?;
        let mut models = self.in_service(ENDPOINT).await?;
        models.retain(|endpoint| !self.app.endpoints.components.is_host(&endpoint.key));
        models.extend(self.components().await?);
        // Where both have one name, the endpoint is called by it.
        models.sort_by(|one, other| one.key.name.cmp(&other.key.name));
        models.dedup_by(|one, other| one.key.name == other.key.name);
        Ok(models)
    }

    /// The inference components in service, by name.
    ///
    /// # Errors
    /// When the policies say no, or the database fails.
    pub async fn components(&self) -> Result<Vec<Resource>, Refusal> {
        self.may("sagemaker:ListInferenceComponents", &json!({})).await?;
        self.in_service(INFERENCE_COMPONENT).await
    }

    async fn in_service(&self, kind: &'static str) -> Result<Vec<Resource>, Refusal> {
        let (account, region) = (self.caller.account.clone(), self.caller.region.clone());
        let query = ListQuery {
            status: Some("InService".into()),
            sort_by: SortBy::Name,
            limit: MOST_LISTED,
            ..ListQuery::default()
        };
        let read =
            self.app.database.read(move |session| session.list_resources(&account, &region, kind, &query));
        Ok(read.await.map_err(|error| failed(&error))?.resources)
    }

    /// What is kept of an endpoint or inference component.
    ///
    /// # Errors
    /// When there is none of that name, or the database fails.
    pub async fn resource(&self, key: &ResourceKey) -> Result<Resource, Refusal> {
        let wanted = key.clone();
        let read = self.app.database.read(move |session| session.find_resource(&wanted)).await;
        read.map_err(|error| failed(&error))?.ok_or_else(|| Refusal::no_model(&key.name))
    }
}

fn failed(error: &store::Error) -> Refusal {
    tracing::error!(%error, "a model could not be looked up");
    Refusal::new(Reason::Internal, "The models cannot be looked up now; the server's log says why.")
}

/// Whether a request without a key comes from a program of this machine, and not from a page in its browser, whatever name that page
/// was reached by.
fn is_own_program(headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in its own place; browsers speak it over TLS only and send their origin.
    let is_own_name = host.is_none_or(|host| {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    });
    let is_here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
    is_here && is_own_name && !headers.contains_key(ORIGIN)
}

/// The caller of the key that the server wrote for its own command line.
async fn first_account(app: &App) -> Result<Caller, Refusal> {
    let connection = &app.connection;
    let found = app.identity.find(&connection.access_key_id, None).await;
    let credential =
        found.map_err(|_| Refusal::new(Reason::Unavailable, "Keys cannot be looked up now; try again."))?;
    Ok(Caller::of(&credential, &app.config.region, &connection.access_key_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_this_machine_need_no_key() {
        let own = |peer: &str, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            });
            is_own_program(&headers.collect(), peer.parse().ok())
        };
        assert!(own("127.0.0.1", &[("host", "localhost:8000")]));
        assert!(own("::1", &[("host", "[::1]:8000")]));
        assert!(own("::ffff:127.0.0.1", &[("host", "127.0.0.1")]));
        assert!(own("127.0.0.1", &[]));
        assert!(!own("192.0.2.1", &[("host", "localhost:8000")]));
        assert!(!own("nowhere", &[("host", "localhost:8000")]));
        // A page of a browser, and one whose name was made to lead here.
        assert!(!own("127.0.0.1", &[("host", "localhost:8000"), ("origin", "http://a.example")]));
        assert!(!own("127.0.0.1", &[("host", "a.example:8000")]));
    }
}
