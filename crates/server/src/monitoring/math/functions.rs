//! The functions of metric math by name.

use time::OffsetDateTime;

use super::evaluate::Evaluation;
use super::parse::Tree;
use super::series::{Filling, Summary};
use super::value::{Series, Value};

/// Functions of the service that need what this server does not have.
const ABSENT: &[&str] = &[
    "ANOMALY_DETECTION_BAND",
    "DB_PERF_INSIGHTS",
    "INSIGHT_RULE_METRIC",
    "LAMBDA",
    "SEARCH",
    "SERVICE_QUOTA",
];

impl Evaluation<'_> {
    /// Calls a function.
    pub(super) fn call(&mut self, name: &str, arguments: &[Tree]) -> Result<Value, String> {
        if let Some(summary) = Summary::named(name) {
            return match self.only(name, arguments)? {
                Value::Series(series) => Ok(scalar(summary.of(series.values()))),
                Value::Array(array) => Ok(Value::Series(summary.across(&array))),
                Value::Scalar(_) => Err(format!("{name} takes a time series or an array of them")),
            };
        }
        match name {
            "ABS" => self.each_value(name, arguments, f64::abs),
            "CEIL" => self.each_value(name, arguments, f64::ceil),
            "FLOOR" => self.each_value(name, arguments, f64::floor),
            "LOG" => self.each_value(name, arguments, f64::ln),
            "LOG10" => self.each_value(name, arguments, f64::log10),
            "DIFF" => self.each(name, arguments, |series| series.steps(|before, after, _| after - before)),
            "DIFF_TIME" => self.each(name, arguments, |series| series.steps(|_, _, seconds| seconds)),
            "RATE" => self.each(name, arguments, |series| {
                series.steps(|before, after, seconds| (after - before) / seconds)
            }),
            "RUNNING_SUM" => self.each(name, arguments, Series::running_sum),
            "EPOCH" => self.each(name, arguments, |series| series.moments(|at| at as f64)),
            "MINUTE" => self.calendar(name, arguments, |at| at.minute().into()),
            "HOUR" => self.calendar(name, arguments, |at| at.hour().into()),
            "DAY" => self.calendar(name, arguments, |at| at.weekday().number_from_monday().into()),
            "DATE" => self.calendar(name, arguments, |at| at.day().into()),
            "MONTH" => self.calendar(name, arguments, |at| u8::from(at.month()).into()),
            "YEAR" => self.calendar(name, arguments, OffsetDateTime::year),
            "DATAPOINT_COUNT" => {
                self.single(name, arguments).map(|one| Value::Scalar(one.points.len() as f64))
            }
            "PERIOD" => self.single(name, arguments).map(|one| Value::Scalar(one.period_seconds as f64)),
            "METRIC_COUNT" => self.array(name, arguments).map(|array| Value::Scalar(array.len() as f64)),
            "FIRST" => {
                self.array(name, arguments)?.into_iter().next().map(Value::Series).ok_or_else(|| empty(name))
            }
            "LAST" => self.array(name, arguments)?.pop().map(Value::Series).ok_or_else(|| empty(name)),
            "REMOVE_EMPTY" => {
                let mut array = self.array(name, arguments)?;
                array.retain(|series| !series.points.is_empty());
                Ok(Value::Array(array))
            }
            "TIME_SERIES" => match self.only(name, arguments)? {
                Value::Scalar(number) => Ok(Value::Series(self.constant(number)?)),
                other => Err(format!("TIME_SERIES takes a number, not {}", other.kind())),
            },
            "METRICS" => self.metrics(arguments),
            "FILL" => self.fill(arguments),
            "IF" => self.condition(arguments),
            "SLICE" => self.slice(arguments),
            "SORT" => self.sort(arguments),
            absent if ABSENT.contains(&absent) => {
                Err(format!("Modelyard does not have the function {absent}; leave it out"))
            }
            unknown => Err(format!("there is no function {unknown}")),
        }
    }

    /// The one argument of a function.
    fn only(&mut self, name: &str, arguments: &[Tree]) -> Result<Value, String> {
        match arguments {
            [one] => self.value(one),
            _ => Err(format!("{name} takes one argument, not {}", arguments.len())),
        }
    }

    fn single(&mut self, name: &str, arguments: &[Tree]) -> Result<Series, String> {
        match self.only(name, arguments)? {
            Value::Series(series) => Ok(series),
            other => Err(format!("{name} takes a time series, not {}", other.kind())),
        }
    }

    fn array(&mut self, name: &str, arguments: &[Tree]) -> Result<Vec<Series>, String> {
        match self.only(name, arguments)? {
            Value::Array(array) => Ok(array),
            Value::Series(series) => Ok(vec![series]),
            other => Err(format!("{name} takes an array of time series, not {}", other.kind())),
        }
    }

    fn each(
        &mut self,
        name: &str,
        arguments: &[Tree],
        change: impl Fn(&Series) -> Series,
    ) -> Result<Value, String> {
        match self.only(name, arguments)? {
            Value::Series(series) => Ok(Value::Series(change(&series))),
            Value::Array(array) => Ok(Value::Array(array.iter().map(change).collect())),
            other => Err(format!("{name} takes a time series or an array of them, not {}", other.kind())),
        }
    }

    fn each_value(
        &mut self,
        name: &str,
        arguments: &[Tree],
        change: fn(f64) -> f64,
    ) -> Result<Value, String> {
        match arguments {
            [one] => match self.value(one)? {
                Value::Scalar(number) => Ok(Value::Scalar(change(number))),
                Value::Series(series) => Ok(Value::Series(series.map(change))),
                Value::Array(array) => {
                    Ok(Value::Array(array.iter().map(|series| series.map(change)).collect()))
                }
            },
            _ => Err(format!("{name} takes one argument, not {}", arguments.len())),
        }
    }

    fn calendar(
        &mut self,
        name: &str,
        arguments: &[Tree],
        change: fn(OffsetDateTime) -> i32,
    ) -> Result<Value, String> {
        self.each(name, arguments, |series| {
            series.moments(|at| {
                OffsetDateTime::from_unix_timestamp(at).map_or(f64::NAN, |at| f64::from(change(at)))
            })
        })
    }

    /// `METRICS()` and `METRICS("part of an id")`: metrics of the request, without its expressions.
    fn metrics(&mut self, arguments: &[Tree]) -> Result<Value, String> {
        let part = match arguments {
            [] => "",
            [Tree::Text(part)] => part,
            _ => return Err("METRICS takes nothing, or a part of ids in quotes".into()),
        };
        Ok(Value::Array(self.metric_series(part)))
    }

    fn fill(&mut self, arguments: &[Tree]) -> Result<Value, String> {
        let [filled, filling] = arguments else {
            return Err(format!("FILL takes two arguments, not {}", arguments.len()));
        };
        let filling = match filling {
            Tree::Name(word) if word.eq_ignore_ascii_case("REPEAT") => Filling::Repeat,
            Tree::Name(word) if word.eq_ignore_ascii_case("LINEAR") => Filling::Linear,
            other => match self.value(other)? {
                Value::Scalar(number) => Filling::Number(number),
                Value::Series(series) => Filling::Series(series),
                Value::Array(_) => {
                    return Err("FILL fills with a number, a time series, REPEAT or LINEAR".into());
                }
            },
        };
        let filled = self.value(filled)?;
        let mut fill = |series: &Series| {
            let grid = self.grid(series.period_seconds);
            self.spend(grid.len())?;
            Ok::<_, String>(series.fill(&grid, &filling))
        };
        match filled {
            Value::Series(series) => fill(&series).map(Value::Series),
            Value::Array(array) => array.iter().map(fill).collect::<Result<_, _>>().map(Value::Array),
            Value::Scalar(_) => Err("FILL takes a time series or an array of them, not a number".into()),
        }
    }

    /// `IF(condition, then, else)`, where the last may be left out.
    fn condition(&mut self, arguments: &[Tree]) -> Result<Value, String> {
        let ([condition, then] | [condition, then, _]) = arguments else {
            return Err(format!("IF takes two or three arguments, not {}", arguments.len()));
        };
        let then = self.value(then)?;
        let otherwise = arguments.get(2).map(|tree| self.value(tree)).transpose()?;
        let condition = match self.value(condition)? {
            Value::Scalar(number) if number != 0.0 => return Ok(then),
            Value::Scalar(_) => {
                return match otherwise {
                    Some(value) => Ok(value),
                    None => Ok(Value::Series(self.constant(f64::NAN)?)),
                };
            }
            Value::Series(series) => series,
            Value::Array(_) => return Err("the condition of IF is a number or a time series".into()),
        };
        let at = |value: &Value, moment: i64| match value {
            Value::Scalar(number) => Some(*number),
            Value::Series(series) => series.at(moment),
            Value::Array(_) => None,
        };
        if matches!(then, Value::Array(_)) || matches!(otherwise, Some(Value::Array(_))) {
            return Err("IF chooses between numbers and time series, not between arrays".into());
        }
        let points = condition.points.iter().filter_map(|(moment, holds)| {
            let chosen = if *holds != 0.0 { Some(&then) } else { otherwise.as_ref() };
            Some((*moment, at(chosen?, *moment)?))
        });
        Ok(Value::Series(condition.with(points.collect())))
    }

    /// `SLICE(array, index)` and `SLICE(array, from, to)`; `to` itself is left out.
    fn slice(&mut self, arguments: &[Tree]) -> Result<Value, String> {
        let ([array, from] | [array, from, _]) = arguments else {
            return Err(format!("SLICE takes two or three arguments, not {}", arguments.len()));
        };
        let array = self.array("SLICE", std::slice::from_ref(array))?;
        let from = self.index(from)?;
        match arguments.get(2) {
            None => array
                .into_iter()
                .nth(from)
                .map(Value::Series)
                .ok_or_else(|| "SLICE begins beyond the array".into()),
            Some(to) => {
                let to = self.index(to)?;
                Ok(Value::Array(array.into_iter().take(to).skip(from).collect()))
            }
        }
    }

    fn index(&mut self, tree: &Tree) -> Result<usize, String> {
        match self.value(tree)? {
            Value::Scalar(number) if number >= 0.0 && number.fract() == 0.0 => Ok(number as usize),
            _ => Err("an index is a whole number from 0 on".into()),
        }
    }

    /// `SORT(array, AVG | MIN | MAX | SUM, ASC | DESC, limit)`, where the limit may be left out.
    fn sort(&mut self, arguments: &[Tree]) -> Result<Value, String> {
        let usage = "SORT takes an array, AVG, MIN, MAX or SUM, ASC or DESC, and perhaps a limit";
        let ([array, Tree::Name(by), Tree::Name(order)] | [array, Tree::Name(by), Tree::Name(order), _]) =
            arguments
        else {
            return Err(usage.into());
        };
        let by =
            Summary::named(&by.to_ascii_uppercase()).filter(|by| *by != Summary::Deviation).ok_or(usage)?;
        let descending = match order.to_ascii_uppercase().as_str() {
            "ASC" => false,
            "DESC" => true,
            _ => return Err(usage.into()),
        };
        let limit = arguments.get(3).map(|limit| self.index(limit)).transpose()?;
        let array = self.array("SORT", std::slice::from_ref(array))?;
        let mut ranked: Vec<(Option<f64>, Series)> =
            array.into_iter().map(|series| (by.of(series.values()), series)).collect();
        // A series without values has no rank and comes last in either order.
        ranked.sort_by(|(left, _), (right, _)| match (left, right) {
            (Some(left), Some(right)) if descending => right.total_cmp(left),
            (Some(left), Some(right)) => left.total_cmp(right),
            _ => right.is_some().cmp(&left.is_some()),
        });
        let sorted = ranked.into_iter().map(|(_, series)| series);
        Ok(Value::Array(sorted.take(limit.unwrap_or(usize::MAX)).collect()))
    }
}

/// A number, or one that is none, which results leave out.
fn scalar(number: Option<f64>) -> Value {
    Value::Scalar(number.unwrap_or(f64::NAN))
}

fn empty(name: &str) -> String {
    format!("{name} was given an empty array")
}
