//! What a graph has computed, apart from the runtime that holds it.

/// Values of an output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Singles(Vec<f32>),
    Doubles(Vec<f64>),
    Integers(Vec<i64>),
    Truths(Vec<bool>),
    Texts(Vec<String>),
    /// A number for each class of each row.
    Maps(Vec<Vec<(String, f64)>>),
}

/// One output, its values in the order of C.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// What the values of an answer are in Python, where the graph has another type for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerValues {
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// Texts.
    Text,
    /// Truth values.
    Truth,
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Values::Singles(values) => values.len(),
            Values::Doubles(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Truths(values) => values.len(),
            Values::Texts(values) => values.len(),
            Values::Maps(values) => values.len(),
        }
    }

    /// The number at a place, where there is one.
    pub(crate) fn number(&self, at: usize) -> Option<f64> {
        match self {
            Values::Singles(values) => values.get(at).copied().map(f64::from),
            Values::Doubles(values) => values.get(at).copied(),
            Values::Integers(values) => values.get(at).map(|value| *value as f64),
            Values::Truths(_) | Values::Texts(_) | Values::Maps(_) => None,
        }
    }

    /// The same values in the type that they have in Python.
    pub(crate) fn retyped(self, wanted: AnswerValues) -> Values {
        match (wanted, self) {
            (AnswerValues::Number, Values::Integers(values)) => {
                Values::Doubles(values.into_iter().map(|value| value as f64).collect())
            }
            (AnswerValues::Integer, Values::Singles(values)) => {
                Values::Integers(values.into_iter().map(|value| value as i64).collect())
            }
            (AnswerValues::Truth, Values::Integers(values)) => {
                Values::Truths(values.into_iter().map(|value| value != 0).collect())
            }
            (_, values) => values,
        }
    }
}

impl Output {
    /// How many rows it has: the size of its first dimension.
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values of each row.
    pub(crate) fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}
