//! AWS Signature Version 4: verification of header and presigned requests, and signing of both kinds.

mod canonical;
mod claim;
mod keys;
mod sign;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use claim::{Claim, Problem, credential_scope_service};
pub use sign::Signer;

/// Name of the only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Last part of every credential scope.
const TERMINATOR: &str = "aws4_request";

/// What stands in place of a payload hash when the body is not signed.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// SHA-256 in lower-case hexadecimal, as payload hashes are written.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex_text(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
fn hex_text(bytes: &[u8]) -> String {
    hex_simd::encode_to_string(bytes, hex_simd::AsciiCase::Lower)
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// What a signature covers beside the canonical request.
struct Scope<'a> {
    date: &'a str,
    region: &'a str,
    service: &'a str,
}

impl Scope<'_> {
    fn text(&self) -> String {
        [self.date, self.region, self.service, TERMINATOR].join("/")
    }

    /// The signature of a canonical request made at `moment` (`20260131T120000Z`).
    fn signature(&self, secret_access_key: &str, moment: &str, canonical_request: &str) -> [u8; 32] {
        let hash = sha256_hex(canonical_request.as_bytes());
        let string_to_sign = [ALGORITHM, moment, &self.text(), &hash].join("\n");
        keys::sign(secret_access_key, self, string_to_sign.as_bytes())
    }
}
