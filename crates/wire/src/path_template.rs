//! URI templates of REST operations, for example `/endpoints/{EndpointName}/invocations` or `/files/{Key+}?acl`.

use std::collections::BTreeMap;

use crate::form;

/// How specific each segment of a matching template is, the more specific the smaller; literal query parts count last.
type Rank = (Vec<u8>, std::cmp::Reverse<usize>);

/// A template that fits a request.
pub(crate) struct Fit {
    /// Decoded labels.
    pub(crate) labels: BTreeMap<&'static str, String>,
    /// Orders the templates that fit: the least is the best.
    pub(crate) rank: Rank,
}

/// The segments of a path as they are signed: empty ones do not count.
///
/// `None` when there are dot segments, which no operation has and which could make a path mean two things.
pub(crate) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_dot = |segment: &&str| {
        // Only what is this short can be one, so that other segments cost nothing.
        segment.len() <= "%2e%2e".len()
            && matches!(segment.replace("%2e", ".").replace("%2E", ".").as_str(), "." | "..")
    };
    (!segments.iter().any(is_dot)).then_some(segments)
}

/// Matches a template against the segments and the raw query of a request.
pub(crate) fn fit(template: &'static str, segments: &[&str], query: &[(String, String)]) -> Option<Fit> {
    let (path, literals) = template.split_once('?').unwrap_or((template, ""));
    // Most templates are told apart by their first segment.
    let literal = path.split('/').find(|part| !part.is_empty()).filter(|part| !part.starts_with('{'));
    if let (Some(literal), Some(first)) = (literal, segments.first())
        && !first.contains('%')
        && literal != *first
    {
        return None;
    }
    let literals: Vec<(&str, Option<&str>)> = literals
        .split('&')
        .filter(|literal| !literal.is_empty())
        .map(|literal| literal.split_once('=').map_or((literal, None), |(name, value)| (name, Some(value))))
        .collect();
    let present = |(name, value): &(&str, Option<&str>)| {
        query.iter().any(|(given, with)| given == name && value.is_none_or(|value| with == value))
    };
    if !literals.iter().all(present) {
        return None;
    }
    let mut labels = BTreeMap::new();
    let mut kinds = Vec::new();
    let mut rest = segments;
    let mut wanted = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    while let Some(part) = wanted.next() {
        let label = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        match label {
            None => {
                let (first, others) = rest.split_first()?;
                if form::decode(first.as_bytes(), false).ok()? != part {
                    return None;
                }
                kinds.push(0);
                rest = others;
            }
            Some(name) if name.ends_with('+') => {
                // A greedy label leaves as many segments as the template still asks for.
                let after = wanted.clone().count();
                let taken = rest.len().checked_sub(after).filter(|taken| *taken > 0)?;
                let value = form::decode(rest[..taken].join("/").as_bytes(), false).ok()?;
                labels.insert(&name[..name.len() - 1], value);
                kinds.push(2);
                rest = &rest[taken..];
            }
            Some(name) => {
                let (first, others) = rest.split_first()?;
                labels.insert(name, form::decode(first.as_bytes(), false).ok()?);
                kinds.push(1);
                rest = others;
            }
        }
    }
    rest.is_empty().then_some(Fit { labels, rank: (kinds, std::cmp::Reverse(literals.len())) })
}

/// The literal query names of a template, which are no members of the input.
pub(crate) fn query_literals(template: &'static str) -> impl Iterator<Item = &'static str> {
    let literals = template.split_once('?').map_or("", |(_, literals)| literals);
    literals.split('&').map(|literal| literal.split_once('=').map_or(literal, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(template: &'static str, path: &str) -> Option<String> {
        let fit = fit(template, &segments(path)?, &[])?;
        Some(fit.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn labels_take_one_segment_and_greedy_labels_the_rest() {
        let invoke = "/endpoints/{EndpointName}/invocations";
        assert_eq!(labels(invoke, "/endpoints/a%20b%2Fc/invocations").as_deref(), Some("EndpointName=a b/c"));
        assert_eq!(labels(invoke, "/endpoints/a/b/invocations"), None);
        assert_eq!(labels(invoke, "/endpoints/invocations"), None);
        assert_eq!(labels("/k/{Key+}", "/k/a/b").as_deref(), Some("Key=a/b"));
        assert_eq!(labels("/k/{Key+}/end", "/k/a/b/end").as_deref(), Some("Key=a/b"));
        assert_eq!(labels("/k/{Key+}/end", "/k/end"), None);
        assert_eq!(labels("/functions/", "/functions").as_deref(), Some(""));
        assert_eq!(labels(invoke, "/endpoints/%zz/invocations"), None);
        assert_eq!(labels("/k/{Key+}", "/k/a/../b"), None);
        assert_eq!(labels("/k/{Key+}", "/k/%2e%2E"), None);
    }

    #[test]
    fn literals_beat_labels_and_query_literals_count() {
        let query = [("find".to_owned(), "LayerVersion".to_owned())];
        let path = ["layers"];
        let plain = fit("/layers", &path, &query).unwrap().rank;
        let with = fit("/layers?find=LayerVersion", &path, &query).unwrap().rank;
        let label = fit("/{Any}", &path, &query).unwrap().rank;
        assert!(with < plain && plain < label);
        assert!(fit("/layers?find=Other", &path, &query).is_none());
        assert_eq!(query_literals("/layers?find=LayerVersion&x").collect::<Vec<_>>(), ["find", "x"]);
    }
}
