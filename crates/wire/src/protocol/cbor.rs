//! Bodies of Smithy RPC v2 CBOR: read into the JSON that the other protocols share, written by the shapes of the model.

use api::model::{Kind, Service, ShapeId, Structure};
use minicbor::data::Type;
use minicbor::decode::Error as Problem;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value};

use super::typed::{self, Misfit, Path, Read};

/// Deepest nesting that is read; models nest far less.
const MOST_DEPTH: usize = 64;

/// Tag of a moment as seconds since 1970.
const EPOCH_TAG: u64 = 1;

/// Reads a body as the members of a structure; nothing at all counts as an empty one.
pub(super) fn input(
    service: &'static Service,
    structure: &'static Structure,
    body: &[u8],
) -> Read<Map<String, Value>> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let mut decoder = Decoder::new(body);
    let unreadable =
        |problem: Problem| Misfit::Serialization(format!("The request body is not valid CBOR: {problem}."));
    let value = item(&mut decoder, MOST_DEPTH).map_err(unreadable)?;
    if decoder.position() != body.len() {
        return Err(Misfit::Serialization("The request body goes on after its CBOR item.".into()));
    }
    match value {
        Value::Object(members) => typed::members(service, structure, members, &mut Path::default()),
        _ => Err(Misfit::Serialization("The request body must be a CBOR map.".into())),
    }
}

/// Any item as JSON: bytes as base64, moments as seconds, numbers that JSON has not by the names that JSON clients give them.
fn item(decoder: &mut Decoder<'_>, depth: usize) -> Result<Value, Problem> {
    let at = decoder.position();
    let depth = depth.checked_sub(1).ok_or_else(|| Problem::message("it is nested too deeply").at(at))?;
    match decoder.datatype()? {
        Type::Bool => decoder.bool().map(Value::from),
        Type::Null => decoder.null().map(|()| Value::Null),
        Type::Undefined => decoder.undefined().map(|()| Value::Null),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64().map(Value::from),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64().map(Value::from),
        Type::F16 => half(decoder).map(number),
        Type::F32 => decoder.f32().map(|value| number(f64::from(value))),
        Type::F64 => decoder.f64().map(number),
        Type::Bytes => decoder.bytes().map(typed::blob_of),
        Type::BytesIndef => {
            let parts: Vec<&[u8]> = decoder.bytes_iter()?.collect::<Result<_, _>>()?;
            Ok(typed::blob_of(&parts.concat()))
        }
        Type::String => decoder.str().map(Value::from),
        Type::StringIndef => decoder.str_iter()?.collect::<Result<String, _>>().map(Value::String),
        Type::Array | Type::ArrayIndef => {
            let length = decoder.array()?;
            let mut elements = Vec::new();
            while more(decoder, length, elements.len())? {
                elements.push(item(decoder, depth)?);
            }
            Ok(Value::Array(elements))
        }
        Type::Map | Type::MapIndef => {
            let length = decoder.map()?;
            let (mut entries, mut read) = (Map::new(), 0);
            while more(decoder, length, read)? {
                let Value::String(key) = item(decoder, depth)? else {
                    return Err(Problem::message("a key of a map is not text").at(at));
                };
                entries.insert(key, item(decoder, depth)?);
                read += 1;
            }
            Ok(Value::Object(entries))
        }
        Type::Tag if decoder.tag()?.as_u64() == EPOCH_TAG => item(decoder, depth),
        Type::Tag => Err(Problem::message("only tag 1 (seconds since 1970) is known").at(at)),
        other => Err(Problem::type_mismatch(other).at(at)),
    }
}

/// Whether a list or map has one more; consumes the end of those whose length is not stated.
fn more(decoder: &mut Decoder<'_>, length: Option<u64>, read: usize) -> Result<bool, Problem> {
    match length {
        Some(length) => Ok((read as u64) < length),
        None if decoder.datatype()? == Type::Break => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn number(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

/// A number of 16 bits, in which clients write NaN and the infinities.
fn half(decoder: &mut Decoder<'_>) -> Result<f64, Problem> {
    let at = decoder.position();
    let bytes = decoder.input().get(at + 1..at + 3).ok_or_else(Problem::end_of_input)?;
    let bits = u16::from_be_bytes([bytes[0], bytes[1]]);
    decoder.set_position(at + 3);
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    };
    Ok(if bits >> 15 == 1 { -size } else { size })
}

type Out = Encoder<Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Writes the members of a structure, and `__type` before them where one is given. Unset members are left out.
pub(super) fn output(
    service: &'static Service,
    structure: &'static Structure,
    type_name: Option<&str>,
    value: &Map<String, Value>,
) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    members(&mut out, service, structure, type_name, value).expect("writing to memory cannot fail");
    out.into_writer()
}

fn members(
    out: &mut Out,
    service: &'static Service,
    structure: &'static Structure,
    type_name: Option<&str>,
    value: &Map<String, Value>,
) -> Written {
    let set = || value.iter().filter(|(_, value)| !value.is_null());
    out.map(set().count() as u64 + u64::from(type_name.is_some()))?;
    if let Some(name) = type_name {
        out.str("__type")?.str(name)?;
    }
    for (name, value) in set() {
        match structure.members.iter().find(|member| member.name == name) {
            Some(member) => {
                out.str(member.wire_name)?;
                shaped(out, service, member.shape, value)?;
            }
            None => {
                out.str(name)?;
                plain(out, value)?;
            }
        }
    }
    Ok(())
}

fn shaped(out: &mut Out, service: &'static Service, shape: ShapeId, value: &Value) -> Written {
    match (&service.shape(shape).kind, value) {
        (Kind::Structure(structure), Value::Object(value)) => members(out, service, structure, None, value),
        (Kind::List { member, .. }, Value::Array(elements)) => {
            out.array(elements.len() as u64)?;
            elements.iter().try_for_each(|element| shaped(out, service, *member, element))
        }
        (Kind::Map { value: shape, .. }, Value::Object(entries)) => {
            let set = || entries.iter().filter(|(_, value)| !value.is_null());
            out.map(set().count() as u64)?;
            set().try_for_each(|(key, value)| {
                out.str(key)?;
                shaped(out, service, *shape, value)
            })
        }
        (Kind::Timestamp { .. }, value @ Value::Number(_)) => {
            out.tag(minicbor::data::Tag::new(EPOCH_TAG))?;
            plain(out, value)
        }
        (Kind::Float { .. }, Value::Number(number)) => {
            out.f64(number.as_f64().unwrap_or_default())?;
            Ok(())
        }
        (Kind::Blob { .. }, value) => {
            out.bytes(&typed::blob_bytes(value).unwrap_or_default())?;
            Ok(())
        }
        (_, value) => plain(out, value),
    }
}

/// A value that no shape describes, or whose JSON says all there is to know.
fn plain(out: &mut Out, value: &Value) -> Written {
    match value {
        Value::Null => out.null()?,
        Value::Bool(value) => out.bool(*value)?,
        Value::String(text) => out.str(text)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => out.u64(whole)?,
            (None, Some(whole)) => out.i64(whole)?,
            (None, None) => out.f64(number.as_f64().unwrap_or_default())?,
        },
        Value::Array(elements) => {
            out.array(elements.len() as u64)?;
            return elements.iter().try_for_each(|element| plain(out, element));
        }
        Value::Object(entries) => {
            out.map(entries.len() as u64)?;
            return entries.iter().try_for_each(|(key, value)| {
                out.str(key)?;
                plain(out, value)
            });
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hex_text: &str) -> Result<Value, Problem> {
        item(&mut Decoder::new(&hex::decode(hex_text).unwrap()), MOST_DEPTH)
    }

    /// The examples of RFC 8949, appendix A, that JSON can say.
    #[test]
    fn published_examples_are_read() {
        for (bytes, expected) in [
            ("00", "0"),
            ("1818", "24"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("3903e7", "-1000"),
            ("f90000", "0.0"),
            ("f93c00", "1.0"),
            ("f97bff", "65504.0"),
            ("f90400", "0.00006103515625"),
            ("f9c400", "-4.0"),
            ("fa47c35000", "100000.0"),
            ("fb3ff199999999999a", "1.1"),
            ("f97c00", "\"Infinity\""),
            ("f97e00", "\"NaN\""),
            ("f9fc00", "\"-Infinity\""),
            ("f4", "false"),
            ("f6", "null"),
            ("f7", "null"),
            ("c11a514b67b0", "1363896240"),
            ("c1fb41d452d9ec200000", "1363896240.5"),
            ("4401020304", "\"AQIDBA==\""),
            ("5f42010243030405ff", "\"AQIDBAU=\""),
            ("62c3bc", "\"ü\""),
            ("7f657374726561646d696e67ff", "\"streaming\""),
            ("8301820203820405", "[1,[2,3],[4,5]]"),
            ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
            ("a26161016162820203", "{\"a\":1,\"b\":[2,3]}"),
            ("bf61610161629f0203ffff", "{\"a\":1,\"b\":[2,3]}"),
        ] {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(read(bytes).unwrap(), expected, "{bytes}");
        }
    }

    #[test]
    fn what_is_cut_off_nested_or_foreign_is_an_error() {
        let deep = "81".repeat(100) + "00";
        for bytes in [
            "",
            "18",
            "f97c",
            "61",
            "82",
            "9f01",
            "a101",
            "a1",
            "ff",
            "c074",
            "f8ff",
            "9bffffffffffffffff",
            &*deep,
        ] {
            assert!(read(bytes).is_err(), "{bytes}");
        }
    }
}
