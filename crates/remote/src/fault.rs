//! Refusals of remote stores, in words for people here.

use http::StatusCode;
use store::Error;
use store::objects::{OBJECT_KIND, RemoteProblem, UPLOAD_KIND};

use crate::xml;

/// An answer that is no success.
#[derive(Debug)]
pub struct Fault {
    /// Its status.
    pub status: StatusCode,
    /// The code of S3; empty where the answer had no body.
    pub code: String,
    /// The remote store's text.
    pub message: String,
    /// The region that the bucket is in, when the answer says so.
    pub region: Option<String>,
}

impl Fault {
    /// Of an answer with its body.
    pub fn of(status: StatusCode, region: Option<String>, body: &str) -> Fault {
        let error = xml::parse(body).unwrap_or_default();
        Fault { status, code: error.text_of("Code"), message: error.text_of("Message"), region }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        let codes = ["SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"];
        matches!(self.status.as_u16(), 429 | 500 | 502 | 503 | 504) || codes.contains(&self.code.as_str())
    }

    /// The status with what else is known.
    pub fn shown(&self) -> String {
        let mut text = self.status.as_u16().to_string();
        for more in [&self.code, &self.message].into_iter().filter(|more| !more.is_empty()) {
            text.push_str(if text.contains(' ') { ": " } else { " " });
            // A long page of a proxy helps nobody.
            text.extend(more.chars().take(200));
        }
        text
    }

    /// The error for the store; `url` names the bucket.
    pub fn into_error(self, url: &str) -> Error {
        let shown = self.shown();
        match (self.status.as_u16(), self.code.as_str()) {
            _ if self.is_passing() => {
                RemoteProblem::Unavailable(format!("The remote store {url} cannot do this now ({shown})"))
                    .into()
            }
            (412, _) | (409, "ConditionalRequestConflict") => {
                Error::Precondition("a precondition did not hold in the remote store".into())
            }
            (_, "NoSuchUpload") => Error::Missing { kind: UPLOAD_KIND.into(), name: String::new() },
            (404, "NoSuchBucket") => {
                RemoteProblem::Refused(format!("The remote bucket {url} does not exist")).into()
            }
            (404, _) => Error::Missing { kind: OBJECT_KIND.into(), name: String::new() },
            (401 | 403, _) => {
                let text = format!(
                    "The remote store {url} refuses access with the credentials of this bucket ({shown})"
                );
                RemoteProblem::Denied(text).into()
            }
            (300..=399, _) => {
                let region = self.region.map(|region| format!(" (it says that the region is {region})"));
                let text = format!(
                    "The remote store {url} says that the bucket is elsewhere{}: register it with its own endpoint and --region",
                    region.unwrap_or_default()
                );
                RemoteProblem::Refused(text).into()
            }
            _ => {
                RemoteProblem::Refused(format!("The remote store {url} refuses the request ({shown})")).into()
            }
        }
    }
}
