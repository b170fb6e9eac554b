//! Search: filters over descriptions. Training jobs for now; other resources follow with their kinds.

use api::sagemaker::{Search, SearchInput, SearchOutput, SearchRecord};
use serde_json::{Value, json};
use store::resources::{ListQuery, SortBy};

use super::kinds::TRAINING_JOB;
use super::{fields, training_jobs};
use crate::training::record::TrainingRecord;
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<Search, _, _, _>(search);
}

const HONOURED: &[&str] =
    &["Resource", "SearchExpression.**", "SortBy", "SortOrder", "NextToken", "MaxResults"];

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: usize = 100;

/// Rows that are read from the database at a time.
const BATCH: usize = 500;

async fn search(cx: Cx, input: SearchInput) -> Result<SearchOutput> {
    fields::check(&cx.input, HONOURED)?;
    if cx.input["Resource"] != "TrainingJob" {
        return Err(Error::field(&format!("Search of Resource {}", cx.input["Resource"])));
    }
    let expression = &cx.input["SearchExpression"];
    let mut matching = Vec::new();
    let mut query =
        ListQuery { sort_by: SortBy::CreatedAt, descending: true, limit: BATCH, ..Default::default() };
    loop {
        let (account, region, asked) = (cx.caller.account.clone(), cx.caller.region.clone(), query.clone());
        let page = cx.state.database.read(move |session| {
            let page = session.list_resources(&account, &region, TRAINING_JOB, &asked)?;
            let mut rows = Vec::new();
            for resource in page.resources {
                let tags = session.tags(&resource.arn)?;
                rows.push((resource, tags));
            }
            Ok((rows, page.next_token))
        });
        let (rows, next_token) = page.await?;
        for (resource, tags) in rows {
            let record = TrainingRecord::read(&resource.document)?;
            let mut shown = resource.spec.clone();
            if let (Value::Object(shown), Value::Object(more)) =
                (&mut shown, training_jobs::description(&resource, &record))
            {
                shown.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
                let tags: Vec<Value> =
                    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
                shown.insert("Tags".into(), tags.into());
            }
            if expression.is_null() || holds(expression, &shown)? {
                matching.push(shown);
            }
        }
        match next_token {
            Some(token) => query.next_token = Some(token),
            None => break,
        }
    }
    sort(&mut matching, &cx.input);
    let start = match &input.next_token {
        None => 0,
        Some(token) => token
            .strip_prefix("row/")
            .and_then(|row| row.parse::<usize>().ok())
            .ok_or_else(|| Error::Validation("The pagination token NextToken is not valid.".into()))?,
    };
    let rows = input.max_results.map_or(DEFAULT_ROWS, |rows| rows.max(1) as usize);
    let total = matching.len();
    let page: Vec<Value> =
        matching.into_iter().skip(start).take(rows).map(|job| json!({"TrainingJob": job})).collect();
    let results: Vec<SearchRecord> = page
        .into_iter()
        .map(serde_json::from_value)
        .collect::<std::result::Result<_, _>>()
        .map_err(Error::internal)?;
    let end = start + results.len();
    Ok(SearchOutput {
        results: Some(results),
        next_token: (end < total).then(|| format!("row/{end}")),
        ..Default::default()
    })
}

fn sort(rows: &mut [Value], input: &Value) {
    let column = input["SortBy"].as_str().unwrap_or("LastModifiedTime");
    rows.sort_by(|left, right| {
        let (left, right) = (property(left, column), property(right, column));
        match (
            left.as_ref().and_then(|value| value.as_f64()),
            right.as_ref().and_then(|value| value.as_f64()),
        ) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            _ => left.map(text).cmp(&right.map(text)),
        }
    });
    if input["SortOrder"].as_str().unwrap_or("Descending") == "Descending" {
        rows.reverse();
    }
}

/// Whether an expression holds: filters, nested filters and sub-expressions, joined by And (default) or Or.
fn holds(expression: &Value, row: &Value) -> Result<bool> {
    let none = Vec::new();
    let list = |name: &str| expression[name].as_array().unwrap_or(&none).clone();
    let mut answers = Vec::new();
    for filter in list("Filters") {
        answers.push(filter_holds(&filter, row)?);
    }
    for nested in list("NestedFilters") {
        answers.push(nested_holds(&nested, row)?);
    }
    for sub_expression in list("SubExpressions") {
        answers.push(holds(&sub_expression, row)?);
    }
    Ok(if expression["Operator"] == "Or" {
        answers.into_iter().any(|answer| answer)
    } else {
        answers.into_iter().all(|answer| answer)
    })
}

/// All filters of a nested filter must hold for one and the same element of the list.
fn nested_holds(nested: &Value, row: &Value) -> Result<bool> {
    let name = nested["NestedPropertyName"].as_str().unwrap_or_default();
    let Some(Value::Array(elements)) = property(row, name) else { return Ok(false) };
    let none = Vec::new();
    let filters = nested["Filters"].as_array().unwrap_or(&none);
    for element in &elements {
        let mut all = true;
        for filter in filters {
            let mut inner = filter.clone();
            let full = filter["Name"].as_str().unwrap_or_default();
            let relative = full.strip_prefix(name).map_or(full, |rest| rest.trim_start_matches('.'));
            inner["Name"] = relative.into();
            all &= filter_holds(&inner, element)?;
        }
        if all {
            return Ok(true);
        }
    }
    Ok(false)
}

fn filter_holds(filter: &Value, row: &Value) -> Result<bool> {
    let name = filter["Name"].as_str().unwrap_or_default();
    let operator = filter["Operator"].as_str().unwrap_or("Equals");
    let wanted = filter["Value"].as_str();
    let found = property(row, name);
    let need =
        || wanted.ok_or_else(|| Error::Validation(format!("Filter {name}: {operator} needs a Value.")));
    Ok(match operator {
        "Exists" => found.is_some(),
        "NotExists" => found.is_none(),
        "Equals" => equals(found.as_ref(), need()?),
        "NotEquals" => !equals(found.as_ref(), need()?),
        "Contains" => {
            let wanted = need()?;
            found.is_some_and(|value| text(value).contains(wanted))
        }
        "In" => {
            let wanted = need()?;
            wanted.split(',').any(|one| equals(found.as_ref(), one.trim()))
        }
        "GreaterThan" | "GreaterThanOrEqualTo" | "LessThan" | "LessThanOrEqualTo" => {
            let wanted = number(need()?).ok_or_else(|| {
                Error::Validation(format!(
                    "Filter {name}: the Value of {operator} must be a number or a time."
                ))
            })?;
            let Some(found) = found.as_ref().and_then(|value| match value {
                Value::String(text) => number(text),
                other => other.as_f64(),
            }) else {
                return Ok(false);
            };
            match operator {
                "GreaterThan" => found > wanted,
                "GreaterThanOrEqualTo" => found >= wanted,
                "LessThan" => found < wanted,
                _ => found <= wanted,
            }
        }
        other => return Err(Error::Validation(format!("Filter {name}: there is no operator {other}."))),
    })
}

fn equals(found: Option<&Value>, wanted: &str) -> bool {
    match found {
        None => false,
        Some(Value::Number(found)) => number(wanted).is_some_and(|wanted| found.as_f64() == Some(wanted)),
        Some(value) => text(value.clone()) == wanted,
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A number, or a time such as `2026-01-31T12:00:00Z` as seconds since 1970.
fn number(text: &str) -> Option<f64> {
    use time::format_description::well_known::Rfc3339;
    let parsed = || time::OffsetDateTime::parse(text, &Rfc3339).ok();
    text.parse().ok().or_else(|| parsed().map(|at| at.unix_timestamp_nanos() as f64 / 1e9))
}

/// A property by its path. `Tags.KEY`, `Metrics.NAME` and `HyperParameters.NAME` name entries, all else members.
fn property(row: &Value, path: &str) -> Option<Value> {
    if let Some(name) = path.strip_prefix("Tags.") {
        let tags = row["Tags"].as_array()?;
        return tags.iter().find(|tag| tag["Key"] == name).map(|tag| tag["Value"].clone());
    }
    if let Some(name) = path.strip_prefix("Metrics.") {
        let metrics = row["FinalMetricDataList"].as_array()?;
        return metrics
            .iter()
            .find(|metric| metric["MetricName"] == name)
            .map(|metric| metric["Value"].clone());
    }
    if let Some(name) = path.strip_prefix("HyperParameters.") {
        return row["HyperParameters"].get(name).cloned();
    }
    let mut at = row;
    for step in path.split('.') {
        at = at.get(step)?;
    }
    Some(at.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Value {
        json!({
            "TrainingJobName": "job-7", "TrainingJobStatus": "Completed", "CreationTime": 1_700_000_000.5,
            "HyperParameters": {"lr": "0.1"}, "Tags": [{"Key": "team", "Value": "a"}],
            "FinalMetricDataList": [{"MetricName": "acc", "Value": 0.9}],
            "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": "s3://b/x"}}}, {"ChannelName": "c"}],
        })
    }

    fn matches(expression: &Value) -> bool {
        holds(expression, &row()).unwrap()
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
        assert!(!one("Metrics.loss", "GreaterThan", "0.5"));
        assert!(one("HyperParameters.lr", "Equals", "0.1"));
        assert!(one("Tags.team", "Equals", "a"));
        assert!(one("CreationTime", "LessThan", "2030-01-01T00:00:00Z"));
        assert!(!one("CreationTime", "GreaterThan", "2030-01-01T00:00:00Z"));
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
}
