//! The models of three small services.

use api::model::{
    ErrorTrait, Kind, Location, Member, OperationModel, Protocol, Service, Shape, ShapeId, Structure,
    TimestampFormat,
};

// Shapes, shared by all three services.
const TEXT: ShapeId = 0;
const NAME: ShapeId = 1;
const COLOUR: ShapeId = 2;
const COUNT: ShapeId = 3;
const SIZE: ShapeId = 4;
const RATIO: ShapeId = 5;
const FLAG: ShapeId = 6;
const MOMENT: ShapeId = 7;
const BYTES: ShapeId = 8;
const ANY: ShapeId = 9;
const NAMES: ShapeId = 10;
const FLAT_NAMES: ShapeId = 11;
const TAGS: ShapeId = 12;
const FLAT_TAGS: ShapeId = 13;
const PART: ShapeId = 14;
const PARTS: ShapeId = 15;
const CHOICE: ShapeId = 16;
const WIDGET: ShapeId = 17;
const IN_USE: ShapeId = 18;
const MISSING: ShapeId = 19;
const INVOCATION: ShapeId = 20;
const QUESTION: ShapeId = 21;
const ANSWER: ShapeId = 22;
const UPLOAD: ShapeId = 23;
const GRID: ShapeId = 24;
const PART_MAP: ShapeId = 25;
const LONG_TEXT: ShapeId = 26;
const ISO_MOMENT: ShapeId = 27;
const NAMED_PARTS: ShapeId = 28;

const fn member(name: &'static str, shape: ShapeId) -> Member {
    Member {
        name,
        wire_name: name,
        location: Location::Body,
        shape,
        required: false,
        timestamp_format: None,
        streaming: false,
        idempotency_token: false,
    }
}

const fn required(member: &Member) -> Member {
    Member { required: true, ..*member }
}

const fn at(location: Location, wire_name: &'static str, member: &Member) -> Member {
    Member { location, wire_name, ..*member }
}

const fn structure(members: &'static [Member]) -> Kind {
    Kind::Structure(Structure { members, payload: None, event_stream: false, union: false, error: None })
}

const fn text(max: Option<u64>, pattern: Option<&'static str>, values: &'static [&'static str]) -> Kind {
    Kind::String { min: None, max, pattern, values }
}

const fn shape(name: &'static str, kind: Kind) -> Shape {
    Shape { name, kind }
}

static SHAPES: [Shape; 29] = [
    shape("Text", text(None, None, &[])),
    shape(
        "Name",
        Kind::String { min: Some(1), max: Some(8), pattern: Some("[a-z](-*[a-z0-9])*"), values: &[] },
    ),
    shape("Colour", text(None, None, &["Red", "Green"])),
    shape("Count", Kind::Integer { min: Some(1.0), max: Some(100.0) }),
    shape("Size", Kind::Long { min: None, max: None }),
    shape("Ratio", Kind::Float { min: Some(0.0), max: Some(0.5) }),
    shape("Flag", Kind::Boolean),
    shape("Moment", Kind::Timestamp { format: None }),
    shape("Bytes", Kind::Blob { min: None, max: Some(16) }),
    shape("Any", Kind::Document),
    shape(
        "Names",
        Kind::List { member: NAME, member_name: "member", flattened: false, min: None, max: Some(3) },
    ),
    shape(
        "FlatNames",
        Kind::List { member: TEXT, member_name: "Item", flattened: true, min: None, max: None },
    ),
    shape(
        "Tags",
        Kind::Map {
            key: NAME,
            value: LONG_TEXT,
            key_name: "key",
            value_name: "value",
            flattened: false,
            min: None,
            max: Some(3),
        },
    ),
    shape(
        "FlatTags",
        Kind::Map {
            key: TEXT,
            value: TEXT,
            key_name: "Name",
            value_name: "Value",
            flattened: true,
            min: None,
            max: None,
        },
    ),
    shape("Part", structure(&[required(&member("PartName", NAME)), member("Sub", PARTS)])),
    shape(
        "Parts",
        Kind::List { member: PART, member_name: "member", flattened: false, min: Some(1), max: None },
    ),
    shape(
        "Choice",
        Kind::Structure(Structure {
            members: &[member("One", TEXT), member("Other", TEXT)],
            payload: None,
            event_stream: false,
            union: true,
            error: None,
        }),
    ),
    shape(
        "Widget",
        structure(&[
            required(&member("WidgetName", NAME)),
            member("Colour", COLOUR),
            member("Count", COUNT),
            member("Size", SIZE),
            member("Ratio", RATIO),
            member("Flag", FLAG),
            member("MadeAt", MOMENT),
            member("Bytes", BYTES),
            member("Any", ANY),
            member("Names", NAMES),
            member("FlatNames", FLAT_NAMES),
            member("Tags", TAGS),
            member("FlatTags", FLAT_TAGS),
            member("Parts", PARTS),
            member("Choice", CHOICE),
            member("Text", TEXT),
            member("Grid", GRID),
            member("PartMap", PART_MAP),
            member("SoldAt", ISO_MOMENT),
        ]),
    ),
    shape(
        "WidgetInUse",
        Kind::Structure(Structure {
            members: &[member("Message", TEXT), member("Holder", TEXT)],
            payload: None,
            event_stream: false,
            union: false,
            error: Some(ErrorTrait { code: None, status: None }),
        }),
    ),
    shape(
        "WidgetMissing",
        Kind::Structure(Structure {
            members: &[member("message", TEXT)],
            payload: None,
            event_stream: false,
            union: false,
            error: Some(ErrorTrait { code: Some("Widgets.Missing"), status: Some(404) }),
        }),
    ),
    shape(
        "Invocation",
        Kind::Structure(Structure {
            members: &[
                required(&at(Location::Uri, "WidgetName", &member("WidgetName", NAME))),
                at(Location::Header, "X-Custom", &member("Custom", TEXT)),
                required(&member("Body", BYTES)),
            ],
            payload: Some("Body"),
            event_stream: false,
            union: false,
            error: None,
        }),
    ),
    shape(
        "Question",
        structure(&[
            required(&at(Location::Uri, "Key", &member("Key", LONG_TEXT))),
            at(Location::QueryString, "name", &member("Names", NAMES)),
            at(Location::QueryString, "limit", &member("Limit", COUNT)),
            at(Location::QueryString, "since", &member("Since", MOMENT)),
            at(Location::Header, "x-flag", &member("Flag", FLAG)),
            at(Location::Header, "if-since", &member("IfSince", MOMENT)),
            at(Location::Headers, "x-meta-", &member("Meta", FLAT_TAGS)),
            Member { wire_name: "colour", ..member("Colour", COLOUR) },
        ]),
    ),
    shape(
        "Answer",
        structure(&[
            at(Location::StatusCode, "", &member("Status", COUNT)),
            at(Location::Header, "x-count", &member("Count", COUNT)),
            at(Location::Header, "last-modified", &member("ChangedAt", MOMENT)),
            at(Location::Headers, "x-meta-", &member("Meta", FLAT_TAGS)),
            Member { wire_name: "colour", ..member("Colour", COLOUR) },
            Member { wire_name: "madeAt", ..member("MadeAt", MOMENT) },
            Member {
                wire_name: "soldAt",
                timestamp_format: Some(TimestampFormat::Iso8601),
                ..member("SoldAt", MOMENT)
            },
            member("Input", ANY),
        ]),
    ),
    shape(
        "Upload",
        Kind::Structure(Structure {
            members: &[required(&at(Location::Uri, "Key", &member("Key", TEXT))), member("Part", PART)],
            payload: Some("Part"),
            event_stream: false,
            union: false,
            error: None,
        }),
    ),
    shape(
        "Grid",
        Kind::List { member: NAMES, member_name: "member", flattened: false, min: None, max: None },
    ),
    shape(
        "PartMap",
        Kind::Map {
            key: TEXT,
            value: PART,
            key_name: "key",
            value_name: "value",
            flattened: false,
            min: None,
            max: None,
        },
    ),
    shape("LongText", Kind::String { min: Some(0), max: Some(10), pattern: None, values: &[] }),
    shape("IsoMoment", Kind::Timestamp { format: Some(TimestampFormat::Iso8601) }),
    shape("NamedParts", structure(&[member("Part", PART)])),
];

const fn operation(
    name: &'static str,
    method: &'static str,
    uri: &'static str,
    input: Option<ShapeId>,
    output: Option<ShapeId>,
) -> OperationModel {
    OperationModel {
        name,
        method,
        uri,
        status: 200,
        input,
        output,
        result_wrapper: None,
        errors: &[IN_USE, MISSING],
    }
}

/// JSON 1.1.
pub static WIDGETS: Service = Service {
    id: "widgets",
    signing_name: "widgets",
    target_prefix: Some("Widgets_2026"),
    api_version: "2026-01-01",
    xml_namespace: None,
    protocols: &[Protocol::Json11],
    operations: &[
        operation("CreateWidget", "POST", "/", Some(WIDGET), Some(WIDGET)),
        operation("DropWidget", "POST", "/", Some(NAMED_PARTS), None),
        operation("FailWidget", "POST", "/", Some(WIDGET), Some(WIDGET)),
        operation("ForgetWidget", "POST", "/", Some(WIDGET), Some(WIDGET)),
        operation("Ping", "POST", "/", None, None),
    ],
    shapes: &SHAPES,
};

/// JSON 1.0 and query.
pub static METERS: Service = Service {
    id: "meters",
    signing_name: "meters",
    target_prefix: Some("Meters"),
    api_version: "2026-01-01",
    xml_namespace: Some("https://meters.example/doc/"),
    protocols: &[Protocol::RpcV2Cbor, Protocol::Json10, Protocol::Query],
    operations: &[
        OperationModel {
            result_wrapper: Some("PutMeterResult"),
            ..operation("PutMeter", "POST", "/", Some(WIDGET), Some(WIDGET))
        },
        operation("ResetMeter", "POST", "/", None, None),
    ],
    shapes: &SHAPES,
};

/// REST, under the same signing name as [`WIDGETS`].
pub static RUNTIME: Service = Service {
    id: "widgets-runtime",
    signing_name: "widgets",
    target_prefix: None,
    api_version: "2026-01-01",
    xml_namespace: None,
    protocols: &[Protocol::RestJson],
    operations: &[
        operation("AskThing", "POST", "/things/{Key+}/ask", Some(QUESTION), Some(ANSWER)),
        operation(
            "InvokeWidget",
            "POST",
            "/widgets/{WidgetName}/invocations",
            Some(INVOCATION),
            Some(INVOCATION),
        ),
        OperationModel { status: 204, ..operation("PutThing", "PUT", "/things/{Key}", Some(UPLOAD), None) },
    ],
    shapes: &SHAPES,
};
