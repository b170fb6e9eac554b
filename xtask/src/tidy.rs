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
        wrong.extend(without_failpoint(&shown, &text));
        if path.extension().is_some_and(|extension| extension == "rs") && !text.starts_with("//!") {
            let included = shown.ends_with("_files.rs");
            if !included {
                wrong.push(format!("{shown}: a module opens with a //! line that says what it is"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What makes a write durable in the crates that keep things.
const DURABLE: &[&str] = &["fs::rename(", ".sync_all()", ".sync_data()", ".commit()?", "\"COMMIT\""];
/// How far from it the failpoint may stand.
const NEAR_LINES: usize = 14;

/// The durable writes of a source file that no test could make fail, or be killed at.
fn without_failpoint(shown: &str, text: &str) -> Vec<String> {
    let keeps = ["crates/store/src/", "crates/runner/src/", "crates/server/src/", "crates/serving/src/"];
    if !keeps.iter().any(|folder| shown.starts_with(folder)) {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
    let mut wrong = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(what) = DURABLE.iter().find(|what| line.contains(**what)) else { continue };
        let near = &lines[number.saturating_sub(NEAR_LINES)..lines.len().min(number + NEAR_LINES)];
        if !near.iter().any(|line| line.contains("failpoint::")) {
            wrong.push(format!(
                "{shown}:{}: {what} without a failpoint near it; add one to crates/failpoint/src/points.rs and docs/durability.md",
                number + 1
            ));
        }
    }
    wrong
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
