//! Signatures: what holds, and every way in which one does not.

use bytes::Bytes;
use http::{Method, Request, Uri};
use proptest::prelude::*;
use wire::sigv4::{Claim, Problem, Signer, sha256_hex};

use crate::fixture::{ACCESS_KEY_ID, Answered, Door, NOW_MS, SECRET_ACCESS_KEY, sign, signer};

const MINUTE_MS: i64 = 60_000;

fn ping() -> http::request::Builder {
    Request::post("/")
        .header("x-amz-target", "Widgets_2026.Ping")
        .header("content-type", "application/x-amz-json-1.1")
}

fn reset() -> http::request::Builder {
    Request::post("/").header("content-type", "application/x-www-form-urlencoded")
}

fn refused(answer: &Answered) -> (u16, String) {
    (answer.status, answer.code())
}

/// Sends a ping signed by `signer`.
async fn ping_by(door: &Door, signer: Signer<'_>) -> Answered {
    let mut request = ping().header("host", "localhost").body(Bytes::from_static(b"{}")).unwrap();
    signer.sign(&mut request, b"{}", NOW_MS);
    door.send(request).await
}

#[tokio::test]
async fn keys_and_sessions() {
    let door = Door::new();
    let good = signer("widgets");
    assert_eq!(ping_by(&door, good).await.status, 200);
    let session = Signer { access_key_id: "ASIASESSION", session_token: Some("the/token=="), ..good };
    assert_eq!(ping_by(&door, session).await.status, 200);
    for (signer, code) in [
        (Signer { secret_access_key: "wrong", ..good }, "InvalidSignatureException"),
        (Signer { access_key_id: "AKIANOBODY", ..good }, "UnrecognizedClientException"),
        (Signer { session_token: Some("other"), ..session }, "UnrecognizedClientException"),
        (Signer { access_key_id: "ASIAENDED", ..session }, "ExpiredTokenException"),
    ] {
        assert_eq!(refused(&ping_by(&door, signer).await), (400, code.to_owned()));
    }
    let stuck = ping_by(&door, Signer { access_key_id: "AKIASTUCK", ..good }).await;
    assert_eq!(refused(&stuck), (503, "ServiceUnavailable".to_owned()));
}

#[tokio::test]
async fn query_services_have_their_own_codes() {
    let door = Door::new();
    let good = signer("meters");
    let body = Bytes::from_static(b"Action=ResetMeter");
    for (signer, code) in [
        (Signer { secret_access_key: "wrong", ..good }, "SignatureDoesNotMatch"),
        (Signer { access_key_id: "AKIANOBODY", ..good }, "InvalidClientTokenId"),
        (Signer { access_key_id: "ASIAENDED", session_token: Some("t"), ..good }, "ExpiredToken"),
    ] {
        let mut request = reset().header("host", "localhost").body(body.clone()).unwrap();
        signer.sign(&mut request, &body, NOW_MS);
        assert_eq!(refused(&door.send(request).await), (403, code.to_owned()));
    }
    let late = door.send(sign("meters", reset(), &body, NOW_MS - 16 * MINUTE_MS)).await;
    assert_eq!(refused(&late), (403, "SignatureDoesNotMatch".to_owned()));
    assert!(late.text().contains("Signature expired: 20260131T114400Z is now earlier than 20260131T114500Z (20260131T120000Z - 15 min.)"));
    let rest = Request::post("/widgets/a/invocations");
    let mut request = rest.header("host", "localhost").body(Bytes::new()).unwrap();
    Signer { secret_access_key: "wrong", ..signer("widgets") }.sign(&mut request, b"", NOW_MS);
    assert_eq!(refused(&door.send(request).await), (403, "InvalidSignatureException".to_owned()));
}

#[tokio::test]
async fn clocks_may_be_a_quarter_of_an_hour_apart() {
    let door = Door::new();
    let body = Bytes::from_static(b"{}");
    for (offset_ms, status) in [(-15, 200), (15, 200), (-16, 400), (16, 400)] {
        let answer = door.send(sign("widgets", ping(), &body, NOW_MS + offset_ms * MINUTE_MS)).await;
        assert_eq!(answer.status, status, "{offset_ms}");
        if status != 200 {
            assert_eq!(answer.code(), "InvalidSignatureException");
        }
    }
    // The same request, sent again by someone who kept it.
    door.set_now(NOW_MS + 16 * MINUTE_MS);
    assert_eq!(door.send(sign("widgets", ping(), &body, NOW_MS)).await.status, 400);
}

#[tokio::test]
async fn every_changed_part_is_noticed() {
    let door = Door::new();
    let body = Bytes::from_static(br#"{"WidgetName":"a"}"#);
    let request = || {
        let builder = Request::post("/?a=1")
            .header("x-amz-target", "Widgets_2026.CreateWidget")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-other", "1");
        sign("widgets", builder, &body, NOW_MS)
    };
    type Change = fn(&mut Request<Bytes>);
    let changes: [(&str, Change); 11] = [
        ("body", |request| *request.body_mut() = Bytes::from_static(br#"{"WidgetName":"b"}"#)),
        ("target", |request| set(request, "x-amz-target", "Widgets_2026.FailWidget")),
        ("content type", |request| set(request, "content-type", "application/x-amz-json-1.0")),
        ("host", |request| set(request, "host", "elsewhere")),
        ("date", |request| set(request, "x-amz-date", "20260131T120001Z")),
        ("header", |request| set(request, "x-other", "2")),
        ("header gone", |request| drop(request.headers_mut().remove("x-other"))),
        ("method", |request| *request.method_mut() = Method::PUT),
        ("query", |request| *request.uri_mut() = Uri::from_static("/?a=2")),
        ("path", |request| *request.uri_mut() = Uri::from_static("/x?a=1")),
        ("stated hash", |request| set(request, "x-amz-content-sha256", &"0".repeat(64))),
    ];
    assert_eq!(door.send(request()).await.status, 200);
    for (what, change) in changes {
        let mut changed = request();
        change(&mut changed);
        let answer = door.send(changed).await;
        assert_eq!(answer.status / 100, 4, "{what}");
        assert_ne!(answer.code(), "", "{what}");
    }
}

fn set(request: &mut Request<Bytes>, name: &'static str, value: &str) {
    request.headers_mut().insert(name, value.parse().unwrap());
}

#[tokio::test]
async fn malformed_and_ambiguous_signatures_are_refused() {
    let door = Door::new();
    let body = Bytes::from_static(b"{}");
    let good = sign("widgets", ping(), &body, NOW_MS);
    let value = good.headers()["authorization"].to_str().unwrap().to_owned();
    let signature = value.rsplit('=').next().unwrap().to_owned();
    let change = |from: &str, to: &str| {
        assert!(value.contains(from), "{from}");
        value.replace(from, to)
    };
    let cases = [
        change("Signature=", "Sig="),
        change("Signature=", "Signature=00"),
        change(&signature, &signature.to_uppercase()),
        change(&signature, "x"),
        change("Credential=", "Credential=A,Credential="),
        change("x-amz-target,", "x-amz-target;zz,"),
        change("SignedHeaders=", "SignedHeaders=zz;"),
        change("SignedHeaders=content-type;", "SignedHeaders=Content-Type;"),
        change("content-type;host", "host;content-type"),
        change("content-type;host;", "content-type;"),
        change("x-amz-target", "x-amz-target;x-amz-target"),
        change("/aws4_request", "/aws5_request"),
        change("/20260131/", "/20260130/"),
        change("/eu-west-1/", "//"),
        change("AKIATEST", "A/KIATEST"),
        change("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        "AWS4-HMAC-SHA256".to_owned(),
        "AWS4-HMAC-SHA256 Credential=".to_owned(),
        "AWS4-HMAC-SHA256 nonsense".to_owned(),
    ];
    for case in cases {
        let mut request = good.clone();
        set(&mut request, "authorization", &case);
        let answer = door.send(request).await;
        assert_eq!(answer.status, 400, "{case}: {}", answer.text());
        // A header that was left out is a wrong signature; all else is a malformed one.
        let wrong = case.contains(";zz,");
        let code = if wrong { "InvalidSignatureException" } else { "IncompleteSignatureException" };
        assert_eq!(answer.code(), code, "{case}: {}", answer.text());
    }
    for name in
        ["authorization", "host", "x-amz-target", "x-amz-date", "content-type", "x-amz-security-token"]
    {
        let mut request = good.clone();
        let first = request.headers().get(name).cloned().unwrap_or_else(|| "t".parse().unwrap());
        request.headers_mut().append(name, first.clone());
        if name == "x-amz-security-token" {
            request.headers_mut().append(name, first);
        }
        let answer = door.send(request).await;
        assert_eq!(refused(&answer), (400, "IncompleteSignatureException".to_owned()), "two of {name}");
    }
    // A header that steers the request but is not signed.
    let mut request = good.clone();
    set(&mut request, "x-amz-extra", "1");
    assert_eq!(refused(&door.send(request).await), (400, "InvalidSignatureException".to_owned()));
    let mut request = good.clone();
    request.headers_mut().remove("x-amz-date");
    assert_eq!(door.send(request).await.code(), "IncompleteSignatureException");
    let mut request = good;
    *request.uri_mut() = Uri::from_static("/?X-Amz-Signature=00");
    assert_eq!(door.send(request).await.code(), "IncompleteSignatureException");
}

#[tokio::test]
async fn bodies_must_be_signed_as_a_whole() {
    let door = Door::new();
    for stated in
        ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
    {
        let request = ping().header("x-amz-content-sha256", stated);
        let answer = door.signed("widgets", request, "{}").await;
        assert_eq!(answer.status, 400, "{stated}");
        assert!(answer.text().contains("signed as a whole"), "{stated}");
    }
    let request = ping().header("x-amz-content-sha256", sha256_hex(b"{}"));
    assert_eq!(door.signed("widgets", request, "{}").await.status, 200);
}

#[tokio::test]
async fn presigned_requests_hold_for_their_time() {
    let door = Door::new();
    let url: Uri = "http://localhost/?Action=PutMeter&WidgetName=a&Text=x%20y%2B".parse().unwrap();
    let presigned = signer("meters").presign(&Method::GET, &url, 60, NOW_MS).unwrap();
    let get = |url: &str| {
        let path = url.strip_prefix("http://localhost").unwrap().to_owned();
        Request::get(path).header("host", "localhost").body(Bytes::new()).unwrap()
    };
    let presigned = presigned.to_string();
    assert_eq!(door.send(get(&presigned)).await.status, 200);
    for (from, to) in [
        ("WidgetName=a", "WidgetName=b"),
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("X-Amz-Expires=60", "X-Amz-Expires=0"),
        ("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=x"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=none"),
        ("&X-Amz-Date=20260131T120000Z", ""),
        ("&X-Amz-Signature=", "&x-amz-signature="),
        ("&X-Amz-Expires=60", "&X-Amz-Expires=60&X-Amz-Expires=60"),
    ] {
        assert!(presigned.contains(from), "{from}");
        let answer = door.send(get(&presigned.replace(from, to))).await;
        assert_eq!(answer.status / 100, 4, "{from} to {to}");
        assert_ne!(answer.code(), "", "{from} to {to}");
    }
    // A body that was not signed.
    let answer = door.send(get(&presigned).map(|_| Bytes::from_static(b"Count=1"))).await;
    assert_eq!(refused(&answer), (403, "SignatureDoesNotMatch".to_owned()));
    for (later_ms, status) in [(60_000, 200), (61_000, 403), (-16 * MINUTE_MS, 403)] {
        door.set_now(NOW_MS + later_ms);
        assert_eq!(door.send(get(&presigned)).await.status, status, "{later_ms}");
    }
    let session =
        Signer { access_key_id: "ASIASESSION", session_token: Some("the/token=="), ..signer("meters") };
    door.set_now(NOW_MS);
    let presigned = session.presign(&Method::GET, &url, 60, NOW_MS).unwrap().to_string();
    assert_eq!(door.send(get(&presigned)).await.status, 200);
}

#[test]
fn s3_requests_can_be_checked_with_the_same_functions() {
    let signer = signer("s3");
    let mut request = Request::put("/bucket/a%20b//c").header("host", "h").body(()).unwrap();
    signer.sign(&mut request, b"data", NOW_MS);
    let (parts, ()) = request.into_parts();
    let claim = Claim::of(&parts).unwrap().unwrap();
    let terms = &claim.terms;
    assert_eq!((&*terms.service, &*terms.region, &*terms.access_key_id), ("s3", "eu-west-1", ACCESS_KEY_ID));
    assert_eq!(claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(b"data")), Ok(()));
    assert!(matches!(
        claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(b"other")),
        Err(Problem::Mismatch(_))
    ));
    let url = "http://h/bucket/key?versionId=1".parse().unwrap();
    let presigned = signer.presign(&Method::PUT, &url, 60, NOW_MS).unwrap();
    let (parts, ()) = Request::put(presigned).body(()).unwrap().into_parts();
    let claim = Claim::of(&parts).unwrap().unwrap();
    assert_eq!(claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(b"any body")), Ok(()));
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not(
        path in "(/[a-zA-Z0-9 ~._%+=:@äß-]{1,12}){0,3}/?",
        query in proptest::collection::vec(("[a-zA-Zä &=+%/]{1,6}", "[a-zA-Zä &=+%/]{0,6}"), 0..4),
        header in "[ -~]{0,20}",
        body in proptest::collection::vec(any::<u8>(), 0..64),
        flip in any::<prop::sample::Index>(),
    ) {
        let encode = |text: &str| percent_encoding(text);
        let path: String = path.split('/').map(encode).collect::<Vec<_>>().join("/");
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let uri = format!("/{}?{}", path.trim_start_matches('/'), query.join("&"));
        let mut request = Request::post(uri).header("host", "h").header("x-other", header).body(()).unwrap();
        signer("widgets").sign(&mut request, &body, NOW_MS);
        let (parts, ()) = request.into_parts();
        let claim = Claim::of(&parts).unwrap().unwrap();
        prop_assert_eq!(claim.check_time(NOW_MS), Ok(()));
        prop_assert_eq!(claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(&body)), Ok(()));
        prop_assert!(claim.verify(&parts, "another secret", &sha256_hex(&body)).is_err());
        let mut other = body.clone();
        other.push(0);
        let at = flip.index(other.len());
        other[at] ^= 1;
        prop_assert!(claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(&other)).is_err());
    }

    #[test]
    fn any_authorization_header_is_read_without_a_panic(value in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}", query in "[ -~&&[^#<>\"`{}|\\\\^ ]]{0,60}") {
        let builder = Request::post(format!("/?{query}")).header("authorization", value);
        if let Ok(request) = builder.body(()) {
            let (parts, ()) = request.into_parts();
            prop_assert!(!matches!(Claim::of(&parts), Ok(Some(claim)) if claim.verify(&parts, SECRET_ACCESS_KEY, &sha256_hex(b"")).is_ok()));
        }
    }
}

/// Percent-encodes everything but letters and digits, as a careful client does.
fn percent_encoding(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
