//! Files with holes in the POSIX form that GNU tar writes (version 1.0: the map precedes the data).
//!
//! Format: <https://www.gnu.org/software/tar/manual/html_node/PAX-1.html>.

use std::io::{self, Read};

const BLOCK_BYTES: usize = 512;
/// More pieces than any real file has; the map is held in memory.
const MAX_PIECES: u64 = 100_000;

/// What a member's extended headers say about the file with holes that it holds.
pub(super) struct SparseMap {
    /// The file's real name.
    pub name: Vec<u8>,
    /// The file's size with its holes.
    pub size: u64,
}

impl SparseMap {
    /// Reads the extended headers; `None` for an ordinary member. The error ends the sentence "The member …".
    pub fn announced<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<Self>, String> {
        let Ok(Some(extensions)) = entry.pax_extensions() else { return Ok(None) };
        let (mut major, mut name, mut size, mut is_sparse) = (None, None, None, false);
        for extension in extensions {
            let extension = extension.map_err(|error| format!("has damaged headers ({error})."))?;
            let Some(key) = extension.key_bytes().strip_prefix(b"GNU.sparse.") else { continue };
            is_sparse = true;
            match key {
                b"major" => major = extension.value().ok().and_then(|value| value.parse::<u32>().ok()),
                b"name" => name = Some(extension.value_bytes().to_vec()),
                b"realsize" => size = extension.value().ok().and_then(|value| value.parse().ok()),
                _ => {}
            }
        }
        match (is_sparse, major, name, size) {
            (false, ..) => Ok(None),
            (true, Some(1), Some(name), Some(size)) => Ok(Some(Self { name, size })),
            _ => {
                Err("is stored with holes in an outdated form: make the archive without --sparse.".to_owned())
            }
        }
    }

    /// The file's content, holes filled with zeros.
    pub fn expand<R: Read>(self, mut entry: R) -> Result<impl Read, String> {
        let pieces =
            read_map(&mut entry).map_err(|error| format!("has a damaged map of its holes ({error})."))?;
        let mut end = 0;
        for &(offset, length) in &pieces {
            let piece_end =
                offset.checked_add(length).filter(|&piece_end| offset >= end && piece_end <= self.size);
            end = piece_end.ok_or("has a map of its holes that contradicts itself.")?;
        }
        Ok(Expansion { entry, pieces: pieces.into_iter().peekable(), position: 0, size: self.size })
    }
}

/// Lines of decimal numbers, the count of pieces first, then offset and length of each; filled up to whole
/// blocks.
fn read_map(entry: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut block = [0; BLOCK_BYTES];
    let mut position = BLOCK_BYTES;
    let mut number = || -> io::Result<u64> {
        let mut value: u64 = 0;
        loop {
            if position == BLOCK_BYTES {
                entry.read_exact(&mut block)?;
                position = 0;
            }
            let byte = block[position];
            position += 1;
            value = match byte {
                b'\n' => return Ok(value),
                b'0'..=b'9' => {
                    value.checked_mul(10).and_then(|value| value.checked_add(u64::from(byte - b'0')))
                }
                _ => None,
            }
            .ok_or_else(|| io::Error::other("a number is expected"))?;
        }
    };
    let count = number()?;
    if count > MAX_PIECES {
        return Err(io::Error::other("too many pieces"));
    }
    (0..count).map(|_| Ok((number()?, number()?))).collect()
}

struct Expansion<R> {
    entry: R,
    /// Offset and length of the data still to come.
    pieces: std::iter::Peekable<std::vec::IntoIter<(u64, u64)>>,
    position: u64,
    size: u64,
}

impl<R: Read> Read for Expansion<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pieces.next_if(|&(offset, length)| self.position >= offset + length).is_some() {}
        let (is_data, until) = match self.pieces.peek() {
            Some(&(offset, length)) if self.position >= offset => (true, offset + length),
            Some(&(offset, _)) => (false, offset),
            None => (false, self.size),
        };
        let length = buffer.len().min(usize::try_from(until - self.position).unwrap_or(usize::MAX));
        let count = if is_data {
            self.entry.read(&mut buffer[..length])?
        } else {
            buffer[..length].fill(0);
            length
        };
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(map: &str, data: &[u8], size: u64) -> Result<Vec<u8>, String> {
        let mut stored = map.as_bytes().to_vec();
        stored.resize(stored.len().next_multiple_of(BLOCK_BYTES), 0);
        stored.extend_from_slice(data);
        let mut content = Vec::new();
        let sparse = SparseMap { name: b"x".to_vec(), size };
        sparse.expand(stored.as_slice())?.read_to_end(&mut content).map_err(|error| error.to_string())?;
        Ok(content)
    }

    #[test]
    fn holes_are_filled_with_zeros() {
        assert_eq!(expand("2\n2\n3\n7\n1\n", b"abcd", 10).unwrap(), b"\0\0abc\0\0d\0\0");
        assert_eq!(expand("1\n0\n2\n", b"ab", 2).unwrap(), b"ab");
        assert_eq!(expand("0\n", b"", 3).unwrap(), b"\0\0\0");
    }

    #[test]
    fn contradictory_maps_are_refused() {
        for map in [
            "1\n5\n9\n",
            "2\n4\n2\n3\n1\n",
            "1\n18446744073709551615\n2\n",
            "x\n",
            "999999999\n",
            "99999999999999999999999\n",
        ] {
            assert!(expand(map, b"abcdef", 10).is_err(), "{map:?}");
        }
    }
}
