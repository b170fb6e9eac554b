//! Search expressions: filters, nested filters and sub-expressions, joined by And or Or.

mod narrowing;

use std::cmp::Ordering;

use serde_json::Value;
use store::resources::ListQuery;

use super::kinds::Searchable;
use crate::sagemaker::entities;
use crate::{Error, Result};

/// Deepest nesting of sub-expressions; requests are small, answers must be quick.
const MOST_DEPTH: usize = 20;

/// A search expression that was checked.
#[derive(Debug, Default)]
pub(super) struct Expression {
    filters: Vec<Filter>,
    nested: Vec<Nested>,
    subs: Vec<Expression>,
    is_any: bool,
}

#[derive(Debug)]
struct Nested {
    property: String,
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    name: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Exists,
    NotExists,
    Equals(Wanted),
    NotEquals(Wanted),
    Contains(String),
    In(Vec<Wanted>),
    /// Holds when the comparison of the value with the number is one of these.
    Compare(&'static [Ordering], f64),
}

#[derive(Debug)]
struct Wanted {
    text: String,
    number: Option<f64>,
}

impl Wanted {
    fn of(text: &str) -> Wanted {
        Wanted { text: text.to_owned(), number: number(text) }
    }

    fn is(&self, found: &Value) -> bool {
        match found {
            Value::Number(found) => self.number.is_some() && found.as_f64() == self.number,
            Value::String(found) => *found == self.text,
            Value::Bool(found) => self.text.eq_ignore_ascii_case(if *found { "true" } else { "false" }),
            _ => false,
        }
    }
}

impl Expression {
    /// Reads an expression of a request.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the filter that makes no sense.
    pub(super) fn parse(value: &Value) -> Result<Expression> {
        Expression::parse_at(value, 0)
    }

    fn parse_at(value: &Value, depth: usize) -> Result<Expression> {
        if depth > MOST_DEPTH {
            return Err(Error::Validation(format!(
                "SearchExpression: SubExpressions nest more than {MOST_DEPTH} deep."
            )));
        }
        let list = |name: &str| value[name].as_array().into_iter().flatten();
        Ok(Expression {
            filters: list("Filters").map(Filter::parse).collect::<Result<_>>()?,
            nested: list("NestedFilters").map(Nested::parse).collect::<Result<_>>()?,
            subs: list("SubExpressions")
                .map(|sub| Expression::parse_at(sub, depth + 1))
                .collect::<Result<_>>()?,
            is_any: value["Operator"] == "Or",
        })
    }

    /// Adds the properties of the top that filters look at.
    pub(super) fn properties(&self, into: &mut Vec<String>) {
        let names = self.filters.iter().map(|filter| &filter.name);
        for name in names.chain(self.nested.iter().map(|nested| &nested.property)) {
            into.push(top(name).to_owned());
        }
        self.subs.iter().for_each(|sub| sub.properties(into));
    }

    /// Whether it holds for a row.
    pub(super) fn holds(&self, row: &Value) -> bool {
        let mut answers = self
            .filters
            .iter()
            .map(|filter| filter.holds(row))
            .chain(self.nested.iter().map(|nested| nested.holds(row)))
            .chain(self.subs.iter().map(|sub| sub.holds(row)));
        if self.is_any && !(self.filters.is_empty() && self.nested.is_empty() && self.subs.is_empty()) {
            answers.any(|answer| answer)
        } else {
            answers.all(|answer| answer)
        }
    }

    /// Has the database leave out rows for which it cannot hold.
    pub(super) fn narrow(&self, kind: &Searchable, query: &mut ListQuery) {
        if self.is_any {
            if let ([], [], [only]) = (&*self.filters, &*self.nested, &*self.subs) {
                only.narrow(kind, query);
            }
            return;
        }
        for filter in &self.filters {
            filter.narrow(kind, query);
        }
        for sub in &self.subs {
            sub.narrow(kind, query);
        }
    }
}

impl Nested {
    fn parse(value: &Value) -> Result<Nested> {
        let property = entities::required(value, "NestedPropertyName").to_owned();
        let mut filters = Vec::new();
        for filter in value["Filters"].as_array().into_iter().flatten() {
            let mut filter = Filter::parse(filter)?;
            if let Some(rest) = filter.name.strip_prefix(&property).and_then(|rest| rest.strip_prefix('.')) {
                filter.name = rest.to_owned();
            }
            filters.push(filter);
        }
        Ok(Nested { property, filters })
    }

    /// All filters must hold for one and the same element of the list.
    fn holds(&self, row: &Value) -> bool {
        let mut elements = Vec::new();
        for found in values(row, &self.property) {
            match found {
                Value::Array(list) => elements.extend(list),
                one => elements.push(one),
            }
        }
        elements.into_iter().any(|element| self.filters.iter().all(|filter| filter.holds(element)))
    }
}

impl Filter {
    fn parse(value: &Value) -> Result<Filter> {
        let name = entities::required(value, "Name").to_owned();
        let operator = entities::text(value, "Operator").unwrap_or("Equals");
        let wanted = entities::text(value, "Value");
        let need =
            || wanted.ok_or_else(|| Error::Validation(format!("Filter {name}: {operator} needs a Value.")));
        let test = match operator {
            "Exists" | "NotExists" if wanted.is_some() => {
                return Err(Error::Validation(format!("Filter {name}: {operator} takes no Value.")));
            }
            "Exists" => Test::Exists,
            "NotExists" => Test::NotExists,
            "Equals" => Test::Equals(Wanted::of(need()?)),
            "NotEquals" => Test::NotEquals(Wanted::of(need()?)),
            "Contains" => Test::Contains(need()?.to_owned()),
            "In" => Test::In(need()?.split(',').map(|one| Wanted::of(one.trim())).collect()),
            other => {
                let orders: &[Ordering] = match other {
                    "GreaterThan" => &[Ordering::Greater],
                    "GreaterThanOrEqualTo" => &[Ordering::Greater, Ordering::Equal],
                    "LessThan" => &[Ordering::Less],
                    "LessThanOrEqualTo" => &[Ordering::Less, Ordering::Equal],
                    _ => {
                        return Err(Error::Validation(format!(
                            "Filter {name}: there is no operator {other}."
                        )));
                    }
                };
                let bound = number(need()?).ok_or_else(|| {
                    Error::Validation(format!(
                        "Filter {name}: the Value of {other} must be a number or a time such as 2026-01-31T12:00:00Z."
                    ))
                })?;
                Test::Compare(orders, bound)
            }
        };
        Ok(Filter { name, test })
    }

    /// Of a property with many values, one must do; `NotEquals` and `NotExists` speak of all.
    fn holds(&self, row: &Value) -> bool {
        let found = values(row, &self.name);
        let any = |test: &dyn Fn(&Value) -> bool| found.iter().any(|value| test(value));
        match &self.test {
            Test::Exists => !found.is_empty(),
            Test::NotExists => found.is_empty(),
            Test::Equals(wanted) => any(&|value| wanted.is(value)),
            Test::NotEquals(wanted) => !any(&|value| wanted.is(value)),
            Test::In(wanted) => any(&|value| wanted.iter().any(|one| one.is(value))),
            Test::Contains(wanted) => any(&|value| match value {
                Value::String(text) => text.contains(wanted),
                Value::Array(list) => {
                    list.iter().any(|one| one.as_str().is_some_and(|text| text.contains(wanted)))
                }
                Value::Null | Value::Object(_) => false,
                other => other.to_string().contains(wanted),
            }),
            Test::Compare(orders, bound) => any(&|value| {
                let found = match value {
                    Value::String(text) => number(text),
                    other => other.as_f64(),
                };
                found.and_then(|found| found.partial_cmp(bound)).is_some_and(|order| orders.contains(&order))
            }),
        }
    }
}

/// The property of the top that a path begins with.
pub(super) fn top(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// A number, or a time such as `2026-01-31T12:00:00Z` as seconds since 1970.
fn number(text: &str) -> Option<f64> {
    use time::format_description::well_known::Rfc3339;
    let parsed = || time::OffsetDateTime::parse(text, &Rfc3339).ok();
    text.parse().ok().or_else(|| parsed().map(|at| at.unix_timestamp_nanos() as f64 / 1e9))
}

/// The values of a property by its path. Lists are looked through; `Tags.KEY`, `Metrics.NAME` and the entries of maps are found by
/// their names, which may have dots in them; a parameter is its value.
pub(super) fn values<'a>(row: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    collect(row, path, &mut found);
    // The metrics of a training job are called by another name there.
    if found.is_empty() && path.starts_with("Metrics.") && row.get("FinalMetricDataList").is_some() {
        collect(&row["FinalMetricDataList"], &path["Metrics.".len()..], &mut found);
    }
    // The description of a model lies below that name.
    if found.is_empty() && row.get("Model").is_some() {
        collect(&row["Model"], path, &mut found);
    }
    found
}

fn collect<'a>(value: &'a Value, path: &str, found: &mut Vec<&'a Value>) {
    if path.is_empty() {
        return match value {
            Value::Null => {}
            Value::Object(members) => match members.get("NumberValue").or_else(|| members.get("StringValue"))
            {
                Some(parameter) => found.push(parameter),
                None => found.push(value),
            },
            Value::Array(list) if list.is_empty() => {}
            _ => found.push(value),
        };
    }
    match value {
        Value::Object(members) => {
            if let Some(member) = members.get(path) {
                return collect(member, "", found);
            }
            for (at, _) in path.match_indices('.') {
                if let Some(member) = members.get(&path[..at]) {
                    collect(member, &path[at + 1..], found);
                }
            }
        }
        Value::Array(list) => {
            for element in list {
                match entry(element, path) {
                    Some(value) => found.extend(value),
                    None => collect(element, path, found),
                }
            }
        }
        _ => {}
    }
}

/// What an element of a list of named entries says to a path that begins with a name: `None` when it is no such element.
fn entry<'a>(element: &'a Value, path: &str) -> Option<Option<&'a Value>> {
    if let (Some(key), Some(value)) = (element["Key"].as_str(), element.get("Value")) {
        return match path {
            "Key" | "Value" => None,
            path => Some((key == path).then_some(value)),
        };
    }
    let name = element["MetricName"].as_str()?;
    if element.get(path).is_some() {
        return None;
    }
    if name == path {
        return Some(element.get("Value").or_else(|| element.get("Last")));
    }
    let rest = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    Some(rest.and_then(|statistic| element.get(statistic)))
}

/// The place of a row in an order: rows without the property first, numbers before texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SortKey {
    Missing,
    Number(f64),
    Text(String),
}

impl SortKey {
    /// Compares two places.
    pub(super) fn cmp(&self, other: &SortKey) -> Ordering {
        let rank = |key: &SortKey| match key {
            SortKey::Missing => 0,
            SortKey::Number(_) => 1,
            SortKey::Text(_) => 2,
        };
        match (self, other) {
            (SortKey::Number(left), SortKey::Number(right)) => left.total_cmp(right),
            (SortKey::Text(left), SortKey::Text(right)) => left.cmp(right),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

/// The place of a row in the order of a property. Texts that are numbers, as hyperparameters are, are ordered as numbers.
pub(super) fn sort_key(row: &Value, property: &str) -> SortKey {
    match values(row, property).first() {
        None => SortKey::Missing,
        Some(Value::Number(number)) => SortKey::Number(number.as_f64().unwrap_or_default()),
        Some(Value::String(text)) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => SortKey::Number(number),
            _ => SortKey::Text(text.clone()),
        },
        Some(other) => SortKey::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row() -> Value {
        json!({
            "TrainingJobName": "job-7", "TrainingJobStatus": "Completed", "CreationTime": 1_700_000_000.5,
            "HyperParameters": {"lr": "0.1", "a.b": "x"}, "Tags": [{"Key": "team.x", "Value": "a"}],
            "FinalMetricDataList": [{"MetricName": "acc", "Value": 0.9}],
            "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": "s3://b/x"}}}, {"ChannelName": "c"}],
            "Parents": [{"TrialName": "t1"}, {"TrialName": "t2"}],
        })
    }

    fn matches(expression: &Value) -> bool {
        Expression::parse(expression).unwrap().holds(&row())
    }

    #[test]
    fn operators_compare_text_numbers_and_times() {
        let one = |name: &str, operator: &str, value: &str| {
            matches(&json!({"Filters": [{"Name": name, "Operator": operator, "Value": value}]}))
        };
        assert!(one("TrainingJobName", "Contains", "job"));
        assert!(one("TrainingJobStatus", "In", "Failed,Completed"));
        assert!(!one("TrainingJobStatus", "NotEquals", "Completed"));
        assert!(one("Metrics.acc", "GreaterThan", "0.5"));
        assert!(
            !one("Metrics.acc", "GreaterThan", "0.9") && one("Metrics.acc", "GreaterThanOrEqualTo", "0.9")
        );
        assert!(!one("Metrics.loss", "GreaterThan", "0.5"));
        assert!(one("HyperParameters.lr", "Equals", "0.1") && one("HyperParameters.a.b", "Equals", "x"));
        assert!(one("Tags.team.x", "Equals", "a"));
        assert!(one("Parents.TrialName", "Equals", "t2") && !one("Parents.TrialName", "NotEquals", "t2"));
        assert!(one("CreationTime", "LessThan", "2030-01-01T00:00:00Z"));
        assert!(!one("CreationTime", "GreaterThan", "2030-01-01T00:00:00Z"));
    }

    #[test]
    fn metrics_and_parameters_of_components_are_found_by_name() {
        let row = json!({
            "Metrics": [{"MetricName": "val:loss", "Max": 3.0, "Last": 1.0}],
            "Parameters": {"lr": {"NumberValue": 0.1}, "kind": {"StringValue": "a"}},
        });
        let holds = |name: &str, operator: &str, value: &str| {
            let filter = json!({"Filters": [{"Name": name, "Operator": operator, "Value": value}]});
            Expression::parse(&filter).unwrap().holds(&row)
        };
        assert!(holds("Metrics.val:loss.Max", "Equals", "3") && holds("Metrics.val:loss", "LessThan", "2"));
        assert!(
            holds("Parameters.lr", "LessThanOrEqualTo", "0.1")
                && holds("Parameters.lr.NumberValue", "LessThan", "1")
        );
        assert!(holds("Parameters.kind", "Equals", "a"));
        assert_eq!(sort_key(&row, "Metrics.val:loss.Max"), SortKey::Number(3.0));
    }

    #[test]
    fn expressions_nest() {
        let yes = json!({"Name": "TrainingJobName", "Operator": "Exists"});
        let no = json!({"Name": "FailureReason", "Operator": "Exists"});
        assert!(!matches(&json!({"Filters": [yes, no]})));
        assert!(matches(&json!({"Filters": [yes, no], "Operator": "Or"})));
        assert!(matches(
            &json!({"SubExpressions": [{"Filters": [no], "SubExpressions": [{"Filters": [yes]}], "Operator": "Or"}]})
        ));
        let nested = |value: &str| {
            json!({"NestedFilters": [{"NestedPropertyName": "InputDataConfig", "Filters": [
            {"Name": "InputDataConfig.DataSource.S3DataSource.S3Uri", "Operator": "Equals", "Value": value}]}]})
        };
        assert!(matches(&nested("s3://b/x")));
        assert!(!matches(&nested("s3://b/y")));
    }

    #[test]
    fn nonsense_is_named() {
        let refused =
            |filter: Value| Expression::parse(&json!({"Filters": [filter]})).unwrap_err().to_string();
        assert!(
            refused(json!({"Name": "A", "Operator": "LessThan", "Value": "x"})).contains("number or a time")
        );
        assert!(refused(json!({"Name": "A", "Operator": "Equals"})).contains("needs a Value"));
        assert!(refused(json!({"Name": "A", "Operator": "Exists", "Value": "x"})).contains("takes no Value"));
        let mut deep = json!({"Filters": [{"Name": "A", "Operator": "Exists"}]});
        for _ in 0..30 {
            deep = json!({"SubExpressions": [deep]});
        }
        assert!(Expression::parse(&deep).unwrap_err().to_string().contains("deep"));
    }
}
