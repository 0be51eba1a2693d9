//! A record as a line of JSON.

use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use highwater_client::Delivery;
use highwater_wire::RecordView;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::human::rfc3339;

/// When the record of this sequence number reached the server, nanoseconds since 1970 UTC.
pub fn arrival(delivery: &Delivery, sequence: u64) -> u64 {
    delivery
        .batches()
        .find(|batch| (batch.base_sequence()..batch.end_sequence()).contains(&sequence))
        .map_or(0, |batch| batch.header().arrival_ns.to_native())
}

/// Bytes as text where they are text, else as base64 under another name, so that nothing is ever guessed.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => {
            object.insert(format!("{name}_base64"), Value::from(BASE64_STANDARD.encode(bytes)))
        }
    };
}

/// Writes `record` as one line.
pub fn json(
    stream: &str,
    shard: u32,
    record: &RecordView<'_>,
    arrival_ns: u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut object = Map::new();
    object.insert("stream".into(), stream.into());
    object.insert("shard".into(), shard.into());
    object.insert("sequence".into(), record.sequence.into());
    put_bytes(&mut object, "key", record.key);
    object.insert("timestamp".into(), rfc3339(record.timestamp_ns).into());
    object.insert("arrival".into(), rfc3339(arrival_ns).into());
    let header = |h: highwater_wire::Header<'_>| {
        let mut header = Map::new();
        header.insert("name".into(), h.name.into());
        put_bytes(&mut header, "value", h.value);
        Value::from(header)
    };
    object.insert("headers".into(), record.headers().map(header).collect());
    put_bytes(&mut object, "payload", record.payload);
    serde_json::to_writer(&mut *out, &object)?;
    Ok(out.write_all(b"\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
