//! Lists of objects against a plain reference.

#![expect(clippy::unwrap_used, reason = "the fixtures have nothing to do but stop the test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use store::objects::{Bound, ListObjects};

use crate::objects::{ACCOUNT, BUCKET, Objects};

/// What a list of everything answers: keys and folded prefixes, each in order.
fn reference(keys: &BTreeSet<String>, prefix: &str, delimiter: &str) -> (Vec<String>, Vec<String>) {
    let (mut plain, mut folded) = (Vec::new(), BTreeSet::new());
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        match key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => {
                folded.insert(key[..prefix.len() + at + delimiter.len()].to_owned());
            }
            None => plain.push(key.clone()),
        }
    }
    (plain, folded.into_iter().collect())
}

async fn pages(
    objects: &Objects,
    prefix: &str,
    delimiter: &str,
    limit: usize,
    by_marker: bool,
) -> (Vec<String>, Vec<String>) {
    let (mut plain, mut folded, mut start) = (Vec::new(), Vec::new(), None);
    loop {
        let list = ListObjects {
            prefix: prefix.to_owned(),
            delimiter: Some(delimiter.to_owned()),
            start: start.take(),
            limit,
        };
        let page = objects.store.list(ACCOUNT, BUCKET, list).await.unwrap();
        assert!(page.objects.len() + page.common_prefixes.len() <= limit);
        let last =
            page.objects.last().map(|object| object.key.clone()).max(page.common_prefixes.last().cloned());
        plain.extend(page.objects.into_iter().map(|object| object.key));
        folded.extend(page.common_prefixes);
        match page.next {
            None => return (plain, folded),
            // The older protocol goes on from the last thing it showed.
            Some(_) if by_marker => start = Some(Bound::after(&last.unwrap(), prefix, Some(delimiter))),
            Some(next) => start = Some(next),
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => Just("a"), 2 => Just("b"), 4 => Just("/"), 1 => Just("é"), 1 => Just("\u{10FFFF}"), 1 => Just("-")];
    proptest::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn pages_together_are_what_a_slow_reading_gives(
        keys in proptest::collection::btree_set(key(), 0..30),
        lists in proptest::collection::vec(
            (prop_oneof![Just(String::new()), key()], prop_oneof![Just(""), Just("/"), Just("a"), Just("//")], 1_usize..7),
            6,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let objects = Objects::open().await;
            for key in &keys {
                objects.put(key, b"").await;
            }
            for (prefix, delimiter, limit) in &lists {
                let wanted = reference(&keys, prefix, delimiter);
                for by_marker in [false, true] {
                    let got = pages(&objects, prefix, delimiter, *limit, by_marker).await;
                    assert_eq!(got, wanted, "{keys:?} below {prefix:?} by {delimiter:?}, {limit} at a time, {by_marker}");
                }
            }
        });
    }
}

#[tokio::test]
async fn a_marker_that_is_a_key_does_not_hide_what_it_begins() {
    let objects = Objects::open().await;
    for key in ["a/", "a/1", "a/2"] {
        objects.put(key, b"").await;
    }
    assert_eq!(pages(&objects, "a/", "/", 1, true).await.0, ["a/", "a/1", "a/2"]);
}

#[tokio::test]
async fn a_marker_below_a_fold_hides_only_what_is_before_it() {
    let objects = Objects::open().await;
    objects.put("a/b/c", b"").await;
    for (marker, wanted) in [("a/b/", vec!["a/".to_owned()]), ("a/b/c", vec![]), ("a/", vec![])] {
        let start = Some(Bound::after(marker, "", Some("/")));
        let list = ListObjects { delimiter: Some("/".into()), start, limit: 10, ..ListObjects::default() };
        let page = objects.store.list(ACCOUNT, BUCKET, list).await.unwrap();
        assert_eq!(page.common_prefixes, wanted, "after {marker}");
    }
}

#[tokio::test]
async fn a_list_starts_after_a_key_that_need_not_exist() {
    let objects = Objects::open().await;
    for key in ["a", "b", "c"] {
        objects.put(key, b"").await;
    }
    let start = Some(Bound::after("aa", "", None));
    let list = ListObjects { start, limit: 10, ..ListObjects::default() };
    let page = objects.store.list(ACCOUNT, BUCKET, list).await.unwrap();
    let keys: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["b", "c"]);
    assert_eq!(page.next, None);
}
