//! Authenticated encryption with AES-256-GCM, and keys that are never shown.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

/// Bytes that sealing adds to what is sealed in one piece.
pub const TAG_BYTES: usize = 16;

/// Bytes of the salt before a sealed blob or file: each has a key of its own, derived with it.
pub const SALT_BYTES: usize = 16;

/// The bytes are not what was sealed with this key and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encrypted bytes were changed, or belong to another key or context")]
pub struct NotAuthentic;

/// A key of 256 bits. Its bytes are overwritten when it goes, and it does not print them.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretKey(..)")
    }
}

/// Fills bytes from the system's generator.
///
/// # Panics
/// When the system has no randomness to give: nothing safe can be done then.
pub fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the kernel's generator answers once the system has started");
}

/// The length of derived keys, as `ring` wants it.
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl SecretKey {
    /// A new key.
    pub fn random() -> SecretKey {
        let mut bytes = [0; 32];
        fill_random(&mut bytes);
        SecretKey(bytes)
    }

    /// A key of given bytes; `None` unless there are 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<SecretKey> {
        bytes.try_into().ok().map(SecretKey)
    }

    /// The bytes, for wrapping them with another key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Another key that depends on this one, `salt` and `purpose` (HKDF with SHA-256).
    pub fn derive(&self, salt: &[u8], purpose: &[&[u8]]) -> SecretKey {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let mut bytes = [0; 32];
        let expanded = extracted.expand(purpose, Bytes32).and_then(|key| key.fill(&mut bytes));
        expanded.expect("32 bytes are within what HKDF gives");
        SecretKey(bytes)
    }

    /// This key, made ready for many pieces.
    pub fn cipher(&self) -> Cipher {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has 32 bytes");
        Cipher(LessSafeKey::new(key))
    }

    /// Seals bytes into a blob that only this key opens, and only with the same `context`.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt);
        let mut sealed = plain.to_vec();
        // The key is used for this blob alone, so that the nonce may stand still.
        self.derive(&salt, &[b"blob"]).cipher().seal([0; 12], context, &mut sealed);
        let mut blob = salt.to_vec();
        blob.append(&mut sealed);
        blob
    }

    /// The bytes of a blob from [`SecretKey::seal`].
    ///
    /// # Errors
    /// When the blob, the key or the context is another.
    pub fn open(&self, context: &[u8], blob: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let (salt, sealed) = blob.split_at_checked(SALT_BYTES).ok_or(NotAuthentic)?;
        let mut bytes = sealed.to_vec();
        self.derive(salt, &[b"blob"]).cipher().open([0; 12], context, &mut bytes)?;
        Ok(bytes)
    }
}

/// A key that is ready to work. Each nonce may be used once with a key.
pub struct Cipher(LessSafeKey);

impl Cipher {
    /// Encrypts in place and appends the tag.
    pub fn seal(&self, nonce: [u8; 12], context: &[u8], bytes: &mut Vec<u8>) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(nonce, Aad::from(context), bytes);
        sealed.expect("a piece is far below the 64 GiB that one nonce takes");
    }

    /// Decrypts in place and removes the tag.
    ///
    /// # Errors
    /// When the bytes are not what was sealed so; they are of no use then.
    pub fn open(&self, nonce: [u8; 12], context: &[u8], bytes: &mut Vec<u8>) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(context), bytes).map_err(|_| NotAuthentic)?;
        let length = plain.len();
        bytes.truncate(length);
        Ok(())
    }
}

/// An encryption context as bytes: the same for the same pairs, and for no others.
pub fn context_bytes(context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in context.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_opens_with_its_key_and_context_only() {
        let key = SecretKey::random();
        let blob = key.seal(b"context", b"plain");
        assert_eq!(key.open(b"context", &blob).unwrap(), b"plain");
        assert_ne!(key.seal(b"context", b"plain"), blob, "each blob has a salt of its own");
        assert_eq!(key.open(b"other", &blob), Err(NotAuthentic));
        assert_eq!(SecretKey::random().open(b"context", &blob), Err(NotAuthentic));
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"context", &changed), Err(NotAuthentic), "byte {at}");
            assert_eq!(key.open(b"context", &blob[..at]), Err(NotAuthentic), "{at} bytes");
        }
    }

    #[test]
    fn the_cipher_is_aes_256_in_galois_counter_mode() {
        // Test case 14 of the specification of GCM: a block of zeros under a key and nonce of zeros.
        let mut bytes = vec![0; 16];
        SecretKey::from_bytes(&[0; 32]).unwrap().cipher().seal([0; 12], b"", &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn contexts_differ_where_their_pairs_do() {
        let of = |pairs: &[(&str, &str)]| {
            context_bytes(&pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        assert_ne!(of(&[("a", "1b")]), of(&[("a1", "b")]));
        assert_ne!(of(&[("a", "")]), of(&[]));
    }

    #[test]
    fn a_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", SecretKey::random()), "SecretKey(..)");
    }
}
