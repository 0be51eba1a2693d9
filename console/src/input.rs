//! Records from a file or a pipe: lines, JSON documents a line, or everything as one record. Memory stays
//! bounded whatever comes.

use std::io::{self, BufRead, Read as _};

use highwater_process::lines::LineFormat;

/// How the input is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A record a line, without its newline, byte for byte
    Lines,
    /// A JSON document a line; empty lines are skipped
    Json,
    /// Everything as one record
    Raw,
    /// Apache's access log, common or combined: a JSON document a line; `tail` gives the line back
    AccessLog,
    /// Syslog, RFC 3164 or 5424: a JSON document a line; `tail` gives the line back
    Syslog,
}

impl Format {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Format::Lines => "lines",
            Format::Json => "json",
            Format::Raw => "raw",
            Format::AccessLog | Format::Syslog => self.of_lines().map_or("lines", LineFormat::name),
        }
    }

    /// What lines are turned into documents as.
    pub fn of_lines(self) -> Option<LineFormat> {
        match self {
            Format::AccessLog => Some(LineFormat::AccessLog),
            Format::Syslog => Some(LineFormat::Syslog),
            _ => None,
        }
    }

    /// Whether its records are JSON documents.
    pub fn documents(self) -> bool {
        self == Format::Json || self.of_lines().is_some()
    }
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
            Format::Json | Format::AccessLog | Format::Syslog => loop {
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
