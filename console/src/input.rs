//! Records from a file or a pipe: lines, JSON documents a line, or everything as one record. Memory stays
//! bounded whatever comes.

use std::io::{self, BufRead, Read as _};

use serde_json::Value;

/// How the input is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A record a line, without its newline, byte for byte
    Lines,
    /// A JSON document a line; empty lines are skipped
    Json,
    /// Everything as one record
    Raw,
}

/// Why there is no next record. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Reading failed.
    #[error("line {line}: cannot read: {error}")]
    Read {
        /// Where.
        line: u64,
        /// What the system said.
        error: io::Error,
    },
    /// A record over the limit.
    #[error("line {line}: record of {bytes} bytes; the server's limit is {limit}")]
    TooLong {
        /// Where.
        line: u64,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u32,
    },
    /// Everything as one record is over the limit.
    #[error("record of more than {limit} bytes, which is the server's limit")]
    RawTooLong {
        /// The limit.
        limit: u32,
    },
    /// Not JSON.
    #[error("line {line}: not JSON: {error}")]
    Json {
        /// Where.
        line: u64,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The document has no such field.
    #[error("line {line}: no field {field:?} to take the key from")]
    NoField {
        /// Where.
        line: u64,
        /// The field asked for.
        field: String,
    },
    /// The field is an object or array, which is no key.
    #[error("line {line}: field {field:?} is no text, number or truth value and cannot be a key")]
    NoKey {
        /// Where.
        line: u64,
        /// The field asked for.
        field: String,
    },
}

/// Where partition keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A new one for each record: spreads records evenly over the shards.
    Random,
    /// The same for all: one shard, one order.
    Constant(String),
    /// A field of the JSON document; dots lead into objects.
    Field(String),
}

impl std::str::FromStr for Key {
    type Err = std::convert::Infallible;

    /// `random`, `const`, `const:VALUE`, or a field; `.random` is the field of that name.
    fn from_str(text: &str) -> Result<Key, Self::Err> {
        Ok(match text {
            "random" => Key::Random,
            "const" => Key::Constant("const".to_owned()),
            text => match text.strip_prefix("const:") {
                Some(value) => Key::Constant(value.to_owned()),
                None => Key::Field(text.strip_prefix('.').unwrap_or(text).to_owned()),
            },
        })
    }
}

/// Cuts records out of a reader.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    format: Format,
    limit: u32,
    line: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: BufRead> Records<R> {
    /// Records of at most `limit` bytes.
    pub fn new(reader: R, format: Format, limit: u32) -> Records<R> {
        Records { reader, format, limit, line: 0, buffer: Vec::new(), done: false }
    }

    /// What is read from.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// The next record, valid until the next call, with the line it came from.
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>, InputError> {
        let there = match self.format {
            Format::Lines => self.read_line()?,
            Format::Json => loop {
                let there = self.read_line()?;
                if !there || !self.buffer.iter().all(u8::is_ascii_whitespace) {
                    break there;
                }
            },
            Format::Raw => self.read_all()?,
        };
        Ok(there.then_some((self.line, &self.buffer)))
    }

    /// A line without its newline into the buffer; false at the end.
    fn read_line(&mut self) -> Result<bool, InputError> {
        self.line += 1;
        self.buffer.clear();
        let (line, limit) = (self.line, self.limit);
        let failed = |error| InputError::Read { line, error };
        // One more than the limit for the newline, or to see that the line is too long.
        let mut part = (&mut self.reader).take(u64::from(limit) + 1);
        let read = part.read_until(b'\n', &mut self.buffer).map_err(failed)?;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if read as u64 > u64::from(limit) {
            let rest = skip_line(&mut self.reader).map_err(failed)?;
            return Err(InputError::TooLong { line, bytes: read as u64 + rest, limit });
        }
        Ok(read > 0)
    }

    fn read_all(&mut self) -> Result<bool, InputError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(false);
        }
        self.line = 1;
        let mut all = (&mut self.reader).take(u64::from(self.limit) + 1);
        all.read_to_end(&mut self.buffer).map_err(|error| InputError::Read { line: 1, error })?;
        if self.buffer.len() > self.limit as usize {
            return Err(InputError::RawTooLong { limit: self.limit });
        }
        Ok(true)
    }
}

/// Reads on to the next newline; how many bytes were before it.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let bytes = match reader.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (used, end) = match bytes.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        reader.consume(used);
        skipped += used as u64;
        if end {
            return Ok(skipped.saturating_sub(u64::from(used > 0)));
        }
    }
}

/// The value of `field` (dots lead into objects) of the JSON document in `line`, as a key.
pub fn key_of(document: &[u8], field: &str, line: u64) -> Result<String, InputError> {
    let value = parse(document, line)?;
    let mut at = &value;
    // A field whose own name contains dots wins over a path.
    match value.get(field) {
        Some(found) => at = found,
        None => {
            for name in field.split('.') {
                at = at
                    .get(name)
                    .ok_or_else(|| InputError::NoField { line, field: field.to_owned() })?;
            }
        }
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) | Value::Null => Ok(at.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(InputError::NoKey { line, field: field.to_owned() })
        }
    }
}

/// Refuses what is not JSON.
pub fn check_json(document: &[u8], line: u64) -> Result<(), InputError> {
    let ignored: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(document);
    ignored.map(drop).map_err(|error| InputError::Json { line, error })
}

fn parse(document: &[u8], line: u64) -> Result<Value, InputError> {
    serde_json::from_slice(document).map_err(|error| InputError::Json { line, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(input: &[u8], format: Format, limit: u32) -> Result<Vec<Vec<u8>>, InputError> {
        // A tiny buffer, so that lines cross its end.
        let mut records = Records::new(io::BufReader::with_capacity(3, input), format, limit);
        let mut list = Vec::new();
        while let Some((_, record)) = records.next()? {
            list.push(record.to_vec());
        }
        Ok(list)
    }

    #[test]
    fn lines_are_byte_exact() {
        let got = all(b"a\r\n\n\xff\x00b\nlast", Format::Lines, 100).unwrap();
        assert_eq!(got, [&b"a\r"[..], b"", b"\xff\x00b", b"last"]);
        assert_eq!(all(b"", Format::Lines, 10).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(all(b"12345\n12345", Format::Lines, 5).unwrap().len(), 2);
    }

    #[test]
    fn long_lines_are_named() {
        let error = all(b"ok\n12345678\nnext\n", Format::Lines, 5).unwrap_err().to_string();
        assert_eq!(error, "line 2: record of 8 bytes; the server's limit is 5");
        let error = all(b"12345678", Format::Lines, 5).unwrap_err().to_string();
        assert_eq!(error, "line 1: record of 8 bytes; the server's limit is 5");
        let error = all(b"123456\n", Format::Lines, 5).unwrap_err().to_string();
        assert_eq!(error, "line 1: record of 6 bytes; the server's limit is 5");
        assert!(all(b"123456", Format::Raw, 5).is_err());
    }

    #[test]
    fn raw_is_one_record_and_json_skips_empty_lines() {
        assert_eq!(all(b"a\nb", Format::Raw, 9).unwrap(), [b"a\nb"]);
        assert_eq!(all(b"", Format::Raw, 9).unwrap(), [b""]);
        assert_eq!(all(b"{}\n \n[1]\n", Format::Json, 9).unwrap(), [&b"{}"[..], b"[1]"]);
    }

    #[test]
    fn keys() {
        let key = |text: &str| text.parse::<Key>().unwrap();
        assert_eq!(key("random"), Key::Random);
        assert_eq!(key("const"), Key::Constant("const".into()));
        assert_eq!(key("const:eu"), Key::Constant("eu".into()));
        assert_eq!(key(".random"), Key::Field("random".into()));
        let document = br#"{"user":{"id":7,"name":"Zo\u00eb"},"a.b":true,"list":[]}"#;
        assert_eq!(key_of(document, "user.id", 1).unwrap(), "7");
        assert_eq!(key_of(document, "user.name", 1).unwrap(), "Zo\u{eb}");
        assert_eq!(key_of(document, "a.b", 1).unwrap(), "true");
        assert!(matches!(key_of(document, "list", 4), Err(InputError::NoKey { line: 4, .. })));
        assert!(matches!(key_of(document, "user.x", 4), Err(InputError::NoField { .. })));
        assert!(matches!(key_of(b"{", "a", 4), Err(InputError::Json { line: 4, .. })));
        assert!(check_json(b"{} x", 1).is_err() && check_json(b"[1]", 1).is_ok());
    }

    proptest! {
        #[test]
        fn joined_lines_come_back(lines in prop::collection::vec("[^\n]{0,20}", 0..20), end: bool) {
            let mut input = lines.join("\n").into_bytes();
            if end || lines.last().is_some_and(String::is_empty) {
                input.push(b'\n');
            }
            let expected: Vec<_> = if input.is_empty() { vec![] } else {
                let text = input.strip_suffix(b"\n").unwrap_or(&input);
                text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
            };
            prop_assert_eq!(all(&input, Format::Lines, 1000).unwrap(), expected);
        }
    }
}
