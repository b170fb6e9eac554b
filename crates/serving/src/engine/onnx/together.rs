//! Several requests in one run of a graph: their rows are put together, and the outputs divided.

use std::collections::BTreeMap;
use std::ops::Range;

use super::answer::AnswerType;
use super::answering::{Answering, Asked};
use super::cells::Array;
use super::outputs::{Output, Values};
use crate::engine::refusal::RequestError;

/// The body of an answer, or why there is none.
pub(crate) type Answered = Result<(AnswerType, Vec<u8>), RequestError>;

impl Answering {
    /// The answers to several requests in their order. Each is what it would be alone: those that do not fit together, or whose common run
    /// fails, are run alone.
    pub(crate) fn answer_together(&self, asked: &[Asked<'_>]) -> Vec<Answered> {
        let mut answers: Vec<Option<Answered>> = asked.iter().map(|_| None).collect();
        let mut prepared = BTreeMap::new();
        // Those whose rows are alike, by what is alike in them.
        let mut groups: BTreeMap<Vec<Vec<usize>>, Vec<usize>> = BTreeMap::new();
        for (number, one) in asked.iter().enumerate() {
            match self.prepare(one) {
                Err(error) => answers[number] = Some(Err(error)),
                Ok(one) => {
                    if rows(&one.arrays).is_some() {
                        let widths = one.arrays.iter().map(|array| array.shape[1..].to_vec()).collect();
                        groups.entry(widths).or_default().push(number);
                    }
                    prepared.insert(number, one);
                }
            }
        }
        for group in groups.values().filter(|group| group.len() > 1) {
            let members: Vec<_> = group.iter().filter_map(|number| prepared.get(number)).collect();
            let counts: Vec<usize> = members.iter().filter_map(|one| rows(&one.arrays)).collect();
            let arrays = joined(members.iter().map(|one| one.arrays.as_slice()));
            let limit = asked[group[0]].time_limit;
            let divided = self.run(&arrays, limit).ok().and_then(|outputs| divided(&outputs, &counts));
            for (number, outputs) in group.iter().zip(divided.into_iter().flatten()) {
                if let Some(one) = prepared.remove(number) {
                    answers[*number] = Some(self.finish(outputs, one.answer_type));
                }
            }
        }
        for (number, one) in prepared {
            let outputs = self.run(&one.arrays, asked[number].time_limit);
            answers[number] = Some(outputs.and_then(|outputs| self.finish(outputs, one.answer_type)));
        }
        answers.into_iter().flatten().collect()
    }
}

/// How many rows a request has, where each of its arrays has as many.
fn rows(arrays: &[Array<'_>]) -> Option<usize> {
    let count = *arrays.first()?.shape.first()?;
    let alike = |array: &Array<'_>| array.shape.first() == Some(&count) && !array.cells.is_empty();
    (count > 0 && arrays.iter().all(alike)).then_some(count)
}

/// The arrays of requests whose rows are alike, one after the other.
fn joined<'a>(requests: impl Iterator<Item = &'a [Array<'a>]>) -> Vec<Array<'a>> {
    let mut whole: Vec<Array<'a>> = Vec::new();
    for arrays in requests {
        if whole.is_empty() {
            whole = arrays.to_vec();
            continue;
        }
        for (whole, array) in whole.iter_mut().zip(arrays) {
            whole.shape[0] += array.shape[0];
            whole.cells.extend_from_slice(&array.cells);
        }
    }
    whole
}

/// The outputs of each request, or nothing where they do not have a row for each row.
fn divided(outputs: &[Output], counts: &[usize]) -> Option<Vec<Vec<Output>>> {
    let total: usize = counts.iter().sum();
    if outputs.iter().any(|output| output.shape.first() != Some(&total)) {
        return None;
    }
    let mut start = 0;
    let of = |count: &usize| -> Vec<Output> {
        let range = start..start + count;
        start = range.end;
        outputs.iter().map(|output| part(output, &range)).collect()
    };
    Some(counts.iter().map(of).collect())
}

fn part(output: &Output, rows: &Range<usize>) -> Output {
    let width = output.width();
    let range = rows.start * width..rows.end * width;
    let values = match &output.values {
        Values::Singles(values) => Values::Singles(values[range].to_vec()),
        Values::Doubles(values) => Values::Doubles(values[range].to_vec()),
        Values::Integers(values) => Values::Integers(values[range].to_vec()),
        Values::Truths(values) => Values::Truths(values[range].to_vec()),
        Values::Texts(values) => Values::Texts(values[range].to_vec()),
        Values::Maps(values) => Values::Maps(values[range].to_vec()),
    };
    let mut shape = output.shape.clone();
    shape[0] = rows.len();
    Output { name: output.name.clone(), shape, values }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Cell;
    use super::*;

    fn array(shape: &[usize], first: i64) -> Array<'static> {
        let count = i64::try_from(shape.iter().product::<usize>()).unwrap();
        Array { shape: shape.to_vec(), cells: (first..first + count).map(Cell::Integer).collect() }
    }

    #[test]
    fn rows_are_put_one_after_the_other() {
        let requests = [vec![array(&[1, 2], 0), array(&[1], 9)], vec![array(&[2, 2], 2), array(&[2], 10)]];
        let whole = joined(requests.iter().map(Vec::as_slice));
        assert_eq!(whole, [array(&[3, 2], 0), array(&[3], 9)]);
        assert_eq!(rows(&requests[1]), Some(2));
        assert_eq!(rows(&[array(&[2, 2], 0), array(&[1], 0)]), None);
        assert_eq!((rows(&[]), rows(&[array(&[], 0)]), rows(&[array(&[0, 2], 0)])), (None, None, None));
    }

    #[test]
    fn outputs_are_divided_by_their_rows() {
        let output = |shape: &[usize], values| Output { name: "y".into(), shape: shape.to_vec(), values };
        let whole = [
            output(&[3, 2], Values::Singles(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            output(&[3], Values::Texts(vec!["a".into(), "b".into(), "c".into()])),
        ];
        let parts = divided(&whole, &[2, 1]).unwrap();
        assert_eq!(parts[0][0], output(&[2, 2], Values::Singles(vec![0.0, 1.0, 2.0, 3.0])));
        assert_eq!(parts[1][0], output(&[1, 2], Values::Singles(vec![4.0, 5.0])));
        assert_eq!(parts[1][1], output(&[1], Values::Texts(vec!["c".into()])));
        assert_eq!(divided(&whole, &[2, 2]), None);
        assert_eq!(divided(&[output(&[], Values::Integers(vec![1]))], &[1]), None);
    }
}
