//! What a client, an appender, a producer and a consumer can be told.

use std::time::Duration;

use highwater_wire::Compression;

use crate::RetryPolicy;

/// How a [`Client`](crate::Client) connects and how long it waits.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientOptions {
    /// Who is calling, for the server's log. Default `highwater-client`.
    pub name: String,
    /// Longest time to open a connection and be greeted. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest time to wait for one reply; a fetch may add its own wait. Default 30 s.
    pub request_timeout: Duration,
    /// When and how long to try again.
    pub retry: RetryPolicy,
    /// Connections kept to each core of the server, at least 1. Default 1.
    pub connections_per_core: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            name: "highwater-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            connections_per_core: 1,
        }
    }
}

/// How an [`Appender`](crate::Appender) sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppenderOptions {
    /// Batches sent and not yet answered, at least 1. Default 8.
    pub inflight: usize,
    /// Stamp batches so that the server recognises a repeated one. Default true. Without it a batch whose
    /// fate is unknown is not sent again, and batches in flight together may change places when one of
    /// them is refused and sent again.
    pub idempotent: bool,
    /// Let a part of a batch be stored where the server cannot take all of it: each record then has its own outcome,
    /// and what was put off is sent again by itself. Default true. Without it a batch is stored whole or not at all.
    pub partial: bool,
    /// How batches are compressed, by this side. Default: not at all.
    pub compression: Compression,
    /// Name of the producer, known to the server: opening one fences whoever opened the name before. Default: none.
    pub name: Option<String>,
    /// Store the first batch only if this is the shard's next sequence number, and each further one only right
    /// behind it: for a writer that must be alone. One batch is in flight then, and a closed shard's records are not
    /// sent on. Default: any.
    pub expect: Option<u64>,
}

impl Default for AppenderOptions {
    fn default() -> AppenderOptions {
        AppenderOptions {
            inflight: 8,
            idempotent: true,
            partial: true,
            compression: Compression::None,
            name: None,
            expect: None,
        }
    }
}

/// How a [`Producer`](crate::Producer) gathers and sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Size at which a batch is sent, in bytes; at most the server's limit counts. Default 64 KiB.
    pub batch_bytes: usize,
    /// How long the first record of a batch waits for company. 0 sends whatever has gathered as soon as a
    /// request may go out. Default 1 ms.
    pub linger: Duration,
    /// Records accepted and not yet acknowledged, in bytes, over all shards; past it `send` waits. Raised
    /// to the size of one largest batch. Default 32 MiB, at most 4 GiB.
    pub memory: usize,
    /// How each shard's batches are sent.
    pub appender: AppenderOptions,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            batch_bytes: 64 << 10,
            linger: Duration::from_millis(1),
            memory: 32 << 20,
            appender: AppenderOptions::default(),
        }
    }
}

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// The oldest record kept.
    Oldest,
    /// Only records that become durable from now on.
    Latest,
    /// This sequence number.
    At(u64),
    /// The one after this sequence number.
    After(u64),
    /// The first record that arrived at this time or later, nanoseconds since 1970 UTC.
    Time(u64),
}

/// What a consumer does when retention removed the record it wants next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnTrimmed {
    /// Fail with [`ConsumeError::Trimmed`](crate::ConsumeError::Trimmed).
    #[default]
    Fail,
    /// Go on at the oldest record kept and count what was missed.
    ContinueAtOldest,
}

/// How a [`ShardConsumer`](crate::ShardConsumer) reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Bytes the server may send ahead of the reader; raised to the size of two largest batches.
    /// Default 4 MiB.
    pub credit_bytes: u64,
    /// Most bytes in one delivery; 0 leaves it to the server. Default 0.
    pub max_delivery_bytes: u32,
    /// Verify each batch's checksum. Default true.
    pub verify_crc: bool,
    /// What to do when the wanted record is gone. Default: fail.
    pub on_trimmed: OnTrimmed,
    /// End before this sequence number: `next` returns `None` there. Default: go on for ever.
    pub end: Option<u64>,
    /// Only records for which this expression is true (CEL; `docs/consuming.md` has the language), as the server evaluates
    /// it: the others do not cross the network. Deliveries then have gaps, some have no records at all, and each tells
    /// what was found: see [`Delivery::filtered`](crate::Delivery::filtered). Default: all records.
    pub filter: Option<String>,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            credit_bytes: 4 << 20,
            max_delivery_bytes: 0,
            verify_crc: true,
            on_trimmed: OnTrimmed::Fail,
            end: None,
            filter: None,
        }
    }
}

/// What one [`Client::fetch`](crate::Client::fetch) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Most bytes to return; one batch comes whatever its size. Default 1 MiB.
    pub max_bytes: u32,
    /// Wait until this many bytes are there; 0 does not wait. Default 1.
    pub min_bytes: u32,
    /// Longest wait; whole milliseconds. Default 500 ms.
    pub max_wait: Duration,
    /// Verify each batch's checksum. Default true.
    pub verify_crc: bool,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            verify_crc: true,
        }
    }
}
