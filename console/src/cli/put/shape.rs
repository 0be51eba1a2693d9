//! From what was read to what is sent: checked, or made into a document, with its key. Pure.

use std::borrow::Cow;

use highwater_process::lines::{FORMAT_HEADER, LINE_HEADER, LineError, LineFormat};
use highwater_process::record_line::{RecordLine, RecordLineError};
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
    /// Not a record as JSON.
    #[error(transparent)]
    Record(#[from] RecordLineError),
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
    pub headers: Vec<(Cow<'static, str>, Cow<'a, [u8]>)>,
    /// Payload.
    pub payload: Cow<'a, [u8]>,
    /// The producer's time, nanoseconds since 1970 UTC; `None` for now.
    pub timestamp_ns: Option<u64>,
}

/// The record of `piece`, read at `now_ns` (nanoseconds since 1970 UTC). Without a `key` it is a random one, or that of
/// a whole record.
pub fn shape<'a>(
    format: Format,
    key: Option<&'a Key>,
    piece: &'a [u8],
    now_ns: u64,
) -> Result<Shaped<'a>, Unfit> {
    if format == Format::Records {
        let RecordLine { key: own, headers, payload, timestamp_ns, .. } = RecordLine::parse(piece)?;
        let owned = |(name, value)| (Cow::Owned(name), Cow::Owned(value));
        return Ok(Shaped {
            key: key.map_or(Cow::Owned(own), chosen),
            headers: headers.into_iter().map(owned).collect(),
            payload: Cow::Owned(payload),
            timestamp_ns,
        });
    }
    let key = key.unwrap_or(&Key::Random);
    let mut headers = Vec::new();
    let mut payload = Cow::Borrowed(piece);
    if let Some(format) = format.of_lines() {
        let unfit = |error| Unfit::Line { format, error };
        let parsed = format.parse(piece, now_ns).map_err(unfit)?;
        headers.push((Cow::Borrowed(FORMAT_HEADER), Cow::Borrowed(format.name().as_bytes())));
        if !parsed.exact {
            headers.push((Cow::Borrowed(LINE_HEADER), Cow::Borrowed(piece)));
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
    Ok(Shaped { key, headers, payload, timestamp_ns: None })
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
        let shaped = shape(Format::AccessLog, Some(&key), line, 0).unwrap();
        assert_eq!(shaped.key, "h");
        assert_eq!(shaped.headers, [("format".into(), b"access-log"[..].into())]);
        let document: Value = serde_json::from_slice(&shaped.payload).unwrap();
        assert_eq!(document["status"], 404);
        let odd = [&line[..], b"\r"].concat();
        let shaped = shape(Format::AccessLog, Some(&key), &odd, 0).unwrap();
        assert_eq!(shaped.headers[1], ("line".into(), odd[..].into()));
        let unfit = shape(Format::Syslog, Some(&key), line, 0).unwrap_err().to_string();
        assert!(unfit.starts_with("not a line of syslog: time at column 1"), "{unfit}");
        let key = Key::Constant("k".into());
        let plain = shape(Format::Lines, Some(&key), line, 0).unwrap();
        assert_eq!((&*plain.key, &*plain.payload, plain.headers.len()), ("k", &line[..], 0));
    }
    #[test]
    fn a_whole_record_keeps_its_key_headers_and_time_unless_a_key_is_given() {
        let line = br#"{"key":"k","headers":[{"name":"h","value":"v"}],"payload":"p","timestamp":"1970-01-01T00:00:01Z"}"#;
        let shaped = shape(Format::Records, None, line, 0).unwrap();
        assert_eq!((&*shaped.key, &*shaped.payload), ("k", &b"p"[..]));
        assert_eq!(shaped.headers, [("h".into(), b"v"[..].into())]);
        assert_eq!(shaped.timestamp_ns, Some(1_000_000_000));
        let other = Key::Constant("other".into());
        assert_eq!(shape(Format::Records, Some(&other), line, 0).unwrap().key, "other");
        assert!(matches!(shape(Format::Records, None, b"{}", 0), Err(Unfit::Record(_))));
    }
}
