//! AWS Signature Version 4: verification of header and presigned requests, and signing of both kinds.

mod canonical;
mod claim;
mod keys;
mod sign;
mod terms;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use claim::{Claim, Problem, credential_scope_service};
pub use sign::Signer;
pub use terms::Terms;

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
    fn parts(&self) -> [&str; 4] {
        [self.date, self.region, self.service, TERMINATOR]
    }

    fn text(&self) -> String {
        self.parts().join("/")
    }

    /// The signature of a canonical request made at `moment` (`20260131T120000Z`).
    fn signature(&self, secret_access_key: &str, moment: &str, canonical_request: &str) -> [u8; 32] {
        let mut hash = [0; 64];
        let digest = Sha256::digest(canonical_request.as_bytes());
        let hash = hex_simd::encode_as_str(
            &digest,
            hex_simd::Out::from_slice(&mut hash),
            hex_simd::AsciiCase::Lower,
        );
        let [date, region, service, terminator] = self.parts();
        // What is signed, piece by piece: each request that comes is checked, and need not have it written down.
        let pieces =
            [ALGORITHM, "\n", moment, "\n", date, "/", region, "/", service, "/", terminator, "\n", hash];
        keys::sign(secret_access_key, self, pieces.map(str::as_bytes))
    }
}
