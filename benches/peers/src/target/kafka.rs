//! Apache Kafka: a produce request per batch, several of them unanswered, and fetches that wait.
//!
//! With rskafka, which takes a batch as it is and makes one request of it: clients that gather records themselves
//! (librdkafka's, krafka) have a queue, a timer and a limit of five requests of their own between the generator's batches
//! and the broker's.

mod admin;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_loadgen::Target;
use highwater_loadgen::target::{Failure, LaneOptions, Link, Outcome, Refusal, Sink};
use highwater_wire::{BatchBuilder, Limits, StreamConfig, StreamDescription};
use rskafka::BackoffConfig;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use tokio::sync::mpsc;

use super::{
    Answer, Feed, Message, Reading, Teller, Told, in_order, payloads, refused, soon, taken,
};

/// What a topic is made with whose records are synced before they are acknowledged.
pub const FLUSH: (&str, &str) = ("flush.messages", "1");
/// How long the broker may take to make or remove a topic, milliseconds.
const PATIENCE_MS: i32 = 10_000;
/// How long a fetch waits at the broker, milliseconds.
const WAIT_MS: i32 = 500;
/// Most bytes of a fetch.
const TOGETHER: i32 = 1 << 20;
/// The client repeats what failed for so long, at most so often; by its own default for ever.
const REPEATED: Duration = Duration::from_secs(10);
const REPEATED_AFTER: Duration = Duration::from_secs(1);

/// A Kafka broker.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port`.
    pub address: String,
    /// Whether topics are made with [`FLUSH`].
    pub flush: bool,
}

impl Target for Kafka {
    type Link = KafkaLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<KafkaLink, Refusal> {
        let patience = BackoffConfig {
            deadline: Some(REPEATED),
            max_backoff: REPEATED_AFTER,
            ..BackoffConfig::default()
        };
        let builder = ClientBuilder::new(vec![self.address.clone()]).backoff_config(patience);
        let client = soon(builder.build()).await?;
        Ok(KafkaLink { kafka: self.clone(), client })
    }
}

/// Connections to a broker: each partition's client has its own.
pub struct KafkaLink {
    kafka: Kafka,
    client: Client,
}

impl KafkaLink {
    async fn partition(&self, topic: &str) -> Result<Arc<PartitionClient>, Refusal> {
        let client = self.client.partition_client(topic, 0, UnknownTopicHandling::Retry);
        soon(client).await.map(Arc::new)
    }
}

impl Link for KafkaLink {
    type Sink = KafkaSink;
    type Outcomes = Told;
    type Source = Reading<KafkaFeed>;

    fn server(&self) -> String {
        "Kafka's protocol, which does not tell the broker's release".to_owned()
    }

    /// A broker takes batches of 1 MB by default.
    fn limits(&self) -> Limits {
        Limits { max_record: 512 << 10, max_batch: 768 << 10 }
    }

    /// The client cannot make a topic with settings, nor ask for them.
    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let settings: &[(&str, &str)] = if self.kafka.flush { &[FLUSH] } else { &[] };
        let address = &self.kafka.address;
        admin::create_topic(address, name, settings, PATIENCE_MS).await.map_err(refused)?;
        for (setting, value) in settings {
            let has = admin::topic_setting(address, name, setting).await.map_err(refused)?;
            if has.as_deref() != Some(value) {
                let has = has.unwrap_or_else(|| "not known to the broker".to_owned());
                return Err(Refusal(format!("the topic's {setting} is {has}, not {value}")));
            }
        }
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    async fn high_water(&self, stream: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        let partition = self.partition(&stream.name).await?;
        let offset = soon(partition.get_offset(OffsetAt::Latest)).await?;
        u64::try_from(offset).map_err(refused)
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        _: u32,
        _: LaneOptions,
    ) -> Result<(KafkaSink, Told), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        Ok((KafkaSink { partition: self.partition(&stream.name).await?, tell }, Told(told)))
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        let controller = self.client.controller_client().map_err(refused)?;
        soon(controller.delete_topic(name, PATIENCE_MS)).await
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        _: u32,
        from: u64,
    ) -> Result<Reading<KafkaFeed>, Refusal> {
        let partition = self.partition(&stream.name).await?;
        Ok(Reading::new(KafkaFeed { partition, next: from, answer: None }, from))
    }
}
/// Produces to one partition.
pub struct KafkaSink {
    partition: Arc<PartitionClient>,
    tell: mpsc::UnboundedSender<Outcome>,
}

impl Sink for KafkaSink {
    /// Always: the window is the generator's own.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let timestamp = now();
        let record = |payload: &[u8]| Record {
            key: None,
            value: Some(payload.to_vec()),
            headers: Default::default(),
            timestamp,
        };
        let records: Vec<_> = payloads(&taken(batch)).map(record).collect();
        let count = records.len();
        let partition = Arc::clone(&self.partition);
        let answer =
            Box::pin(async move { partition.produce(records, Compression::NoCompression).await });
        let teller = Teller::new(self.tell.clone(), tag);
        in_order(answer, move |answer| {
            let offsets = answer.map_err(|error| error.to_string());
            // They follow each other: a batch has one place.
            let first = offsets.and_then(|offsets| {
                let first = offsets.first().and_then(|first| u64::try_from(*first).ok());
                first.ok_or_else(|| "the broker gave no offset".to_owned())
            });
            teller.whole(count, first);
        })
        .await;
        Ok(())
    }
}

/// What Kafka keeps as a record's time.
fn now() -> DateTime<Utc> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// What a fetch gives.
type Fetched = rskafka::client::error::Result<(Vec<RecordAndOffset>, i64)>;

/// Reads one partition, one waiting fetch after the other.
pub struct KafkaFeed {
    partition: Arc<PartitionClient>,
    next: u64,
    /// Of the fetch under way; it outlives a wait for it that was dropped.
    answer: Option<Answer<Fetched>>,
}

impl Feed for KafkaFeed {
    type Payload = Vec<u8>;

    async fn more(&mut self) -> Result<Vec<Message<Vec<u8>>>, String> {
        loop {
            let answer = match &mut self.answer {
                Some(answer) => answer,
                none => {
                    let partition = Arc::clone(&self.partition);
                    let from = i64::try_from(self.next).map_err(|error| error.to_string())?;
                    none.insert(Box::pin(async move {
                        partition.fetch_records(from, 1..TOGETHER, WAIT_MS).await
                    }))
                }
            };
            let answer = answer.await;
            self.answer = None;
            let (records, _) = answer.map_err(|error| error.to_string())?;
            let messages = records.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
            if let Some(last) = messages.last() {
                self.next = last.sequence + 1;
                return Ok(messages);
            }
        }
    }
}

fn message(read: RecordAndOffset) -> Result<Message<Vec<u8>>, String> {
    let sequence = u64::try_from(read.offset).map_err(|error| error.to_string())?;
    Ok(Message { sequence, arrival_ns: 0, payload: read.record.value.unwrap_or_default() })
}
