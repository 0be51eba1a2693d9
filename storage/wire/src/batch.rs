//! Batches: records appended together. The bytes a client builds are the bytes on disk and the bytes
//! delivered; the server writes only its own header fields, which lie outside the producer's checksum.

mod builder;
#[cfg(test)]
mod tests;

pub use builder::BatchBuilder;

use crate::le::{u32_ule, u64_ule};
use crate::record::check_records;
use crate::{Compression, Limits, RecordIter, crc32c, padded, portable_header};

/// "HWB1", little-endian.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"HWB1");
/// Version of the batch layout.
pub const BATCH_VERSION: u8 = 1;
/// Encoding tag: Highwater records. Other tags are reserved for foreign batches kept verbatim.
pub const ENCODING_RECORDS: u8 = 0;

/// Where the producer's part begins, which the checksum right before it covers.
const CHECKED_FROM: usize = 24;

portable_header! {
    /// In front of every batch: the first 20 bytes belong to the server, the rest to the producer.
    pub struct BatchHeader, 88 bytes {
        /// Server: sequence number of the first record.
        base_sequence: u64_ule,
        /// Server: time of arrival, nanoseconds since 1970 UTC.
        arrival_ns: u64_ule,
        /// Server: the shard's epoch (it grows with every start of the engine).
        epoch: u32_ule,
        /// CRC32C of bytes 24 to the end of the batch, its padding included.
        crc: u32_ule,
        /// [`BATCH_MAGIC`].
        magic: u32_ule,
        /// Bytes of the whole batch, this header included: a multiple of 8.
        length: u32_ule,
        /// [`BATCH_VERSION`].
        version: u8,
        /// Encoding of the body: [`ENCODING_RECORDS`].
        encoding: u8,
        /// Compression of the body: 0 none, 1 an LZ4 block, 2 a Zstandard frame.
        compression: u8,
        /// Reserved: 0.
        flags: u8,
        /// Records in the batch, at least 1.
        record_count: u32_ule,
        /// Who produced it; 0 for nobody in particular (no idempotence).
        producer_id: u64_ule,
        /// Number of the first record among this producer's records for this shard, from 0.
        producer_sequence: u64_ule,
        /// The producer's epoch.
        producer_epoch: u32_ule,
        /// Bytes of the body before compression.
        body_length: u32_ule,
        /// Time of the first record, nanoseconds since 1970 UTC.
        first_timestamp_ns: u64_ule,
        /// Time of the last record.
        last_timestamp_ns: u64_ule,
        /// Records of the batch as its producer sent it, if the server stored only a part of them; 0 otherwise.
        producer_count: u32_ule,
        /// Bytes of the compressed body without its padding; 0 if it is not compressed.
        packed_length: u32_ule,
    }
}

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than it announces.
    #[error("batch truncated: {have} bytes of {need}")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes announced.
        need: usize,
    },
    /// Not a batch at all.
    #[error("batch magic {0:#010x} is wrong")]
    Magic(u32),
    /// A version, encoding or compression this build does not know.
    #[error("batch {field} {value} is not supported")]
    Unsupported {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The length is no multiple of 8, or less than the header.
    #[error("batch length {0} is not valid")]
    Length(u32),
    /// Over the limit.
    #[error("batch of {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u32,
    },
    /// The checksum does not match.
    #[error("batch checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// Computed.
        found: u32,
        /// In the header.
        expected: u32,
    },
    /// No records.
    #[error("batch without records")]
    Empty,
    /// The body does not inflate to what the header announces.
    #[error("body is no {compression} data of {length} bytes before compression")]
    Packed {
        /// Its compression.
        compression: Compression,
        /// Announced.
        length: u32,
    },
    /// The records do not fill the body exactly.
    #[error("record {record} of the batch does not fit its body")]
    Structure {
        /// Index in the batch.
        record: u32,
    },
    /// A record over the limit.
    #[error("record {record} has {bytes} bytes; the limit is {limit}")]
    RecordTooLarge {
        /// Index in the batch.
        record: u32,
        /// Payload, key and headers.
        bytes: u64,
        /// The limit.
        limit: u32,
    },
    /// A key over the limit.
    #[error("partition key of record {record} has {chars} characters; the limit is 256")]
    KeyTooLong {
        /// Index in the batch.
        record: u32,
        /// Characters.
        chars: usize,
    },
    /// A key that is not text.
    #[error("partition key of record {record} is not UTF-8")]
    KeyNotUtf8 {
        /// Index in the batch.
        record: u32,
    },
    /// Headers that do not parse, or hold more than 65,535 bytes.
    #[error("headers of record {record} are not valid")]
    Headers {
        /// Index in the batch.
        record: u32,
    },
}

/// A batch read in place.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`, its header checked for form (not the checksum, not the records).
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = BatchHeader::view(bytes)
            .ok_or(BatchError::Truncated { have: bytes.len(), need: BatchHeader::LEN })?;
        if header.magic.to_native() != BATCH_MAGIC {
            return Err(BatchError::Magic(header.magic.to_native()));
        }
        let length = header.length.to_native();
        if (length as usize) < BatchHeader::LEN || !length.is_multiple_of(8) {
            return Err(BatchError::Length(length));
        }
        let need = length as usize;
        let bytes = bytes.get(..need).ok_or(BatchError::Truncated { have: bytes.len(), need })?;
        Ok(BatchView { header, bytes })
    }

    /// The door check: everything a producer could get wrong. Reads the batch once for the checksum and
    /// walks the records' structure, so that no reader needs to look again.
    ///
    /// # Errors
    /// Of a compressed batch always [`BatchError::Unsupported`]: check it from outside, inflate it, and check what
    /// is inside.
    pub fn check(&self, limits: &Limits) -> Result<(), BatchError> {
        self.check_outside(limits)?;
        if self.compressed() {
            let value = self.header.compression;
            return Err(BatchError::Unsupported { field: "compression", value });
        }
        self.check_inside(self.body(), limits)
    }

    /// The part of the door check that needs no look at the records: form, sizes, checksum.
    pub fn check_outside(&self, limits: &Limits) -> Result<(), BatchError> {
        let h = self.header;
        for (field, value, known) in
            [("version", h.version, BATCH_VERSION), ("encoding", h.encoding, ENCODING_RECORDS)]
        {
            if value != known {
                return Err(BatchError::Unsupported { field, value });
            }
        }
        if Compression::from_tag(h.compression).is_none() || h.flags != 0 {
            let unknown =
                if h.flags != 0 { ("flags", h.flags) } else { ("compression", h.compression) };
            return Err(BatchError::Unsupported { field: unknown.0, value: unknown.1 });
        }
        if h.length.to_native() > limits.max_batch {
            let bytes = u64::from(h.length.to_native());
            return Err(BatchError::TooLarge { bytes, limit: limits.max_batch });
        }
        self.check_crc()?;
        // What a server stored of a batch may be nothing at all.
        if h.record_count.to_native() == 0 && h.producer_count.to_native() == 0 {
            return Err(BatchError::Empty);
        }
        let (body, packed) = (h.body_length.to_native(), h.packed_length.to_native());
        if !self.compressed() {
            let fits = body as usize == self.body().len() && packed == 0;
            return if fits { Ok(()) } else { Err(BatchError::Length(body)) };
        }
        if packed == 0 || padded(packed as usize) != self.body().len() {
            return Err(BatchError::Length(packed));
        }
        // Known before anything is inflated.
        if body as usize + BatchHeader::LEN > limits.max_batch as usize {
            let bytes = u64::from(body) + BatchHeader::LEN as u64;
            return Err(BatchError::TooLarge { bytes, limit: limits.max_batch });
        }
        Ok(())
    }

    /// The part of the door check that walks the records: `body` is the body, uncompressed.
    pub fn check_inside(&self, body: &[u8], limits: &Limits) -> Result<(), BatchError> {
        check_records(body, self.record_count(), limits.max_record)
    }

    /// Whether the body is compressed.
    pub fn compressed(&self) -> bool {
        self.header.compression != 0
    }

    /// The compressed body without its padding.
    pub(crate) fn packed(&self) -> Result<&'a [u8], BatchError> {
        let length = self.header.packed_length.to_native();
        let packed = self.body().get(..length as usize).filter(|packed| !packed.is_empty());
        match packed {
            Some(packed) if padded(packed.len()) == self.body().len() => Ok(packed),
            _ => Err(BatchError::Length(length)),
        }
    }

    /// The checksum alone.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (found, expected) = (crc32c(&self.bytes[CHECKED_FROM..]), self.header.crc.to_native());
        if found == expected { Ok(()) } else { Err(BatchError::Checksum { found, expected }) }
    }

    /// The header.
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[BatchHeader::LEN..]
    }

    /// Sequence number of the first record.
    pub fn base_sequence(&self) -> u64 {
        self.header.base_sequence.to_native()
    }

    /// Sequence number after the last record.
    pub fn end_sequence(&self) -> u64 {
        self.base_sequence() + u64::from(self.header.record_count.to_native())
    }

    /// Number of records.
    pub fn record_count(&self) -> u32 {
        self.header.record_count.to_native()
    }

    /// The records. Of a batch that was not checked, the walk ends at the first that does not fit.
    pub fn records(&self) -> RecordIter<'a> {
        RecordIter {
            rest: self.body(),
            sequence: self.base_sequence(),
            left: self.header.record_count.to_native(),
        }
    }
}

/// Walks batches that lie back to back (a block's body, a fetch reply). Ends after the first error.
#[derive(Clone, Debug)]
pub struct BatchIter<'a> {
    rest: &'a [u8],
}

impl<'a> BatchIter<'a> {
    /// Over `bytes`.
    pub fn new(bytes: &'a [u8]) -> BatchIter<'a> {
        BatchIter { rest: bytes }
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match BatchView::parse(self.rest) {
            Ok(batch) => {
                self.rest = &self.rest[batch.bytes.len()..];
                Some(Ok(batch))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Writes the server's fields of the batch at the start of `bytes`.
///
/// # Panics
/// If `bytes` is shorter than a batch header.
pub fn stamp(bytes: &mut [u8], base_sequence: u64, arrival_ns: u64, epoch: u32) {
    bytes[0..8].copy_from_slice(&base_sequence.to_le_bytes());
    bytes[8..16].copy_from_slice(&arrival_ns.to_le_bytes());
    bytes[16..20].copy_from_slice(&epoch.to_le_bytes());
}

/// Writes the producer's stamp over that of the one batch in `bytes`, and its checksum anew.
///
/// # Panics
/// If `bytes` is shorter than a batch header.
pub fn restamp(bytes: &mut [u8], producer: ProducerStamp) {
    let Some(mut header) = BatchHeader::view(bytes).copied() else { return };
    header.producer_id = producer.id.into();
    header.producer_epoch = producer.epoch.into();
    header.producer_sequence = producer.sequence.into();
    header.write_to(bytes);
    seal(bytes);
}

/// Writes the checksum of the one batch in `bytes`, which are all of it.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[CHECKED_FROM..]);
    bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
}

/// Who a batch is from, for idempotence. All zero: nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Given by the server.
    pub id: u64,
    /// Grows when the same producer starts again.
    pub epoch: u32,
    /// Number of the batch's first record among the producer's records for this shard.
    pub sequence: u64,
}
