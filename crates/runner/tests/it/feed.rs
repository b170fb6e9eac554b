//! Channels as streams: epochs, framing, readers that stop early, jobs that tamper.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use runner::feed::plan::{Part, PlanWriter};
use runner::feed::{Feed, Shard};
use runner::{Exit, WorkloadSpec};

use crate::bench::Bench;

/// A job with one channel, `train`, whose entries have one part each.
fn job(bench: &Bench, script: &str, files: &[(&str, &[u8])]) -> WorkloadSpec {
    let (data, content) = (bench.ml().join("data"), bench.root().join("content"));
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(&content).unwrap();
    let mut plan = PlanWriter::create(&bench.root().join("plan")).unwrap();
    for (name, bytes) in files {
        fs::write(content.join(name), bytes).unwrap();
        plan.entry(&[Part::File { path: (*name).to_owned(), name: format!("s3://bucket/{name}") }]).unwrap();
    }
    plan.finish().unwrap();
    let mut spec = bench.spec("job", script);
    spec.feeds.push(Feed {
        name: "train".into(),
        directory: data,
        plan: bench.root().join("plan"),
        files: content,
        record_io: false,
        gunzip: false,
        shuffle_seed: None,
        shard: None,
    });
    spec
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn each_epoch_is_a_fifo_that_comes_with_the_one_before() {
    let bench = Bench::new();
    let script = "cat data/train_0; cat data/train_1; while [ -e data/train_1 ]; do :; done; ls data";
    let spec = job(&bench, script, &[("a", b"one\n"), ("b", b"two\n"), ("c", b"three\n")]);
    assert_eq!(bench.run_well(&spec).await, ["one", "two", "three", "one", "two", "three", "train_2"]);
}

#[tokio::test]
async fn a_reader_may_stop_early_or_never_begin() {
    let bench = Bench::new();
    let large = vec![b'x'; 5 << 20];
    let script = "head -c 3 data/train_0; echo; cat data/train_1 | wc -c";
    let mut spec = job(&bench, script, &[("a", &large), ("b", &large)]);
    let mut unread = spec.feeds[0].clone();
    unread.name = "validation".into();
    spec.feeds.push(unread);
    assert_eq!(bench.run_well(&spec).await, ["xxx", "10485760"]);
}

#[tokio::test]
async fn files_are_unpacked_framed_and_shared_out() {
    let bench = Bench::new();
    let files =
        [("a", gzip(b"hello")), ("b", gzip(b"left out")), ("c", [gzip(b"two "), gzip(b"members")].concat())];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let mut spec = job(&bench, "cat data/train_0 > /opt/ml/got", &files);
    let feed = &mut spec.feeds[0];
    (feed.gunzip, feed.record_io) = (true, true);
    feed.shard = Some(Shard { host: 0, hosts: 2 });
    bench.run_well(&spec).await;
    let expected = b"\x0a\x23\xd7\xce\x05\0\0\0hello\0\0\0\x0a\x23\xd7\xce\x0b\0\0\0two members\0";
    assert_eq!(fs::read(bench.ml().join("got")).unwrap(), expected);
}

#[tokio::test]
async fn a_stream_that_breaks_off_fails_a_job_that_thinks_it_did_well() {
    let bench = Bench::new();
    let broken = [&gzip(&vec![b'y'; 1 << 20])[..500], b"junk"].concat();
    let mut spec =
        job(&bench, "cat data/train_0 > /dev/null; exit 0", &[("good", &gzip(b"x")), ("bad", &broken)]);
    spec.feeds[0].gunzip = true;
    let (report, _) = bench.run(&spec).await;
    let Exit::InputFailed(text) = &report.exit else { panic!("{report:?}") };
    assert!(text.contains("\"train\"") && text.contains("s3://bucket/bad cannot be sent"), "{text}");
}

#[tokio::test]
async fn nothing_outside_is_written_through_a_planted_link() {
    let bench = Bench::new();
    let canary = bench.root().join("canary");
    fs::write(&canary, "alive").unwrap();
    let script = format!("ln -s {} data/train_1; cat data/train_0; sleep 60", canary.display());
    let (report, _) = bench.run(&job(&bench, &script, &[("a", b"one\n")])).await;
    assert!(matches!(&report.exit, Exit::InputFailed(text) if text.contains("train")), "{report:?}");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");

    let bench = Bench::new();
    let script = "echo mine > data/train_1; cat data/train_0; sleep 60";
    let (report, _) = bench.run(&job(&bench, script, &[("a", b"one\n")])).await;
    assert!(matches!(&report.exit, Exit::InputFailed(text) if text.contains("no FIFO")), "{report:?}");
    assert_eq!(fs::read_to_string(bench.ml().join("data/train_1")).unwrap(), "mine\n");
}
