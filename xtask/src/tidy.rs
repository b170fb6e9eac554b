//! `cargo xtask tidy`: house rules that no compiler checks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{Step, root};

/// Longest hand-written source file.
const MOST_LINES: usize = 800;
/// Longest line of prose or code.
const MOST_COLUMNS: usize = 180;
/// Marks of unfinished work.
const MARKS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("#[ign", "ore")];

/// Checks every tracked text file; lists all that is wrong.
pub fn tidy() -> Step {
    let mut wrong = Vec::new();
    for path in tracked()? {
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let size = std::fs::metadata(&path).map(|file| file.len()).unwrap_or(0);
        if generated(&shown) {
            continue;
        }
        if size > 1024 * 1024 {
            wrong.push(format!("{shown}: {size} bytes; keep large files out of the repository"));
        }
        if !source(&path) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let lines = text.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!("{shown}: {lines} lines; split it along its nouns"));
        }
        for (number, line) in text.lines().enumerate() {
            let place = format!("{shown}:{}", number + 1);
            // A long text in quotes is better whole than broken.
            if line.chars().count() > MOST_COLUMNS && !line.contains('"') {
                wrong.push(format!("{place}: longer than {MOST_COLUMNS} columns"));
            }
            if line.ends_with(' ') {
                wrong.push(format!("{place}: ends in a space"));
            }
            if let Some(mark) = MARKS.iter().find(|mark| line.contains(**mark)) {
                wrong.push(format!("{place}: {mark}"));
            }
        }
        if path.extension().is_some_and(|extension| extension == "rs") && !text.starts_with("//!") {
            let included = shown.ends_with("_files.rs");
            if !included {
                wrong.push(format!("{shown}: a module opens with a //! line that says what it is"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn tracked() -> Step<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|error| error.to_string())?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| root().join(name))
        .filter(|path| path.exists())
        .collect())
}

fn generated(path: &str) -> bool {
    path.starts_with("models/")
        || path.contains("/generated/")
        || path.ends_with(".lock")
        || path.starts_with("tests/clients/acceptance/")
        || path == "docs/compatibility.md"
}

fn source(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    matches!(extension, "rs" | "py" | "sql" | "sh" | "toml" | "yaml")
}
