//! Whether a container speaks an inference protocol by itself, and requests in the words of one.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, Method, Request};
use http_body_util::Full;
use serde_json::Value;

use super::{ANY_MEDIA_TYPE, HttpReplica};
use crate::connection::ExchangeError;
use crate::invocation::{InvokeRequest, SpokenHeaders};
use crate::spoken::{Spoken, SpokenProtocol, SpokenRequest};

/// How long a container may take to say which protocols it speaks.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where servers of the Open Inference Protocol list their models: that of KServe, that of Triton and MLServer.
const MODELS_PATH: &str = "/v2/models";
const INDEX_PATH: &str = "/v2/repository/index";

impl HttpReplica {
    /// What the container says of a protocol; `None` when it does not speak it. It is asked once, unless it does not answer.
    pub(crate) async fn spoken(&self, protocol: SpokenProtocol) -> Option<Spoken> {
        if let Some(known) = self.state().spoken.get(&protocol) {
            return known.clone();
        }
        let probe = self.get(protocol.probe_path());
        let mut found = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok((200, body))) => protocol.recognised(&body),
            Ok(Ok((status, _))) if status < 500 || status == 501 => None,
            // It may say more later.
            _ => return None,
        };
        if let (SpokenProtocol::InferenceV2, Some(spoken)) = (protocol, &mut found) {
            spoken.model = self.only_model().await;
        }
        self.state().spoken.insert(protocol, found.clone());
        found
    }

    /// The name of the one model that a server of the Open Inference Protocol has.
    async fn only_model(&self) -> Option<String> {
        let questions = [
            (Method::GET, MODELS_PATH, Bytes::new()),
            (Method::POST, INDEX_PATH, Bytes::from_static(b"{\"ready\":true}")),
        ];
        for (method, path, body) in questions {
            let asked = tokio::time::timeout(PROBE_TIMEOUT, self.ask(method, path, body)).await;
            let Ok(Ok((200, answer))) = asked else { continue };
            let Ok(answer) = serde_json::from_slice::<Value>(&answer) else { continue };
            let listed = answer.as_array().or(answer["models"].as_array());
            if let Some([one]) = listed.map(Vec::as_slice) {
                return one.as_str().or(one["name"].as_str()).map(str::to_owned);
            }
        }
        None
    }

    /// The request in the words of its protocol, if the container speaks that.
    pub(super) async fn in_own_words<'a>(
        &self,
        request: &'a InvokeRequest,
    ) -> Result<Option<(Request<Full<Bytes>>, &'a SpokenRequest)>, ExchangeError> {
        let Some(words) = request.spoken.as_deref() else { return Ok(None) };
        let Some(spoken) = self.spoken(words.protocol).await else { return Ok(None) };
        let (path, body) = words.to(&spoken);
        let lost = |error: &dyn std::fmt::Display| ExchangeError::Lost(error.to_string());
        let length = body.len();
        let mut sent = Request::new(Full::new(body));
        *sent.method_mut() = words.method.clone();
        *sent.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| lost(&error))?;
        let headers = sent.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, ANY_MEDIA_TYPE);
        if words.method != Method::GET {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        for (name, value) in &words.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(Some((sent, words)))
    }
}

/// Those of the headers that have one of the names.
pub(super) fn chosen(headers: &HeaderMap, names: &[&'static str]) -> SpokenHeaders {
    let found = names.iter().map(|name| HeaderName::from_static(name));
    found.filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}
