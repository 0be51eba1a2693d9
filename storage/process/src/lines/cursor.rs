//! Walks a line from field to field.

use std::borrow::Cow;

use super::LineError;

/// What is left of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    whole: &'a str,
    pub rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub fn new(whole: &'a str) -> Cursor<'a> {
        Cursor { whole, rest: whole }
    }

    /// Where it stands, in characters from 1.
    pub fn column(&self) -> usize {
        let behind = &self.whole[..self.whole.len() - self.rest.len()];
        behind.chars().count() + 1
    }

    /// What stands here is not `expected`.
    pub fn wrong(&self, field: &'static str, expected: &'static str) -> LineError {
        let column = self.column();
        if self.rest.is_empty() {
            return LineError::Ends { field, column };
        }
        let word = self.rest.split(' ').next().unwrap_or_default();
        LineError::Field { field, column, found: word.chars().take(40).collect(), expected }
    }

    /// Takes `text` if it stands here.
    pub fn takes(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes the space in front of `field`.
    pub fn space(&mut self, field: &'static str) -> Result<(), LineError> {
        if self.takes(" ") { Ok(()) } else { Err(self.wrong(field, "a space and the field")) }
    }

    /// Takes everything up to the next space or the end: at least a character.
    pub fn word(&mut self, field: &'static str) -> Result<&'a str, LineError> {
        let end = self.rest.find(' ').unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.wrong(field, "a word"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    /// Takes everything up to `closing`, and that too.
    pub fn until(&mut self, field: &'static str, closing: char) -> Result<&'a str, LineError> {
        let column = self.column();
        let open = || LineError::Open { field, column, closing };
        let (inside, rest) = self.rest.split_once(closing).ok_or_else(open)?;
        self.rest = rest;
        Ok(inside)
    }

    /// Takes a field in double quotes, in which a backslash takes the meaning from the character behind it.
    pub fn quoted(&mut self, field: &'static str) -> Result<&'a str, LineError> {
        let column = self.column();
        if !self.takes("\"") {
            return Err(self.wrong(field, "a text in double quotes"));
        }
        let mut escaped = false;
        for (at, byte) in self.rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let inside = &self.rest[..at];
                    self.rest = &self.rest[at + 1..];
                    return Ok(inside);
                }
                _ => {}
            }
        }
        Err(LineError::Open { field, column, closing: '"' })
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), LineError> {
        if self.rest.is_empty() { Ok(()) } else { Err(LineError::More { column: self.column() }) }
    }
}

/// Takes the backslash from those of `special` that have one; other escapes stay as they are.
pub(super) fn unescaped<'a>(text: &'a str, special: &[char]) -> Cow<'a, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            match chars.next() {
                Some(next) if special.contains(&next) => out.push(next),
                Some(next) => out.extend([c, next]),
                None => out.push(c),
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Adds `text` to `out` with a backslash in front of those of `special`.
pub(super) fn escape_into(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
}

/// `-` means that there is nothing.
pub(super) fn present(text: &str) -> Option<&str> {
    (text != "-").then_some(text)
}

/// Names of months, as both formats write them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Number of a month, from 1.
pub(super) fn month(name: &str) -> Option<i8> {
    MONTHS.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, number)| number)
}

/// Name of the month of this number.
pub(super) fn month_name(number: &str) -> Option<&'static str> {
    let number: usize = number.parse().ok()?;
    MONTHS.get(number.checked_sub(1)?).copied()
}

/// Whether these are two digits below `limit`.
pub(super) fn two_digits(text: &str, limit: u8) -> bool {
    text.len() == 2
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u8>().is_ok_and(|n| n < limit)
}

/// Whether this is `hh:mm:ss`.
pub(super) fn clock(text: &str) -> bool {
    let mut parts = text.split(':');
    let mut next = |limit| parts.next().is_some_and(|part| two_digits(part, limit));
    next(24) && next(60) && next(60) && parts.next().is_none()
}
