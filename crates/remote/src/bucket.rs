//! The operations of a remote bucket.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use store::objects::{
    Attributes, Condition, RemoteBody, RemoteBucket, RemoteContent, RemoteList, RemoteObject, RemotePage,
    RemoteProblem,
};
use store::{Error, Result};

use crate::address::{encoded_key, query};
use crate::fault::Fault;
use crate::transport::{Body, Call, JOIN_TIMEOUT, QUIET_TIMEOUT, Transport, next_frame, read};
use crate::{requests, xml};

/// A bucket of another S3 store.
pub struct S3Bucket {
    /// The way to it.
    pub transport: Transport,
    /// Beginning of all keys.
    pub prefix: String,
}

impl S3Bucket {
    fn object(
        &self,
        method: Method,
        key: &str,
        pairs: &[(&str, &str)],
        headers: HeaderMap,
        body: Body,
    ) -> Call {
        let mut place = format!("/{}{}", encoded_key(&self.prefix), encoded_key(key));
        if !pairs.is_empty() {
            place = format!("{place}?{}", query(pairs));
        }
        Call { method, place, headers, body, quiet_timeout: QUIET_TIMEOUT }
    }

    /// The answer of a success; what is refused is an error.
    async fn succeed(&self, call: &Call) -> Result<Response<Incoming>> {
        self.transport.call(call).await?.map_err(|fault| self.refused(fault))
    }

    fn refused(&self, fault: Fault) -> Error {
        fault.into_error(&self.transport.url)
    }

    /// The document of an answer.
    async fn document(&self, response: Response<Incoming>) -> Result<xml::Element> {
        let text = read(response).await.map_err(|error| self.broken(&error))?;
        let document = xml::parse(&text).ok_or_else(|| self.unreadable())?;
        if document.name == "Error" {
            // A completion may fail after its status was sent.
            return Err(self.refused(Fault::of(StatusCode::BAD_REQUEST, None, &text)));
        }
        Ok(document)
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        RemoteProblem::Unavailable(format!("The remote store {} broke off: {error}", self.transport.url))
            .into()
    }

    fn unreadable(&self) -> Error {
        RemoteProblem::Refused(format!("The remote store {} does not answer as S3 does", self.transport.url))
            .into()
    }
}

#[async_trait]
impl RemoteBucket for S3Bucket {
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>> {
        let call = self.object(Method::HEAD, key, &[], HeaderMap::new(), Body::None);
        match self.transport.call(&call).await? {
            Ok(response) => {
                requests::object(key, response.headers()).map(Some).ok_or_else(|| self.unreadable())
            }
            Err(fault) if fault.status == StatusCode::NOT_FOUND => Ok(None),
            Err(fault) => Err(self.refused(fault)),
        }
    }

    async fn get(&self, key: &str, range: Range<u64>, etag: &str) -> Result<Box<dyn RemoteBody>> {
        let mut headers = HeaderMap::new();
        let span = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        headers.insert(http::header::RANGE, HeaderValue::try_from(span).map_err(|_| self.unreadable())?);
        requests::add_condition(
            &mut headers,
            &Condition { if_match: Some(etag.into()), if_none_match: false },
        );
        let response = self.succeed(&self.object(Method::GET, key, &[], headers, Body::None)).await?;
        if requests::tag(response.headers()).is_some_and(|now| now != etag) {
            return Err(Error::Precondition("the remote object was replaced".into()));
        }
        if response.status() != StatusCode::PARTIAL_CONTENT && range.start > 0 {
            return Err(self.unreadable());
        }
        Ok(Box::new(S3Body { body: response.into_body(), url: self.transport.url.clone() }))
    }

    async fn list(&self, list: &RemoteList) -> Result<RemotePage> {
        let (prefix, limit) = (format!("{}{}", self.prefix, list.prefix), list.limit.to_string());
        let after = list.after.as_ref().map(|after| format!("{}{after}", self.prefix));
        let mut pairs = vec![("list-type", "2"), ("encoding-type", "url"), ("max-keys", limit.as_str())];
        pairs.extend(
            Some(prefix.as_str()).filter(|prefix| !prefix.is_empty()).map(|prefix| ("prefix", prefix)),
        );
        pairs.extend(list.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        pairs.extend(after.as_deref().map(|after| ("start-after", after)));
        let place = format!("?{}", query(&pairs));
        let call = Call {
            method: Method::GET,
            place,
            headers: HeaderMap::new(),
            body: Body::None,
            quiet_timeout: QUIET_TIMEOUT,
        };
        let response = self.succeed(&call).await.map_err(|error| match error {
            // Nothing else can be missing when a bucket is listed.
            Error::Missing { .. } => {
                RemoteProblem::Refused(format!("The remote bucket {} does not exist", self.transport.url))
                    .into()
            }
            other => other,
        })?;
        Ok(requests::page(&self.document(response).await?, &self.prefix))
    }

    async fn put(
        &self,
        key: &str,
        content: &RemoteContent,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<String> {
        let mut headers = requests::of_attributes(attributes);
        requests::add_condition(&mut headers, condition);
        requests::add_digest(&mut headers, content);
        let call = self.object(Method::PUT, key, &[], headers, Body::Content(content.clone()));
        requests::tag(self.succeed(&call).await?.headers()).ok_or_else(|| self.unreadable())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let call = self.object(Method::DELETE, key, &[], HeaderMap::new(), Body::None);
        match self.transport.call(&call).await? {
            Err(fault) if fault.status != StatusCode::NOT_FOUND || fault.code == "NoSuchBucket" => {
                Err(self.refused(fault))
            }
            _ => Ok(()),
        }
    }

    async fn create_upload(&self, key: &str, attributes: &Attributes) -> Result<String> {
        let headers = requests::of_attributes(attributes);
        let call = self.object(Method::POST, key, &[("uploads", "")], headers, Body::None);
        let document = self.document(self.succeed(&call).await?).await?;
        Some(document.text_of("UploadId")).filter(|id| !id.is_empty()).ok_or_else(|| self.unreadable())
    }

    async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: u32,
        content: &RemoteContent,
    ) -> Result<String> {
        let mut headers = HeaderMap::new();
        requests::add_digest(&mut headers, content);
        let number = number.to_string();
        let pairs = [("partNumber", number.as_str()), ("uploadId", upload)];
        let call = self.object(Method::PUT, key, &pairs, headers, Body::Content(content.clone()));
        requests::tag(self.succeed(&call).await?.headers()).ok_or_else(|| self.unreadable())
    }

    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[(u32, String)],
        condition: &Condition,
    ) -> Result<String> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        requests::add_condition(&mut headers, condition);
        let body = Body::Document(requests::completion(parts).into());
        let mut call = self.object(Method::POST, key, &[("uploadId", upload)], headers, body);
        call.quiet_timeout = JOIN_TIMEOUT;
        let document = self.document(self.succeed(&call).await?).await?;
        let etag = requests::bare_tag(&document.text_of("ETag"));
        Some(etag).filter(|etag| !etag.is_empty()).ok_or_else(|| self.unreadable())
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let call = self.object(Method::DELETE, key, &[("uploadId", upload)], HeaderMap::new(), Body::None);
        match self.transport.call(&call).await? {
            Err(fault) if fault.status != StatusCode::NOT_FOUND => Err(self.refused(fault)),
            _ => Ok(()),
        }
    }
}

/// The bytes of an answer.
struct S3Body {
    body: Incoming,
    url: String,
}

#[async_trait]
impl RemoteBody for S3Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        next_frame(&mut self.body).await.map_err(|error| {
            RemoteProblem::Unavailable(format!("The remote store {} broke off: {error}", self.url)).into()
        })
    }
}
