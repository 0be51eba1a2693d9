//! Building batches: one after another in the same memory.

use super::{
    BATCH_MAGIC, BATCH_VERSION, BatchError, BatchHeader, ENCODING_RECORDS, ProducerStamp, seal,
};
use crate::le::u32_ule;
use crate::{Header, RECORD_HEADER_LEN, RecordHeader, padded};

/// Zeros to pad a record with: one more than it can take.
const PADDING: [u8; 8] = [0; 8];

/// Builds one batch after another in the same memory.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
    first_timestamp_ns: u64,
    last_timestamp_ns: u64,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::with_capacity(0)
    }
}

impl BatchBuilder {
    /// With room for `bytes` bytes before memory grows.
    pub fn with_capacity(bytes: usize) -> BatchBuilder {
        let mut buf = Vec::with_capacity(bytes.max(BatchHeader::LEN));
        buf.resize(BatchHeader::LEN, 0);
        BatchBuilder { bytes: buf, count: 0, first_timestamp_ns: 0, last_timestamp_ns: 0 }
    }

    /// Bytes a record of these lengths takes in a batch.
    pub const fn record_len(key: usize, headers: usize, payload: usize) -> usize {
        padded(RECORD_HEADER_LEN + key + headers + payload)
    }

    /// Adds a record. Limits are the server's to enforce; only what cannot be encoded is refused here.
    pub fn push(
        &mut self,
        key: &[u8],
        headers: &[Header<'_>],
        payload: &[u8],
        timestamp_ns: u64,
    ) -> Result<(), BatchError> {
        self.push_parts(key, headers, &[payload], timestamp_ns)
    }

    /// Adds a record whose payload is the concatenation of `parts`, copied once.
    pub fn push_parts(
        &mut self,
        key: &[u8],
        headers: &[Header<'_>],
        parts: &[&[u8]],
        timestamp_ns: u64,
    ) -> Result<(), BatchError> {
        self.push_patched(key, headers, parts, timestamp_ns, |_| ())
    }

    /// Like [`BatchBuilder::push_parts`], and then lets `patch` change the record in its place: it is given
    /// the encoded headers and, right behind them, the payload. (So a checksum over what was
    /// put together is taken where it lies. `patch` must leave lengths and names of the headers alone.)
    #[inline]
    pub fn push_patched(
        &mut self,
        key: &[u8],
        headers: &[Header<'_>],
        parts: &[&[u8]],
        timestamp_ns: u64,
        patch: impl FnOnce(&mut [u8]),
    ) -> Result<(), BatchError> {
        let record = self.count;
        let key_len = u16::try_from(key.len())
            .map_err(|_| BatchError::KeyTooLong { record, chars: key.len() })?;
        let headers_len: usize = headers.iter().map(|h| 3 + h.name.len() + h.value.len()).sum();
        let headers_fit = headers.iter().all(|h| {
            h.name.len() <= usize::from(u8::MAX) && h.value.len() <= usize::from(u16::MAX)
        });
        let headers_len = u16::try_from(headers_len)
            .ok()
            .filter(|_| headers_fit)
            .ok_or(BatchError::Headers { record })?;
        let payload_len: usize = parts.iter().map(|p| p.len()).sum();
        let length = RECORD_HEADER_LEN + key.len() + usize::from(headers_len) + payload_len;
        let total = self.bytes.len() + padded(length);
        if total > i32::MAX as usize {
            return Err(BatchError::TooLarge { bytes: total as u64, limit: i32::MAX as u32 });
        }
        let header = RecordHeader {
            length: u32_ule::from_native(length as u32),
            key_len: key_len.into(),
            headers_len: headers_len.into(),
            timestamp_ns: timestamp_ns.into(),
        };
        self.bytes.reserve(padded(length) + PADDING.len());
        self.bytes.extend_from_slice(&header.to_array());
        self.bytes.extend_from_slice(key);
        let body = self.bytes.len();
        for h in headers {
            self.bytes.push(h.name.len() as u8);
            self.bytes.extend_from_slice(&(h.value.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(h.name.as_bytes());
            self.bytes.extend_from_slice(h.value);
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        patch(&mut self.bytes[body..]);
        // All the padding there can be, and back: no loop over a few bytes.
        self.bytes.extend_from_slice(&PADDING);
        self.bytes.truncate(total);
        if self.count == 0 {
            self.first_timestamp_ns = timestamp_ns;
        }
        self.last_timestamp_ns = timestamp_ns;
        self.count += 1;
        Ok(())
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, the batch header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no records yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Completes the header and its checksum and shows the batch.
    pub fn finish(&mut self, producer: ProducerStamp) -> &[u8] {
        let length = self.bytes.len();
        let header = BatchHeader {
            base_sequence: 0.into(),
            arrival_ns: 0.into(),
            epoch: 0.into(),
            crc: 0.into(),
            magic: BATCH_MAGIC.into(),
            length: (length as u32).into(),
            version: BATCH_VERSION,
            encoding: ENCODING_RECORDS,
            compression: 0,
            flags: 0,
            record_count: self.count.into(),
            producer_id: producer.id.into(),
            producer_sequence: producer.sequence.into(),
            producer_epoch: producer.epoch.into(),
            body_length: ((length - BatchHeader::LEN) as u32).into(),
            first_timestamp_ns: self.first_timestamp_ns.into(),
            last_timestamp_ns: self.last_timestamp_ns.into(),
            producer_count: 0.into(),
            packed_length: 0.into(),
        };
        header.write_to(&mut self.bytes);
        seal(&mut self.bytes);
        &self.bytes
    }

    /// Completes the batch and gives its memory away; the builder starts anew with `next` as its memory.
    pub fn finish_into(&mut self, producer: ProducerStamp, mut next: Vec<u8>) -> Vec<u8> {
        self.finish(producer);
        next.clear();
        next.resize(BatchHeader::LEN, 0);
        let done = std::mem::replace(&mut self.bytes, next);
        self.count = 0;
        done
    }

    /// Starts anew, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(BatchHeader::LEN);
        self.count = 0;
    }
}
