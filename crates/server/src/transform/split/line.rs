//! Lines: what stands between ends of lines, with nothing else that parts them.

use super::{Found, Look};

pub(super) fn look(ahead: &[u8], scanned: &mut usize, is_at_end: bool) -> Look {
    let end = match memchr::memchr(b'\n', &ahead[*scanned..]) {
        Some(at) => *scanned + at + 1,
        None if is_at_end => ahead.len(),
        None => {
            *scanned = ahead.len();
            return Look::More(ahead.len() + 1);
        }
    };
    let line = ahead[..end].strip_suffix(b"\n").unwrap_or(&ahead[..end]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Look::Skip(end);
    }
    Look::Record(Found::whole(end, 0..line.len()))
}
