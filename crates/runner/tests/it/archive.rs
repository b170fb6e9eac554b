//! Archives, mostly hostile ones, made by hand: nothing outside the destination may be read or written.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use runner::archive::{
    ArchiveError, ExtractSummary, FAST_LEVEL, Limits, create_merged_tar_gz, create_tar_gz, extract_tar_gz,
};

/// A destination next to a file that must stay as it is.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("out")).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/canary"), "alive").unwrap();
        Self { root }
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn extract(&self, archive: &[u8]) -> Result<ExtractSummary, ArchiveError> {
        self.extract_within(archive, Limits::default())
    }

    fn extract_within(&self, archive: &[u8], limits: Limits) -> Result<ExtractSummary, ArchiveError> {
        let result = extract_tar_gz(archive, &self.out(), limits);
        self.assert_outside_is_untouched();
        result
    }

    /// The refusal's text.
    fn refusal(&self, archive: &[u8]) -> String {
        self.extract(archive).expect_err("the archive must be refused").to_string()
    }

    fn assert_outside_is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        assert_eq!(fs::read_to_string(self.outside().join("canary")).unwrap(), "alive");
        assert_eq!(fs::metadata(self.outside().join("canary")).unwrap().nlink(), 1);
        let mut names: Vec<_> =
            fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["out", "outside"]);
    }
}

/// One member's blocks: a header written byte by byte, so that no library cleans it up, and the content.
fn member(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    member_of_mode(name, kind, link, content, 0o644)
}

fn member_of_mode(name: &str, kind: u8, link: &str, content: &[u8], mode: u32) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000\x000000000\x00");
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, b"14000000000");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    finish_header(&mut header);
    let mut blocks = header.to_vec();
    blocks.extend_from_slice(content);
    blocks.resize(blocks.len().next_multiple_of(512), 0);
    blocks
}

fn finish_header(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn file(name: &str, content: &str) -> Vec<u8> {
    member(name, b'0', "", content.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    member(name, b'2', target, b"")
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.extend_from_slice(&[0; 1024]);
    gzip(&tar)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// An extended header record with its own length in front.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length += 1;
    }
    format!("{length}{rest}")
}

#[test]
fn ordinary_members_are_unpacked() {
    let scene = Scene::new();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let summary = scene
        .extract(&archive(&[
            member("./", b'5', "", b""),
            member_of_mode("./code/", b'5', "", b"", 0o555),
            member_of_mode("./code/run.sh", b'0', "", b"exit 0\n", 0o755),
            file("deep/without/entries", "x"),
            file("code/run.txt", "first"),
            file("code/run.txt", "second"),
            link("code/latest", "run.txt"),
            link("up", "code/../deep"),
            member("hard", b'1', "./code/run.txt", b""),
            member("././@LongLink", b'L', "", format!("{long}\0").as_bytes()),
            file("truncated-name", "long"),
            member("PaxHeader", b'x', "", pax_record("path", "naïve/päth").as_bytes()),
            file("ignored", "pax"),
            member("pax_global_header", b'g', "", pax_record("comment", "abc").as_bytes()),
        ]))
        .unwrap();
    let read = |name: &str| fs::read_to_string(scene.out().join(name)).unwrap();
    assert_eq!(read("code/run.sh"), "exit 0\n");
    assert_eq!(read("deep/without/entries"), "x");
    assert_eq!(read("code/latest"), "second");
    assert_eq!(read("up/without/entries"), "x");
    assert_eq!(read("hard"), "second");
    assert_eq!(read(&long), "long");
    assert_eq!(read("naïve/päth"), "pax");
    assert_eq!(fs::read_link(scene.out().join("code/latest")).unwrap(), Path::new("run.txt"));
    let metadata = fs::metadata(scene.out().join("code/run.sh")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
    assert_eq!(metadata.mtime(), 0o14000000000);
    assert_eq!(summary.bytes, 7 + 1 + 5 + 6 + 4 + 3);
}

#[test]
fn names_that_lead_outside_are_refused() {
    for name in ["../outside/canary", "/tmp/x", "a/../../outside/canary", "..", "a/.."] {
        let scene = Scene::new();
        let text = scene.refusal(&archive(&[file(name, "dead")]));
        assert!(text.contains(name), "{text}");
    }
    let scene = Scene::new();
    let record = pax_record("path", "../outside/canary");
    scene.refusal(&archive(&[member("p", b'x', "", record.as_bytes()), file("harmless", "dead")]));
}

#[test]
fn links_that_lead_outside_are_refused() {
    let scene = Scene::new();
    let canary = scene.outside().join("canary").display().to_string();
    for members in [
        vec![link("l", "../outside")],
        vec![link("l", &canary)],
        vec![link("d/l", "../../outside/canary")],
        vec![link("l", "missing/../../outside/canary")],
        vec![member("h", b'1', "../outside/canary", b"")],
        vec![member("h", b'1', &canary, b"")],
        vec![member("h", b'1', "missing", b"")],
        // Hard links to a link: to be refused, whatever it leads to.
        vec![file("f", "x"), link("l", "f"), member("h", b'1', "l", b"")],
        // Together they climb above the destination, though each alone stays inside as text.
        vec![member("d/", b'5', "", b""), link("d/up", ".."), link("out", "d/up/../outside/canary")],
    ] {
        let scene = Scene::new();
        let text = scene.refusal(&archive(&members));
        assert!(text.contains("link"), "{text}");
    }
    assert_eq!(fs::read_dir(scene.out()).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_through_a_link() {
    for members in [
        // A link, then a member behind it.
        vec![link("l", "d"), member("d/", b'5', "", b""), file("l/file", "dead")],
        vec![link("l", "."), file("l/l/file", "dead")],
        // A link to where a file will be, then the file under the link's name.
        vec![file("f", "x"), link("f/l", "x")],
    ] {
        let scene = Scene::new();
        let text = scene.refusal(&archive(&members));
        assert!(text.contains("behind a link or a file"), "{text}");
        assert!(!scene.out().join("d/file").exists());
    }
    // The destination may hold links from before, which are the owner's, and are not followed either.
    let scene = Scene::new();
    symlink(scene.outside(), scene.out().join("old")).unwrap();
    scene.refusal(&archive(&[file("old/canary", "dead")]));
    symlink(scene.outside().join("canary"), scene.out().join("file")).unwrap();
    scene.extract(&archive(&[file("file", "new")])).unwrap();
    assert_eq!(fs::read_to_string(scene.out().join("file")).unwrap(), "new");
    assert!(!fs::symlink_metadata(scene.out().join("file")).unwrap().is_symlink());
}

#[test]
fn a_member_over_a_hard_link_does_not_change_the_other_name() {
    let scene = Scene::new();
    scene.extract(&archive(&[file("a", "one"), member("b", b'1', "a", b""), file("b", "two")])).unwrap();
    assert_eq!(fs::read_to_string(scene.out().join("a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(scene.out().join("b")).unwrap(), "two");
}

#[test]
fn special_files_are_refused_and_privileged_modes_dropped() {
    for (kind, expected) in [(b'3', "device"), (b'4', "device"), (b'6', "FIFO"), (b'M', "unknown kind")] {
        let scene = Scene::new();
        let text = scene.refusal(&archive(&[member("special", kind, "", b"")]));
        assert!(text.contains(expected) && text.contains("special"), "{text}");
        assert!(!scene.out().join("special").exists());
    }
    let scene = Scene::new();
    scene.extract(&archive(&[member_of_mode("root", b'0', "", b"x", 0o6755)])).unwrap();
    assert_eq!(fs::metadata(scene.out().join("root")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn bombs_are_stopped_by_the_limits() {
    let limits = Limits { max_bytes: 1_000_000, max_members: 100, max_path: 200 };
    let scene = Scene::new();
    let zeros = member("zeros", b'0', "", &vec![0; 8_000_000]);
    let bomb = archive(&[zeros]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(scene.extract_within(&bomb, limits), Err(ArchiveError::TooManyBytes { .. })));
    assert!(fs::metadata(scene.out().join("zeros")).unwrap().len() <= 1_000_000);

    let many: Vec<_> = (0..101).map(|number| file(&format!("f{number}"), "")).collect();
    assert!(matches!(
        scene.extract_within(&archive(&many), limits),
        Err(ArchiveError::TooManyMembers { .. })
    ));
    let deep = file(&"d/".repeat(45), "");
    assert!(scene.extract_within(&archive(&[deep]), limits).is_ok());
    let long = member("././@LongLink", b'L', "", format!("{}\0", "a/".repeat(150)).as_bytes());
    assert!(scene.extract_within(&archive(&[long, file("x", "")]), limits).is_err());

    // Headers count too: a name of many megabytes must not fill the memory.
    let name = member("././@LongLink", b'L', "", &vec![b'a'; 50_000_000]);
    let text = scene.refusal(&archive(&[name, file("x", "")]));
    assert!(text.contains("headers"), "{text}");
    // And so does what follows the end.
    let mut tail = archive(&[file("x", "")]);
    tail.extend(gzip(&vec![0; 50_000_000]));
    scene.refusal(&tail);
}

#[test]
fn damaged_archives_are_told_from_hostile_ones() {
    let scene = Scene::new();
    let whole = archive(&[file("a", &"text that does not repeat, mostly ".repeat(50)), file("b", "x")]);
    assert!(matches!(scene.extract(b""), Err(ArchiveError::Truncated)));
    assert!(matches!(scene.extract(b"PK\x03\x04 not gzip"), Err(ArchiveError::NotGzip)));
    for length in [5, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(scene.extract(&whole[..length]), Err(ArchiveError::Truncated)), "{length}");
    }
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    assert!(matches!(scene.extract(&flipped), Err(ArchiveError::Unreadable(_))));
    assert!(matches!(scene.extract(&gzip(&[b'x'; 2048])), Err(ArchiveError::Unreadable(_))));
    // Cut off inside the tar archive, though the gzip stream is whole.
    let cut = gzip(&file("a", &"y".repeat(2000))[..1024]);
    assert!(matches!(scene.extract(&cut), Err(ArchiveError::Truncated)));
    assert!(scene.extract(&whole).is_ok());
}

#[test]
fn files_with_holes_are_unpacked_in_both_forms() {
    let scene = Scene::new();
    // The old GNU form: pieces listed in the header.
    let mut header = [0u8; 512];
    header.copy_from_slice(&member("old", b'S', "", b"")[..512]);
    header[257..265].copy_from_slice(b"ustar  \0");
    header[124..136].copy_from_slice(b"00000000004\0");
    header[386..398].copy_from_slice(b"00000000002\0");
    header[398..410].copy_from_slice(b"00000000003\0");
    header[410..422].copy_from_slice(b"00000000006\0");
    header[422..434].copy_from_slice(b"00000000001\0");
    header[483..495].copy_from_slice(b"00000000007\0");
    finish_header(&mut header);
    // tar-rs wants each piece but the last to fill whole blocks, as GNU tar writes them.
    let mut old = header.to_vec();
    old[386..398].copy_from_slice(b"00000001000\0");
    old[398..410].copy_from_slice(b"00000001000\0");
    old[410..422].copy_from_slice(b"00000003000\0");
    old[422..434].copy_from_slice(b"00000000004\0");
    old[124..136].copy_from_slice(b"00000001004\0");
    old[483..495].copy_from_slice(b"00000003004\0");
    let mut fixed: [u8; 512] = old.as_slice().try_into().unwrap();
    finish_header(&mut fixed);
    let mut old = fixed.to_vec();
    old.extend_from_slice(&[b'a'; 512]);
    old.extend_from_slice(b"tail");
    old.resize(512 * 3, 0);

    let records: String = [("major", "1"), ("minor", "0"), ("name", "dir/new"), ("realsize", "9")]
        .map(|(key, value)| pax_record(&format!("GNU.sparse.{key}"), value))
        .concat();
    let mut stored = b"1\n4\n3\n".to_vec();
    stored.resize(512, 0);
    stored.extend_from_slice(b"abc");
    scene
        .extract(&archive(&[
            old,
            member("pax", b'x', "", records.as_bytes()),
            member("GNUSparseFile.0/new", b'0', "", &stored),
        ]))
        .unwrap();
    let mut expected = vec![0; 512];
    expected.extend([b'a'; 512]);
    expected.extend([0; 512]);
    expected.extend(b"tail");
    assert_eq!(fs::read(scene.out().join("old")).unwrap(), expected);
    assert_eq!(fs::read(scene.out().join("dir/new")).unwrap(), b"\0\0\0\0abc\0\0");

    // The true name and size are judged, not the ones in the plain header.
    let evil: String = [("major", "1"), ("minor", "0"), ("name", "../outside/canary"), ("realsize", "9")]
        .map(|(key, value)| pax_record(&format!("GNU.sparse.{key}"), value))
        .concat();
    scene.refusal(&archive(&[member("pax", b'x', "", evil.as_bytes()), member("x", b'0', "", &stored)]));
    let huge: String = [("major", "1"), ("minor", "0"), ("name", "huge"), ("realsize", "99999999999")]
        .map(|(key, value)| pax_record(&format!("GNU.sparse.{key}"), value))
        .concat();
    let limits = Limits { max_bytes: 1_000_000, ..Limits::default() };
    let bomb = archive(&[member("pax", b'x', "", huge.as_bytes()), member("x", b'0', "", &stored)]);
    assert!(matches!(scene.extract_within(&bomb, limits), Err(ArchiveError::TooManyBytes { .. })));
}

#[test]
fn archives_of_gnu_tar_and_python_are_unpacked() {
    let scene = Scene::new();
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("model")).unwrap();
    let holes = File::create(source.path().join("model/holes")).unwrap();
    holes.set_len(10_000_000).unwrap();
    fs::write(source.path().join("model/weights"), [7; 5000]).unwrap();
    symlink("weights", source.path().join("model/latest")).unwrap();
    let by_tar = std::process::Command::new("tar")
        .args(["--sparse", "--format=posix", "-cz", "-C"])
        .arg(source.path())
        .arg("model")
        .output()
        .unwrap();
    assert!(by_tar.status.success());
    scene.extract(&by_tar.stdout).unwrap();
    assert_eq!(fs::metadata(scene.out().join("model/holes")).unwrap().len(), 10_000_000);
    assert_eq!(fs::read(scene.out().join("model/latest")).unwrap(), [7; 5000]);
    let script = "import sys, tarfile\nwith tarfile.open(fileobj=sys.stdout.buffer, mode='w|gz') as t:\n  t.add(sys.argv[1], 'again')";
    let by_python =
        std::process::Command::new("python3").args(["-c", script]).arg(source.path()).output().unwrap();
    scene.extract(&by_python.stdout).unwrap();
    assert_eq!(fs::read(scene.out().join("again/model/weights")).unwrap(), [7; 5000]);
}

fn pack(directory: &Path) -> (Vec<u8>, runner::archive::CreatedArchive) {
    let mut bytes = Vec::new();
    let created = create_tar_gz(directory, &mut bytes, FAST_LEVEL).unwrap();
    (bytes, created)
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn packing_is_ordered_repeatable_and_measured() {
    let scene = Scene::new();
    let long = format!("{}/{}", "n".repeat(120), "m".repeat(120));
    for name in ["b", "a/z", "a/y", "c d", &long] {
        let path = scene.out().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    fs::create_dir(scene.out().join("empty")).unwrap();
    symlink("../b", scene.out().join("a/link")).unwrap();
    let (bytes, created) = pack(&scene.out());
    let long_directory = "n".repeat(120);
    assert_eq!(names(&bytes), ["a", "a/link", "a/y", "a/z", "b", "c d", "empty", &long_directory, &long]);
    assert_eq!(created.members, 9);
    assert_eq!(created.bytes, bytes.len() as u64);
    let digest = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(&bytes)?;
            child.wait_with_output()
        })
        .unwrap();
    assert!(String::from_utf8_lossy(&digest.stdout).starts_with(&created.sha256));
    assert_eq!(pack(&scene.out()).0, bytes);

    let again = Scene::new();
    again.extract(&bytes).unwrap();
    assert_eq!(fs::read_to_string(again.out().join(&long)).unwrap(), long);
    assert_eq!(fs::read_link(again.out().join("a/link")).unwrap(), Path::new("../b"));
    assert_eq!(pack(&again.out()).1.members, created.members);
}

#[test]
fn what_must_not_be_packed_is_left_out_with_a_warning() {
    let scene = Scene::new();
    fs::write(scene.out().join("kept"), "x").unwrap();
    symlink(scene.outside().join("canary"), scene.out().join("absolute")).unwrap();
    symlink("../outside/canary", scene.out().join("relative")).unwrap();
    fs::create_dir(scene.out().join("d")).unwrap();
    symlink("..", scene.out().join("d/up")).unwrap();
    symlink("d/up/../outside/canary", scene.out().join("winding")).unwrap();
    symlink("circle", scene.out().join("circle")).unwrap();
    symlink("kept", scene.out().join("good")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.out().join("fifo"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scene.out().join("socket")).unwrap();
    let (bytes, created) = pack(&scene.out());
    assert_eq!(names(&bytes), ["d", "d/up", "good", "kept"]);
    for name in ["absolute", "relative", "winding", "circle", "fifo", "socket"] {
        let warning = created.warnings.iter().find(|warning| warning.starts_with(name));
        assert!(warning.is_some_and(|text| text.contains("left out")), "{name}: {:?}", created.warnings);
    }
    assert_eq!(created.warnings.len(), 6);
    let mut content = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut content).unwrap();
    assert!(!content.windows(5).any(|window| window == b"alive"));
}

#[test]
fn a_directory_that_is_a_link_is_not_packed() {
    let scene = Scene::new();
    symlink(scene.outside(), scene.out().join("link")).unwrap();
    assert!(matches!(create_tar_gz(&scene.out().join("link"), Vec::new(), 1), Err(ArchiveError::Io { .. })));
}

#[test]
fn directories_of_several_hosts_become_one() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (name, first, second) in [("same", "a", "a"), ("other", "a", "b"), ("deep/longer", "a", "aa")] {
        write(&one, name, first);
        write(&two, name, second);
    }
    write(&one, "deep/one", "1");
    write(&two, "deep/two", "2");
    write(&two, "two/only", "2");
    write(&one, "kind", "a file here");
    write(&two, "kind/there", "a folder there");
    let mut packed = Vec::new();
    let sources = [one.path().to_owned(), two.path().to_owned()];
    let made = create_merged_tar_gz(&sources, &mut packed, 1).unwrap();
    let conflicts: Vec<_> =
        made.conflicts.iter().map(|one| (one.path.to_str().unwrap(), one.kept, one.left_out)).collect();
    assert_eq!(conflicts, [("deep/longer", 0, 1), ("kind", 0, 1), ("other", 0, 1)]);
    let target = tempfile::tempdir().unwrap();
    extract_tar_gz(&packed[..], target.path(), Limits::default()).unwrap();
    let read = |name: &str| fs::read_to_string(target.path().join(name)).unwrap();
    for (name, text) in [
        ("same", "a"),
        ("other", "a"),
        ("deep/longer", "a"),
        ("deep/one", "1"),
        ("deep/two", "2"),
        ("two/only", "2"),
        ("kind", "a file here"),
    ] {
        assert_eq!(read(name), text, "{name}");
    }
}
