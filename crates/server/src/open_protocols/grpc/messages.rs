//! The messages of `inference.GRPCInferenceService`, as the protocol numbers their fields.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// A question without content.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// Whether the server lives.
#[derive(Clone, PartialEq, Message)]
pub struct ServerLiveResponse {
    /// It does.
    #[prost(bool, tag = "1")]
    pub live: bool,
}

/// Whether the server takes requests.
#[derive(Clone, PartialEq, Message)]
pub struct ServerReadyResponse {
    /// It does.
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// Names a model, for its readiness and its description.
#[derive(Clone, PartialEq, Message)]
pub struct ModelQuestion {
    /// The model.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version; empty for any.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// Whether a model answers.
#[derive(Clone, PartialEq, Message)]
pub struct ModelReadyResponse {
    /// It does.
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// What the server says of itself.
#[derive(Clone, PartialEq, Message)]
pub struct ServerMetadataResponse {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The extensions that it does.
    #[prost(string, repeated, tag = "3")]
    pub extensions: Vec<String>,
}

/// The description of a model.
#[derive(Clone, PartialEq, Message)]
pub struct ModelMetadataResponse {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its versions.
    #[prost(string, repeated, tag = "2")]
    pub versions: Vec<String>,
    /// What runs it.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// What goes in.
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<TensorMetadata>,
    /// What comes out.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<TensorMetadata>,
}

/// The description of a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorMetadata {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its data type.
    #[prost(string, tag = "2")]
    pub datatype: String,
    /// Its shape; -1 for a side of any length.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

/// A parameter.
#[derive(Clone, PartialEq, Message)]
pub struct InferParameter {
    /// Its value.
    #[prost(oneof = "ParameterChoice", tags = "1, 2, 3, 4, 5")]
    pub parameter_choice: Option<ParameterChoice>,
}

/// The value of a parameter.
#[derive(Clone, PartialEq, Oneof)]
pub enum ParameterChoice {
    /// A truth value.
    #[prost(bool, tag = "1")]
    Bool(bool),
    /// An integer.
    #[prost(int64, tag = "2")]
    Int64(i64),
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// An integer without a sign.
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

/// Parameters by name.
pub type Parameters = BTreeMap<String, InferParameter>;

/// A request for an inference.
#[derive(Clone, PartialEq, Message)]
pub struct ModelInferRequest {
    /// The model.
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// Its version; empty for any.
    #[prost(string, tag = "2")]
    pub model_version: String,
    /// The caller's name for the request.
    #[prost(string, tag = "3")]
    pub id: String,
    /// What holds for the whole request.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// What goes in.
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<InferTensor>,
    /// The outputs that are wanted.
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<RequestedOutput>,
    /// The data of all inputs in binary form, where they have no contents.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub raw_input_contents: Vec<bytes::Bytes>,
}

/// A tensor of a request or an answer.
#[derive(Clone, PartialEq, Message)]
pub struct InferTensor {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its data type.
    #[prost(string, tag = "2")]
    pub datatype: String,
    /// Its shape.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    /// What holds for it.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// Its data, where they are not in binary form.
    #[prost(message, optional, tag = "5")]
    pub contents: Option<Contents>,
}

/// An output that is wanted.
#[derive(Clone, PartialEq, Message)]
pub struct RequestedOutput {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What holds for it.
    #[prost(btree_map = "string, message", tag = "2")]
    pub parameters: Parameters,
}

/// The data of a tensor; which field has them follows from the data type.
#[derive(Clone, PartialEq, Message)]
pub struct Contents {
    /// BOOL.
    #[prost(bool, repeated, tag = "1")]
    pub bools: Vec<bool>,
    /// INT8, INT16 and INT32.
    #[prost(int32, repeated, tag = "2")]
    pub ints: Vec<i32>,
    /// INT64.
    #[prost(int64, repeated, tag = "3")]
    pub int64s: Vec<i64>,
    /// UINT8, UINT16 and UINT32.
    #[prost(uint32, repeated, tag = "4")]
    pub uints: Vec<u32>,
    /// UINT64.
    #[prost(uint64, repeated, tag = "5")]
    pub uint64s: Vec<u64>,
    /// FP32.
    #[prost(float, repeated, tag = "6")]
    pub floats: Vec<f32>,
    /// FP64.
    #[prost(double, repeated, tag = "7")]
    pub doubles: Vec<f64>,
    /// BYTES.
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub bytes: Vec<bytes::Bytes>,
}

/// The answer to a request for an inference.
#[derive(Clone, PartialEq, Message)]
pub struct ModelInferResponse {
    /// The model.
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// The version that answered.
    #[prost(string, tag = "2")]
    pub model_version: String,
    /// What the request was called.
    #[prost(string, tag = "3")]
    pub id: String,
    /// What holds for the whole answer.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// What comes out; the data are in `raw_output_contents`.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<InferTensor>,
    /// The data of all outputs in binary form.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub raw_output_contents: Vec<bytes::Bytes>,
}
