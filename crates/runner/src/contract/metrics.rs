//! Metrics that users read out of their logs with regular expressions, in bounded time and memory whatever the expression.

use std::time::{Duration, Instant};

use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled expression, in bytes: user input must not take the server's memory. Real ones take a tenth of it.
const EXPRESSION_BYTES: usize = 256 * 1024;
/// Memory that a search may use to be fast, in bytes.
const SEARCH_CACHE_BYTES: usize = 512 * 1024;
/// Deepest nesting of groups.
const NESTING: u32 = 50;
/// Longest part of a line that is searched, in bytes. One search takes at most this times the size of the expression.
const LINE_BYTES: usize = 8 * 1024;
/// Matches of one expression in one line: each can cost a look at the rest of the line.
const MATCHES_PER_LINE: usize = 200;
/// Time that one expression may take over the whole log. A million usual lines take a second.
const TIME_PER_EXPRESSION: Duration = Duration::from_secs(20);

fn compile(expression: &str) -> Result<Regex, String> {
    // Matching is linear in the line; Python-only syntax (look-around, back-references) does not compile.
    let build = |unicode| {
        RegexBuilder::new(expression)
            .unicode(unicode)
            .size_limit(EXPRESSION_BYTES)
            .dfa_size_limit(SEARCH_CACHE_BYTES)
            .nest_limit(NESTING)
            .build()
    };
    // `\w{1,40}` is large only for the letters of all scripts; those of ASCII do for a metric.
    let compiled = match build(true) {
        Err(error @ regex::Error::CompiledTooBig(_)) => build(false).map_err(|_| error),
        compiled => compiled,
    };
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!(
            "the expression {expression:?} is too large: it may take {EXPRESSION_BYTES} bytes when compiled; use smaller repetition \
             counts"
        ),
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!(
                "the expression {expression:?} cannot be used: {reason} (the syntax is that of Python's re without look-around and \
                 back-references)"
            )
        }
    })
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
    spent: Duration,
}

/// Collects the last value of each metric.
pub struct MetricScraper {
    definitions: Vec<Definition>,
    time_limit: Duration,
}

impl MetricScraper {
    /// A scraper for (name, expression) pairs.
    ///
    /// # Errors
    /// A sentence that names the expression that cannot be used.
    pub fn new(definitions: &[(String, String)]) -> Result<MetricScraper, String> {
        let compiled = definitions.iter().map(|(name, expression)| {
            let expression = compile(expression)?;
            Ok(Definition { name: name.clone(), expression, last: None, spent: Duration::ZERO })
        });
        let definitions = compiled.collect::<Result<_, String>>()?;
        Ok(MetricScraper { definitions, time_limit: TIME_PER_EXPRESSION })
    }

    /// Looks at one line of the log; the first group of a match, or the whole of it, is the value.
    pub fn feed(&mut self, at_ms: i64, line: &str) {
        let mut end = line.len().min(LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        for definition in &mut self.definitions {
            definition.feed(at_ms, &line[..end], self.time_limit);
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

    /// Names of the metrics whose expression took too long, so that only the beginning of the log was searched for them.
    pub fn given_up(&self) -> Vec<&str> {
        let slow = self.definitions.iter().filter(|one| one.spent >= self.time_limit);
        slow.map(|one| one.name.as_str()).collect()
    }
}

impl Definition {
    fn feed(&mut self, at_ms: i64, line: &str, time_limit: Duration) {
        if self.spent >= time_limit {
            return;
        }
        let begun = Instant::now();
        for captures in self.expression.captures_iter(line.as_bytes()).take(MATCHES_PER_LINE) {
            let text = captures.get(1).or_else(|| captures.get(0)).map_or(&b""[..], |group| group.as_bytes());
            let value = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<f64>().ok());
            if let Some(value) = value.filter(|value| value.is_finite()) {
                self.last = Some((value, at_ms));
            }
            if self.spent + begun.elapsed() >= time_limit {
                break;
            }
        }
        self.spent += begun.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_wins() {
        let definitions =
            [("loss".to_owned(), "loss=([0-9.]+|nan)".to_owned()), ("none".into(), "x=(.*)".into())];
        let mut scraper = MetricScraper::new(&definitions).unwrap();
        scraper.feed(1, "loss=0.5 loss=0.4");
        scraper.feed(2, "loss=nan");
        scraper.feed(3, "x=text");
        assert_eq!(scraper.final_values(), [("loss".to_owned(), 0.4, 1)]);
        assert!(scraper.given_up().is_empty());
    }

    #[test]
    fn expressions_of_real_estimators_compile() {
        for expression in [
            r"Validation-accuracy=(.*?);",
            r".*\[([0-9]+)\].*#011validation-rmse:(\S+)",
            r"#quality_metric: host=\S+, train mse <loss>=(\S+)",
            r"(?P<value>[-+]?\d*\.?\d+([eE][-+]?\d+)?)",
            r"Epoch (?:\d+)/\d+ \w+ - loss: ([0-9\.]+) - val_loss: [0-9\.]+",
            r"'eval_loss': (\d+\.\d+),? '\w{1,40}'",
        ] {
            assert_eq!(check_metric_expression(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn bombs_and_foreign_syntax_are_refused_with_a_reason() {
        for bomb in [
            r"(((a{1,1000}){1,1000}){1,1000})",
            r"(\w{1000}){100}",
            r"(?:\pL|\pN){2000}",
            &"(".repeat(120).chars().chain(")".repeat(120).chars()).collect::<String>(),
        ] {
            let refused = check_metric_expression(bomb).unwrap_err();
            assert!(refused.contains("too large") || refused.contains("nest"), "{bomb}: {refused}");
        }
        for foreign in [r"(?=look)ahead", r"(a)\1", r"(?<!x)y", "(unclosed", r"[z-a]", r"a{5,2}"] {
            assert!(check_metric_expression(foreign).unwrap_err().contains("cannot be used"), "{foreign}");
        }
    }

    #[test]
    fn hostile_expressions_take_bounded_time() {
        // Exponential in a backtracking engine, quadratic in a careless loop over matches.
        let hostile = [r"(a+)+$", r"(a|a)*b", r"(.*a){12}", r".*[^A-Z]|[A-Z]", r"(x*)*y", r"(\w+\s?)*;"];
        let definitions: Vec<(String, String)> =
            hostile.iter().map(|expression| (format!("m{expression}"), (*expression).to_owned())).collect();
        let mut scraper = MetricScraper::new(&definitions).unwrap();
        // How fast a machine is must not matter: each search takes longer than this, however clever it is.
        scraper.time_limit = Duration::from_nanos(1);
        let line = "a".repeat(60_000) + &"A".repeat(60_000);
        assert!(scraper.given_up().is_empty());
        scraper.feed(1, &line);
        assert_eq!(scraper.given_up().len(), hostile.len());

        let loss = [("loss".to_owned(), "loss=([0-9]+)".to_owned())];
        let mut scraper = MetricScraper::new(&loss).unwrap();
        scraper.time_limit = Duration::from_nanos(1);
        scraper.feed(1, "loss=1 loss=2");
        scraper.feed(2, "loss=3");
        assert_eq!(scraper.given_up(), ["loss"]);
        assert_eq!(scraper.final_values(), [("loss".to_owned(), 1.0, 1)], "nothing was searched any more");
    }
}
