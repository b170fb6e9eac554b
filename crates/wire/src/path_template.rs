//! URI templates of REST operations, for example `/endpoints/{EndpointName}/invocations` or `/files/{Key+}?acl`.

use std::collections::BTreeMap;

use crate::form;

/// How specific each segment of a matching template is, the more specific the smaller; literal query parts count last.
pub(crate) type Rank = (Vec<u8>, std::cmp::Reverse<usize>);

/// A template, taken apart.
pub(crate) struct Template {
    segments: Vec<Segment>,
    /// Query parameters that it asks for, some with their value.
    query: Vec<(&'static str, Option<&'static str>)>,
    /// Orders the templates that fit: the least is the best.
    pub(crate) rank: Rank,
}

enum Segment {
    Literal(&'static str),
    /// Takes one segment.
    Label(&'static str),
    /// Takes one or more.
    Greedy(&'static str),
}

impl Segment {
    fn of(text: &'static str) -> Segment {
        match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            None => Segment::Literal(text),
            Some(name) => name.strip_suffix('+').map_or(Segment::Label(name), Segment::Greedy),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Segment::Literal(_) => 0,
            Segment::Label(_) => 1,
            Segment::Greedy(_) => 2,
        }
    }
}

/// The segments of a path as they are signed: empty ones do not count.
///
/// `None` when there are dot segments, which no operation has and which could make a path mean two things.
pub(crate) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    (!segments.iter().any(|segment| is_dots(segment))).then_some(segments)
}

/// Whether a segment is one dot or two, as they are or encoded.
fn is_dots(segment: &str) -> bool {
    let after_dot = |text: &'_ str| {
        let dot = [".", "%2e", "%2E"].into_iter().find(|dot| text.starts_with(dot))?;
        Some(dot.len())
    };
    let Some(first) = after_dot(segment) else { return false };
    let rest = &segment[first..];
    rest.is_empty() || after_dot(rest) == Some(rest.len())
}

impl Template {
    /// Takes a template apart.
    pub(crate) fn of(template: &'static str) -> Template {
        let (path, literals) = template.split_once('?').unwrap_or((template, ""));
        let literal = |part: &'static str| {
            part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)))
        };
        let query: Vec<_> = literals.split('&').filter(|part| !part.is_empty()).map(literal).collect();
        let segments: Vec<_> = path.split('/').filter(|part| !part.is_empty()).map(Segment::of).collect();
        let rank = (segments.iter().map(Segment::rank).collect(), std::cmp::Reverse(query.len()));
        Template { segments, query, rank }
    }

    /// Matches the segments and the query of a request; gives the decoded labels.
    pub(crate) fn fit(
        &self,
        segments: &[&str],
        query: &[(String, String)],
    ) -> Option<BTreeMap<&'static str, String>> {
        let is_given = |(name, value): &(&str, Option<&str>)| {
            query.iter().any(|(given, with)| given == name && value.is_none_or(|value| with == value))
        };
        if !self.query.iter().all(is_given) {
            return None;
        }
        let mut labels = BTreeMap::new();
        let mut rest = segments;
        for (index, segment) in self.segments.iter().enumerate() {
            // A greedy label leaves as many segments as the template still asks for.
            let after = self.segments.len() - index - 1;
            let taken = match segment {
                Segment::Greedy(_) => rest.len().checked_sub(after).filter(|taken| *taken > 0)?,
                _ => 1,
            };
            let (first, others) = rest.split_at_checked(taken)?;
            match segment {
                Segment::Literal(literal) if is_literal(first[0], literal) => {}
                Segment::Literal(_) => return None,
                Segment::Label(name) => {
                    labels.insert(*name, form::decode(first[0].as_bytes(), false).ok()?);
                }
                Segment::Greedy(name) => {
                    labels.insert(*name, form::decode(first.join("/").as_bytes(), false).ok()?);
                }
            }
            rest = others;
        }
        rest.is_empty().then_some(labels)
    }
}

/// Whether a segment, decoded, is a literal.
fn is_literal(segment: &str, literal: &str) -> bool {
    // Nearly all come as they are.
    segment == literal
        || segment.contains('%')
            && form::decode(segment.as_bytes(), false).is_ok_and(|decoded| decoded == literal)
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
        let labels = Template::of(template).fit(&segments(path)?, &[])?;
        Some(labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
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
        let rank = |template| {
            let template = Template::of(template);
            template.fit(&path, &query).map(|_| template.rank)
        };
        let [with, plain, label] =
            ["/layers?find=LayerVersion", "/layers", "/{Any}"].map(|template| rank(template).unwrap());
        assert!(with < plain && plain < label);
        assert!(rank("/layers?find=Other").is_none());
        assert_eq!(query_literals("/layers?find=LayerVersion&x").collect::<Vec<_>>(), ["find", "x"]);
    }
}
