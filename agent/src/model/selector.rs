//! Calico's selector language over labels.
//!
//! ```text
//! or      = and { "||" and }
//! and     = not { "&&" not }
//! not     = [ "!" ] term
//! term    = "all()" | "global()" | "has(" KEY ")" | "(" or ")" | KEY test
//! test    = "==" S | "!=" S | "in" "{" S, … "}" | "not in" "{" S, … "}"
//!         | "contains" S | "starts with" S | "ends with" S
//! ```
//! Strings stand in single or double quotes. As in Calico, `!=` and `not in` are true of an absent
//! label, the other tests are false. An empty selector is written by leaving the field out.

use std::fmt;

use super::names::Labels;

/// Longest selector read, in bytes.
const LONGEST: usize = 4096;
/// Deepest nesting of parentheses and negations.
const DEEPEST: usize = 32;

/// A selector that was understood. Compared by meaning and spelling alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Selector {
    text: String,
    expression: Expression,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Expression {
    All,
    Has(String),
    Equal(String, String),
    In(String, Vec<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

/// Why a selector was not understood, and where: an offset in bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSelector {
    #[error("selector is longer than {LONGEST} bytes")]
    TooLong,
    #[error("selector is nested deeper than {DEEPEST} levels")]
    TooDeep,
    #[error("expected {expected} in selector at offset {offset}")]
    Syntax {
        expected: &'static str,
        offset: usize,
    },
}

impl Selector {
    /// # Errors
    /// `BadSelector` if the text is not a selector, too long or nested too deep.
    pub fn parse(text: &str) -> Result<Selector, BadSelector> {
        if text.len() > LONGEST {
            return Err(BadSelector::TooLong);
        }
        let mut parser = Parser {
            text,
            offset: 0,
            depth: 0,
        };
        let expression = parser.either()?;
        parser.skip_space();
        if parser.offset < text.len() {
            return Err(parser.error("`&&`, `||` or the end"));
        }
        Ok(Selector {
            text: text.to_owned(),
            expression,
        })
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.expression.matches(labels)
    }

    /// Whether it is plainly `all()`.
    pub fn is_all(&self) -> bool {
        self.expression == Expression::All
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let test = |key: &String, holds: &dyn Fn(&str) -> bool| {
            labels.get(key).is_some_and(|value| holds(value))
        };
        match self {
            Expression::All => true,
            Expression::Has(key) => labels.contains_key(key),
            Expression::Equal(key, wanted) => test(key, &|value| value == wanted),
            Expression::In(key, wanted) => test(key, &|value| wanted.iter().any(|w| w == value)),
            Expression::Contains(key, part) => test(key, &|value| value.contains(part.as_str())),
            Expression::StartsWith(key, part) => {
                test(key, &|value| value.starts_with(part.as_str()))
            }
            Expression::EndsWith(key, part) => test(key, &|value| value.ends_with(part.as_str())),
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(terms) => terms.iter().all(|term| term.matches(labels)),
            Expression::Or(terms) => terms.iter().any(|term| term.matches(labels)),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    offset: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn either(&mut self) -> Result<Expression, BadSelector> {
        let mut terms = vec![self.both()?];
        while self.take("||") {
            terms.push(self.both()?);
        }
        Ok(Self::joined(terms, Expression::Or))
    }

    fn both(&mut self) -> Result<Expression, BadSelector> {
        let mut terms = vec![self.negated()?];
        while self.take("&&") {
            terms.push(self.negated()?);
        }
        Ok(Self::joined(terms, Expression::And))
    }

    fn joined(mut terms: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
        match (terms.len(), terms.pop()) {
            (1, Some(term)) => term,
            (_, last) => {
                terms.extend(last);
                join(terms)
            }
        }
    }

    fn negated(&mut self) -> Result<Expression, BadSelector> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(BadSelector::TooDeep);
        }
        let expression = if self.take("!") {
            Expression::Not(Box::new(self.negated()?))
        } else {
            self.term()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn term(&mut self) -> Result<Expression, BadSelector> {
        if self.take("(") {
            let inner = self.either()?;
            self.expect(")", "`)`")?;
            return Ok(inner);
        }
        let key = self.key()?;
        if self.take("(") {
            let expression = match key {
                "all" | "global" => Expression::All,
                "has" => Expression::Has(self.key()?.to_owned()),
                _ => return Err(self.error("all(), global() or has()")),
            };
            self.expect(")", "`)`")?;
            return Ok(expression);
        }
        self.test(key.to_owned())
    }

    fn test(&mut self, key: String) -> Result<Expression, BadSelector> {
        let not = |expression| Expression::Not(Box::new(expression));
        if self.take("==") {
            return Ok(Expression::Equal(key, self.string()?));
        }
        if self.take("!=") {
            return Ok(not(Expression::Equal(key, self.string()?)));
        }
        if self.take_word("in") {
            return Ok(Expression::In(key, self.set()?));
        }
        if self.take_word("not") {
            self.expect_word("in", "`in`")?;
            return Ok(not(Expression::In(key, self.set()?)));
        }
        if self.take_word("contains") {
            return Ok(Expression::Contains(key, self.string()?));
        }
        if self.take_word("starts") {
            self.expect_word("with", "`with`")?;
            return Ok(Expression::StartsWith(key, self.string()?));
        }
        if self.take_word("ends") {
            self.expect_word("with", "`with`")?;
            return Ok(Expression::EndsWith(key, self.string()?));
        }
        Err(self.error("==, !=, in, not in, contains, starts with or ends with"))
    }

    fn set(&mut self) -> Result<Vec<String>, BadSelector> {
        self.expect("{", "`{`")?;
        let mut values = Vec::new();
        if self.take("}") {
            return Ok(values);
        }
        loop {
            values.push(self.string()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect("}", "`,` or `}`")?;
        Ok(values)
    }

    fn string(&mut self) -> Result<String, BadSelector> {
        self.skip_space();
        let wanted = "a string in quotes";
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            Some(_) | None => return Err(self.error(wanted)),
        };
        let inner = self.rest().get(1..).unwrap_or_default();
        let end = inner.find(quote).ok_or_else(|| self.error(wanted))?;
        let value = inner.get(..end).unwrap_or_default().to_owned();
        self.offset += end + 2;
        Ok(value)
    }

    fn key(&mut self) -> Result<&'t str, BadSelector> {
        self.skip_space();
        let word = self.word();
        if word.is_empty() {
            return Err(self.error("a label or `(`"));
        }
        self.offset += word.len();
        Ok(word)
    }

    fn word(&self) -> &'t str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"_./-".contains(c))
            .unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(symbol);
        if found {
            self.offset += symbol.len();
        }
        found
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let found = self.word() == wanted;
        if found {
            self.offset += wanted.len();
        }
        found
    }

    fn expect(&mut self, symbol: &str, expected: &'static str) -> Result<(), BadSelector> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn expect_word(&mut self, word: &str, expected: &'static str) -> Result<(), BadSelector> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn error(&self, expected: &'static str) -> BadSelector {
        BadSelector::Syntax {
            expected,
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        [
            ("rack", "a"),
            ("role", "db-main"),
            ("example.com/zone", "z1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn selectors_match_as_calico_defines_them() {
        for (text, expected) in [
            ("all()", true),
            (" global( ) ", true),
            ("has(rack)", true),
            ("has(example.com/zone)", true),
            ("!has(rack)", false),
            ("!has(gone)", true),
            ("rack == 'a'", true),
            ("rack == \"b\"", false),
            ("rack != 'a'", false),
            ("gone != 'a'", true),
            ("gone == ''", false),
            ("rack in {'a', 'b'}", true),
            ("rack in {}", false),
            ("rack not in {'a'}", false),
            ("gone not in {'a'}", true),
            ("role contains 'b-m'", true),
            ("role starts with 'db'", true),
            ("role ends with 'db'", false),
            ("rack == 'b' || role == 'db-main' && has(rack)", true),
            ("rack == 'a' || has(gone) && has(gone)", true),
            ("(rack == 'a' || has(rack)) && has(gone)", false),
            ("!(rack == 'a' && has(gone))", true),
            ("!!has(rack)", true),
            ("all == 'x'", false),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.matches(&labels()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_offset() {
        for (text, offset) in [
            ("", 0),
            ("rack", 4),
            ("rack = 'a'", 5),
            ("rack == a", 8),
            ("rack == 'a", 8),
            ("rack == 'a' has(x)", 12),
            ("has(rack", 8),
            ("(has(rack)", 10),
            ("some(rack)", 5),
            ("rack in {'a' 'b'}", 13),
            ("rack not {'a'}", 9),
            ("räck == 'a'", 1),
        ] {
            match Selector::parse(text) {
                Err(BadSelector::Syntax { offset: found, .. }) => {
                    assert_eq!(found, offset, "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn nesting_and_length_are_bounded() {
        let deep = format!("{}all(){}", "(".repeat(1000), ")".repeat(1000));
        assert_eq!(Selector::parse(&deep), Err(BadSelector::TooDeep));
        let negated = format!("{}all()", "!".repeat(1000));
        assert_eq!(Selector::parse(&negated), Err(BadSelector::TooDeep));
        let long = " ".repeat(5000);
        assert_eq!(Selector::parse(&long), Err(BadSelector::TooLong));
    }
}
