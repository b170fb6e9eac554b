//! RecordIO as dmlc-core defines it: a magic number, three bits of kind and 29 bits of length, the content, zeros up to a multiple of
//! four. Content that has the magic number in it comes in pieces, and the number is put back between them.

use super::{Found, Look};

const MAGIC: [u8; 4] = 0xced7_230a_u32.to_le_bytes();
const HEADER_BYTES: usize = 8;

const WHOLE: u32 = 0;
const FIRST: u32 = 1;
const MIDDLE: u32 = 2;
const LAST: u32 = 3;

pub(super) fn look(ahead: &[u8]) -> Look {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let Some(header) = ahead.get(at..at + HEADER_BYTES) else { return Look::More(at + HEADER_BYTES) };
        if header[..4] != MAGIC {
            return Look::Broken("it does not begin with RecordIO's magic number");
        }
        let word = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let (kind, length) = (word >> 29, (word & ((1 << 29) - 1)) as usize);
        let is_first = pieces.is_empty();
        match kind {
            WHOLE | FIRST if is_first => {}
            MIDDLE | LAST if !is_first => {}
            _ => return Look::Broken("its pieces are out of order"),
        }
        let start = at + HEADER_BYTES;
        at = start + length.next_multiple_of(4);
        if ahead.len() < at {
            return Look::More(at);
        }
        pieces.push(start..start + length);
        if matches!(kind, WHOLE | LAST) {
            return Look::Record(Found { framed: 0..at, pieces });
        }
    }
}

pub(super) fn join<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for (at, piece) in pieces.enumerate() {
        if at > 0 {
            joined.extend_from_slice(&MAGIC);
        }
        joined.extend_from_slice(piece);
    }
    joined
}

#[cfg(test)]
pub(super) mod tests {
    use super::MAGIC;

    pub fn frame(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend((kind << 29 | content.len() as u32).to_le_bytes());
        frame.extend(content);
        frame.resize(frame.len().next_multiple_of(4), 0);
        frame
    }
}
