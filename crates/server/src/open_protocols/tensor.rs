//! Tensors of the Open Inference Protocol: a name, a data type, a shape, and the elements as the protocol's binary form has them.

use bytes::Bytes;
use serde_json::Value;

use super::flat::Values;
use super::half_float::widened;

/// Most dimensions of a tensor, as in numpy.
const MOST_DIMENSIONS: usize = 32;

/// Most lists that an empty tensor may be made of.
const MOST_EMPTY: usize = 1 << 16;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Half precision.
    Fp16,
    /// The upper half of single precision.
    Bf16,
    /// Single precision.
    Fp32,
    /// Double precision.
    Fp64,
    /// Text or bytes, each element after its length.
    Bytes,
}

const NAMES: [(Datatype, &str); 14] = [
    (Datatype::Bool, "BOOL"),
    (Datatype::Uint8, "UINT8"),
    (Datatype::Uint16, "UINT16"),
    (Datatype::Uint32, "UINT32"),
    (Datatype::Uint64, "UINT64"),
    (Datatype::Int8, "INT8"),
    (Datatype::Int16, "INT16"),
    (Datatype::Int32, "INT32"),
    (Datatype::Int64, "INT64"),
    (Datatype::Fp16, "FP16"),
    (Datatype::Bf16, "BF16"),
    (Datatype::Fp32, "FP32"),
    (Datatype::Fp64, "FP64"),
    (Datatype::Bytes, "BYTES"),
];

impl Datatype {
    /// Finds a type by the protocol's name for it.
    pub fn named(name: &str) -> Option<Datatype> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(datatype, _)| *datatype)
    }

    /// The protocol's name for it.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| *name)
    }

    /// Size of an element; `None` where each has its own.
    pub fn element_bytes(self) -> Option<usize> {
        Some(match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => 1,
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => 2,
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => 4,
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => 8,
            Datatype::Bytes => return None,
        })
    }
}

/// A tensor whose data fits its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its extent in each dimension; none for a scalar.
    pub shape: Vec<usize>,
    /// The elements in row-major order and little-endian; those of BYTES each after its length, a little-endian `u32`.
    pub data: Bytes,
}

/// The extents of a stated shape, and how many elements they make.
///
/// # Errors
/// A sentence for the caller.
pub fn extents(name: &str, shape: &[i64]) -> Result<(Vec<usize>, usize), String> {
    if shape.len() > MOST_DIMENSIONS {
        return Err(format!(
            "The tensor {name:?} has {} dimensions; at most {MOST_DIMENSIONS} are taken.",
            shape.len()
        ));
    }
    let wrong = || format!("The shape {shape:?} of the tensor {name:?} is not possible.");
    let sides = shape.iter().map(|side| usize::try_from(*side).map_err(|_| wrong()));
    let sides = sides.collect::<Result<Vec<_>, _>>()?;
    let product = |least: usize| {
        sides.iter().try_fold(1_usize, |count, side| count.checked_mul((*side).max(least))).ok_or_else(wrong)
    };
    let count = product(0)?;
    // Without elements no length of data bounds the other sides.
    if count == 0 && product(1)? > MOST_EMPTY {
        return Err(wrong());
    }
    Ok((sides, count))
}

impl Tensor {
    /// A tensor from the protocol's binary form.
    ///
    /// # Errors
    /// A sentence for the caller, where data and shape do not fit.
    pub fn from_binary(
        name: String,
        datatype: Datatype,
        shape: &[i64],
        data: Bytes,
    ) -> Result<Tensor, String> {
        let (sides, count) = extents(&name, shape)?;
        let fits = match datatype.element_bytes() {
            Some(bytes) => count.checked_mul(bytes) == Some(data.len()),
            None => {
                elements(&data).map_err(|problem| format!("The tensor {name:?}: {problem}"))?.len() == count
            }
        };
        if !fits {
            return Err(format!(
                "The tensor {name:?} has {} bytes of data, which do not make {count} elements of {}, as its shape {shape:?} says.",
                data.len(),
                datatype.as_str()
            ));
        }
        Ok(Tensor { name, datatype, shape: sides, data })
    }

    /// A tensor from values, such as those of JSON.
    ///
    /// # Errors
    /// A sentence for the caller, where values, type and shape do not fit.
    pub fn from_values(
        name: String,
        datatype: Datatype,
        shape: &[i64],
        values: &Values,
    ) -> Result<Tensor, String> {
        let (sides, count) = extents(&name, shape)?;
        if values.len() != count {
            return Err(format!(
                "The tensor {name:?} has {} elements of data; its shape {shape:?} makes {count}.",
                values.len()
            ));
        }
        let data = values.encoded(datatype).map_err(|problem| format!("The tensor {name:?}: {problem}"))?;
        Ok(Tensor { name, datatype, shape: sides, data: data.into() })
    }

    /// One element of any bytes.
    pub fn of_bytes(name: impl Into<String>, bytes: &[u8]) -> Tensor {
        Tensor {
            name: name.into(),
            datatype: Datatype::Bytes,
            shape: vec![1],
            data: prefixed([bytes].into_iter()).into(),
        }
    }

    /// The shape as the protocol writes it.
    pub fn stated_shape(&self) -> Vec<i64> {
        self.shape.iter().map(|side| i64::try_from(*side).unwrap_or(i64::MAX)).collect()
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements of a tensor of BYTES.
    pub fn texts(&self) -> Vec<&[u8]> {
        // They were checked when the tensor was made.
        elements(&self.data).unwrap_or_default()
    }

    /// Writes the elements as JSON: flat, or nested as the shape says. What is no number becomes null; bytes that are no text become
    /// an object with the one member `b64`.
    pub fn write_json(&self, out: &mut Vec<u8>, nested: bool) {
        let texts = if self.datatype == Datatype::Bytes { self.texts() } else { Vec::new() };
        let writer = Elements { tensor: self, texts };
        if nested && !self.shape.is_empty() {
            let mut at = 0;
            writer.level(out, &self.shape, &mut at);
        } else if nested {
            writer.element(out, 0);
        } else {
            let mut at = 0;
            writer.level(out, &[self.count()], &mut at);
        }
    }
}

struct Elements<'a> {
    tensor: &'a Tensor,
    texts: Vec<&'a [u8]>,
}

impl Elements<'_> {
    fn level(&self, out: &mut Vec<u8>, shape: &[usize], at: &mut usize) {
        out.push(b'[');
        for index in 0..shape[0] {
            if index > 0 {
                out.push(b',');
            }
            if shape.len() > 1 {
                self.level(out, &shape[1..], at);
            } else {
                self.element(out, *at);
                *at += 1;
            }
        }
        out.push(b']');
    }

    fn element(&self, out: &mut Vec<u8>, at: usize) {
        fn put<T: serde::Serialize>(out: &mut Vec<u8>, value: T) {
            // Writing a number or a text into memory cannot fail.
            let _ = serde_json::to_writer(out, &value);
        }
        let data = &self.tensor.data;
        macro_rules! number {
            ($kind:ty) => {{
                const SIZE: usize = size_of::<$kind>();
                let bytes = data.get(at * SIZE..(at + 1) * SIZE).and_then(|bytes| bytes.try_into().ok());
                put(out, <$kind>::from_le_bytes(bytes.unwrap_or_default()))
            }};
        }
        match self.tensor.datatype {
            Datatype::Bool => put(out, data.get(at).is_some_and(|byte| *byte != 0)),
            Datatype::Uint8 => number!(u8),
            Datatype::Uint16 => number!(u16),
            Datatype::Uint32 => number!(u32),
            Datatype::Uint64 => number!(u64),
            Datatype::Int8 => number!(i8),
            Datatype::Int16 => number!(i16),
            Datatype::Int32 => number!(i32),
            Datatype::Int64 => number!(i64),
            Datatype::Fp32 => number!(f32),
            Datatype::Fp64 => number!(f64),
            Datatype::Fp16 | Datatype::Bf16 => {
                let bytes = data.get(at * 2..at * 2 + 2).and_then(|bytes| bytes.try_into().ok());
                put(out, widened(u16::from_le_bytes(bytes.unwrap_or_default()), self.tensor.datatype));
            }
            Datatype::Bytes => match std::str::from_utf8(self.texts.get(at).copied().unwrap_or_default()) {
                Ok(text) => put(out, text),
                Err(_) => put(out, encoded(self.texts[at])),
            },
        }
    }
}

fn encoded(bytes: &[u8]) -> Value {
    use base64::Engine;
    serde_json::json!({"b64": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

/// Elements of BYTES, each after its length.
pub fn prefixed<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut data = Vec::new();
    for element in elements {
        // Bodies are far shorter than 4 GiB.
        data.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        data.extend_from_slice(element);
    }
    data
}

/// Takes apart elements of BYTES.
fn elements(mut data: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>().ok_or("the length of an element is cut off.")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, rest) = rest.split_at_checked(length).ok_or("an element is cut off.")?;
        found.push(element);
        data = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[i64], data: &[u8]) -> Result<Tensor, String> {
        Tensor::from_binary("t".into(), datatype, shape, Bytes::copy_from_slice(data))
    }

    fn json(tensor: &Tensor, nested: bool) -> String {
        let mut out = Vec::new();
        tensor.write_json(&mut out, nested);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn shapes_that_lie_are_refused_before_anything_is_made_of_them() {
        assert!(tensor(Datatype::Fp32, &[2, 2], &[0; 16]).is_ok());
        for (shape, bytes) in [
            (&[2, 2][..], 15),
            (&[2, 3], 16),
            (&[-1], 4),
            (&[i64::MAX, i64::MAX], 16),
            (&[1 << 62, 4], 0),
            (&[i64::MAX], 16),
        ] {
            let problem = tensor(Datatype::Fp32, shape, &vec![0; bytes]).unwrap_err();
            assert!(problem.contains("\"t\""), "{problem}");
        }
        assert!(tensor(Datatype::Fp32, &[0, 3], &[]).is_ok());
        assert!(tensor(Datatype::Fp32, &[1 << 40, 0], &[]).is_err());
        assert!(tensor(Datatype::Fp32, &[1; 33], &[0; 4]).unwrap_err().contains("33 dimensions"));
    }

    #[test]
    fn elements_of_bytes_have_lengths_that_must_fit() {
        let good = tensor(Datatype::Bytes, &[2], b"\x02\0\0\0hi\0\0\0\0").unwrap();
        assert_eq!(good.texts(), [&b"hi"[..], b""]);
        assert_eq!(json(&good, false), r#"["hi",""]"#);
        for (shape, data) in [
            (1, &b"\x02\0\0\0h"[..]),
            (1, b"\x02\0\0"),
            (1, b"\xff\xff\xff\xffh"),
            (2, b"\x02\0\0\0hi"),
            (1, b"\0\0\0\0\0\0\0\0"),
        ] {
            assert!(tensor(Datatype::Bytes, &[shape], data).is_err(), "{data:?}");
        }
        assert_eq!(
            json(&tensor(Datatype::Bytes, &[1], b"\x01\0\0\0\xff").unwrap(), true),
            r#"[{"b64":"/w=="}]"#
        );
    }

    #[test]
    fn json_is_flat_or_nested() {
        let numbers: Vec<u8> =
            [1.5_f32, -2.0, f32::NAN, 4.0].iter().flat_map(|one| one.to_le_bytes()).collect();
        let matrix = tensor(Datatype::Fp32, &[2, 2], &numbers).unwrap();
        assert_eq!(json(&matrix, false), "[1.5,-2.0,null,4.0]");
        assert_eq!(json(&matrix, true), "[[1.5,-2.0],[null,4.0]]");
        assert_eq!(json(&tensor(Datatype::Fp32, &[], &numbers[..4]).unwrap(), true), "1.5");
        assert_eq!(json(&tensor(Datatype::Int64, &[2, 0], &[]).unwrap(), true), "[[],[]]");
        assert_eq!(json(&tensor(Datatype::Bool, &[2], &[0, 1]).unwrap(), true), "[false,true]");
        assert_eq!(json(&tensor(Datatype::Fp16, &[2], &[0, 0x3c, 0, 0xc0]).unwrap(), true), "[1.0,-2.0]");
        assert_eq!(json(&tensor(Datatype::Bf16, &[1], &[0x80, 0x3f]).unwrap(), true), "[1.0]");
    }
}
