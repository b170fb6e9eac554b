//! The files of streams: where they are, and how they are written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use failpoint::Point;

use super::{GroupKey, StreamKey, names};

/// The folder of a group's streams.
pub(super) fn group_folder(root: &Path, key: &GroupKey) -> PathBuf {
    root.join(names::file_name(&key.account))
        .join(names::file_name(&key.region))
        .join(names::file_name(&key.group))
}

/// The file of a stream.
pub(super) fn stream_file(root: &Path, key: &StreamKey) -> PathBuf {
    group_folder(root, &key.group).join(format!("{}.log", names::file_name(&key.stream)))
}

/// Opens a stream's file, which is made with its folder where it is missing.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).read(true).open(path)
}

/// Appends whole lines and returns the size of the file. A line that a crashed writer left torn is ended first.
pub(super) fn append_lines(path: &Path, lines: &[u8]) -> io::Result<u64> {
    let mut file = open_for_append(path)?;
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    match last {
        [b'\n'] => failpoint::write_all(Point::LogAppend, &mut file, lines)?,
        _ => failpoint::write_all(Point::LogAppend, &mut file, &[b"\n", lines].concat())?,
    }
    Ok(file.metadata()?.len())
}

/// Brings a stream to the disk, and its name with it.
pub(super) fn bring_to_disk(path: &Path, root: &Path) -> io::Result<()> {
    failpoint::at(Point::LogAppendSync)?;
    let file = File::open(path)?;
    file.sync_data()?;
    let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// What a group's streams take of the disk.
pub(super) fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        // A file may be deleted while the folder is read.
        let entry = entry?;
        bytes += entry.metadata().map_or(0, |metadata| match metadata.blocks() * 512 < metadata.len() {
            // What was trimmed takes no room.
            true => metadata.len().saturating_sub(super::scan::start(&entry.path()).unwrap_or_default()),
            false => metadata.len(),
        });
    }
    Ok(bytes)
}

/// What is gone already needs no removal.
pub(super) fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
