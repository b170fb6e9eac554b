//! The output of one object while it grows: a file, and a journal of how far it is good and which input it stands for.
//!
//! Bytes are forced to the disk before the journal says so; whoever goes on cuts the file to what the journal says. So each record is in
//! the output once, wherever the server was killed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use failpoint::Point;
use serde::{Deserialize, Serialize};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;

/// How far an object is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes of the input, after it was unpacked.
    pub input_bytes: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// Records.
    pub records: u64,
    /// Whether there is no more input.
    pub is_end: bool,
}

/// The output of one object.
pub struct Spool {
    output: File,
    journal: File,
    gathered: Vec<u8>,
    position: Position,
}

impl Spool {
    /// Begins an output, or goes on where the journal of an earlier attempt ends. Blocks, as all of these functions do.
    pub fn open(folder: &Path, object: u64) -> io::Result<Spool> {
        let open =
            |path: PathBuf| File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut output = open(path_of(folder, object))?;
        // A step that is repeated may come before the last write of the one that was given up.
        output.lock()?;
        let mut journal = open(folder.join(format!("{object}.journal")))?;
        let mut text = String::new();
        journal.read_to_string(&mut text)?;
        let (position, kept) = last_position(&text);
        // What a crash left beyond the last good place stands for nothing.
        output.set_len(position.output_bytes)?;
        output.seek(SeekFrom::End(0))?;
        journal.set_len(kept as u64)?;
        journal.seek(SeekFrom::End(0))?;
        Ok(Spool { output, journal, gathered: Vec::new(), position })
    }

    /// How far it is, with what is not on the disk yet.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends the output of some records; `input_bytes` is where the input behind them begins.
    pub fn append(&mut self, bytes: &[u8], input_bytes: u64, records: u64) -> io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        self.position.output_bytes += bytes.len() as u64;
        self.position.input_bytes = input_bytes;
        self.position.records += records;
        if self.gathered.len() >= GATHERED_BYTES { self.flush() } else { Ok(()) }
    }

    /// Says that there is no more input, for the next commit.
    pub fn end(&mut self) {
        self.position.is_end = true;
    }

    fn flush(&mut self) -> io::Result<()> {
        failpoint::write_all(Point::TransformWrite, &mut self.output, &self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    /// Makes durable what was appended.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.output.sync_data()?;
        failpoint::at(Point::TransformCommit)?;
        let mut line = serde_json::to_vec(&self.position)?;
        line.push(b'\n');
        self.journal.write_all(&line)?;
        self.journal.sync_data()
    }
}

/// Where the output of an object grows.
pub fn path_of(folder: &Path, object: u64) -> PathBuf {
    folder.join(format!("{object}.out"))
}

/// Removes what is kept of an object. The journal goes first: without it an output begins anew.
pub fn remove(folder: &Path, object: u64) {
    for path in [folder.join(format!("{object}.journal")), path_of(folder, object)] {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of a transform job goes when the job ends");
        }
    }
}

/// The last whole line of a journal, and where it ends.
fn last_position(text: &str) -> (Position, usize) {
    let (mut position, mut kept) = (Position::default(), 0);
    for line in text.split_inclusive('\n') {
        let Some(read) = line.strip_suffix('\n').and_then(|line| serde_json::from_str(line).ok()) else {
            break;
        };
        position = read;
        kept += line.len();
    }
    (position, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_goes_on_at_its_last_commit() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 3).unwrap();
        assert_eq!(spool.position(), Position::default());
        spool.append(b"one\n", 10, 1).unwrap();
        spool.append(b"two\n", 20, 1).unwrap();
        spool.sync().unwrap();
        spool.append(&vec![b'x'; GATHERED_BYTES], 30, 1).unwrap();
        drop(spool);
        let journal = folder.path().join("3.journal");
        let mut torn = std::fs::read(&journal).unwrap();
        torn.extend_from_slice(b"{\"input_bytes\":30,\"out");
        std::fs::write(&journal, torn).unwrap();

        let mut spool = Spool::open(folder.path(), 3).unwrap();
        let expected = Position { input_bytes: 20, output_bytes: 8, records: 2, is_end: false };
        assert_eq!(spool.position(), expected);
        spool.append(b"three\n", 35, 1).unwrap();
        spool.end();
        spool.sync().unwrap();
        drop(spool);
        assert_eq!(std::fs::read(path_of(folder.path(), 3)).unwrap(), b"one\ntwo\nthree\n");
        assert!(Spool::open(folder.path(), 3).unwrap().position().is_end);
        remove(folder.path(), 3);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
