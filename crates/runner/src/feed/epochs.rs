//! Sends a feed: a thread per channel in the supervisor, a FIFO per epoch.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::plan::{Part, Plan};
use super::record_io::{self, Content, MAX_RECORD_BYTES};
use super::{Feed, order};

/// Asked of the kernel for each FIFO; it may give less.
const FIFO_BYTES: usize = 1 << 20;
const STACK_BYTES: usize = 256 << 10;
/// Small parts are sent together.
const BUFFER_BYTES: usize = 1 << 16;
/// The longest complaint that is read.
const COMPLAINT_BYTES: usize = 4096;

/// A feed whose first FIFO is there.
pub(crate) struct Feeder {
    feed: Feed,
    plan: Plan,
    /// Opened before the job could put a link in its place.
    directory: OwnedFd,
}

impl Feeder {
    /// Makes the first FIFO. Call it before the job starts. The error is a sentence for the user.
    pub fn prepare(feed: &Feed) -> Result<Feeder, String> {
        let failed =
            |error: io::Error| format!("The channel {:?} cannot be made a stream: {error}.", feed.name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&feed.directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let plan = Plan::open(&feed.plan).map_err(failed)?;
        let feeder = Feeder { feed: feed.clone(), plan, directory };
        feeder.make_fifo(0).map_err(failed)?;
        Ok(feeder)
    }

    fn fifo_name(&self, epoch: u64) -> String {
        format!("{}_{epoch}", self.feed.name)
    }

    fn make_fifo(&self, epoch: u64) -> io::Result<()> {
        let name = self.fifo_name(epoch);
        match rustix::fs::mkfifoat(&self.directory, &name, Mode::from_raw_mode(0o644)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a reader of the epoch; `None` when the job has removed the FIFO, and with it its wish for data.
    fn open_fifo(&self, epoch: u64) -> io::Result<Option<File>> {
        let name = self.fifo_name(epoch);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fifo = loop {
            match rustix::fs::openat(&self.directory, &name, flags, Mode::empty()) {
                Ok(fifo) => break fifo,
                Err(Errno::INTR) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        // The job may own the folder.
        if FileType::from_raw_mode(rustix::fs::fstat(&fifo)?.st_mode) != FileType::Fifo {
            return Err(io::Error::other(format!("{name} was replaced by something that is no FIFO")));
        }
        let _ = rustix::pipe::fcntl_setpipe_size(&fifo, FIFO_BYTES);
        Ok(Some(File::from(fifo)))
    }

    /// Sends epoch after epoch for as long as the job reads. What goes wrong is told while the FIFO is still open: the job
    /// must not take a broken stream for a whole one and end well before anybody knows.
    fn run(&self, complain: impl Fn(&io::Error)) -> io::Result<()> {
        for epoch in 0.. {
            let Some(fifo) = self.open_fifo(epoch)? else { return Ok(()) };
            // Programs that do not wait for a FIFO find the next one when they are done with this one.
            match self.make_fifo(epoch + 1) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut output = BufWriter::with_capacity(BUFFER_BYTES, fifo);
            match self.send(epoch, &mut output) {
                // The reader has had enough of this epoch.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => {
                    complain(&error);
                    return Ok(());
                }
                Ok(()) => {}
            }
            drop(output);
            // Opened again it would never get a writer; so the job sees that the epoch is over.
            let _ =
                rustix::fs::unlinkat(&self.directory, OsStr::new(&self.fifo_name(epoch)), AtFlags::empty());
        }
        Ok(())
    }

    fn send(&self, epoch: u64, output: &mut BufWriter<File>) -> io::Result<()> {
        for index in order::epoch(self.plan.entries(), epoch, self.feed.shuffle_seed, self.feed.shard) {
            for part in self.plan.entry(index)? {
                self.send_part(&part, output).map_err(|error| {
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        return error;
                    }
                    io::Error::other(match &part {
                        Part::File { name, .. } => format!("{name} cannot be sent: {error}"),
                        Part::Text(_) => error.to_string(),
                    })
                })?;
            }
        }
        output.flush()
    }

    fn send_part(&self, part: &Part, output: &mut BufWriter<File>) -> io::Result<()> {
        let path = match part {
            Part::Text(text) if self.feed.record_io => {
                return record_io::write(&Content::Text(text.as_bytes()), output);
            }
            Part::Text(text) => return output.write_all(text.as_bytes()),
            Part::File { path, .. } => path,
        };
        let mut file = File::open(self.feed.files.join(path))?;
        match (self.feed.record_io, self.feed.gunzip) {
            (false, false) => {
                // From file to FIFO within the kernel.
                output.flush()?;
                io::copy(&mut file, output.get_mut()).map(drop)
            }
            (false, true) => io::copy(&mut MultiGzDecoder::new(file), output).map(drop),
            (true, false) => {
                let bytes = file.metadata()?.len();
                record_io::write(&Content::File { file: &file, bytes }, output)
            }
            (true, true) => {
                // The length comes first, so that the content has to be known whole.
                let mut whole = nameless_file(&self.feed.files)?;
                let bytes = io::copy(&mut MultiGzDecoder::new(file).take(MAX_RECORD_BYTES + 1), &mut whole)?;
                record_io::write(&Content::File { file: &whole, bytes }, output)
            }
        }
    }
}

/// A file without a name, gone when it is closed.
fn nameless_file(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600))?))
}

/// Feeds at work. Their threads end with the process; nothing waits for them.
pub(crate) struct Feeds {
    complaints: OwnedFd,
}

impl Feeds {
    /// Starts the threads; `None` when there is nothing to feed. Call it after the job's process was started, which must
    /// not inherit what the threads open.
    pub fn start(feeders: Vec<Feeder>) -> io::Result<Option<Feeds>> {
        if feeders.is_empty() {
            return Ok(None);
        }
        let (complaints, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&complaints, true)?;
        let writer = Arc::new(File::from(writer));
        for feeder in feeders {
            let writer = writer.clone();
            let run = move || {
                let complain = |error: &io::Error| {
                    let text = format!("The channel {:?} broke off: {error}.\n", feeder.feed.name);
                    // The process is about to end if nobody listens.
                    let _ = (&*writer).write_all(text.as_bytes());
                };
                if let Err(error) = feeder.run(complain) {
                    complain(&error);
                }
            };
            std::thread::Builder::new().name("feed".into()).stack_size(STACK_BYTES).spawn(run)?;
        }
        Ok(Some(Feeds { complaints }))
    }

    /// What becomes readable when a channel breaks off, or when all of them have ended.
    pub fn complaints(&self) -> &OwnedFd {
        &self.complaints
    }

    /// The complaint of a channel, a sentence, if there is one. Does not wait.
    pub fn read_complaint(&self) -> Option<String> {
        let mut text = vec![0; COMPLAINT_BYTES];
        let count = rustix::io::read(&self.complaints, &mut text[..]).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..count]);
        text.lines().next().map(str::to_owned)
    }
}
