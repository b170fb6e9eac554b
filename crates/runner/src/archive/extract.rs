//! Unpacks an archive so that nothing outside the destination is read or written, whatever its members claim.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use tar::EntryType;

use super::sparse::SparseMap;
use super::{ArchiveError, io_error, member_error, stays_inside};

/// How much of an archive may go by without a file's content: headers, long names, attributes, padding at the
/// end.
const MAX_OVERHEAD_BYTES: u64 = 1024 * 1024;
/// The kind of member in which GNU tar keeps the name that was given to an archive.
const VOLUME_LABEL: u8 = b'V';
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const COPY_BYTES: usize = 256 * 1024;

/// How large an archive's content may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sum of the sizes of all files.
    pub max_bytes: u64,
    /// Number of members of any kind.
    pub max_members: u64,
    /// Length of a member's name and of a link's target, in bytes.
    pub max_path: usize,
}

impl Default for Limits {
    /// 1 TiB, a million members, names as long as the kernel takes them.
    fn default() -> Self {
        Self { max_bytes: 1 << 40, max_members: 1_000_000, max_path: 4095 }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractSummary {
    /// Members of any kind.
    pub members: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Unpacks a gzip-compressed tar archive into `destination`, an existing directory that nobody else changes
/// meanwhile.
///
/// Members may be files, directories, and links that stay inside; owners and set-id bits are dropped. After
/// an error part of the content may be there: remove the destination. Blocks; call it from a thread that may.
pub fn extract_tar_gz(
    reader: impl Read,
    destination: &Path,
    limits: Limits,
) -> Result<ExtractSummary, ArchiveError> {
    let mut reader = BufReader::with_capacity(COPY_BYTES, reader);
    let start = reader.fill_buf().map_err(read_error)?;
    if start.is_empty() {
        return Err(ArchiveError::Truncated);
    }
    if !start.starts_with(&GZIP_MAGIC[..start.len().min(2)]) {
        return Err(ArchiveError::NotGzip);
    }
    let root =
        rustix::fs::open(destination, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io_error(format!("Opening {}", destination.display()))(error.into()))?;
    let allowance = Rc::new(Cell::new(MAX_OVERHEAD_BYTES));
    let mut archive =
        tar::Archive::new(Rationed { inner: MultiGzDecoder::new(reader), allowance: Rc::clone(&allowance) });
    let mut extraction = Extraction::into(root, limits);
    let mut entries = archive.entries().map_err(read_error)?;
    loop {
        allowance.set(MAX_OVERHEAD_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(read_error)?;
        let archived_bytes = entry.header().entry_size().unwrap_or(0).max(entry.size());
        allowance.set(archived_bytes.saturating_add(MAX_OVERHEAD_BYTES));
        extraction.member(&mut entry)?;
    }
    allowance.set(MAX_OVERHEAD_BYTES);
    // What follows the last member is padding; reading it checks the checksum of the compressed stream.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(read_error)?;
    extraction.check_links()?;
    Ok(extraction.summary)
}

/// A decompressed stream that may give only so many bytes until more are allowed.
struct Rationed<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowance.get();
        if allowed == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are larger than any real archive's"));
        }
        let length = buffer.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..length])?;
        self.allowance.set(allowed - count as u64);
        Ok(count)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a conversion, given to map_err by name")]
fn read_error(error: io::Error) -> ArchiveError {
    // The tar reader wraps errors and keeps their kind.
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        _ => ArchiveError::Unreadable(error.to_string()),
    }
}

/// What is unpacked into one directory.
pub(super) struct Extraction {
    root: OwnedFd,
    limits: Limits,
    summary: ExtractSummary,
    /// Symbolic links made, with their targets still to be judged by the kernel.
    links: Vec<PathBuf>,
    /// The directory of the last member: the next one is mostly there too.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
}

impl Extraction {
    /// Unpacks into an open directory.
    pub(super) fn into(root: OwnedFd, limits: Limits) -> Extraction {
        Extraction { root, limits, summary: ExtractSummary::default(), links: Vec::new(), parent: None }
    }

    /// What was unpacked so far.
    pub(super) fn summary(&self) -> ExtractSummary {
        self.summary
    }

    /// Counts one more member.
    pub(super) fn count(&mut self) -> Result<(), ArchiveError> {
        self.summary.members += 1;
        if self.summary.members > self.limits.max_members {
            return Err(ArchiveError::TooManyMembers { max_members: self.limits.max_members });
        }
        Ok(())
    }

    fn member<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ArchiveError> {
        self.count()?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() || kind.as_byte() == VOLUME_LABEL {
            // Says something about the whole archive, and makes no file.
            return Ok(());
        }
        let mut name = entry.path_bytes().into_owned();
        let sparse = SparseMap::announced(entry).map_err(|problem| member_error(&name, problem))?;
        if let Some(sparse) = &sparse {
            name.clone_from(&sparse.name);
        }
        let path = self.relative_path(&name)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let is_directory = kind == EntryType::Directory || (kind.is_file() && name.ends_with(b"/"));
        if path.as_os_str().is_empty() {
            // The destination itself ("./") keeps its own mode.
            return if is_directory {
                Ok(())
            } else {
                Err(member_error(&name, "has no name: leave it out."))
            };
        }
        match kind {
            _ if is_directory => self.directory(&name, &path, mode),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let modified = entry.header().mtime().ok();
                match sparse {
                    Some(sparse) => {
                        let size = sparse.size;
                        let content = sparse.expand(entry).map_err(|problem| member_error(&name, problem))?;
                        self.file(&name, &path, content, size, mode, modified)
                    }
                    None => {
                        let size = entry.size();
                        self.file(&name, &path, entry, size, mode, modified)
                    }
                }
            }
            EntryType::Symlink => {
                let target = link_target(entry, &name)?;
                self.symbolic_link(&name, &path, &target)
            }
            EntryType::Link => {
                let target = link_target(entry, &name)?;
                self.hard_link(&name, &path, &target)
            }
            EntryType::Char | EntryType::Block => Err(member_error(&name, "is a device: leave it out.")),
            EntryType::Fifo => Err(member_error(&name, "is a FIFO: leave it out.")),
            other => Err(member_error(
                &name,
                format!("is of an unknown kind ({:?}): leave it out.", char::from(other.as_byte())),
            )),
        }
    }

    /// The member's place below the destination, without `.` parts.
    pub(super) fn relative_path(&self, name: &[u8]) -> Result<PathBuf, ArchiveError> {
        if name.len() > self.limits.max_path {
            let problem = format!("has a name of more than {} bytes: shorten it.", self.limits.max_path);
            return Err(member_error(&name[..80.min(name.len())], problem));
        }
        // The SageMaker SDK writes the folder itself as a member named `/`.
        if name.starts_with(b"/") && name.iter().any(|byte| *byte != b'/') {
            return Err(member_error(
                name,
                "has an absolute name: make the archive with 'tar -C DIRECTORY'.",
            ));
        }
        if name.contains(&0) {
            return Err(member_error(name, "has a NUL byte in its name: rename it."));
        }
        let mut path = PathBuf::new();
        for part in name.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    return Err(member_error(
                        name,
                        "has '..' in its name: make the archive from inside the directory.",
                    ));
                }
                part => path.push(OsStr::from_bytes(part)),
            }
        }
        Ok(path)
    }

    /// Makes a directory, or gives the one that is there its mode.
    pub(super) fn directory(&mut self, name: &[u8], path: &Path, mode: u32) -> Result<(), ArchiveError> {
        let directory = self.open_directory(name, path)?;
        // The owner can always enter, or the members below could not be unpacked.
        let mode = Mode::from_raw_mode(mode | 0o700);
        rustix::fs::chmodat(&*directory, ".", mode, AtFlags::empty())
            .map_err(|error| io_error(format!("Setting the mode of {}", path.display()))(error.into()))
    }

    /// Writes a file of `size` bytes, in place of what has its name.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        path: &Path,
        mut content: impl Read,
        size: u64,
        mode: u32,
        modified: Option<u64>,
    ) -> Result<(), ArchiveError> {
        let (parent, leaf) = self.place(name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let during = || io_error(format!("Writing {}", path.display()));
        let file = rustix::fs::openat(&*parent, leaf, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| during()(error.into()))?;
        let mut file = File::from(file);
        let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(size).unwrap_or(COPY_BYTES).max(1))];
        let mut written = 0;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(error)),
            };
            written += count as u64;
            self.summary.bytes += count as u64;
            if self.summary.bytes > self.limits.max_bytes {
                return Err(ArchiveError::TooManyBytes { max_bytes: self.limits.max_bytes });
            }
            file.write_all(&buffer[..count]).map_err(during())?;
        }
        if written != size {
            return Err(ArchiveError::Truncated);
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode | 0o600))
            .map_err(|error| during()(error.into()))?;
        if let Some(seconds) = modified.and_then(|seconds| i64::try_from(seconds).ok()) {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            // A file system that cannot hold such a time keeps the present one.
            let _ = rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time });
        }
        Ok(())
    }

    /// Makes a link whose target stays inside as text; where it leads is judged at the end.
    pub(super) fn symbolic_link(
        &mut self,
        name: &[u8],
        path: &Path,
        target: &[u8],
    ) -> Result<(), ArchiveError> {
        let depth = path.components().count() - 1;
        if target.is_empty() || target.contains(&0) || target.len() > self.limits.max_path {
            return Err(member_error(name, "is a link with an impossible target: leave it out."));
        }
        if !stays_inside(depth, target) {
            return Err(leads_outside(name, target));
        }
        let (parent, leaf) = self.place(name, path)?;
        rustix::fs::symlinkat(target, &*parent, leaf)
            .map_err(|error| io_error(format!("Making the link {}", path.display()))(error.into()))?;
        self.links.push(path.to_owned());
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], path: &Path, target: &[u8]) -> Result<(), ArchiveError> {
        let target_path = self.relative_path(target).map_err(|_| leads_outside(name, target))?;
        if target_path == path {
            return Ok(());
        }
        let not_there = || {
            member_error(
                name,
                format!("is a link to {:?}, which is no earlier file of the archive.", lossy(target)),
            )
        };
        let target_leaf = target_path.file_name().ok_or_else(not_there)?.to_owned();
        let target_parent = target_path.parent().unwrap_or(Path::new(""));
        let target_parent = self.open_existing(target_parent).map_err(|_| not_there())?;
        let stat = rustix::fs::statat(&target_parent, &*target_leaf, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| not_there())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_there());
        }
        let (parent, leaf) = self.place(name, path)?;
        rustix::fs::linkat(&target_parent, &*target_leaf, &*parent, leaf, AtFlags::empty())
            .map_err(|error| io_error(format!("Making the link {}", path.display()))(error.into()))
    }

    /// The open directory for a new entry and the entry's name, with what was there before removed.
    fn place<'p>(&mut self, name: &[u8], path: &'p Path) -> Result<(Rc<OwnedFd>, &'p OsStr), ArchiveError> {
        let leaf = path.file_name().ok_or_else(|| member_error(name, "has no name: leave it out."))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let parent = match &self.parent {
            Some((open, handle)) if open == directory => Rc::clone(handle),
            _ => {
                let handle = self.open_directory(name, directory)?;
                self.parent = Some((directory.to_owned(), Rc::clone(&handle)));
                handle
            }
        };
        // A later member of the same name replaces the earlier; writing through it could write elsewhere.
        match rustix::fs::unlinkat(&*parent, leaf, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok((parent, leaf)),
            Err(rustix::io::Errno::ISDIR) => Err(member_error(name, "would replace a directory: rename it.")),
            Err(error) => Err(io_error(format!("Replacing {}", path.display()))(error.into())),
        }
    }

    /// Opens a directory below the destination, making what is missing, never through a link.
    fn open_directory(&mut self, name: &[u8], path: &Path) -> Result<Rc<OwnedFd>, ArchiveError> {
        let refuse = |error: rustix::io::Errno| match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => member_error(
                name,
                "lies behind a link or a file instead of a directory: archive it at its real place.",
            ),
            error => io_error(format!("Making the directory {}", path.display()))(error.into()),
        };
        match self.open_existing(path) {
            Ok(directory) => return Ok(Rc::new(directory)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(refuse(error)),
        }
        let mut made = PathBuf::new();
        let mut directory = self.open_existing(&made).map_err(refuse)?;
        for part in path.components() {
            match rustix::fs::mkdirat(&directory, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(refuse(error)),
            }
            made.push(part);
            directory = self.open_existing(&made).map_err(refuse)?;
        }
        Ok(Rc::new(directory))
    }

    fn open_existing(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Several links, each harmless as text, can lead outside together: the kernel follows them and tells.
    pub(super) fn check_links(&self) -> Result<(), ArchiveError> {
        for path in &self.links {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH);
            // Any other error means that it leads nowhere, in circles or into something closed: harmless.
            if let Err(rustix::io::Errno::XDEV) = opened {
                let _ = rustix::fs::unlinkat(&self.root, path, AtFlags::empty());
                let name = path.as_os_str().as_bytes();
                return Err(member_error(name, "is a link that leads outside of the archive: leave it out."));
            }
        }
        Ok(())
    }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, name: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let target = entry.link_name_bytes().map(|target| target.into_owned());
    target.ok_or_else(|| member_error(name, "is a link without a target: leave it out."))
}

fn leads_outside(name: &[u8], target: &[u8]) -> ArchiveError {
    member_error(name, format!("is a link to {:?}, outside of the archive: leave it out.", lossy(target)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
