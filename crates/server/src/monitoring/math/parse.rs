//! From the text of an expression to its tree.

/// Deepest nesting of an expression.
const MOST_DEPTH: usize = 64;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Number(f64),
    /// Text in quotes.
    Text(String),
    /// The id of a query, or a word that a function knows.
    Name(String),
    List(Vec<Tree>),
    Call(String, Vec<Tree>),
    Negate(Box<Tree>),
    Binary(Operator, Box<Tree>, Box<Tree>),
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

impl Operator {
    /// A stronger one binds first.
    fn strength(self) -> u8 {
        match self {
            Operator::Or => 1,
            Operator::And => 2,
            Operator::Equal
            | Operator::NotEqual
            | Operator::LessOrEqual
            | Operator::GreaterOrEqual
            | Operator::Less
            | Operator::Greater => 3,
            Operator::Add | Operator::Subtract => 4,
            Operator::Multiply | Operator::Divide => 5,
            Operator::Power => 7,
        }
    }
}

/// Strength of a sign: above products, below powers.
const SIGN_STRENGTH: u8 = 6;

const SYMBOLS: &[(&str, Operator)] = &[
    ("||", Operator::Or),
    ("&&", Operator::And),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("+", Operator::Add),
    ("-", Operator::Subtract),
    ("*", Operator::Multiply),
    ("/", Operator::Divide),
    ("^", Operator::Power),
];

const WORDS: &[(&str, Operator)] = &[("OR", Operator::Or), ("AND", Operator::And)];

/// Reads an expression; the error is a sentence without its period.
pub(super) fn parse(text: &str) -> Result<Tree, String> {
    let mut parser = Parser { text, at: 0 };
    let tree = parser.expression(0, MOST_DEPTH)?;
    parser.skip_space();
    if parser.rest().is_empty() { Ok(tree) } else { Err(parser.unexpected()) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn unexpected(&self) -> String {
        match self.rest().chars().next() {
            Some(character) => format!("unexpected {character:?} at position {}", self.at + 1),
            None => "it ends too early".into(),
        }
    }

    /// Takes a symbol if it is next.
    fn take(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn word(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    }

    /// The operator that is next, with its length.
    fn operator(&mut self) -> Option<(Operator, usize)> {
        self.skip_space();
        let word = self.word();
        let worded = WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        let symbol = || SYMBOLS.iter().find(|(symbol, _)| self.rest().starts_with(symbol));
        worded.or_else(symbol).map(|(symbol, operator)| (*operator, symbol.len()))
    }

    /// An expression whose operators are stronger than `weakest`.
    fn expression(&mut self, weakest: u8, depth: usize) -> Result<Tree, String> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let mut left = self.operand(depth)?;
        while let Some((operator, length)) = self.operator() {
            if operator.strength() <= weakest {
                break;
            }
            self.at += length;
            let right = self.expression(operator.strength(), depth)?;
            left = Tree::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn operand(&mut self, depth: usize) -> Result<Tree, String> {
        self.skip_space();
        let Some(first) = self.rest().chars().next() else { return Err(self.unexpected()) };
        match first {
            '-' => {
                self.at += 1;
                Ok(Tree::Negate(Box::new(self.expression(SIGN_STRENGTH, depth)?)))
            }
            '+' => {
                self.at += 1;
                self.expression(SIGN_STRENGTH, depth)
            }
            '(' => {
                self.at += 1;
                let inside = self.expression(0, depth)?;
                self.expect(")")?;
                Ok(inside)
            }
            '[' => {
                self.at += 1;
                self.sequence("]", depth).map(Tree::List)
            }
            '"' | '\'' => self.quoted(first),
            '0'..='9' | '.' => self.number(),
            'a'..='z' | 'A'..='Z' => {
                let word = self.word();
                self.at += word.len();
                if self.take("(") {
                    return Ok(Tree::Call(word.to_ascii_uppercase(), self.sequence(")", depth)?));
                }
                Ok(Tree::Name(word.to_owned()))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Expressions between commas, up to `end`.
    fn sequence(&mut self, end: &str, depth: usize) -> Result<Vec<Tree>, String> {
        let mut elements = Vec::new();
        if self.take(end) {
            return Ok(elements);
        }
        loop {
            elements.push(self.expression(0, depth)?);
            if self.take(end) {
                return Ok(elements);
            }
            self.expect(",")?;
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Tree, String> {
        let inside = &self.rest()[1..];
        let end = inside.find(quote).ok_or("a text in quotes does not end")?;
        self.at += end + 2;
        Ok(Tree::Text(inside[..end].to_owned()))
    }

    fn number(&mut self) -> Result<Tree, String> {
        let rest = self.rest().as_bytes();
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = digits(0);
        if rest.get(end) == Some(&b'.') {
            end += 1 + digits(end + 1);
        }
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(rest.len()));
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        let number = self.rest()[..end].parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| self.unexpected())?;
        self.at += end;
        Ok(Tree::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with every pair in parentheses.
    fn shown(tree: &Tree) -> String {
        let all = |trees: &[Tree]| trees.iter().map(shown).collect::<Vec<_>>().join(",");
        match tree {
            Tree::Number(number) => number.to_string(),
            Tree::Text(text) => format!("{text:?}"),
            Tree::Name(name) => name.clone(),
            Tree::List(elements) => format!("[{}]", all(elements)),
            Tree::Call(name, arguments) => format!("{name}({})", all(arguments)),
            Tree::Negate(inside) => format!("-{}", shown(inside)),
            Tree::Binary(operator, left, right) => {
                let symbol = SYMBOLS.iter().find(|(_, one)| one == operator).unwrap().0;
                format!("({}{symbol}{})", shown(left), shown(right))
            }
        }
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        for (text, expected) in [
            ("1+2*3", "(1+(2*3))"),
            ("1-2-3", "((1-2)-3)"),
            ("-m1^2", "-(m1^2)"),
            ("2*-m1", "(2*-m1)"),
            ("(1+2)*3", "((1+2)*3)"),
            ("m1 > 5 AND m2<=1 || m3", "(((m1>5)&&(m2<=1))||m3)"),
            ("a==b or c!=d", "((a==b)||(c!=d))"),
            ("sum([m1, m2])/1.5e2", "(SUM([m1,m2])/150)"),
            ("IF(m1,m2 , .5)", "IF(m1,m2,0.5)"),
            ("METRICS('err')", "METRICS(\"err\")"),
            ("METRICS()", "METRICS()"),
            ("order", "order"),
            ("3e", ""),
        ] {
            let tree = parse(text);
            if expected.is_empty() {
                assert!(tree.is_err(), "{text}");
            } else {
                assert_eq!(shown(&tree.unwrap()), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (text, problem) in [
            ("", "ends too early"),
            ("m1 +", "ends too early"),
            ("m1 m2", "unexpected 'm' at position 4"),
            ("SUM(m1", "ends too early"),
            ("[m1;m2]", "unexpected ';'"),
            ("'abc", "does not end"),
            ("1 + ä", "unexpected 'ä'"),
            ("ä", "unexpected 'ä'"),
            (".", "unexpected '.'"),
        ] {
            assert!(parse(text).unwrap_err().contains(problem), "{text}: {:?}", parse(text));
        }
        assert!(parse(&"(".repeat(1000)).unwrap_err().contains("deeply"));
        assert!(parse(&"-".repeat(1000)).unwrap_err().contains("deeply"));
    }
}
