//! Producer and consumer library of Highwater, on tokio. Builds on any OS.
//!
//! [`Client::connect`] reaches a server; from the client come a [`Producer`] (records in, partitioned,
//! batched and retried), a [`ShardConsumer`] (records out, pushed by the server, resumed after a lost
//! connection) and, below the producer, an [`Appender`] for ready batches of one shard. All may be used
//! in a current-thread and in a multi-thread runtime. A client's connections live in the runtime that opens
//! them: give each runtime a client of its own.
//!
//! Produce:
//!
//! ```no_run
//! use highwater_client::{Client, ClientOptions, ProducerOptions, Record};
//!
//! # async fn produce() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7411", ClientOptions::default()).await?;
//! let producer = client.producer("clicks", ProducerOptions::default()).await?;
//! let receipt = producer.send(Record::new(b"user-17", b"payload")).await?;
//! let acked = receipt.await?; // durable from here on
//! println!("shard {} sequence number {}", acked.shard, acked.sequence);
//! producer.close().await?;
//! # Ok(()) }
//! ```
//!
//! Consume:
//!
//! ```no_run
//! use highwater_client::{Client, ClientOptions, ConsumerOptions, Start};
//!
//! # async fn consume() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7411", ClientOptions::default()).await?;
//! let stream = client.describe_stream("clicks").await?;
//! let mut consumer =
//!     client.consumer(&stream, 0, Start::Oldest, ConsumerOptions::default()).await?;
//! while let Some(delivery) = consumer.next().await? {
//!     for record in delivery.records() {
//!         println!("{}: {} bytes", record.sequence, record.payload.len());
//!     }
//! }
//! # Ok(()) }
//! ```

mod admin;
mod appender;
mod backoff;
mod burial;
mod client;
mod connection;
mod consumer;
mod delivery;
mod delivery_receipts;
mod error;
mod gather;
mod group_consumer;
mod identity;
mod kept;
mod membership;
mod options;
mod outcome;
mod parcel;
mod partition;
mod pool;
mod producer;
mod receipt;
mod record_consumer;
mod route;
mod router;
mod stream_consumer;
mod window;
mod writer;

pub use admin::GroupReset;
pub use appender::{Acks, Appender};
pub use backoff::RetryPolicy;
pub use client::Client;
pub use consumer::ShardConsumer;
pub use delivery::{Delivery, Fetched, Located};
pub use error::{AppendError, ClientError, ConnectError, ConsumeError, SendError};
pub use group_consumer::{GroupConsumer, GroupEvent, GroupOptions, Until};
pub use kept::KeptRecord;
pub use options::{
    AppenderOptions, ClientOptions, ConsumerOptions, FetchOptions, OnTrimmed, ProducerOptions,
    Start,
};
pub use outcome::{Ack, Fate, Run, Runs};
pub use producer::{Producer, Record};
pub use receipt::{Acked, Receipt};
pub use record_consumer::{Lot, RecordConsumer, RecordOptions};
pub use route::ReadingOrder;
pub use stream_consumer::{Span, StreamConsumer};

/// The wire types that appear in this library's signatures.
pub use highwater_wire as wire;
