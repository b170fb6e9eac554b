//! From a request to an answer: which outputs of the graph are meant, and what they are called.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::answer::{self, AnswerType};
use super::cells::Array;
use super::graph::{Graph, OutputPort, ValueRules};
use super::outputs::{AnswerValues, Output, Values};
use super::reading;
use crate::engine::answer::media_type;
use crate::engine::refusal::RequestError;

/// What is known of a graph that was made from another model.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Description {
    /// The output that is the answer.
    output: String,
    /// What its values are.
    values: AnswerValues,
    /// Whether a row's answer is one value.
    is_flat: bool,
    /// The other outputs that may be chosen, with what they are called.
    #[serde(default)]
    probabilities: Option<String>,
    takes_missing: bool,
    takes_infinite: bool,
    single_precision: bool,
}

/// What the deployment asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerWishes {
    /// The media type of answers where the caller takes any.
    pub(crate) default_accept: Option<String>,
    /// The parts of answers by name.
    pub(crate) selected: Option<Vec<String>>,
}

/// A graph with how it answers.
pub(crate) struct Answering {
    graph: Graph,
    wishes: AnswerWishes,
    form: Form,
    rules: ValueRules,
    values: Option<AnswerValues>,
    is_flat: bool,
}

/// Which outputs an answer has. Outputs are named by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    One(usize),
    All,
    /// Chosen parts with their names.
    Parts(Vec<(String, Part)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Output(usize),
    /// The largest number of each row.
    Largest(usize),
}

/// What is asked.
pub(crate) struct Asked<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) accept: Option<&'a str>,
    pub(crate) body: &'a [u8],
    pub(crate) time_limit: Duration,
}

/// A request that has been read.
pub(super) struct Prepared<'a> {
    pub(super) answer_type: AnswerType,
    pub(super) arrays: Vec<Array<'a>>,
}

impl Description {
    /// Reads the file of a description.
    ///
    /// # Errors
    /// A sentence for people.
    pub(crate) fn read(path: &Path) -> Result<Description, String> {
        let text =
            std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}.", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{} is not valid: {error}.", path.display()))
    }
}

impl Answering {
    /// Decides how a graph answers.
    ///
    /// # Errors
    /// A sentence for people, when a wish names what the graph has not.
    pub(crate) fn new(
        graph: Graph,
        description: Option<&Description>,
        wishes: AnswerWishes,
    ) -> Result<Self, String> {
        let names: Vec<&str> = graph.outputs().iter().map(|output| output.name.as_str()).collect();
        let find = |name: &str| names.iter().position(|known| *known == name);
        let (label, probabilities) = match description {
            None => classifier(graph.outputs())
                .map_or((None, None), |(label, numbers)| (Some(label), Some(numbers))),
            Some(description) => {
                let label = find(&description.output);
                let missing = || {
                    format!("The graph has no output {}, which its description names.", description.output)
                };
                (Some(label.ok_or_else(missing)?), description.probabilities.as_deref().and_then(find))
            }
        };
        let form = match &wishes.selected {
            Some(keys) => Form::Parts(parts(keys, &names, label, probabilities)?),
            None => match label {
                Some(label) => Form::One(label),
                None if names.len() == 1 => Form::One(0),
                None => Form::All,
            },
        };
        let rules = description.map(|description| ValueRules {
            none_missing: !description.takes_missing,
            none_infinite: !description.takes_infinite,
            single_precision: description.single_precision,
        });
        Ok(Self {
            form,
            rules: rules.unwrap_or_default(),
            values: description.map(|description| description.values),
            is_flat: description.is_some_and(|description| description.is_flat),
            graph,
            wishes,
        })
    }

    /// The graph.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The body of an answer.
    pub(crate) fn answer(&self, asked: &Asked<'_>) -> Result<(AnswerType, Vec<u8>), RequestError> {
        let Prepared { answer_type, arrays } = self.prepare(asked)?;
        let outputs = self.run(&arrays, asked.time_limit)?;
        self.finish(outputs, answer_type)
    }

    /// Reads a request.
    pub(super) fn prepare<'a>(&self, asked: &Asked<'a>) -> Result<Prepared<'a>, RequestError> {
        let answer_type = AnswerType::choose(asked.accept, self.wishes.default_accept.as_deref())?;
        let media_type =
            media_type(asked.content_type.filter(|kind| !kind.is_empty()).unwrap_or("application/json"));
        let body = reading::read(&media_type, asked.body)?;
        // An array of numpy reaches a model with all its digits.
        let single_precision = self.rules.single_precision && media_type != "application/x-npy";
        let rules = ValueRules { single_precision, ..self.rules };
        Ok(Prepared { answer_type, arrays: self.graph.arrays(body, rules)? })
    }

    /// The outputs that answers are made of.
    fn wanted(&self) -> Vec<usize> {
        match &self.form {
            Form::One(output) => vec![*output],
            Form::All => (0..self.graph.outputs().len()).collect(),
            Form::Parts(parts) => parts.iter().map(|(_, part)| part.output()).collect(),
        }
    }

    /// Computes those outputs.
    pub(super) fn run(
        &self,
        arrays: &[Array<'_>],
        time_limit: Duration,
    ) -> Result<Vec<Output>, RequestError> {
        self.graph.run(arrays, &self.wanted(), time_limit)
    }

    /// Writes an answer.
    pub(super) fn finish(
        &self,
        mut outputs: Vec<Output>,
        answer_type: AnswerType,
    ) -> Result<(AnswerType, Vec<u8>), RequestError> {
        let wanted = self.wanted();
        for (output, number) in outputs.iter_mut().zip(&wanted) {
            self.shape(output, *number);
        }
        let body = match &self.form {
            Form::One(_) => answer::single(&outputs[0], answer_type)?,
            Form::All => answer::several(&outputs, answer_type, false)?,
            Form::Parts(parts) => {
                for (output, (name, part)) in outputs.iter_mut().zip(parts) {
                    if let Part::Largest(_) = part {
                        *output = largest(output);
                    }
                    output.name.clone_from(name);
                }
                answer::several(&outputs, answer_type, true)?
            }
        };
        Ok((answer_type, body))
    }

    /// The answer of a graph that was made from another model, as that model gives it.
    fn shape(&self, output: &mut Output, number: usize) {
        let Some(values) = self.values else { return };
        let is_answer = match &self.form {
            Form::One(answer) => *answer == number,
            Form::All => false,
            Form::Parts(parts) => {
                parts.iter().any(|(name, part)| name == PREDICTED_LABEL && part.output() == number)
            }
        };
        if is_answer {
            if self.is_flat && output.width() == 1 {
                output.shape.truncate(1);
            }
            let taken = std::mem::replace(&mut output.values, Values::Integers(Vec::new()));
            output.values = taken.retyped(values);
        }
    }
}

impl Part {
    fn output(self) -> usize {
        match self {
            Part::Output(output) | Part::Largest(output) => output,
        }
    }
}

const PREDICTED_LABEL: &str = "predicted_label";

/// Label and probabilities, where the graph is a classifier as converters make them.
fn classifier(outputs: &[OutputPort]) -> Option<(usize, usize)> {
    use ort::value::{TensorElementType, ValueType};
    let [label, numbers] = outputs else { return None };
    let is_label = match &label.kind {
        ValueType::Tensor { ty, shape, .. } => {
            shape.len() <= 1 && matches!(ty, TensorElementType::Int64 | TensorElementType::String)
        }
        _ => false,
    };
    let is_numbers = match &numbers.kind {
        ValueType::Tensor { ty, shape, .. } => {
            shape.len() == 2
                && matches!(ty, TensorElementType::Float32 | TensorElementType::Float64)
                && numbers.name.to_lowercase().contains("probabilit")
        }
        ValueType::Sequence(_) => true,
        _ => false,
    };
    (is_label && is_numbers).then_some((0, 1))
}

fn parts(
    keys: &[String],
    names: &[&str],
    label: Option<usize>,
    probabilities: Option<usize>,
) -> Result<Vec<(String, Part)>, String> {
    let part = |key: &String| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(key)).map(Part::Output);
        let meant = match key.as_str() {
            PREDICTED_LABEL | "predicted_score" => label.map(Part::Output),
            "probabilities" => probabilities.map(Part::Output),
            "probability" => probabilities.map(Part::Largest),
            _ => None,
        };
        let mut known: Vec<&str> = names.to_vec();
        if label.is_some() {
            known.push(PREDICTED_LABEL);
        }
        if probabilities.is_some() {
            known.extend(["probability", "probabilities"]);
        }
        let part = meant.or(named).ok_or_else(|| {
            format!(
                "SAGEMAKER_INFERENCE_OUTPUT names {key:?}, which the model does not give; it gives {}.",
                known.join(", ")
            )
        })?;
        Ok((key.clone(), part))
    };
    keys.iter().map(part).collect()
}

fn largest(output: &Output) -> Output {
    let width = output.width();
    let of_maps = |maps: &[Vec<(String, f64)>]| {
        let most = |map: &Vec<(String, f64)>| {
            map.iter().map(|(_, number)| *number).fold(f64::NEG_INFINITY, f64::max)
        };
        maps.iter().map(most).collect()
    };
    let numbers = match &output.values {
        Values::Maps(maps) => of_maps(maps),
        values => (0..output.rows())
            .map(|row| {
                (row * width..(row + 1) * width)
                    .filter_map(|at| values.number(at))
                    .fold(f64::NEG_INFINITY, f64::max)
            })
            .collect(),
    };
    Output { name: output.name.clone(), shape: vec![output.rows()], values: Values::Doubles(numbers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_their_names_or_by_what_they_are() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let names = ["output_label", "output_probability"];
        let chosen =
            parts(&keys(&["predicted_label", "probability", "output_label"]), &names, Some(0), Some(1))
                .unwrap();
        assert_eq!(
            chosen.into_iter().map(|(_, part)| part).collect::<Vec<_>>(),
            [Part::Output(0), Part::Largest(1), Part::Output(0)]
        );
        let refused = parts(&keys(&["labels"]), &names, Some(0), Some(1)).unwrap_err();
        assert!(
            refused.contains("names \"labels\"")
                && refused.contains("it gives output_label, output_probability, predicted_label")
        );
        assert!(parts(&keys(&["probabilities"]), &["variable"], None, None).is_err());
    }

    #[test]
    fn the_largest_number_of_each_row_is_its_probability() {
        let output = |shape: &[usize], values| Output { name: "p".into(), shape: shape.to_vec(), values };
        let tensor = output(&[2, 2], Values::Singles(vec![0.25, 0.75, 1.0, 0.0]));
        assert_eq!(largest(&tensor).values, Values::Doubles(vec![0.75, 1.0]));
        let maps = output(&[1], Values::Maps(vec![vec![("a".into(), 0.5), ("b".into(), 0.25)]]));
        assert_eq!(largest(&maps), output(&[1], Values::Doubles(vec![0.5])));
    }
}
