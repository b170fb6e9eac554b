//! The file format of numpy's arrays, in which tensors go to model hosts and may come back.

use bytes::Bytes;

use super::half_float::widened;
use super::tensor::{Datatype, Tensor, extents, prefixed};

const MAGIC: &[u8] = b"\x93NUMPY";
/// What the data begins at a multiple of.
const ALIGNMENT: usize = 64;

/// Element types as numpy names them, without the byte order.
const KINDS: [(&str, Datatype); 12] = [
    ("b1", Datatype::Bool),
    ("u1", Datatype::Uint8),
    ("u2", Datatype::Uint16),
    ("u4", Datatype::Uint32),
    ("u8", Datatype::Uint64),
    ("i1", Datatype::Int8),
    ("i2", Datatype::Int16),
    ("i4", Datatype::Int32),
    ("i8", Datatype::Int64),
    ("f2", Datatype::Fp16),
    ("f4", Datatype::Fp32),
    ("f8", Datatype::Fp64),
];

/// The array file of a tensor; `None` for BYTES. numpy has no BF16, so that becomes single precision.
pub fn write(tensor: &Tensor) -> Option<Vec<u8>> {
    let widens = tensor.datatype == Datatype::Bf16;
    let stored = if widens { Datatype::Fp32 } else { tensor.datatype };
    let (kind, _) = KINDS.iter().find(|(_, datatype)| *datatype == stored)?;
    let order = if kind.ends_with('1') { '|' } else { '<' };
    let mut shape: String = tensor.shape.iter().map(|side| format!("{side}, ")).collect();
    if tensor.shape.len() > 1 {
        shape.truncate(shape.len() - 2);
    }
    let mut header =
        format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    let before = MAGIC.len() + 4;
    // The header ends in a line feed, before which blanks fill up.
    let whole = (before + header.len() + 1).next_multiple_of(ALIGNMENT);
    header.extend(std::iter::repeat_n(' ', whole - before - header.len() - 1));
    header.push('\n');
    let mut file = Vec::with_capacity(whole + tensor.data.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[1, 0]);
    file.extend_from_slice(&u16::try_from(header.len()).ok()?.to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    if widens {
        let bits = tensor.data.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        file.extend(bits.flat_map(|bits| widened(bits, Datatype::Bf16).to_le_bytes()));
    } else {
        file.extend_from_slice(&tensor.data);
    }
    Some(file)
}

/// The tensor in an array file.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn read(name: String, file: &Bytes) -> Result<Tensor, String> {
    let (header, data) = parts(file).ok_or("The array file that the model answered is cut off.")?;
    let unknown = |what: &str| format!("The array file that the model answered has a header without {what}.");
    let descr = quoted(header, "descr").ok_or_else(|| unknown("descr"))?;
    let shape = shape(header).ok_or_else(|| unknown("shape"))?;
    let is_column_major = header.contains("'fortran_order': True");
    let (order, kind) = descr.split_at_checked(1).ok_or_else(|| unknown("a data type"))?;
    let (sides, count) = extents(&name, &shape)?;
    let found = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, datatype)| *datatype);
    let width = match (found, kind.split_at_checked(1)) {
        (Some(datatype), _) => datatype.element_bytes(),
        (None, Some(("U", width))) => width.parse::<usize>().ok().and_then(|width| width.checked_mul(4)),
        (None, Some(("S", width))) => width.parse().ok(),
        _ => None,
    };
    let Some(width) = width.filter(|width| *width > 0) else {
        return Err(format!(
            "The model answered an array of the type {descr:?}, which the protocol has no data type for; answer numbers or texts."
        ));
    };
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!(
            "The model answered an array of the shape {shape:?} and type {descr:?} with {} bytes.",
            data.len()
        ));
    }
    let mut data =
        if is_column_major && sides.len() > 1 { row_major(&data, &sides, width).into() } else { data };
    let is_swapped = order == ">";
    let Some(datatype) = found else {
        let texts = data.chunks_exact(width).map(|element| text(element, kind.starts_with('U'), is_swapped));
        let texts =
            texts.collect::<Option<Vec<_>>>().ok_or("The model answered texts that are no Unicode.")?;
        let data = prefixed(texts.iter().map(Vec::as_slice)).into();
        return Ok(Tensor { name, datatype: Datatype::Bytes, shape: sides, data });
    };
    if is_swapped && width > 1 {
        let mut swapped = data.to_vec();
        swapped.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        data = swapped.into();
    }
    Ok(Tensor { name, datatype, shape: sides, data })
}

/// Header and data.
fn parts(file: &Bytes) -> Option<(&str, Bytes)> {
    let rest = file.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, before) = if version[0] == 1 {
        (usize::from(u16::from_le_bytes(*rest.first_chunk()?)), MAGIC.len() + 4)
    } else {
        (u32::from_le_bytes(*rest.first_chunk()?) as usize, MAGIC.len() + 6)
    };
    let header = std::str::from_utf8(file.get(before..before.checked_add(length)?)?).ok()?;
    Some((header, file.slice(before + length..)))
}

fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    after(header, key)?.strip_prefix('\'')?.split('\'').next()
}

fn shape(header: &str) -> Option<Vec<i64>> {
    let inside = after(header, "shape")?.strip_prefix('(')?.split_once(')')?.0;
    inside.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect()
}

/// A text without the zeros that fill its place up.
fn text(element: &[u8], is_wide: bool, is_swapped: bool) -> Option<Vec<u8>> {
    if !is_wide {
        let end = element.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        return Some(element[..end].to_vec());
    }
    let characters = element.chunks_exact(4).map(|four| {
        let four = four.try_into().unwrap_or_default();
        char::from_u32(if is_swapped { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    });
    let text: String = characters.collect::<Option<_>>()?;
    Some(text.trim_end_matches('\0').as_bytes().to_vec())
}

/// The elements in row-major order, of which the first side changes fastest in `data`.
fn row_major(data: &[u8], sides: &[usize], width: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(sides.len());
    let mut stride = width;
    for side in sides {
        strides.push(stride);
        stride *= side;
    }
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; sides.len()];
    while out.len() < data.len() {
        let at: usize = index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
        out.extend_from_slice(&data[at..at + width]);
        for axis in (0..sides.len()).rev() {
            index[axis] += 1;
            if index[axis] < sides[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[i64], data: &[u8]) -> Tensor {
        Tensor::from_binary("t".into(), datatype, shape, Bytes::copy_from_slice(data)).unwrap()
    }

    fn file(header: &str, data: &[u8]) -> Bytes {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&[1, 0]);
        file.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file.into()
    }

    #[test]
    fn what_is_written_is_what_numpy_writes() {
        let written = write(&tensor(Datatype::Fp32, &[2, 1], &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])).unwrap();
        assert_eq!(written.len(), 128 + 8);
        assert!(written.starts_with(
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }"
        ));
        assert_eq!(written[127], b'\n');
        for (shape, shown) in [(&[][..], "()"), (&[1], "(1,)"), (&[1, 1, 1], "(1, 1, 1)")] {
            let written = write(&tensor(Datatype::Uint8, shape, &[7])).unwrap();
            let text = String::from_utf8_lossy(&written[..127]).into_owned();
            assert!(text.contains(&format!("'|u1', 'fortran_order': False, 'shape': {shown}, }}")), "{text}");
        }
        assert!(write(&Tensor::of_bytes("t", b"x")).is_none());
    }

    #[test]
    fn all_types_come_back() {
        for (_, datatype) in KINDS {
            let bytes = datatype.element_bytes().unwrap() * 6;
            let data: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
            let sent = tensor(datatype, &[2, 3], &data);
            assert_eq!(read("t".into(), &write(&sent).unwrap().into()).unwrap(), sent);
        }
        let widened =
            read("t".into(), &write(&tensor(Datatype::Bf16, &[1], &[0x80, 0x3f])).unwrap().into()).unwrap();
        assert_eq!((widened.datatype, &widened.data[..]), (Datatype::Fp32, &1.0_f32.to_le_bytes()[..]));
    }

    #[test]
    fn orders_and_texts_of_other_writers_are_read() {
        let columns =
            file("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n", &[1, 4, 2, 5, 3, 6]);
        assert_eq!(&read("t".into(), &columns).unwrap().data[..], [1, 2, 3, 4, 5, 6]);
        let big = file("{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }\n", &[0, 1, 0, 2]);
        assert_eq!(&read("t".into(), &big).unwrap().data[..], [1, 0, 2, 0]);
        let texts = file("{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }\n", b"h\0\0\0\xe9\0\0\0");
        assert_eq!(read("t".into(), &texts).unwrap().texts(), ["hé".as_bytes()]);
        let bytes = file("{'descr': '|S3', 'fortran_order': False, 'shape': (2,), }\n", b"ab\0c\0\0");
        assert_eq!(read("t".into(), &bytes).unwrap().texts(), [&b"ab"[..], b"c"]);
    }

    #[test]
    fn broken_files_are_refused() {
        for (header, data) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", &[0_u8; 4][..]),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }", &[]),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", &[]),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 8]),
            ("{'descr': '<U99999999999999999999', 'fortran_order': False, 'shape': (1,), }", &[]),
            ("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,), }", &[]),
            ("{'descr': '', 'shape': (1,)}", &[]),
            ("{'shape': (1,)}", &[]),
            ("{'descr': '<f4'}", &[]),
        ] {
            assert!(read("t".into(), &file(header, data)).is_err(), "{header}");
        }
        for cut in
            [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x02\x00\xff\xff\xff\xff"]
        {
            assert!(read("t".into(), &Bytes::copy_from_slice(cut)).is_err());
        }
    }
}
