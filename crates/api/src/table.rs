//! Short words that the generated tables are written in.

use crate::model::{Kind, Location, Member, Shape, ShapeId, TimestampFormat};

pub(crate) const fn shape(name: &'static str, kind: Kind) -> Shape {
    Shape { name, kind }
}

/// A member in the body under its own name.
pub(crate) const fn member(name: &'static str, shape: ShapeId) -> Member {
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

impl Member {
    pub(crate) const fn required(mut self) -> Member {
        self.required = true;
        self
    }

    pub(crate) const fn wire(mut self, location: Location, name: &'static str) -> Member {
        self.location = location;
        self.wire_name = name;
        self
    }

    #[expect(dead_code, reason = "the models of this release name timestamp formats on shapes alone")]
    pub(crate) const fn timestamp(mut self, format: TimestampFormat) -> Member {
        self.timestamp_format = Some(format);
        self
    }

    pub(crate) const fn streaming(mut self) -> Member {
        self.streaming = true;
        self
    }

    pub(crate) const fn token(mut self) -> Member {
        self.idempotency_token = true;
        self
    }
}

/// Lengths and bounds: the least and the greatest.
type Bounds<T> = (Option<T>, Option<T>);

/// Any length or value.
pub(crate) const fn any<T: Copy>() -> Bounds<T> {
    (None, None)
}

pub(crate) const fn text((min, max): Bounds<u64>) -> Kind {
    Kind::String { min, max, pattern: None, values: &[] }
}

pub(crate) const fn matching((min, max): Bounds<u64>, pattern: &'static str) -> Kind {
    Kind::String { min, max, pattern: Some(pattern), values: &[] }
}

pub(crate) const fn list(member: ShapeId, (min, max): Bounds<u64>) -> Kind {
    Kind::List { member, member_name: "member", flattened: false, min, max }
}

pub(crate) const fn map(key: ShapeId, value: ShapeId, (min, max): Bounds<u64>) -> Kind {
    Kind::Map { key, value, key_name: "key", value_name: "value", flattened: false, min, max }
}
