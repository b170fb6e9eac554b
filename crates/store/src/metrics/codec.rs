//! Samples as bytes: differences of times and values, as short as they can be without losing a bit.

use super::sample::Sample;

/// One value, measured once.
const ONE: u8 = 0;
/// One value, measured several times.
const REPEATED: u8 = 1;
/// A summary.
const SUMMARY: u8 = 2;

/// A block whose samples are all [`ONE`], so that none says so by itself.
const ALL_ONE: u8 = 0;
/// A block whose samples each begin with their form.
const MIXED: u8 = 1;

/// Appends an unsigned number, seven bits a byte.
pub(super) fn put_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number; small ones are short, whatever their sign.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_unsigned(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Reads what the functions above wrote; `None` at the end and for what they cannot have written.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(super) fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn little_endian(&mut self, length: usize) -> Option<u64> {
        Some(self.take(length)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// The last value of a column; the next one is written as what differs.
#[derive(Default)]
struct Column {
    bits: u64,
}

impl Column {
    /// Writes a head (trailing zero bytes above, count of bytes below) and the bytes that differ.
    fn put(&mut self, out: &mut Vec<u8>, value: f64) {
        let changed = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if changed == 0 {
            out.push(0);
            return;
        }
        let zeros = changed.trailing_zeros() / 8;
        let length = 8 - changed.leading_zeros() / 8 - zeros;
        out.push((zeros << 4 | length) as u8);
        out.extend_from_slice(&(changed >> (zeros * 8)).to_le_bytes()[..length as usize]);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Option<f64> {
        let head = reader.byte()?;
        let (zeros, length) = (u32::from(head >> 4), usize::from(head & 0x0f));
        if zeros > 7 || length > 8 {
            return None;
        }
        self.bits ^= reader.little_endian(length)? << (zeros * 8);
        Some(f64::from_bits(self.bits))
    }
}

/// The state that both directions carry from sample to sample.
#[derive(Default)]
struct Track {
    at_seconds: i64,
    step_seconds: i64,
    minimum: Column,
    maximum: Column,
    sum: Column,
    count: Column,
}

fn form(sample: &Sample) -> u8 {
    let product = sample.minimum * sample.count;
    if !sample.is_exact() || product.to_bits() != sample.sum.to_bits() {
        SUMMARY
    } else if sample.count == 1.0 {
        ONE
    } else {
        REPEATED
    }
}

/// Appends a block of samples.
pub(super) fn encode(samples: &[Sample], out: &mut Vec<u8>) {
    let plain = samples.iter().all(|sample| form(sample) == ONE);
    out.push(if plain { ALL_ONE } else { MIXED });
    let mut track = Track::default();
    for sample in samples {
        let step_seconds = sample.at_seconds.wrapping_sub(track.at_seconds);
        put_signed(out, step_seconds.wrapping_sub(track.step_seconds));
        (track.at_seconds, track.step_seconds) = (sample.at_seconds, step_seconds);
        let form = form(sample);
        if !plain {
            out.push(form);
        }
        track.minimum.put(out, sample.minimum);
        if form != ONE {
            track.count.put(out, sample.count);
        }
        if form == SUMMARY {
            track.maximum.put(out, sample.maximum);
            track.sum.put(out, sample.sum);
        }
    }
}

/// Reads a block of `count` samples into `samples`; `None` when the bytes are none.
pub(super) fn decode(bytes: &[u8], count: usize, samples: &mut Vec<Sample>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let plain = match reader.byte()? {
        ALL_ONE => true,
        MIXED => false,
        _ => return None,
    };
    let mut track = Track::default();
    for _ in 0..count {
        track.step_seconds = track.step_seconds.wrapping_add(reader.signed()?);
        track.at_seconds = track.at_seconds.wrapping_add(track.step_seconds);
        let form = if plain { ONE } else { reader.byte()? };
        let minimum = track.minimum.read(&mut reader)?;
        let times = if form == ONE { 1.0 } else { track.count.read(&mut reader)? };
        let sample = match form {
            ONE => Sample::value(track.at_seconds, minimum),
            REPEATED => Sample::repeated(track.at_seconds, minimum, times),
            SUMMARY => Sample {
                at_seconds: track.at_seconds,
                count: times,
                minimum,
                maximum: track.maximum.read(&mut reader)?,
                sum: track.sum.read(&mut reader)?,
            },
            _ => return None,
        };
        samples.push(sample);
    }
    reader.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_come_back() {
        for number in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, number);
            assert_eq!(Reader::new(&bytes).signed(), Some(number));
        }
        assert_eq!(Reader::new(&[0xff; 10]).unsigned(), None, "more than 64 bits");
    }

    #[test]
    fn samples_of_all_forms_come_back_bit_by_bit() {
        let mut samples = vec![
            Sample::value(1_700_000_000, 0.5),
            Sample::value(1_700_000_060, 0.5),
            Sample::repeated(1_700_000_030, -1.25e300, 7.0),
            Sample { at_seconds: -5, count: 3.0, sum: 6.5, minimum: 1.0, maximum: 4.0 },
            Sample { at_seconds: i64::MAX, count: 2.0, sum: 0.1, minimum: 0.1, maximum: 0.1 },
            Sample::value(i64::MIN, -0.0),
        ];
        for plain in [false, true] {
            if plain {
                samples.retain(|sample| form(sample) == ONE);
            }
            let mut bytes = Vec::new();
            encode(&samples, &mut bytes);
            let mut read = Vec::new();
            decode(&bytes, samples.len(), &mut read).unwrap();
            assert_eq!(read, samples);
            assert_eq!(decode(&bytes[..bytes.len() - 1], samples.len(), &mut read), None);
            assert_eq!(decode(&bytes, samples.len() - 1, &mut read), None);
        }
    }

    #[test]
    fn a_steady_series_takes_few_bytes() {
        let samples: Vec<Sample> = (0..1000)
            .map(|step| Sample::value(1_700_000_000 + step * 60, f64::from(step as i32 % 50)))
            .collect();
        let mut bytes = Vec::new();
        encode(&samples, &mut bytes);
        assert!(bytes.len() < 4_500, "{} bytes", bytes.len());
    }
}
