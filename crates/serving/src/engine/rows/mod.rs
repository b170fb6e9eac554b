//! Rows of numbers from the bodies of requests, a block at a time: memory does not grow with what a body unfolds to.

mod csv;
mod json;
mod libsvm;
mod npy;

use super::refusal::RequestError;

pub(crate) use self::npy::NpyHead;

/// What rows a model takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowRules {
    /// Columns of a row.
    pub(crate) features: usize,
    /// Whether a row may not have fewer.
    pub(crate) is_exact: bool,
    /// Whether a value must fit into a `f32`.
    pub(crate) is_single_precision: bool,
    /// What stands for a column that a sparse row does not name.
    pub(crate) absent: f64,
}

/// A body in one of the media types.
pub(crate) enum RowReader<'a> {
    Csv(csv::CsvRows<'a>),
    Libsvm(libsvm::LibsvmRows<'a>),
    Json(json::JsonRows<'a>),
    Npy(npy::NpyRows<'a>),
}

impl<'a> RowReader<'a> {
    /// A reader of the body; `media_type` has no parameters and is in lower case.
    pub(crate) fn new(media_type: &str, body: &'a [u8], rules: RowRules) -> Result<Self, RequestError> {
        match media_type {
            "text/csv" => Ok(Self::Csv(csv::CsvRows::new(text(body, "csv")?, rules))),
            "text/libsvm" | "text/x-libsvm" => {
                Ok(Self::Libsvm(libsvm::LibsvmRows::new(text(body, "libsvm")?, rules)))
            }
            "application/json" => json::JsonRows::new(body, rules).map(Self::Json),
            "application/x-npy" => npy::NpyRows::new(body, rules).map(Self::Npy),
            other => Err(RequestError::content_type(other)),
        }
    }

    /// Fills the row, which must have the model's width, and says whether there was one.
    pub(crate) fn read(&mut self, row: &mut [f64]) -> Result<bool, RequestError> {
        match self {
            Self::Csv(rows) => rows.read(row),
            Self::Libsvm(rows) => rows.read(row),
            Self::Json(rows) => rows.read(row),
            Self::Npy(rows) => rows.read(row),
        }
    }
}

fn text<'a>(body: &'a [u8], format: &str) -> Result<&'a str, RequestError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| RequestError::unreadable(format, &format!("the body is not UTF-8 ({error})")))?
        .trim();
    if text.is_empty() { Err(RequestError::unreadable(format, "there are no rows")) } else { Ok(text) }
}

/// Lines without their ends, in whichever way they end.
fn next_line<'a>(rest: &mut Option<&'a str>) -> Option<&'a str> {
    let text = (*rest)?;
    match text.find(['\n', '\r']) {
        Some(at) => {
            let end = if text[at..].starts_with("\r\n") { 2 } else { 1 };
            *rest = Some(&text[at + end..]);
            Some(&text[..at])
        }
        None => {
            *rest = None;
            Some(text)
        }
    }
}

impl RowRules {
    /// The value as the model sees it.
    fn accept(&self, value: f64, format: &str) -> Result<f64, RequestError> {
        if self.is_single_precision && (value as f32).is_infinite() {
            return Err(RequestError::unreadable(
                format,
                &format!("the value {value:e} is infinite, or too large for the model's precision"),
            ));
        }
        Ok(value)
    }

    /// Checks the number of columns that all rows have.
    fn check_columns(&self, columns: usize, format: &str) -> Result<(), RequestError> {
        if columns > self.features || (self.is_exact && columns != self.features) {
            return Err(RequestError::unfit(&format!(
                "Feature size of {format} inference data {columns} is not consistent with feature size of trained model {}.",
                self.features
            )));
        }
        Ok(())
    }
}

/// What is said of rows that differ in length.
fn ragged(format: &str, number: usize, columns: usize, first: usize) -> RequestError {
    RequestError::unreadable(format, &format!("row {number} has {columns} values, the first one has {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RowRules =
        RowRules { features: 3, is_exact: false, is_single_precision: true, absent: f64::NAN };

    fn read_with(media_type: &str, body: &[u8], rules: RowRules) -> Result<Vec<Vec<f64>>, (u16, String)> {
        let mut reader =
            RowReader::new(media_type, body, rules).map_err(|error| (error.status, error.text))?;
        let mut rows = Vec::new();
        loop {
            let mut row = vec![f64::NAN; rules.features];
            match reader.read(&mut row) {
                Ok(true) => rows.push(row),
                Ok(false) => return Ok(rows),
                Err(error) => return Err((error.status, error.text)),
            }
        }
    }

    fn read(media_type: &str, body: &str) -> Result<Vec<Vec<f64>>, (u16, String)> {
        read_with(media_type, body.as_bytes(), RULES)
    }

    /// As text, since what is missing equals nothing.
    fn shown(rows: Result<Vec<Vec<f64>>, (u16, String)>) -> String {
        format!("{:?}", rows.expect("the rows can be read"))
    }

    #[test]
    fn csv_rows_have_empty_cells_and_any_line_end() {
        let csv = |body| read("text/csv", body);
        assert_eq!(
            shown(csv("1,2,3\n4,,nan\r\n +7, 8e0 ,.5\n")),
            "[[1.0, 2.0, 3.0], [4.0, NaN, NaN], [7.0, 8.0, 0.5]]"
        );
        assert_eq!(shown(csv("1,2,")), "[[1.0, 2.0, NaN]]");
        assert_eq!(shown(csv("1;2;3")), "[[1.0, 2.0, 3.0]]");
        assert_eq!(shown(csv("1\t2\t3\n")), "[[1.0, 2.0, 3.0]]");
        // Fewer columns than the model has are missing values.
        assert_eq!(shown(csv("1,2")), "[[1.0, 2.0, NaN]]");
        assert_eq!(csv("1,2,3,4").unwrap_err().0, 400);
        for (broken, says) in [
            ("1,x,3", "\"x\""),
            ("1,2,3\n1,2", "row 2 has 2"),
            ("1,2,1e39", "infinite"),
            ("1,2,inf", "infinite"),
        ] {
            let (status, text) = csv(broken).unwrap_err();
            assert!(status == 415 && text.contains(says), "{broken}: {text}");
        }
        let exact = RowRules { is_exact: true, is_single_precision: false, ..RULES };
        assert_eq!(read_with("text/csv", b"1,2", exact).unwrap_err().0, 400);
        assert!(read_with("text/csv", b"1,2,inf", exact).is_ok());
        for broken in [&b"1,\xff,3"[..], b" \n "] {
            assert_eq!(read_with("text/csv", broken, RULES).unwrap_err().0, 415);
        }
    }

    #[test]
    fn libsvm_rows_name_their_columns() {
        let libsvm = |body| read("text/x-libsvm", body);
        assert_eq!(
            shown(libsvm("1 0:5 2:6\n\n0 qid:3 1:0")),
            "[[5.0, NaN, 6.0], [NaN, NaN, NaN], [NaN, 0.0, NaN]]"
        );
        let zeros = RowRules { absent: 0.0, ..RULES };
        assert_eq!(shown(read_with("text/libsvm", b"1:1", zeros)), "[[0.0, 1.0, 0.0]]");
        assert_eq!(libsvm("0:1 3:1").unwrap_err().0, 400);
        for broken in ["-1:1", "a:1", "1:b", "1:", "1:1e99"] {
            assert_eq!(libsvm(broken).unwrap_err().0, 415, "{broken}");
        }
    }

    #[test]
    fn json_rows_are_lists_or_one_list() {
        let json = |body| read("application/json", body);
        assert_eq!(
            shown(json(" [ [1, 2.5e0, null], [NaN, -3, true] ] ")),
            "[[1.0, 2.5, NaN], [NaN, -3.0, 1.0]]"
        );
        assert_eq!(shown(json("[1,2,3]")), "[[1.0, 2.0, 3.0]]");
        assert_eq!(json("[[1,2,3,4]]").unwrap_err().0, 400);
        for broken in [
            "5",
            "{}",
            "[[1,2,3]",
            "[[1,2,3],[1,2]]",
            "[[1,2,\"3\"]]",
            "[[[1]]]",
            "[1,[2]]",
            "[[1],2]",
            "[1,2,3] x",
            "[1,,2]",
            "[01x]",
            "[1 2]",
            "[]",
            "[[]]",
            "[Infinity,1,1]",
            "nope",
            "[-]",
        ] {
            assert_eq!(json(broken).unwrap_err().0, 415, "{broken}");
        }
        assert!(read("application/json", &"[".repeat(1_000_000)).is_err());
    }

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn npy_rows_are_arrays_of_numbers() {
        let read_npy = |file: Vec<u8>| read_with("application/x-npy", &file, RULES);
        let doubles: Vec<u8> =
            [1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(
            shown(read_npy(npy("<f8", "False", "(2, 3)", &doubles))),
            "[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]"
        );
        assert_eq!(
            shown(read_npy(npy("<f8", "True", "(2, 3)", &doubles))),
            "[[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]"
        );
        assert_eq!(
            shown(read_npy(npy("<i2", "False", "(3,)", &[1, 0, 2, 0, 255, 255]))),
            "[[1.0, 2.0, -1.0]]"
        );
        assert_eq!(read_npy(npy("<f8", "False", "(1, 6)", &doubles)).unwrap_err().0, 400);
        for broken in [
            npy("<f8", "False", "(3, 3)", &doubles),
            npy("|O", "False", "(2, 3)", &doubles),
            npy("<f8", "False", "(9223372036854775807, 3)", &doubles),
            npy("<f8", "False", "(2, 3, 1)", &doubles),
            npy("<f8", "False", "(2", &doubles),
            b"\x93NUMPY\x01\x00\xff\xff{".to_vec(),
            b"\x93NUMPY".to_vec(),
            b"nothing".to_vec(),
        ] {
            assert_eq!(read_npy(broken).unwrap_err().0, 415);
        }
    }

    #[test]
    fn other_media_types_are_named() {
        let (status, text) = read("application/x-recordio-protobuf", "").unwrap_err();
        assert!(status == 415 && text.contains("application/x-recordio-protobuf is not supported"));
    }
}
