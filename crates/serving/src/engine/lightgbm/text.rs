//! The text format of LightGBM: a head of `name=value` lines, and a section of them for each tree.

use std::collections::HashMap;
use std::str::FromStr;

use crate::engine::refusal::Refusal;

/// The first line of a model.
const FIRST_LINE: &str = "tree";
/// What a tree's section begins with.
const TREE: &str = "Tree=";
/// What follows the last tree.
const END: &str = "end of trees";

/// Whether the bytes begin like a model in this format.
pub(crate) fn is_model(bytes: &[u8]) -> bool {
    bytes
        .strip_prefix(FIRST_LINE.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"\n") || rest.starts_with(b"\r\n"))
}

/// What is said of the whole model.
pub(crate) type Header<'a> = Section<'a>;

/// Lines of names and values.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    title: String,
    values: HashMap<&'a str, &'a str>,
    /// Lines that are no pairs.
    plain: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn titled(title: String) -> Self {
        Self { title, values: HashMap::new(), plain: Vec::new() }
    }

    fn add(&mut self, line: &'a str) {
        match line.split_once('=') {
            Some((name, value)) => {
                self.values.insert(name, value);
            }
            None if line.is_empty() => {}
            None => self.plain.push(line),
        }
    }

    /// Says that something is wrong here.
    pub(crate) fn damaged(&self, what: &str) -> Refusal {
        Refusal::Damaged(format!("{}: {what}", self.title))
    }

    /// A value as it stands there.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    /// Whether it has a line that is no pair.
    pub(crate) fn has_line(&self, line: &str) -> bool {
        self.plain.contains(&line)
    }

    /// A number that must be there.
    pub(crate) fn number(&self, name: &str) -> Result<usize, Refusal> {
        self.optional_number(name)?.ok_or_else(|| self.damaged(&format!("{name} is missing")))
    }

    /// A number that may be there.
    pub(crate) fn optional_number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.damaged(&format!("{name} is not a number")))
    }

    /// Numbers with spaces between.
    pub(crate) fn numbers<T: FromStr>(&self, name: &str) -> Result<Vec<T>, Refusal> {
        let text = self.text(name).ok_or_else(|| self.damaged(&format!("{name} is missing")))?;
        let parsed = text.split_ascii_whitespace().map(str::parse);
        parsed
            .collect::<Result<_, _>>()
            .map_err(|_| self.damaged(&format!("{name} has what is not a number of its kind")))
    }
}

/// Divides a model into its head and its trees.
pub(crate) fn split(text: &str) -> Result<(Header<'_>, Vec<Section<'_>>), Refusal> {
    let mut header = Section::titled("its head".into());
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut is_whole = false;
    for line in text.lines() {
        if line == END {
            is_whole = true;
            break;
        }
        match line.strip_prefix(TREE) {
            Some(number) => sections.push(Section::titled(format!("tree {number}"))),
            None => sections.last_mut().unwrap_or(&mut header).add(line),
        }
    }
    if !is_whole {
        return Err(Refusal::Damaged(format!("the line \"{END}\" is missing, so it is not whole")));
    }
    Ok((header, sections))
}
