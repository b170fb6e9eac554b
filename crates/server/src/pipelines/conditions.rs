//! Conditions: comparisons, membership, negation and disjunction over expressions; a list of them holds when all do.

use std::cmp::Ordering;

use serde_json::Value;

use super::expressions::{Expression, Flaw, Scope, element, only, shortened};

/// A condition of a Condition step.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// `Equals` and the four orders.
    Compare {
        /// Which comparison.
        comparison: Comparison,
        /// Left side.
        left: Expression,
        /// Right side.
        right: Expression,
    },
    /// `In`.
    In {
        /// What is looked for.
        query: Expression,
        /// Where.
        values: Vec<Expression>,
    },
    /// `Not`.
    Not(Box<Condition>),
    /// `Or`.
    Or(Vec<Condition>),
}

/// A comparison of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equals,
    /// Left is greater.
    GreaterThan,
    /// Left is greater, or both are equal.
    GreaterThanOrEqualTo,
    /// Left is less.
    LessThan,
    /// Left is less, or both are equal.
    LessThanOrEqualTo,
}

impl Comparison {
    fn named(name: &str) -> Option<Comparison> {
        Some(match name {
            "Equals" => Comparison::Equals,
            "GreaterThan" => Comparison::GreaterThan,
            "GreaterThanOrEqualTo" => Comparison::GreaterThanOrEqualTo,
            "LessThan" => Comparison::LessThan,
            "LessThanOrEqualTo" => Comparison::LessThanOrEqualTo,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equals => order.is_eq(),
            Comparison::GreaterThan => order.is_gt(),
            Comparison::GreaterThanOrEqualTo => order.is_ge(),
            Comparison::LessThan => order.is_lt(),
            Comparison::LessThanOrEqualTo => order.is_le(),
        }
    }
}

impl Condition {
    /// Reads a condition of a definition.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(value: &Value, place: &str) -> Result<Condition, Flaw> {
        let given = value["Type"].as_str();
        let kind =
            given.ok_or_else(|| Flaw::new(&format!("{place}.Type"), "a condition must name its type"))?;
        let inner = |name: &str| format!("{place}.{name}");
        let side = |name: &str| match &value[name] {
            Value::Null => Err(Flaw::new(&inner(name), "this must be given")),
            side => Expression::parse(side, &inner(name)),
        };
        let list = |name: &str| match value[name].as_array() {
            Some(elements) if !elements.is_empty() => Ok(elements),
            _ => Err(Flaw::new(&inner(name), "this must be a list with at least one element")),
        };
        match kind {
            "In" => {
                only(value, &["Type", "QueryValue", "Values"], place)?;
                let values = list("Values")?.iter().enumerate();
                let values =
                    values.map(|(at, value)| Expression::parse(value, &element(&inner("Values"), at)));
                Ok(Condition::In { query: side("QueryValue")?, values: values.collect::<Result<_, _>>()? })
            }
            "Not" => {
                only(value, &["Type", "Condition"], place)?;
                Ok(Condition::Not(Box::new(Condition::parse(&value["Condition"], &inner("Condition"))?)))
            }
            "Or" => {
                only(value, &["Type", "Conditions"], place)?;
                Condition::parse_all(list("Conditions")?, &inner("Conditions")).map(Condition::Or)
            }
            name => {
                let comparison = Comparison::named(name)
                    .ok_or_else(|| Flaw::new(&inner("Type"), format!("there is no condition {name:?}")))?;
                only(value, &["Type", "LeftValue", "RightValue"], place)?;
                Ok(Condition::Compare { comparison, left: side("LeftValue")?, right: side("RightValue")? })
            }
        }
    }

    /// Reads a list of conditions.
    ///
    /// # Errors
    /// As [`Condition::parse`].
    pub fn parse_all(values: &[Value], place: &str) -> Result<Vec<Condition>, Flaw> {
        let values = values.iter().enumerate();
        values.map(|(at, value)| Condition::parse(value, &element(place, at))).collect()
    }

    /// Calls `visit` for every expression of the condition.
    pub fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Expression)) {
        match self {
            Condition::Compare { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Condition::In { query, values } => {
                visit(query);
                values.iter().for_each(visit);
            }
            Condition::Not(inner) => inner.each(visit),
            Condition::Or(inner) => inner.iter().for_each(|one| one.each(visit)),
        }
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// One sentence: a reference that leads to nothing, or values that cannot be compared.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, String> {
        match self {
            Condition::Compare { comparison, left, right } => {
                let (left, right) = (scope.value(left)?, scope.value(right)?);
                match order(&left, &right) {
                    Some(order) => Ok(comparison.holds(order)),
                    None if *comparison == Comparison::Equals && left == right => Ok(true),
                    None => Err(format!(
                        "{} and {} cannot be compared: their types differ or have no order.",
                        shortened(&left.to_string()),
                        shortened(&right.to_string())
                    )),
                }
            }
            Condition::In { query, values } => {
                let query = scope.value(query)?;
                for value in values {
                    let value = scope.value(value)?;
                    if order(&query, &value).map_or(query == value, Ordering::is_eq) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Not(inner) => Ok(!inner.holds(scope)?),
            Condition::Or(inner) => {
                for one in inner {
                    if one.holds(scope)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

/// The order of two values of one type; numbers of all kinds are one type.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::expressions::Room;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn holds(condition: &Value) -> Result<bool, String> {
        let parsed = Condition::parse(condition, "C").map_err(|flaw| flaw.to_string())?;
        let parameters = BTreeMap::from([("N".to_owned(), json!(3))]);
        let empty = BTreeMap::new();
        let scope = Scope {
            parameters: &parameters,
            execution: &empty,
            properties: &empty,
            files: &empty,
            property_file: &|_, _| Err(String::new()),
            room: Room::default(),
        };
        parsed.holds(&scope)
    }

    #[test]
    fn comparisons_know_numbers_texts_and_truth_values() {
        let compare = |kind: &str, left: Value, right: Value| {
            holds(&json!({"Type": kind, "LeftValue": left, "RightValue": right}))
        };
        assert_eq!(compare("Equals", json!({"Get": "Parameters.N"}), json!(3.0)), Ok(true));
        assert_eq!(compare("GreaterThan", json!(0.9), json!(0.9)), Ok(false));
        assert_eq!(compare("GreaterThanOrEqualTo", json!(0.9), json!(0.9)), Ok(true));
        assert_eq!(compare("LessThan", json!("a"), json!("b")), Ok(true));
        assert_eq!(compare("LessThanOrEqualTo", json!(2), json!(1)), Ok(false));
        assert_eq!(
            compare("Equals", json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)),
            Ok(false)
        );
        assert!(compare("Equals", json!("3"), json!(3)).unwrap_err().contains("cannot be compared"));
        assert_eq!(compare("Equals", json!(true), json!(true)), Ok(true));
    }

    #[test]
    fn membership_negation_and_disjunction_nest() {
        let within = json!({"Type": "In", "QueryValue": {"Get": "Parameters.N"}, "Values": ["3", 3]});
        assert_eq!(holds(&within), Ok(true));
        assert_eq!(holds(&json!({"Type": "Not", "Condition": within.clone()})), Ok(false));
        let wrong = json!({"Type": "Equals", "LeftValue": 1, "RightValue": 2});
        let either =
            json!({"Type": "Or", "Conditions": [wrong.clone(), {"Type": "Not", "Condition": wrong}]});
        assert_eq!(holds(&either), Ok(true));
    }

    #[test]
    fn malformed_conditions_name_their_place() {
        for (condition, place) in [
            (json!({"LeftValue": 1}), "C.Type"),
            (json!({"Type": "Like"}), "C.Type"),
            (json!({"Type": "Equals", "LeftValue": 1}), "C.RightValue"),
            (json!({"Type": "Or", "Conditions": []}), "C.Conditions"),
            (
                json!({"Type": "Not", "Condition": {"Type": "In", "QueryValue": 1, "Values": 3}}),
                "C.Condition.Values",
            ),
            (json!({"Type": "Equals", "LeftValue": 1, "RightValue": 1, "Middle": 1}), "C.Middle"),
        ] {
            assert!(holds(&condition).unwrap_err().starts_with(place), "{condition}");
        }
    }
}
