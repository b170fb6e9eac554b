//! Conditional requests.

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use store::objects::{Condition, Object};

use super::attributes::not_honoured;
use super::upload::timestamp;

fn is(condition: &ETagCondition, object: &Object) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == object.etag,
    }
}

fn failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// Conditions of a read, in the order that HTTP gives them: those on the entity tag beat those on the time.
#[derive(Default)]
pub struct ReadConditions {
    /// The object must be this one.
    pub if_match: Option<ETagCondition>,
    /// The object must not be this one.
    pub if_none_match: Option<ETagCondition>,
    /// It must have changed since.
    pub if_modified_since: Option<Timestamp>,
    /// It must not have changed since.
    pub if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Checks a read of an object.
    ///
    /// # Errors
    /// `PreconditionFailed`, or `NotModified` with the headers that a cache needs.
    pub fn check(&self, object: &Object) -> S3Result<()> {
        if self.is_another(object) {
            return Err(failed());
        }
        if !self.is_unchanged(object) {
            return Ok(());
        }
        let mut error = S3Error::with_message(S3ErrorCode::NotModified, "Not Modified");
        let mut headers = HeaderMap::new();
        headers.extend(format!("\"{}\"", object.etag).parse().ok().map(|tag| (http::header::ETAG, tag)));
        let mut modified = Vec::new();
        if timestamp(object.modified_at).format(TimestampFormat::HttpDate, &mut modified).is_ok() {
            let value = http::HeaderValue::from_bytes(&modified).ok();
            headers.extend(value.map(|value| (http::header::LAST_MODIFIED, value)));
        }
        error.set_headers(headers);
        Err(error)
    }

    /// Checks the source of a copy.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    pub fn check_source(&self, object: &Object) -> S3Result<()> {
        if self.is_another(object) || self.is_unchanged(object) { Err(failed()) } else { Ok(()) }
    }

    fn is_another(&self, object: &Object) -> bool {
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !is(condition, object),
            (None, Some(since)) => timestamp(object.modified_at) > *since,
            (None, None) => false,
        }
    }

    fn is_unchanged(&self, object: &Object) -> bool {
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => is(condition, object),
            (None, Some(since)) => timestamp(object.modified_at) <= *since,
            (None, None) => false,
        }
    }
}

/// Conditions of a write.
///
/// # Errors
/// When a write is to fail for one entity tag only, which S3 does not do either.
pub fn write(if_match: Option<ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Condition> {
    let if_match = if_match.map(|condition| match condition {
        ETagCondition::Any => "*".to_owned(),
        ETagCondition::ETag(tag) => tag.into_value(),
    });
    match if_none_match {
        Some(ETagCondition::ETag(_)) => Err(not_honoured("If-None-Match with an entity tag on a write")),
        Some(ETagCondition::Any) => Ok(Condition { if_match, if_none_match: true }),
        None => Ok(Condition { if_match, if_none_match: false }),
    }
}

/// Conditions of a write from its headers, for inputs that have no member for them.
///
/// # Errors
/// As [`write`], or when a header is no entity tag.
pub fn write_from_headers(headers: &HeaderMap) -> S3Result<Condition> {
    let parse = |name: http::HeaderName| {
        let value = headers.get(&name).map(|value| ETagCondition::parse_http_header(value.as_bytes()));
        value.transpose().map_err(|_| s3_error!(InvalidArgument, "The header {name} is not an entity tag."))
    };
    write(parse(http::header::IF_MATCH)?, parse(http::header::IF_NONE_MATCH)?.as_ref())
}
