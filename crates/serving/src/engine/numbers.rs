//! Numbers as Python writes them: answers are the same texts, whichever engine gave them.

use std::fmt::Write;

/// Appends a number as `str` writes it.
pub(crate) fn write_text(into: &mut String, value: f64) {
    if value.is_nan() {
        into.push_str("nan");
    } else if value.is_infinite() {
        into.push_str(if value > 0.0 { "inf" } else { "-inf" });
    } else {
        write_finite(into, value);
    }
}

/// Appends a number as the JSON module writes it, which has words for those that JSON has not.
pub(crate) fn write_json(into: &mut String, value: f64) {
    if value.is_nan() {
        into.push_str("NaN");
    } else if value.is_infinite() {
        into.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        write_finite(into, value);
    }
}

fn write_finite(into: &mut String, value: f64) {
    let size = value.abs();
    // Writing to a string cannot fail.
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        let start = into.len();
        let _ = write!(into, "{value}");
        if !into[start..].contains('.') {
            into.push_str(".0");
        }
        return;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    let _ = write!(into, "{digits}e{sign}{exponent:0>2}");
}

/// Appends a list in brackets, with each number written by `write`.
pub(crate) fn write_list(into: &mut String, values: &[f64], write: fn(&mut String, f64)) {
    into.push('[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            into.push_str(", ");
        }
        write(into, *value);
    }
    into.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_like_those_of_python() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1_f32.into(), "0.10000000149011612"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (1e-5, "1e-05"),
            (1e-100, "1e-100"),
            (123_456_789.0, "123456789.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.5e22, "-1.5e+22"),
            (1e300, "1e+300"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let mut written = String::new();
            write_text(&mut written, value);
            assert_eq!(written, text);
        }
        let mut written = String::new();
        write_list(&mut written, &[f64::NAN, f64::INFINITY, 0.5], write_json);
        assert_eq!(written, "[NaN, Infinity, 0.5]");
    }
}
