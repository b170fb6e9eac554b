//! Signing: for the command line client, for jobs, and for tests of the verification.

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use time::OffsetDateTime;
use time::macros::format_description;

use super::terms::SignedHeaders;
use super::{ALGORITHM, Scope, UNSIGNED_PAYLOAD, canonical, sha256_hex};

/// Headers that proxies and transports may change, so that they are not signed.
const UNSIGNED: [&str; 6] =
    ["authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"];

/// Signs requests with one key for one service.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// Key.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret_access_key: &'a str,
    /// Session token of short-lived keys.
    pub session_token: Option<&'a str>,
    /// Region of the scope.
    pub region: &'a str,
    /// Signing name of the service.
    pub service: &'a str,
}

impl Signer<'_> {
    /// Signs by header: sets `x-amz-date`, `x-amz-security-token` and `authorization` (for S3 `x-amz-content-sha256`), and
    /// `host` when only the URI names it. `now_ms` is in milliseconds since 1970.
    pub fn sign<B>(&self, request: &mut Request<B>, body: &[u8], now_ms: i64) {
        self.sign_hash(request, &sha256_hex(body), now_ms);
    }

    /// As [`Signer::sign`], without the body: for a connection that protects it, or a body whose digest is in a header.
    pub fn sign_without_body<B>(&self, request: &mut Request<B>, now_ms: i64) {
        self.sign_hash(request, UNSIGNED_PAYLOAD, now_ms);
    }

    fn sign_hash<B>(&self, request: &mut Request<B>, payload: &str, now_ms: i64) {
        let moment = moment(now_ms);
        let authority = request.uri().authority().map(ToString::to_string);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let headers = request.headers_mut();
        if let (None, Some(authority)) = (headers.get(HOST), authority) {
            headers.insert(HOST, value(&authority));
        }
        headers.insert("x-amz-date", value(&moment));
        if let Some(token) = self.session_token {
            headers.insert("x-amz-security-token", value(token));
        }
        if self.service == "s3" {
            headers.insert("x-amz-content-sha256", value(payload));
        }
        let signed = headers.keys().filter(|name| !UNSIGNED.contains(&name.as_str())).cloned();
        let signed = SignedHeaders::of(signed.collect());
        let canonical = canonical::Request {
            method: method.as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            headers,
            authority: None,
            signed: &signed,
            payload,
        };
        let signature = self.signature(&canonical, &moment);
        let credential = self.credential(&moment);
        let authorization = format!(
            "{ALGORITHM} Credential={credential}, SignedHeaders={}, Signature={signature}",
            signed.text
        );
        headers.insert(AUTHORIZATION, value(&authorization));
    }

    /// Signs by query: the URL alone then is the permission, for `expires_seconds`. Only the host is signed beside method,
    /// path and query; the body must be empty, except for S3, where any body may follow.
    ///
    /// # Errors
    /// When `url` has no host.
    pub fn presign(
        &self,
        method: &Method,
        url: &Uri,
        expires_seconds: u32,
        now_ms: i64,
    ) -> Result<Uri, http::Error> {
        let moment = moment(now_ms);
        let mut query = url.query().map(|query| format!("{query}&")).unwrap_or_default();
        query.push_str(&format!(
            "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={moment}&X-Amz-Expires={expires_seconds}",
            canonical::encode(&self.credential(&moment)),
        ));
        if let Some(token) = self.session_token {
            query.push_str(&format!("&X-Amz-Security-Token={}", canonical::encode(token)));
        }
        query.push_str("&X-Amz-SignedHeaders=host");
        let mut headers = HeaderMap::new();
        if let Some(authority) = url.authority() {
            headers.insert(HOST, value(authority.as_str()));
        }
        let payload = if self.service == "s3" { UNSIGNED_PAYLOAD.to_owned() } else { sha256_hex(b"") };
        let canonical = canonical::Request {
            method: method.as_str(),
            path: url.path(),
            query: &query,
            headers: &headers,
            authority: None,
            signed: &SignedHeaders::of(vec![HOST]),
            payload: &payload,
        };
        let signature = self.signature(&canonical, &moment);
        let mut parts = url.clone().into_parts();
        parts.path_and_query =
            Some(format!("{}?{query}&X-Amz-Signature={signature}", url.path()).try_into()?);
        Ok(Uri::from_parts(parts)?)
    }

    fn credential(&self, moment: &str) -> String {
        format!("{}/{}", self.access_key_id, self.scope(moment).text())
    }

    fn scope<'b>(&'b self, moment: &'b str) -> Scope<'b> {
        Scope { date: &moment[..8], region: self.region, service: self.service }
    }

    fn signature(&self, request: &canonical::Request<'_>, moment: &str) -> String {
        // What is malformed is refused by the verifier; a signer has no better answer than a signature that fails there.
        let text = request.text(self.service).unwrap_or_default();
        super::hex_text(&self.scope(moment).signature(self.secret_access_key, moment, &text))
    }
}

/// Text that no header can carry becomes empty, and the server refuses the request.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// `20260131T120000Z`.
pub(super) fn moment(at_ms: i64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(format)
        .unwrap_or_else(|_| "19700101T000000Z".to_owned())
}
