//! What of a filter the database can answer: columns, links, tags, and the index of what users name.

use std::cmp::Ordering;

use store::links::Narrowing;
use store::properties::{PropertyTest, SeriesStatistic, SeriesTest};
use store::resources::ListQuery;

use super::super::kinds::Searchable;
use super::{Filter, Test, Wanted};
use crate::sagemaker::{experiments, kinds};

impl Filter {
    /// Has the database leave out rows for which the filter cannot hold.
    pub(super) fn narrow(&self, kind: &Searchable, query: &mut ListQuery) {
        let is = |property: &str| self.name == property;
        query.narrowed.extend(self.narrowing_of_named(kind));
        match &self.test {
            Test::Equals(wanted) => {
                let text = wanted.text.clone();
                let parent = kind.kind == kinds::TRIAL_COMPONENT;
                let narrowing = match self.name.as_str() {
                    name if name == kind.name => Some(Narrowing::Name(text)),
                    name if name == kind.arn => Some(Narrowing::Arn(text)),
                    "Parents.TrialName" if parent => {
                        Some(Narrowing::TargetsOf { relation: experiments::COMPONENTS, source: text })
                    }
                    "Parents.ExperimentName" if parent => Some(Narrowing::TargetsOfTargets {
                        first: experiments::TRIALS,
                        second: experiments::COMPONENTS,
                        source: text,
                    }),
                    name if Some(name) == kind.status => {
                        query.status = Some(text);
                        None
                    }
                    // A version has the tags of its group.
                    _ if kind.kind == kinds::MODEL_PACKAGE => None,
                    name => name
                        .strip_prefix("Tags.")
                        // These are the members of all tags.
                        .filter(|key| !matches!(*key, "" | "Key" | "Value"))
                        .map(|key| Narrowing::Tag { key: key.to_owned(), value: text }),
                };
                query.narrowed.extend(narrowing);
            }
            Test::Contains(text) if is(kind.name) => query.name_contains = Some(text.clone()),
            Test::Compare(orders, bound) if is("CreationTime") || is("LastModifiedTime") => {
                // A millisecond more than asked for on either side: the row itself is judged exactly.
                let (low, high) = ((bound * 1000.0).floor() as i64 - 1, (bound * 1000.0).ceil() as i64 + 1);
                let (after, before) = match is("CreationTime") {
                    true => (&mut query.created_after, &mut query.created_before),
                    false => (&mut query.modified_after, &mut query.modified_before),
                };
                if orders.contains(&Ordering::Greater) {
                    *after = Some(after.map_or(low, |known| known.max(low)));
                } else {
                    *before = Some(before.map_or(high, |known| known.min(high)));
                }
            }
            _ => {}
        }
    }

    /// What an index knows of parameters, hyperparameters, metrics and executions.
    fn narrowing_of_named(&self, kind: &Searchable) -> Option<Narrowing> {
        if kind.kind == kinds::PIPELINE_EXECUTION {
            let Test::Equals(Wanted { text, number }) = &self.test else { return None };
            let test = PropertyTest::Equals { text: text.clone(), number: *number };
            return match self.name.as_str() {
                "PipelineArn" => Some(Narrowing::ArnBelow(text.clone())),
                "PipelineExecutionDisplayName" => {
                    Some(Narrowing::Property { paths: vec![self.name.clone()], test })
                }
                _ => None,
            };
        }
        let (property, name) = self.name.split_once('.').filter(|(_, name)| !name.is_empty())?;
        let test = match &self.test {
            Test::Equals(wanted) => PropertyTest::Equals { text: wanted.text.clone(), number: wanted.number },
            Test::Compare(orders, bound) if orders.contains(&Ordering::Greater) => {
                PropertyTest::Between(*bound, f64::INFINITY)
            }
            Test::Compare(_, bound) => PropertyTest::Between(f64::NEG_INFINITY, *bound),
            Test::Exists | Test::Contains(_) | Test::In(_) => PropertyTest::Exists,
            Test::NotEquals(_) | Test::NotExists => return None,
        };
        match (kind.kind, property) {
            (kinds::TRAINING_JOB, "HyperParameters") => {
                Some(Narrowing::Property { paths: vec![self.name.clone()], test })
            }
            (kinds::TRIAL_COMPONENT, "Parameters") => {
                let whole =
                    [".NumberValue", ".StringValue"].iter().find_map(|end| self.name.strip_suffix(end));
                let paths = std::iter::once(&*self.name).chain(whole).map(str::to_owned).collect();
                Some(Narrowing::Property { paths, test })
            }
            (kinds::TRAINING_JOB, "Metrics") => {
                let members = ["MetricName", "Value", "Timestamp"];
                if members.contains(&name) {
                    return None;
                }
                let whole = self.name.rsplit_once('.').filter(|(_, member)| members.contains(member));
                // Members other than the value are not indexed.
                let is_value = whole.is_none_or(|(_, member)| member == "Value");
                let test = if is_value { test } else { PropertyTest::Exists };
                let paths = std::iter::once(&*self.name).chain(whole.map(|(path, _)| path));
                Some(Narrowing::Property { paths: paths.map(str::to_owned).collect(), test })
            }
            (kinds::TRIAL_COMPONENT, "Metrics") => series(name, &test).map(Narrowing::Series),
            _ => None,
        }
    }
}

/// The series that a path below `Metrics` of a component may mean, as their summaries show them.
fn series(path: &str, test: &PropertyTest) -> Option<Vec<SeriesTest>> {
    let statistics = |member: &str| match member {
        "Last" => Some(Some(SeriesStatistic::Last)),
        "Max" => Some(Some(SeriesStatistic::Maximum)),
        "Min" => Some(Some(SeriesStatistic::Minimum)),
        "Avg" => Some(Some(SeriesStatistic::Mean)),
        "Count" => Some(Some(SeriesStatistic::Count)),
        "StdDev" | "TimeStamp" | "MetricName" | "SourceArn" => Some(None),
        _ => None,
    };
    // A member alone is that of any series.
    if statistics(path).is_some() {
        return None;
    }
    let range = match test {
        PropertyTest::Equals { number: Some(number), .. } => Some((*number, *number)),
        PropertyTest::Between(least, most) => Some((*least, *most)),
        PropertyTest::Equals { number: None, .. } | PropertyTest::Exists => None,
    };
    let of = |name: &str, statistic: Option<SeriesStatistic>| SeriesTest {
        name: name.to_owned(),
        between: statistic.zip(range).map(|(statistic, (least, most))| (statistic, least, most)),
    };
    let mut tests = vec![of(path, Some(SeriesStatistic::Last))];
    if let Some((name, member)) = path.rsplit_once('.')
        && let Some(statistic) = statistics(member)
    {
        tests.push(of(name, statistic));
    }
    Some(tests)
}
