//! Rules of composite alarms: `ALARM(a) AND (OK("b c") OR NOT INSUFFICIENT_DATA(d))`.

use super::State;

/// Most parts of a rule.
const MOST_PARTS: usize = 500;

/// How deep parentheses and NOT may be nested.
const MOST_DEPTH: usize = 100;

/// A rule that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Constant(bool),
    /// An alarm, by name or ARN, is in a state.
    Is(State, String),
    Not(Box<Rule>),
    All(Vec<Rule>),
    Any(Vec<Rule>),
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong with it; a sentence without its period.
    pub(super) fn parse(text: &str) -> Result<Rule, String> {
        let mut reader = Reader { tokens: tokens(text)?, at: 0, depth: 0 };
        if reader.tokens.len() > MOST_PARTS * 4 {
            return Err(format!("it has more than {MOST_PARTS} parts"));
        }
        let rule = reader.any()?;
        match reader.next() {
            None => Ok(rule),
            Some(token) => Err(format!("{} is not expected after a whole rule", token.shown())),
        }
    }

    /// The alarms that it names, each once, in their order.
    pub(super) fn alarms(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Rule::Constant(_) => {}
            Rule::Is(_, name) => {
                if !found.contains(&&**name) {
                    found.push(name);
                }
            }
            Rule::Not(inner) => inner.collect(found),
            Rule::All(inner) | Rule::Any(inner) => inner.iter().for_each(|one| one.collect(found)),
        }
    }

    /// The same rule with other names of alarms.
    ///
    /// # Errors
    /// What `change` says.
    pub(super) fn renamed<E>(self, change: &impl Fn(String) -> Result<String, E>) -> Result<Rule, E> {
        let all = |rules: Vec<Rule>| {
            rules.into_iter().map(|one| one.renamed(change)).collect::<Result<Vec<Rule>, E>>()
        };
        Ok(match self {
            Rule::Constant(value) => Rule::Constant(value),
            Rule::Is(state, name) => Rule::Is(state, change(name)?),
            Rule::Not(inner) => Rule::Not(Box::new(inner.renamed(change)?)),
            Rule::All(inner) => Rule::All(all(inner)?),
            Rule::Any(inner) => Rule::Any(all(inner)?),
        })
    }

    /// Whether it holds. An alarm without a state is in none.
    pub(super) fn holds(&self, state_of: &impl Fn(&str) -> Option<State>) -> bool {
        match self {
            Rule::Constant(value) => *value,
            Rule::Is(state, name) => state_of(name) == Some(*state),
            Rule::Not(inner) => !inner.holds(state_of),
            Rule::All(inner) => inner.iter().all(|one| one.holds(state_of)),
            Rule::Any(inner) => inner.iter().any(|one| one.holds(state_of)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    /// A text in quotes: the name of an alarm.
    Quoted(String),
    /// Anything else.
    Word(String),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Token::Open => "(".into(),
            Token::Close => ")".into(),
            Token::Quoted(text) => format!("\"{text}\""),
            Token::Word(text) => text.clone(),
        }
    }

    /// Whether it is this word, which people write in either case.
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            _ if first.is_whitespace() => {}
            '(' => found.push(Token::Open),
            ')' => found.push(Token::Close),
            '"' => {
                let mut inside = String::new();
                loop {
                    match rest.next() {
                        None => return Err("a quote is not closed".into()),
                        Some('"') => break,
                        Some('\\') => inside.extend(rest.next()),
                        Some(other) => inside.push(other),
                    }
                }
                found.push(Token::Quoted(inside));
            }
            _ => {
                let mut word = String::from(first);
                while let Some(next) =
                    rest.next_if(|next| !next.is_whitespace() && !matches!(next, '(' | ')' | '"'))
                {
                    word.push(next);
                }
                found.push(Token::Word(word));
            }
        }
    }
    Ok(found)
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_there = self.peek().is_some_and(|token| token.is(word));
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), String> {
        match self.next() {
            Some(token) if token == *wanted => Ok(()),
            Some(token) => Err(format!("{} is expected instead of {}", wanted.shown(), token.shown())),
            None => Err(format!("{} is missing at its end", wanted.shown())),
        }
    }

    fn any(&mut self) -> Result<Rule, String> {
        let mut parts = vec![self.all()?];
        while self.take_word("OR") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Rule::Any(parts) })
    }

    fn all(&mut self) -> Result<Rule, String> {
        let mut parts = vec![self.one()?];
        while self.take_word("AND") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Rule::All(parts) })
    }

    fn one(&mut self) -> Result<Rule, String> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(format!("it is nested more than {MOST_DEPTH} deep"));
        }
        let rule = self.part();
        self.depth -= 1;
        rule
    }

    fn part(&mut self) -> Result<Rule, String> {
        let token = self.next().ok_or("it ends where a condition is expected")?;
        if token == Token::Open {
            let inner = self.any()?;
            self.expect(&Token::Close)?;
            return Ok(inner);
        }
        if token.is("NOT") {
            return Ok(Rule::Not(Box::new(self.one()?)));
        }
        for (word, value) in [("TRUE", true), ("FALSE", false)] {
            if token.is(word) {
                return Ok(Rule::Constant(value));
            }
        }
        let states = [State::Ok, State::Alarm, State::InsufficientData];
        let Some(state) = states.into_iter().find(|state| token.is(state.as_str())) else {
            return Err(format!(
                "{} is not known; a condition is ALARM(name), OK(name), INSUFFICIENT_DATA(name), TRUE, FALSE, NOT or a rule in \
                 parentheses",
                token.shown()
            ));
        };
        self.expect(&Token::Open)?;
        let name = match self.next() {
            Some(Token::Quoted(name) | Token::Word(name)) if !name.is_empty() => name,
            _ => return Err(format!("{}( needs the name or ARN of an alarm", state.as_str())),
        };
        match self.next() {
            Some(Token::Close) => Ok(Rule::Is(state, name)),
            _ => Err(format!("{}({name} is not closed; a name with spaces stands in quotes", state.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alarms a and c are in ALARM, b is OK, d knows nothing.
    fn state_of(name: &str) -> Option<State> {
        match name {
            "a" | "c d" => Some(State::Alarm),
            "b" => Some(State::Ok),
            "d" => Some(State::InsufficientData),
            _ => None,
        }
    }

    #[test]
    fn rules_hold_as_they_are_written() {
        for (text, expected) in [
            ("ALARM(a)", true),
            ("ALARM( \"a\" )", true),
            ("ALARM(\"c d\") AND OK(b)", true),
            ("alarm(a) and not ok(a)", true),
            ("OK(a) OR OK(b) AND ALARM(b)", false),
            ("(ALARM(a) OR OK(b)) AND ALARM(b)", false),
            ("ALARM(a) OR OK(b) AND ALARM(b)", true),
            ("NOT NOT ALARM(a)", true),
            ("INSUFFICIENT_DATA(d)", true),
            ("ALARM(gone) OR OK(gone) OR INSUFFICIENT_DATA(gone)", false),
            ("TRUE AND NOT FALSE", true),
            ("false", false),
        ] {
            assert_eq!(Rule::parse(text).unwrap().holds(&state_of), expected, "{text}");
        }
    }

    #[test]
    fn alarms_are_named_once_and_can_be_renamed() {
        let rule = Rule::parse(r#"ALARM(x) AND OK("y \"z\"") OR ALARM(x)"#).unwrap();
        assert_eq!(rule.alarms(), ["x", "y \"z\""]);
        let renamed: Result<Rule, ()> = rule.renamed(&|name| Ok(name.to_uppercase()));
        assert_eq!(renamed.unwrap().alarms(), ["X", "Y \"Z\""]);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for wrong in [
            "",
            "ALARM",
            "ALARM(",
            "ALARM()",
            "ALARM(a",
            "ALARM(a b)",
            "ALARM(a))",
            "ALARM(a) ALARM(b)",
            "ALARM(a) AND",
            "NOT",
            "(ALARM(a)",
            "a",
            "XOR(a)",
            "AT_LEAST(1, ALARM, (a))",
            "ALARM(\"a)",
        ] {
            assert!(Rule::parse(wrong).is_err(), "{wrong}");
        }
        let deep = format!("{}TRUE{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(Rule::parse(&deep).is_err());
        assert!(Rule::parse(&"NOT ".repeat(2_000)).is_err());
    }
}
