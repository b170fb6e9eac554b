//! Values of requests as tensors of the runtime, and tensors as values of answers.

use ort::session::SessionInputValue;
use ort::value::{DynMapValueType, DynValue, Tensor, TensorElementType, ValueType};

use super::cells::{Array, Cell};
use super::outputs::{Output, Values};
use crate::engine::refusal::RequestError;

/// Whether an input of these elements can be filled.
pub(crate) fn can_fill(element: TensorElementType) -> bool {
    use TensorElementType as Type;
    matches!(
        element,
        Type::Float32
            | Type::Float64
            | Type::Int8
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::Uint8
            | Type::Uint16
            | Type::Uint32
            | Type::Uint64
            | Type::Bool
            | Type::String
    )
}

/// Whether an output of this type can be written.
pub(crate) fn can_read(kind: &ValueType) -> bool {
    let is_number = |element: &TensorElementType| {
        matches!(element, TensorElementType::Float32 | TensorElementType::Float64)
    };
    match kind {
        ValueType::Tensor { ty, .. } => can_fill(*ty),
        ValueType::Sequence(inner) => match inner.as_ref() {
            ValueType::Map { key, value } => {
                matches!(key, TensorElementType::Int64 | TensorElementType::String) && is_number(value)
            }
            _ => false,
        },
        _ => false,
    }
}

/// The array as a tensor of these elements, for the input of this name.
pub(crate) fn fill(
    array: &Array<'_>,
    element: TensorElementType,
    input: &str,
) -> Result<SessionInputValue<'static>, RequestError> {
    macro_rules! whole {
        ($type:ty) => {
            numbers(array, |cell| {
                let value = cell.integer(input)?;
                <$type>::try_from(value).map_err(|_| {
                    RequestError::unfit(&format!(
                        "the input {input} takes {}, which has no {value}.",
                        stringify!($type)
                    ))
                })
            })
        };
    }
    match element {
        TensorElementType::Float32 => numbers(array, |cell| cell.number(input).map(|value| value as f32)),
        TensorElementType::Float64 => numbers(array, |cell| cell.number(input)),
        TensorElementType::Int8 => whole!(i8),
        TensorElementType::Int16 => whole!(i16),
        TensorElementType::Int32 => whole!(i32),
        TensorElementType::Int64 => whole!(i64),
        TensorElementType::Uint8 => whole!(u8),
        TensorElementType::Uint16 => whole!(u16),
        TensorElementType::Uint32 => whole!(u32),
        TensorElementType::Uint64 => whole!(u64),
        TensorElementType::Bool => numbers(array, |cell| cell.truth(input)),
        TensorElementType::String => {
            let texts: Vec<String> = array.cells.iter().map(Cell::text).collect();
            let tensor = Tensor::from_string_array((array.shape.clone(), texts.as_slice()));
            tensor.map(SessionInputValue::from).map_err(|error| not_made(&error))
        }
        other => Err(RequestError::unfit(&format!(
            "the input {input} has elements of {other}, which cannot be filled."
        ))),
    }
}

fn numbers<T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
    array: &Array<'_>,
    value: impl Fn(&Cell<'_>) -> Result<T, RequestError>,
) -> Result<SessionInputValue<'static>, RequestError> {
    let values: Vec<T> = array.cells.iter().map(value).collect::<Result<_, _>>()?;
    let tensor = Tensor::from_array((array.shape.clone(), values));
    tensor.map(SessionInputValue::from).map_err(|error| not_made(&error))
}

fn not_made(error: &ort::Error) -> RequestError {
    RequestError::unfit(&format!("a tensor cannot be made: {error}"))
}

/// An output as values.
pub(crate) fn read(name: &str, value: &DynValue) -> ort::Result<Output> {
    macro_rules! whole {
        ($type:ty) => {
            of::<$type>(name, value, |values| {
                Values::Integers(values.iter().map(|value| i64::from(*value)).collect())
            })
        };
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return read_maps(name, value) };
    match ty {
        TensorElementType::Float32 => of::<f32>(name, value, |values| Values::Singles(values.to_vec())),
        TensorElementType::Float64 => of::<f64>(name, value, |values| Values::Doubles(values.to_vec())),
        TensorElementType::Int64 => of::<i64>(name, value, |values| Values::Integers(values.to_vec())),
        TensorElementType::Bool => of::<bool>(name, value, |values| Values::Truths(values.to_vec())),
        TensorElementType::Int32 => whole!(i32),
        TensorElementType::Int16 => whole!(i16),
        TensorElementType::Int8 => whole!(i8),
        TensorElementType::Uint32 => whole!(u32),
        TensorElementType::Uint16 => whole!(u16),
        TensorElementType::Uint8 => whole!(u8),
        // What is larger than every i64 is written with the digits of a double.
        TensorElementType::Uint64 => of::<u64>(name, value, |values| {
            let whole: Option<Vec<i64>> = values.iter().map(|value| i64::try_from(*value).ok()).collect();
            whole.map_or_else(
                || Values::Doubles(values.iter().map(|value| *value as f64).collect()),
                Values::Integers,
            )
        }),
        _ => {
            let (shape, texts) = value.try_extract_strings()?;
            Ok(Output { name: name.to_owned(), shape: sizes(shape), values: Values::Texts(texts) })
        }
    }
}

fn of<T: ort::value::PrimitiveTensorElementType>(
    name: &str,
    value: &DynValue,
    values: impl Fn(&[T]) -> Values,
) -> ort::Result<Output> {
    let (shape, data) = value.try_extract_tensor::<T>()?;
    Ok(Output { name: name.to_owned(), shape: sizes(shape), values: values(data) })
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect()
}

/// The output of a classifier that gives a map for each row.
fn read_maps(name: &str, value: &DynValue) -> ort::Result<Output> {
    let maps = value.try_extract_sequence::<DynMapValueType>()?;
    let rows: Vec<Vec<(String, f64)>> = maps
        .iter()
        .map(|map| {
            let mut classes: Vec<(String, f64)> = match map.dtype() {
                ValueType::Map { key: TensorElementType::Int64, value: TensorElementType::Float64 } => {
                    let pairs = map.try_extract_key_values::<i64, f64>()?;
                    pairs.into_iter().map(|(class, number)| (class.to_string(), number)).collect()
                }
                ValueType::Map { key: TensorElementType::Int64, .. } => {
                    let mut pairs = map.try_extract_key_values::<i64, f32>()?;
                    pairs.sort_by_key(|(class, _)| *class);
                    pairs.into_iter().map(|(class, number)| (class.to_string(), f64::from(number))).collect()
                }
                ValueType::Map { value: TensorElementType::Float64, .. } => {
                    map.try_extract_key_values::<String, f64>()?
                }
                _ => {
                    let pairs = map.try_extract_key_values::<String, f32>()?;
                    pairs.into_iter().map(|(class, number)| (class, f64::from(number))).collect()
                }
            };
            if !matches!(map.dtype(), ValueType::Map { key: TensorElementType::Int64, .. }) {
                classes.sort_by(|(one, _), (other, _)| one.cmp(other));
            }
            Ok(classes)
        })
        .collect::<ort::Result<_>>()?;
    Ok(Output { name: name.to_owned(), shape: vec![rows.len()], values: Values::Maps(rows) })
}
