//! Pieces of Rust source.

/// A text as a literal.
pub fn text(value: &str) -> String {
    let escaped: String = value
        .chars()
        .map(|letter| match letter {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            ' '..='~' => letter.to_string(),
            other => format!("\\u{{{:x}}}", u32::from(other)),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// A text full of backslashes as a literal; raw where that is possible.
pub fn pattern(value: &str) -> String {
    let printable = value.chars().all(|letter| matches!(letter, ' '..='~'));
    match () {
        () if !printable || !value.contains(['\\', '"']) => text(value),
        () if value.contains("\"#") => text(value),
        () if value.contains('"') => format!("r#\"{value}\"#"),
        () => format!("r\"{value}\""),
    }
}

/// A literal that may be absent.
pub fn option(literal: Option<String>) -> String {
    literal.map_or_else(|| "None".to_owned(), |literal| format!("Some({literal})"))
}

/// Imports of the paths whose words are in the source.
pub fn imports(source: &str, words: &[(&str, &str)]) -> String {
    let mut paths: Vec<&str> =
        words.iter().filter(|(word, _)| source.contains(word)).map(|(_, path)| *path).collect();
    paths.dedup();
    paths.into_iter().map(|path| format!("use {path};\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_escape_what_they_must() {
        assert_eq!(text("a\"\\\n\u{85}"), r#""a\"\\\u{a}\u{85}""#);
        assert_eq!(pattern(r"\d+"), r#"r"\d+""#);
        assert_eq!(pattern(r#"[\d"]"#), r###"r#"[\d"]"#"###);
        assert_eq!(pattern("a+"), r#""a+""#);
    }
}
