//! Answers of chosen parts: labels, probabilities and scores of each row by name, as a model's environment asks for them.

use super::answer::{AnswerType, Predictions};
use super::numbers::{write_json, write_list, write_text};
use super::refusal::RequestError;

/// All parts, in the order in which objects have them.
const KEYS: [&str; 7] = [
    "predicted_label",
    "labels",
    "probability",
    "probabilities",
    "raw_score",
    "raw_scores",
    "predicted_score",
];

/// What a model can say.
#[derive(Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub(crate) objective: &'a str,
    pub(crate) classes: usize,
}

/// A part of an answer.
enum Part {
    /// A whole number.
    Label(usize),
    Number(f64),
    Labels(usize),
    Numbers(Vec<f64>),
}

impl Speaker<'_> {
    /// The body with these parts of each prediction.
    pub(crate) fn body(
        self,
        predictions: Predictions<'_>,
        keys: &[String],
        answer_type: AnswerType,
        is_line_each: bool,
    ) -> Result<String, RequestError> {
        if !self.is_known() {
            return Err(RequestError::unfit(&format!(
                "Objective `{}` unsupported for selectable inference predictions.",
                self.objective
            )));
        }
        let mut body = String::new();
        match answer_type {
            AnswerType::Csv => {
                for (index, prediction) in predictions.each().enumerate() {
                    if index > 0 {
                        body.push('\n');
                    }
                    self.write_cells(&mut body, prediction, keys);
                }
                if is_line_each {
                    body.push('\n');
                }
            }
            AnswerType::Json => {
                body.push_str("{\"predictions\": [");
                for (index, prediction) in predictions.each().enumerate() {
                    if index > 0 {
                        body.push_str(", ");
                    }
                    self.write_object(&mut body, prediction, keys);
                }
                body.push_str("]}");
            }
            AnswerType::JsonLines => {
                for prediction in predictions.each() {
                    self.write_object(&mut body, prediction, keys);
                    body.push('\n');
                }
            }
        }
        Ok(body)
    }

    fn is_known(self) -> bool {
        const OBJECTIVES: [&str; 9] = [
            "reg:squarederror",
            "reg:logistic",
            "reg:gamma",
            "reg:tweedie",
            "binary:logistic",
            "binary:logitraw",
            "binary:hinge",
            "multi:softmax",
            "multi:softprob",
        ];
        OBJECTIVES.contains(&self.objective)
    }

    /// A part of a prediction; not a number where the objective has no such part.
    fn part(self, key: &str, prediction: &[f64]) -> Part {
        let first = prediction.first().copied().unwrap_or(f64::NAN);
        let is_binary = self.objective.starts_with("binary:");
        let is_class = is_binary || self.objective.starts_with("multi:");
        let has_probabilities = matches!(self.objective, "binary:logistic" | "multi:softprob");
        let is_list = self.objective == "multi:softprob";
        let best = || {
            let better =
                |best: usize, class: usize| if prediction[class] > prediction[best] { class } else { best };
            (0..prediction.len()).reduce(better).unwrap_or(0)
        };
        match key {
            "predicted_label" => match self.objective {
                "binary:logistic" => Part::Label(usize::from(first > 0.5)),
                "binary:logitraw" => Part::Label(usize::from(first > 0.0)),
                "multi:softprob" => Part::Label(best()),
                _ if is_class => Part::Number(first),
                _ => Part::Number(f64::NAN),
            },
            "labels" if is_class => Part::Labels(if is_binary { 2 } else { self.classes }),
            "probability" if has_probabilities => {
                Part::Number(if is_list { prediction[best()] } else { first })
            }
            "raw_score" if is_class => Part::Number(if is_list { prediction[best()] } else { first }),
            "probabilities" if has_probabilities => Part::Numbers(both(prediction, is_list)),
            "raw_scores" if is_class => Part::Numbers(both(prediction, is_list)),
            "predicted_score" if !is_class => Part::Number(first),
            _ => Part::Number(f64::NAN),
        }
    }

    fn write_cells(self, body: &mut String, prediction: &[f64], keys: &[String]) {
        for (index, key) in keys.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            let part = self.part(key, prediction);
            let is_list = matches!(part, Part::Labels(_) | Part::Numbers(_));
            if is_list {
                body.push('"');
            }
            part.write(body, write_text);
            if is_list {
                body.push('"');
            }
        }
    }

    fn write_object(self, body: &mut String, prediction: &[f64], keys: &[String]) {
        let known = KEYS.iter().copied().filter(|key| keys.iter().any(|wanted| wanted == key));
        let unknown = keys.iter().map(String::as_str).filter(|key| !KEYS.contains(key));
        body.push('{');
        for (index, key) in known.chain(unknown).enumerate() {
            if index > 0 {
                body.push_str(", ");
            }
            body.push_str(&serde_json::Value::from(key).to_string());
            body.push_str(": ");
            self.part(key, prediction).write(body, write_json);
        }
        body.push('}');
    }
}

/// The scores of all classes; of two classes the model says only the second's.
fn both(prediction: &[f64], is_list: bool) -> Vec<f64> {
    match prediction {
        [score] if !is_list => vec![1.0 - score, *score],
        scores => scores.to_vec(),
    }
}

impl Part {
    fn write(&self, body: &mut String, write: fn(&mut String, f64)) {
        match self {
            Part::Label(label) => body.push_str(&label.to_string()),
            Part::Number(number) => write(body, *number),
            Part::Labels(count) => {
                let labels: Vec<String> = (0..*count).map(|label| label.to_string()).collect();
                body.push('[');
                body.push_str(&labels.join(", "));
                body.push(']');
            }
            Part::Numbers(numbers) => write_list(body, numbers, write),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(objective: &str, values: &[f64], keys: &str, answer_type: AnswerType) -> String {
        let list_length = (objective == "multi:softprob").then_some(values.len());
        let keys: Vec<String> = keys.split(',').map(str::to_owned).collect();
        let speaker = Speaker { objective, classes: if objective.starts_with("multi:") { 3 } else { 0 } };
        speaker.body(Predictions { values, list_length }, &keys, answer_type, false).unwrap()
    }

    #[test]
    fn each_objective_has_its_parts() {
        let all = "probabilities,predicted_label,labels,probability,raw_score,raw_scores";
        assert_eq!(
            body("binary:logistic", &[0.75], all, AnswerType::Json),
            "{\"predictions\": [{\"predicted_label\": 1, \"labels\": [0, 1], \"probability\": 0.75, \"probabilities\": [0.25, 0.75], \
             \"raw_score\": 0.75, \"raw_scores\": [0.25, 0.75]}]}"
        );
        assert_eq!(
            body("multi:softprob", &[0.25, 0.5, 0.25], all, AnswerType::Csv),
            "\"[0.25, 0.5, 0.25]\",1,\"[0, 1, 2]\",0.5,0.5,\"[0.25, 0.5, 0.25]\""
        );
        assert_eq!(body("multi:softmax", &[2.0], "predicted_label,probability", AnswerType::Csv), "2.0,nan");
        assert_eq!(
            body("reg:squarederror", &[1.5, 2.5], "predicted_score,labels", AnswerType::JsonLines),
            "{\"labels\": NaN, \"predicted_score\": 1.5}\n{\"labels\": NaN, \"predicted_score\": 2.5}\n"
        );
        assert_eq!(body("binary:logitraw", &[-1.0], "predicted_label,other", AnswerType::Csv), "0,nan");
        let poisson = Speaker { objective: "count:poisson", classes: 0 };
        let predictions = Predictions { values: &[1.0], list_length: None };
        assert_eq!(poisson.body(predictions, &[], AnswerType::Csv, false).unwrap_err().status, 400);
    }
}
