//! Open protocols without a model: who may ask, and what is refused. What endpoints answer is in the client tests.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use server::open_protocols::key::inference_key;
use server::open_protocols::{Door, answer_at_root};
use wire::Peer;

use crate::app::{Answer, Key, TestApp};

/// Everybody needs a key.
pub const CLOSED: Door = Door { opens_without_key: false };
const OPEN: Door = Door { opens_without_key: true };

/// What a client sends as its key.
pub fn bearer(key: &Key) -> String {
    let seal = inference_key(
        &key.access_key_id,
        &key.secret_access_key,
        key.session_token.as_deref(),
        "us-east-1",
        0,
    );
    format!("Bearer {seal}")
}

/// Asks at the root of an address of these protocols, from `peer`.
pub async fn ask_from(
    app: &TestApp,
    door: Door,
    peer: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(wire::full(Bytes::copy_from_slice(body))).unwrap();
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    let response = answer_at_root(app.app.clone(), request, door).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let mut headers = parts.headers;
    if let Some(trailers) = body.trailers() {
        headers.extend(trailers.clone());
    }
    Answer { status: parts.status, headers, body: body.to_bytes() }
}

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_from(app, CLOSED, "192.0.2.1:5000", Method::GET, path, headers, b"").await
}

#[tokio::test]
async fn probes_need_no_key_and_all_else_does() {
    let app = TestApp::new().await;
    assert_eq!(get(&app, "/v2/health/live", &[]).await.status, 200);
    assert_eq!(get(&app, "/v2/health/ready", &[]).await.status, 200);
    let server = get(&app, "/v2", &[]).await.json();
    assert_eq!(
        (server["name"].as_str(), &server["extensions"][0]),
        (Some("modelyard"), &"binary_tensor_data".into())
    );
    for path in ["/v1/models", "/v1/models/m", "/v2/models/m", "/v2/models/m/ready", "/endpoints/m/v1/models"]
    {
        let answer = get(&app, path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        assert!(answer.json()["error"].as_str().unwrap().contains("modelyard endpoints key"), "{path}");
        for wrong in ["Bearer nothing", "Basic YTpi", "Bearer mik1.AKIA.us-east-1.0.c2VhbA"] {
            assert_eq!(get(&app, path, &[("authorization", wrong)]).await.status, 401, "{path} {wrong}");
        }
        let key = bearer(&app.key());
        let with_key = get(&app, path, &[("authorization", &key)]).await;
        assert_eq!(
            with_key.status,
            if path == "/v1/models" { 200 } else { 404 },
            "{path}: {}",
            with_key.text()
        );
    }
    let session = app.assume_role("", &app.key()).await;
    assert_eq!(get(&app, "/v1/models", &[("authorization", &bearer(&session))]).await.status, 200);
    let unknown = get(&app, "/v3", &[]).await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.text()),
        (404, r#"{"error":"There is nothing at /v3."}"#.into())
    );
}

#[tokio::test]
async fn without_keys_only_programs_of_this_machine_are_let_in() {
    let app = TestApp::new().await;
    let status = async |door, peer, headers: &[(&str, &str)]| {
        ask_from(&app, door, peer, Method::GET, "/v1/models", headers, b"").await.status.as_u16()
    };
    let (here, away) = ("127.0.0.1:5000", "192.0.2.1:5000");
    assert_eq!(status(OPEN, here, &[("host", "localhost:8000")]).await, 200);
    assert_eq!(status(CLOSED, here, &[("host", "localhost:8000")]).await, 401);
    assert_eq!(status(OPEN, away, &[("host", "localhost:8000")]).await, 401);
    assert_eq!(status(OPEN, here, &[("host", "evil.example")]).await, 401);
    assert_eq!(status(OPEN, here, &[("host", "localhost"), ("origin", "http://evil.example")]).await, 401);
    // A key that is sent counts, whatever door it is.
    assert_eq!(status(OPEN, here, &[("authorization", "Bearer x")]).await, 401);
}

#[tokio::test]
async fn the_main_address_has_them_below_a_prefix() {
    let app = TestApp::new().await;
    let ask = async |path: &str, key: Option<String>| {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        let mut request = request.body(wire::empty()).unwrap();
        request.extensions_mut().insert(Peer("127.0.0.1:5000".parse().unwrap()));
        app.send(request).await
    };
    assert_eq!(ask("/_modelyard/open/v2/health/live", None).await.status, 200);
    assert_eq!(ask("/_modelyard/open/v1/models", None).await.status, 401);
    let listed = ask("/_modelyard/open/v1/models", Some(bearer(&app.key()))).await.json();
    assert_eq!(listed, serde_json::json!({"object": "list", "data": [], "models": []}));
    let other = app.other_account("222233334444").await;
    let none = ask("/_modelyard/open/v2/models/m", Some(bearer(&other))).await;
    assert_eq!(
        (none.status.as_u16(), none.json()["error"].as_str().unwrap().contains("no model m")),
        (404, true)
    );
    let page = ask("/_modelyard/metrics", None).await.text();
    let counted =
        "modelyard_requests_total{service=\"open-protocols\",operation=\"ListModels\",code=\"401\"} 1";
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let app = TestApp::new().await;
    let key = bearer(&app.key());
    let post = async |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", key.as_str())]).collect();
        let answer = ask_from(&app, CLOSED, "192.0.2.1:5000", Method::POST, path, &headers, body).await;
        (answer.status.as_u16(), answer.text())
    };
    let refused = post("/v2/models/m", &[], b"").await;
    assert_eq!((refused.0, refused.1.contains("takes GET, not POST")), (405, true));
    let explained = post("/v1/models/m:explain", &[], b"{}").await;
    assert_eq!((explained.0, explained.1.contains("not done yet")), (400, true));
    assert_eq!(post("/v1/models/m:predict", &[("content-encoding", "gzip")], b"").await.0, 400);
    let large = vec![b' '; wire::RAW_BODY_LIMIT_BYTES + 1];
    assert_eq!(post("/v1/models/m:predict", &[], &large).await.0, 413);
    assert_eq!(post("/v1/models/m:predict", &[("content-length", "99999999999")], b"").await.0, 413);
    assert_eq!(post("/v2/models/m/infer", &[], b"{}").await.0, 404);
    for (body, status, code) in [
        ("{\"model\":\"m\",\"messages\":[]}", 404, "model_not_found"),
        ("{\"messages\":[]}", 400, "names no model"),
        ("[", 400, "invalid_request_error"),
    ] {
        let (found, text) = post("/v1/chat/completions", &[], body.as_bytes()).await;
        assert_eq!((found, text.contains(code)), (status, true), "{text}");
        assert!(text.starts_with("{\"error\":{\"message\":"), "{text}");
    }
}

#[tokio::test]
async fn calls_of_grpc_say_in_trailers_how_they_went() {
    let app = TestApp::new().await;
    let key = bearer(&app.key());
    let call = async |name: &str, message: &[u8], key: Option<&str>| {
        let path = format!("/inference.GRPCInferenceService/{name}");
        let mut headers = vec![("content-type", "application/grpc")];
        headers.extend(key.map(|key| ("authorization", key)));
        let answer = ask_from(&app, CLOSED, "192.0.2.1:5000", Method::POST, &path, &headers, message).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        (answer.headers["grpc-status"].to_str().unwrap().to_owned(), answer.body)
    };
    let empty = &[0; 5][..];
    assert_eq!(
        call("ServerLive", empty, None).await,
        ("0".into(), Bytes::from_static(b"\0\0\0\0\x02\x08\x01"))
    );
    assert_eq!(call("ServerReady", empty, None).await.0, "0");
    let named = b"\0\0\0\0\x03\x0a\x01m";
    for name in ["ModelReady", "ModelMetadata", "ModelInfer"] {
        assert_eq!(call(name, named, None).await.0, "16", "{name}");
        assert_eq!(call(name, named, Some("Bearer x")).await.0, "16", "{name}");
        assert_eq!(call(name, named, Some(&key)).await.0, "5", "{name}");
        assert_eq!(call(name, b"\0\0\0\0\x03\x0a\x09m", Some(&key)).await.0, "3", "{name}");
    }
    assert_eq!(call("ServerLive", b"", None).await.0, "3");
    assert_eq!(call("ServerLive", b"\x01\0\0\0\0", None).await.0, "12");
    assert_eq!(call("RepositoryIndex", empty, Some(&key)).await.0, "12");
}
