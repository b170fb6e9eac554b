//! Which keys and bucket names are legal, and where an object's file lies.

use std::path::PathBuf;

/// Longest key, in bytes, as in S3.
pub const LONGEST_KEY_BYTES: usize = 1024;

/// Longest escaped path component; file systems allow 255 bytes, and a version follows the last one.
const LONGEST_COMPONENT_BYTES: usize = 180;

/// Most nested folders of an object's file. What lies deeper shares the last component: each folder costs a write to the disk.
const MOST_FOLDERS: usize = 32;

/// Whether a bucket may have this name: the rules of S3, which also make it a safe folder name.
pub fn is_bucket_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| edge(*byte) || matches!(byte, b'-' | b'.'))
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// The relative path of one version of an object: the key, readable, each part escaped one to one; `@VERSION` ends the name
/// of a file and of no folder, so that `a` and `a/b` live side by side.
pub fn object_path(key: &str, version: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let parts: Vec<&str> = key.splitn(MOST_FOLDERS + 1, '/').collect();
    let (last, folders) = parts.split_last().unwrap_or((&"", &[]));
    for folder in folders {
        path.push(component(folder));
    }
    path.push(format!("{}@{version}", component(last)));
    path
}

fn component(part: &str) -> String {
    // No part of a key escapes to a lone `%`, so that these cannot collide with others.
    match part {
        "" => return "%".into(),
        "." => return "%2E".into(),
        ".." => return "%2E%2E".into(),
        _ => {}
    }
    let mut escaped = String::with_capacity(part.len());
    for (at, character) in part.char_indices() {
        let hidden = at == 0 && character == '.';
        if hidden || character.is_control() || matches!(character, '%' | '@' | '\\' | '/') {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(character);
        }
    }
    if escaped.len() <= LONGEST_COMPONENT_BYTES {
        return escaped;
    }
    let mut end = LONGEST_COMPONENT_BYTES - 40;
    while !escaped.is_char_boundary(end) {
        end -= 1;
    }
    // A digest keeps long parts apart that begin alike; `%~` is no escape.
    format!("{}%~{}", &escaped[..end], super::hex(&super::md5_of(part.as_bytes())))
}

/// The least byte string above all that begin with `prefix`; `None` when there is none.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bound = prefix.to_vec();
    while let Some(last) = bound.pop() {
        if last < 0xFF {
            bound.push(last + 1);
            return Some(bound);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::path::Component;

    #[test]
    fn bucket_names_follow_the_rules() {
        for name in ["abc", "sagemaker-us-east-1-123456789012", "a.b-c"] {
            assert!(is_bucket_name(name), "{name}");
        }
        for name in ["ab", "Abc", "-abc", "abc-", "a..b", "a/b", "..", "192.168.1.1", "a_b", ""] {
            assert!(!is_bucket_name(name), "{name}");
        }
    }

    #[test]
    fn no_key_escapes_and_none_collides() {
        let long = "x".repeat(600);
        let longer = format!("{long}y");
        let (deep, deeper) = ("d/".repeat(300), "d/".repeat(301));
        let keys = [
            "a",
            "a/",
            "a//b",
            "a/b",
            "/a",
            "//",
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "%2E",
            "%",
            "a@b",
            "a%40b",
            ".hidden",
            "nul\0",
            "tab\t",
            "ü/🦀",
            "back\\slash",
            &long,
            &longer,
            &deep,
            &deeper,
            &deep.replace('/', "%2F"),
        ];
        let mut seen = HashSet::new();
        for key in keys {
            let path = object_path(key, "v");
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{key:?}: {path:?}");
            assert!(path.components().all(|part| part.as_os_str().len() <= 200), "{key:?}");
            assert!(path.components().count() <= MOST_FOLDERS + 1, "{key:?}");
            assert!(seen.insert(path.clone()), "{key:?} collides: {path:?}");
        }
    }

    #[test]
    fn successors_bound_prefixes() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xFF"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xFF"), None);
    }
}
