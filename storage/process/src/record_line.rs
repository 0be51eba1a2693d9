//! A record as a line of JSON, and the line as a record again: what `tail --format json` prints, `replay` keeps in a
//! file, `put --format records` stores, and a load run follows as its trace.
//!
//! Bytes are text where they are text, else base64 under another name, so that nothing is ever guessed and everything
//! comes back to the byte. What a line may leave out: `stream`, `shard` and `sequence` say where the record was, and
//! are passed over when it is read; without `key` or `headers` there are none; without `timestamp` or `arrival` the
//! record has none.

use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use highwater_wire::{MAX_KEY_CHARS, RecordView};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    stream: &'a str,
    shard: u32,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    timestamp: String,
    arrival: String,
    headers: Vec<HeaderLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[derive(Serialize)]
struct HeaderLine<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// As text, or else as base64.
fn readable(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// `ns` nanoseconds since 1970 UTC as RFC 3339, in UTC.
fn rfc3339(ns: u64) -> String {
    // Every moment of 64 bits of nanoseconds lies before the year 2555.
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |t| t.to_string())
}

/// Writes `record`, which reached the server at `arrival_ns` (nanoseconds since 1970 UTC), as one line with its newline.
///
/// # Errors
/// Those of `out`.
pub fn write(
    stream: &str,
    shard: u32,
    record: &RecordView<'_>,
    arrival_ns: u64,
    out: &mut impl Write,
) -> serde_json::Result<()> {
    let (key, key_base64) = readable(record.key);
    let (payload, payload_base64) = readable(record.payload);
    let headers = record.headers().map(|header| {
        let (value, value_base64) = readable(header.value);
        HeaderLine { name: header.name, value, value_base64 }
    });
    let line = Line {
        stream,
        shard,
        sequence: record.sequence,
        key,
        key_base64,
        timestamp: rfc3339(record.timestamp_ns),
        arrival: rfc3339(arrival_ns),
        headers: headers.collect(),
        payload,
        payload_base64,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n").map_err(serde_json::Error::io)
}

/// A record that was read from its line: one that every server takes, but perhaps for its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordLine {
    /// When it reached the server, nanoseconds since 1970 UTC, if the line says so.
    pub arrival_ns: Option<u64>,
    /// The producer's time, likewise.
    pub timestamp_ns: Option<u64>,
    /// Partition key.
    pub key: String,
    /// Names and values that travel with it.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordLineError {
    /// Not JSON, or not of this form.
    #[error("not a record as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Said in two ways, or not at all.
    #[error("{field} and {field}_base64 are {}; write one of them", if *.both { "both there" } else { "both missing" })]
    Twice {
        /// Which field.
        field: &'static str,
        /// Both are there; else none is.
        both: bool,
    },
    /// Not base64.
    #[error("{field} is not base64: {error}")]
    Base64 {
        /// Which field.
        field: &'static str,
        /// Why.
        error: base64::DecodeError,
    },
    /// Not a time.
    #[error("{field} is {value:?}; it must be a time since 1970 as RFC 3339 has it")]
    Time {
        /// Which field.
        field: &'static str,
        /// What is there.
        value: String,
    },
    /// Not a key.
    #[error("the key is not UTF-8 text of at most {MAX_KEY_CHARS} characters")]
    Key,
    /// Headers that no record can have.
    #[error("a header's name is over 255 bytes long, or the headers are over 65535 together")]
    Headers,
}

/// The line, as it is read.
#[derive(Deserialize)]
struct ReadLine {
    key: Option<String>,
    key_base64: Option<String>,
    timestamp: Option<String>,
    arrival: Option<String>,
    #[serde(default)]
    headers: Vec<ReadHeader>,
    payload: Option<String>,
    payload_base64: Option<String>,
}

#[derive(Deserialize)]
struct ReadHeader {
    name: String,
    value: Option<String>,
    value_base64: Option<String>,
}

fn bytes(
    field: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, RecordLineError> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| RecordLineError::Base64 { field, error })
        }
        (text, _) => Err(RecordLineError::Twice { field, both: text.is_some() }),
    }
}

fn time(field: &'static str, text: Option<String>) -> Result<Option<u64>, RecordLineError> {
    let Some(value) = text else { return Ok(None) };
    let time = value.parse::<Timestamp>().ok();
    match time.and_then(|time| u64::try_from(time.as_nanosecond()).ok()) {
        Some(ns) => Ok(Some(ns)),
        None => Err(RecordLineError::Time { field, value: value.chars().take(80).collect() }),
    }
}

impl RecordLine {
    /// The record of `line`, with or without its newline.
    ///
    /// # Errors
    /// When the line is no record.
    pub fn parse(line: &[u8]) -> Result<RecordLine, RecordLineError> {
        let read: ReadLine = serde_json::from_slice(line)?;
        let key = match (read.key, read.key_base64) {
            (None, None) => String::new(),
            (text, base64) => {
                String::from_utf8(bytes("key", text, base64)?).map_err(|_| RecordLineError::Key)?
            }
        };
        if key.chars().count() > MAX_KEY_CHARS {
            return Err(RecordLineError::Key);
        }
        let mut headers = Vec::with_capacity(read.headers.len());
        let mut encoded = 0;
        for header in read.headers {
            let value = bytes("value", header.value, header.value_base64)?;
            encoded += 3 + header.name.len() + value.len();
            if header.name.len() > usize::from(u8::MAX) || encoded > usize::from(u16::MAX) {
                return Err(RecordLineError::Headers);
            }
            headers.push((header.name, value));
        }
        Ok(RecordLine {
            arrival_ns: time("arrival", read.arrival)?,
            timestamp_ns: time("timestamp", read.timestamp)?,
            key,
            headers,
            payload: bytes("payload", read.payload, read.payload_base64)?,
        })
    }
}

/// The part of a line that says when its record reached the server.
#[derive(Deserialize)]
struct ArrivalLine {
    arrival: Option<String>,
}

/// When the record of `line` reached the server, nanoseconds since 1970 UTC, if the line says so. The rest of it is only
/// looked at as far as that takes.
///
/// # Errors
/// When the line is no JSON object, or has no such time.
pub fn arrival(line: &[u8]) -> Result<Option<u64>, RecordLineError> {
    let read: ArrivalLine = serde_json::from_slice(line)?;
    time("arrival", read.arrival)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn text_stays_text_and_bytes_are_marked() {
        let record = |payload: &'static [u8]| RecordView {
            sequence: 7,
            timestamp_ns: 1_500_000_000,
            key: b"k",
            raw_headers: b"\x01\x02\0hv1",
            payload,
        };
        let line = |payload| {
            let mut out = Vec::new();
            write("s", 3, &record(payload), 0, &mut out).unwrap();
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        let text = line(b"caf\xc3\xa9");
        assert_eq!(text["payload"], "caf\u{e9}");
        assert_eq!((&text["shard"], &text["sequence"]), (&Value::from(3), &Value::from(7)));
        assert_eq!(text["timestamp"], "1970-01-01T00:00:01.5Z");
        assert_eq!(text["headers"][0]["name"], "h");
        assert_eq!(text["headers"][0]["value"], "v1");
        let bytes = line(b"\xff\x00");
        assert_eq!((&bytes["payload"], &bytes["payload_base64"]), (&Value::Null, &"/wA=".into()));
    }

    #[test]
    fn what_is_no_record_is_told() {
        let long = format!(r#"{{"key":"{}","payload":""}}"#, "k".repeat(257));
        let many = format!(
            r#"{{"headers":[{{"name":"a","value":"{}"}}],"payload":""}}"#,
            "v".repeat(65_532)
        );
        for (line, wanted) in [
            ("", "not a record as JSON: EOF"),
            ("[1]", "not a record as JSON"),
            ("{}", "payload and payload_base64 are both missing"),
            (r#"{"payload":"a","payload_base64":"YQ=="}"#, "are both there"),
            (r#"{"payload_base64":"*"}"#, "payload is not base64"),
            (r#"{"payload":"a","arrival":"noon"}"#, "arrival is \"noon\""),
            (r#"{"payload":"a","timestamp":"1960-01-01T00:00:00Z"}"#, "timestamp is \"1960"),
            (r#"{"payload":"a","key_base64":"/w=="}"#, "the key is not UTF-8"),
            (
                r#"{"payload":"a","headers":[{"name":"h"}]}"#,
                "value and value_base64 are both missing",
            ),
            (&long, "at most 256 characters"),
            (&many, "65535 together"),
        ] {
            let said = RecordLine::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(wanted), "{line:.60}: {said}");
        }
        let bare = RecordLine::parse(br#"{"payload":"x","unknown":1}"#).unwrap();
        assert_eq!(bare, RecordLine { payload: b"x".to_vec(), ..RecordLine::default() });
    }

    proptest! {
        #[test]
        fn a_record_comes_back_to_the_byte(
            key in "\\PC{0,20}",
            payload in prop::collection::vec(any::<u8>(), 0..60),
            value in prop::collection::vec(any::<u8>(), 0..20),
            timestamp_ns: u64,
            arrival_ns: u64,
        ) {
            let mut raw_headers = vec![2, value.len() as u8, 0, b'h', b'1'];
            raw_headers.extend_from_slice(&value);
            let record = RecordView {
                sequence: 1,
                timestamp_ns,
                key: key.as_bytes(),
                raw_headers: &raw_headers,
                payload: &payload,
            };
            let mut line = Vec::new();
            write("s", 0, &record, arrival_ns, &mut line).unwrap();
            let back = RecordLine::parse(&line).unwrap();
            prop_assert_eq!(back.key, key);
            prop_assert_eq!(back.payload, payload);
            prop_assert_eq!(back.headers, [("h1".to_owned(), value)]);
            prop_assert_eq!(back.timestamp_ns, Some(timestamp_ns));
            prop_assert_eq!(back.arrival_ns, Some(arrival_ns));
            prop_assert_eq!(arrival(&line).unwrap(), Some(arrival_ns));
        }

        #[test]
        fn nothing_from_outside_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RecordLine::parse(&line);
        }
    }
}
