//! A Highwater server as a target, over its own client.

use std::time::Duration;

use highwater_client::{
    self as client, Ack, Acks, AppendError, Appender, AppenderOptions, Client, ClientError,
    ClientOptions, ConsumeError, ConsumerOptions, Delivery, OnTrimmed, RetryPolicy, ShardConsumer,
    Start,
};
use highwater_wire::{
    BatchBuilder, Compression, ErrorCode, Limits, Position, RecordView, StreamConfig,
    StreamDescription,
};

use crate::LoadOptions;

use super::{
    At, Chunk, Failure, Fate, LaneOptions, Link, Outcome, Outcomes, Refusal, Sink, Source, Target,
    Trouble,
};

/// A Highwater server.
#[derive(Clone, Debug)]
pub struct Highwater {
    /// `host:port`.
    pub address: String,
    /// Connections to each of its cores, per link.
    pub connections: usize,
    /// How long one batch, or one read, is tried for while the server cannot be reached.
    pub patience: Duration,
    /// The name it greets the server with, by which the server may bound it.
    pub client_name: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// Producers have names the server knows: this, and the number of their lane.
    pub producer: Option<String>,
}

impl Highwater {
    /// As a run asks for it. A server that may restart is waited for as long as the run may take: nothing
    /// is given up, so that the fate of no batch is unknown because of it.
    pub fn of(options: &LoadOptions) -> Highwater {
        Highwater {
            address: options.target.clone(),
            connections: options.connections,
            patience: match options.tolerate_restart {
                true => options.longest(),
                false => RetryPolicy::default().deadline,
            },
            client_name: options.client_name.clone(),
            compression: options.compression,
            producer: options.producer.clone(),
        }
    }
}

/// Connections to a Highwater server.
pub struct HighwaterLink {
    client: Client,
    compression: Compression,
    producer: Option<String>,
}

/// The name of a lane's producer at the server. Each has one of its own: opening a name fences off whoever had it, and
/// two lanes may come to append to one shard, by a merge.
pub(crate) fn lane_name(producer: &str, lane: usize) -> String {
    format!("{producer}-{lane}")
}

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
            name: self.client_name.clone(),
            connections_per_core: self.connections,
            retry: RetryPolicy { deadline: self.patience, ..RetryPolicy::default() },
            ..ClientOptions::default()
        };
        let client = Client::connect(&self.address, options).await;
        let client = client.map_err(|error| Refusal(error.to_string()))?;
        let (compression, producer) = (self.compression, self.producer.clone());
        Ok(HighwaterLink { client, compression, producer })
    }
}

impl Link for HighwaterLink {
    type Sink = Appender;
    type Outcomes = HighwaterOutcomes;
    type Source = ShardConsumer;

    fn server(&self) -> String {
        self.client.info().server.clone()
    }

    fn limits(&self) -> Limits {
        let info = self.client.info();
        Limits { max_record: info.max_record, max_batch: info.max_batch }
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        match self.client.describe_stream(name).await {
            Err(error) if error.code() == Some(ErrorCode::UnknownStream) => {}
            described => return Ok(described?),
        }
        match self.client.create_stream(name, config.clone()).await {
            // Somebody else was quicker.
            Err(error) if error.code() == Some(ErrorCode::StreamExists) => {
                Ok(self.client.describe_stream(name).await?)
            }
            created => Ok(created?),
        }
    }

    async fn describe(&self, stream: &StreamDescription) -> Result<StreamDescription, Refusal> {
        Ok(self.client.describe_stream(&stream.name).await?)
    }

    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal> {
        Ok(self.client.locate(stream, shard, Start::Latest).await?.high_water)
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        lane: LaneOptions,
    ) -> Result<(Appender, HighwaterOutcomes), Refusal> {
        let options = AppenderOptions {
            inflight: lane.inflight,
            compression: self.compression,
            name: self.producer.as_ref().map(|name| lane_name(name, lane.number)),
            ..AppenderOptions::default()
        };
        let (appender, acks) = self.client.appender(stream, shard, options).await?;
        Ok((appender, HighwaterOutcomes { acks, ack: None, told: 0 }))
    }

    async fn commit(
        &self,
        group: &str,
        stream: &str,
        positions: &[Position],
    ) -> Result<(), Refusal> {
        Ok(self.client.commit_positions(group, stream, positions).await?)
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        Ok(self.client.delete_stream(name).await?)
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
        Ok(self.client.consumer(stream, shard, Start::At(from), options).await?)
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

/// What became of the batches of one sink, run by run.
pub struct HighwaterOutcomes {
    acks: Acks,
    /// The batch whose runs are being told.
    ack: Option<Ack>,
    /// Runs of it told already.
    told: usize,
}

impl HighwaterOutcomes {
    fn next_run(&mut self) -> Option<Outcome> {
        let ack = self.ack.as_ref()?;
        let run = ack.runs.iter().nth(self.told)?;
        self.told += 1;
        let fate = match &run.fate {
            client::Fate::Stored { shard, sequence } => {
                Fate::Stored(Some(At { shard: *shard, sequence: *sequence }))
            }
            client::Fate::Dropped => Fate::Dropped,
            client::Fate::SampledOut => Fate::SampledOut,
            client::Fate::Failed(AppendError::StoredBefore) => Fate::Stored(None),
            client::Fate::Failed(error) => Fate::Failed(failure(error.clone())),
        };
        Some(Outcome { tag: ack.tag, records: run.first..run.first + run.count, fate })
    }
}

impl Outcomes for HighwaterOutcomes {
    async fn next(&mut self) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.next_run() {
                return Some(outcome);
            }
            self.told = 0;
            // As soon as it is known: a shard that is slow must not make another look so.
            self.ack = Some(self.acks.recv_part().await?);
        }
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

    fn ended(&self) -> bool {
        ShardConsumer::ended(self)
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
    fn each(&self, mut take: impl FnMut(RecordView<'_>, u64)) {
        let Some(first) = self.records().next() else { return };
        let wanted = first.sequence..self.next;
        for batch in self.batches() {
            let arrival_ns = batch.header().arrival_ns.to_native();
            for record in batch.records().filter(|r| wanted.contains(&r.sequence)) {
                take(record, arrival_ns);
            }
        }
    }
}
