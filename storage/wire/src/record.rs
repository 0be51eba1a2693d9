//! Records inside a batch: a 16-byte header, then key, headers and payload as plain bytes, walkable from
//! the front.

use crate::le::{u16_ule, u32_ule, u64_ule};
use crate::{BatchError, MAX_KEY_CHARS, portable_header};

portable_header! {
    /// In front of every record. The record is padded with zeros to a multiple of 8 bytes.
    pub struct RecordHeader, 16 bytes {
        /// Bytes of this header, key, headers and payload, without the padding.
        length: u32_ule,
        /// Bytes of the partition key (UTF-8), which follows this header.
        key_len: u16_ule,
        /// Bytes of the encoded headers, which follow the key.
        headers_len: u16_ule,
        /// The producer's time of the record, nanoseconds since 1970 UTC.
        timestamp_ns: u64_ule,
    }
}

/// Size of [`RecordHeader`] in bytes.
pub const RECORD_HEADER_LEN: usize = RecordHeader::LEN;

/// `len` rounded up to the record and batch alignment of 8 bytes.
pub const fn padded(len: usize) -> usize {
    (len + 7) & !7
}

/// A name and value that travel with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name, at most 255 bytes of UTF-8.
    pub name: &'a str,
    /// Value, at most 65,535 bytes; all headers of a record together hold at most 65,535 bytes.
    pub value: &'a [u8],
}

/// A record read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Sequence number in the shard: dense, from 0.
    pub sequence: u64,
    /// The producer's time, nanoseconds since 1970 UTC.
    pub timestamp_ns: u64,
    /// Partition key.
    pub key: &'a [u8],
    /// Encoded headers; see [`RecordView::headers`].
    pub raw_headers: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The headers, in order.
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter { rest: self.raw_headers }
    }
}

/// Walks a record's headers: `name_len u8, value_len u16 LE, name, value`, one after the other.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (&[name_len, lo, hi], rest) = self.rest.split_first_chunk::<3>()?;
        let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([lo, hi])))?;
        self.rest = rest;
        Some(Header { name: std::str::from_utf8(name).ok()?, value })
    }
}

/// Walks the records of a batch body whose structure was checked at the door ([`crate::BatchView::check`]).
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) sequence: u64,
    pub(crate) left: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        if self.left == 0 {
            return None;
        }
        let head = RecordHeader::view(self.rest)?;
        let length = head.length.to_native() as usize;
        let key_end = RECORD_HEADER_LEN + usize::from(head.key_len.to_native());
        let headers_end = key_end + usize::from(head.headers_len.to_native());
        let record = RecordView {
            sequence: self.sequence,
            timestamp_ns: head.timestamp_ns.to_native(),
            key: self.rest.get(RECORD_HEADER_LEN..key_end)?,
            raw_headers: self.rest.get(key_end..headers_end)?,
            payload: self.rest.get(headers_end..length)?,
        };
        self.rest = self.rest.get(padded(length)..)?;
        self.sequence += 1;
        self.left -= 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// Walks the structure of a batch body once, so that no later reader can run off its end: `count` records,
/// each within the body and within `max_record` bytes, keys UTF-8 and at most 256 characters, headers
/// well-formed. (That is the door check: nothing behind it looks again.)
pub(crate) fn check_records(body: &[u8], count: u32, max_record: u32) -> Result<(), BatchError> {
    let mut rest = body;
    for index in 0..count {
        let length = check_record(rest, index, max_record)?;
        rest = rest.get(length..).ok_or(BatchError::Structure { record: index })?;
    }
    if rest.is_empty() { Ok(()) } else { Err(BatchError::Structure { record: count }) }
}

/// Checks the record at the start of `rest`; its length with its padding.
#[inline]
pub(crate) fn check_record(rest: &[u8], index: u32, max_record: u32) -> Result<usize, BatchError> {
    let head = RecordHeader::view(rest).ok_or(BatchError::Structure { record: index })?;
    let length = head.length.to_native() as usize;
    let key_len = usize::from(head.key_len.to_native());
    let headers_len = usize::from(head.headers_len.to_native());
    let front = RECORD_HEADER_LEN + key_len + headers_len;
    if length < front || length > rest.len() {
        return Err(BatchError::Structure { record: index });
    }
    let bytes = (length - RECORD_HEADER_LEN) as u64;
    if bytes > u64::from(max_record) {
        return Err(BatchError::RecordTooLarge { record: index, bytes, limit: max_record });
    }
    if key_len > 0 {
        check_key(&rest[RECORD_HEADER_LEN..RECORD_HEADER_LEN + key_len], index)?;
    }
    if headers_len > 0 {
        let raw = &rest[RECORD_HEADER_LEN + key_len..front];
        let mut walk = HeaderIter { rest: raw };
        while walk.next().is_some() {}
        if !walk.rest.is_empty() {
            return Err(BatchError::Headers { record: index });
        }
    }
    Ok(padded(length))
}

fn check_key(key: &[u8], record: u32) -> Result<(), BatchError> {
    let text = std::str::from_utf8(key).map_err(|_| BatchError::KeyNotUtf8 { record })?;
    // A key of at most 256 bytes has at most 256 characters: the common case needs no count.
    if key.len() > MAX_KEY_CHARS && text.chars().count() > MAX_KEY_CHARS {
        return Err(BatchError::KeyTooLong { record, chars: text.chars().count() });
    }
    Ok(())
}
