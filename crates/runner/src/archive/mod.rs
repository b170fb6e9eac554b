//! Archives (`.tar.gz`, `.zip`) that come from, or are made of the work of, people who are not trusted.

mod create;
mod extract;
mod sparse;
mod zip;

use std::io;

pub use create::{Conflict, CreatedArchive, create_merged_tar_gz, create_tar_gz, is_same};
pub use extract::{ExtractSummary, Limits, extract_tar_gz};
pub use zip::{extract_zip, read_zip_member};

/// The compression level for artefacts. Measured on 128 MB of float weights and text, one core: level 1 takes
/// 1.5 s and gives 119 MB, level 2 takes 2.6 s and gives 102 MB, level 6 takes 3.4 s and gives 101 MB. On the
/// user's own disk time counts for more than size.
pub const FAST_LEVEL: u32 = 1;

/// Why an archive was refused or could not be made. Each text is one sentence for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It does not begin as a gzip file does.
    #[error("The archive is not compressed with gzip: make it with 'tar -czf'.")]
    NotGzip,
    /// It is no zip archive, or a damaged one.
    #[error("The archive is damaged or not a zip archive ({0}): make it with 'zip -r'.")]
    NotZip(String),
    /// It ends too early.
    #[error("The archive is cut off: upload it again, whole.")]
    Truncated,
    /// It is damaged, or no tar archive.
    #[error("The archive is damaged or not a tar archive ({0}): make it with 'tar -czf'.")]
    Unreadable(String),
    /// One member is not acceptable.
    #[error("The archive's member {name:?} {problem}")]
    Member {
        /// The member's name, odd bytes replaced.
        name: String,
        /// What is wrong with it and what to do, as the end of a sentence.
        problem: String,
    },
    /// Its files are larger than allowed, together.
    #[error("The archive unpacks to more than {max_bytes} bytes: make it smaller or raise the limit.")]
    TooManyBytes {
        /// The limit.
        max_bytes: u64,
    },
    /// It has more members than allowed.
    #[error("The archive has more than {max_members} members: put fewer files into it or raise the limit.")]
    TooManyMembers {
        /// The limit.
        max_members: u64,
    },
    /// The disk refused something.
    #[error("{action} failed: {source}.")]
    Io {
        /// What was being done.
        action: String,
        /// What came back.
        source: io::Error,
    },
}

/// A refusal of one member.
fn member_error(name: &[u8], problem: impl Into<String>) -> ArchiveError {
    ArchiveError::Member { name: String::from_utf8_lossy(name).into_owned(), problem: problem.into() }
}

/// A failure of the host's file system.
fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
    let action = action.into();
    move |source| ArchiveError::Io { action, source }
}

/// Whether a relative link target, read from a member in a directory `depth` levels below the top, stays
/// inside as text.
fn stays_inside(depth: usize, target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    let mut level = depth;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match level.checked_sub(1) {
                Some(up) => level = up,
                None => return false,
            },
            _ => level += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::stays_inside;

    #[test]
    fn link_targets_are_followed_as_text() {
        for (depth, target, expected) in [
            (0, "a", true),
            (0, "./a/../b", true),
            (0, "..", false),
            (0, "a/../..", false),
            (1, "..", true),
            (1, "../../x", false),
            (2, "../../x", true),
            (5, "/etc/passwd", false),
            (0, "a/../../a", false),
        ] {
            assert_eq!(stays_inside(depth, target.as_bytes()), expected, "{depth} {target}");
        }
    }
}
