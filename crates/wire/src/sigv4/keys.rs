//! Signing keys that were derived lately. Deriving one takes four HMACs, and a client uses the same one all day.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Scope, TERMINATOR, hmac};

/// Keys that each thread keeps. Two that want the same place take turns.
const PLACES: usize = 64;

/// A key ready to sign, with what it was derived from.
struct Derived {
    secret_access_key: String,
    date: String,
    region: String,
    service: String,
    mac: Hmac<Sha256>,
}

impl Derived {
    fn of(secret_access_key: &str, scope: &Scope<'_>) -> Derived {
        let date_key = hmac(format!("AWS4{secret_access_key}").as_bytes(), scope.date.as_bytes());
        let region_key = hmac(&date_key, scope.region.as_bytes());
        let service_key = hmac(&region_key, scope.service.as_bytes());
        let signing_key = hmac(&service_key, TERMINATOR.as_bytes());
        Derived {
            secret_access_key: secret_access_key.to_owned(),
            date: scope.date.to_owned(),
            region: scope.region.to_owned(),
            service: scope.service.to_owned(),
            mac: Hmac::new_from_slice(&signing_key).expect("HMAC takes keys of any length"),
        }
    }

    fn is_of(&self, secret_access_key: &str, scope: &Scope<'_>) -> bool {
        self.secret_access_key == secret_access_key
            && self.date == scope.date
            && self.region == scope.region
            && self.service == scope.service
    }
}

thread_local! {
    // Of each thread, so that nobody waits for a lock. A key follows from its inputs alone: nothing here can be out of date, and whether
    // the secret is still good is asked for each request before.
    static DERIVED: RefCell<[Option<Box<Derived>>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// Signs a message that comes in pieces with the key of a secret and a scope.
pub(super) fn sign<'a>(
    secret_access_key: &str,
    scope: &Scope<'_>,
    message: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; 32] {
    let mut hasher = DefaultHasher::new();
    (secret_access_key, scope.date, scope.region, scope.service).hash(&mut hasher);
    let place = (hasher.finish() % PLACES as u64) as usize;
    DERIVED.with_borrow_mut(|derived| {
        let kept = &mut derived[place];
        let key = match kept {
            Some(key) if key.is_of(secret_access_key, scope) => key,
            _ => kept.insert(Box::new(Derived::of(secret_access_key, scope))),
        };
        let mut mac = key.mac.clone();
        message.into_iter().for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The derivation as the documents of the service write it, without a memory.
    fn derived(secret: &str, scope: &Scope<'_>, message: &[u8]) -> [u8; 32] {
        let date = hmac(format!("AWS4{secret}").as_bytes(), scope.date.as_bytes());
        let region = hmac(&date, scope.region.as_bytes());
        let service = hmac(&region, scope.service.as_bytes());
        hmac(&hmac(&service, TERMINATOR.as_bytes()), message)
    }

    #[test]
    fn a_kept_key_signs_as_a_new_one_and_only_for_its_own_scope() {
        // More scopes than places, each twice: some find their key, others find another's.
        for _ in 0..2 {
            for number in 0..3 * PLACES {
                let secret = format!("secret-{}", number % 7);
                let (region, date) = (format!("region-{number}"), format!("202601{:02}", number % 28));
                let scope = Scope { date: &date, region: &region, service: "sagemaker" };
                let message = number.to_be_bytes();
                let sign = |scope: &Scope<'_>| sign(&secret, scope, [&message[..1], &message[1..]]);
                assert_eq!(sign(&scope), derived(&secret, &scope, &message), "{number}");
                assert_eq!(sign(&scope), derived(&secret, &scope, &message), "{number}");
                let other = Scope { service: "s3", ..scope };
                assert_eq!(sign(&other), derived(&secret, &other, &message), "{number}");
            }
        }
    }
}
