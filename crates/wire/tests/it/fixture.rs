//! A front door over the models of [`crate::widgets`], whose handlers answer what they were given.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use api::model::Service;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wire::sigv4::Signer;
use wire::{
    Authorize, Body, Caller, Context, Credential, CredentialProblem, Credentials, Error, Front, Registry,
};

use crate::widgets::{METERS, RUNTIME, WIDGETS};

/// The moment of all tests: 2026-01-31T12:00:00Z.
pub const NOW_MS: i64 = 1_769_860_800_000;

pub const ACCESS_KEY_ID: &str = "AKIATESTTESTTEST0000";
pub const SECRET_ACCESS_KEY: &str = "secret/of+the+tests";

static SERVICES: &[&Service] = &[&WIDGETS, &METERS, &RUNTIME];

macro_rules! operations {
    ($($name:ident of $service:expr;)*) => {$(
        pub struct $name;
        impl api::Operation for $name {
            const SERVICE: &'static api::model::Service = $service;
            const NAME: &'static str = stringify!($name);
            type Input = serde_json::Value;
            type Output = serde_json::Value;
        }
    )*};
}
pub(crate) use operations;

operations! {
    CreateWidget of &WIDGETS;
    DropWidget of &WIDGETS;
    FailWidget of &WIDGETS;
    Ping of &WIDGETS;
    PutMeter of &METERS;
    ResetMeter of &METERS;
    AskThing of &RUNTIME;
    InvokeWidget of &RUNTIME;
    PutThing of &RUNTIME;
}

/// Knows one long-lived key, one session, and keys that are broken in each way.
pub struct Keys;

impl Credentials for Keys {
    fn find<'a>(
        &'a self,
        access_key_id: &'a str,
        session_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Arc<Credential>, CredentialProblem>> {
        let credential = |expires_at_ms| Credential {
            secret_access_key: SECRET_ACCESS_KEY.into(),
            account: "123456789012".into(),
            principal_arn: "arn:aws:iam::123456789012:user/test".into(),
            principal_id: "AIDATEST".into(),
            expires_at_ms,
            session_tags: Default::default(),
        };
        let found = match (access_key_id, session_token) {
            (ACCESS_KEY_ID, None) => Ok(credential(None)),
            ("ASIASESSION", Some("the/token==")) => Ok(credential(Some(NOW_MS + 60_000))),
            ("ASIAENDED", Some(_)) => Ok(credential(Some(NOW_MS))),
            ("ASIASESSION", _) => Err(CredentialProblem::InvalidToken),
            ("AKIASTUCK", _) => Err(CredentialProblem::Unavailable),
            _ => Err(CredentialProblem::Unknown),
        };
        Box::pin(std::future::ready(found.map(Arc::new)))
    }
}

/// Refuses widgets with the name `secret`.
struct Rules;

impl Authorize for Rules {
    fn authorize<'a>(
        &'a self,
        _caller: &'a Caller,
        action: &'a str,
        input: &'a Value,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let denied = input["WidgetName"] == "secret";
        let answer = if denied {
            Err(Error::new("AccessDeniedException", 400, format!("no {action}")))
        } else {
            Ok(())
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Service, operation and input of the last request that reached a handler which writes it down.
pub type Seen = Arc<Mutex<Option<(String, Value)>>>;

/// Service, operation and code of each request.
pub type Observed = Arc<Mutex<Vec<(&'static str, &'static str, String)>>>;

/// A front door with a clock that tests can set.
pub struct Door {
    front: Front<Seen>,
    now_ms: Arc<AtomicI64>,
    seen: Seen,
    observed: Observed,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of an error in any protocol.
    pub fn code(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        match text.split_once("<Code>") {
            Some((_, rest)) => rest.split('<').next().unwrap().to_owned(),
            None => self.header("x-amzn-errortype").to_owned(),
        }
    }
}

async fn echo(context: Context<Seen>, input: Value) -> Result<Value, Error> {
    assert_eq!(*context.input, input);
    Ok(input)
}

async fn nothing(_context: Context<Seen>, _input: Value) -> Result<Value, Error> {
    Ok(Value::Null)
}

async fn fail(_context: Context<Seen>, input: Value) -> Result<Value, Error> {
    let name = input["WidgetName"].as_str().unwrap_or_default();
    let mut error = Error::new(
        match name {
            "in-use" => "WidgetInUse",
            "missing" => "Widgets.Missing",
            "panic" => panic!("on purpose"),
            _ => "OtherError",
        },
        400,
        format!("the widget <{name}>"),
    );
    if name == "in-use" {
        error.members.insert("Holder".into(), "me".into());
    }
    Err(error)
}

/// Puts meters by echo, and fails as `FailWidget` for names that say so.
async fn put_meter(context: Context<Seen>, input: Value) -> Result<Value, Error> {
    match input["WidgetName"].as_str() {
        Some("in-use" | "missing" | "panic" | "other") => fail(context, input).await,
        _ => echo(context, input).await,
    }
}

async fn ask(_context: Context<Seen>, input: Value) -> Result<Value, Error> {
    if input["Key"] == "gone" {
        return Err(Error::new("WidgetMissing", 400, "it is gone"));
    }
    Ok(json!({
        "Status": 201,
        "Count": 3,
        "ChangedAt": 1_769_860_800,
        "Meta": {"a": "1"},
        "Colour": "Red",
        "MadeAt": 1_769_860_800.5,
        "SoldAt": 1_769_860_800,
        "Input": input,
    }))
}

async fn invoke(context: Context<Seen>, request: wire::RawRequest) -> Result<Response<Body>, Error> {
    let mut response = Response::new(wire::full(request.body));
    *response.status_mut() = StatusCode::OK;
    let told =
        json!({"labels": *request.labels, "query": request.query, "input": *context.input}).to_string();
    response.headers_mut().insert("x-told", told.parse().unwrap());
    Ok(response)
}

fn told(who: &'static str) -> wire::Responder {
    Arc::new(move |request: Request<Body>| {
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(wire::full(format!("{who} {}", body.len())))
        })
    })
}

impl Door {
    pub fn new() -> Door {
        let mut registry = Registry::new();
        registry.on::<CreateWidget, _, _, _>(echo);
        registry.on::<DropWidget, _, _, _>(nothing);
        registry.on::<FailWidget, _, _, _>(fail);
        registry.on::<Ping, _, _, _>(nothing);
        registry.on::<PutMeter, _, _, _>(put_meter);
        registry.on::<ResetMeter, _, _, _>(nothing);
        registry.on::<AskThing, _, _, _>(ask);
        registry.on::<PutThing, _, _, _>(nothing);
        registry.on_raw::<InvokeWidget, _, _, _>(invoke);
        Door::over(registry, SERVICES)
    }

    pub fn over(registry: Registry<Seen>, services: &'static [&'static Service]) -> Door {
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let clock = now_ms.clone();
        let seen = Seen::default();
        let observed = Observed::default();
        let observing = observed.clone();
        let front = Front {
            state: seen.clone(),
            registry,
            credentials: Arc::new(Keys),
            authorize: Arc::new(Rules),
            now_ms: Arc::new(move || clock.load(Ordering::Relaxed)),
            services: wire::Services::of(services),
            s3: told("s3"),
            own: told("own"),
            observe: Arc::new(move |one: wire::Observed<'_>| {
                observing.lock().unwrap().push((one.service, one.operation, one.code.to_owned()));
            }),
            body_limit_bytes: 64 * 1024,
            understood: wire::Understood::default(),
            own_values: ["own-colour".to_owned()].into(),
        };
        Door { front, now_ms, seen, observed }
    }

    /// A door to all operations of the real models, with handlers that write down what they get and answer nothing.
    pub fn of_models() -> Door {
        let mut registry = Registry::new();
        for service in api::SERVICES.iter().filter(|service| service.id != "s3") {
            for operation in service.operations {
                registry.on_value(service, operation.name, async |context: Context<Seen>| {
                    *context.state.lock().unwrap() =
                        Some((context.operation.to_owned(), (*context.input).clone()));
                    Ok::<_, Error>(Value::Null)
                });
            }
        }
        Door::over(registry, api::SERVICES)
    }

    /// Operation and input that a handler wrote down.
    pub fn take_seen(&self) -> Option<(String, Value)> {
        self.seen.lock().unwrap().take()
    }

    /// What was counted so far.
    pub fn take_observed(&self) -> Vec<(&'static str, &'static str, String)> {
        std::mem::take(&mut self.observed.lock().unwrap())
    }

    pub fn set_now(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<impl Into<Bytes>>) -> Answered {
        let response = self.front.handle(request.map(|body| wire::full(body)), None).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answered = Answered { status: parts.status.as_u16(), headers: parts.headers, body };
        assert_eq!(answered.header("x-amzn-requestid").len(), 36, "every answer has a request id");
        answered
    }

    /// Signs a request for the service and sends it.
    pub async fn signed(
        &self,
        service: &str,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answered {
        let body = body.into();
        self.send(sign(service, request, &body, NOW_MS)).await
    }

    /// Calls a JSON operation.
    pub async fn json(&self, service: &str, target: &str, body: impl Into<Bytes>) -> Answered {
        let version = if service == "meters" { "1.0" } else { "1.1" };
        let request = Request::post("/")
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", target);
        self.signed(service, request, body).await
    }

    /// Calls a query operation.
    pub async fn query(&self, form: &str) -> Answered {
        let request =
            Request::post("/").header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        self.signed("meters", request, form.to_owned()).await
    }
}

/// A signed request to `localhost:8080`.
pub fn sign(service: &str, request: http::request::Builder, body: &Bytes, now_ms: i64) -> Request<Bytes> {
    let mut request = request.header("host", "localhost:8080").body(body.clone()).unwrap();
    signer(service).sign(&mut request, body, now_ms);
    request
}

pub fn signer(service: &str) -> Signer<'_> {
    Signer {
        access_key_id: ACCESS_KEY_ID,
        secret_access_key: SECRET_ACCESS_KEY,
        session_token: None,
        region: "eu-west-1",
        service,
    }
}
