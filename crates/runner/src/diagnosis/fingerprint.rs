//! A short name for a cause, the same whenever the same thing went wrong.

use sha2::{Digest, Sha256};

use super::Cause;

/// Longest part that counts, in characters: the end of a long message is data, not cause.
const PART_CHARACTERS: usize = 200;

/// Sixteen hexadecimal digits over the cause and what tells its instances apart.
pub fn fingerprint(cause: Cause, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update(cause.word());
    for part in parts {
        hash.update([0]);
        hash.update(normalized(part));
    }
    hex::encode(&hash.finalize()[..8])
}

/// A text without what changes from run to run: numbers, hexadecimal ids, random parts of temporary paths.
pub fn normalized(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for character in text.chars().take(PART_CHARACTERS).chain(['\n']) {
        if character.is_alphanumeric() || matches!(character, '_' | '-') {
            word.push(character);
            continue;
        }
        push_word(&mut out, &word);
        word.clear();
        if !character.is_whitespace() {
            out.push(character);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.trim().to_owned()
}

fn push_word(out: &mut String, word: &str) {
    let after_temporary = ["/tmp/", "/var/tmp/", "/dev/shm/"].iter().any(|place| out.ends_with(place));
    if (after_temporary || is_id(word)) && !word.is_empty() {
        out.push('*');
        return;
    }
    let mut in_number = false;
    for character in word.chars() {
        if !character.is_ascii_digit() {
            out.push(character);
        } else if !in_number {
            out.push('0');
        }
        in_number = character.is_ascii_digit();
    }
}

/// Addresses, hashes and UUIDs: long, hexadecimal, with digits.
fn is_id(word: &str) -> bool {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    let hexadecimal = digits.chars().all(|character| character.is_ascii_hexdigit() || character == '-');
    hexadecimal
        && digits.chars().any(|character| character.is_ascii_digit())
        && (digits.len() >= 8 || digits != word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_from_run_to_run_does_not_count() {
        let pairs = [
            ("batch 17 of 300 failed", "batch 4 of 20 failed"),
            ("<Tensor at 0x7f33aa10>", "<Tensor at 0x7f00bb20>"),
            ("/tmp/tmpab12x/file.csv is bad", "/tmp/tmpzz99/file.csv is bad"),
            ("id 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "id 9e107d9d-3720-11d3-aaaa-b0305e82c330"),
            ("loss  is\tnan", "loss is nan"),
        ];
        for (left, right) in pairs {
            assert_eq!(normalized(left), normalized(right));
            assert_eq!(fingerprint(Cause::Exit, &[left]), fingerprint(Cause::Exit, &[right]));
        }
    }

    #[test]
    fn what_tells_causes_apart_counts() {
        let one = fingerprint(Cause::Exception, &["KeyError", "'label'"]);
        assert_eq!(one.len(), 16);
        assert_ne!(one, fingerprint(Cause::Exception, &["KeyError", "'target'"]));
        assert_ne!(one, fingerprint(Cause::Exit, &["KeyError", "'label'"]));
        assert_ne!(fingerprint(Cause::Exit, &["ab", "c"]), fingerprint(Cause::Exit, &["a", "bc"]));
        assert_eq!(normalized("deadbeef is a word, cafe too"), "deadbeef is a word, cafe too");
    }
}
