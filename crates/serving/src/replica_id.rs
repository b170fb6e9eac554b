//! Names of replicas: they tell endpoint, variant, generation and position, so that a restarted server finds its own.

use sha2::{Digest, Sha256};

/// What the names of an endpoint's replicas begin with, whatever their variant and generation.
pub(crate) fn endpoint_prefix(endpoint: &str) -> String {
    let name = endpoint.rsplit('/').next().unwrap_or(endpoint);
    // The readable part is for people who look at a process list; the digest is what makes the name unique.
    let readable: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("ep-{readable}-{}-", digest(endpoint, 6))
}

/// What the names of all attempts at one place in a fleet begin with.
pub(crate) fn place_prefix(endpoint: &str, variant: &str, generation: u64, index: u32) -> String {
    format!("{}{}-g{generation}-{index}-", endpoint_prefix(endpoint), digest(variant, 4))
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
        let id = new_attempt(&place_prefix(&long, "AllTraffic", u64::MAX, u32::MAX));
        assert!(id.len() <= 128, "{id}");
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{id}");
        assert!(id.starts_with(&endpoint_prefix(&long)));
        assert_ne!(endpoint_prefix("1/r/a"), endpoint_prefix("2/r/a"));
        assert_ne!(place_prefix("1/r/a", "v", 1, 1), place_prefix("1/r/a", "w", 1, 1));
        // Position 1 must not be taken for position 11.
        assert!(!place_prefix("1/r/a", "v", 1, 11).starts_with(&place_prefix("1/r/a", "v", 1, 1)));
    }
}
