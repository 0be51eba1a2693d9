//! NATS JetStream: asynchronous publishes with their acknowledgements outstanding, an ordered push consumer.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::subject::Subject;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use highwater_loadgen::Target;
use highwater_loadgen::target::{Failure, LaneOptions, Link, Outcome, Refusal, Sink};
use highwater_wire::{BatchBuilder, Limits, StreamConfig, StreamDescription};
use tokio::sync::mpsc;

use super::{Feed, Message, Reading, Teller, Told, payloads, refused, taken};

/// Publishes unanswered on one connection: beyond what any lane has outstanding, so that the client never waits. Its
/// own default of 5,000 would bound small records.
pub const OUTSTANDING: usize = 256 << 10;
/// The same where the server syncs after each message. It acknowledges what it has taken in together only when all of it
/// is synced: more would only wait there, for many seconds, and none of it would be stored sooner.
pub const OUTSTANDING_SYNCED: usize = 64;
/// After this an acknowledgement is given up; synchronised ones may take their time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages given on together.
const TOGETHER: usize = 4096;

/// A NATS server with JetStream.
#[derive(Clone, Debug)]
pub struct Nats {
    /// `host:port`.
    pub address: String,
    /// Most publishes unanswered on one connection.
    pub outstanding: usize,
}

impl Target for Nats {
    type Link = NatsLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<NatsLink, Refusal> {
        Ok(NatsLink { nats: self.clone(), context: self.connect().await? })
    }
}

impl Nats {
    async fn connect(&self) -> Result<Context, Refusal> {
        let client = async_nats::connect(&self.address).await.map_err(refused)?;
        let builder = ContextBuilder::new().timeout(PATIENCE).max_ack_inflight(self.outstanding);
        Ok(builder.build(client))
    }
}

/// A connection for what is asked now and then, and for reading.
pub struct NatsLink {
    nats: Nats,
    context: Context,
}

impl Link for NatsLink {
    type Sink = NatsSink;
    type Outcomes = Told;
    type Source = Reading<NatsFeed>;

    fn server(&self) -> String {
        format!("nats-server {}", self.context.client().server_info().version)
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let stream = Config {
            name: name.to_owned(),
            subjects: vec![name.to_owned()],
            storage: StorageType::File,
            num_replicas: 1,
            ..Config::default()
        };
        self.context.get_or_create_stream(stream).await.map_err(refused)?;
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    async fn high_water(&self, stream: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        let stream = self.context.get_stream(&stream.name).await.map_err(refused)?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// On a connection of its own, as producers of their own have.
    async fn sink(
        &self,
        stream: &StreamDescription,
        _: u32,
        _: LaneOptions,
    ) -> Result<(NatsSink, Told), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        let subject = Subject::from(stream.name.as_str());
        Ok((NatsSink { context: self.nats.connect().await?, subject, tell }, Told(told)))
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        self.context.delete_stream(name).await.map_err(refused)?;
        Ok(())
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        _: u32,
        from: u64,
    ) -> Result<Reading<NatsFeed>, Refusal> {
        let config = OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from + 1 },
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let stream = self.context.get_stream(&stream.name).await.map_err(refused)?;
        let consumer = stream.create_consumer(config).await.map_err(refused)?;
        let messages = consumer.messages().await.map_err(refused)?;
        Ok(Reading::new(NatsFeed(messages), from))
    }
}

/// Publishes to one stream.
pub struct NatsSink {
    context: Context,
    subject: Subject,
    tell: mpsc::UnboundedSender<Outcome>,
}

/// An acknowledgement that is awaited.
type Ack = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

impl Sink for NatsSink {
    /// Always: the window is the generator's own.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let bytes = taken(batch);
        // Heard of while the batch is still being sent: a publish may have to wait for one before it.
        let (give, sent) = mpsc::unbounded_channel();
        tokio::task::spawn_local(listen(Teller::new(self.tell.clone(), tag), sent));
        let mut refusal: Option<String> = None;
        for payload in payloads(&bytes) {
            let publish = match &refusal {
                Some(why) => Err(why.clone()),
                None => {
                    let sent = self.context.publish(self.subject.clone(), bytes.slice_ref(payload));
                    sent.await.map(IntoFuture::into_future).map_err(|error| error.to_string())
                }
            };
            if let Err(why) = &publish {
                refusal = Some(why.clone());
            }
            // Whoever listens does so to the end.
            let _ = give.send(publish);
        }
        Ok(())
    }
}

/// Tells of the records of a batch as their acknowledgements come; and of those that were not sent.
async fn listen(mut teller: Teller, mut sent: mpsc::UnboundedReceiver<Result<Ack, String>>) {
    loop {
        if sent.is_empty() {
            // What is known is told before it is waited.
            teller.flush();
        }
        let mut ack = match sent.recv().await {
            Some(Ok(ack)) => ack,
            Some(Err(why)) => {
                teller.failed(false, why);
                continue;
            }
            None => break,
        };
        let answer = match (&mut ack).now_or_never() {
            Some(answer) => answer,
            None => {
                teller.flush();
                ack.await
            }
        };
        match answer {
            Ok(ack) => teller.stored(ack.sequence.saturating_sub(1)),
            Err(error) => teller.failed(true, error.to_string()),
        }
    }
    teller.flush();
}

/// What an ordered consumer is sent.
pub struct NatsFeed(Ordered);

impl NatsFeed {
    fn message(
        read: Option<Result<async_nats::jetstream::Message, impl std::fmt::Display>>,
    ) -> Result<Message<Bytes>, String> {
        let message = read.ok_or("the consumer has ended")?.map_err(|error| error.to_string())?;
        let info = message.info().map_err(|error| error.to_string())?;
        Ok(Message {
            sequence: info.stream_sequence.saturating_sub(1),
            arrival_ns: u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0),
            payload: message.message.payload.clone(),
        })
    }
}

impl Feed for NatsFeed {
    type Payload = Bytes;

    async fn more(&mut self) -> Result<Vec<Message<Bytes>>, String> {
        let mut messages = vec![NatsFeed::message(self.0.next().await)?];
        while messages.len() < TOGETHER
            && let Some(read) = self.0.next().now_or_never()
        {
            messages.push(NatsFeed::message(read)?);
        }
        Ok(messages)
    }
}
