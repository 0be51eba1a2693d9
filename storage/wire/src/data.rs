//! Control parts of the requests on the data path: fixed headers, read in place.

use crate::le::{u16_ule, u32_ule, u64_ule};
use crate::{ShardId, portable_header};

portable_header! {
    /// Control part of `Append`; the data is one batch.
    pub struct AppendRequest, 24 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// How long the client waits, in milliseconds; 0 for as long as it takes.
        timeout_ms: u32_ule,
        /// Bits: 1 `APPEND_PARTIAL`, 2 `APPEND_TELL`; the others 0.
        flags: u32_ule,
        /// Store only if the shard's next sequence number is this one; all bits set: whatever it is.
        expected_sequence: u64_ule,
    }
}

/// Flag of [`AppendRequest`]: the client takes results by record, so part of the batch may be stored. Without
/// it the batch is stored whole or refused whole.
pub const APPEND_PARTIAL: u32 = 1;
/// Flag of [`AppendRequest`]: list the records that were dropped or sampled out, not only their number.
pub const APPEND_TELL: u32 = 2;
/// [`AppendRequest::expected_sequence`] of an append that expects nothing.
pub const ANY_SEQUENCE: u64 = u64::MAX;

impl AppendRequest {
    /// An append to `shard` that expects no sequence number and is stored whole or not at all.
    pub fn new(shard: ShardId, timeout_ms: u32) -> AppendRequest {
        AppendRequest {
            stream: shard.stream.into(),
            shard: shard.shard.into(),
            timeout_ms: timeout_ms.into(),
            flags: 0.into(),
            expected_sequence: ANY_SEQUENCE.into(),
        }
    }
}

portable_header! {
    /// Control part of `AppendReply`; the data is an array of `RecordOutcome`: of the records decided, those that
    /// were not stored and are to be told.
    pub struct AppendReply, 40 bytes {
        /// Sequence number of the first record stored.
        base_sequence: u64_ule,
        /// Time of arrival, nanoseconds since 1970 UTC.
        arrival_ns: u64_ule,
        /// Records stored.
        record_count: u32_ule,
        /// 1 if the batch had been stored by an earlier attempt; 0 otherwise.
        duplicate: u32_ule,
        /// Records from the batch's front whose fate is decided; those behind are refused for now and may be sent again.
        decided: u32_ule,
        /// Of these, records dropped.
        dropped: u32_ule,
        /// Of these, records sampled out.
        sampled_out: u32_ule,
        /// When those not decided may be sent again, in milliseconds; 0 if all are.
        retry_after_ms: u32_ule,
    }
}

impl AppendReply {
    /// The reply to a batch that was stored whole.
    pub fn whole(
        base_sequence: u64,
        arrival_ns: u64,
        records: u32,
        duplicate: bool,
    ) -> AppendReply {
        AppendReply {
            base_sequence: base_sequence.into(),
            arrival_ns: arrival_ns.into(),
            record_count: records.into(),
            duplicate: u32::from(duplicate).into(),
            decided: records.into(),
            dropped: 0.into(),
            sampled_out: 0.into(),
            retry_after_ms: 0.into(),
        }
    }
}

portable_header! {
    /// What became of consecutive records of a batch, in the data of `AppendReply`.
    pub struct RecordOutcome, 12 bytes {
        /// Index in the batch of the first of them.
        first: u32_ule,
        /// How many.
        count: u32_ule,
        /// Number of the error code that says why they were not stored.
        code: u16_ule,
        /// Reserved: 0.
        reserved: u16_ule,
    }
}

portable_header! {
    /// Control part of `Fetch`; the data is a filter (see `FilterCounts`), or nothing.
    pub struct FetchRequest, 40 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// First sequence number wanted. The first batch delivered may begin before it.
        from: u64_ule,
        /// Most bytes to return; at least one batch comes, whatever its size.
        max_bytes: u32_ule,
        /// Wait until this many bytes are there; 1 waits for anything, 0 does not wait.
        min_bytes: u32_ule,
        /// Longest wait, in milliseconds.
        max_wait_ms: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
        /// The lease it is read under; 0 for none. With one that is not in force it is refused, and ends.
        lease: u64_ule,
    }
}

portable_header! {
    /// Control part of `FetchReply`, followed by `FilterCounts` if there was a filter; the data is batches, back to back.
    pub struct FetchReply, 24 bytes {
        /// The high-water mark: every record below this sequence number is durable.
        high_water: u64_ule,
        /// Oldest sequence number kept.
        oldest: u64_ule,
        /// Where to fetch next.
        next: u64_ule,
    }
}

portable_header! {
    /// Control part of `Subscribe`; the data is a filter (see `FilterCounts`), or nothing.
    pub struct SubscribeRequest, 56 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// First sequence number wanted. The first batch delivered may begin before it.
        from: u64_ule,
        /// Bytes of batches the server may send before it gets more credit.
        credit_bytes: u64_ule,
        /// Most bytes in one delivery; 0 leaves it to the server.
        max_bytes: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
        /// The lease it is read under; 0 for none. With one that is not in force it is refused, and ends.
        lease: u64_ule,
        /// Of a subscription with a filter: records from this sequence number on are not looked at; all bits set
        /// (`NO_END`) for no end. Of one without: not looked at.
        until: u64_ule,
        /// Of a subscription with a filter: batches that arrived before this time, nanoseconds since 1970 UTC, are passed
        /// over up to the first that did not. Of one without: not looked at.
        since_ns: u64_ule,
    }
}

/// [`SubscribeRequest::until`] of a subscription that has no end.
pub const NO_END: u64 = u64::MAX;

portable_header! {
    /// Control part of `SubscribeReply`.
    pub struct SubscribeReply, 16 bytes {
        /// The high-water mark now.
        high_water: u64_ule,
        /// Oldest sequence number kept.
        oldest: u64_ule,
    }
}

portable_header! {
    /// Control part of `Deliver`, and, followed by `FilterCounts`, of `DeliverFiltered`; the data is batches, back to
    /// back.
    pub struct DeliverHeader, 24 bytes {
        /// The high-water mark at the time.
        high_water: u64_ule,
        /// Sequence number after the last record of this delivery.
        next: u64_ule,
        /// The server's clock when it was handed out, nanoseconds since 1970 UTC.
        sent_ns: u64_ule,
    }
}

portable_header! {
    /// Control part of `Credit`.
    pub struct CreditRequest, 16 bytes {
        /// The subscription: the correlation id of its `Subscribe`.
        subscription: u64_ule,
        /// Bytes more the server may send.
        bytes: u64_ule,
    }
}

portable_header! {
    /// When the consumer handed a delivery to its application: the data of `Credit` is any number of these, in
    /// the order of the deliveries.
    pub struct DeliveryReceipt, 16 bytes {
        /// The `next` of the delivery; those before it that have none of their own were received with it.
        next: u64_ule,
        /// The consumer's clock, nanoseconds since 1970 UTC.
        received_ns: u64_ule,
    }
}

impl DeliveryReceipt {
    /// The receipts that lie back to back in `bytes`; what is left over at the end is not looked at.
    pub fn each(bytes: &[u8]) -> impl Iterator<Item = DeliveryReceipt> + '_ {
        bytes.chunks_exact(DeliveryReceipt::LEN).filter_map(DeliveryReceipt::view).copied()
    }
}

portable_header! {
    /// Control part of `Unsubscribe`.
    pub struct UnsubscribeRequest, 8 bytes {
        /// The subscription: the correlation id of its `Subscribe`.
        subscription: u64_ule,
    }
}

portable_header! {
    /// Control part of `Locate`.
    pub struct LocateRequest, 24 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// 0 oldest, 1 latest, 2 a sequence number, 3 after a sequence number, 4 a time.
        kind: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
        /// The sequence number, or the time of arrival in nanoseconds since 1970 UTC.
        value: u64_ule,
    }
}

portable_header! {
    /// Control part of `LocateReply`.
    pub struct LocateReply, 24 bytes {
        /// Where to read from. For a time: at or before the first record that arrived then or later (the
        /// index is sparse); the client skips what arrived earlier.
        sequence: u64_ule,
        /// Oldest sequence number kept.
        oldest: u64_ule,
        /// The high-water mark.
        high_water: u64_ule,
    }
}

macro_rules! shard_id {
    ($($name:ident),*) => { $(
        impl $name {
            /// The shard addressed.
            pub fn shard_id(&self) -> ShardId {
                ShardId { stream: self.stream.to_native(), shard: self.shard.to_native() }
            }
        }
    )* };
}
shard_id!(AppendRequest, FetchRequest, SubscribeRequest, LocateRequest);
