//! Reading a stream file line by line, forwards and backwards, in blocks of bounded size.
//!
//! Files are opened per block: a filter over thousands of streams holds no descriptors, and a file that is deleted meanwhile
//! just ends. Of a file that was trimmed the beginning reads as zeros, and takes no room; offsets stay what they were.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes that a scan reads at once.
pub(super) const SCAN_BLOCK_BYTES: usize = 64 * 1024;

/// Bytes that a look at a few lines reads at once.
const PROBE_BLOCK_BYTES: usize = 4 * 1024;

/// Longer lines are stepped over: no writer of ours makes them, and they must not fill the memory.
const MOST_LINE_BYTES: usize = 4 * 1024 * 1024;

/// A whole line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Where it starts.
    pub offset: u64,
    /// Where the next one starts.
    pub end: u64,
    /// Its bytes, without the newline.
    pub bytes: &'a [u8],
}

/// Fills `buffer` from `offset` on; returns fewer bytes only at the end of the file, none where there is no file.
fn read_at(path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Size of the file; zero where there is none.
pub(super) fn length(path: &Path) -> io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Where the lines of the file start: behind what was trimmed.
pub(super) fn start(path: &Path) -> io::Result<u64> {
    let mut first = [b'\n'];
    read_at(path, 0, &mut first)?;
    if first != [0] {
        return Ok(0);
    }
    let mut offset = match seek(&File::open(path)?, SeekFrom::Data(0)) {
        // A file system that knows no holes is read through.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => 0,
        Err(Errno::NXIO) => return length(path),
        sought => sought?,
    };
    let mut block = vec![0; SCAN_BLOCK_BYTES];
    loop {
        let filled = read_at(path, offset, &mut block)?;
        match block[..filled].iter().position(|byte| *byte != 0) {
            Some(at) => return Ok(offset + at as u64),
            None if filled == 0 => return Ok(offset),
            None => offset += filled as u64,
        }
    }
}

/// The last start of a line at or before `offset`, which may lie beyond the file. A torn last line is not passed. It is the start
/// of the file where everything before has been trimmed.
pub(super) fn boundary_at_or_before(path: &Path, offset: u64) -> io::Result<u64> {
    let mut end = offset.min(length(path)?);
    // Mostly the offset is a boundary already, and one byte shows it.
    let mut last = [0];
    if end > 0 && read_at(path, end - 1, &mut last)? == 1 && last == [b'\n'] {
        return Ok(end);
    }
    let floor = start(path)?;
    while end > floor {
        let from = end.saturating_sub(SCAN_BLOCK_BYTES as u64).max(floor);
        let mut block = vec![0; (end - from) as usize];
        let filled = read_at(path, from, &mut block)?;
        if let Some(at) = block[..filled].iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(floor)
}

/// Lines from an offset on.
pub(super) struct ForwardLines {
    path: PathBuf,
    block_bytes: usize,
    /// Unread bytes are `buffer[taken..]`; those before `searched` hold no newline.
    buffer: Vec<u8>,
    taken: usize,
    searched: usize,
    /// Where the next line starts, and where the next block does.
    line_offset: u64,
    block_offset: u64,
    /// Whether the start of an overlong line has been dropped.
    dropping: bool,
}

impl ForwardLines {
    /// `offset` is the start of a line.
    pub fn new(path: &Path, offset: u64) -> ForwardLines {
        ForwardLines::with_block(path, offset, SCAN_BLOCK_BYTES)
    }

    /// For a look at one or two lines. `offset` may be anywhere; the first line is then the rest of one.
    pub fn for_probe(path: &Path, offset: u64) -> ForwardLines {
        ForwardLines::with_block(path, offset, PROBE_BLOCK_BYTES)
    }

    fn with_block(path: &Path, offset: u64, block_bytes: usize) -> ForwardLines {
        ForwardLines {
            path: path.to_owned(),
            block_bytes,
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
            line_offset: offset,
            block_offset: offset,
            dropping: false,
        }
    }

    /// Start of the line that [`Self::next`] returns next.
    pub fn position(&self) -> u64 {
        self.line_offset
    }

    /// The next whole line; `None` at the end of the file, and more once the file has grown.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            match find_newline(&self.buffer[self.searched..]) {
                Some(length) => {
                    let (start, newline) = (self.taken, self.searched + length);
                    let offset = self.line_offset;
                    self.taken = newline + 1;
                    self.searched = self.taken;
                    self.line_offset = self.block_offset - (self.buffer.len() - self.taken) as u64;
                    if std::mem::take(&mut self.dropping) {
                        continue;
                    }
                    let bytes = &self.buffer[start..newline];
                    let trimmed = trimmed_bytes(bytes);
                    return Ok(Some(Line {
                        offset: offset + trimmed as u64,
                        end: self.line_offset,
                        bytes: &bytes[trimmed..],
                    }));
                }
                None => {
                    if !self.fill()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads one more block; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() > MOST_LINE_BYTES {
            self.dropping = true;
        }
        if self.dropping {
            self.buffer.clear();
        }
        self.searched = self.buffer.len();
        self.buffer.resize(self.searched + self.block_bytes, 0);
        let filled = read_at(&self.path, self.block_offset, &mut self.buffer[self.searched..])?;
        self.buffer.truncate(self.searched + filled);
        self.block_offset += filled as u64;
        // The file may be trimmed while it is read.
        if trimmed_bytes(&self.buffer) == self.buffer.len() {
            self.buffer.clear();
            self.searched = 0;
            self.line_offset = self.block_offset;
        }
        Ok(filled > 0)
    }
}

/// Lines before an offset, the last one first.
pub(super) struct BackwardLines {
    path: PathBuf,
    block_bytes: usize,
    block: Vec<u8>,
    block_offset: u64,
    /// Start and end (with newline) within the block of the lines not yet returned, in file order.
    pending: Vec<(usize, usize)>,
    /// Start of the line returned last: a boundary.
    end: u64,
}

impl BackwardLines {
    /// `offset` is the start of a line, or the end of the last one.
    pub fn new(path: &Path, offset: u64) -> BackwardLines {
        BackwardLines {
            path: path.to_owned(),
            block_bytes: SCAN_BLOCK_BYTES,
            block: Vec::new(),
            block_offset: offset,
            pending: Vec::new(),
            end: offset,
        }
    }

    /// For a look at a few lines.
    pub fn for_probe(path: &Path, offset: u64) -> BackwardLines {
        BackwardLines { block_bytes: PROBE_BLOCK_BYTES, ..BackwardLines::new(path, offset) }
    }

    /// The line before; `None` at the start of the file.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        while self.pending.is_empty() {
            if self.end == 0 {
                return Ok(None);
            }
            self.fill()?;
        }
        let Some((start, end)) = self.pending.pop() else { return Ok(None) };
        let line_end = self.block_offset + end as u64;
        self.end = self.block_offset + start as u64;
        let bytes = &self.block[start..end - 1];
        let trimmed = trimmed_bytes(bytes);
        Ok(Some(Line { offset: self.end + trimmed as u64, end: line_end, bytes: &bytes[trimmed..] }))
    }

    /// Reads the block that ends at `end`, larger and larger until it holds the start of a line.
    fn fill(&mut self) -> io::Result<()> {
        let mut block_bytes = self.block_bytes;
        loop {
            let start = self.end.saturating_sub(block_bytes as u64);
            self.block.resize((self.end - start) as usize, 0);
            let filled = read_at(&self.path, start, &mut self.block)?;
            self.block_offset = start;
            if filled < self.block.len() || trimmed_bytes(&self.block) == filled {
                // The file was cut or deleted meanwhile, or everything before has been trimmed.
                self.end = 0;
                return Ok(());
            }
            let first = match start {
                0 => Some(0),
                _ => find_newline(&self.block).map(|at| at + 1).filter(|first| *first < filled),
            };
            if let Some(mut from) = first {
                while let Some(length) = find_newline(&self.block[from..]) {
                    self.pending.push((from, from + length + 1));
                    from += length + 1;
                }
                if self.pending.is_empty() {
                    self.end = 0;
                }
                return Ok(());
            }
            if block_bytes > MOST_LINE_BYTES {
                self.end = boundary_at_or_before(&self.path, start)?;
                return Ok(());
            }
            block_bytes *= 2;
        }
    }
}

/// How many bytes at the beginning were trimmed. No line begins with a zero.
fn trimmed_bytes(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// The standard library's search, which is compiled with optimisation whatever the profile.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let length = io::BufRead::skip_until(&mut &*bytes, b'\n').expect("reading memory cannot fail");
    let last = length.checked_sub(1)?;
    (bytes[last] == b'\n').then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stream.log");
        std::fs::write(&path, content).unwrap();
        (directory, path)
    }

    fn forward(path: &Path, offset: u64, block_bytes: usize) -> Vec<(u64, u64, Vec<u8>)> {
        let mut lines = ForwardLines::with_block(path, offset, block_bytes);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.offset, line.end, line.bytes.to_vec()));
        }
        found
    }

    fn backward(path: &Path, offset: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let mut lines = BackwardLines::new(path, offset);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.offset, line.end, line.bytes.to_vec()));
        }
        found
    }

    #[test]
    fn both_directions_see_the_same_lines_whatever_the_block_size() {
        let mut content = Vec::new();
        for number in 0..3_000_usize {
            content.extend_from_slice("x".repeat(number * 7 % 190).as_bytes());
            content.push(b'\n');
        }
        content.extend_from_slice(&vec![b'y'; 3 * SCAN_BLOCK_BYTES]);
        content.extend_from_slice(b"\nlast\ntorn");
        let (_directory, path) = file(&content);
        let whole = boundary_at_or_before(&path, u64::MAX).unwrap();
        assert_eq!(whole, content.len() as u64 - 4);
        let mut expected = backward(&path, whole);
        expected.reverse();
        assert_eq!(expected.len(), 3_002);
        assert_eq!(expected.last().unwrap().2, b"last");
        for block_bytes in [13, 100, SCAN_BLOCK_BYTES, 1 << 20] {
            assert_eq!(forward(&path, 0, block_bytes), expected, "{block_bytes}");
        }
    }

    #[test]
    fn a_torn_line_appears_once_it_is_whole() {
        let (_directory, path) = file(b"1 a\n2 b");
        let mut lines = ForwardLines::new(&path, 0);
        assert_eq!(lines.next().unwrap().unwrap().bytes, b"1 a");
        assert!(lines.next().unwrap().is_none());
        assert_eq!(lines.position(), 4);
        std::fs::write(&path, b"1 a\n2 bc\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap().bytes, b"2 bc");
        assert_eq!(lines.position(), 9);
    }

    #[test]
    fn an_overlong_line_is_stepped_over() {
        let mut content = b"1 first\n".to_vec();
        content.extend_from_slice(&vec![b'z'; MOST_LINE_BYTES * 2 + 12_345]);
        content.extend_from_slice(b"\n2 second\n");
        let (_directory, path) = file(&content);
        let texts =
            |lines: Vec<(u64, u64, Vec<u8>)>| lines.into_iter().map(|line| line.2).collect::<Vec<_>>();
        assert_eq!(texts(forward(&path, 0, SCAN_BLOCK_BYTES)), [b"1 first".to_vec(), b"2 second".to_vec()]);
        assert_eq!(texts(backward(&path, content.len() as u64)), [b"2 second".to_vec(), b"1 first".to_vec()]);
    }

    #[test]
    fn lines_behind_a_hole_keep_their_offsets() {
        let mut content = vec![0; 3 * SCAN_BLOCK_BYTES + 17];
        let hole = content.len() as u64;
        content.extend_from_slice(b"1 a\n2 b\n");
        let (_directory, path) = file(&content);
        assert_eq!(start(&path).unwrap(), hole);
        let expected = [(hole, hole + 4, b"1 a".to_vec()), (hole + 4, hole + 8, b"2 b".to_vec())];
        for from in [0, 5, SCAN_BLOCK_BYTES as u64, hole] {
            assert_eq!(forward(&path, from, SCAN_BLOCK_BYTES), expected, "{from}");
        }
        let mut lines = backward(&path, hole + 8);
        lines.reverse();
        assert_eq!(lines, expected);
        for offset in [0, 1, hole - 1, hole, hole + 3] {
            assert_eq!(boundary_at_or_before(&path, offset).unwrap(), hole);
        }
        assert_eq!(boundary_at_or_before(&path, hole + 5).unwrap(), hole + 4);
        let (_directory, path) = file(&[0; 100]);
        assert_eq!((start(&path).unwrap(), forward(&path, 0, 13)), (100, Vec::new()));
        assert_eq!(boundary_at_or_before(&path, u64::MAX).unwrap(), 100);
    }

    #[test]
    fn boundaries_are_found_from_any_offset() {
        let (_directory, path) = file(b"ab\n\ncd\ne");
        let boundaries: Vec<u64> =
            (0..10).map(|offset| boundary_at_or_before(&path, offset).unwrap()).collect();
        assert_eq!(boundaries, [0, 0, 0, 3, 4, 4, 4, 7, 7, 7]);
        assert_eq!(boundary_at_or_before(Path::new("/nowhere/at/all"), 5).unwrap(), 0);
    }
}
