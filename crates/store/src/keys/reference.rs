//! How callers name a key.

/// The name of a key: its id, or an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyReference {
    /// By its id.
    Id(String),
    /// By an alias, which begins with `alias/`.
    Alias(String),
}

impl KeyReference {
    /// A reference from an id, an alias, or the ARN of either. The second value is region and account of an ARN.
    /// `None` when the text looks like an ARN and is none of a key or alias.
    pub fn parse(text: &str) -> Option<(KeyReference, Option<(String, String)>)> {
        let named = |name: &str| match name.strip_prefix("key/") {
            Some(id) => KeyReference::Id(id.to_owned()),
            None => KeyReference::Alias(name.to_owned()),
        };
        if !text.starts_with("arn:") {
            let alias = text.starts_with("alias/");
            let reference =
                if alias { KeyReference::Alias(text.into()) } else { KeyReference::Id(text.into()) };
            return Some((reference, None));
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [_, _, "kms", region, account, name] = parts[..] else { return None };
        let is_known = name.starts_with("key/") || name.starts_with("alias/");
        is_known.then(|| (named(name), Some((region.to_owned(), account.to_owned()))))
    }

    /// As the caller wrote it, without ARN.
    pub fn text(&self) -> &str {
        match self {
            KeyReference::Id(text) | KeyReference::Alias(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_in_four_ways() {
        let of = |region: &str| Some((region.to_owned(), "111111111111".to_owned()));
        let id = || KeyReference::Id("k".into());
        let alias = || KeyReference::Alias("alias/a".into());
        assert_eq!(KeyReference::parse("k"), Some((id(), None)));
        assert_eq!(KeyReference::parse("alias/a"), Some((alias(), None)));
        assert_eq!(KeyReference::parse("arn:aws:kms:r:111111111111:key/k"), Some((id(), of("r"))));
        assert_eq!(KeyReference::parse("arn:aws:kms:r:111111111111:alias/a"), Some((alias(), of("r"))));
        for other in ["arn:aws:s3:::bucket", "arn:aws:kms:r:111111111111:k", "arn:"] {
            assert_eq!(KeyReference::parse(other), None, "{other}");
        }
    }
}
