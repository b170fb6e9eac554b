//! Requests and answers of the Open Inference Protocol as it travels over HTTP: JSON, with the binary data extension.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::flat::Flat;
use super::tensor::{Datatype, Tensor};

/// Header that says how many bytes of a body are JSON; the binary data of its tensors follow.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Longest parameter that becomes a header of the request to the model, as in the service.
const MOST_HEADER: usize = 1024;

/// Most tensors of a request.
const MOST_TENSORS: usize = 1024;

/// A request for an inference, whatever it travelled over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferRequest {
    /// The caller's name for it.
    pub id: Option<String>,
    /// What goes in.
    pub inputs: Vec<Tensor>,
    /// The outputs that are wanted; all when none is named.
    pub outputs: Vec<WantedOutput>,
    /// What holds for the whole request.
    pub options: Options,
}

/// An output that a request names.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedOutput {
    /// Its name.
    pub name: String,
    /// Whether it comes in binary form; `None` leaves it to the request.
    pub is_binary: Option<bool>,
}

/// Parameters of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Whether outputs come in binary form unless they say otherwise.
    pub binary_output: bool,
    /// The media type in which the model gets the tensors.
    pub content_type: Option<String>,
    /// The media type that the model is asked for.
    pub accept: Option<String>,
    /// Free text for the model.
    pub custom_attributes: Option<String>,
}

/// A parameter, whatever it travelled over.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// Anything else, as it is shown to people.
    Other(String),
}

impl Options {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// A sentence that names the parameter which is not honoured.
    pub fn read(parameters: impl IntoIterator<Item = (String, Parameter)>) -> Result<Options, String> {
        let mut options = Options::default();
        for (name, parameter) in parameters {
            match (name.as_str(), parameter) {
                ("binary_data_output", Parameter::Bool(wanted)) => options.binary_output = wanted,
                (name @ ("content_type" | "accept" | "custom_attributes"), Parameter::Text(text))
                    if is_header(&text, MOST_HEADER) =>
                {
                    let place = match name {
                        "content_type" => &mut options.content_type,
                        "accept" => &mut options.accept,
                        _ => &mut options.custom_attributes,
                    };
                    *place = Some(text);
                }
                (name @ ("binary_data_output" | "content_type" | "accept" | "custom_attributes"), given) => {
                    return Err(format!("The parameter {name:?} of the request cannot be {given:?}."));
                }
                (name, _) => return Err(not_honoured(name, "the request")),
            }
        }
        Ok(options)
    }
}

/// Whether a text can travel as a header: printable ASCII of at most `most` characters.
pub fn is_header(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// The sentence for a parameter that nothing would come of.
pub fn not_honoured(name: &str, of: &str) -> String {
    format!("The parameter {name:?} of {of} is not honoured; leave it out.")
}

#[derive(Deserialize)]
struct Request {
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    data: Option<Flat>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

fn parameter(value: Value) -> Parameter {
    match value {
        Value::Bool(value) => Parameter::Bool(value),
        Value::String(text) => Parameter::Text(text),
        other => Parameter::Other(other.to_string()),
    }
}

/// Reads a request. `header_bytes` is what [`HEADER_LENGTH`] says.
///
/// # Errors
/// A sentence for the caller.
pub fn read(body: &Bytes, header_bytes: Option<usize>) -> Result<InferRequest, String> {
    let (header, binary) = split(body, header_bytes)?;
    let request: Request =
        serde_json::from_slice(&header).map_err(|error| format!("The request cannot be read: {error}."))?;
    if request.inputs.len() > MOST_TENSORS
        || request.outputs.as_ref().is_some_and(|all| all.len() > MOST_TENSORS)
    {
        return Err(format!("A request has at most {MOST_TENSORS} inputs and as many outputs."));
    }
    let named =
        request.parameters.unwrap_or_default().into_iter().map(|(name, value)| (name, parameter(value)));
    let options = Options::read(named)?;
    let mut binary = Binary { rest: binary };
    let inputs =
        request.inputs.into_iter().map(|input| input.tensor(&mut binary)).collect::<Result<_, _>>()?;
    if !binary.rest.is_empty() {
        return Err(format!("{} bytes follow the data of the last input.", binary.rest.len()));
    }
    let outputs =
        request.outputs.unwrap_or_default().into_iter().map(Output::wanted).collect::<Result<_, _>>()?;
    Ok(InferRequest { id: request.id, inputs, outputs, options })
}

/// JSON and what follows it.
fn split(body: &Bytes, header_bytes: Option<usize>) -> Result<(Bytes, Bytes), String> {
    let header_bytes = header_bytes.unwrap_or(body.len());
    if header_bytes > body.len() {
        return Err(format!(
            "Inference-Header-Content-Length says {header_bytes} bytes, and the body has {}.",
            body.len()
        ));
    }
    Ok((body.slice(..header_bytes), body.slice(header_bytes..)))
}

/// The binary data that is left.
struct Binary {
    rest: Bytes,
}

impl Binary {
    fn take(&mut self, name: &str, size: &Value) -> Result<Bytes, String> {
        let taken = size.as_u64().and_then(|size| usize::try_from(size).ok());
        let taken = taken.filter(|size| *size <= self.rest.len()).ok_or_else(|| {
            format!(
                "The tensor {name:?} says binary_data_size {size}, and {} bytes are left.",
                self.rest.len()
            )
        })?;
        Ok(self.rest.split_to(taken))
    }
}

impl Input {
    fn tensor(self, binary: &mut Binary) -> Result<Tensor, String> {
        let Input { name, shape, datatype, parameters, data } = self;
        let datatype = Datatype::named(&datatype).ok_or_else(|| {
            format!("The tensor {name:?} has the data type {datatype:?}, which is unknown.")
        })?;
        let mut size = None;
        for (parameter, value) in parameters.unwrap_or_default() {
            match parameter.as_str() {
                "binary_data_size" => size = Some(value),
                other => return Err(not_honoured(other, &format!("the input {name:?}"))),
            }
        }
        match (size, data) {
            (Some(size), None) => {
                let data = binary.take(&name, &size)?;
                Tensor::from_binary(name, datatype, &shape, data)
            }
            (None, Some(flat)) => of_flat(name, datatype, &shape, &flat),
            (Some(_), Some(_)) => Err(format!("The tensor {name:?} has both data and binary_data_size.")),
            (None, None) => Err(format!("The tensor {name:?} has no data.")),
        }
    }
}

fn of_flat(name: String, datatype: Datatype, shape: &[i64], flat: &Flat) -> Result<Tensor, String> {
    let nested: Vec<i64> = flat.shape.iter().map(|side| i64::try_from(*side).unwrap_or(i64::MAX)).collect();
    if nested.len() > 1 && nested != shape {
        return Err(format!("The tensor {name:?} has the shape {shape:?}, and its data {nested:?}."));
    }
    Tensor::from_values(name, datatype, shape, &flat.values)
}

impl Output {
    fn wanted(self) -> Result<WantedOutput, String> {
        let mut is_binary = None;
        for (parameter, value) in self.parameters.unwrap_or_default() {
            match (parameter.as_str(), value) {
                ("binary_data", Value::Bool(wanted)) => is_binary = Some(wanted),
                // What clients write who do not want it.
                ("classification", value) if value == 0 => {}
                (other, _) => return Err(not_honoured(other, &format!("the output {:?}", self.name))),
            }
        }
        Ok(WantedOutput { name: self.name, is_binary })
    }
}

/// Whether a value looks like an output of an answer of this protocol.
pub fn is_output(value: &Value) -> bool {
    ["name", "datatype", "shape", "data"].iter().all(|member| value.get(member).is_some())
}

/// The outputs of an answer that a model wrote in the words of this protocol.
///
/// # Errors
/// A sentence that says what is wrong with one of them.
pub fn read_outputs(outputs: &[Value]) -> Result<Vec<Tensor>, String> {
    let read = |output: &Value| {
        let output =
            Input::deserialize(output).map_err(|error| format!("An output of the model: {error}."))?;
        output.tensor(&mut Binary { rest: Bytes::new() })
    };
    outputs.iter().map(read).collect()
}

/// An answer on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct InferAnswer {
    /// The model that answered.
    pub model_name: String,
    /// The variant that did.
    pub model_version: String,
    /// What the request was called.
    pub id: Option<String>,
    /// What comes out.
    pub outputs: Vec<Tensor>,
    /// The media type of an output that is the model's answer as it was.
    pub content_type: Option<String>,
}

/// A written answer: its body, and how much of it is JSON where binary data follow.
pub struct Written {
    /// JSON, with the binary data after it.
    pub body: Vec<u8>,
    /// Length of the JSON, if it is not all.
    pub header_bytes: Option<usize>,
}

impl InferAnswer {
    /// The answer as the request wants it.
    pub fn write(&self, request: &InferRequest) -> Written {
        let mut body = Vec::new();
        let mut binary = Vec::new();
        let mut head = json!({"model_name": self.model_name, "model_version": self.model_version});
        if let Some(id) = &self.id {
            head["id"] = json!(id);
        }
        if let Some(content_type) = &self.content_type {
            head["parameters"] = json!({"content_type": content_type});
        }
        let head = head.to_string();
        // The outputs go in before the last brace, without a tree of their elements.
        body.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
        body.extend_from_slice(b",\"outputs\":[");
        for (index, tensor) in self.outputs.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            let wanted = request.outputs.iter().find(|wanted| wanted.name == tensor.name);
            let is_binary =
                wanted.and_then(|wanted| wanted.is_binary).unwrap_or(request.options.binary_output);
            let head = json!({
                "name": tensor.name, "datatype": tensor.datatype.as_str(), "shape": tensor.stated_shape(),
            });
            let head = head.to_string();
            body.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
            if is_binary {
                let size = json!({"binary_data_size": tensor.data.len()});
                body.extend_from_slice(format!(",\"parameters\":{size}}}").as_bytes());
                binary.extend_from_slice(&tensor.data);
            } else {
                body.extend_from_slice(b",\"data\":");
                tensor.write_json(&mut body, false);
                body.push(b'}');
            }
        }
        body.extend_from_slice(b"]}");
        let header_bytes = (!binary.is_empty()).then_some(body.len());
        body.extend_from_slice(&binary);
        Written { body, header_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<InferRequest, String> {
        read(&Bytes::copy_from_slice(text.as_bytes()), None)
    }

    fn input(rest: &str) -> String {
        format!(r#"{{"inputs":[{{"name":"x","shape":[2],{rest}}}]}}"#)
    }

    #[test]
    fn json_and_binary_inputs_are_read() {
        let request = text(
            r#"{"id":"7","parameters":{"binary_data_output":true,"accept":"text/csv"},
                "inputs":[{"name":"a","shape":[2,1],"datatype":"FP32","data":[[1],[2.5]]},
                          {"data":["x","y"],"name":"b","shape":[2],"datatype":"BYTES"}],
                "outputs":[{"name":"o","parameters":{"binary_data":false}}]}"#,
        )
        .unwrap();
        assert_eq!((request.id.as_deref(), request.options.binary_output), (Some("7"), true));
        assert_eq!(request.inputs[0].data, [1.0_f32, 2.5].map(f32::to_le_bytes).concat());
        assert_eq!(request.inputs[1].texts(), [b"x", b"y"]);
        assert_eq!(request.outputs, [WantedOutput { name: "o".into(), is_binary: Some(false) }]);

        let header = r#"{"inputs":[{"name":"a","shape":[1],"datatype":"INT16","parameters":{"binary_data_size":2}},
            {"name":"b","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}]}"#;
        let body = Bytes::from([header.as_bytes(), &[1, 2, 3]].concat());
        let request = read(&body, Some(header.len())).unwrap();
        assert_eq!((&request.inputs[0].data[..], &request.inputs[1].data[..]), (&[1, 2][..], &[3][..]));
        assert!(read(&body, Some(header.len() - 1)).is_err());
        assert!(read(&body, Some(body.len() + 1)).unwrap_err().contains("Inference-Header-Content-Length"));
        let longer = Bytes::from([&body[..], &[0]].concat());
        assert!(read(&longer, Some(header.len())).unwrap_err().contains("1 bytes follow"));
        assert!(
            read(&body.slice(..body.len() - 1), Some(header.len()))
                .unwrap_err()
                .contains("binary_data_size 1")
        );
    }

    #[test]
    fn what_does_not_fit_or_is_not_honoured_is_named() {
        for (request, named) in [
            (input(r#""datatype":"FP31","data":[1,2]"#), "FP31"),
            (input(r#""datatype":"FP32","data":[1]"#), "1 elements"),
            (input(r#""datatype":"FP32","data":[[1,2]]"#), "[1, 2]"),
            (input(r#""datatype":"FP32""#), "no data"),
            (input(r#""datatype":"FP16","data":[1,2]"#), "FP16"),
            (input(r#""datatype":"UINT8","data":[1,-2]"#), "-2"),
            (input(r#""datatype":"FP32","parameters":{"binary_data_size":9}"#), "binary_data_size"),
            (input(r#""datatype":"FP32","parameters":{"binary_data_size":-1}"#), "binary_data_size"),
            (
                input(r#""datatype":"FP32","data":[1,2],"parameters":{"shared_memory_region":"r"}"#),
                "shared_memory_region",
            ),
            (r#"{"inputs":[],"parameters":{"sequence_id":1}}"#.into(), "sequence_id"),
            (r#"{"inputs":[],"parameters":{"accept":1}}"#.into(), "accept"),
            (
                r#"{"inputs":[],"outputs":[{"name":"o","parameters":{"classification":3}}]}"#.into(),
                "classification",
            ),
            (r#"{"input":[]}"#.into(), "inputs"),
            ("[".into(), "cannot be read"),
        ] {
            let problem = text(&request).unwrap_err();
            assert!(problem.contains(named), "{request}: {problem}");
        }
    }

    #[test]
    fn answers_are_json_or_binary_as_wanted() {
        let tensor = |name: &str| {
            Tensor::from_binary(name.into(), Datatype::Uint8, &[2], Bytes::from_static(&[1, 2])).unwrap()
        };
        let answer = InferAnswer {
            model_name: "m".into(),
            model_version: "v".into(),
            id: Some("7".into()),
            outputs: vec![tensor("a"), tensor("b")],
            content_type: None,
        };
        let written = answer.write(&InferRequest::default());
        let read: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(written.header_bytes, None);
        assert_eq!(
            read,
            json!({"model_name": "m", "model_version": "v", "id": "7", "outputs": [
                {"name": "a", "datatype": "UINT8", "shape": [2], "data": [1, 2]},
                {"name": "b", "datatype": "UINT8", "shape": [2], "data": [1, 2]},
            ]})
        );
        let request = InferRequest {
            outputs: vec![WantedOutput { name: "a".into(), is_binary: Some(false) }],
            options: Options { binary_output: true, ..Options::default() },
            ..InferRequest::default()
        };
        let written = answer.write(&request);
        let header = written.header_bytes.unwrap();
        let read: Value = serde_json::from_slice(&written.body[..header]).unwrap();
        assert_eq!(read["outputs"][0]["data"], json!([1, 2]));
        assert_eq!(read["outputs"][1]["parameters"]["binary_data_size"], 2);
        assert_eq!(&written.body[header..], [1, 2]);
    }
}
