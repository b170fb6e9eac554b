//! Uploads in parts: joined once, whole, in the order they were named.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::Error;
use store::objects::{CompletedPart, Refusal, SMALLEST_PART_BYTES, UPLOAD_KIND, Upload};

use crate::objects::{ACCOUNT, BUCKET, Objects, is_missing};

#[tokio::test]
async fn parts_become_one_object() {
    let objects = Objects::open().await;
    let upload = objects.upload("dir/big").await;
    let first = vec![1_u8; SMALLEST_PART_BYTES as usize];
    objects.part(&upload, 1, b"replaced").await;
    let one = objects.part(&upload, 1, &first).await;
    let seven = objects.part(&upload, 7, b"tail").await;
    objects.part(&upload, 9, b"not named").await;
    let object = objects.complete(&upload, &[one.clone(), seven.clone()]).await.unwrap();
    assert_eq!(object.size, SMALLEST_PART_BYTES + 4);
    assert!(object.etag.ends_with("-2"));
    assert_eq!(object.part_range(2), Some(SMALLEST_PART_BYTES..SMALLEST_PART_BYTES + 4));
    let bytes = objects.get("dir/big").await.unwrap();
    assert_eq!((&bytes[..first.len()], &bytes[first.len()..]), (first.as_slice(), b"tail".as_slice()));
    assert_eq!(objects.files().len(), 1, "no part stays");
    let again = objects.complete(&upload, &[one, seven]).await.unwrap_err();
    assert!(matches!(again, Error::Refused(Refusal::Part(1))), "{again}");
    let gone = objects.store.upload(ACCOUNT, BUCKET, "dir/big", &upload.id).await.unwrap_err();
    assert!(is_missing(&gone, UPLOAD_KIND));
    let assembly = object.attributes.assembly.unwrap();
    assert_eq!((assembly.upload, assembly.runs), (upload.id, vec![(SMALLEST_PART_BYTES, 1), (4, 1)]));
}

#[tokio::test]
async fn a_completion_must_name_the_parts_as_they_are() {
    let objects = Objects::open().await;
    let upload = objects.upload("big").await;
    let small = objects.part(&upload, 1, b"small").await;
    let last = objects.part(&upload, 2, b"last").await;
    let wrong = CompletedPart { number: 2, ..small.clone() };
    let cases = [
        (vec![], Refusal::NoParts),
        (vec![last.clone(), small.clone()], Refusal::PartOrder),
        (vec![last.clone(), last.clone()], Refusal::PartOrder),
        (vec![wrong], Refusal::Part(2)),
        (vec![small.clone(), last.clone()], Refusal::PartTooSmall(1)),
    ];
    for (named, wanted) in cases {
        let refused = objects.complete(&upload, &named).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused(refusal) if *refusal == wanted), "{refused}");
    }
    let checksums = BTreeMap::from([("crc32".to_owned(), "AAAAAA==".to_owned())]);
    let wrong = CompletedPart { checksums, ..last.clone() };
    let refused = objects.complete(&upload, &[wrong]).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Part(2))), "{refused}");
    objects.store.abort_upload(&upload).await.unwrap();
    assert!(objects.files().is_empty());
    let again = objects.store.abort_upload(&upload).await.unwrap_err();
    assert!(is_missing(&again, UPLOAD_KIND));
    let mut late = objects.store.begin_part(ACCOUNT, &upload).await.unwrap();
    late.write(b"late").unwrap();
    let gone = objects.store.put_part(&upload, 3, late, BTreeMap::new()).await.unwrap_err();
    assert!(is_missing(&gone, UPLOAD_KIND));
    assert!(objects.files().is_empty());
}

#[tokio::test]
async fn of_many_completions_one_ends_the_upload() {
    let objects = Arc::new(Objects::open().await);
    let upload = objects.upload("big").await;
    let part = objects.part(&upload, 1, b"part").await;
    let completions: Vec<_> = (0..8)
        .map(|_| {
            let (objects, upload, part) = (objects.clone(), upload.clone(), part.clone());
            tokio::spawn(async move { objects.complete(&upload, &[part]).await })
        })
        .collect();
    let mut done = 0;
    for completion in completions {
        match completion.await.unwrap() {
            Ok(_) => done += 1,
            Err(Error::Missing { kind, .. }) if kind == UPLOAD_KIND => {}
            Err(Error::Refused(Refusal::Part(1))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(objects.get("big").await.unwrap(), b"part");
    assert_eq!(objects.files().len(), 1, "the losers' files are gone");
}

#[tokio::test]
async fn uploads_are_listed_by_key_and_page() {
    let objects = Objects::open().await;
    for key in ["b", "a/1", "a/2", "a/2"] {
        objects.upload(key).await;
    }
    let keys = |uploads: &[Upload]| uploads.iter().map(|upload| upload.key.clone()).collect::<Vec<_>>();
    let all = objects.store.uploads(ACCOUNT, BUCKET, "", None, 100).await.unwrap();
    assert_eq!(keys(&all), ["a/1", "a/2", "a/2", "b"]);
    let page = objects.store.uploads(ACCOUNT, BUCKET, "a/", None, 2).await.unwrap();
    let after = page.last().map(|upload| (upload.key.clone(), upload.id.clone()));
    let rest = objects.store.uploads(ACCOUNT, BUCKET, "a/", after, 2).await.unwrap();
    assert_eq!((keys(&page), keys(&rest)), (vec!["a/1".into(), "a/2".into()], vec!["a/2".to_owned()]));
}
