//! What a run needs from whatever it loads, and the Highwater server as such a target.
//!
//! Targets are chosen at compile time: nothing on the path of a record is a virtual call. A link and
//! all that comes from it stays on the thread that opened it.

use highwater_client::{
    Acks, AppendError, Appender, AppenderOptions, Client, ClientError, ClientOptions, ConsumeError,
    ConsumerOptions, Delivery, OnTrimmed, ShardConsumer, Start,
};
use highwater_wire::{
    BatchBuilder, ErrorCode, Limits, RecordView, StreamConfig, StreamDescription,
};

/// Why a target did not do something, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a source gave no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The target left records out, though retention did not remove them.
    #[error("records {expected} to {found} are missing")]
    Gap {
        /// Next sequence number wanted.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// What came is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Something that stores streams.
pub trait Target: Clone + Send + 'static {
    /// A way to it, of one thread.
    type Link: Link;

    /// Its address, for people.
    fn address(&self) -> &str;

    /// Opens a link.
    async fn link(&self) -> Result<Self::Link, Refusal>;
}

/// One thread's way to a target.
pub trait Link: 'static {
    /// Takes batches.
    type Sink: Sink;
    /// Tells what became of them.
    type Outcomes: Outcomes;
    /// Gives records back.
    type Source: Source;

    /// The target's release.
    fn server(&self) -> String;

    /// The sizes it accepts.
    fn limits(&self) -> Limits;

    /// The stream `name`, created with `config` if there is none.
    async fn stream(&self, name: &str, config: &StreamConfig)
    -> Result<StreamDescription, Refusal>;

    /// The high-water mark of `shard`.
    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal>;

    /// Appends to `shard`, at most `inflight` batches unanswered.
    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        inflight: usize,
    ) -> Result<(Self::Sink, Self::Outcomes), Refusal>;

    /// Reads `shard` from sequence `from` on, past what retention removes.
    async fn source(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
    ) -> Result<Self::Source, Refusal>;
}

/// Takes batches for one shard.
pub trait Sink: 'static {
    /// Waits until a batch would be taken at once.
    async fn ready(&mut self);

    /// Sends what `batch` holds and empties it. What became of it comes as an [`Outcome`] with `tag`; after
    /// an error there will be none.
    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure>;
}

/// What became of the batches of one sink.
pub trait Outcomes: 'static {
    /// The next; `None` if there will be no more.
    async fn next(&mut self) -> Option<Outcome>;
}

/// What became of one batch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As given with it.
    pub tag: u64,
    /// Sequence number of its first record, if the target still knows it.
    pub result: Result<Option<u64>, Failure>,
}

/// A batch was not acknowledged.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whether it may be stored all the same.
    pub unknown: bool,
    /// Why.
    pub message: String,
}

/// Gives the records of one shard.
pub trait Source: 'static {
    /// Records received together.
    type Chunk: Chunk;

    /// The next ones; `None` if there will be no more. May be dropped unfinished without losing any, and
    /// asked again after an error.
    async fn next(&mut self) -> Result<Option<Self::Chunk>, Trouble>;

    /// Goes on at sequence `at`, past a gap.
    fn resume(&mut self, at: u64);

    /// Next sequence number to read.
    fn position(&self) -> u64;

    /// Records passed over so far because retention had removed them.
    fn trimmed(&self) -> u64;
}

/// Records received together.
pub trait Chunk {
    /// Gives each record, in order.
    fn each(&self, take: impl FnMut(RecordView<'_>));
}

/// A Highwater server.
#[derive(Clone, Debug)]
pub struct Highwater {
    /// `host:port`.
    pub address: String,
    /// Connections to each of its cores, per link.
    pub connections: usize,
}

/// Connections to a Highwater server.
pub struct HighwaterLink(Client);

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Refusal {
        Refusal(error.to_string())
    }
}

impl Target for Highwater {
    type Link = HighwaterLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<HighwaterLink, Refusal> {
        let options = ClientOptions {
            name: "highwater-loadgen".to_owned(),
            connections_per_core: self.connections,
            ..ClientOptions::default()
        };
        let client = Client::connect(&self.address, options).await;
        client.map(HighwaterLink).map_err(|error| Refusal(error.to_string()))
    }
}

impl Link for HighwaterLink {
    type Sink = Appender;
    type Outcomes = Acks;
    type Source = ShardConsumer;

    fn server(&self) -> String {
        self.0.info().server.clone()
    }

    fn limits(&self) -> Limits {
        let info = self.0.info();
        Limits { max_record: info.max_record, max_batch: info.max_batch }
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        match self.0.describe_stream(name).await {
            Err(error) if error.code() == Some(ErrorCode::UnknownStream) => {}
            described => return Ok(described?),
        }
        match self.0.create_stream(name, config.clone()).await {
            // Somebody else was quicker.
            Err(error) if error.code() == Some(ErrorCode::StreamExists) => {
                Ok(self.0.describe_stream(name).await?)
            }
            created => Ok(created?),
        }
    }

    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal> {
        Ok(self.0.locate(stream, shard, Start::Latest).await?.high_water)
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        inflight: usize,
    ) -> Result<(Appender, Acks), Refusal> {
        let options = AppenderOptions { inflight, ..AppenderOptions::default() };
        Ok(self.0.appender(stream, shard, options).await?)
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
    ) -> Result<ShardConsumer, Refusal> {
        let options = ConsumerOptions {
            on_trimmed: OnTrimmed::ContinueAtOldest,
            // Every payload's own checksum is verified.
            verify_crc: false,
            ..ConsumerOptions::default()
        };
        Ok(self.0.consumer(stream, shard, Start::At(from), options).await?)
    }
}

impl Sink for Appender {
    async fn ready(&mut self) {
        Appender::ready(self).await;
    }

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        Appender::append(self, batch, tag).await.map_err(failure)
    }
}

impl Outcomes for Acks {
    async fn next(&mut self) -> Option<Outcome> {
        let ack = self.recv().await?;
        let result = match ack.result {
            Ok(stored) => Ok(Some(stored.base_sequence)),
            Err(AppendError::StoredBefore) => Ok(None),
            Err(error) => Err(failure(error)),
        };
        Some(Outcome { tag: ack.tag, result })
    }
}

fn failure(error: AppendError) -> Failure {
    Failure { unknown: matches!(error, AppendError::FateUnknown(_)), message: error.to_string() }
}

impl Source for ShardConsumer {
    type Chunk = Delivery;

    async fn next(&mut self) -> Result<Option<Delivery>, Trouble> {
        ShardConsumer::next(self).await.map_err(|error| match error {
            ConsumeError::Gap { expected, found } => Trouble::Gap { expected, found },
            ConsumeError::Corrupt { .. } => Trouble::Damaged(error.to_string()),
            other => Trouble::Failed(other.to_string()),
        })
    }

    fn resume(&mut self, at: u64) {
        self.seek(at);
    }

    fn position(&self) -> u64 {
        ShardConsumer::position(self)
    }

    fn trimmed(&self) -> u64 {
        ShardConsumer::trimmed(self)
    }
}

impl Chunk for Delivery {
    fn each(&self, take: impl FnMut(RecordView<'_>)) {
        self.records().for_each(take);
    }
}
