//! Old log events: what goes, whose room is freed, and who notices nothing.

use std::io::Write;

use store::logs::{From, GroupList, StreamList, TrimQuery, line};

use crate::logs::{Logs, NOW_MS, group, query};

#[tokio::test]
async fn what_a_group_keeps_no_longer_frees_its_room_and_disturbs_nobody() {
    const DAY_MS: i64 = 86_400_000;
    let logs = Logs::open();
    let (key, path) = logs.stream("job/algo-1").await;
    let (young, _) = logs.stream("young").await;
    // A supervisor has the file open all the time.
    let mut supervisor = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let text = "x".repeat(100);
    let lines = |from: i64, count: i64| -> Vec<u8> {
        let mut lines = Vec::new();
        for number in from..from + count {
            let at = NOW_MS + number;
            line::append(&mut lines, line::Stamp { timestamp_ms: at, ingested_ms: at }, &text);
        }
        lines
    };
    supervisor.write_all(&lines(0, 20_000)).unwrap();
    let head = logs.read(&key, From::Head).await;
    let follower = logs.read(&key, From::Tail).await;
    logs.store.set_retention(group(), Some(3)).await.unwrap();
    let trim = async |is_dry_run| {
        let query = TrimQuery { after: None, default_days: None, is_dry_run, limit: 100 };
        logs.store.trim(query).await.unwrap()
    };
    assert_eq!(trim(false).await.bytes, 0, "nothing is old yet");
    logs.clock.advance(2 * DAY_MS);
    supervisor.write_all(&lines(2 * DAY_MS, 10)).unwrap();
    logs.append(&young, &[(NOW_MS + 2 * DAY_MS, "young")]).await;
    logs.clock.advance(DAY_MS + 20_000);
    let size = path.metadata().unwrap().len();

    let told = trim(true).await;
    assert_eq!(logs.read(&key, From::Head).await, head, "a dry run changes nothing");
    let done = trim(false).await;
    assert_eq!((done.streams, done.bytes), (1, told.bytes));
    assert!(done.bytes > 2_000_000 && done.emptied.is_empty());
    let room = std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    assert!(room <= 16_384 && path.metadata().unwrap().len() == size, "{room} bytes are left");
    assert_eq!(trim(false).await.bytes, 0);

    let left = logs.read(&key, From::Head).await;
    assert_eq!(left.events.len(), 10);
    assert_eq!(logs.read(&key, From::Tail).await.events, left.events);
    // The first page's token points into what has gone; the follower's goes on where it was.
    assert_eq!(logs.read(&key, From::Cursor(head.forward)).await.events, left.events);
    assert_eq!(logs.read(&key, From::Cursor(follower.forward)).await.events, left.events);
    assert!(logs.read(&key, From::Cursor(follower.backward)).await.events.is_empty());
    let mut since = query(From::Head);
    since.start_ms = Some(NOW_MS);
    assert_eq!(logs.store.read(&key, since).await.unwrap().events, left.events);
    let extent = logs.store.streams(group(), StreamList { limit: 9, ..Default::default() }).await.unwrap();
    assert_eq!(extent[0].extent.unwrap().first_event_at, NOW_MS + 2 * DAY_MS);
    let groups = logs.store.groups("111111111111", "us-east-1", GroupList { limit: 9, ..Default::default() });
    let groups = groups.await.unwrap();
    assert_eq!(groups[0].retention_days, Some(3));
    assert!(groups[0].stored_bytes < 5_000, "{}", groups[0].stored_bytes);

    // Later all of it is old. The stream goes on at the same offsets.
    logs.clock.advance(3 * DAY_MS);
    trim(false).await;
    assert!(logs.read(&key, From::Head).await.events.is_empty());
    assert!(logs.read(&key, From::Tail).await.events.is_empty());
    supervisor.write_all(&lines(7 * DAY_MS, 1)).unwrap();
    let more = logs.read(&key, From::Cursor(follower.forward)).await;
    assert_eq!((more.events.len(), more.events[0].offset), (1, size));
    logs.append(&key, &[(NOW_MS + 7 * DAY_MS, "put")]).await;
    assert_eq!(logs.read(&key, From::Head).await.events.len(), 2);
}

#[tokio::test]
async fn trimming_goes_through_streams_in_pages_and_names_those_that_are_empty() {
    let logs = Logs::open();
    for number in 0..7 {
        let (key, path) = logs.stream(&format!("stream-{number}")).await;
        logs.append(&key, &[(NOW_MS, "old")]).await;
        if number > 0 {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }
    logs.clock.advance(400 * 86_400_000);
    let (mut after, mut pages, mut emptied, mut streams) = (None, 0, Vec::new(), 0);
    loop {
        let query = TrimQuery { after, default_days: Some(30), is_dry_run: false, limit: 3 };
        let page = logs.store.trim(query).await.unwrap();
        pages += 1;
        streams += page.streams;
        emptied.extend(page.emptied);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, streams), (3, 7));
    // The first was written just now, by the clock of the machine: somebody may still have it open.
    let names: Vec<&str> = emptied.iter().map(|key| key.stream.as_str()).collect();
    assert_eq!(names, ["stream-1", "stream-2", "stream-3", "stream-4", "stream-5", "stream-6"]);
}
