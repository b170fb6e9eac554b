//! Universal Binary JSON, the form in which XGBoost saves models unless told otherwise, as a source for serde.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// How deep arrays and objects may lie in each other; models have less than ten levels.
const MOST_LEVELS: usize = 64;

/// Reads a value that fills the bytes.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = Reader { bytes, at: 0, levels: 0 };
    let value = T::deserialize(&mut Value { reader: &mut reader, marker: None })?;
    if reader.at < bytes.len() {
        return Err(reader.error("something follows the document"));
    }
    Ok(value)
}

/// What is wrong with a document.
#[derive(Debug)]
pub(crate) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    levels: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, text: &str) -> Error {
        Error(format!("{text} (byte {})", self.at))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken =
            end.map(|end| &self.bytes[self.at..end]).ok_or_else(|| self.error("it ends too early"))?;
        self.at += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.error("it ends too early"))
    }

    /// The next marker; no-operations are skipped.
    fn marker(&mut self) -> Result<u8, Error> {
        loop {
            let [marker] = self.fixed()?;
            if marker != b'N' {
                return Ok(marker);
            }
        }
    }

    /// The next marker, left where it is.
    fn peek(&mut self) -> Result<u8, Error> {
        let marker = self.marker()?;
        self.at -= 1;
        Ok(marker)
    }

    fn integer(&mut self, marker: u8) -> Result<i64, Error> {
        Ok(match marker {
            b'i' => i64::from(i8::from_be_bytes(self.fixed()?)),
            b'U' => i64::from(u8::from_be_bytes(self.fixed()?)),
            b'I' => i64::from(i16::from_be_bytes(self.fixed()?)),
            b'l' => i64::from(i32::from_be_bytes(self.fixed()?)),
            b'L' => i64::from_be_bytes(self.fixed()?),
            _ => return Err(self.error("a number was expected")),
        })
    }

    fn length(&mut self) -> Result<usize, Error> {
        let marker = self.marker()?;
        let length = self.integer(marker)?;
        usize::try_from(length).map_err(|_| self.error("a length is negative"))
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("a text is not UTF-8"))
    }

    /// What stands behind the bracket of an array or object: the type of all elements, and their number.
    fn head(&mut self) -> Result<Head, Error> {
        let mut head = Head { marker: None, left: None };
        if self.peek()? == b'$' {
            self.at += 1;
            let [marker] = self.fixed()?;
            // Elements without bytes of their own would make a long array of a short file.
            if !b"iUIlLdDCS".contains(&marker) {
                return Err(self.error("an array has elements of a type that it cannot have"));
            }
            head.marker = Some(marker);
        }
        if self.peek()? == b'#' {
            self.at += 1;
            let left = self.length()?;
            if left > self.bytes.len() - self.at {
                return Err(self.error("it ends too early"));
            }
            head.left = Some(left);
        } else if head.marker.is_some() {
            return Err(self.error("an array of one type needs a length"));
        }
        Ok(head)
    }
}

/// How an array or object goes on.
struct Head {
    marker: Option<u8>,
    left: Option<usize>,
}

/// One value, whose marker may be known from its array.
struct Value<'r, 'a> {
    reader: &'r mut Reader<'a>,
    marker: Option<u8>,
}

impl<'de> de::Deserializer<'de> for &mut Value<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let reader = &mut *self.reader;
        let marker = match self.marker {
            Some(marker) => marker,
            None => reader.marker()?,
        };
        match marker {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(reader.fixed()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(reader.fixed()?)),
            b'C' => visitor.visit_char(char::from(u8::from_be_bytes(reader.fixed()?))),
            b'S' => visitor.visit_borrowed_str(reader.text()?),
            b'[' | b'{' => {
                if reader.levels == MOST_LEVELS {
                    return Err(reader.error("its arrays and objects lie too deep in each other"));
                }
                reader.levels += 1;
                let head = reader.head()?;
                let inner =
                    Elements { reader: &mut *reader, head, end: if marker == b'[' { b']' } else { b'}' } };
                let value = if marker == b'[' { visitor.visit_seq(inner) } else { visitor.visit_map(inner) }?;
                reader.levels -= 1;
                Ok(value)
            }
            _ => visitor.visit_i64(reader.integer(marker)?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.marker.is_none() && self.reader.peek()? == b'Z' {
            self.reader.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The elements of an array or object.
struct Elements<'r, 'a> {
    reader: &'r mut Reader<'a>,
    head: Head,
    end: u8,
}

impl Elements<'_, '_> {
    /// Whether another one follows; the closing bracket is taken.
    fn go_on(&mut self) -> Result<bool, Error> {
        match &mut self.head.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.reader.peek()? == self.end => {
                self.reader.at += 1;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.go_on()? {
            return Ok(None);
        }
        let marker = self.head.marker;
        seed.deserialize(&mut Value { reader: self.reader, marker }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.head.left
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.go_on()? {
            return Ok(None);
        }
        let key = self.reader.text()?;
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let marker = self.head.marker;
        seed.deserialize(&mut Value { reader: self.reader, marker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn ubj(bytes: &[u8]) -> Result<Json, String> {
        read(bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn every_type_is_read() {
        assert_eq!(
            ubj(b"{i\x01aZi\x01bTi\x01cFi\x01dSi\x02xyi\x01eI\x01\x00}"),
            Ok(json!({"a": null, "b": true, "c": false, "d": "xy", "e": 256}))
        );
        assert_eq!(
            ubj(b"[i\xffU\xffl\x00\x00\x00\x07L\x00\x00\x00\x00\x00\x00\x00\x08]"),
            Ok(json!([-1, 255, 7, 8]))
        );
        assert_eq!(ubj(b"[d\x3f\x80\x00\x00ND\x3f\xe0\x00\x00\x00\x00\x00\x00]"), Ok(json!([1.0, 0.5])));
        assert_eq!(
            ubj(b"[$d#L\x00\x00\x00\x00\x00\x00\x00\x02\x3f\x80\x00\x00\x40\x00\x00\x00"),
            Ok(json!([1.0, 2.0]))
        );
        assert_eq!(ubj(b"{#i\x01i\x01a[]"), Ok(json!({"a": []})));
        assert_eq!(read::<Vec<f32>>(b"[$d#i\x01\x3f\x80\x00\x00").unwrap(), [1.0]);
        assert_eq!(read::<Vec<Option<i64>>>(b"[Zi\x05]").unwrap(), [None, Some(5)]);
    }

    #[test]
    fn broken_documents_are_refused() {
        for broken in [
            &b""[..],
            b"[",
            b"{",
            b"{i",
            b"[i\x01",
            b"[i\x01]x",
            b"[$d]",
            b"[$Z#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"[#i\xff]",
            b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"{i\x05ab}",
            b"Si\x01\xff",
            b"q",
        ] {
            assert!(ubj(broken).is_err(), "{broken:?}");
        }
        assert!(ubj(&b"[".repeat(100_000)).unwrap_err().contains("too deep"));
        assert!(ubj(&b"{i\x01a".repeat(100_000)).unwrap_err().contains("too deep"));
    }
}
