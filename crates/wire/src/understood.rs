//! Calls that were understood before. The requests of a client to an endpoint have heads that differ only in what signs them: what the
//! others said need not be taken apart and checked again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use api::model::Location;
use arc_swap::ArcSwapOption;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::dispatch::Call;
use crate::protocol;

/// Heads that are kept. Two that want the same place take turns.
const PLACES: usize = 256;

/// Longer heads are not kept.
const MOST_KEPT_BYTES: usize = 4096;

/// Where heads come that are never the same again, one of so many is kept: keeping costs more than reading.
const KEPT_OF_MISSED: u32 = 16;

/// What was understood lately, for raw operations, whose bodies are no part of it. Only a head that says the same in every part is the
/// same, but for the values of headers that are no members of the input.
pub struct Understood {
    places: Box<[Place]>,
}

#[derive(Default)]
struct Place {
    kept: ArcSwapOption<Kept>,
    missed: AtomicU32,
}

/// A head, and what it says.
struct Kept {
    signing_name: String,
    method: Method,
    path: String,
    /// All headers in their order, with the values of those that are members of the input.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    call: Call,
    input: Arc<Value>,
}

impl Default for Understood {
    fn default() -> Self {
        Understood { places: (0..PLACES).map(|_| Place::default()).collect() }
    }
}

impl Kept {
    fn is_of(&self, signing_name: &str, parts: &Parts) -> bool {
        self.path == parts.uri.path()
            && self.signing_name == signing_name
            && self.method == parts.method
            && self.headers.len() == parts.headers.len()
            && self.headers.iter().zip(&parts.headers).all(|((name, value), (given, with))| {
                name == given && value.as_ref().is_none_or(|value| value == with)
            })
    }
}

impl Understood {
    /// The call and the checked input of a request without a query, if its like was kept.
    pub(crate) fn find(&self, signing_name: &str, parts: &Parts) -> Option<(Call, Arc<Value>)> {
        let kept = self.place(parts).kept.load();
        let kept =
            kept.as_ref().filter(|kept| parts.uri.query().is_none() && kept.is_of(signing_name, parts))?;
        Some((kept.call.clone(), Arc::clone(&kept.input)))
    }

    /// Keeps what a request says whose input was found to be good.
    pub(crate) fn keep(&self, signing_name: &str, parts: &Parts, call: &Call, input: &Arc<Value>) {
        let place = self.place(parts);
        let members = protocol::input_structure(call.service, call.operation).members;
        let takes_any = members.iter().any(|member| member.location == Location::Headers);
        let bytes = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        if parts.uri.query().is_some() || takes_any || bytes.sum::<usize>() > MOST_KEPT_BYTES {
            return;
        }
        if !place.missed.fetch_add(1, Relaxed).is_multiple_of(KEPT_OF_MISSED) {
            return;
        }
        let is_member = |name: &HeaderName| {
            let of_header = members.iter().filter(|member| member.location == Location::Header);
            of_header.into_iter().any(|member| name.as_str().eq_ignore_ascii_case(member.wire_name))
        };
        // Copies, since those of a request hold on to all that was read with them.
        let copied = |(name, value): (&HeaderName, &HeaderValue)| {
            let value =
                is_member(name).then(|| HeaderValue::from_bytes(value.as_bytes())).transpose().ok()?;
            Some((HeaderName::from_bytes(name.as_str().as_bytes()).ok()?, value))
        };
        let Some(headers) = parts.headers.iter().map(copied).collect() else { return };
        place.kept.store(Some(Arc::new(Kept {
            signing_name: signing_name.to_owned(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            headers,
            call: call.clone(),
            input: Arc::clone(input),
        })));
    }

    fn place(&self, parts: &Parts) -> &Place {
        let mut hasher = DefaultHasher::new();
        parts.uri.path().hash(&mut hasher);
        &self.places[(hasher.finish() % PLACES as u64) as usize]
    }
}
