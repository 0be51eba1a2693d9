//! A record as a line of text or JSON.

use std::io::Write;
use std::iter::Peekable;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use highwater_process::lines::original;
use highwater_wire::{BatchView, RecordView};
use serde::Serialize;

use crate::failure::Failure;
use crate::human::rfc3339;

/// A record. Bytes are text where they are text, else base64 under another name, so that nothing is ever guessed.
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
    headers: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[derive(Serialize)]
struct Header<'a> {
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

/// When records reached the server, looked up in the order of the records.
pub struct Arrivals<'a, I: Iterator<Item = BatchView<'a>>>(Peekable<I>);

impl<'a, I: Iterator<Item = BatchView<'a>>> Arrivals<'a, I> {
    /// Of the records of `batches`.
    pub fn new(batches: I) -> Arrivals<'a, I> {
        Arrivals(batches.peekable())
    }

    /// Of the record of this sequence number, nanoseconds since 1970 UTC; 0 if its batch is not here.
    pub fn of(&mut self, sequence: u64) -> u64 {
        while self.0.next_if(|batch| batch.end_sequence() <= sequence).is_some() {}
        self.0.peek().map_or(0, |batch| batch.header().arrival_ns.to_native())
    }
}

/// Writes the line that `record` was made of, else its payload.
pub fn text(record: &RecordView<'_>, out: &mut impl Write) -> Result<(), Failure> {
    match original(record) {
        Some(line) => {
            out.write_all(&line)?;
            Ok(out.write_all(b"\n")?)
        }
        None => payload(record, out),
    }
}

/// Writes the payload of `record`.
pub fn payload(record: &RecordView<'_>, out: &mut impl Write) -> Result<(), Failure> {
    out.write_all(record.payload)?;
    Ok(out.write_all(b"\n")?)
}

/// Writes `record` as one line.
pub fn json(
    stream: &str,
    shard: u32,
    record: &RecordView<'_>,
    arrival_ns: u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (key, key_base64) = readable(record.key);
    let (payload, payload_base64) = readable(record.payload);
    let headers = record.headers().map(|header| {
        let (value, value_base64) = readable(header.value);
        Header { name: header.name, value, value_base64 }
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
    Ok(out.write_all(b"\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;
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
            json("s", 3, &record(payload), 0, &mut out).unwrap();
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
}
