//! Lines of logs as JSON documents, and back to the byte.
//!
//! A record made from a line has the JSON document as its payload and says its format in the header
//! [`FORMAT_HEADER`]. The line itself is not kept twice: nearly always it can be put together again from the document.
//! Whether it can is tried when the line is read, and where it cannot (unusual escapes, a carriage return, fields in
//! an order of their own) the record carries the line in the header [`LINE_HEADER`]. So [`original`] gives back exactly
//! the bytes that were read, and most records do not pay for it.

mod access_log;
mod cursor;
mod syslog;

use std::borrow::Cow;

use highwater_wire::RecordView;

/// Header of a record that was made from a line of a log: the name of the format.
pub const FORMAT_HEADER: &str = "format";
/// Header with the line itself, where the document does not give it back.
pub const LINE_HEADER: &str = "line";
/// Longest line that is parsed, in bytes: what a header can hold beside the others.
pub const MAX_LINE: usize = 65_000;

/// A format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineFormat {
    /// Apache's common and combined log format.
    AccessLog,
    /// Syslog as RFC 3164 and RFC 5424 have it.
    Syslog,
}

/// Why a line is not of its format. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than is parsed.
    #[error("line of {bytes} bytes; the limit is {MAX_LINE}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not text.
    #[error("byte {at} of the line is not UTF-8")]
    NotText {
        /// Which byte, from 1.
        at: usize,
    },
    /// The line ends where a field should be.
    #[error("the line ends at column {column}, where {field} should be")]
    Ends {
        /// The field.
        field: &'static str,
        /// Where.
        column: usize,
    },
    /// Something else stands where a field should be.
    #[error("{field} at column {column} is {found:?}, not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Where.
        column: usize,
        /// What stands there, shortened.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A quoted field does not end.
    #[error("{field} at column {column} has no closing {closing:?}")]
    Open {
        /// The field.
        field: &'static str,
        /// Where it begins.
        column: usize,
        /// What would end it.
        closing: char,
    },
    /// There is more behind the last field.
    #[error("there is more behind the last field, at column {column}")]
    More {
        /// Where.
        column: usize,
    },
}

/// A line as a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The JSON document: an object.
    pub json: Vec<u8>,
    /// The document alone gives the line back; else the record has to carry it in [`LINE_HEADER`].
    pub exact: bool,
}

impl LineFormat {
    /// As it is written on the command line and in [`FORMAT_HEADER`].
    pub fn name(self) -> &'static str {
        match self {
            LineFormat::AccessLog => "access-log",
            LineFormat::Syslog => "syslog",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &[u8]) -> Option<LineFormat> {
        let formats = [LineFormat::AccessLog, LineFormat::Syslog];
        formats.into_iter().find(|format| format.name().as_bytes() == name)
    }

    /// The document of `line`, which has no newline. `now_ns`, nanoseconds since 1970 UTC, says which year a time
    /// without a year belongs to (RFC 3164): the latest that does not put it more than a day ahead of now.
    ///
    /// # Errors
    /// When the line is not of this format.
    pub fn parse(self, line: &[u8], now_ns: u64) -> Result<Parsed, LineError> {
        if line.len() > MAX_LINE {
            return Err(LineError::TooLong { bytes: line.len() });
        }
        let text = std::str::from_utf8(line)
            .map_err(|e| LineError::NotText { at: e.valid_up_to() + 1 })?;
        // What a file of another system ends its lines with is not part of a field; it is given back all the same.
        let bare = text.strip_suffix('\r').unwrap_or(text);
        let (json, rebuilt) = match self {
            LineFormat::AccessLog => {
                let entry = access_log::parse(bare)?;
                (serde_json::to_vec(&entry), entry.line())
            }
            LineFormat::Syslog => {
                let entry = syslog::parse(bare, now_ns)?;
                (serde_json::to_vec(&entry), entry.line())
            }
        };
        // Text, numbers and objects with text for keys always have a JSON form.
        let json = json.unwrap_or_default();
        Ok(Parsed { json, exact: rebuilt.as_deref() == Some(text) })
    }

    /// The line that a document was made of; `None` if it is no document of this format.
    pub fn line(self, json: &[u8]) -> Option<String> {
        match self {
            LineFormat::AccessLog => {
                serde_json::from_slice::<access_log::Entry<'_>>(json).ok()?.line()
            }
            LineFormat::Syslog => serde_json::from_slice::<syslog::Entry<'_>>(json).ok()?.line(),
        }
    }
}

/// The line that a record was made of, byte for byte; `None` for a record that was not made of one.
pub fn original<'a>(record: &RecordView<'a>) -> Option<Cow<'a, [u8]>> {
    let mut format = None;
    for header in record.headers() {
        match header.name {
            LINE_HEADER => return Some(Cow::Borrowed(header.value)),
            FORMAT_HEADER => format = LineFormat::from_name(header.value),
            _ => {}
        }
    }
    format?.line(record.payload).map(|line| Cow::Owned(line.into_bytes()))
}

/// A field that may be absent (outer `None`), null, or there: absent and null are told apart.
mod maybe {
    use serde::{Deserialize, Deserializer};

    #[allow(clippy::option_option, reason = "absent and null are two things, as said above")]
    pub fn there<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        Option::<T>::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests;
