//! Looks up what a test wants to happen at a point.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Point, VARIABLE};

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Abort,
    Error(i32),
    Short,
}

/// The text of a point's file.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    action: Action,
    stays: bool,
    skip: u32,
}

/// Number of a full disk.
const NO_SPACE: i32 = 28;

/// Where tests arm points, when there are tests.
pub fn directory() -> Option<&'static Path> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "supervisors and threads deep in the store have no settings; release builds do not read it"
    )]
    let read = || std::env::var_os(VARIABLE).map(PathBuf::from);
    DIRECTORY.get_or_init(read).as_deref()
}

pub fn at(point: Point) -> io::Result<()> {
    match directory().and_then(|directory| taken(directory, point)) {
        None => Ok(()),
        Some(Action::Abort) => std::process::abort(),
        Some(Action::Error(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Action::Short) => Err(io::Error::from_raw_os_error(NO_SPACE)),
    }
}

/// Whether the write has to be short.
pub fn at_write(point: Point) -> io::Result<bool> {
    match directory().and_then(|directory| taken(directory, point)) {
        None => Ok(false),
        Some(Action::Abort) => std::process::abort(),
        Some(Action::Error(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Action::Short) => Ok(true),
    }
}

/// What happens at this pass, if anything does.
fn taken(directory: &Path, point: Point) -> Option<Action> {
    static PASSED: [AtomicU32; Point::ALL.len()] = [const { AtomicU32::new(0) }; Point::ALL.len()];
    let passed = &PASSED[point as usize];
    let file = directory.join(point.name());
    let Ok(text) = std::fs::read_to_string(&file) else {
        passed.store(0, Ordering::SeqCst);
        return None;
    };
    let order = parse(&text)?;
    if passed.fetch_add(1, Ordering::SeqCst) < order.skip {
        return None;
    }
    // Of several that come here at once, the one whose rename succeeds takes it.
    let is_mine = order.stays || std::fs::rename(&file, file.with_extension("hit")).is_ok();
    is_mine.then_some(order.action)
}

fn parse(text: &str) -> Option<Order> {
    let mut order = Order { action: Action::Abort, stays: false, skip: 0 };
    let mut words = text.split_whitespace();
    loop {
        match words.next()? {
            "always" => order.stays = true,
            "skip" => order.skip = words.next()?.parse().ok()?,
            "abort" => return Some(order),
            "short" => return Some(Order { action: Action::Short, ..order }),
            "error" => return Some(Order { action: Action::Error(words.next()?.parse().ok()?), ..order }),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_taken_once_after_the_passes_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(Point::ObjectSync.name());
        assert_eq!(taken(folder.path(), Point::ObjectSync), None);
        std::fs::write(&file, "skip 2 error 30").unwrap();
        assert_eq!(taken(folder.path(), Point::ObjectRename), None, "another point");
        let passes = [(); 4].map(|()| taken(folder.path(), Point::ObjectSync));
        assert_eq!(passes, [None, None, Some(Action::Error(30)), None]);
        assert!(file.with_extension("hit").exists() && !file.exists());
        std::fs::write(&file, "always short").unwrap();
        assert_eq!([(); 2].map(|()| taken(folder.path(), Point::ObjectSync)), [Some(Action::Short); 2]);
        std::fs::write(&file, "burn").unwrap();
        assert_eq!(taken(folder.path(), Point::ObjectSync), None);
    }

    #[test]
    fn names_are_there_once() {
        let mut names = Point::ALL.map(Point::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(Point::ALL.iter().enumerate().all(|(at, point)| *point as usize == at));
    }
}
