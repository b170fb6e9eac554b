//! Predictions as the body of an answer.

use super::numbers::{write_json, write_list, write_text};
use super::refusal::RequestError;

/// The media types of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerType {
    Csv,
    Json,
    JsonLines,
}

impl AnswerType {
    /// The first accepted one that can be written; `default` stands for an accept that says nothing.
    pub(crate) fn choose(accept: Option<&str>, default: Option<&str>) -> Result<Self, RequestError> {
        let said = accept.filter(|accept| !accept.is_empty() && *accept != "*/*");
        let accept = said.or(default).unwrap_or("text/csv");
        let known = accept.split(',').find_map(|part| match media_type(part).as_str() {
            "*/*" | "text/csv" => Some(Self::Csv),
            "application/json" => Some(Self::Json),
            "application/jsonlines" => Some(Self::JsonLines),
            _ => None,
        });
        known.ok_or_else(|| RequestError::accept(accept))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonlines",
        }
    }
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Predictions of rows, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Predictions<'a> {
    pub(crate) values: &'a [f64],
    /// How many numbers each has, if it is a list.
    pub(crate) list_length: Option<usize>,
}

impl<'a> Predictions<'a> {
    /// The numbers of each prediction.
    pub(crate) fn each(self) -> impl Iterator<Item = &'a [f64]> {
        self.values.chunks_exact(self.list_length.unwrap_or(1))
    }

    fn write_one(self, into: &mut String, prediction: &[f64], write: fn(&mut String, f64)) {
        match self.list_length {
            Some(_) => write_list(into, prediction, write),
            None => write(into, prediction[0]),
        }
    }

    /// The body; with `is_line_each`, CSV has a line for each row.
    pub(crate) fn body(self, answer_type: AnswerType, is_line_each: bool) -> String {
        // About what a number with its surroundings takes.
        let mut body = String::with_capacity(32 + self.values.len() * 24);
        match answer_type {
            AnswerType::Csv => {
                let separator = if is_line_each { '\n' } else { ',' };
                for (index, prediction) in self.each().enumerate() {
                    if index > 0 {
                        body.push(separator);
                    }
                    self.write_one(&mut body, prediction, write_text);
                }
                if is_line_each {
                    body.push('\n');
                }
            }
            AnswerType::Json => {
                body.push_str("{\"predictions\": [");
                for (index, prediction) in self.each().enumerate() {
                    body.push_str(if index > 0 { ", {\"score\": " } else { "{\"score\": " });
                    self.write_one(&mut body, prediction, write_json);
                    body.push('}');
                }
                body.push_str("]}");
            }
            AnswerType::JsonLines => {
                for prediction in self.each() {
                    body.push_str("{\"score\": ");
                    self.write_one(&mut body, prediction, write_json);
                    body.push_str("}\n");
                }
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_that_can_be_written_is_chosen() {
        let choose = |accept, default| AnswerType::choose(accept, default).map(AnswerType::name);
        assert_eq!(choose(None, None), Ok("text/csv"));
        assert_eq!(choose(Some("*/*"), Some("application/json")), Ok("application/json"));
        assert_eq!(choose(Some("image/png, Application/JSON;q=1"), None), Ok("application/json"));
        assert_eq!(choose(Some("image/png,*/*"), Some("application/json")), Ok("text/csv"));
        assert_eq!(choose(Some("application/jsonlines"), None), Ok("application/jsonlines"));
        assert_eq!(choose(Some("image/png"), None).unwrap_err().status, 406);
        assert_eq!(choose(None, Some("application/x-recordio-protobuf")).unwrap_err().status, 406);
    }

    #[test]
    fn bodies_are_those_of_the_python_host() {
        let numbers = Predictions { values: &[0.5, 1.0], list_length: None };
        assert_eq!(numbers.body(AnswerType::Csv, false), "0.5,1.0");
        assert_eq!(numbers.body(AnswerType::Csv, true), "0.5\n1.0\n");
        assert_eq!(
            numbers.body(AnswerType::Json, false),
            r#"{"predictions": [{"score": 0.5}, {"score": 1.0}]}"#
        );
        assert_eq!(numbers.body(AnswerType::JsonLines, false), "{\"score\": 0.5}\n{\"score\": 1.0}\n");
        let lists = Predictions { values: &[0.5, 0.5, 0.0, f64::NAN], list_length: Some(2) };
        assert_eq!(lists.body(AnswerType::Csv, false), "[0.5, 0.5],[0.0, nan]");
        assert_eq!(
            lists.body(AnswerType::Json, true),
            r#"{"predictions": [{"score": [0.5, 0.5]}, {"score": [0.0, NaN]}]}"#
        );
    }
}
