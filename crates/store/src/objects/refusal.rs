//! Why the object store refuses a request.

/// A rule of S3 that a request breaks; each has a code of its own there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name breaks the rules for bucket names.
    #[error("{0:?} is not a legal bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens")]
    BucketName(String),
    /// An object needs a key.
    #[error("an object key must not be empty")]
    KeyEmpty,
    /// The key cannot be the path of a plain file in a folder.
    #[error(
        "the key {0:?} cannot be the path of a file in this folder: a name in it is empty, too long, `.` or `..`, or belongs to a folder, a file or a link already"
    )]
    NoFileName(String),
    /// Something that a bucket which is a folder of the machine does not do.
    #[error("the bucket is a folder of this machine: {0}")]
    OfFolder(&'static str),
    /// Something that a bucket which lies in another store does not do.
    #[error("the bucket lies in a remote store: {0}")]
    OfRemote(&'static str),
    /// The key is longer than [`super::names::LONGEST_KEY_BYTES`].
    #[error("an object key has at most {} bytes in UTF-8", super::names::LONGEST_KEY_BYTES)]
    KeyTooLong,
    /// A completion names no part.
    #[error("a completion must name at least one part")]
    NoParts,
    /// A completion names its parts out of order.
    #[error("the parts must be named in ascending order")]
    PartOrder,
    /// A completion names a part that is not there, or with another entity tag or checksum.
    #[error("part {0} was not uploaded, or its entity tag or checksum is another")]
    Part(u32),
    /// A part other than the last is below [`super::SMALLEST_PART_BYTES`].
    #[error("part {0} is smaller than 5 MiB, and it is not the last")]
    PartTooSmall(u32),
}
