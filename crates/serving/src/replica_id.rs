//! Names of replicas: they tell endpoint, variant, generation and position, so that a restarted server finds its own.

use sha2::{Digest, Sha256};

/// What the names of an endpoint's replicas begin with, whatever their variant and generation; `kind` is the data plane's own word.
pub(crate) fn endpoint_prefix(kind: &str, endpoint: &str) -> String {
    let name = endpoint.rsplit('/').next().unwrap_or(endpoint);
    // The readable part is for people who look at a process list; the digest is what makes the name unique.
    let readable: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("{kind}-{readable}-{}-", digest(endpoint, 6))
}

/// What the names of all replicas of a variant begin with, up to the dash before the generation.
pub(crate) fn variant_prefix(kind: &str, endpoint: &str, variant: &str) -> String {
    format!("{}{}", endpoint_prefix(kind, endpoint), digest(variant, 4))
}

/// The part of a replica's name that [`variant_prefix`] makes.
pub(crate) fn variant_part(id: &str) -> Option<&str> {
    let mut parts = id.rsplitn(4, '-');
    let (_attempt, _index, _generation) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()
}

/// What the names of all attempts at one place in a fleet begin with.
pub(crate) fn place_prefix(kind: &str, endpoint: &str, variant: &str, generation: u64, index: u32) -> String {
    format!("{}-g{generation}-{index}-", variant_prefix(kind, endpoint, variant))
}

/// The same for one of several containers at that place.
pub(crate) fn part_prefix(place_prefix: &str, part: u32) -> String {
    format!("{place_prefix}c{part}x")
}

/// The running attempts at a place, by the part of the replica that they run.
pub(crate) fn running_parts(running: &[String], place_prefix: &str, parts: usize) -> Vec<Option<String>> {
    let prefixes = (0..parts as u32).map(|part| match parts {
        1 => place_prefix.to_owned(),
        _ => part_prefix(place_prefix, part),
    });
    prefixes.map(|prefix| running.iter().find(|id| id.starts_with(&prefix)).cloned()).collect()
}

/// A fresh name for an attempt to run a replica at that place.
pub(crate) fn new_attempt(place_prefix: &str) -> String {
    format!("{place_prefix}{:08x}", rand::random::<u32>())
}

fn digest(text: &str, bytes: usize) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_workload_name_and_tell_places_apart() {
        let long = format!("123456789012/us-east-1/{}", "n".repeat(63));
        let id = new_attempt(&place_prefix("ep", &long, "AllTraffic", u64::MAX, u32::MAX));
        assert!(id.len() <= 128, "{id}");
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{id}");
        assert!(id.starts_with(&endpoint_prefix("ep", &long)));
        assert_ne!(endpoint_prefix("ep", "1/r/a"), endpoint_prefix("ep", "2/r/a"));
        assert_ne!(place_prefix("ep", "1/r/a", "v", 1, 1), place_prefix("ep", "1/r/a", "w", 1, 1));
        assert_eq!(variant_part(&id), Some(&*variant_prefix("ep", &long, "AllTraffic")));
        assert_eq!(variant_part("none"), None);
        let place = place_prefix("ep", &long, "AllTraffic", 1, 2);
        let part = new_attempt(&part_prefix(&place, 1));
        assert_eq!(variant_part(&part), Some(&*variant_prefix("ep", &long, "AllTraffic")));
        assert!(part.starts_with(&place) && !part.starts_with(&part_prefix(&place, 11)));
        // Position 1 must not be taken for position 11.
        assert!(
            !place_prefix("ep", "1/r/a", "v", 1, 11).starts_with(&place_prefix("ep", "1/r/a", "v", 1, 1))
        );
    }
}
