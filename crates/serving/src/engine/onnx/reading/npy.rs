//! Arrays that numpy saved: numbers and texts of any number of dimensions.

use std::borrow::Cow;

use crate::engine::onnx::cells::{Array, Cell};
use crate::engine::refusal::RequestError;
use crate::engine::rows::NpyHead;

/// Reads an array.
pub(super) fn read(body: &[u8]) -> Result<Array<'_>, RequestError> {
    let unreadable = |problem: &str| RequestError::unreadable("npy", problem);
    let head = NpyHead::read(body)?;
    let element = Element::of(head.descr)
        .ok_or_else(|| unreadable(&format!("arrays of {} are not supported", head.descr)))?;
    let count =
        Array::count(&head.shape).filter(|count| count.checked_mul(element.bytes) == Some(head.data.len()));
    // Elements of no bytes would go on for as long as the shape says.
    let count = count.filter(|_| element.bytes > 0 || head.shape.contains(&0));
    let count = count.ok_or_else(|| unreadable("its data does not have the length that its shape says"))?;
    let mut cells = Vec::with_capacity(count);
    let mut place = vec![0_usize; head.shape.len()];
    for index in 0..count {
        let at = if head.is_fortran { fortran_index(&head.shape, &mut place) } else { index };
        let bytes = &head.data[at * element.bytes..][..element.bytes];
        cells.push((element.read)(bytes).ok_or_else(|| unreadable("it has a text that is no Unicode"))?);
    }
    Ok(Array { shape: head.shape, cells })
}

/// Where the value at a place lies when the first dimension runs fastest; goes on to the next place.
fn fortran_index(shape: &[usize], place: &mut [usize]) -> usize {
    let index = shape.iter().zip(&*place).rev().fold(0, |index, (size, at)| index * size + at);
    for (size, at) in shape.iter().zip(place).rev() {
        *at += 1;
        if *at < *size {
            break;
        }
        *at = 0;
    }
    index
}

/// How one value is read.
struct Element {
    bytes: usize,
    read: for<'a> fn(&'a [u8]) -> Option<Cell<'a>>,
}

impl Element {
    fn of(descr: &str) -> Option<Element> {
        macro_rules! of {
            ($type:ty, $variant:ident, $into:ty) => {
                Element {
                    bytes: size_of::<$type>(),
                    read: |bytes| {
                        bytes
                            .try_into()
                            .ok()
                            .map(|bytes| Cell::$variant(<$type>::from_le_bytes(bytes) as $into))
                    },
                }
            };
        }
        let length =
            |unit: usize| descr.get(2..).and_then(|digits| digits.parse::<usize>().ok()?.checked_mul(unit));
        Some(match descr {
            "<f8" => of!(f64, Number, f64),
            "<f4" => of!(f32, Number, f64),
            "<i8" => of!(i64, Integer, i64),
            "<i4" => of!(i32, Integer, i64),
            "<i2" => of!(i16, Integer, i64),
            "|i1" => of!(i8, Integer, i64),
            // What is larger than every i64 is a number with fewer digits.
            "<u8" => Element { bytes: 8, read: unsigned },
            "<u4" => of!(u32, Integer, i64),
            "<u2" => of!(u16, Integer, i64),
            "|u1" | "|b1" => of!(u8, Integer, i64),
            text if text.starts_with("<U") => Element { bytes: length(4)?, read: unicode },
            text if text.starts_with("|S") => Element { bytes: length(1)?, read: bytes_text },
            _ => return None,
        })
    }
}

fn unsigned(bytes: &[u8]) -> Option<Cell<'_>> {
    let value = u64::from_le_bytes(bytes.try_into().ok()?);
    Some(i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Integer))
}

fn unicode(bytes: &[u8]) -> Option<Cell<'_>> {
    let units = bytes.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit));
    let text: Option<String> = units.map(char::from_u32).collect();
    Some(Cell::Text(Cow::Owned(text?.trim_end_matches('\0').to_owned())))
}

fn bytes_text(bytes: &[u8]) -> Option<Cell<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(Cell::Text(Cow::Borrowed(text.trim_end_matches('\0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn arrays_have_numbers_or_texts() {
        let file = npy("|i1", "True", "(2, 3, 1)", &[1, 2, 3, 4, 5, 6]);
        let array = read(&file).unwrap();
        assert_eq!(array.shape, [2, 3, 1]);
        assert_eq!(array.cells, [1, 3, 5, 2, 4, 6].map(Cell::Integer));
        let text: Vec<u8> =
            ['r', 'é', 'b', '\0'].iter().flat_map(|unit| u32::from(*unit).to_le_bytes()).collect();
        let file = npy("<U2", "False", "(2,)", &text);
        assert_eq!(read(&file).unwrap().cells, [Cell::Text("ré".into()), Cell::Text("b".into())]);
        let file = npy("<u8", "False", "()", &u64::MAX.to_le_bytes());
        assert_eq!(read(&file).unwrap(), Array { shape: vec![], cells: vec![Cell::Number(u64::MAX as f64)] });
        for broken in [
            npy("|O", "False", "(1,)", &[0; 8]),
            npy("<f8", "False", "(2,)", &[0; 8]),
            npy("<U0", "False", "(99999999999,)", &[]),
            npy("<U1", "False", "(1,)", &0xdc00_u32.to_le_bytes()),
            npy("<f8", "False", "(9223372036854775807, 9)", &[0; 8]),
        ] {
            assert_eq!(read(&broken).unwrap_err().status, 415);
        }
    }
}
