//! Values of a request before it is known which tensors they become.

use std::borrow::Cow;

use crate::engine::refusal::RequestError;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    /// None is given.
    Missing,
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text; in CSV, whatever stands there.
    Text(Cow<'a, str>),
}

/// Values in the order of C with their dimensions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Array<'a> {
    pub(crate) shape: Vec<usize>,
    pub(crate) cells: Vec<Cell<'a>>,
}

/// What a request brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body<'a> {
    /// One array, whose place follows from what the graph takes.
    Unnamed(Array<'a>),
    /// An array for each input by name.
    Named(Vec<(Cow<'a, str>, Array<'a>)>),
}

impl Cell<'_> {
    /// The value as a number, not a number where it is missing.
    pub(crate) fn number(&self, input: &str) -> Result<f64, RequestError> {
        match self {
            Cell::Missing => Ok(f64::NAN),
            Cell::Integer(value) => Ok(*value as f64),
            Cell::Number(value) => Ok(*value),
            Cell::Text(text) => {
                let text = text.trim();
                if text.is_empty() {
                    Ok(f64::NAN)
                } else {
                    text.parse().map_err(|_| self.unfit(input, "a number"))
                }
            }
        }
    }

    /// The value as a whole number.
    pub(crate) fn integer(&self, input: &str) -> Result<i64, RequestError> {
        let whole = |value: f64| {
            // Beyond these, not every whole number is a double.
            let is_whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
            is_whole.then_some(value as i64).ok_or_else(|| self.unfit(input, "a whole number"))
        };
        match self {
            Cell::Missing => Err(self.unfit(input, "a whole number")),
            Cell::Integer(value) => Ok(*value),
            Cell::Number(value) => whole(*value),
            Cell::Text(text) => match (text.trim().parse(), text.trim().parse()) {
                (Ok(integer), _) => Ok(integer),
                (Err(_), Ok(number)) => whole(number),
                (Err(_), Err(_)) => Err(self.unfit(input, "a whole number")),
            },
        }
    }

    /// The value as a truth value.
    pub(crate) fn truth(&self, input: &str) -> Result<bool, RequestError> {
        if let Cell::Text(text) = self {
            match text.trim() {
                "true" | "True" => return Ok(true),
                "false" | "False" => return Ok(false),
                _ => {}
            }
        }
        match self.integer(input) {
            Ok(0) => Ok(false),
            Ok(1) => Ok(true),
            _ => Err(self.unfit(input, "true or false")),
        }
    }

    /// The value as a text.
    pub(crate) fn text(&self) -> String {
        match self {
            Cell::Missing => String::new(),
            Cell::Integer(value) => value.to_string(),
            Cell::Number(value) => value.to_string(),
            // The runtime takes texts that end with a zero byte.
            Cell::Text(text) => text.replace('\0', ""),
        }
    }

    fn unfit(&self, input: &str, wanted: &str) -> RequestError {
        let shown = match self {
            Cell::Missing => "a missing value".to_owned(),
            Cell::Integer(value) => value.to_string(),
            Cell::Number(value) => value.to_string(),
            Cell::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        };
        RequestError::unfit(&format!("the input {input} takes {wanted}, not {shown}."))
    }
}

impl Array<'_> {
    /// How many values the dimensions say; `None` when that is more than there can be.
    pub(crate) fn count(shape: &[usize]) -> Option<usize> {
        shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_what_an_input_takes() {
        let text = |text: &'static str| Cell::Text(Cow::Borrowed(text));
        assert_eq!(text(" 2.5 ").number("x"), Ok(2.5));
        assert!(text("").number("x").unwrap().is_nan() && Cell::Missing.number("x").unwrap().is_nan());
        assert_eq!(Cell::Integer(3).number("x"), Ok(3.0));
        assert_eq!(text("7").integer("x"), Ok(7));
        assert_eq!(text("9007199254740993").integer("x"), Ok(9_007_199_254_740_993));
        assert_eq!((text("7.0").integer("x"), Cell::Number(-2.0).integer("x")), (Ok(7), Ok(-2)));
        for wrong in [Cell::Number(1.5), Cell::Number(f64::NAN), Cell::Missing, text("x"), text("1e30")] {
            let error = wrong.integer("ids").unwrap_err();
            assert!(
                error.status == 400 && error.text.contains("the input ids takes a whole number"),
                "{}",
                error.text
            );
        }
        assert_eq!((text("True").truth("x"), Cell::Integer(0).truth("x")), (Ok(true), Ok(false)));
        assert!(Cell::Integer(2).truth("x").is_err());
        assert_eq!(
            (text("a\0b").text(), Cell::Number(1.5).text(), Cell::Integer(3).text()),
            ("ab".into(), "1.5".into(), "3".into())
        );
        assert!(text("red").number("x").unwrap_err().text.contains("takes a number, not \"red\""));
    }
}
