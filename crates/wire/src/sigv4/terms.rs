//! What the signatures of one key for one service have in common all day, and the memory of those that were read lately.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderName;

use super::claim::Problem;
use super::{ALGORITHM, TERMINATOR};

/// Heads of `Authorization` that each thread keeps. Two that want the same place take turns.
const PLACES: usize = 64;

/// Longer heads are not kept.
const MOST_KEPT_BYTES: usize = 1024;

/// Where the key stands in a head, beside which those of different clients differ little.
const KEY_AT: std::ops::Range<usize> = 0..64;

/// What the last part of an `Authorization` begins with, as clients write it.
const LAST_PART: &str = "Signature=";

/// Who signs for what: all that a signature names beside its moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// The key that signed.
    pub access_key_id: String,
    /// Region of the scope.
    pub region: String,
    /// Signing name of the scope.
    pub service: String,
    /// Date of the scope.
    pub(super) date: String,
    /// Headers that the signature covers.
    pub(super) signed: SignedHeaders,
}

/// The headers that a signature covers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedHeaders {
    /// In order, with semicolons between.
    pub(super) text: String,
    /// The same, ready to be looked up.
    pub(super) names: Vec<HeaderName>,
}

impl SignedHeaders {
    /// Of names in any order, each once.
    pub(super) fn of(mut names: Vec<HeaderName>) -> SignedHeaders {
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        let text = names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(";");
        SignedHeaders { text, names }
    }

    /// Reads them as requests list them; `None` when they are no lower-case names in order, each once.
    fn parse(text: &str) -> Option<SignedHeaders> {
        let listed = text.split(';');
        if has_uppercase(text) || !listed.clone().is_sorted_by(|one, other| one < other) {
            return None;
        }
        let names =
            listed.map(|name| HeaderName::from_bytes(name.as_bytes())).collect::<Result<_, _>>().ok()?;
        Some(SignedHeaders { text: text.to_owned(), names })
    }
}

impl Terms {
    /// Reads a credential and the names of the signed headers.
    pub(crate) fn of(credential: &str, signed_headers: &str) -> Result<Terms, Problem> {
        let bad_credential =
            || incomplete(format!("The credential must look like KEY/20260131/REGION/SERVICE/{TERMINATOR}."));
        let mut parts = credential.rsplitn(5, '/');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or_else(bad_credential);
        let (terminator, service, region, date, access_key_id) =
            (next()?, next()?, next()?, next()?, next()?);
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if terminator != TERMINATOR || !plain(service) || !plain(region) || access_key_id.contains('/') {
            return Err(bad_credential());
        }
        let signed = SignedHeaders::parse(signed_headers).ok_or_else(|| {
            incomplete("The signed headers must be lower-case names in order, each once.".into())
        })?;
        Ok(Terms {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            date: date.to_owned(),
            signed,
        })
    }
}

struct Kept {
    head: String,
    terms: Arc<Terms>,
}

thread_local! {
    // Of each thread, so that nobody waits for a lock. Terms follow from their head alone: nothing here can be out of date.
    static KEPT: RefCell<[Option<Kept>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// The terms and the signature of an `Authorization` header.
pub(super) fn of_header(value: &str) -> Result<(Arc<Terms>, &str), Problem> {
    // Clients write the signature last, and nothing before it changes from one request to the next.
    let split = value.rfind(LAST_PART).map(|at| value.split_at(at + LAST_PART.len()));
    let Some((head, signature)) = split.filter(|(head, signature)| {
        head.len() <= MOST_KEPT_BYTES && signature.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }) else {
        let (terms, signature) = parsed(value)?;
        return Ok((Arc::new(terms), signature));
    };
    KEPT.with_borrow_mut(|kept| {
        let kept = &mut kept[place(head)];
        if let Some(known) = kept.as_ref().filter(|known| known.head == head) {
            return Ok((Arc::clone(&known.terms), signature));
        }
        let (terms, found) = parsed(value)?;
        let terms = Arc::new(terms);
        // The same text elsewhere than at the end was not the signature.
        if std::ptr::eq(found, signature) {
            *kept = Some(Kept { head: head.to_owned(), terms: Arc::clone(&terms) });
        }
        Ok((terms, found))
    })
}

fn place(head: &str) -> usize {
    let key = &head.as_bytes()[KEY_AT.start..KEY_AT.end.min(head.len())];
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % PLACES as u64) as usize
}

/// Reads a whole header.
fn parsed(value: &str) -> Result<(Terms, &str), Problem> {
    let rest =
        value.strip_prefix(ALGORITHM).filter(|rest| rest.starts_with([' ', ','])).ok_or_else(|| {
            let name = value.split([' ', ',']).next().unwrap_or_default();
            incomplete(format!("The Authorization header names {name:?}; only {ALGORITHM} is supported."))
        })?;
    let mut fields: [Option<&str>; 3] = [None; 3];
    for part in pieces(rest).filter(|part| !part.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| incomplete(format!("{part:?} in the Authorization header has no value.")))?;
        let at = match name {
            "Credential" => 0,
            "SignedHeaders" => 1,
            "Signature" => 2,
            _ => {
                return Err(incomplete(format!("The Authorization header has an unknown part {name:?}.")));
            }
        };
        if fields[at].replace(value).is_some() {
            return Err(incomplete(format!("The Authorization header has {name} twice.")));
        }
    }
    let field = |at: usize, name: &str| {
        fields[at].ok_or_else(|| incomplete(format!("Authorization header requires '{name}' parameter.")))
    };
    let (credential, signed, signature) =
        (field(0, "Credential")?, field(1, "SignedHeaders")?, field(2, "Signature")?);
    Ok((Terms::of(credential, signed)?, signature))
}

/// What stands between commas and spaces.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    memchr::memchr2_iter(b',', b' ', text.as_bytes()).chain(std::iter::once(text.len())).map(move |end| {
        let piece = &text[start..end];
        start = end + 1;
        piece
    })
}

pub(super) fn has_uppercase(text: &str) -> bool {
    // Without an early end, so that many bytes are looked at in one step.
    text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase())
}

pub(super) fn incomplete(text: String) -> Problem {
    Problem::Incomplete(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &str, headers: &str, last: &str) -> String {
        format!("{ALGORITHM} Credential={key}/20260131/r/s3/aws4_request, SignedHeaders={headers}, {last}")
    }

    #[test]
    fn a_kept_head_says_what_it_said_and_nothing_else() {
        // More than there are places, each twice: some find their own, others find another's.
        for _ in 0..2 {
            for number in 0..3 * PLACES {
                let (key, headers) = (format!("KEY{number}"), format!("host;x-{number:03}"));
                for signature in ["00ff", "1"] {
                    let value = header(&key, &headers, &format!("Signature={signature}"));
                    let (terms, found) = of_header(&value).unwrap();
                    assert_eq!(
                        (&*terms.access_key_id, &*terms.signed.text, found),
                        (&*key, &*headers, signature)
                    );
                    assert_eq!((&parsed(&value).unwrap().0, parsed(&value).unwrap().1), (&*terms, found));
                }
            }
        }
    }

    #[test]
    fn only_a_signature_at_the_end_makes_a_head() {
        let value = header("Signature=KEY", "host", "Signature=ab");
        assert_eq!(of_header(&value).unwrap().0.access_key_id, "Signature=KEY");
        // Here the last such text is in the credential, and the signature comes first.
        let first = format!(
            "{ALGORITHM} Signature=ab, SignedHeaders=host, Credential=K/20260131/r/s3/Signature=aws4"
        );
        let wrong = format!("{ALGORITHM} SignedHeaders=host, Credential=Signature=aws4");
        for value in [first, wrong] {
            let expected = parsed(&value).err();
            assert!(expected.is_some());
            assert_eq!(of_header(&value).err(), expected, "{value}");
            assert_eq!(of_header(&value).err(), expected, "{value}");
        }
        for last in ["Signature=ab, Signature=cd", "Signature=ab SignedHeaders=host", "Signature=a,b"] {
            assert!(of_header(&header("K", "host", last)).is_err(), "{last}");
        }
        let first =
            format!("{ALGORITHM} Signature=ab, SignedHeaders=host, Credential=K/20260131/r/s3/aws4_request");
        assert_eq!(of_header(&first).unwrap().1, "ab");
    }
}
