//! Metrics that users read out of their logs with regular expressions.

use regex::{Regex, RegexBuilder};

/// Largest compiled expression, in bytes: user input must not take the server's memory.
const EXPRESSION_BYTES: usize = 1 << 20;

/// Longest part of a line that is searched, in bytes.
const LINE_BYTES: usize = 64 * 1024;

fn compile(expression: &str) -> Result<Regex, String> {
    // Matching is linear in the line; Python-only syntax (look-around, back-references) does not compile.
    RegexBuilder::new(expression)
        .size_limit(EXPRESSION_BYTES)
        .build()
        .map_err(|error| format!("the Regex {expression:?} cannot be used: {error}"))
}

/// Checks one expression.
///
/// # Errors
/// A sentence that names the expression.
pub fn check_metric_expression(expression: &str) -> Result<(), String> {
    compile(expression).map(|_| ())
}

struct Definition {
    name: String,
    expression: Regex,
    last: Option<(f64, i64)>,
}

/// Collects the last value of each metric.
pub struct MetricScraper {
    definitions: Vec<Definition>,
}

impl MetricScraper {
    /// A scraper for (name, expression) pairs.
    ///
    /// # Errors
    /// A sentence that names the expression that cannot be used.
    pub fn new(definitions: &[(String, String)]) -> Result<MetricScraper, String> {
        let compiled = definitions.iter().map(|(name, expression)| {
            Ok(Definition { name: name.clone(), expression: compile(expression)?, last: None })
        });
        Ok(MetricScraper { definitions: compiled.collect::<Result<_, String>>()? })
    }

    /// Looks at one line of the log; the first group of a match, or the whole of it, is the value.
    pub fn feed(&mut self, at_ms: i64, line: &str) {
        let mut end = line.len().min(LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        for definition in &mut self.definitions {
            for captures in definition.expression.captures_iter(&line[..end]) {
                let text = captures.get(1).or_else(|| captures.get(0)).map_or("", |group| group.as_str());
                if let Ok(value) = text.trim().parse::<f64>()
                    && value.is_finite()
                {
                    definition.last = Some((value, at_ms));
                }
            }
        }
    }

    /// Name, last value and its time, as [`MetricScraper::feed`] was told it, of each metric that was seen.
    pub fn latest(&self) -> impl Iterator<Item = (&str, f64, i64)> {
        self.definitions.iter().filter_map(|one| one.last.map(|(value, at)| (one.name.as_str(), value, at)))
    }

    /// Name, last value and its time (milliseconds since 1970) of each metric that was seen.
    pub fn final_values(&self) -> Vec<(String, f64, i64)> {
        let seen = self.definitions.iter();
        seen.filter_map(|one| one.last.map(|(value, at_ms)| (one.name.clone(), value, at_ms))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_wins_and_bombs_do_not_compile() {
        let definitions =
            [("loss".to_owned(), "loss=([0-9.]+|nan)".to_owned()), ("none".into(), "x=(.*)".into())];
        let mut scraper = MetricScraper::new(&definitions).unwrap();
        scraper.feed(1, "loss=0.5 loss=0.4");
        scraper.feed(2, "loss=nan");
        scraper.feed(3, "x=text");
        assert_eq!(scraper.final_values(), [("loss".to_owned(), 0.4, 1)]);
        assert!(check_metric_expression("(?=look)").is_err());
        assert!(check_metric_expression("(((a{1,1000}){1,1000}){1,1000})").is_err());
    }
}
