//! Rows of an array that numpy saved.

use super::RowRules;
use crate::engine::refusal::RequestError;

const MAGIC: &[u8] = b"\x93NUMPY";

pub(crate) struct NpyRows<'a> {
    data: &'a [u8],
    element: Element,
    rules: RowRules,
    rows: usize,
    columns: usize,
    is_fortran: bool,
    next_row: usize,
}

/// How one number is read: its size, and what makes a number of that many bytes.
#[derive(Clone, Copy)]
struct Element {
    bytes: usize,
    read: fn(&[u8]) -> Option<f64>,
}

fn element(descr: &str) -> Option<Element> {
    macro_rules! of {
        ($type:ty) => {
            Element {
                bytes: size_of::<$type>(),
                read: |bytes| bytes.try_into().ok().map(|bytes| <$type>::from_le_bytes(bytes) as f64),
            }
        };
    }
    Some(match descr {
        "<f8" => of!(f64),
        "<f4" => of!(f32),
        "<i8" => of!(i64),
        "<i4" => of!(i32),
        "<i2" => of!(i16),
        "|i1" => of!(i8),
        "<u8" => of!(u64),
        "<u4" => of!(u32),
        "<u2" => of!(u16),
        "|u1" | "|b1" => of!(u8),
        _ => return None,
    })
}

/// What stands at the start of an array, and what follows it.
pub(crate) struct NpyHead<'a> {
    /// The type of its elements, as numpy writes it.
    pub(crate) descr: &'a str,
    /// Its dimensions.
    pub(crate) shape: Vec<usize>,
    /// Whether the first dimension runs fastest.
    pub(crate) is_fortran: bool,
    /// The elements.
    pub(crate) data: &'a [u8],
}

impl<'a> NpyHead<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, RequestError> {
        let broken = || RequestError::unreadable("npy", "it is not an array that numpy saved");
        let rest = body.strip_prefix(MAGIC).ok_or_else(broken)?;
        let (version, rest) = rest.split_at_checked(2).ok_or_else(broken)?;
        let width = if version[0] == 1 { 2 } else { 4 };
        let (length, rest) = rest.split_at_checked(width).ok_or_else(broken)?;
        let length = length.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        let (header, data) = rest.split_at_checked(length).ok_or_else(broken)?;
        let header = std::str::from_utf8(header).map_err(|_| broken())?;
        let descr = value(header, "descr").ok_or_else(broken)?.trim_matches(['\'', '"']);
        let shape = value(header, "shape").and_then(numbers).ok_or_else(broken)?;
        let is_fortran = value(header, "fortran_order") == Some("True");
        Ok(Self { descr, shape, is_fortran, data })
    }
}

impl<'a> NpyRows<'a> {
    pub(super) fn new(body: &'a [u8], rules: RowRules) -> Result<Self, RequestError> {
        let unreadable = |problem: &str| RequestError::unreadable("npy", problem);
        let NpyHead { descr, shape, is_fortran, data } = NpyHead::read(body)?;
        let element =
            element(descr).ok_or_else(|| unreadable(&format!("arrays of {descr} are not supported")))?;
        let (rows, columns) = match shape.as_slice() {
            [columns] => (1, *columns),
            [rows, columns] => (*rows, *columns),
            _ => return Err(unreadable("the array must have one or two dimensions")),
        };
        let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(element.bytes));
        if bytes != Some(data.len()) {
            return Err(unreadable("its data does not have the length that its shape says"));
        }
        rules.check_columns(columns, "npy")?;
        // Rows without columns would go on for as long as their number says.
        let rows = if columns == 0 { 0 } else { rows };
        Ok(Self { data, element, rules, rows, columns, is_fortran, next_row: 0 })
    }

    pub(super) fn read(&mut self, row: &mut [f64]) -> Result<bool, RequestError> {
        if self.next_row == self.rows {
            return Ok(false);
        }
        for (column, place) in row.iter_mut().enumerate().take(self.columns) {
            let index = if self.is_fortran {
                column * self.rows + self.next_row
            } else {
                self.next_row * self.columns + column
            };
            let at = index * self.element.bytes;
            let number = self.data.get(at..at + self.element.bytes).and_then(self.element.read);
            let number = number.ok_or_else(|| RequestError::unreadable("npy", "it ends too early"))?;
            *place = self.rules.accept(number, "npy")?;
        }
        self.next_row += 1;
        Ok(true)
    }
}

/// The value of a key in the head, which is a dictionary as Python writes it.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

fn numbers(tuple: &str) -> Option<Vec<usize>> {
    let inner = tuple.strip_prefix('(')?.strip_suffix(')')?;
    inner.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}
