//! What people see: tables, JSON, errors. The only module that prints.

use std::io::Write;

use serde_json::Value;

/// How a command shows its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document, as the API answered it.
    Json,
}

/// Prints a line. A closed pipe (`modelyard jobs | head`) ends the program quietly.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints an error with its program name.
pub fn error(text: &str) {
    // Nothing is left to be told when even standard error is closed.
    let _ = writeln!(std::io::stderr(), "modelyard: {text}");
}

/// Prints a JSON document.
pub fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints rows under headings, columns as wide as their widest cell.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let show = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    show(headings.to_vec());
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}

/// Prints `name: value` lines, names aligned; empty values are left out.
pub fn fields(pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        line(&format!("{:<width$} {value}", format!("{name}:")));
    }
}

/// Seconds since 1970 as a time of day in UTC.
pub fn time(seconds: Option<f64>) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    seconds
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds as i64).ok())
        .and_then(|at| at.format(format).ok())
        .unwrap_or_default()
}
