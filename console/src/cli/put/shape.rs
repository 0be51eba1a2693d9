//! From what was read to what is sent: checked, or made into a document, with its key. Pure.

use std::borrow::Cow;

use highwater_process::lines::{FORMAT_HEADER, LINE_HEADER, LineError, LineFormat};
use serde_json::Value;

use crate::input::{Format, Key};

/// Why a piece of the input cannot be the record that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
    /// Not a line of its format.
    #[error("not a line of {}: {error}", .format.name())]
    Line {
        /// The format.
        format: LineFormat,
        /// What is wrong.
        error: LineError,
    },
    /// Longer than a record may be; what is kept of it is its beginning.
    #[error("line of {bytes} bytes, which is more than the server takes")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// It cannot be a record.
    #[error("{0}")]
    Refused(String),
    /// The document has no such field.
    #[error("no field {0:?} to take the key from")]
    NoField(String),
    /// The field is an object or array, which is no key.
    #[error("field {0:?} is no text, number or truth value and cannot be a key")]
    NoKey(String),
}

/// A record to be sent.
#[derive(Debug)]
pub struct Shaped<'a> {
    /// Partition key.
    pub key: Cow<'a, str>,
    /// Names and values that travel with it.
    pub headers: Vec<(&'static str, &'a [u8])>,
    /// Payload.
    pub payload: Cow<'a, [u8]>,
}

/// The record of `piece`, read at `now_ns` (nanoseconds since 1970 UTC).
pub fn shape<'a>(
    format: Format,
    key: &'a Key,
    piece: &'a [u8],
    now_ns: u64,
) -> Result<Shaped<'a>, Unfit> {
    let mut headers = Vec::new();
    let mut payload = Cow::Borrowed(piece);
    if let Some(format) = format.of_lines() {
        let unfit = |error| Unfit::Line { format, error };
        let parsed = format.parse(piece, now_ns).map_err(unfit)?;
        headers.push((FORMAT_HEADER, format.name().as_bytes()));
        if !parsed.exact {
            headers.push((LINE_HEADER, piece));
        }
        payload = Cow::Owned(parsed.json);
    }
    let key = match key {
        Key::Field(field) => Cow::Owned(key_of(&payload, field)?),
        _ if format == Format::Json => {
            check_json(&payload)?;
            chosen(key)
        }
        _ => chosen(key),
    };
    Ok(Shaped { key, headers, payload })
}

fn chosen(key: &Key) -> Cow<'_, str> {
    match key {
        Key::Constant(value) => Cow::Borrowed(value),
        _ => Cow::Owned(format!("{:016x}", fastrand::u64(..))),
    }
}

/// The value of `field` (dots lead into objects) of a JSON document, as a key.
fn key_of(document: &[u8], field: &str) -> Result<String, Unfit> {
    let value: Value = serde_json::from_slice(document).map_err(Unfit::Json)?;
    let mut at = &value;
    // A field whose own name contains dots wins over a path.
    match value.get(field) {
        Some(found) => at = found,
        None => {
            for name in field.split('.') {
                at = at.get(name).ok_or_else(|| Unfit::NoField(field.to_owned()))?;
            }
        }
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) | Value::Null => Ok(at.to_string()),
        Value::Array(_) | Value::Object(_) => Err(Unfit::NoKey(field.to_owned())),
    }
}

/// Refuses what is not JSON.
fn check_json(document: &[u8]) -> Result<(), Unfit> {
    let ignored: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(document);
    ignored.map(drop).map_err(Unfit::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_documents() {
        let document = br#"{"user":{"id":7,"name":"Zo\u00eb"},"a.b":true,"list":[]}"#;
        assert_eq!(key_of(document, "user.id").unwrap(), "7");
        assert_eq!(key_of(document, "user.name").unwrap(), "Zo\u{eb}");
        assert_eq!(key_of(document, "a.b").unwrap(), "true");
        assert!(matches!(key_of(document, "list"), Err(Unfit::NoKey(_))));
        assert!(matches!(key_of(document, "user.x"), Err(Unfit::NoField(_))));
        assert!(matches!(key_of(b"{", "a"), Err(Unfit::Json(_))));
        assert!(check_json(b"{} x").is_err() && check_json(b"[1]").is_ok());
    }

    #[test]
    fn a_line_becomes_a_document_that_knows_its_line() {
        let line = b"h - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 404 1";
        let key = Key::Field("client".into());
        let shaped = shape(Format::AccessLog, &key, line, 0).unwrap();
        assert_eq!(shaped.key, "h");
        assert_eq!(shaped.headers, [("format", &b"access-log"[..])]);
        let document: Value = serde_json::from_slice(&shaped.payload).unwrap();
        assert_eq!(document["status"], 404);
        let odd = [&line[..], b"\r"].concat();
        let shaped = shape(Format::AccessLog, &key, &odd, 0).unwrap();
        assert_eq!(shaped.headers[1], ("line", &odd[..]));
        let unfit = shape(Format::Syslog, &key, line, 0).unwrap_err().to_string();
        assert!(unfit.starts_with("not a line of syslog: time at column 1"), "{unfit}");
        let key = Key::Constant("k".into());
        let plain = shape(Format::Lines, &key, line, 0).unwrap();
        assert_eq!((&*plain.key, &*plain.payload, plain.headers.len()), ("k", &line[..], 0));
    }
}
