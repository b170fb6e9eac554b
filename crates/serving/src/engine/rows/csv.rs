//! Rows of CSV without a head: numbers, and nothing where one is missing.

use super::{RowRules, next_line, ragged};
use crate::engine::refusal::RequestError;

/// What may stand between cells, in the order in which the first row is asked for it.
const DELIMITERS: [char; 5] = [',', ';', '\t', '|', ' '];

pub(crate) struct CsvRows<'a> {
    rest: Option<&'a str>,
    delimiter: u8,
    rules: RowRules,
    /// What the first row has.
    columns: Option<usize>,
    rows: usize,
}

impl<'a> CsvRows<'a> {
    pub(super) fn new(text: &'a str, rules: RowRules) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let delimiter = DELIMITERS.into_iter().find(|delimiter| first.contains(*delimiter)).unwrap_or(',');
        Self { rest: Some(text), delimiter: delimiter as u8, rules, columns: None, rows: 0 }
    }

    pub(super) fn read(&mut self, row: &mut [f64]) -> Result<bool, RequestError> {
        let Some(line) = next_line(&mut self.rest) else { return Ok(false) };
        self.rows += 1;
        let mut columns = 0;
        for cell in line.as_bytes().split(|byte| *byte == self.delimiter) {
            // The line is UTF-8 and the delimiter is ASCII, so a cell is UTF-8, too.
            let cell = std::str::from_utf8(cell).unwrap_or_default().trim();
            if let Some(place) = row.get_mut(columns) {
                *place = if cell.is_empty() { f64::NAN } else { self.number(cell)? };
            }
            columns += 1;
        }
        match self.columns {
            None => {
                self.rules.check_columns(columns, "csv")?;
                self.columns = Some(columns);
            }
            Some(first) if first != columns => return Err(ragged("csv", self.rows, columns, first)),
            Some(_) => {}
        }
        Ok(true)
    }

    fn number(&self, cell: &str) -> Result<f64, RequestError> {
        let value = cell.parse().map_err(|_| {
            let shown: String = cell.chars().take(40).collect();
            RequestError::unreadable(
                "csv",
                &format!("could not convert {shown:?} in row {} to a number", self.rows),
            )
        })?;
        self.rules.accept(value, "csv")
    }
}
