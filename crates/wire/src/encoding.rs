//! Content codings of request bodies.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::Error;

/// Undoes the content coding of a body, which may not grow over `limit_bytes`.
pub(crate) fn decoded(headers: &HeaderMap, body: Bytes, limit_bytes: usize) -> Result<Bytes, Error> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else {
        return Ok(body);
    };
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        "gzip" => gunzip(&body, limit_bytes),
        _ => Err(Error::unsupported_encoding(&encoding)),
    }
}

fn gunzip(body: &[u8], limit_bytes: usize) -> Result<Bytes, Error> {
    let mut plain = Vec::new();
    // One byte over the limit is enough to know that the body is too large.
    let mut reader = MultiGzDecoder::new(body).take(limit_bytes as u64 + 1);
    reader
        .read_to_end(&mut plain)
        .map_err(|_| Error::serialization("The request body is not valid gzip."))?;
    if plain.len() > limit_bytes {
        return Err(Error::too_large(limit_bytes));
    }
    Ok(plain.into())
}
