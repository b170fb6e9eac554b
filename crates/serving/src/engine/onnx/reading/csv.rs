//! Rows of CSV without a head. Cells stay texts until it is known what their column takes.

use std::borrow::Cow;

use crate::engine::onnx::cells::{Array, Cell};
use crate::engine::refusal::RequestError;

/// Reads rows that all have the same number of cells; blank lines are none.
pub(super) fn read(text: &str) -> Result<Array<'_>, RequestError> {
    let mut cells = Vec::new();
    let (mut columns, mut rows) = (None, 0_usize);
    let mut rest = text;
    while !rest.is_empty() {
        let start = cells.len();
        rest = row(rest, &mut cells, rows + 1)?;
        let width = cells.len() - start;
        if width == 1 && matches!(&cells[start], Cell::Text(text) if text.is_empty()) {
            cells.truncate(start);
            continue;
        }
        rows += 1;
        let first = *columns.get_or_insert(width);
        if first != width {
            let problem = format!("row {rows} has {width} values, the first one has {first}");
            return Err(RequestError::unreadable("csv", &problem));
        }
    }
    Ok(Array { shape: vec![rows, columns.unwrap_or(0)], cells })
}

/// Reads one row and gives what follows it.
fn row<'a>(text: &'a str, cells: &mut Vec<Cell<'a>>, number: usize) -> Result<&'a str, RequestError> {
    let mut rest = text;
    loop {
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[blank..].starts_with('"') {
            let (cell, after) = quoted(&rest[blank + 1..]).ok_or_else(|| {
                RequestError::unreadable("csv", &format!("a quoted cell in row {number} does not end"))
            })?;
            cells.push(Cell::Text(cell));
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with([',', '\n', '\r']) {
                let problem = format!("something follows a quoted cell in row {number}");
                return Err(RequestError::unreadable("csv", &problem));
            }
        } else {
            let end = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
            cells.push(Cell::Text(Cow::Borrowed(rest[..end].trim())));
            rest = &rest[end..];
        }
        match rest.as_bytes() {
            [b',', ..] => rest = &rest[1..],
            [b'\r', b'\n', ..] => return Ok(&rest[2..]),
            [] => return Ok(rest),
            _ => return Ok(&rest[1..]),
        }
    }
}

/// The cell whose opening quote has been read, and what follows its closing one.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut at = 0;
    let mut has_double = false;
    loop {
        at += text[at..].find('"')?;
        if text[at + 1..].starts_with('"') {
            has_double = true;
            at += 2;
            continue;
        }
        let inner = &text[..at];
        let cell = if has_double { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
        return Some((cell, &text[at + 1..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<(Vec<usize>, Vec<String>), String> {
        let array = read(text).map_err(|error| error.text)?;
        Ok((array.shape, array.cells.iter().map(Cell::text).collect()))
    }

    #[test]
    fn cells_may_be_quoted_and_lines_may_end_in_any_way() {
        let (shape, cells) = shown("1, red ,\"a, \"\"b\"\"\"\r\n\n2,,\"\"\r3,x,y").unwrap();
        assert_eq!(shape, [3, 3]);
        assert_eq!(cells, ["1", "red", "a, \"b\"", "2", "", "", "3", "x", "y"]);
        assert_eq!(shown("7\n8\n").unwrap(), (vec![2, 1], vec!["7".into(), "8".into()]));
        assert_eq!(shown("1,2,\n").unwrap().0, [1, 3]);
    }

    #[test]
    fn broken_rows_are_named() {
        for (text, says) in
            [("1,2\n3", "row 2 has 1 values"), ("\"a", "does not end"), ("\"a\"b,1", "something follows")]
        {
            let problem = shown(text).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
