//! TFRecord: the length with its check sum, the content with its check sum. The sums are CRC-32C, rotated and moved.

use crc_fast::CrcAlgorithm;

use super::{Found, Look};

const HEADER_BYTES: usize = 12;
const FOOTER_BYTES: usize = 4;

pub(super) fn look(ahead: &[u8]) -> Look {
    let Some(header) = ahead.first_chunk::<HEADER_BYTES>() else { return Look::More(HEADER_BYTES) };
    let [l0, l1, l2, l3, l4, l5, l6, l7, s0, s1, s2, s3] = *header;
    let length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    if masked(&header[..8]) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Look::Broken("the check sum of its length is wrong: this is no TFRecord, or it is damaged");
    }
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
    let whole = end.saturating_add(FOOTER_BYTES);
    let Some(footer) = ahead.get(end..whole) else { return Look::More(whole) };
    if masked(&ahead[HEADER_BYTES..end]).to_le_bytes() != *footer {
        return Look::Broken("the check sum of its content is wrong: it is damaged");
    }
    Look::Record(Found::whole(whole, HEADER_BYTES..end))
}

fn masked(bytes: &[u8]) -> u32 {
    let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::masked;

    pub fn frame(content: &[u8]) -> Vec<u8> {
        let mut frame = (content.len() as u64).to_le_bytes().to_vec();
        frame.extend(masked(&frame).to_le_bytes());
        frame.extend(content);
        frame.extend(masked(content).to_le_bytes());
        frame
    }

    #[test]
    fn the_sums_are_those_of_tensorflow() {
        // CRC-32C of "123456789" is 0xe3069283; rotated by 15 it is 0x2507c60d.
        assert_eq!(masked(b"123456789"), 0x2507_c60d_u32.wrapping_add(0xa282_ead8));
    }
}
