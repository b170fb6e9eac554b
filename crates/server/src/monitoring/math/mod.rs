//! Metric math: expressions over the queries of one GetMetricData request.

mod evaluate;
mod functions;
mod parse;
mod series;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use store::metrics::Window;

use evaluate::Evaluation;
use parse::Tree;
pub(super) use value::{Points, Series, Value};

/// An expression that has been read.
#[derive(Debug, Clone)]
pub(super) struct Expression(Tree);

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Expression, String> {
        parse::parse(text).map(Expression)
    }

    /// The names in it that are among `ids`.
    fn references<'a>(&self, ids: &'a BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut trees = vec![&self.0];
        while let Some(tree) = trees.pop() {
            match tree {
                Tree::Name(name) => found.extend(ids.get(&**name)),
                Tree::List(inner) | Tree::Call(_, inner) => trees.extend(inner),
                Tree::Negate(inner) => trees.push(inner),
                Tree::Binary(_, left, right) => trees.extend([&**left, &**right]),
                Tree::Number(_) | Tree::Text(_) => {}
            }
        }
        found
    }
}

/// Evaluates expressions, each after those that it names. `values` has the metrics of the request; the results are added to it.
///
/// # Errors
/// The id of an expression, and what is wrong with it.
pub(super) fn evaluate(
    expressions: &[(String, Expression)],
    metrics: &[String],
    window: Window,
    values: &mut BTreeMap<String, Value>,
) -> Result<(), (String, String)> {
    let ids: BTreeSet<&str> = expressions.iter().map(|(id, _)| &**id).collect();
    let mut waiting: Vec<(&String, &Expression, BTreeSet<&str>)> =
        expressions.iter().map(|(id, expression)| (id, expression, expression.references(&ids))).collect();
    let mut points = 0;
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|(_, _, needs)| needs.iter().all(|id| values.contains_key(*id)));
        let Some(ready) = ready else {
            let text = "it depends on itself, directly or through other expressions";
            return Err((waiting[0].0.clone(), text.into()));
        };
        let (id, expression, _) = waiting.remove(ready);
        let mut evaluation = Evaluation { values, metrics, window, points };
        let value = evaluation.value(&expression.0).map_err(|text| (id.clone(), text))?;
        points = evaluation.points;
        values.insert(id.clone(), value);
    }
    Ok(())
}

/// The time series that a value is shown as; a number is the same all along. `points` counts those of all values that are shown.
///
/// # Errors
/// When there are too many.
pub(super) fn shown(value: Value, window: Window, points: &mut usize) -> Result<Vec<Series>, String> {
    let nothing = BTreeMap::new();
    let mut evaluation = Evaluation { values: &nothing, metrics: &[], window, points: *points };
    let series = match value {
        Value::Series(series) => vec![series],
        Value::Array(array) => array,
        Value::Scalar(number) => vec![evaluation.constant(number)?],
    };
    *points = evaluation.points;
    Ok(series)
}

#[cfg(test)]
mod tests;
