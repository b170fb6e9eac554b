//! From the tree of an expression to its value.

use std::collections::BTreeMap;

use store::metrics::Window;

use super::parse::{Operator, Tree};
use super::value::{Series, Value};

/// Most points that the values of one request's expressions may have together: an expression of two thousand characters
/// can ask for a lot.
const MOST_POINTS: usize = 5_000_000;

/// An expression's surroundings.
pub(super) struct Evaluation<'a> {
    /// Values of the queries that it may name.
    pub(super) values: &'a BTreeMap<String, Value>,
    /// Ids of the queries that are metrics, in the order of the request.
    pub(super) metrics: &'a [String],
    /// First and last moment of the request, and the period of series that come from numbers.
    pub(super) window: Window,
    /// Points that have been made so far.
    pub(super) points: usize,
}

impl Evaluation<'_> {
    /// The value of a tree; the error is a sentence without its period.
    pub(super) fn value(&mut self, tree: &Tree) -> Result<Value, String> {
        let value = match tree {
            Tree::Number(number) => Value::Scalar(*number),
            Tree::Text(_) => return Err("a text in quotes has no value here".into()),
            Tree::Name(name) => self
                .values
                .get(name)
                .cloned()
                .ok_or_else(|| format!("there is no query with the Id {name}"))?,
            Tree::List(elements) => {
                let mut array = Vec::new();
                for element in elements {
                    match self.value(element)? {
                        Value::Series(series) => array.push(series),
                        Value::Array(mut more) => array.append(&mut more),
                        Value::Scalar(number) => array.push(self.constant(number)?),
                    }
                }
                Value::Array(array)
            }
            Tree::Call(name, arguments) => self.call(name, arguments)?,
            Tree::Negate(inside) => binary(Operator::Subtract, Value::Scalar(0.0), self.value(inside)?)?,
            Tree::Binary(operator, left, right) => binary(*operator, self.value(left)?, self.value(right)?)?,
        };
        self.spend(value.size())?;
        Ok(value)
    }

    /// Counts points before, or after, they are made.
    pub(super) fn spend(&mut self, points: usize) -> Result<(), String> {
        self.points = self.points.saturating_add(points);
        if self.points > MOST_POINTS {
            return Err("it makes too many data points; ask for fewer metrics or a longer period".into());
        }
        Ok(())
    }

    /// A series that has the same value all along.
    pub(super) fn constant(&mut self, number: f64) -> Result<Series, String> {
        let grid = self.grid(self.window.period_seconds);
        self.spend(grid.len())?;
        let points = grid.into_iter().map(|at| (at, number)).collect();
        let empty =
            Series { label: String::new(), period_seconds: self.window.period_seconds, points: Vec::new() };
        Ok(empty.with(points))
    }

    /// Starts of the periods of the request.
    pub(super) fn grid(&self, period_seconds: i64) -> Vec<i64> {
        let step = usize::try_from(period_seconds.max(1)).unwrap_or(usize::MAX);
        (self.window.start_seconds..self.window.end_seconds).step_by(step).collect()
    }

    /// The metrics of the request whose ids contain `part`.
    pub(super) fn metric_series(&self, part: &str) -> Vec<Series> {
        let wanted = self.metrics.iter().filter(|id| id.contains(part));
        let series = wanted.filter_map(|id| match self.values.get(id) {
            Some(Value::Series(series)) => Some(series.clone()),
            _ => None,
        });
        series.collect()
    }
}

fn binary(operator: Operator, left: Value, right: Value) -> Result<Value, String> {
    let apply = |left: f64, right: f64| apply(operator, left, right);
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(apply(left, right)),
        (Value::Series(left), Value::Scalar(right)) => Value::Series(left.map(|left| apply(left, right))),
        (Value::Scalar(left), Value::Series(right)) => Value::Series(right.map(|right| apply(left, right))),
        (Value::Series(left), Value::Series(right)) => Value::Series(left.zip(&right, apply)),
        (Value::Array(array), Value::Scalar(right)) => {
            each(&array, |left| left.map(|left| apply(left, right)))
        }
        (Value::Scalar(left), Value::Array(array)) => {
            each(&array, |right| right.map(|right| apply(left, right)))
        }
        (Value::Array(array), Value::Series(right)) => each(&array, |left| left.zip(&right, apply)),
        (Value::Series(left), Value::Array(array)) => {
            each(&array, |right| right.zip(&left, |right, left| apply(left, right)))
        }
        (Value::Array(_), Value::Array(_)) => {
            return Err("operators take at most one array of time series".into());
        }
    })
}

fn each(array: &[Series], change: impl Fn(&Series) -> Series) -> Value {
    Value::Array(array.iter().map(change).collect())
}

fn apply(operator: Operator, left: f64, right: f64) -> f64 {
    let truth = |holds: bool| f64::from(u8::from(holds));
    match operator {
        Operator::Or => truth(left != 0.0 || right != 0.0),
        Operator::And => truth(left != 0.0 && right != 0.0),
        Operator::Equal => truth(left == right),
        Operator::NotEqual => truth(left != right),
        Operator::LessOrEqual => truth(left <= right),
        Operator::GreaterOrEqual => truth(left >= right),
        Operator::Less => truth(left < right),
        Operator::Greater => truth(left > right),
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Power => left.powf(right),
    }
}
