//! Between the messages of gRPC and the requests and answers that all protocols share.

use bytes::Bytes;

use super::messages::{
    Contents, InferParameter, InferTensor, ModelInferRequest, ModelInferResponse, ParameterChoice,
    Parameters, RequestedOutput,
};
use crate::open_protocols::tensor::{Datatype, Tensor, extents, prefixed};
use crate::open_protocols::v2_message::{
    InferAnswer, InferRequest, Options, Parameter, WantedOutput, not_honoured,
};

/// Reads a request.
///
/// # Errors
/// A sentence for the caller.
pub fn request(message: ModelInferRequest) -> Result<InferRequest, String> {
    let raw = message.raw_input_contents;
    if !raw.is_empty() && raw.len() != message.inputs.len() {
        return Err(format!(
            "raw_input_contents has data of {} tensors, and there are {} inputs.",
            raw.len(),
            message.inputs.len()
        ));
    }
    let mut raw = raw.into_iter();
    let inputs = message.inputs.into_iter().map(|input| tensor(input, raw.next()));
    let inputs = inputs.collect::<Result<_, _>>()?;
    let outputs = message.outputs.into_iter().map(wanted).collect::<Result<_, _>>()?;
    let options = Options::read(named(message.parameters))?;
    let id = Some(message.id).filter(|id| !id.is_empty());
    Ok(InferRequest { id, inputs, outputs, options })
}

fn named(parameters: Parameters) -> impl Iterator<Item = (String, Parameter)> {
    parameters.into_iter().map(|(name, parameter)| {
        let parameter = match parameter.parameter_choice {
            Some(ParameterChoice::Bool(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Text(text)) => Parameter::Text(text),
            other => Parameter::Other(format!("{other:?}")),
        };
        (name, parameter)
    })
}

fn wanted(output: RequestedOutput) -> Result<WantedOutput, String> {
    match output.parameters.keys().next() {
        Some(parameter) => Err(not_honoured(parameter, &format!("the output {:?}", output.name))),
        None => Ok(WantedOutput { name: output.name, is_binary: None }),
    }
}

fn tensor(input: InferTensor, raw: Option<Bytes>) -> Result<Tensor, String> {
    let InferTensor { name, datatype, shape, parameters, contents } = input;
    if let Some(parameter) = parameters.keys().next() {
        return Err(not_honoured(parameter, &format!("the input {name:?}")));
    }
    let datatype = Datatype::named(&datatype)
        .ok_or_else(|| format!("The tensor {name:?} has the data type {datatype:?}, which is unknown."))?;
    match (raw, contents) {
        (Some(_), Some(contents)) if contents != Contents::default() => {
            Err(format!("The tensor {name:?} has contents beside raw_input_contents."))
        }
        (Some(data), _) => Tensor::from_binary(name, datatype, &shape, data),
        (None, contents) => of_contents(name, datatype, &shape, &contents.unwrap_or_default()),
    }
}

fn of_contents(
    name: String,
    datatype: Datatype,
    shape: &[i64],
    contents: &Contents,
) -> Result<Tensor, String> {
    macro_rules! narrowed {
        ($values:expr, $kind:ty) => {{
            let mut data = Vec::with_capacity($values.len() * size_of::<$kind>());
            for value in &$values {
                let fitting = <$kind>::try_from(*value).map_err(|_| {
                    format!("The tensor {name:?}: {value} does not fit {}.", datatype.as_str())
                })?;
                data.extend_from_slice(&fitting.to_le_bytes());
            }
            ($values.len(), data)
        }};
    }
    macro_rules! whole {
        ($values:expr) => {
            ($values.len(), $values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
    }
    let (given, data): (usize, Vec<u8>) = match datatype {
        Datatype::Bool => {
            (contents.bools.len(), contents.bools.iter().map(|value| u8::from(*value)).collect())
        }
        Datatype::Int8 => narrowed!(contents.ints, i8),
        Datatype::Int16 => narrowed!(contents.ints, i16),
        Datatype::Int32 => whole!(contents.ints),
        Datatype::Int64 => whole!(contents.int64s),
        Datatype::Uint8 => narrowed!(contents.uints, u8),
        Datatype::Uint16 => narrowed!(contents.uints, u16),
        Datatype::Uint32 => whole!(contents.uints),
        Datatype::Uint64 => whole!(contents.uint64s),
        Datatype::Fp32 => whole!(contents.floats),
        Datatype::Fp64 => whole!(contents.doubles),
        Datatype::Bytes => (contents.bytes.len(), prefixed(contents.bytes.iter().map(|bytes| &bytes[..]))),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!(
                "The tensor {name:?}: data of {} can only be sent in raw_input_contents.",
                datatype.as_str()
            ));
        }
    };
    let (_, count) = extents(&name, shape)?;
    if given != count {
        return Err(format!(
            "The tensor {name:?} has {given} elements of {} in its contents; its shape {shape:?} makes {count}.",
            datatype.as_str()
        ));
    }
    Tensor::from_binary(name, datatype, shape, data.into())
}

/// Writes an answer.
pub fn answer(answer: InferAnswer) -> ModelInferResponse {
    let mut parameters = Parameters::new();
    if let Some(content_type) = answer.content_type {
        let text = InferParameter { parameter_choice: Some(ParameterChoice::Text(content_type)) };
        parameters.insert("content_type".into(), text);
    }
    let mut response = ModelInferResponse {
        model_name: answer.model_name,
        model_version: answer.model_version,
        id: answer.id.unwrap_or_default(),
        parameters,
        ..ModelInferResponse::default()
    };
    for tensor in answer.outputs {
        response.outputs.push(InferTensor {
            shape: tensor.stated_shape(),
            datatype: tensor.datatype.as_str().to_owned(),
            name: tensor.name,
            ..InferTensor::default()
        });
        response.raw_output_contents.push(tensor.data);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64], contents: Contents) -> InferTensor {
        InferTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents: Some(contents),
            ..InferTensor::default()
        }
    }

    fn read(inputs: Vec<InferTensor>, raw: &[&'static [u8]]) -> Result<InferRequest, String> {
        let raw_input_contents = raw.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        request(ModelInferRequest { inputs, raw_input_contents, ..ModelInferRequest::default() })
    }

    #[test]
    fn contents_and_raw_contents_are_read() {
        let ints = Contents { ints: vec![1, -2], ..Contents::default() };
        let read_ints = read(vec![input("INT16", &[2], ints.clone())], &[]).unwrap();
        assert_eq!(&read_ints.inputs[0].data[..], [1, 0, 0xfe, 0xff]);
        let texts = Contents { bytes: vec![Bytes::from_static(b"hi")], ..Contents::default() };
        assert_eq!(read(vec![input("BYTES", &[1], texts)], &[]).unwrap().inputs[0].texts(), [b"hi"]);
        let raw = read(vec![input("UINT8", &[2], Contents::default())], &[&[7, 8]]).unwrap();
        assert_eq!(&raw.inputs[0].data[..], [7, 8]);

        let large = Contents { ints: vec![1, 200], ..Contents::default() };
        for (inputs, raw, named) in [
            (vec![input("INT8", &[2], large)], &[][..], "200 does not fit INT8"),
            (vec![input("INT16", &[3], ints.clone())], &[], "2 elements"),
            (vec![input("INT64", &[2], ints.clone())], &[], "0 elements of INT64"),
            (vec![input("INT16", &[2], ints)], &[&[1, 0, 2, 0][..]], "beside raw_input_contents"),
            (vec![input("FP16", &[1], Contents::default())], &[], "raw_input_contents"),
            (vec![input("UINT8", &[2], Contents::default())], &[&[7][..]], "1 bytes"),
            (vec![input("UINT8", &[2], Contents::default())], &[&[7, 8][..], &[9]], "2 tensors"),
            (vec![input("UINT8", &[-2], Contents::default())], &[&[7, 8][..]], "not possible"),
        ] {
            let problem = read(inputs, raw).unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
    }
}
