//! What a service model says about an operation and its shapes, as constant tables that the protocols and the validator read.

/// One AWS service: its wire identity, its operations and its shapes.
#[derive(Debug)]
pub struct Service {
    /// Folder name of the model, for example `sagemaker-runtime`.
    pub id: &'static str,
    /// Name in the credential scope of a SigV4 signature.
    pub signing_name: &'static str,
    /// Prefix before the dot in `X-Amz-Target`, where the service has one.
    pub target_prefix: Option<&'static str>,
    /// API version, as query clients send it in `Version`.
    pub api_version: &'static str,
    /// Namespace of query and REST-XML answers.
    pub xml_namespace: Option<&'static str>,
    /// Protocols the service accepts, the preferred one first.
    pub protocols: &'static [Protocol],
    /// Every operation of the model, sorted by name.
    pub operations: &'static [OperationModel],
    /// Every shape of the model; a [`ShapeId`] is an index into this table.
    pub shapes: &'static [Shape],
}

impl Service {
    /// Finds an operation by its exact name.
    pub fn operation(&self, name: &str) -> Option<&'static OperationModel> {
        let operations: &'static [OperationModel] = self.operations;
        operations.binary_search_by(|operation| operation.name.cmp(name)).ok().map(|at| &operations[at])
    }

    /// The shape with this index.
    pub fn shape(&self, id: ShapeId) -> &'static Shape {
        &self.shapes[id as usize]
    }
}

/// A wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `application/x-amz-json-1.0` with `X-Amz-Target`.
    Json10,
    /// `application/x-amz-json-1.1` with `X-Amz-Target`.
    Json11,
    /// Form post with `Action`, XML answers.
    Query,
    /// HTTP bindings with JSON bodies.
    RestJson,
    /// HTTP bindings with XML bodies.
    RestXml,
    /// Smithy RPC v2 with CBOR bodies.
    RpcV2Cbor,
}

/// One operation of a service.
#[derive(Debug)]
pub struct OperationModel {
    /// Name on the wire, for example `CreateTrainingJob`.
    pub name: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// URI template, for example `/endpoints/{EndpointName}/invocations`; may carry a query part.
    pub uri: &'static str,
    /// Status of a successful answer.
    pub status: u16,
    /// Input structure.
    pub input: Option<ShapeId>,
    /// Output structure.
    pub output: Option<ShapeId>,
    /// Element that wraps a query answer, for example `GetCallerIdentityResult`.
    pub result_wrapper: Option<&'static str>,
    /// Error shapes the model lists.
    pub errors: &'static [ShapeId],
}

/// Index of a shape in [`Service::shapes`].
pub type ShapeId = u32;

/// A named shape.
#[derive(Debug)]
pub struct Shape {
    /// Name in the model.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What a shape is, with its constraints.
#[derive(Debug)]
pub enum Kind {
    /// A structure, union or error.
    Structure(Structure),
    /// A list.
    List {
        /// Shape of the elements.
        member: ShapeId,
        /// Element name in XML and query form (`member` unless the model says otherwise).
        member_name: &'static str,
        /// Whether XML and query form leave out the wrapping element.
        flattened: bool,
        /// Fewest elements.
        min: Option<u64>,
        /// Most elements.
        max: Option<u64>,
    },
    /// A map.
    Map {
        /// Shape of the keys.
        key: ShapeId,
        /// Shape of the values.
        value: ShapeId,
        /// Element name of a key in XML (`key` unless the model says otherwise).
        key_name: &'static str,
        /// Element name of a value in XML (`value` unless the model says otherwise).
        value_name: &'static str,
        /// Whether XML and query form leave out the wrapping element.
        flattened: bool,
        /// Fewest entries.
        min: Option<u64>,
        /// Most entries.
        max: Option<u64>,
    },
    /// A string or an enumeration.
    String {
        /// Shortest length in characters.
        min: Option<u64>,
        /// Longest length in characters.
        max: Option<u64>,
        /// Regular expression that the whole string must match, as the model writes it.
        pattern: Option<&'static str>,
        /// Allowed values; empty where any string is allowed.
        values: &'static [&'static str],
    },
    /// A 32-bit integer.
    Integer {
        /// Least value.
        min: Option<f64>,
        /// Greatest value.
        max: Option<f64>,
    },
    /// A 64-bit integer.
    Long {
        /// Least value.
        min: Option<f64>,
        /// Greatest value.
        max: Option<f64>,
    },
    /// A 32- or 64-bit floating-point number.
    Float {
        /// Least value.
        min: Option<f64>,
        /// Greatest value.
        max: Option<f64>,
    },
    /// A truth value.
    Boolean,
    /// A point in time.
    Timestamp {
        /// Format the shape itself asks for; a member may ask for another.
        format: Option<TimestampFormat>,
    },
    /// Bytes.
    Blob {
        /// Fewest bytes.
        min: Option<u64>,
        /// Most bytes.
        max: Option<u64>,
    },
    /// Any JSON value.
    Document,
}

/// A structure, union or error shape.
#[derive(Debug)]
pub struct Structure {
    /// Members in the model's order.
    pub members: &'static [Member],
    /// Member that is the whole HTTP body.
    pub payload: Option<&'static str>,
    /// Whether it is an event stream.
    pub event_stream: bool,
    /// Whether exactly one member may be set.
    pub union: bool,
    /// Set for error shapes.
    pub error: Option<ErrorTrait>,
}

/// What an error shape says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorTrait {
    /// Code on the wire, where it differs from the shape's name.
    pub code: Option<&'static str>,
    /// HTTP status, where the model names one.
    pub status: Option<u16>,
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Name in the model and in our typed form.
    pub name: &'static str,
    /// Name on the wire (header name, query key, XML element, JSON key).
    pub wire_name: &'static str,
    /// Where it travels.
    pub location: Location,
    /// Its shape.
    pub shape: ShapeId,
    /// Whether a request must carry it.
    pub required: bool,
    /// Format of a timestamp member, where the member names one.
    pub timestamp_format: Option<TimestampFormat>,
    /// Whether it is streamed (event streams, blobs of unknown length).
    pub streaming: bool,
    /// Whether clients fill it in by themselves when the caller left it out.
    pub idempotency_token: bool,
}

/// Where a member travels in HTTP bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the body.
    Body,
    /// In the path.
    Uri,
    /// In one header.
    Header,
    /// In all headers with a prefix.
    Headers,
    /// In the query string.
    QueryString,
    /// As the status code of the answer.
    StatusCode,
    /// As an attribute of the XML element.
    XmlAttribute,
    /// As a header of an event-stream message.
    EventHeader,
    /// As the payload of an event-stream message.
    EventPayload,
}

/// Wire format of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampFormat {
    /// Seconds since 1970, fraction allowed.
    UnixTimestamp,
    /// `2026-01-31T12:00:00Z`.
    Iso8601,
    /// `Sat, 31 Jan 2026 12:00:00 GMT`.
    Rfc822,
}

/// Ties an operation of the model to its Rust types.
pub trait Operation: Send + Sync + 'static {
    /// The service it belongs to.
    const SERVICE: &'static Service;
    /// Its name on the wire.
    const NAME: &'static str;
    /// Typed input. Its serde form has model member names as keys, seconds since 1970 as timestamps and base64 as blobs.
    type Input: serde::de::DeserializeOwned + Send + 'static;
    /// Typed output, in the same form.
    type Output: serde::Serialize + Send + 'static;
}
