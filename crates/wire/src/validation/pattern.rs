//! Model patterns, written for Java and ECMAScript, on Rust's engines.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Steps after which a pattern with look-around gives up; the text then counts as no match.
const BACKTRACK_LIMIT: usize = 500_000;

/// Bytes that one compiled pattern may take.
const SIZE_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// A compiled pattern that must match the whole text.
pub(super) enum Pattern {
    /// Any number of ASCII characters, as most headers of models are.
    Ascii,
    /// Linear time.
    Plain(regex::Regex),
    /// A single character class whose repetition is counted beside it, as counting in the automaton takes too much memory.
    Counted {
        /// Any number of the class.
        characters: regex::Regex,
        /// Fewest characters.
        least: usize,
        /// Most characters.
        most: usize,
    },
    /// With look-around, under a limit of steps.
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    fn is_match(&self, text: &str) -> bool {
        match self {
            Pattern::Ascii => text.is_ascii(),
            Pattern::Plain(regex) => regex.is_match(text),
            Pattern::Counted { characters, least, most } => {
                (*least..=*most).contains(&text.chars().count()) && characters.is_match(text)
            }
            // An error is the limit.
            Pattern::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }
}

/// Patterns by their text; `None` for one that cannot be compiled.
type Compiled = HashMap<&'static str, Option<Arc<Pattern>>>;

/// Whether the whole of `text` matches. Each pattern is compiled once, when it is first needed.
pub(super) fn matches(pattern: &'static str, text: &str) -> bool {
    static COMPILED: OnceLock<RwLock<Compiled>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(RwLock::default);
    let known = compiled.read().unwrap_or_else(PoisonError::into_inner).get(pattern).cloned();
    let regex = known.unwrap_or_else(|| {
        let made = compile(pattern)
            .map_err(|error| tracing::error!(pattern, error, "a model pattern cannot be compiled"));
        let made = made.ok().map(Arc::new);
        compiled.write().unwrap_or_else(PoisonError::into_inner).insert(pattern, made.clone());
        made
    });
    // A pattern that we cannot read must not lock users out; a test over all models keeps this from happening.
    regex.is_none_or(|regex| regex.is_match(text))
}

/// Compiles a model pattern.
pub(super) fn compile(pattern: &str) -> Result<Pattern, String> {
    if pattern == r"\p{ASCII}*" {
        return Ok(Pattern::Ascii);
    }
    let translated = translate(pattern);
    let whole = format!(r"\A(?:{translated})\z");
    let plain = |text: &str| regex::RegexBuilder::new(text).size_limit(SIZE_LIMIT_BYTES).build();
    match plain(&whole) {
        Ok(regex) => Ok(Pattern::Plain(regex)),
        Err(regex::Error::CompiledTooBig(_)) => {
            let (class, least, most) =
                single_class(&translated).ok_or("it is too large, and is no single class")?;
            let characters = plain(&format!(r"\A{class}*\z")).map_err(|error| error.to_string())?;
            Ok(Pattern::Counted { characters, least, most })
        }
        Err(_) => fancy_regex::RegexBuilder::new(&whole)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(SIZE_LIMIT_BYTES)
            .build()
            .map(|regex| Pattern::Backtracking(Box::new(regex)))
            .map_err(|error| error.to_string()),
    }
}

/// `[class]{least,most}`, alone or between anchors.
fn single_class(pattern: &str) -> Option<(&str, usize, usize)> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let (class, bounds) = pattern.strip_suffix('}')?.rsplit_once('{')?;
    let (least, most) = bounds.split_once(',')?;
    // A bracket that closes before the end would mean that there is more than one class.
    let mut depth = 0;
    let mut escaped = false;
    for (at, character) in class.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && at + 1 < class.len() {
            return None;
        }
    }
    (depth == 0).then_some((class, least.parse().ok()?, most.parse().ok()?))
}

/// The ranges of high and of low surrogates, each by its ends.
const SURROGATES: &str = r"\uD800\uDBFF-\uDC00\uDFFF";

/// Rewrites what Java and ECMAScript say and Rust's engines do not:
///
/// - `\d`, `\w`, `\s` and their opposites mean ASCII;
/// - `\p{Alnum}`, `\p{Print}`, `\p{ASCII}` and the other POSIX names mean ASCII classes;
/// - two `\uXXXX` that form a surrogate pair are one character;
/// - [`SURROGATES`], which some models write in a class, are all characters that need a pair;
/// - in a class, a `-` that is no range, `[`, `&&`, `~~` and `--` are plain characters;
/// - `\Z` is the end.
fn translate(pattern: &str) -> String {
    let pattern = pattern.replace(SURROGATES, r"\x{10000}-\x{10FFFF}");
    let characters: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    let mut in_class = false;
    let mut before = Before::NoRange;
    while at < characters.len() {
        let character = characters[at];
        match character {
            '\\' => {
                let (text, length, single) = escape(&characters[at..], in_class);
                out.push_str(&text);
                at += length;
                before = before.then(single);
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                before = Before::NoRange;
                out.push('[');
                if characters.get(at + 1) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '-' if in_class && before == Before::Character && begins_character(&characters[at + 1..]) => {
                out.push('-');
                before = Before::RangeSign;
            }
            '-' | '[' | '&' | '~' | '^' if in_class => {
                out.push('\\');
                out.push(character);
                before = before.then(character != '-');
            }
            _ => {
                out.push(character);
                before = before.then(true);
            }
        }
        at += 1;
    }
    out
}

/// What was just written in a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that can begin a range.
    NoRange,
    /// A character that can.
    Character,
    /// The dash of a range, whose end comes next.
    RangeSign,
}

impl Before {
    /// The state after one more item; the end of a range cannot begin another one.
    fn then(self, single: bool) -> Before {
        if single && self != Before::RangeSign { Before::Character } else { Before::NoRange }
    }
}

/// Whether a range can end with what comes next.
fn begins_character(rest: &[char]) -> bool {
    match rest {
        [] | [']', ..] => false,
        ['\\', letter, ..] => !matches!(letter, 'd' | 'w' | 's' | 'D' | 'W' | 'S' | 'p' | 'P'),
        _ => true,
    }
}

/// Translates the escape at the start of `rest`: text, characters read, and whether it stands for a single character.
fn escape(rest: &[char], in_class: bool) -> (String, usize, bool) {
    let class = |inside: &str| if in_class { inside.to_owned() } else { format!("[{inside}]") };
    match rest.get(1) {
        Some('d') => (class("0-9"), 2, false),
        Some('w') => (class("A-Za-z0-9_"), 2, false),
        Some('s') => (class(r" \t\n\x0B\f\r"), 2, false),
        Some('D') => ("[^0-9]".into(), 2, false),
        Some('W') => ("[^A-Za-z0-9_]".into(), 2, false),
        Some('S') => (r"[^ \t\n\x0B\f\r]".into(), 2, false),
        Some('Z') if !in_class => (r"\z".into(), 2, false),
        Some('p') if rest.get(2) == Some(&'{') => {
            let length =
                rest.iter().position(|character| *character == '}').map_or(rest.len(), |end| end + 1);
            let name: String = rest[3..length.saturating_sub(1).max(3)].iter().collect();
            match posix(&name) {
                Some(inside) => (class(inside), length, false),
                None => (rest[..length].iter().collect(), length, false),
            }
        }
        Some('u') => match (code_unit(rest), code_unit(rest.get(6..).unwrap_or_default())) {
            (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
                (format!(r"\x{{{:X}}}", 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12, true)
            }
            (Some(unit), _) => (format!(r"\x{{{unit:X}}}"), 6, true),
            (None, _) => (r"\u".into(), 2, true),
        },
        Some('x') => {
            let length = rest.len().min(4);
            (rest[..length].iter().collect(), length, true)
        }
        Some(other) => (format!("\\{other}"), 2, true),
        None => ("\\".into(), 1, true),
    }
}

/// The value of a `\uXXXX` at the start of `rest`.
fn code_unit(rest: &[char]) -> Option<u32> {
    match rest {
        ['\\', 'u', digits @ ..] => {
            let digits: String = digits.get(..4)?.iter().collect();
            u32::from_str_radix(&digits, 16).ok()
        }
        _ => None,
    }
}

/// Java's POSIX classes, as the inside of a class.
fn posix(name: &str) -> Option<&'static str> {
    Some(match name {
        "ASCII" => r"\x00-\x7F",
        "Alnum" => "A-Za-z0-9",
        "Alpha" => "A-Za-z",
        "Blank" => r" \t",
        "Cntrl" => r"\x00-\x1F\x7F",
        "Digit" => "0-9",
        "Graph" => r"\x21-\x7E",
        "Lower" => "a-z",
        "Print" => r"\x20-\x7E",
        "Punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "Space" => r" \t\n\x0B\f\r",
        "Upper" => "A-Z",
        "XDigit" => "0-9A-Fa-f",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap().is_match(text)
    }

    #[test]
    fn the_whole_text_must_match() {
        assert!(fits("[a-z]+", "abc"));
        assert!(!fits("[a-z]+", "abc1"));
        assert!(!fits("a|b", "ab"));
        assert!(fits("^[a-z]+$", "abc"));
        assert!(!fits("^[a-z]+$", "abc\n"));
    }

    #[test]
    fn shorthands_are_ascii() {
        assert!(fits(r"\d{12}", "123456789012"));
        assert!(!fits(r"\d", "٣"));
        assert!(!fits(r"\w", "ä"));
        assert!(fits(r"\S+", "ä"));
    }

    #[test]
    fn java_classes_and_surrogates_are_translated() {
        assert!(fits(r"\A\S[\p{Print}]*\z", "an id"));
        assert!(!fits(r"[\p{Print}]*", "tab\there"));
        assert!(fits(r"arn:[\p{Alnum}\-]+", "arn:aws-1"));
        assert!(fits(r"\p{ASCII}*", "ascii"));
        assert!(!fits(r"\p{ASCII}*", "ä"));
        assert!(fits(r"[\p{L}]+", "äß"));
        let astral = r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*";
        let by_ends = r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDBFF-\uDC00\uDFFF\t]*";
        for pattern in [astral, by_ends] {
            assert!(fits(pattern, "text with 😀\t"));
            assert!(!fits(pattern, "new\nline"));
        }
    }

    #[test]
    fn dashes_in_classes_that_are_no_ranges_are_plain() {
        assert!(fits(r"[\w-_]+", "a-_"));
        assert!(fits(r"[\w-+-.]+", "a-,"));
        assert!(fits(r"[a-zA-Z0-9-_.]+", "a-Z_."));
        assert!(!fits(r"[a-zA-Z0-9-_.]+", "a!"));
        assert!(!fits(r"[a-z-.]+", "|"));
        assert!(fits(r"[-a]+", "-a"));
        assert!(fits(r"[+-.]+", "+,-."));
        assert!(fits(r"[\--/]+", "-./"));
        assert!(fits(r"[^ ~^:?*\[]+", "branch"));
        assert!(!fits(r"[^ ~^:?*\[]+", "a^b"));
    }

    #[test]
    fn look_around_works_within_a_limit() {
        assert!(fits(r"(?!\s*$).+", " a"));
        assert!(!fits(r"(?!\s*$).+", "   "));
        assert!(fits("([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})(?<!-)", "a-b"));
        assert!(!fits("([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})(?<!-)", "a-"));
        assert!(!fits("(?=a)(a|aa)*(?<!a)b", &"a".repeat(5_000)));
    }

    #[test]
    fn large_repetitions_of_one_class_are_counted_beside_the_automaton() {
        let pattern = r"[\p{L}\p{M}\p{Z}\p{N}\p{P}]{0,1024}";
        assert!(matches!(compile(pattern), Ok(Pattern::Counted { least: 0, most: 1024, .. })));
        assert!(fits(pattern, &"ä".repeat(1024)));
        assert!(!fits(pattern, &"ä".repeat(1025)));
        assert!(!fits(pattern, "\u{0}"));
    }
}
