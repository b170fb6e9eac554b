//! Protocols that a container may speak by itself, and requests in their words.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

/// A protocol of inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpokenProtocol {
    /// The Open Inference Protocol, version 2.
    InferenceV2,
    /// KServe's prediction protocol, version 1.
    PredictionV1,
    /// OpenAI's chat and completions.
    OpenAi,
}

impl SpokenProtocol {
    /// The path by whose answer a server is recognised.
    pub(crate) fn probe_path(self) -> &'static str {
        match self {
            Self::InferenceV2 => "/v2",
            Self::PredictionV1 | Self::OpenAi => "/v1/models",
        }
    }

    /// What the answer at [`Self::probe_path`] says; `None` when it is not this protocol's. Many servers answer every path somehow.
    pub(crate) fn recognised(self, body: &[u8]) -> Option<Spoken> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let only = |list: &Value, name: fn(&Value) -> Option<&str>| {
            let list = list.as_array()?;
            let model = match list.as_slice() {
                [one] => name(one).map(str::to_owned),
                _ => None,
            };
            Some(Spoken { model })
        };
        match self {
            Self::InferenceV2 => body["extensions"].is_array().then(Spoken::default),
            Self::PredictionV1 => only(&body["models"], |model| model.as_str().or(model["name"].as_str())),
            Self::OpenAi => only(&body["data"], |model| model["id"].as_str()),
        }
    }
}

/// What a server has said of a protocol that it speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// The one model that it has, as it calls it.
    pub(crate) model: Option<String>,
}

/// Where a request goes in a server that speaks its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpokenPath {
    /// To this path, whatever models the server has.
    Exact(String),
    /// To a model that the caller calls `name`: `before`, the model's name, `after`. If the server has one model, that is meant,
    /// whatever it is called there.
    Model {
        /// What stands before the name.
        before: &'static str,
        /// The caller's name for the model.
        name: String,
        /// What stands after it.
        after: &'static str,
    },
    /// To this path; the member `model` of the body names the model, and is replaced as in [`Self::Model`].
    InBody {
        /// The path.
        path: &'static str,
        /// The caller's name for the model.
        name: String,
    },
}

/// A request in the words of a protocol. Replicas that do not speak it get the common request instead.
#[derive(Clone, Debug)]
pub struct SpokenRequest {
    /// The protocol.
    pub protocol: SpokenProtocol,
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub path: SpokenPath,
    /// Headers that go along.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of the answer that come back.
    pub answer_headers: &'static [&'static str],
    /// The body.
    pub body: Bytes,
    /// Whether only a replica that speaks the protocol may have it.
    pub is_required: bool,
}

impl SpokenRequest {
    /// Path and body for a server that has said this of itself.
    pub(crate) fn to(&self, spoken: &Spoken) -> (String, Bytes) {
        let called = |name: &String| spoken.model.clone().unwrap_or_else(|| name.clone());
        match &self.path {
            SpokenPath::Exact(path) => (path.clone(), self.body.clone()),
            SpokenPath::Model { before, name, after } => {
                (format!("{before}{}{after}", called(name)), self.body.clone())
            }
            SpokenPath::InBody { path, name } => {
                let called = called(name);
                let body = if called == *name { None } else { with_model(&self.body, &called) };
                ((*path).to_owned(), body.unwrap_or_else(|| self.body.clone()))
            }
        }
    }
}

fn with_model(body: &[u8], name: &str) -> Option<Bytes> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    body.as_object_mut()?.insert("model".into(), name.into());
    Some(body.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised_by_what_they_say() {
        let model = |name: Option<&str>| Some(Spoken { model: name.map(str::to_owned) });
        let of = |protocol: SpokenProtocol, body: &str| protocol.recognised(body.as_bytes());
        assert_eq!(of(SpokenProtocol::InferenceV2, r#"{"name":"triton","extensions":[]}"#), model(None));
        assert_eq!(of(SpokenProtocol::PredictionV1, r#"{"models":["m"]}"#), model(Some("m")));
        assert_eq!(of(SpokenProtocol::PredictionV1, r#"{"models":["m","n"]}"#), model(None));
        let listed = r#"{"object":"list","data":[{"id":"llama"}]}"#;
        assert_eq!(of(SpokenProtocol::OpenAi, listed), model(Some("llama")));
        assert_eq!(of(SpokenProtocol::PredictionV1, listed), None);
        for anything in ["", "ok", "{}", "{\"status\":\"ok\"}", "[]"] {
            for protocol in
                [SpokenProtocol::InferenceV2, SpokenProtocol::PredictionV1, SpokenProtocol::OpenAi]
            {
                assert_eq!(of(protocol, anything), None, "{anything}");
            }
        }
    }

    #[test]
    fn the_servers_own_name_of_its_model_is_used() {
        let request = |path| SpokenRequest {
            protocol: SpokenProtocol::OpenAi,
            method: Method::POST,
            path,
            headers: Vec::new(),
            answer_headers: &[],
            body: Bytes::from_static(br#"{"temperature":0.5,"model":"chat","n":1}"#),
            is_required: false,
        };
        let (one, none) = (Spoken { model: Some("llama".into()) }, Spoken::default());
        let in_body = request(SpokenPath::InBody { path: "/v1/completions", name: "chat".into() });
        assert_eq!(in_body.to(&one).1, &br#"{"temperature":0.5,"model":"llama","n":1}"#[..]);
        assert_eq!(in_body.to(&none), ("/v1/completions".into(), in_body.body.clone()));
        let in_path = request(SpokenPath::Model { before: "/v2/models/", name: "a".into(), after: "/infer" });
        assert_eq!(in_path.to(&one).0, "/v2/models/llama/infer");
        assert_eq!(in_path.to(&none).0, "/v2/models/a/infer");
        assert_eq!(request(SpokenPath::Exact("/v1/x".into())).to(&one).0, "/v1/x");
    }
}
