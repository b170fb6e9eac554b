//! Manifest files: a JSON list of a prefix and the paths below it, `[{"prefix": "s3://bucket/folder/"}, "a", "b/c"]`.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::uri::split_uri;

/// The largest manifest.
pub(super) const MAX_BYTES: u64 = 128 << 20;

/// The most objects that a manifest names.
pub(super) const MAX_ENTRIES: usize = 1_000_000;

/// What a manifest says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Bucket of all objects.
    pub bucket: String,
    /// Beginning of their keys.
    pub prefix: String,
    /// The rest of their keys, each once, in order.
    pub paths: Vec<String>,
}

/// Reads a manifest. The error is the end of a sentence for the user.
pub(super) fn parse(text: &[u8]) -> Result<Manifest, String> {
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} MiB; split it over several channels.", MAX_BYTES >> 20));
    }
    let Entries { prefix, paths } = serde_json::from_slice(text).map_err(|error| {
        format!(
            "{error}; it must be a JSON list such as [{{\"prefix\": \"s3://bucket/folder/\"}}, \"a.csv\"]."
        )
    })?;
    let (bucket, prefix) = split_uri(&prefix)
        .ok_or_else(|| format!("its prefix {prefix:?} is not an S3 URI such as s3://bucket/folder/."))?;
    Ok(Manifest { bucket: bucket.to_owned(), prefix: prefix.to_owned(), paths })
}

struct Entries {
    prefix: String,
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct Prefix {
    prefix: String,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

/// Takes the list element by element: a general value of a hostile text would be many times its size.
struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list that begins with {\"prefix\": ...}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Entries, A::Error> {
        let Prefix { prefix } =
            elements.next_element()?.ok_or_else(|| A::Error::custom("the list is empty"))?;
        let (mut paths, mut seen) = (Vec::new(), HashSet::new());
        while let Some(path) = elements.next_element::<String>()? {
            if paths.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format!("the list has more than {MAX_ENTRIES} objects")));
            }
            if seen.insert(path.clone()) {
                paths.push(path);
            }
        }
        Ok(Entries { prefix, paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_a_prefix_and_paths() {
        let text = br#"[{"prefix": "s3://bucket/some/"}, "a.csv", "b/c.csv", "a.csv"]"#;
        let expected = Manifest {
            bucket: "bucket".into(),
            prefix: "some/".into(),
            paths: vec!["a.csv".into(), "b/c.csv".into()],
        };
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(br#"[{"prefix": "s3://bucket"}]"#).map(|manifest| manifest.paths), Ok(vec![]));
    }

    #[test]
    fn other_texts_are_refused_in_bounded_time_and_memory() {
        let deep = "[".repeat(1 << 20);
        let deep_prefix = format!("[{{\"x\": {}", "[".repeat(1 << 20));
        let mut many = String::from(r#"[{"prefix": "s3://b/"}"#);
        for number in 0..=MAX_ENTRIES {
            many.push_str(&format!(",\"{number}\""));
        }
        many.push(']');
        for (text, expected) in [
            ("", "EOF"),
            ("not json", "line 1"),
            ("[]", "empty"),
            ("{}", "list"),
            (r#"["s3://b/a"]"#, "prefix"),
            (r#"[{"prefix": "s3://b/"}, {"deep": 1}]"#, "string"),
            (r#"[{"prefix": "https://b/"}, "a"]"#, "not an S3 URI"),
            (r#"[{"prefix": 7}, "a"]"#, "string"),
            (&deep, "line 1"),
            (&deep_prefix, "EOF"),
            (&many, "more than 1000000"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
        assert!(parse(&vec![b' '; MAX_BYTES as usize + 1]).unwrap_err().contains("larger than"));
    }
}
