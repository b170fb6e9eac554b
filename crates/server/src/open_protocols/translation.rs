//! Between tensors and what model hosts understand: the bodies of InvokeEndpoint.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::flat::{Flat, Values};
use super::npy;
use super::tensor::{Datatype, Tensor};
use super::v2_message::{self, InferRequest, WantedOutput};

/// Name of an output that the model gave none.
const UNNAMED: &str = "output-0";

/// A form in which tensors go to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One array of numpy.
    Npy,
    /// `{"instances": …}` for one tensor of numbers, `{"inputs": …}` else.
    Json,
    /// A line for each row.
    Csv,
    /// The bytes of the one element, as this media type.
    Raw(String),
}

impl Form {
    /// The media type.
    pub fn content_type(&self) -> &str {
        match self {
            Form::Npy => "application/x-npy",
            Form::Json => "application/json",
            Form::Csv => "text/csv",
            Form::Raw(content_type) => content_type,
        }
    }

    /// The forms to try for a request, the likeliest first; a host that says 415 gets the next. Containers know JSON best, our own
    /// hosts read arrays fastest.
    ///
    /// # Errors
    /// A sentence for the caller.
    pub fn of(request: &InferRequest, is_container: bool) -> Result<Vec<Form>, String> {
        let [first, rest @ ..] = request.inputs.as_slice() else {
            return Err("The request has no inputs; give at least one.".into());
        };
        let is_array = rest.is_empty() && first.datatype != Datatype::Bytes;
        let is_table = is_array && matches!(first.shape.len(), 1 | 2);
        let Some(wanted) = request.options.content_type.as_deref() else {
            let mut forms = if !is_array {
                vec![Form::Json]
            } else if is_container {
                vec![Form::Json, Form::Npy]
            } else {
                vec![Form::Npy, Form::Json]
            };
            forms.extend(is_table.then_some(Form::Csv));
            return Ok(forms);
        };
        match wanted {
            "application/json" => Ok(vec![Form::Json]),
            "application/x-npy" if is_array => Ok(vec![Form::Npy]),
            "text/csv" if is_table => Ok(vec![Form::Csv]),
            _ if rest.is_empty() && first.datatype == Datatype::Bytes && first.count() == 1 => {
                Ok(vec![Form::Raw(wanted.to_owned())])
            }
            "application/x-npy" => Err("As application/x-npy goes one input of numbers.".into()),
            "text/csv" => Err(
                "As text/csv goes one input of numbers with one or two dimensions, or one element of BYTES."
                    .into(),
            ),
            other => Err(format!("As {other} goes one input of BYTES with one element.")),
        }
    }

    /// The body that a model gets.
    pub fn body(&self, request: &InferRequest) -> Bytes {
        let first = &request.inputs[0];
        match self {
            Form::Npy => npy::write(first).unwrap_or_default().into(),
            Form::Raw(_) => {
                first.texts().first().map(|bytes| first.data.slice_ref(bytes)).unwrap_or_default()
            }
            Form::Csv => csv(first).into(),
            Form::Json => json(&request.inputs).into(),
        }
    }
}

fn json(inputs: &[Tensor]) -> Vec<u8> {
    let mut out = Vec::new();
    match inputs {
        [one] => {
            let member = if one.datatype == Datatype::Bytes { "inputs" } else { "instances" };
            out.extend_from_slice(format!("{{\"{member}\":").as_bytes());
            one.write_json(&mut out, true);
        }
        several => {
            out.extend_from_slice(b"{\"inputs\":{");
            for (index, tensor) in several.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(Value::from(tensor.name.as_str()).to_string().as_bytes());
                out.push(b':');
                tensor.write_json(&mut out, true);
            }
            out.push(b'}');
        }
    }
    out.push(b'}');
    out
}

/// Rows of numbers; one dimension is one row. What is no number is an empty cell.
fn csv(tensor: &Tensor) -> Vec<u8> {
    let mut flat = Vec::new();
    tensor.write_json(&mut flat, false);
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let mut out = Vec::with_capacity(flat.len());
    let cells = flat[1..flat.len() - 1].split(|byte| *byte == b',').filter(|_| tensor.count() > 0);
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.push(if index % columns == 0 { b'\n' } else { b',' });
        }
        if cell != b"null" {
            out.extend_from_slice(cell);
        }
    }
    out.push(b'\n');
    out
}

/// What a model's answer comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// Set when the one tensor is the answer as it was: its media type.
    pub content_type: Option<String>,
}

/// Why an answer gives no outputs. The texts are meant for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerProblem {
    /// The request names an output that the model does not have.
    NoSuchOutput(String),
    /// The answer is not what it says it is.
    Unreadable(String),
}

/// Reads a model's answer into the outputs that are wanted.
///
/// # Errors
/// When the answer cannot be read, or there is no such output.
pub fn outputs(
    content_type: Option<&str>,
    body: &Bytes,
    wanted: &[WantedOutput],
) -> Result<Outputs, AnswerProblem> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let read = match media_type.to_ascii_lowercase().as_str() {
        "application/json" => of_json(body).map_err(AnswerProblem::Unreadable)?,
        "application/x-npy" => {
            let read = npy::read(UNNAMED.into(), body);
            Some(vec![read.map_err(AnswerProblem::Unreadable)?])
        }
        "text/csv" => of_csv(body),
        _ => None,
    };
    let (mut tensors, content_type) = match read {
        Some(tensors) => (tensors, None),
        None => (vec![Tensor::of_bytes(UNNAMED, body)], Some(media_type.to_owned())),
    };
    if let ([one], [wanted]) = (tensors.as_mut_slice(), wanted) {
        one.name.clone_from(&wanted.name);
    }
    if wanted.is_empty() {
        return Ok(Outputs { tensors, content_type });
    }
    let known: Vec<String> = tensors.iter().map(|tensor| tensor.name.clone()).collect();
    let mut chosen = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let found = tensors.iter().position(|tensor| tensor.name == wanted.name).ok_or_else(|| {
            let text =
                format!("The model has no output {:?}; it answered {}.", wanted.name, known.join(", "));
            AnswerProblem::NoSuchOutput(text)
        })?;
        chosen.push(tensors.remove(found));
    }
    Ok(Outputs { tensors: chosen, content_type })
}

/// The tensors in an answer of JSON; `None` when it has another shape than tensors have.
fn of_json(body: &Bytes) -> Result<Option<Vec<Tensor>>, String> {
    if let Ok(flat) = serde_json::from_slice::<Flat>(body) {
        return Ok(of_flat(UNNAMED, flat).map(|tensor| vec![tensor]));
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(members)) => {
            if let Some(Value::Array(outputs)) = members.get("outputs")
                && outputs.iter().all(v2_message::is_output)
                && !outputs.is_empty()
            {
                return v2_message::read_outputs(outputs).map(Some);
            }
            Ok(of_members(&members))
        }
        Ok(Value::Array(rows)) => Ok(columns(&rows)),
        _ => Ok(None),
    }
}

fn of_members(members: &Map<String, Value>) -> Option<Vec<Tensor>> {
    if let (1, Some(Value::Array(rows))) = (members.len(), members.get("predictions"))
        && let Some(columns) = columns(rows)
    {
        return Some(columns);
    }
    let tensors = members.iter().map(|(name, value)| tensor(name, value)).collect::<Option<Vec<_>>>()?;
    (!tensors.is_empty()).then_some(tensors)
}

/// A tensor for each member of rows that are objects with the same members.
fn columns(rows: &[Value]) -> Option<Vec<Tensor>> {
    let names: Vec<&String> = rows.first()?.as_object()?.keys().collect();
    let column = |name: &&String| {
        let cells = rows.iter().map(|row| {
            let row = row.as_object().filter(|row| row.len() == names.len())?;
            row.get(*name).cloned()
        });
        tensor(name, &Value::Array(cells.collect::<Option<_>>()?))
    };
    let tensors = names.iter().map(column).collect::<Option<Vec<_>>>()?;
    (!tensors.is_empty()).then_some(tensors)
}

fn tensor(name: &str, value: &Value) -> Option<Tensor> {
    of_flat(name, serde::Deserialize::deserialize(value).ok()?)
}

fn of_flat(name: &str, flat: Flat) -> Option<Tensor> {
    let Flat { mut shape, values } = flat;
    if shape.is_empty() {
        shape.push(1);
    }
    let shape: Vec<i64> = shape.into_iter().map(i64::try_from).collect::<Result<_, _>>().ok()?;
    let datatype = match values.datatype() {
        // Integers beyond both kinds of 64 bits are numbers all the same.
        Datatype::Uint64 if values.encoded(Datatype::Uint64).is_err() => Datatype::Fp64,
        datatype => datatype,
    };
    Tensor::from_values(name.to_owned(), datatype, &shape, &values).ok()
}

/// Rows of numbers, or of texts where not all are numbers; `None` when the rows differ in length.
fn of_csv(body: &Bytes) -> Option<Vec<Tensor>> {
    let text = std::str::from_utf8(body).ok()?;
    if text.contains('"') {
        return None;
    }
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split(',').map(str::trim).collect())
        .collect();
    let columns = rows.first()?.len();
    if rows.iter().any(|row| row.len() != columns) {
        return None;
    }
    let cells = || rows.iter().flatten();
    let numbers: Result<Vec<f64>, _> = cells().map(|cell| cell.parse()).collect();
    let values = match numbers {
        Ok(numbers) => Values::Floats(numbers),
        Err(_) => Values::Texts(cells().map(|cell| (*cell).to_owned()).collect()),
    };
    let shape = if columns == 1 { vec![rows.len()] } else { vec![rows.len(), columns] };
    of_flat(UNNAMED, Flat { shape, values }).map(|tensor| vec![tensor])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_protocols::v2_message::Options;

    fn floats(name: &str, shape: &[i64], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::from_binary(name.into(), Datatype::Fp32, shape, data.into()).unwrap()
    }

    fn request(inputs: Vec<Tensor>, content_type: Option<&str>) -> InferRequest {
        let options = Options { content_type: content_type.map(str::to_owned), ..Options::default() };
        InferRequest { inputs, options, ..InferRequest::default() }
    }

    fn body(form: &Form, request: &InferRequest) -> String {
        String::from_utf8_lossy(&form.body(request)).into_owned()
    }

    #[test]
    fn the_form_follows_the_tensors_the_host_and_the_request() {
        let matrix = floats("x", &[2, 2], &[1.0, 2.5, f32::NAN, 4.0]);
        let one = request(vec![matrix.clone()], None);
        assert_eq!(Form::of(&one, false).unwrap(), [Form::Npy, Form::Json, Form::Csv]);
        assert_eq!(Form::of(&one, true).unwrap(), [Form::Json, Form::Npy, Form::Csv]);
        assert_eq!(body(&Form::Json, &one), r#"{"instances":[[1.0,2.5],[null,4.0]]}"#);
        assert_eq!(body(&Form::Csv, &one), "1.0,2.5\n,4.0\n");
        assert!(body(&Form::Npy, &one).contains("'shape': (2, 2)"));
        let texts = request(vec![Tensor::of_bytes("x", b"hi")], None);
        assert_eq!(Form::of(&texts, false).unwrap(), [Form::Json]);
        assert_eq!(body(&Form::Json, &texts), r#"{"inputs":["hi"]}"#);
        let two = request(vec![matrix.clone(), Tensor::of_bytes("y", b"hi")], None);
        assert_eq!(
            body(&Form::of(&two, false).unwrap()[0], &two),
            r#"{"inputs":{"x":[[1.0,2.5],[null,4.0]],"y":["hi"]}}"#
        );

        let picture = request(vec![Tensor::of_bytes("x", b"\xff\xd8")], Some("image/jpeg"));
        let form = &Form::of(&picture, true).unwrap()[0];
        assert_eq!((form.content_type(), &form.body(&picture)[..]), ("image/jpeg", &b"\xff\xd8"[..]));
        for (inputs, content_type) in [
            (vec![matrix.clone()], "image/jpeg"),
            (vec![matrix, Tensor::of_bytes("y", b"")], "text/csv"),
            (vec![], "a/b"),
        ] {
            assert!(Form::of(&request(inputs, Some(content_type)), false).is_err());
        }
    }

    fn answered(
        content_type: &str,
        body: &str,
        wanted: &[&str],
    ) -> Result<Vec<(String, String, Vec<usize>)>, AnswerProblem> {
        let wanted: Vec<_> =
            wanted.iter().map(|name| WantedOutput { name: (*name).into(), is_binary: None }).collect();
        let outputs = outputs(Some(content_type), &Bytes::copy_from_slice(body.as_bytes()), &wanted)?;
        let shown = |tensor: Tensor| (tensor.name, tensor.datatype.as_str().to_owned(), tensor.shape);
        Ok(outputs.tensors.into_iter().map(shown).collect())
    }

    #[test]
    fn answers_become_tensors() {
        let one = |name: &str, datatype: &str, shape: &[usize]| {
            vec![(name.to_owned(), datatype.to_owned(), shape.to_vec())]
        };
        let json = "application/json; charset=utf-8";
        assert_eq!(answered(json, "[[1,2],[3,4]]", &[]).unwrap(), one("output-0", "INT64", &[2, 2]));
        assert_eq!(answered(json, "[1,2.5]", &["y"]).unwrap(), one("y", "FP64", &[2]));
        assert_eq!(answered(json, "1", &[]).unwrap(), one("output-0", "INT64", &[1]));
        assert_eq!(
            answered(json, r#"{"predictions":[true]}"#, &[]).unwrap(),
            one("predictions", "BOOL", &[1])
        );
        assert_eq!(
            answered(json, r#"{"predictions":[{"score":0.5},{"score":1}]}"#, &[]).unwrap(),
            one("score", "FP64", &[2])
        );
        let two =
            answered(json, r#"{"label":["a","b"],"score":[[0.5],[0.5]]}"#, &["score", "label"]).unwrap();
        assert_eq!(two.iter().map(|(name, _, _)| name.as_str()).collect::<Vec<_>>(), ["score", "label"]);
        assert_eq!(two[0].2, [2, 1]);
        let v2 = r#"{"outputs":[{"name":"o","datatype":"FP32","shape":[1],"data":[1]}]}"#;
        assert_eq!(answered(json, v2, &[]).unwrap(), one("o", "FP32", &[1]));
        // What is no tensor comes as it was.
        for odd in [r#"{"a":{"b":1}}"#, "[[1],[2,3]]", "[{\"a\":1},{\"b\":1}]", "no json", "{}"] {
            assert_eq!(answered(json, odd, &[]).unwrap(), one("output-0", "BYTES", &[1]), "{odd}");
        }
        assert_eq!(answered("text/csv", "1,2\n3,4\n", &[]).unwrap(), one("output-0", "FP64", &[2, 2]));
        assert_eq!(answered("text/csv", "a\nb", &[]).unwrap(), one("output-0", "BYTES", &[2]));
        assert_eq!(answered("image/png", "x", &["y"]).unwrap(), one("y", "BYTES", &[1]));
        let Err(AnswerProblem::NoSuchOutput(text)) = answered(json, r#"{"a":[1],"b":[2]}"#, &["c"]) else {
            panic!("there is no such output")
        };
        assert!(text.contains("no output \"c\"; it answered a, b"), "{text}");
        let broken = answered("application/x-npy", "x", &[]);
        assert!(matches!(broken, Err(AnswerProblem::Unreadable(_))), "{broken:?}");
    }
}
