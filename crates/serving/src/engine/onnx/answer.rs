//! Outputs as the body of an answer, in the forms of the Python host.

use std::fmt::Write;
use std::ops::Range;

use super::outputs::{Output, Values};
use crate::engine::answer::media_type;
use crate::engine::numbers::{write_json, write_text};
use crate::engine::refusal::RequestError;

/// The media types of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerType {
    Json,
    Csv,
    Npy,
    JsonLines,
}

impl AnswerType {
    /// The first accepted one that can be written; `default` stands for an accept that says nothing.
    pub(crate) fn choose(accept: Option<&str>, default: Option<&str>) -> Result<Self, RequestError> {
        let said = accept.filter(|accept| !accept.is_empty() && *accept != "*/*");
        let accept = said.or(default).unwrap_or("application/json");
        let known = accept.split(',').find_map(|part| match media_type(part).as_str() {
            "*/*" | "application/json" => Some(Self::Json),
            "text/csv" => Some(Self::Csv),
            "application/x-npy" => Some(Self::Npy),
            "application/jsonlines" => Some(Self::JsonLines),
            _ => None,
        });
        known.ok_or_else(|| RequestError {
            status: 406,
            text: format!(
                "Accept type {accept} is not supported. Please use supported accept types: application/json, \
                 application/jsonlines, text/csv, application/x-npy."
            ),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Npy => "application/x-npy",
            Self::JsonLines => "application/jsonlines",
        }
    }
}

/// The body of one output.
pub(crate) fn single(output: &Output, answer_type: AnswerType) -> Result<Vec<u8>, RequestError> {
    match answer_type {
        AnswerType::Json => Ok(json(output).into_bytes()),
        AnswerType::Npy => npy(output),
        AnswerType::Csv => {
            let mut body = String::new();
            for row in 0..output.rows() {
                let width = output.width();
                for (index, at) in (row * width..(row + 1) * width).enumerate() {
                    if index > 0 {
                        body.push(',');
                    }
                    write_cell(&mut body, &output.values, at);
                }
                body.push('\n');
            }
            Ok(body.into_bytes())
        }
        AnswerType::JsonLines => {
            let mut body = String::new();
            for row in 0..output.rows() {
                write_row(&mut body, output, row);
                body.push('\n');
            }
            Ok(body.into_bytes())
        }
    }
}

/// The body of several outputs by name; `rows` asks for an object for each row, as answers of selected parts are.
pub(crate) fn several(
    outputs: &[Output],
    answer_type: AnswerType,
    rows: bool,
) -> Result<Vec<u8>, RequestError> {
    let mut body = String::new();
    match answer_type {
        AnswerType::Json if !rows => {
            for (index, output) in outputs.iter().enumerate() {
                body.push_str(if index == 0 { "{" } else { ", " });
                write_string(&mut body, &output.name);
                body.push_str(": ");
                body.push_str(&json(output));
            }
            body.push('}');
        }
        AnswerType::Json => {
            body.push_str("{\"predictions\": [");
            for row in 0..common_rows(outputs)? {
                if row > 0 {
                    body.push_str(", ");
                }
                write_object(&mut body, outputs, row);
            }
            body.push_str("]}");
        }
        AnswerType::JsonLines => {
            for row in 0..common_rows(outputs)? {
                write_object(&mut body, outputs, row);
                body.push('\n');
            }
        }
        AnswerType::Csv if rows => {
            for row in 0..common_rows(outputs)? {
                for (index, output) in outputs.iter().enumerate() {
                    if index > 0 {
                        body.push(',');
                    }
                    if output.width() == 1 && !matches!(output.values, Values::Maps(_)) {
                        write_cell(&mut body, &output.values, row);
                    } else {
                        let mut list = String::new();
                        write_row(&mut list, output, row);
                        let _ = write!(body, "\"{}\"", list.replace('"', "\"\""));
                    }
                }
                body.push('\n');
            }
        }
        AnswerType::Csv | AnswerType::Npy => {
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            return Err(RequestError {
                status: 406,
                text: format!(
                    "The model has several outputs ({}), which {} cannot carry: accept application/json, or choose one with \
                     SAGEMAKER_INFERENCE_OUTPUT in the model's environment.",
                    names.join(", "),
                    answer_type.name()
                ),
            });
        }
    }
    Ok(body.into_bytes())
}

fn common_rows(outputs: &[Output]) -> Result<usize, RequestError> {
    let rows = outputs.first().map_or(0, Output::rows);
    if outputs.iter().any(|output| output.rows() != rows) {
        return Err(RequestError {
            status: 406,
            text: "The outputs of the model have different numbers of rows: accept application/json.".into(),
        });
    }
    Ok(rows)
}

fn write_object(body: &mut String, outputs: &[Output], row: usize) {
    for (index, output) in outputs.iter().enumerate() {
        body.push_str(if index == 0 { "{" } else { ", " });
        write_string(body, &output.name);
        body.push_str(": ");
        write_row(body, output, row);
    }
    body.push('}');
}

/// The output as lists in lists.
fn json(output: &Output) -> String {
    let mut body = String::with_capacity(2 + output.values.len() * 20);
    write_nested(&mut body, &output.values, &output.shape, 0..output.values.len());
    body
}

/// One row as JSON.
fn write_row(body: &mut String, output: &Output, row: usize) {
    let width = output.width();
    let inner = output.shape.get(1..).unwrap_or_default();
    write_nested(body, &output.values, inner, row * width..(row + 1) * width);
}

fn write_nested(body: &mut String, values: &Values, shape: &[usize], range: Range<usize>) {
    let Some((length, inner)) = shape.split_first() else {
        write_value(body, values, range.start);
        return;
    };
    let step: usize = inner.iter().product();
    body.push('[');
    for index in 0..*length {
        if index > 0 {
            body.push_str(", ");
        }
        let start = range.start + index * step;
        write_nested(body, values, inner, start..start + step);
    }
    body.push(']');
}

/// A value as JSON.
fn write_value(body: &mut String, values: &Values, at: usize) {
    match values {
        Values::Singles(values) => write_json(body, f64::from(values[at])),
        Values::Doubles(values) => write_json(body, values[at]),
        Values::Integers(values) => {
            // Writing to a string cannot fail.
            let _ = write!(body, "{}", values[at]);
        }
        Values::Truths(values) => body.push_str(if values[at] { "true" } else { "false" }),
        Values::Texts(values) => write_string(body, &values[at]),
        Values::Maps(values) => {
            body.push('{');
            for (index, (class, number)) in values[at].iter().enumerate() {
                if index > 0 {
                    body.push_str(", ");
                }
                write_string(body, class);
                body.push_str(": ");
                write_json(body, *number);
            }
            body.push('}');
        }
    }
}

/// A value as a cell of CSV, as numpy writes it.
fn write_cell(body: &mut String, values: &Values, at: usize) {
    match values {
        // The shortest digits that mean this single.
        Values::Singles(values) => write_text(body, values[at].to_string().parse().unwrap_or(f64::NAN)),
        Values::Doubles(values) => write_text(body, values[at]),
        Values::Truths(values) => body.push_str(if values[at] { "True" } else { "False" }),
        Values::Texts(values) => body.push_str(&values[at]),
        Values::Integers(_) => write_value(body, values, at),
        Values::Maps(_) => {
            let mut object = String::new();
            write_value(&mut object, values, at);
            let _ = write!(body, "\"{}\"", object.replace('"', "\"\""));
        }
    }
}

fn write_string(body: &mut String, text: &str) {
    body.push_str(&serde_json::Value::from(text).to_string());
}

/// The output as a file of numpy.
fn npy(output: &Output) -> Result<Vec<u8>, RequestError> {
    let (descr, data): (String, Vec<u8>) = match &output.values {
        Values::Singles(values) => {
            ("<f4".into(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Values::Doubles(values) => {
            ("<f8".into(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Values::Integers(values) => {
            ("<i8".into(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Values::Truths(values) => ("|b1".into(), values.iter().map(|value| u8::from(*value)).collect()),
        Values::Texts(values) => {
            let width = values.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
            let padded = |text: &String| {
                let units = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width);
                units.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
            };
            (format!("<U{width}"), values.iter().flat_map(padded).collect())
        }
        Values::Maps(_) => {
            return Err(RequestError {
                status: 406,
                text: format!("The output {} is a map, which application/x-npy cannot carry.", output.name),
            });
        }
    };
    let sizes: String = output.shape.iter().map(|size| format!("{size},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The elements begin at a multiple of 64 bytes, as numpy has it.
    const BEFORE_HEADER: usize = 10;
    let padding = 64 - (BEFORE_HEADER + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding % 64));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a shape has few dimensions");
    let mut body = b"\x93NUMPY\x01\x00".to_vec();
    body.extend(length.to_le_bytes());
    body.extend(header.as_bytes());
    body.extend(data);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rows::NpyHead;

    fn output(name: &str, shape: &[usize], values: Values) -> Output {
        Output { name: name.into(), shape: shape.to_vec(), values }
    }

    fn text(body: Result<Vec<u8>, RequestError>) -> String {
        String::from_utf8(body.unwrap()).unwrap()
    }

    #[test]
    fn an_output_is_written_as_the_python_host_writes_an_array() {
        let numbers = output("y", &[2, 2], Values::Singles(vec![0.1, 1.0, f32::NAN, 1e-5]));
        assert_eq!(
            text(single(&numbers, AnswerType::Json)),
            "[[0.10000000149011612, 1.0], [NaN, 9.999999747378752e-06]]"
        );
        assert_eq!(text(single(&numbers, AnswerType::Csv)), "0.1,1.0\nnan,1e-05\n");
        assert_eq!(
            text(single(&numbers, AnswerType::JsonLines)),
            "[0.10000000149011612, 1.0]\n[NaN, 9.999999747378752e-06]\n"
        );
        let labels = output("label", &[2], Values::Texts(vec!["a".into(), "b\"".into()]));
        assert_eq!(text(single(&labels, AnswerType::Json)), r#"["a", "b\""]"#);
        assert_eq!(text(single(&labels, AnswerType::Csv)), "a\nb\"\n");
        assert_eq!(text(single(&output("n", &[], Values::Integers(vec![3])), AnswerType::Json)), "3");
        assert_eq!(text(single(&output("n", &[0], Values::Integers(vec![])), AnswerType::Json)), "[]");
        assert_eq!(text(single(&output("b", &[1], Values::Truths(vec![true])), AnswerType::Csv)), "True\n");
        let maps = output("p", &[1], Values::Maps(vec![vec![("a".into(), 0.25), ("b".into(), 0.75)]]));
        assert_eq!(text(single(&maps, AnswerType::Json)), r#"[{"a": 0.25, "b": 0.75}]"#);
        assert_eq!(single(&maps, AnswerType::Npy).unwrap_err().status, 406);
    }

    #[test]
    fn arrays_of_numpy_begin_at_a_round_place() {
        let file = npy(&output("y", &[1, 2], Values::Doubles(vec![1.5, 2.5]))).unwrap();
        let head = NpyHead::read(&file).unwrap();
        assert_eq!((head.descr, head.shape, head.is_fortran), ("<f8", vec![1, 2], false));
        assert_eq!(head.data, [1.5_f64.to_le_bytes(), 2.5_f64.to_le_bytes()].concat());
        assert_eq!((file.len() - 16) % 64, 0);
        let file = npy(&output("y", &[2], Values::Texts(vec!["é".into(), "ab".into()]))).unwrap();
        let head = NpyHead::read(&file).unwrap();
        assert_eq!((head.descr, head.data.len()), ("<U2", 16));
    }

    #[test]
    fn several_outputs_are_an_object_or_an_object_for_each_row() {
        let outputs = [
            output("predicted_label", &[2], Values::Integers(vec![1, 0])),
            output("probabilities", &[2, 2], Values::Doubles(vec![0.25, 0.75, 1.0, 0.0])),
        ];
        assert_eq!(
            text(several(&outputs, AnswerType::Json, false)),
            r#"{"predicted_label": [1, 0], "probabilities": [[0.25, 0.75], [1.0, 0.0]]}"#
        );
        assert_eq!(
            text(several(&outputs, AnswerType::Json, true)),
            r#"{"predictions": [{"predicted_label": 1, "probabilities": [0.25, 0.75]}, {"predicted_label": 0, "probabilities": [1.0, 0.0]}]}"#
        );
        assert_eq!(text(several(&outputs, AnswerType::Csv, true)), "1,\"[0.25, 0.75]\"\n0,\"[1.0, 0.0]\"\n");
        assert!(
            text(several(&outputs, AnswerType::JsonLines, false))
                .ends_with("{\"predicted_label\": 0, \"probabilities\": [1.0, 0.0]}\n")
        );
        let refused = several(&outputs, AnswerType::Npy, false).unwrap_err();
        assert!(
            refused.status == 406
                && refused.text.contains("several outputs (predicted_label, probabilities)")
        );
        assert_eq!(AnswerType::choose(Some("image/png"), None).unwrap_err().status, 406);
        assert_eq!(AnswerType::choose(Some("*/*"), Some("text/csv")), Ok(AnswerType::Csv));
    }
}
