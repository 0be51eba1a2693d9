//! Records from a file or a pipe: lines, JSON documents or whole records a line, or everything as one record. Memory
//! stays bounded whatever comes.

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
    /// A whole record a line, with key, headers and time, as `replay --to FILE` and `tail --format json` write them;
    /// empty lines are skipped
    Records,
}

impl Format {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Format::Lines => "lines",
            Format::Json => "json",
            Format::Raw => "raw",
            Format::Records => "records",
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

    /// Whether a line with nothing on it is no record.
    pub fn skips_empty(self) -> bool {
        self.documents() || self == Format::Records
    }

    /// Longest line, if a record may have `max_record` bytes. In JSON a byte takes up to six (`\u001f`), and the names
    /// around it some.
    pub fn line_limit(self, max_record: u32) -> u32 {
        match self {
            Format::Records => max_record.saturating_mul(6).saturating_add(4096),
            _ => max_record,
        }
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
    #[error("line {line}: {} of {bytes} bytes; the {}limit is {limit}",
        if *.whole { "line" } else { "record" }, if *.whole { "" } else { "server's " })]
    TooLong {
        /// Where.
        line: u64,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u32,
        /// It is a line that holds a whole record as JSON.
        whole: bool,
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

/// A piece of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The line it came from, from 1.
    pub line: u64,
    /// What is there.
    pub bytes: &'a [u8],
    /// If it is longer than a record may be, what was asked to be kept is its beginning, and this its length.
    pub cut: Option<u64>,
}

/// Cuts records out of a reader.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    format: Format,
    limit: u32,
    /// What is too long is cut, and is no error.
    cuts: bool,
    line: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl<R: BufRead> Records<R> {
    /// Records of at most `max_record` bytes.
    pub fn new(reader: R, format: Format, max_record: u32) -> Records<R> {
        let limit = format.line_limit(max_record);
        Records { reader, format, limit, cuts: false, line: 0, buffer: Vec::new(), done: false }
    }

    /// What is too long is cut, if `cuts`, and is no error.
    pub fn cutting(self, cuts: bool) -> Records<R> {
        Records { cuts, ..self }
    }

    /// What is read from.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// The next record, valid until the next call.
    pub fn next(&mut self) -> Result<Option<Piece<'_>>, InputError> {
        let read = match self.format {
            Format::Lines => self.read_line()?,
            Format::Json | Format::AccessLog | Format::Syslog | Format::Records => loop {
                let read = self.read_line()?;
                if read != Some(None) || !self.buffer.iter().all(u8::is_ascii_whitespace) {
                    break read;
                }
            },
            Format::Raw => self.read_all()?,
        };
        Ok(read.map(|cut| Piece { line: self.line, bytes: &self.buffer, cut }))
    }

    /// A line without its newline into the buffer, and its length if it was cut; `None` at the end.
    fn read_line(&mut self) -> Result<Option<Option<u64>>, InputError> {
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
            let (bytes, whole) = (read as u64 + rest, self.format == Format::Records);
            if !self.cuts {
                return Err(InputError::TooLong { line, bytes, limit, whole });
            }
            self.buffer.truncate(limit as usize);
            return Ok(Some(Some(bytes)));
        }
        Ok((read > 0).then_some(None))
    }

    fn read_all(&mut self) -> Result<Option<Option<u64>>, InputError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        self.line = 1;
        let mut all = (&mut self.reader).take(u64::from(self.limit) + 1);
        let failed = |error| InputError::Read { line: 1, error };
        all.read_to_end(&mut self.buffer).map_err(failed)?;
        if self.buffer.len() <= self.limit as usize {
            return Ok(Some(None));
        }
        if !self.cuts {
            return Err(InputError::RawTooLong { limit: self.limit });
        }
        let rest = io::copy(&mut self.reader, &mut io::sink()).map_err(failed)?;
        let bytes = self.buffer.len() as u64 + rest;
        self.buffer.truncate(self.limit as usize);
        Ok(Some(Some(bytes)))
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
        while let Some(piece) = records.next()? {
            list.push(piece.bytes.to_vec());
        }
        Ok(list)
    }

    #[test]
    fn what_is_too_long_can_be_cut() {
        let cut = |format| {
            let input = &b"12345678\nok\n123456"[..];
            let mut records =
                Records::new(io::BufReader::with_capacity(3, input), format, 5).cutting(true);
            let mut list = Vec::new();
            while let Some(Piece { line, bytes, cut }) = records.next().unwrap() {
                list.push((line, bytes.to_vec(), cut));
            }
            list
        };
        let piece = |line, bytes: &str, cut| (line, bytes.as_bytes().to_vec(), cut);
        assert_eq!(
            cut(Format::Lines),
            [piece(1, "12345", Some(8)), piece(2, "ok", None), piece(3, "12345", Some(6))]
        );
        assert_eq!(cut(Format::Raw), [piece(1, "12345", Some(18))]);
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
