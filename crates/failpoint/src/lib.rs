//! Places in the code where tests make a durable write fail, or the process die. Release builds contain nothing of it.
//!
//! A build with debug assertions that was started with `MODELYARD_FAILPOINTS=DIRECTORY` looks, whenever it passes a [`Point`], for a
//! file of that point's name there. The file's text says what happens: `abort` ends the process as `kill -9` would, `error N` answers
//! with that error number of the system, `short` writes half and then finds the disk full. `skip N` in front lets the first N
//! passes of a process go by. What has happened renames the file to `NAME.hit`, so that it happens once among all processes; `always`
//! in front of the text keeps it, so that it goes on until the file is removed.

#[cfg(debug_assertions)]
mod armed;
mod points;

use std::io::{self, Write};

pub use points::Point;

/// The variable that names the directory.
pub const VARIABLE: &str = "MODELYARD_FAILPOINTS";

/// What a child process with an otherwise empty environment has to be given, so that its points work, too.
pub fn environment() -> Option<(&'static str, std::path::PathBuf)> {
    #[cfg(debug_assertions)]
    return armed::directory().map(|directory| (VARIABLE, directory.to_owned()));
    #[cfg(not(debug_assertions))]
    None
}

/// Passes a point. It stands where a write is about to be made durable, or to be answered for.
///
/// # Errors
/// What a test wants.
#[inline(always)]
pub fn at(point: Point) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return armed::at(point);
    #[cfg(not(debug_assertions))]
    {
        let _ = point;
        Ok(())
    }
}

/// Passes a point where nothing can fail any more; a test can only end the process there.
#[inline(always)]
pub fn pass(point: Point) {
    // An error would have nowhere to go; `points` says of which kind a point is.
    let _ = at(point);
}

/// Writes all of `bytes`, after passing a point at which the write may also turn out short.
///
/// # Errors
/// Those of the write, and what a test wants.
#[inline(always)]
pub fn write_all(point: Point, file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    #[cfg(debug_assertions)]
    if armed::at_write(point)? {
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(io::ErrorKind::StorageFull.into());
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
    file.write_all(bytes)
}
