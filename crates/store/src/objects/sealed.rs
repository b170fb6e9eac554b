//! The form of encrypted files: a salt, then segments of 64 KiB, each sealed by itself, so that a range can be read alone.
//!
//! A file's key is derived from the object's data key with the salt, and is used for nothing else. The nonce of a segment is
//! its number and whether it is the last: exchanged, repeated, missing and cut off segments do not open.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use failpoint::Point;

use super::remote_reader::RemoteReader;
use crate::seal::{Cipher, SALT_BYTES, SecretKey, TAG_BYTES, fill_random};

/// Bytes of an object in one segment; only the last may have fewer.
pub const SEGMENT_BYTES: usize = 64 * 1024;

fn file_cipher(data_key: &SecretKey, salt: &[u8]) -> Cipher {
    data_key.derive(salt, &[b"file"]).cipher()
}

fn nonce(segment: u64, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&segment.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

/// Encrypts what is written on its way to a file.
pub struct Sealer {
    cipher: Cipher,
    salt: [u8; SALT_BYTES],
    segment: u64,
    pending: Vec<u8>,
}

impl Sealer {
    /// Begins a file with its salt.
    pub fn begin(data_key: &SecretKey, file: &mut File) -> io::Result<Sealer> {
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt);
        file.write_all(&salt)?;
        let pending = Vec::with_capacity(SEGMENT_BYTES + TAG_BYTES);
        Ok(Sealer { cipher: file_cipher(data_key, &salt), salt, segment: 0, pending })
    }

    /// The salt of the file; nobody can guess it.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Appends bytes.
    pub fn write(&mut self, file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
        let mut sealed =
            Vec::with_capacity(bytes.len() + bytes.len() / SEGMENT_BYTES * TAG_BYTES + SEGMENT_BYTES);
        while !bytes.is_empty() {
            // A full segment waits for the byte after it: only then it is not the last.
            if self.pending.len() == SEGMENT_BYTES {
                self.seal(false);
                sealed.append(&mut self.pending);
            }
            let (now, later) = bytes.split_at(bytes.len().min(SEGMENT_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
        }
        failpoint::write_all(Point::ObjectWrite, file, &sealed)
    }

    /// Writes the last segment.
    pub fn finish(mut self, file: &mut File) -> io::Result<()> {
        self.seal(true);
        failpoint::write_all(Point::ObjectWrite, file, &self.pending)
    }

    fn seal(&mut self, is_last: bool) {
        self.cipher.seal(nonce(self.segment, is_last), b"", &mut self.pending);
        self.segment += 1;
    }
}

/// An object's bytes, whatever form its file has.
pub struct ObjectFile(Form);

enum Form {
    Plain(File),
    Sealed(Box<Sealed>),
    Remote(Box<RemoteReader>),
}

struct Sealed {
    file: File,
    cipher: Cipher,
    size: u64,
    position: u64,
    /// The segment that was opened last, with its number.
    open: Option<(u64, Vec<u8>)>,
}

impl ObjectFile {
    /// Of a file that holds just the bytes.
    pub fn plain(file: File) -> ObjectFile {
        ObjectFile(Form::Plain(file))
    }

    /// Of a file that a [`Sealer`] wrote, with `size` bytes before it was encrypted.
    pub fn sealed(file: File, data_key: &SecretKey, size: u64) -> io::Result<ObjectFile> {
        let mut salt = [0; SALT_BYTES];
        file.read_exact_at(&mut salt, 0).map_err(cut_off)?;
        let cipher = file_cipher(data_key, &salt);
        Ok(ObjectFile(Form::Sealed(Box::new(Sealed { file, cipher, size, position: 0, open: None }))))
    }

    /// Of an object of a remote bucket. It is not read on an async thread.
    pub(super) fn remote(reader: RemoteReader) -> ObjectFile {
        ObjectFile(Form::Remote(Box::new(reader)))
    }

    /// Says that nothing will be read beyond `end`; what has to be fetched is fetched no further then.
    pub fn until(&mut self, end: u64) {
        if let Form::Remote(reader) = &mut self.0 {
            reader.until(end);
        }
    }

    /// The file itself, where it holds just the bytes.
    pub fn plain_file(&mut self) -> Option<&mut File> {
        match &mut self.0 {
            Form::Plain(file) => Some(file),
            Form::Sealed(_) | Form::Remote(_) => None,
        }
    }
}

impl Sealed {
    /// The bytes of the segment at the position, from the position on.
    fn rest_of_segment(&mut self) -> io::Result<&[u8]> {
        let segment_bytes = SEGMENT_BYTES as u64;
        let segment = self.position / segment_bytes;
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let mut bytes = self.open.take().map(|(_, bytes)| bytes).unwrap_or_default();
            let length = segment_bytes.min(self.size - segment * segment_bytes) as usize;
            bytes.resize(length + TAG_BYTES, 0);
            let at = SALT_BYTES as u64 + segment * (segment_bytes + TAG_BYTES as u64);
            self.file.read_exact_at(&mut bytes, at).map_err(cut_off)?;
            let is_last = (segment + 1) * segment_bytes >= self.size;
            let opened = self.cipher.open(nonce(segment, is_last), b"", &mut bytes);
            opened.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.open = Some((segment, bytes));
        }
        let within = (self.position % segment_bytes) as usize;
        Ok(self.open.as_ref().and_then(|(_, bytes)| bytes.get(within..)).unwrap_or_default())
    }
}

fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::InvalidData, "the file of an encrypted object was cut off")
        }
        _ => error,
    }
}

impl Read for ObjectFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let sealed = match &mut self.0 {
            Form::Plain(file) => return file.read(buffer),
            Form::Remote(reader) => return reader.read(buffer),
            Form::Sealed(sealed) => sealed,
        };
        let mut read = 0;
        while read < buffer.len() && sealed.position < sealed.size {
            let bytes = sealed.rest_of_segment()?;
            let count = bytes.len().min(buffer.len() - read);
            buffer[read..read + count].copy_from_slice(&bytes[..count]);
            sealed.position += count as u64;
            read += count;
        }
        Ok(read)
    }
}

impl Seek for ObjectFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let sealed = match &mut self.0 {
            Form::Plain(file) => return file.seek(to),
            Form::Remote(reader) => return reader.seek(to),
            Form::Sealed(sealed) => sealed,
        };
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => sealed.position.checked_add_signed(by),
            SeekFrom::End(by) => sealed.size.checked_add_signed(by),
        };
        sealed.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(sealed.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(data_key: &SecretKey, pieces: &[&[u8]]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let mut sealer = Sealer::begin(data_key, &mut file).unwrap();
        for piece in pieces {
            sealer.write(&mut file, piece).unwrap();
        }
        sealer.finish(&mut file).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn opened(data_key: &SecretKey, sealed: &[u8], size: usize, from: u64) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(sealed).unwrap();
        let mut object = ObjectFile::sealed(file, data_key, size as u64)?;
        object.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn pattern(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[test]
    fn every_size_and_range_comes_back() {
        let key = SecretKey::random();
        for size in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES, 200_000] {
            let bytes = pattern(size);
            let (first, second) = bytes.split_at(size / 3);
            let stored = sealed(&key, &[first, second]);
            let segments = size.div_ceil(SEGMENT_BYTES).max(1);
            assert_eq!(stored.len(), SALT_BYTES + size + segments * TAG_BYTES);
            for from in [0, size / 2, size.saturating_sub(1), size] {
                assert_eq!(opened(&key, &stored, size, from as u64).unwrap(), bytes[from..], "{size} {from}");
            }
        }
    }

    #[test]
    fn changed_files_do_not_open() {
        let key = SecretKey::random();
        let size = 2 * SEGMENT_BYTES + 10;
        let stored = sealed(&key, &[&pattern(size)]);
        let step = SEGMENT_BYTES + TAG_BYTES;
        let refused = |bytes: &[u8], size: usize| assert!(opened(&key, bytes, size, 0).is_err());
        assert!(opened(&SecretKey::random(), &stored, size, 0).is_err(), "another key");
        let mut flipped = stored.clone();
        flipped[SALT_BYTES + step + 5] ^= 1;
        refused(&flipped, size);
        let mut exchanged = stored.clone();
        exchanged[SALT_BYTES..SALT_BYTES + 2 * step].rotate_left(step);
        refused(&exchanged, size);
        refused(&stored[..stored.len() - 1], size);
        // Cut at the end of a segment, with a row that says so: the segment is not marked as the last.
        refused(&stored[..SALT_BYTES + 2 * step], 2 * SEGMENT_BYTES);
        refused(&stored, size + 1);
        refused(&stored[..SALT_BYTES - 1], 0);
    }
}
