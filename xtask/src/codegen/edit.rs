//! Small changes to Rust sources that keep the rest as it is.

use crate::setup::Step;

/// The text of a source file.
pub struct Source<'text>(pub &'text str);

impl Source<'_> {
    /// `name` where the file imports it from `path`, else `path::name`.
    pub fn word(&self, path: &str, name: &str) -> String {
        // Imports begin at the start of a line and end with a semicolon.
        let imports = self.0.split("\nuse ").skip(1).filter_map(|rest| rest.split_once(';'));
        let imports_it = |import: &str| {
            let Some(names) = import.trim().strip_prefix(path).and_then(|rest| rest.strip_prefix("::"))
            else {
                return false;
            };
            names
                .trim_matches(['{', '}'])
                .split(',')
                .any(|imported| imported.trim().trim_matches(['{', '}']) == name)
        };
        if imports.into_iter().any(|(import, _)| imports_it(import)) {
            name.to_owned()
        } else {
            format!("{path}::{name}")
        }
    }
}

/// Adds a line at the end of `routes()`.
pub fn with_route(text: &str, line: &str) -> Step<String> {
    let start = text.find("pub fn routes(").ok_or("there is no routes()")?;
    let end = text[start..].find("\n}").ok_or("routes() does not end")? + start + 1;
    Ok(format!("{}{line}{}", &text[..end], &text[end..]))
}

/// Adds an item at the end of a file, before its own tests.
pub fn with_item(text: &str, item: &str) -> String {
    match text.find("\n#[cfg(test)]") {
        Some(at) => format!("{}\n{item}{}", &text[..at], &text[at..]),
        None => format!("{text}\n{item}"),
    }
}

/// Adds `mod name;` where the alphabet puts it among the modules of a file.
pub fn with_module(text: &str, name: &str) -> Step<String> {
    let mut at = None;
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        let declared = line
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|rest| rest.trim_end().strip_suffix(';'));
        match declared {
            Some(declared) if declared == name => return Err(format!("there is a module {name} already")),
            Some(declared) if declared < name => at = Some(position + line.len()),
            Some(_) => at = at.or(Some(position)),
            None => {}
        }
        position += line.len();
    }
    // A file without modules so far has its first line of documentation alone.
    let at = at.unwrap_or(text.len());
    Ok(format!("{}mod {name};\n{}", &text[..at], &text[at..]))
}

/// Adds a test file to the sources that the guard over the operations reads.
pub fn with_included(text: &str, path: &str) -> Step<String> {
    let line = format!("    include_str!(\"{path}\"),\n");
    if text.contains(&line) {
        return Ok(text.to_owned());
    }
    let opening = "const TESTS: &[&str] = &[\n";
    let at = text.find(opening).ok_or("there is no list TESTS")? + opening.len();
    Ok(format!("{}{line}{}", &text[..at], &text[at..]))
}

/// Adds a line to a sorted list of lines.
pub fn with_line(text: &str, line: &str) -> String {
    let mut lines: Vec<&str> = text.lines().chain([line]).collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

/// A path with its labels filled in, without its query part.
pub fn filled_path(template: &str) -> String {
    let path = template.split_once('?').map_or(template, |(path, _)| path);
    path.split(['{', '}']).enumerate().map(|(at, part)| if at % 2 == 1 { "a" } else { part }).collect()
}

/// A noun as a title: `training_jobs` becomes `Training jobs`.
pub fn sentence(noun: &str) -> String {
    let text = noun.replace('_', " ");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_items_go_where_they_belong() {
        let text = "pub fn routes(registry: &mut Registry) {\n    a();\n}\n\nfn a() {}\n\n#[cfg(test)]\nmod tests {}\n";
        let routed = with_route(text, "    b();\n").unwrap();
        let whole = with_item(&routed, "fn b() {}\n");
        assert_eq!(
            whole,
            "pub fn routes(registry: &mut Registry) {\n    a();\n    b();\n}\n\nfn a() {}\n\nfn b() {}\n\n#[cfg(test)]\nmod tests {}\n"
        );
        assert!(with_route("fn other() {}", "").is_err());
    }

    #[test]
    fn modules_are_sorted() {
        let text = "//! A.\n\nmod beta;\npub mod delta;\n\nuse x;\n";
        assert_eq!(
            with_module(text, "coral").unwrap(),
            "//! A.\n\nmod beta;\nmod coral;\npub mod delta;\n\nuse x;\n"
        );
        assert_eq!(
            with_module(text, "alpha").unwrap(),
            "//! A.\n\nmod alpha;\nmod beta;\npub mod delta;\n\nuse x;\n"
        );
        assert!(with_module(text, "delta").is_err());
        assert_eq!(with_module("//! A.\n\n", "alpha").unwrap(), "//! A.\n\nmod alpha;\n");
    }

    #[test]
    fn imported_words_are_not_qualified() {
        let source = Source("//! A.\n\nuse std::fmt;\nuse crate::{\n    Cx, Result,\n};\n\nfn a() {}\n");
        assert_eq!(source.word("crate", "Cx"), "Cx");
        assert_eq!(source.word("crate", "Result"), "Result");
        assert_eq!(source.word("crate", "Error"), "crate::Error");
        assert_eq!(source.word("std", "fmt"), "fmt");
    }

    #[test]
    fn lists_stay_sorted() {
        assert_eq!(with_line("a A\nc C\n", "b B"), "a A\nb B\nc C\n");
    }

    #[test]
    fn paths_have_their_labels_filled() {
        assert_eq!(filled_path("/functions/{Name+}/code?x=1"), "/functions/a/code");
    }
}
