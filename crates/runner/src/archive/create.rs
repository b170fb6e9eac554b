//! Packs a directory that a job has left behind, without following anything out of it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{ArchiveError, io_error, stays_inside};

/// Deeper trees are refused: each level holds a handle.
const MAX_DEPTH: usize = 512;

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedArchive {
    /// Size of the archive.
    pub bytes: u64,
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// Number of members.
    pub members: u64,
    /// A sentence for each entry that was left out.
    pub warnings: Vec<String>,
    /// Entries of several directories that differ, of which one was packed.
    pub conflicts: Vec<Conflict>,
}

/// An entry that two directories have, differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its name, relative to both.
    pub path: PathBuf,
    /// Index of the directory whose entry was packed.
    pub kept: usize,
    /// Index of the other.
    pub left_out: usize,
}

/// Packs what is below `directory` into a gzip-compressed tar archive, names relative to it and in byte
/// order, so that the same content gives the same bytes. `level` is gzip's (0 to 9), see
/// [`super::FAST_LEVEL`].
///
/// Links are kept as links if they stay inside, else left out with a warning, as are sockets, FIFOs and
/// devices. Blocks; call it from a thread that may.
pub fn create_tar_gz(
    directory: &Path,
    writer: impl Write,
    level: u32,
) -> Result<CreatedArchive, ArchiveError> {
    create_merged_tar_gz(&[directory.to_owned()], writer, level)
}

/// Packs several directories as if they were one, as [`create_tar_gz`] does. Of entries that are not directories in both,
/// that of the earlier one is packed; they are conflicts unless both are files with the same bytes, or links to the same.
pub fn create_merged_tar_gz(
    directories: &[PathBuf],
    writer: impl Write,
    level: u32,
) -> Result<CreatedArchive, ArchiveError> {
    let mut roots = Vec::new();
    for directory in directories {
        let root = rustix::fs::open(directory, directory_flags(), Mode::empty())
            .map_err(|error| io_error(format!("Opening {}", directory.display()))(error.into()))?;
        roots.push(root);
    }
    let mut tops = Vec::new();
    for (origin, root) in roots.iter().enumerate() {
        tops.push((origin, root.try_clone().map_err(io_error("Opening the directory again"))?));
    }
    let output = GzEncoder::new(Measured::new(writer), Compression::new(level.min(9)));
    let mut packing = Packing {
        roots,
        builder: tar::Builder::new(output),
        members: 0,
        warnings: Vec::new(),
        conflicts: Vec::new(),
    };
    packing.below(&tops, Path::new(""), MAX_DEPTH)?;
    let finish = |packing: tar::Builder<GzEncoder<Measured<_>>>| packing.into_inner()?.finish();
    let mut measured = finish(packing.builder).map_err(io_error("Writing the archive"))?;
    measured.writer.flush().map_err(io_error("Writing the archive"))?;
    Ok(CreatedArchive {
        bytes: measured.bytes,
        sha256: hex::encode(measured.hash.finalize()),
        members: packing.members,
        warnings: packing.warnings,
        conflicts: packing.conflicts,
    })
}

/// Counts and hashes what passes through.
struct Measured<W> {
    writer: W,
    bytes: u64,
    hash: Sha256,
}

impl<W> Measured<W> {
    fn new(writer: W) -> Self {
        Self { writer, bytes: 0, hash: Sha256::new() }
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Handles of one directory, with the indexes of the roots that they lie below.
type Places = [(usize, OwnedFd)];

struct Packing<W: Write> {
    roots: Vec<OwnedFd>,
    builder: tar::Builder<W>,
    members: u64,
    warnings: Vec<String>,
    conflicts: Vec<Conflict>,
}

impl<W: Write> Packing<W> {
    fn below(&mut self, places: &Places, path: &Path, levels_left: usize) -> Result<(), ArchiveError> {
        let reading = || io_error(format!("Reading the directory {}", shown(path).display()));
        if levels_left == 0 {
            let source = io::Error::other(format!("the directories lie more than {MAX_DEPTH} levels deep"));
            return Err(reading()(source));
        }
        let mut names = Vec::new();
        for (_, directory) in places {
            names.extend(sorted_names(directory).map_err(reading())?);
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            let entry = path.join(OsStr::from_bytes(name.as_bytes()));
            let failed =
                |error: rustix::io::Errno| io_error(format!("Packing {}", entry.display()))(error.into());
            let mut found = Vec::new();
            for (origin, directory) in places {
                match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => found.push((*origin, directory, stat)),
                    Err(rustix::io::Errno::NOENT) if places.len() > 1 => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            let Some((origin, directory, stat)) = found.first().copied() else { continue };
            let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            for (other, place, other_stat) in &found[1..] {
                let is_fine = if is_directory(&stat) {
                    is_directory(other_stat)
                } else {
                    is_same_entry(directory, place, &name)
                        .map_err(io_error(format!("Comparing {}", entry.display())))?
                };
                if !is_fine {
                    self.conflicts.push(Conflict { path: entry.clone(), kept: origin, left_out: *other });
                }
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let mut inner = Vec::new();
                    for (origin, place, _) in found.iter().filter(|(_, _, stat)| is_directory(stat)) {
                        let opened = rustix::fs::openat(place, &name, directory_flags(), Mode::empty());
                        inner.push((*origin, opened.map_err(failed)?));
                    }
                    self.append(&entry, header(EntryType::Directory, &stat, 0), io::empty())?;
                    self.below(&inner, &entry, levels_left - 1)?;
                }
                FileType::RegularFile => self.file(directory, &name, &entry)?,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(directory, &name, Vec::new()).map_err(failed)?;
                    self.link(origin, &entry, &stat, &target)?;
                }
                FileType::Socket => self.leave_out(&entry, "is a socket"),
                FileType::Fifo => self.leave_out(&entry, "is a FIFO"),
                _ => self.leave_out(&entry, "is a device"),
            }
        }
        Ok(())
    }

    fn file(&mut self, directory: impl AsFd, name: &CString, path: &Path) -> Result<(), ArchiveError> {
        // It may have been swapped since it was listed: not for a link (NOFOLLOW), nor for a FIFO without a
        // writer, on which an opening would hang (NONBLOCK).
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: rustix::io::Errno| io_error(format!("Packing {}", path.display()))(error.into());
        let file = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.leave_out(path, "was replaced while it was packed");
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let content = Exact { content: File::from(file), left: size };
        self.append(path, header(EntryType::Regular, &stat, size), content)
    }

    fn link(
        &mut self,
        origin: usize,
        path: &Path,
        stat: &Stat,
        target: &CString,
    ) -> Result<(), ArchiveError> {
        let depth = path.components().count() - 1;
        let resolves_inside = || {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened =
                rustix::fs::openat2(&self.roots[origin], path, flags, Mode::empty(), ResolveFlags::BENEATH);
            // A link that leads nowhere leads nowhere bad; one that leads in circles is of no use.
            matches!(opened, Ok(_) | Err(rustix::io::Errno::NOENT))
        };
        if !stays_inside(depth, target.as_bytes()) || !resolves_inside() {
            let target = target.to_string_lossy();
            self.leave_out(
                path,
                &format!(
                    "is a link to {target}, which lies outside of the directory or is itself a link to it"
                ),
            );
            return Ok(());
        }
        self.members += 1;
        let mut header = header(EntryType::Symlink, stat, 0);
        self.builder
            .append_link(&mut header, path, OsStr::from_bytes(target.as_bytes()))
            .map_err(io_error(format!("Packing {}", path.display())))
    }

    fn append(&mut self, path: &Path, mut header: Header, content: impl Read) -> Result<(), ArchiveError> {
        self.members += 1;
        self.builder
            .append_data(&mut header, path, content)
            .map_err(io_error(format!("Packing {}", path.display())))
    }

    fn leave_out(&mut self, path: &Path, reason: &str) {
        self.warnings.push(format!("{} {reason} and was left out of the archive.", path.display()));
    }
}

/// The member's header: of the entry's own facts only those that do not depend on who made it.
fn header(kind: EntryType, stat: &Stat, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn sorted_names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether both directories have the same file or link under a name.
fn is_same_entry(one: &OwnedFd, other: &OwnedFd, name: &CString) -> io::Result<bool> {
    let kind = |directory: &OwnedFd| -> io::Result<FileType> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |directory: &OwnedFd| -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
    };
    match (kind(one)?, kind(other)?) {
        (FileType::RegularFile, FileType::RegularFile) => is_same(open(one)?, open(other)?),
        (FileType::Symlink, FileType::Symlink) => {
            let target = |directory| rustix::fs::readlinkat(directory, name, Vec::new());
            Ok(target(one)? == target(other)?)
        }
        (one, other) => Ok(one == other),
    }
}

/// Whether two files have the same bytes.
///
/// # Errors
/// When one cannot be read.
pub fn is_same(one: File, other: File) -> io::Result<bool> {
    let length = one.metadata()?.len();
    if length != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(one).take(length), io::BufReader::new(other).take(length));
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Gives exactly as many bytes as the header promises, or an error: anything else would spoil all that
/// follows.
struct Exact {
    content: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.content.read(&mut buffer[..length])?;
        if count == 0 && length > 0 {
            return Err(io::Error::other("the file became shorter while it was packed"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn shown(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() }
}
