//! The part of GetPartitions' expressions that is done: equalities of keys, joined by AND.

use std::sync::LazyLock;

use regex::Regex;

/// `key = 'value'` or `key = 7`, perhaps in parentheses.
static EQUALITY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^\(*\s*[`"]?([\w-]+)[`"]?\s*={1,2}\s*(?:'((?:[^']|'')*)'|(-?[0-9.]+))\s*\)*$"#)
        .expect("a constant expression compiles")
});
static AND: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)\s+and\s+").expect("a constant expression compiles"));

/// Which value each of the keys named in an expression must have, by the position of the key.
///
/// # Errors
/// A text that names the part which is not done.
pub fn parse(expression: &str, keys: &[String]) -> Result<Vec<(usize, String)>, String> {
    let mut wanted = Vec::new();
    for part in AND.split(expression.trim()) {
        let Some(found) = EQUALITY.captures(part.trim()) else {
            return Err(format!(
                "Expression: {part:?} is not done here; join comparisons of the form key = 'value' by AND, or leave Expression out."
            ));
        };
        let name = found[1].to_lowercase();
        let Some(position) = keys.iter().position(|key| *key == name) else {
            return Err(format!("Expression: {name:?} is not a partition key of the table."));
        };
        let text = found.get(2).map(|text| text.as_str().replace("''", "'"));
        wanted.push((position, text.unwrap_or_else(|| found[3].to_owned())));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn equalities_are_done_and_all_else_is_named() {
        let keys = ["year".to_owned(), "name".to_owned()];
        assert_eq!(
            parse("(YEAR = 2024) and name='it''s'", &keys).unwrap(),
            [(0, "2024".to_owned()), (1, "it's".to_owned())]
        );
        for (expression, named) in [
            ("year > 2000", "year > 2000"),
            ("year = 1 OR name = 'x'", "OR"),
            ("month = 1", "month"),
            ("", "\"\""),
        ] {
            let problem = parse(expression, &keys).unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
    }
}
