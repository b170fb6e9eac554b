//! Nested lists of JSON, read into one flat list and a shape without a tree in between.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::tensor::{Datatype, prefixed};

/// Deepest nesting that is read.
const MOST_DEPTH: usize = 32;

/// Elements of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// There are none.
    Empty,
    /// Truth values.
    Bools(Vec<bool>),
    /// Integers that fit 64 bits with a sign.
    Integers(Vec<i64>),
    /// Integers of which some do not.
    Wide(Vec<i128>),
    /// Numbers; null stands for what is none.
    Floats(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

/// A rectangular list of lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Flat {
    /// Extent of each level; none for a single value.
    pub shape: Vec<usize>,
    /// The elements in order.
    pub values: Values,
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::Empty => 0,
            Values::Bools(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Wide(values) => values.len(),
            Values::Floats(values) => values.len(),
            Values::Texts(values) => values.len(),
        }
    }

    /// The data type that holds them as they are.
    pub fn datatype(&self) -> Datatype {
        match self {
            Values::Bools(_) => Datatype::Bool,
            Values::Integers(_) => Datatype::Int64,
            Values::Wide(_) => Datatype::Uint64,
            Values::Floats(_) | Values::Empty => Datatype::Fp64,
            Values::Texts(_) => Datatype::Bytes,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Values::Empty => "nothing",
            Values::Bools(_) => "truth values",
            Values::Integers(_) | Values::Wide(_) => "integers",
            Values::Floats(_) => "numbers with a fraction",
            Values::Texts(_) => "texts",
        }
    }

    /// The elements in the protocol's binary form.
    ///
    /// # Errors
    /// A sentence for the caller, where one does not fit the type.
    pub fn encoded(&self, datatype: Datatype) -> Result<Vec<u8>, String> {
        macro_rules! integers {
            ($kind:ty, $values:expr) => {{
                let mut data = Vec::with_capacity($values.len() * size_of::<$kind>());
                for value in $values {
                    let fitting = <$kind>::try_from(*value)
                        .map_err(|_| format!("{value} does not fit {}.", datatype.as_str()))?;
                    data.extend_from_slice(&fitting.to_le_bytes());
                }
                Ok(data)
            }};
        }
        macro_rules! of_integers {
            ($values:expr) => {
                match datatype {
                    Datatype::Uint8 => integers!(u8, $values),
                    Datatype::Uint16 => integers!(u16, $values),
                    Datatype::Uint32 => integers!(u32, $values),
                    Datatype::Uint64 => integers!(u64, $values),
                    Datatype::Int8 => integers!(i8, $values),
                    Datatype::Int16 => integers!(i16, $values),
                    Datatype::Int32 => integers!(i32, $values),
                    Datatype::Int64 => integers!(i64, $values),
                    Datatype::Fp32 => {
                        Ok($values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect())
                    }
                    Datatype::Fp64 => {
                        Ok($values.iter().flat_map(|value| (*value as f64).to_le_bytes()).collect())
                    }
                    // Clients write truth values as 0 and 1 too.
                    Datatype::Bool if $values.iter().all(|value| *value == 0 || *value == 1) => {
                        Ok($values.iter().map(|value| u8::from(*value == 1)).collect())
                    }
                    _ => Err(self.unfit(datatype)),
                }
            };
        }
        if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
            return Err(format!("data of {} can only be sent in binary form.", datatype.as_str()));
        }
        match (self, datatype) {
            (Values::Empty, _) => Ok(Vec::new()),
            (Values::Bools(values), Datatype::Bool) => {
                Ok(values.iter().map(|value| u8::from(*value)).collect())
            }
            (Values::Integers(values), _) => of_integers!(values),
            (Values::Wide(values), _) => of_integers!(values),
            (Values::Floats(values), Datatype::Fp32) => {
                Ok(values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect())
            }
            (Values::Floats(values), Datatype::Fp64) => {
                Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            (Values::Texts(values), Datatype::Bytes) => Ok(prefixed(values.iter().map(String::as_bytes))),
            _ => Err(self.unfit(datatype)),
        }
    }

    fn unfit(&self, datatype: Datatype) -> String {
        format!("its data are {}, which cannot be {}.", self.kind(), datatype.as_str())
    }

    fn push_integer(&mut self, value: i128) -> Result<(), &'static str> {
        match (&mut *self, i64::try_from(value)) {
            (Values::Empty, Ok(value)) => *self = Values::Integers(vec![value]),
            (Values::Empty, Err(_)) => *self = Values::Wide(vec![value]),
            (Values::Integers(values), Ok(value)) => values.push(value),
            (Values::Integers(values), Err(_)) => {
                let widened = values.iter().map(|value| i128::from(*value)).chain([value]);
                *self = Values::Wide(widened.collect());
            }
            (Values::Wide(values), _) => values.push(value),
            (Values::Floats(values), _) => values.push(value as f64),
            _ => return Err("elements of different kinds"),
        }
        Ok(())
    }

    fn push_float(&mut self, value: f64) -> Result<(), &'static str> {
        match self {
            Values::Empty => *self = Values::Floats(vec![value]),
            Values::Floats(values) => values.push(value),
            Values::Integers(values) => {
                *self = Values::Floats(values.iter().map(|one| *one as f64).chain([value]).collect());
            }
            Values::Wide(values) => {
                *self = Values::Floats(values.iter().map(|one| *one as f64).chain([value]).collect());
            }
            _ => return Err("elements of different kinds"),
        }
        Ok(())
    }
}

impl<'de> serde::Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flat, D::Error> {
        let mut reading = Reading { shape: Vec::new(), scalars_at: None, values: Values::Empty };
        Level { reading: &mut reading, depth: 0 }.deserialize(deserializer)?;
        let shape = reading.shape.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Flat { shape, values: reading.values })
    }
}

struct Reading {
    /// Extent of each level, once one list of it has been read to its end.
    shape: Vec<Option<usize>>,
    /// How deep the elements lie.
    scalars_at: Option<usize>,
    values: Values,
}

struct Level<'a> {
    reading: &'a mut Reading,
    depth: usize,
}

const RAGGED: &str = "the lists are not rectangular";

impl Level<'_> {
    fn scalar<E: Error>(self, push: impl FnOnce(&mut Values) -> Result<(), &'static str>) -> Result<(), E> {
        let is_even = *self.reading.scalars_at.get_or_insert(self.depth) == self.depth
            && self.reading.shape.len() == self.depth;
        if !is_even {
            return Err(E::custom(RAGGED));
        }
        push(&mut self.reading.values).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("numbers, truth values or texts, or lists of them")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(|values| match values {
            Values::Empty => {
                *values = Values::Bools(vec![value]);
                Ok(())
            }
            Values::Bools(values) => {
                values.push(value);
                Ok(())
            }
            _ => Err("elements of different kinds"),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(|values| values.push_integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(|values| values.push_integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(|values| values.push_float(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(|values| values.push_float(f64::NAN))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(|values| match values {
            Values::Empty => {
                *values = Values::Texts(vec![value.to_owned()]);
                Ok(())
            }
            Values::Texts(values) => {
                values.push(value.to_owned());
                Ok(())
            }
            _ => Err("elements of different kinds"),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Level { reading, depth } = self;
        if depth >= MOST_DEPTH || reading.scalars_at.is_some_and(|scalars| scalars <= depth) {
            return Err(A::Error::custom(RAGGED));
        }
        if reading.shape.len() == depth {
            // A list that is deeper than one that was read to its end.
            if depth > 0 && reading.shape[depth - 1].is_some() {
                return Err(A::Error::custom(RAGGED));
            }
            reading.shape.push(None);
        }
        let mut length = 0;
        while list.next_element_seed(Level { reading: &mut *reading, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        if *reading.shape[depth].get_or_insert(length) == length {
            Ok(())
        } else {
            Err(A::Error::custom(RAGGED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Result<Flat, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn rectangles_have_a_shape() {
        assert_eq!(flat("[[1,2],[3,4],[5,6]]").unwrap().shape, [3, 2]);
        assert_eq!(
            flat("[[[1.5]],[[2]]]").unwrap(),
            Flat { shape: vec![2, 1, 1], values: Values::Floats(vec![1.5, 2.0]) }
        );
        assert_eq!(flat("7").unwrap(), Flat { shape: vec![], values: Values::Integers(vec![7]) });
        assert_eq!(flat("[]").unwrap(), Flat { shape: vec![0], values: Values::Empty });
        assert_eq!(flat("[[],[]]").unwrap().shape, [2, 0]);
        for ragged in [
            "[[1,2],[3]]",
            "[1,[2]]",
            "[[1],2]",
            "[[],[[]]]",
            "[[[1]],[2]]",
            "[[],1]",
            "{}",
            "[{}]",
            "[1,true]",
            "[\"a\",1]",
        ] {
            assert!(flat(ragged).is_err(), "{ragged}");
        }
        assert!(flat(&("[".repeat(40) + &"]".repeat(40))).is_err());
    }

    #[test]
    fn numbers_find_the_widest_kind_they_need() {
        assert_eq!(flat("[1,2.5,null]").unwrap().values.len(), 3);
        let wide = flat("[-1,18446744073709551615]").unwrap().values;
        assert_eq!(wide, Values::Wide(vec![-1, i128::from(u64::MAX)]));
        assert!(wide.encoded(Datatype::Uint64).unwrap_err().contains("-1"));
        let bytes = flat("[1,255]").unwrap().values;
        assert_eq!(bytes.encoded(Datatype::Uint8).unwrap(), [1, 255]);
        assert!(bytes.encoded(Datatype::Int8).unwrap_err().contains("255 does not fit INT8"));
        assert_eq!(bytes.encoded(Datatype::Fp32).unwrap().len(), 8);
        assert!(flat("[1.5]").unwrap().values.encoded(Datatype::Int32).is_err());
        assert!(flat("[\"1\"]").unwrap().values.encoded(Datatype::Fp32).is_err());
        assert!(bytes.encoded(Datatype::Fp16).unwrap_err().contains("binary form"));
        assert_eq!(flat("[0,1]").unwrap().values.encoded(Datatype::Bool).unwrap(), [0, 1]);
        assert!(flat("[2]").unwrap().values.encoded(Datatype::Bool).is_err());
        assert_eq!(flat("[\"hi\"]").unwrap().values.encoded(Datatype::Bytes).unwrap(), b"\x02\0\0\0hi");
    }
}
