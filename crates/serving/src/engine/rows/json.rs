//! Rows of JSON: a list of lists of numbers, or one list that is one row. `null` and `NaN` are missing values.

use super::{RowRules, ragged};
use crate::engine::refusal::RequestError;

pub(crate) struct JsonRows<'a> {
    body: &'a [u8],
    at: usize,
    rules: RowRules,
    /// Whether the outer list is the only row.
    is_flat: bool,
    columns: Option<usize>,
    rows: usize,
    has_ended: bool,
}

impl<'a> JsonRows<'a> {
    pub(super) fn new(body: &'a [u8], rules: RowRules) -> Result<Self, RequestError> {
        let mut rows = Self { body, at: 0, rules, is_flat: false, columns: None, rows: 0, has_ended: false };
        if rows.next() != Some(b'[') {
            return Err(rows.error("the body is not a list of rows"));
        }
        rows.at += 1;
        match rows.next() {
            Some(b'[') => {}
            Some(b']') => return Err(rows.error("there are no rows")),
            _ => {
                rows.is_flat = true;
                rows.at = 0;
            }
        }
        Ok(rows)
    }

    fn error(&self, problem: &str) -> RequestError {
        RequestError::unreadable("json", &format!("{problem} (byte {})", self.at))
    }

    /// The next byte that is no space, which is not taken.
    fn next(&mut self) -> Option<u8> {
        while self.body.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.body.get(self.at).copied()
    }

    pub(super) fn read(&mut self, row: &mut [f64]) -> Result<bool, RequestError> {
        if self.has_ended {
            return Ok(false);
        }
        if self.next() != Some(b'[') {
            return Err(self.error("a row is not a list"));
        }
        self.at += 1;
        self.rows += 1;
        let columns = self.cells(row)?;
        match self.columns {
            None => {
                self.rules.check_columns(columns, "json")?;
                self.columns = Some(columns);
            }
            Some(first) if first != columns => return Err(ragged("json", self.rows, columns, first)),
            Some(_) => {}
        }
        if self.is_flat {
            self.end()?;
            return Ok(true);
        }
        match self.next() {
            Some(b',') => self.at += 1,
            Some(b']') => {
                self.at += 1;
                self.end()?;
            }
            _ => return Err(self.error("a comma or the end of the list was expected")),
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<(), RequestError> {
        self.has_ended = true;
        match self.next() {
            None => Ok(()),
            Some(_) => Err(self.error("something follows the rows")),
        }
    }

    /// Reads up to the end of a row and gives the number of its cells.
    fn cells(&mut self, row: &mut [f64]) -> Result<usize, RequestError> {
        let mut columns = 0;
        loop {
            let value = self.cell()?;
            if let Some(place) = row.get_mut(columns) {
                *place = value;
            }
            columns += 1;
            let separator = self.next();
            self.at += 1;
            match separator {
                Some(b',') => {}
                Some(b']') => return Ok(columns),
                _ => return Err(self.error("a comma or the end of a row was expected")),
            }
        }
    }

    fn cell(&mut self) -> Result<f64, RequestError> {
        self.next();
        let rest = &self.body[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b',' | b']') || byte.is_ascii_whitespace());
        let word = &rest[..length.unwrap_or(rest.len())];
        let value = match word {
            b"null" | b"NaN" => f64::NAN,
            b"true" => 1.0,
            b"false" => 0.0,
            _ => {
                // Only what JSON has: the standard library also reads words, and numbers that begin with a plus.
                let is_number = matches!(word.first(), Some(b'-' | b'0'..=b'9'))
                    && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                let text = std::str::from_utf8(word).ok().filter(|_| is_number);
                let number = text.and_then(|text| text.parse().ok());
                number.ok_or_else(|| self.error("a number was expected"))?
            }
        };
        let value = self.rules.accept(value, "json")?;
        self.at += word.len();
        Ok(value)
    }
}
