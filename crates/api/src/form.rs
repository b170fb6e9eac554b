//! The JSON form of typed values, and the macros that the generated types are written in.
//!
//! The form has model member names as keys, seconds since 1970 as timestamps and base64 as blobs; unset members are left out.
//! Types come and go through [`serde_json::Value`] instead of serde's derive: derived code is generic over the data format, so that
//! it would be compiled here once for the checker and again in every crate that calls it. With 4,000 types that is minutes.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// A type with a JSON form.
pub trait Form: Sized {
    /// Takes the value out of its form. Members that the type does not have are passed over.
    ///
    /// # Errors
    /// When a required member is not there, or one has the wrong type.
    fn read(value: Value) -> Result<Self, FormError>;

    /// The value's form.
    fn write(&self) -> Value;
}

/// Why a form cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormError {
    path: String,
    wanted: &'static str,
}

impl FormError {
    /// The value must be what `wanted` says.
    pub(crate) fn wanted(wanted: &'static str) -> FormError {
        FormError { path: String::new(), wanted }
    }

    fn at(self, index: usize) -> FormError {
        self.inside(&format!("[{index}]"))
    }

    fn inside(mut self, step: &str) -> FormError {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for FormError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the value" } else { &self.path };
        write!(formatter, "{path} must be {}", self.wanted)
    }
}

impl std::error::Error for FormError {}

/// A member that may be left out, whatever its type.
pub(crate) trait Slot {
    /// Takes the member's form.
    fn fill(&mut self, form: Value) -> Result<(), FormError>;

    /// The member's form, null where it is left out.
    fn form(&self) -> Value;
}

impl<T: Form> Slot for Option<T> {
    fn fill(&mut self, form: Value) -> Result<(), FormError> {
        *self = Some(T::read(form)?);
        Ok(())
    }

    fn form(&self) -> Value {
        match self {
            Some(value) => value.write(),
            None => Value::Null,
        }
    }
}

/// The members of a structure.
pub(crate) fn members(value: Value) -> Result<Map<String, Value>, FormError> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(FormError::wanted("a structure")),
    }
}

/// Takes a member that must be there.
pub(crate) fn required<T: Form>(members: &mut Map<String, Value>, name: &str) -> Result<T, FormError> {
    match taken(members, name) {
        Value::Null => Err(FormError::wanted("given").inside(name)),
        value => match T::read(value) {
            Ok(value) => Ok(value),
            Err(error) => Err(error.inside(name)),
        },
    }
}

/// Takes the members that are there.
pub(crate) fn fill(
    members: &mut Map<String, Value>,
    slots: &mut [(&'static str, &mut dyn Slot)],
) -> Result<(), FormError> {
    for (name, slot) in slots {
        let value = taken(members, name);
        if !value.is_null() {
            slot.fill(value).map_err(|error| error.inside(name))?;
        }
    }
    Ok(())
}

/// A member's form; null when it is not there.
fn taken(members: &mut Map<String, Value>, name: &str) -> Value {
    members.get_mut(name).map(Value::take).unwrap_or_default()
}

/// Writes the members that are set.
pub(crate) fn put(members: &mut Map<String, Value>, slots: &[(&'static str, &dyn Slot)]) {
    for (name, slot) in slots {
        let form = slot.form();
        if !form.is_null() {
            members.insert((*name).to_owned(), form);
        }
    }
}

impl<T: Form> Form for Box<T> {
    fn read(value: Value) -> Result<Self, FormError> {
        T::read(value).map(Box::new)
    }

    fn write(&self) -> Value {
        T::write(self)
    }
}

// Loops, not chains of closures: these bodies are compiled for each of some thousand types.
impl<T: Form> Form for Vec<T> {
    fn read(value: Value) -> Result<Self, FormError> {
        let Value::Array(elements) = value else { return Err(FormError::wanted("a list")) };
        let mut read = Vec::with_capacity(elements.len());
        for element in elements {
            match T::read(element) {
                Ok(element) => read.push(element),
                Err(error) => return Err(error.at(read.len())),
            }
        }
        Ok(read)
    }

    fn write(&self) -> Value {
        let mut elements = Vec::with_capacity(self.len());
        for element in self {
            elements.push(element.write());
        }
        Value::Array(elements)
    }
}

impl<T: Form> Form for BTreeMap<String, T> {
    fn read(value: Value) -> Result<Self, FormError> {
        let Value::Object(entries) = value else { return Err(FormError::wanted("a map")) };
        let mut read = BTreeMap::new();
        for (key, value) in entries {
            match T::read(value) {
                Ok(value) => read.insert(key, value),
                Err(error) => return Err(error.inside(&key)),
            };
        }
        Ok(read)
    }

    fn write(&self) -> Value {
        let mut entries = Map::new();
        for (key, value) in self {
            entries.insert(key.clone(), value.write());
        }
        Value::Object(entries)
    }
}

impl Form for Value {
    fn read(value: Value) -> Result<Self, FormError> {
        Ok(value)
    }

    fn write(&self) -> Value {
        self.clone()
    }
}

impl Form for String {
    fn read(value: Value) -> Result<Self, FormError> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(FormError::wanted("a string")),
        }
    }

    fn write(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl Form for bool {
    fn read(value: Value) -> Result<Self, FormError> {
        value.as_bool().ok_or_else(|| FormError::wanted("true or false"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

impl Form for i32 {
    fn read(value: Value) -> Result<Self, FormError> {
        let number = value.as_i64().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| FormError::wanted("a whole number of 32 bits"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

impl Form for i64 {
    fn read(value: Value) -> Result<Self, FormError> {
        value.as_i64().ok_or_else(|| FormError::wanted("a whole number of 64 bits"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

impl Form for f64 {
    fn read(value: Value) -> Result<Self, FormError> {
        value.as_f64().ok_or_else(|| FormError::wanted("a number"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

/// Implements serde's traits for a type that has a form.
macro_rules! serde_by_form {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&$crate::form::Form::write(self), serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let value = <serde_json::Value as serde::Deserialize>::deserialize(deserializer)?;
                $crate::form::Form::read(value).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_by_form;

/// Shows the form: the types are too many to compile a second way of writing them.
macro_rules! debug_by_form {
    ($name:ident) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                $crate::form::show(formatter, stringify!($name), &$crate::form::Form::write(self))
            }
        }
    };
}
pub(crate) use debug_by_form;

/// Shows a structure as its name and its form.
pub(crate) fn show(formatter: &mut fmt::Formatter<'_>, name: &str, form: &Value) -> fmt::Result {
    write!(formatter, "{name} {form}")
}

/// Declares a structure: a field with its member's name and its type in each line, those that must be given apart from those
/// that may be.
///
/// Fields that may be given are handed over as a list of slots: a call and an early return for each would make the code of a
/// structure many times as long.
macro_rules! structure {
    ($name:ident {}) => {
        #[derive(Clone, Default)]
        pub struct $name {}

        impl $crate::form::Form for $name {
            fn read(value: serde_json::Value) -> ::std::result::Result<Self, $crate::form::FormError> {
                $crate::form::members(value).map(|_| $name {})
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::Object(serde_json::Map::new())
            }
        }

        $crate::form::debug_by_form!($name);
        $crate::form::serde_by_form!($name);
    };
    ($name:ident { optional { $($field:ident $member:literal: $type:ty,)+ } }) => {
        $crate::form::structure! { $name { required {} optional { $($field $member: $type,)+ } } }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: None,)+ }
            }
        }
    };
    ($name:ident {
        required { $($given:ident $given_member:literal: $given_type:ty,)* }
        optional { $($field:ident $member:literal: $type:ty,)* }
    }) => {
        #[derive(Clone)]
        pub struct $name {
            $(pub $given: $given_type,)*
            $(pub $field: Option<$type>,)*
        }

        impl $crate::form::Form for $name {
            fn read(value: serde_json::Value) -> ::std::result::Result<Self, $crate::form::FormError> {
                let mut members = $crate::form::members(value)?;
                let read = $name {
                    $($given: $crate::form::required(&mut members, $given_member)?,)*
                    $($field: None,)*
                };
                $crate::form::filled!(members, read, $($field $member)*)
            }

            fn write(&self) -> serde_json::Value {
                let mut members = serde_json::Map::new();
                $(members.insert($given_member.to_owned(), $crate::form::Form::write(&self.$given));)*
                $crate::form::put(&mut members, &[$(($member, &self.$field),)*]);
                serde_json::Value::Object(members)
            }
        }

        $crate::form::debug_by_form!($name);
        $crate::form::serde_by_form!($name);
    };
}
pub(crate) use structure;

/// Ends reading a structure with the members that may be left out.
macro_rules! filled {
    ($members:ident, $read:ident,) => {{
        drop($members);
        Ok($read)
    }};
    ($members:ident, $read:ident, $($field:ident $member:literal)+) => {{
        let mut read = $read;
        $crate::form::fill(&mut $members, &mut [$(($member, &mut read.$field),)+])?;
        Ok(read)
    }};
}
pub(crate) use filled;

/// Declares an enumeration: a variant with its text in each line. Texts that the model does not know stay as they are.
macro_rules! enumeration {
    ($name:ident { $($variant:ident $text:literal,)+ }) => {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($variant,)+
            /// A text that the model does not list.
            UnknownValue(String),
        }

        impl $name {
            /// The text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $text,)+
                    $name::UnknownValue(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                match text {
                    $($text => $name::$variant,)+
                    text => $name::UnknownValue(text.to_owned()),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl $crate::form::Form for $name {
            fn read(value: serde_json::Value) -> ::std::result::Result<Self, $crate::form::FormError> {
                let text = value.as_str().ok_or_else(|| $crate::form::FormError::wanted("a string"))?;
                Ok($name::from(text))
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::from(self.as_str())
            }
        }

        $crate::form::serde_by_form!($name);
    };
}
pub(crate) use enumeration;

/// Declares the marker of an operation with its input and output types.
macro_rules! operation {
    ($name:ident: $input:ty => $output:ty) => {
        #[doc = concat!("The operation `", stringify!($name), "`.")]
        #[derive(Debug)]
        pub struct $name;

        impl $crate::model::Operation for $name {
            const SERVICE: &'static $crate::model::Service = &SERVICE;
            const NAME: &'static str = stringify!($name);
            type Input = $input;
            type Output = $output;
        }
    };
}
pub(crate) use operation;

/// Input or output of an operation that has none; its form is an empty structure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nothing {}

impl Form for Nothing {
    fn read(_: Value) -> Result<Self, FormError> {
        Ok(Nothing {})
    }

    fn write(&self) -> Value {
        Value::Object(Map::new())
    }
}

serde_by_form!(Nothing);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    enumeration! { Colour { Red "red", LightBlue "light-blue", } }

    structure! { Leaf { required { name "Name": String, } optional { size "Size": i32, } } }

    structure! {
        Tree {
            optional {
                leaves "Leaves": Vec<Leaf>,
                branches "Branches": BTreeMap<String, Tree>,
                colour "Colour": Colour,
                trunk "Trunk": Box<Tree>,
            }
        }
    }

    fn refused<T: Form + fmt::Debug>(form: Value) -> String {
        T::read(form).unwrap_err().to_string()
    }

    #[test]
    fn a_structure_goes_through_its_form_unchanged() {
        let form = json!({
            "Leaves": [{"Name": "a", "Size": 3}, {"Name": "b"}],
            "Branches": {"left": {"Colour": "light-blue"}},
            "Trunk": {},
        });
        let tree = Tree::read(form.clone()).unwrap();
        let branches = tree.branches.as_ref().unwrap();
        assert_eq!(branches["left"].colour, Some(Colour::LightBlue));
        assert_eq!(tree.write(), form);
        assert_eq!(Tree::default().write(), json!({}));
    }

    #[test]
    fn texts_that_the_model_does_not_know_are_kept() {
        let colour: Colour = serde_json::from_value(json!("mauve")).unwrap();
        assert_eq!(colour, Colour::UnknownValue("mauve".into()));
        assert_eq!(serde_json::to_value(&colour).unwrap(), json!("mauve"));
    }

    #[test]
    fn null_is_as_good_as_absent() {
        assert!(Tree::read(json!({"Leaves": null})).unwrap().leaves.is_none());
        assert_eq!(refused::<Leaf>(json!({"Name": null})), "Name must be given");
    }

    #[test]
    fn errors_say_where_and_what() {
        let twig = json!({"Branches": {"left": {"Leaves": [{"Name": "a"}, {"Name": 1}]}}});
        assert_eq!(refused::<Tree>(twig), "Branches.left.Leaves[1].Name must be a string");
        assert_eq!(
            refused::<Leaf>(json!({"Name": "a", "Size": 3e9})),
            "Size must be a whole number of 32 bits"
        );
        assert_eq!(refused::<Leaf>(json!([])), "the value must be a structure");
    }
}
