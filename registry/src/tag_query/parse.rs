//! Text → tag query.

use std::collections::BTreeSet;

use super::{NAME, Requirement, Subject, TagQuery, Test, is_key, is_plain};
use crate::InvalidTagQuery;

/// Longer texts are refused, in bytes: far above what people write, and below what SQLite binds.
const MAX_BYTES: usize = 16 << 10;

/// More requirements are refused: SQLite limits the depth of an expression.
const MAX_REQUIREMENTS: usize = 256;

/// Longest tag key, in bytes.
const MAX_KEY_BYTES: usize = 63;

pub(super) fn parse(text: &str) -> Result<TagQuery, InvalidTagQuery> {
    limit("bytes", text.len(), MAX_BYTES)?;
    let mut parser = Parser { text, rest: text };
    let mut requirements = vec![];
    parser.skip_space();
    while !parser.rest.is_empty() {
        requirements.push(parser.requirement()?);
        limit("requirements", requirements.len(), MAX_REQUIREMENTS)?;
        if !parser.rest.is_empty() {
            parser.expect(',', "`,` or the end")?;
            if parser.rest.is_empty() {
                return Err(parser.wrong("a requirement"));
            }
        }
    }
    Ok(TagQuery { requirements })
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), InvalidTagQuery> {
    if count > limit {
        Err(InvalidTagQuery::TooLong { what, count, limit })
    } else {
        Ok(())
    }
}

/// `rest` is the end of `text` that has not been read. Space after a token is read with it.
struct Parser<'t> {
    text: &'t str,
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn requirement(&mut self) -> Result<Requirement, InvalidTagQuery> {
        if self.accept("!") {
            return Ok(Requirement {
                subject: self.subject()?,
                test: Test::Absent,
            });
        }
        Ok(Requirement {
            subject: self.subject()?,
            test: self.test()?,
        })
    }

    fn subject(&mut self) -> Result<Subject, InvalidTagQuery> {
        let at = self.rest;
        match self.take_while(is_key) {
            NAME => Ok(Subject::Name),
            key if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Subject::Tag(key.to_owned())),
            _ => {
                self.rest = at;
                Err(self.wrong("a tag key of 1 to 63 letters, digits, `.`, `_`, `-`, `/`"))
            }
        }
    }

    fn test(&mut self) -> Result<Test, InvalidTagQuery> {
        if self.accept("!=") {
            return Ok(Test::NotIn(BTreeSet::from([self.value()?])));
        }
        if self.accept("==") || self.accept("=") {
            return Ok(Test::In(BTreeSet::from([self.value()?])));
        }
        let at = self.rest;
        match self.take_while(|character| character.is_ascii_alphabetic()) {
            "in" => Ok(Test::In(self.values()?)),
            "notin" => Ok(Test::NotIn(self.values()?)),
            "" if at.is_empty() || at.starts_with(',') => Ok(Test::Exists),
            _ => {
                self.rest = at;
                Err(self.wrong("`=`, `!=`, `in`, `notin`, `,` or the end"))
            }
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, InvalidTagQuery> {
        self.expect('(', "`(`")?;
        if self.rest.starts_with(')') {
            return Err(self.wrong("a value"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            if self.accept(")") {
                return Ok(values);
            }
            self.expect(',', "`,` or `)`")?;
        }
    }

    /// No value at all is the empty one, as in Kubernetes.
    fn value(&mut self) -> Result<String, InvalidTagQuery> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let value = self.take_while(is_plain);
        if self.rest.is_empty() || self.rest.starts_with([',', ')']) {
            return Ok(value.to_owned());
        }
        Err(self.wrong("a plain value, or one in double quotes"))
    }

    fn quoted(&mut self) -> Result<String, InvalidTagQuery> {
        let mut value = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    self.skip_space();
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => {
                        self.rest = &self.rest[at + 1..];
                        return Err(self.wrong("`\"` or `\\` after `\\`"));
                    }
                },
                _ => value.push(character),
            }
        }
        self.rest = "";
        Err(self.wrong("`\"`"))
    }

    fn accept(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else {
            return false;
        };
        self.rest = rest;
        self.skip_space();
        true
    }

    fn expect(&mut self, token: char, expected: &'static str) -> Result<(), InvalidTagQuery> {
        if self.accept(token.encode_utf8(&mut [0; 4])) {
            Ok(())
        } else {
            Err(self.wrong(expected))
        }
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'t str {
        let end = self
            .rest
            .find(|character| !is_part(character))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_space();
        taken
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn wrong(&self, expected: &'static str) -> InvalidTagQuery {
        let read = &self.text[..self.text.len() - self.rest.len()];
        let found = match self.rest.chars().next() {
            None => "the end".to_owned(),
            Some(character) => format!("`{}`", character.escape_debug()),
        };
        InvalidTagQuery::Syntax {
            position: read.chars().count() + 1,
            expected,
            found,
        }
    }
}
