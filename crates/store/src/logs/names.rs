//! File names of log groups and streams: any name maps to one safe file name, and no two names to the same.

use sha2::{Digest, Sha256};

/// Longest escaped name that is used as it is; common file systems allow 255 bytes, and a suffix is added.
const MOST_ESCAPED_BYTES: usize = 200;

/// The file name (without suffix) for a group, stream, account or region name.
///
/// Letters, digits, `-`, `_` and inner dots stay; every other byte becomes `%XX`. A longer name becomes `~` and its SHA-256: `~`
/// itself is always escaped, so that the two forms never meet.
pub fn file_name(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len() + 16);
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0);
        if plain {
            escaped.push(char::from(byte));
        } else {
            push_hex(&mut escaped, "%", byte);
        }
    }
    if escaped.len() <= MOST_ESCAPED_BYTES {
        return escaped;
    }
    let mut hashed = String::from("~");
    for byte in Sha256::digest(name.as_bytes()) {
        push_hex(&mut hashed, "", byte);
    }
    hashed
}

fn push_hex(text: &mut String, before: &str, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push_str(before);
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The least string that is greater than every string with this prefix; `None` where there is no bound.
pub fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            char::MAX => None,
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn file_names_are_safe_and_distinct() {
        let long = "é".repeat(300);
        let longer = format!("{long}x");
        let names = [
            "/aws/sagemaker/TrainingJobs",
            "%2Faws",
            "/aws",
            "",
            ".",
            "..",
            "a/../b",
            "a%2Fb",
            "a/b",
            "a\0b",
            "~x",
            "x.y",
            "job/algo-1-1700000000",
            "[$LATEST]é",
            &long,
            &longer,
        ];
        let files: HashSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            assert!(file.len() <= MOST_ESCAPED_BYTES, "{file}");
            assert!(!file.starts_with('.') && !file.contains(['/', '\0']), "{file}");
        }
        assert_eq!(file_name("/aws/sagemaker/TrainingJobs"), "%2Faws%2Fsagemaker%2FTrainingJobs");
    }

    #[test]
    fn a_prefix_has_a_tight_upper_bound() {
        assert_eq!(after_prefix("job/").as_deref(), Some("job0"));
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(after_prefix("\u{10FFFF}"), None);
        assert_eq!(after_prefix(""), None);
    }
}
