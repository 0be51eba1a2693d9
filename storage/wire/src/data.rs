//! Control parts of the requests on the data path: fixed headers, read in place.

use crate::le::{u32_ule, u64_ule};
use crate::{ShardId, portable_header};

portable_header! {
    /// Control part of `Append`; the data is one batch.
    pub struct AppendRequest, 16 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// How long the client waits, in milliseconds; 0 for as long as it takes.
        timeout_ms: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
    }
}

portable_header! {
    /// Control part of `AppendReply`.
    pub struct AppendReply, 24 bytes {
        /// Sequence number of the batch's first record.
        base_sequence: u64_ule,
        /// Time of arrival, nanoseconds since 1970 UTC.
        arrival_ns: u64_ule,
        /// Records of the batch.
        record_count: u32_ule,
        /// 1 if the batch had been stored by an earlier attempt; 0 otherwise.
        duplicate: u32_ule,
    }
}

portable_header! {
    /// Control part of `Fetch`.
    pub struct FetchRequest, 32 bytes {
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
    }
}

portable_header! {
    /// Control part of `FetchReply`; the data is batches, back to back.
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
    /// Control part of `Subscribe`.
    pub struct SubscribeRequest, 32 bytes {
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
    }
}

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
    /// Control part of `Deliver`; the data is batches, back to back.
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
