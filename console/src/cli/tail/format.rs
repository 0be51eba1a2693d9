//! A record as a line of text or JSON.

use std::io::Write;
use std::iter::Peekable;

use highwater_process::lines::original;
use highwater_process::record_line;
use highwater_wire::{BatchView, RecordView};

use crate::failure::Failure;

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

/// Writes `record` as one line of JSON.
pub fn json(
    stream: &str,
    shard: u32,
    record: &RecordView<'_>,
    arrival_ns: u64,
    out: &mut impl Write,
) -> Result<(), Failure> {
    Ok(record_line::write(stream, shard, record, arrival_ns, out)?)
}
