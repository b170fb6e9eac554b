//! Unpacks zip archives by the same rules as tar archives: nothing outside the destination is read or written.

use std::io::{Read, Seek};
use std::path::Path;

use ::zip::ZipArchive;
use ::zip::result::ZipError;
use rustix::fs::{Mode, OFlags};

use super::extract::{ExtractSummary, Extraction, Limits};
use super::{ArchiveError, io_error, member_error};

/// Unpacks a zip archive into `destination`, an existing directory that nobody else changes meanwhile.
///
/// Members may be files, directories, and symbolic links that stay inside. Everybody may read what was unpacked, whatever the
/// archive says: zip archives made by programs often forget it. After an error part of the content may be there: remove the
/// destination. Blocks; call it from a thread that may.
///
/// # Errors
/// When the archive is damaged, too large, or has a member that is not acceptable.
pub fn extract_zip(
    reader: impl Read + Seek,
    destination: &Path,
    limits: Limits,
) -> Result<ExtractSummary, ArchiveError> {
    let mut archive = ZipArchive::new(reader).map_err(unreadable)?;
    if archive.len() as u64 > limits.max_members {
        return Err(ArchiveError::TooManyMembers { max_members: limits.max_members });
    }
    let root =
        rustix::fs::open(destination, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io_error(format!("Opening {}", destination.display()))(error.into()))?;
    let mut extraction = Extraction::into(root, limits);
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(unreadable)?;
        let name = member.name_raw().to_vec();
        let mode = member.unix_mode().unwrap_or(0o644);
        extraction.count()?;
        let path = extraction.relative_path(&name)?;
        if member.is_dir() {
            if !path.as_os_str().is_empty() {
                extraction.directory(&name, &path, 0o755)?;
            }
            continue;
        }
        if path.as_os_str().is_empty() {
            return Err(member_error(&name, "has no name: leave it out."));
        }
        let size = member.size();
        if member.is_symlink() {
            let mut target = Vec::new();
            let most = limits.max_path as u64 + 1;
            (&mut member).take(most).read_to_end(&mut target).map_err(|error| broken(&name, &error))?;
            extraction.symbolic_link(&name, &path, &target)?;
        } else {
            let readable = (mode & 0o111) | 0o644;
            extraction.file(&name, &path, &mut member, size, readable, None)?;
        }
    }
    extraction.check_links()?;
    Ok(extraction.summary())
}

/// The content of one file of a zip archive, of at most `most_bytes`; `None` when there is no such file or it is longer. Blocks.
///
/// # Errors
/// When the archive is damaged.
pub fn read_zip_member(
    reader: impl Read + Seek,
    name: &str,
    most_bytes: u64,
) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut archive = ZipArchive::new(reader).map_err(unreadable)?;
    let member = match archive.by_name(name) {
        Ok(member) if member.is_file() => member,
        Ok(_) | Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut content = Vec::new();
    member.take(most_bytes + 1).read_to_end(&mut content).map_err(|error| broken(name.as_bytes(), &error))?;
    Ok((content.len() as u64 <= most_bytes).then_some(content))
}

fn broken(name: &[u8], error: &std::io::Error) -> ArchiveError {
    member_error(name, format!("cannot be read: {error}."))
}

fn unreadable(error: ZipError) -> ArchiveError {
    ArchiveError::NotZip(match error {
        ZipError::UnsupportedArchive(what) => what.to_owned(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use ::zip::ZipWriter;
    use ::zip::write::SimpleFileOptions;

    use super::*;

    fn made(members: &[(&str, &[u8], u32)]) -> Cursor<Vec<u8>> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, mode) in members {
            writer.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn files_come_out_readable_and_programs_stay_programs() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let archive = made(&[("handler.py", b"x = 1\n", 0o600), ("bin/tool", b"#!/bin/sh\n", 0o700)]);
        let summary = extract_zip(archive, folder.path(), Limits::default()).unwrap();
        assert_eq!((summary.members, summary.bytes), (2, 16));
        let mode =
            |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("handler.py"), mode("bin/tool")), (0o644, 0o744));
        assert_eq!(std::fs::read(folder.path().join("handler.py")).unwrap(), b"x = 1\n");
    }

    #[test]
    fn one_file_is_read_up_to_a_limit() {
        let archive = || made(&[("a/b.txt", b"text", 0o600)]);
        assert_eq!(read_zip_member(archive(), "a/b.txt", 4).unwrap().unwrap(), b"text");
        assert_eq!(read_zip_member(archive(), "a/b.txt", 3).unwrap(), None);
        assert_eq!(read_zip_member(archive(), "a", 4).unwrap(), None);
        assert!(read_zip_member(Cursor::new(b"PK no archive".to_vec()), "a", 4).is_err());
    }

    #[test]
    fn nothing_leads_outside_and_bombs_stop() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |archive: Cursor<Vec<u8>>, limits: Limits| {
            extract_zip(archive, folder.path(), limits).unwrap_err().to_string()
        };
        let text = refused(made(&[("../escape.py", b"x", 0o644)]), Limits::default());
        assert!(text.contains("'..'"), "{text}");
        assert!(!folder.path().parent().unwrap().join("escape.py").exists());
        let text = refused(made(&[("/etc/x", b"x", 0o644)]), Limits::default());
        assert!(text.contains("absolute"), "{text}");
        let zeros = vec![0; 1_000_000];
        let text =
            refused(made(&[("zeros", &zeros, 0o644)]), Limits { max_bytes: 999_999, ..Limits::default() });
        assert!(text.contains("more than 999999 bytes"), "{text}");
        let text = refused(
            made(&[("a", b"", 0o644), ("b", b"", 0o644)]),
            Limits { max_members: 1, ..Limits::default() },
        );
        assert!(text.contains("more than 1 members"), "{text}");
        let text = refused(Cursor::new(b"not a zip".to_vec()), Limits::default());
        assert!(text.contains("zip"), "{text}");

        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("link", "../../etc", SimpleFileOptions::default()).unwrap();
        let text = refused(writer.finish().unwrap(), Limits::default());
        assert!(text.contains("outside of the archive"), "{text}");
    }
}
