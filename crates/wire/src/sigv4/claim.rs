//! What a signed request claims, and whether the claim holds.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use subtle::ConstantTimeEq;
use time::{Date, Month};

use super::terms::{self, Terms, has_uppercase, incomplete, pieces};
use super::{ALGORITHM, Scope, UNSIGNED_PAYLOAD, canonical};
use crate::form;

/// How far the clocks of client and server may be apart.
const SKEW_MS: i64 = 15 * 60 * 1000;

/// Longest life of a presigned request.
const MAX_EXPIRES_SECONDS: i64 = 7 * 24 * 3600;

static CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
static DATE: HeaderName = HeaderName::from_static("x-amz-date");
static SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Headers of which a request may have only one: a second one could mean something else to another reader.
const SINGLE: [&str; 9] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-target",
];

/// Why a signature does not hold; the texts are for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A part is missing or malformed.
    Incomplete(String),
    /// The signature, or something it must cover, is wrong.
    Mismatch(String),
    /// The signature is too old, or from the future.
    Time(String),
}

/// The signature of a request with all that it names.
#[derive(Clone)]
pub struct Claim {
    /// Who signs for what.
    pub terms: Arc<Terms>,
    /// Session token, for the keys of sessions.
    pub session_token: Option<String>,
    /// Begins with the date of the scope.
    moment: String,
    signed_at_ms: i64,
    expires_seconds: Option<i64>,
    signature: [u8; 32],
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Claim")
            .field("access_key_id", &self.terms.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The service in the credential scope of a request, however broken the rest of its signature is.
pub fn credential_scope_service(parts: &Parts) -> Option<String> {
    let service = |credential: &str| credential.rsplit('/').nth(1).map(str::to_owned);
    match parts.headers.get(AUTHORIZATION).and_then(ascii) {
        Some(value) if value.starts_with(ALGORITHM) => {
            let at = value.find("Credential=")? + "Credential=".len();
            service(pieces(&value[at..]).next().unwrap_or_default())
        }
        _ => {
            let pairs = form::pairs(parts.uri.query()?.as_bytes()).ok()?;
            service(&pairs.iter().find(|(name, _)| name == "X-Amz-Credential")?.1)
        }
    }
}

impl Claim {
    /// Reads the signature of a request. `None` when it carries none.
    ///
    /// # Errors
    /// [`Problem::Incomplete`] for a malformed or ambiguous signature.
    pub fn of(parts: &Parts) -> Result<Option<Claim>, Problem> {
        let query = form::pairs(parts.uri.query().unwrap_or_default().as_bytes())
            .map_err(|problem| incomplete(format!("The query string cannot be read: {problem}.")))?;
        let presigned = query.iter().any(|(name, _)| name == "X-Amz-Signature" || name == "X-Amz-Credential");
        let authorization = parts.headers.get(AUTHORIZATION);
        if parts.headers.len() > parts.headers.keys_len()
            && let Some(name) = SINGLE.iter().find(|name| parts.headers.get_all(**name).iter().count() > 1)
        {
            return Err(incomplete(format!("The header {name} is given more than once.")));
        }
        let claim = match (authorization, presigned) {
            (None, false) => return Ok(None),
            (Some(_), true) => {
                return Err(incomplete(
                    "The request is signed both by header and by query; use one of them.".into(),
                ));
            }
            (Some(value), false) => {
                let value = ascii(value)
                    .ok_or_else(|| incomplete("The Authorization header is not ASCII.".into()))?;
                Claim::from_header(value, &parts.headers)?
            }
            (None, true) => Claim::from_query(&query)?,
        };
        if !claim.covers(&HOST) {
            return Err(incomplete("The host header must be signed.".into()));
        }
        // What is not signed can be changed on the way; the payload hash is part of the signature in any case.
        let unsigned = parts.headers.keys().find(|name| {
            name.as_str().starts_with("x-amz-") && *name != CONTENT_SHA256 && !claim.covers(name)
        });
        match unsigned {
            Some(name) => {
                Err(Problem::Mismatch(format!("The header {name} is in the request but is not signed.")))
            }
            None => Ok(Some(claim)),
        }
    }

    fn covers(&self, name: &HeaderName) -> bool {
        self.terms.signed.names.contains(name)
    }

    fn from_header(value: &str, headers: &HeaderMap) -> Result<Claim, Problem> {
        let (terms, signature) = terms::of_header(value)?;
        let text = |name: &HeaderName| match headers.get(name) {
            Some(value) => ascii(value)
                .map(|value| Some(value.to_owned()))
                .ok_or_else(|| incomplete(format!("The header {name} is not ASCII."))),
            None => Ok(None),
        };
        let moment = text(&DATE)?.ok_or_else(|| {
            incomplete("Authorization header requires existence of an 'X-Amz-Date' header.".into())
        })?;
        Claim::new(terms, signature, moment, text(&SECURITY_TOKEN)?, None)
    }

    fn from_query(query: &[(String, String)]) -> Result<Claim, Problem> {
        let find = |wanted: &str| {
            let mut values = query.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            let first = values.next();
            match values.next() {
                Some(_) => Err(incomplete(format!("The query parameter {wanted} is given more than once."))),
                None => Ok(first.map(|(_, value)| value.as_str())),
            }
        };
        let need = |wanted: &str| {
            find(wanted)?
                .ok_or_else(|| incomplete(format!("AWS query-string parameters must include '{wanted}'.")))
        };
        let algorithm = need("X-Amz-Algorithm")?;
        if algorithm != ALGORITHM {
            return Err(incomplete(format!(
                "X-Amz-Algorithm is {algorithm:?}; only {ALGORITHM} is supported."
            )));
        }
        let expires = need("X-Amz-Expires")?
            .parse::<i64>()
            .ok()
            .filter(|seconds| (1..=MAX_EXPIRES_SECONDS).contains(seconds))
            .ok_or_else(|| {
                incomplete(format!(
                    "X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_SECONDS}."
                ))
            })?;
        let token = find("X-Amz-Security-Token")?.map(str::to_owned);
        let terms = Terms::of(need("X-Amz-Credential")?, need("X-Amz-SignedHeaders")?)?;
        Claim::new(
            Arc::new(terms),
            need("X-Amz-Signature")?,
            need("X-Amz-Date")?.to_owned(),
            token,
            Some(expires),
        )
    }

    fn new(
        terms: Arc<Terms>,
        signature: &str,
        moment: String,
        session_token: Option<String>,
        expires_seconds: Option<i64>,
    ) -> Result<Claim, Problem> {
        let signed_at_ms = parse_moment(&moment).ok_or_else(|| {
            incomplete("Date must be in ISO-8601 'basic format', as 20260131T120000Z.".into())
        })?;
        if moment.get(..8) != Some(&*terms.date) {
            return Err(incomplete(format!(
                "The date of the credential scope, {:?}, is not that of X-Amz-Date, {moment:?}.",
                terms.date
            )));
        }
        let mut bytes = [0; 32];
        let is_lower = !has_uppercase(signature);
        // The length first: there must be room for what is decoded.
        let is_whole = signature.len() == 2 * bytes.len()
            && hex_simd::decode(signature.as_bytes(), hex_simd::Out::from_slice(&mut bytes)).is_ok();
        if !is_lower || !is_whole {
            return Err(incomplete("The signature must be 64 lower-case hexadecimal digits.".into()));
        }
        Ok(Claim { terms, session_token, moment, signed_at_ms, expires_seconds, signature: bytes })
    }

    /// Checks that the signature is neither too old nor from the future.
    ///
    /// # Errors
    /// [`Problem::Time`].
    pub fn check_time(&self, now_ms: i64) -> Result<(), Problem> {
        let now = || super::sign::moment(now_ms);
        if self.signed_at_ms > now_ms + SKEW_MS {
            let (signed, limit) = (&self.moment, super::sign::moment(now_ms + SKEW_MS));
            let text = format!(
                "Signature not yet current: {signed} is still later than {limit} ({} + 15 min.)",
                now()
            );
            return Err(Problem::Time(text));
        }
        match self.expires_seconds {
            Some(seconds) if now_ms > self.signed_at_ms + seconds * 1000 => {
                let end = super::sign::moment(self.signed_at_ms + seconds * 1000);
                Err(Problem::Time(format!(
                    "Signature expired: the presigned request ended at {end}, and it is {}",
                    now()
                )))
            }
            None if self.signed_at_ms < now_ms - SKEW_MS => {
                let (signed, limit) = (&self.moment, super::sign::moment(now_ms - SKEW_MS));
                Err(Problem::Time(format!(
                    "Signature expired: {signed} is now earlier than {limit} ({} - 15 min.)",
                    now()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Checks the signature of a request whose body has this [`sha256_hex`](super::sha256_hex).
    ///
    /// # Errors
    /// [`Problem::Mismatch`], also when the request states another hash of its body.
    pub fn verify(&self, parts: &Parts, secret_access_key: &str, body_sha256: &str) -> Result<(), Problem> {
        let payload = match parts.headers.get(&CONTENT_SHA256).map(HeaderValue::as_bytes) {
            None if self.terms.service == "s3" && self.expires_seconds.is_some() => UNSIGNED_PAYLOAD,
            None => body_sha256,
            Some(stated) if stated == body_sha256.as_bytes() => body_sha256,
            Some(stated) if stated == UNSIGNED_PAYLOAD.as_bytes() && self.terms.service == "s3" => {
                UNSIGNED_PAYLOAD
            }
            Some(stated) if stated == UNSIGNED_PAYLOAD.as_bytes() || stated.starts_with(b"STREAMING-") => {
                let text = "The body must be signed as a whole; x-amz-content-sha256 must be its SHA-256.";
                return Err(Problem::Mismatch(text.into()));
            }
            Some(_) => {
                let text = "The provided 'x-amz-content-sha256' header does not match what was computed.";
                return Err(Problem::Mismatch(text.into()));
            }
        };
        let request = canonical::Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
            authority: parts.uri.authority().map(http::uri::Authority::as_str),
            signed: &self.terms.signed,
            payload,
        };
        let request = request.text(&self.terms.service).map_err(|problem| match problem {
            canonical::Unclear::Query(problem) => {
                incomplete(format!("The query string cannot be read: {problem}."))
            }
            canonical::Unclear::Header(name) => {
                Problem::Mismatch(format!("The signed header {name} is not in the request as text."))
            }
        })?;
        let Terms { date, region, service, .. } = &*self.terms;
        let scope = Scope { date, region, service };
        let expected = scope.signature(secret_access_key, &self.moment, &request);
        if bool::from(expected.ct_eq(&self.signature)) {
            return Ok(());
        }
        Err(Problem::Mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
             Key and signing method. Consult the service documentation for details."
                .into(),
        ))
    }
}

/// The text of a header, all at once rather than byte by byte: an `Authorization` is long.
fn ascii(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii())
}

/// Milliseconds since 1970 of `20260131T120000Z`.
fn parse_moment(text: &str) -> Option<i64> {
    // By hand: each request has one, and a general parser takes as long as the signature.
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u16, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'))
        })
    };
    let two = |at: usize| number(&bytes[at..at + 2]).map(|number| number as u8);
    let month = Month::try_from(two(4)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(&bytes[..4])?), month, two(6)?).ok()?;
    let moment = date.with_hms(two(9)?, two(11)?, two(13)?).ok()?.assume_utc();
    Some(moment.unix_timestamp() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_strictly() {
        for at_ms in [0, 951_782_400_000, 1_709_164_799_000, 1_769_860_800_000, 4_102_444_799_000] {
            assert_eq!(parse_moment(&crate::sigv4::sign::moment(at_ms)), Some(at_ms));
        }
        for wrong in [
            "",
            "20260131T120000",
            "20260131T120000z",
            "20260131 120000Z",
            "20260231T120000Z",
            "20261301T120000Z",
            "20260131T240000Z",
            "20260131T126000Z",
            "20260131T120060Z",
            "2026013 T120000Z",
            "+0260131T120000Z",
            "２０２６0131T12Z",
        ] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
