//! Apache Iggy: a request of messages per batch, on a connection for each producer, and polls.
//!
//! Its client has one request under way on a connection; the others wait in its queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_loadgen::Target;
use highwater_loadgen::target::{Failure, Fate, LaneOptions, Link, Outcome, Refusal, Sink};
use highwater_wire::{BatchBuilder, Limits, StreamConfig, StreamDescription};
use iggy::prelude::{
    Client, CompressionAlgorithm, Consumer, Identifier, IggyClient, IggyClientBuilder, IggyExpiry,
    IggyMessage, MaxTopicSize, MessageClient, Partitioning, PollingStrategy, StreamClient,
    SystemClient, TopicClient, UserClient,
};
use tokio::sync::mpsc;

use super::{Feed, Message, Reading, Told, in_order, payloads, refused, soon, taken};

/// The user a server is started with, and the password.
pub const USER: &str = "iggy";
/// The name of the only topic of each stream.
const TOPIC: &str = "records";
/// The only partition.
const PARTITION: u32 = 0;
/// Messages of a poll.
const TOGETHER: u32 = 1000;
/// How long after a poll that gave nothing the next one is made: the server does not hold polls.
const PAUSE: Duration = Duration::from_millis(1);

/// An Iggy server.
#[derive(Clone, Debug)]
pub struct Iggy {
    /// `host:port`.
    pub address: String,
}

impl Iggy {
    async fn connect(&self) -> Result<Arc<IggyClient>, Refusal> {
        let builder = IggyClientBuilder::new().with_tcp().with_no_delay();
        let client = builder.with_server_address(self.address.clone()).build().map_err(refused)?;
        soon(client.connect()).await?;
        soon(client.login_user(USER, USER)).await?;
        Ok(Arc::new(client))
    }
}

impl Target for Iggy {
    type Link = IggyLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<IggyLink, Refusal> {
        let client = self.connect().await?;
        let version = client.get_stats().await.map_err(refused)?.iggy_server_version;
        Ok(IggyLink { iggy: self.clone(), client, server: format!("iggy-server {version}") })
    }
}

/// A connection for what is asked now and then.
pub struct IggyLink {
    iggy: Iggy,
    client: Arc<IggyClient>,
    server: String,
}

fn named(name: &str) -> Result<Identifier, Refusal> {
    Identifier::named(name).map_err(refused)
}

impl Link for IggyLink {
    type Sink = IggySink;
    type Outcomes = Told;
    type Source = Reading<IggyFeed>;

    fn server(&self) -> String {
        self.server.clone()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let id = named(name)?;
        if self.client.get_stream(&id).await.map_err(refused)?.is_none() {
            self.client.create_stream(name).await.map_err(refused)?;
            let plain = CompressionAlgorithm::None;
            let (expiry, size) = (IggyExpiry::NeverExpire, MaxTopicSize::Unlimited);
            let topic = self.client.create_topic(&id, TOPIC, 1, plain, None, expiry, size);
            topic.await.map_err(refused)?;
        }
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    async fn high_water(&self, stream: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        let topic = self.client.get_topic(&named(&stream.name)?, &named(TOPIC)?).await;
        let topic = topic.map_err(refused)?.ok_or_else(|| refused("the topic is gone"))?;
        Ok(topic.partitions.first().map_or(0, |partition| partition.messages_count))
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        _: u32,
        _: LaneOptions,
    ) -> Result<(IggySink, Told), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        let place = Arc::new((named(&stream.name)?, named(TOPIC)?));
        Ok((IggySink { client: self.iggy.connect().await?, place, tell }, Told(told)))
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        self.client.delete_stream(&named(name)?).await.map_err(refused)
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        _: u32,
        from: u64,
    ) -> Result<Reading<IggyFeed>, Refusal> {
        let place = (named(&stream.name)?, named(TOPIC)?);
        let client = self.iggy.connect().await?;
        Ok(Reading::new(IggyFeed { client, place, next: from }, from))
    }
}

/// Sends to one partition. The server does not say where messages lie.
pub struct IggySink {
    client: Arc<IggyClient>,
    place: Arc<(Identifier, Identifier)>,
    tell: mpsc::UnboundedSender<Outcome>,
}

impl Sink for IggySink {
    /// Always: the window is the generator's own.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let bytes = taken(batch);
        let message = |payload| IggyMessage::builder().payload(bytes.slice_ref(payload)).build();
        let messages = payloads(&bytes).map(message).collect::<Result<Vec<_>, _>>();
        let failure = |unknown, message| Failure { unknown, message };
        let mut messages = messages.map_err(|error| failure(false, error.to_string()))?;
        let (client, place) = (Arc::clone(&self.client), Arc::clone(&self.place));
        let answer = Box::pin(async move {
            let to = Partitioning::partition_id(PARTITION);
            client.send_messages(&place.0, &place.1, &to, &mut messages).await
        });
        let tell = self.tell.clone();
        in_order(answer, move |answer| {
            let fate = match answer {
                Ok(_) => Fate::Stored(None),
                Err(error) => Fate::Failed(failure(true, error.to_string())),
            };
            // Nobody listens any more once the lane has given up.
            let _ = tell.send(Outcome::whole(tag, fate));
        })
        .await;
        Ok(())
    }
}

/// Polls one partition.
pub struct IggyFeed {
    client: Arc<IggyClient>,
    place: (Identifier, Identifier),
    next: u64,
}

impl Feed for IggyFeed {
    type Payload = Bytes;

    /// A poll that was given up is made again: what it would have given is still there.
    async fn more(&mut self) -> Result<Vec<Message<Bytes>>, String> {
        loop {
            let (stream, topic) = &self.place;
            let from = PollingStrategy::offset(self.next);
            let consumer = Consumer::default();
            let (at, count) = (Some(PARTITION), TOGETHER);
            let polled =
                self.client.poll_messages(stream, topic, at, &consumer, &from, count, false);
            let polled = polled.await.map_err(|error| error.to_string())?;
            let messages: Vec<_> = polled.messages.into_iter().map(message).collect();
            if let Some(last) = messages.last() {
                self.next = last.sequence + 1;
                return Ok(messages);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn message(read: IggyMessage) -> Message<Bytes> {
    let arrival_ns = read.header.timestamp.saturating_mul(1000);
    Message { sequence: read.header.offset, arrival_ns, payload: read.payload }
}
