//! Error codes of replies, and the error a client sees.

macro_rules! codes {
    ($( $(#[doc = $doc:literal])* $name:ident = $code:literal, $retriable:literal; )*) => {
        /// Why a request was refused. The numbers are on the wire and never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $( $(#[doc = $doc])* $name = $code, )* }

        impl ErrorCode {
            /// All codes, in order of number.
            pub const ALL: &[ErrorCode] = &[ $( ErrorCode::$name, )* ];

            /// The code with this number; [`ErrorCode::Internal`] for one that is not known here.
            pub fn from_number(number: u16) -> ErrorCode {
                match number { $( $code => ErrorCode::$name, )* _ => ErrorCode::Internal }
            }

            /// Whether the same request may succeed later without change.
            pub fn retriable(self) -> bool {
                match self { $( ErrorCode::$name => $retriable, )* }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $( ErrorCode::$name => concat!($($doc),*).trim_ascii(), )* }
            }
        }
    };
}

codes! {
    /// The bytes are not a frame; the connection ends.
    MalformedFrame = 1, false;
    /// The greeting named a protocol version this server does not speak; the connection ends.
    UnsupportedVersion = 2, false;
    /// The frame is longer than the server's limit; the connection ends.
    FrameTooLarge = 3, false;
    /// A request of unknown kind, or one before the greeting.
    UnknownRequest = 4, false;
    /// The batch's checksum or structure is wrong.
    CorruptBatch = 5, false;
    /// A record is larger than the server's limit.
    RecordTooLarge = 6, false;
    /// A partition key is longer than 256 characters, or not UTF-8.
    KeyTooLong = 7, false;
    /// The batch is larger than the server's limit.
    BatchTooLarge = 8, false;
    /// No stream has this name.
    UnknownStream = 10, false;
    /// A stream of this name exists.
    StreamExists = 11, false;
    /// The name is not allowed.
    InvalidName = 12, false;
    /// A field of the request is out of its range.
    InvalidArgument = 13, false;
    /// The stream has no such shard.
    UnknownShard = 14, false;
    /// The shard was closed by a split or merge; describe the stream again, its children go on.
    ShardClosed = 15, false;
    /// The shards cannot be split or merged so.
    CannotReshard = 16, false;
    /// The batch is not the producer's next; the detail is the sequence expected. Resend from there.
    OutOfSequence = 20, true;
    /// A newer epoch of this producer exists; this one must stop.
    ProducerFenced = 21, false;
    /// The shard does not remember this producer (evicted, or a new shard), or it was never given out; take a new producer id.
    UnknownProducer = 22, false;
    /// The batch was stored before, too long ago to know where.
    DuplicateSequence = 23, false;
    /// The shard's next sequence number is another than expected; the detail is that number.
    SequenceMismatch = 24, false;
    /// A queue is full; retry after the time given.
    Busy = 30, true;
    /// The memory set aside for this is spent; retry after the time given.
    OutOfMemory = 31, true;
    /// The file system is full; appends are refused until space returns, reads go on.
    DiskFull = 32, true;
    /// A device write failed; the shard is read-only until the server is restarted.
    ShardFailed = 33, false;
    /// Durable data of the shard is damaged; it is stopped until repaired.
    ShardDamaged = 34, false;
    /// The server is stopping, or the shard is still starting; retry.
    Unavailable = 35, true;
    /// A quota of the shard, the stream or the client is used up; retry after the time given.
    QuotaExceeded = 36, true;
    /// The position was removed by retention; the detail is the oldest sequence kept.
    PositionTrimmed = 40, false;
    /// The position lies beyond the high-water mark; the detail is the mark.
    PositionBeyondEnd = 41, false;
    /// No position was committed for this group and shard.
    UnknownGroup = 42, false;
    /// The shard was closed and has no more records; the detail is its end, its children go on.
    ShardEnded = 43, false;
    /// The lease is not in force: the shard has gone to another member of the group; the detail is the shard's number.
    LeaseLost = 44, false;
    /// Not a member of the group, or not any more; join again.
    UnknownMember = 45, false;
    /// The group has members, which this would disturb.
    GroupActive = 46, false;
    /// The filter is no expression that can be evaluated here; the message says what is wrong with it, and in which column.
    InvalidFilter = 47, false;
    /// The request's time ran out; for an append its fate is unknown.
    TimedOut = 50, true;
    /// A defect in the server; its log says more.
    Internal = 51, false;
    /// Too many of the group's records were dead letters: nothing is handed out; ask again after the time given.
    BreakerOpen = 52, true;
    /// The group settles record by record, and the request is for one that keeps positions, or the other way round.
    WrongDelivery = 53, false;
    /// The records are not in hand under this lease (any more); the detail is the first such sequence number.
    NotInHand = 54, false;
    /// The group has as much to work off as it may be given again at once.
    GroupFull = 55, false;
    /// Of a record in a reply: dropped, as the stream's backpressure says.
    RecordDropped = 60, false;
    /// Of a record in a reply: sampled out, as the stream's backpressure says.
    RecordSampledOut = 61, false;
}

/// A refusal, as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// Which.
    pub code: ErrorCode,
    /// When a retry makes sense, in milliseconds; 0 if it says nothing about that.
    pub retry_after_ms: u32,
    /// A number that goes with the code (see the code's meaning); 0 otherwise.
    pub detail: u64,
    /// For people: names the field, the value and the limit.
    pub message: String,
}

impl WireError {
    /// A refusal without retry time or detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> WireError {
        WireError { code, retry_after_ms: 0, detail: 0, message: message.into() }
    }

    /// Adds a retry time in milliseconds.
    pub fn retry_after(mut self, ms: u32) -> WireError {
        self.retry_after_ms = ms;
        self
    }

    /// Adds the number that goes with the code.
    pub fn detail(mut self, detail: u64) -> WireError {
        self.detail = detail;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_come_back() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(*code as u16));
            assert_eq!(ErrorCode::from_number(*code as u16), *code);
            assert!(!code.meaning().is_empty());
        }
        assert_eq!(ErrorCode::from_number(9999), ErrorCode::Internal);
    }
}
