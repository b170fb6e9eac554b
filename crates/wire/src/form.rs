//! Percent-encoded pairs: query strings and form bodies.

/// More pairs than any real request has; parsing stops there.
const MAX_PAIRS: usize = 100_000;

/// A query string or form that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormProblem {
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
    Encoding,
    /// Too many pairs.
    Length,
}

impl std::fmt::Display for FormProblem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            FormProblem::Encoding => "it has a malformed percent escape, or is not UTF-8",
            FormProblem::Length => "it has too many parameters",
        })
    }
}

/// The decoded pairs in their order; `+` is a space.
pub(crate) fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, FormProblem> {
    let mut pairs = Vec::new();
    for part in text.split(|byte| *byte == b'&').filter(|part| !part.is_empty()) {
        if pairs.len() == MAX_PAIRS {
            return Err(FormProblem::Length);
        }
        let (name, value) = match part.iter().position(|byte| *byte == b'=') {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        };
        pairs.push((decode(name, true)?, decode(value, true)?));
    }
    Ok(pairs)
}

/// Undoes percent-encoding strictly.
pub(crate) fn decode(text: &[u8], plus_is_space: bool) -> Result<String, FormProblem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let digits = text.get(at + 1..at + 3).ok_or(FormProblem::Encoding)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(FormProblem::Encoding);
                bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
                at += 3;
            }
            b'+' if plus_is_space => {
                bytes.push(b' ');
                at += 1;
            }
            byte => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| FormProblem::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_strictly() {
        let decoded = pairs(b"a=1&b=x%20y+z&&c&d=%C3%A4=").unwrap();
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "ä=")];
        assert_eq!(decoded, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for text in [&b"a=%"[..], b"a=%2", b"a=%zz", b"%ff=1", b"a=\xff", b"a=%+1"] {
            assert_eq!(pairs(text), Err(FormProblem::Encoding));
        }
    }
}
