//! Rows of LIBSVM: `[label] column:value ...`. Labels and groups are not looked at.

use super::{RowRules, next_line};
use crate::engine::refusal::RequestError;

pub(crate) struct LibsvmRows<'a> {
    rest: Option<&'a str>,
    rules: RowRules,
}

impl<'a> LibsvmRows<'a> {
    pub(super) fn new(text: &'a str, rules: RowRules) -> Self {
        Self { rest: Some(text), rules }
    }

    pub(super) fn read(&mut self, row: &mut [f64]) -> Result<bool, RequestError> {
        let Some(line) = next_line(&mut self.rest) else { return Ok(false) };
        row.fill(self.rules.absent);
        for item in line.split_ascii_whitespace() {
            let Some((column, value)) = item.split_once(':').filter(|(column, _)| *column != "qid") else {
                continue;
            };
            let unreadable = || {
                let shown: String = item.chars().take(40).collect();
                RequestError::unreadable("libsvm", &format!("{shown:?} is not column:value"))
            };
            let column: usize = column.parse().map_err(|_| unreadable())?;
            let value = value.parse().map_err(|_| unreadable())?;
            let Some(place) = row.get_mut(column) else {
                return Err(RequestError::unfit(&format!(
                    "Feature size of libsvm inference data {} is larger than feature size of trained model {}.",
                    column.saturating_add(1),
                    self.rules.features
                )));
            };
            *place = self.rules.accept(value, "libsvm")?;
        }
        Ok(true)
    }
}
