//! RabbitMQ Streams over the stream protocol: a publish frame per batch, confirms as they come, delivery by credit.
//!
//! On the client's raw interface: its producer takes messages one by one and keeps a callback for each, which costs the
//! generator's thread more than the broker is asked for.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_loadgen::Target;
use highwater_loadgen::target::{Failure, Fate, LaneOptions, Link, Outcome, Refusal, Sink};
use highwater_wire::{BatchBuilder, Limits, StreamConfig, StreamDescription};
use rabbitmq_stream_client::types::{
    Message as Record, MessageResult, OffsetSpecification, ResponseCode, ResponseKind,
};
use rabbitmq_stream_client::{Client, ClientOptions};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Feed, Message, Reading, Told, payloads, refused, soon, taken};

/// The only publisher, and the only subscription, of a connection.
const NUMBER: u8 = 1;
/// Chunks the broker may send ahead.
const CREDIT: u16 = 10;
/// How long the last chunk of a stream is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// A chunk becomes a segment file of at most this, as the broker does by default.
const SEGMENT_BYTES: u64 = 500_000_000;

/// A RabbitMQ broker with the stream plugin, on this machine.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    address: String,
    port: u16,
    /// Whether anything was published to streams it made: an empty stream has no last chunk to be asked for.
    used: Arc<AtomicBool>,
}

impl RabbitMq {
    /// Its stream protocol at `port` of the loopback.
    pub fn new(port: u16) -> RabbitMq {
        RabbitMq { address: format!("127.0.0.1:{port}"), port, used: Arc::default() }
    }

    async fn connect(&self) -> Result<Client, Refusal> {
        let options = ClientOptions::builder().host("127.0.0.1").port(self.port).build();
        soon(Client::connect(options)).await
    }
}

impl Target for RabbitMq {
    type Link = RabbitMqLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<RabbitMqLink, Refusal> {
        let client = self.connect().await?;
        let properties = client.server_properties().await;
        let version = properties.get("version").map_or("of an unknown release", String::as_str);
        let server = format!("rabbitmq-server {version}");
        Ok(RabbitMqLink { rabbit: self.clone(), client, server })
    }
}

/// A connection for what is asked now and then; publishers and readers have their own.
pub struct RabbitMqLink {
    rabbit: RabbitMq,
    client: Client,
    server: String,
}

impl Link for RabbitMqLink {
    type Sink = RabbitMqSink;
    type Outcomes = Told;
    type Source = Reading<RabbitMqFeed>;

    fn server(&self) -> String {
        self.server.clone()
    }

    /// A batch is one frame, which is 1 MiB at most.
    fn limits(&self) -> Limits {
        Limits { max_record: 512 << 10, max_batch: 768 << 10 }
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let segment = ("stream-max-segment-size-bytes".to_owned(), SEGMENT_BYTES.to_string());
        let made = soon(self.client.create_stream(name, HashMap::from([segment]))).await?;
        match made.code() {
            ResponseCode::Ok | ResponseCode::StreamAlreadyExists => {}
            code => return Err(Refusal(format!("the stream could not be made: {code:?}"))),
        }
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    /// The end of the last chunk: brokers of this age have no command that tells it.
    async fn high_water(&self, stream: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        if !self.rabbit.used.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut feed =
            RabbitMqFeed::open(&self.rabbit, stream, OffsetSpecification::Last, 0).await?;
        let chunk = timeout(PATIENCE, feed.more()).await;
        let chunk = chunk.map_err(|_| Refusal("the last chunk did not come".to_owned()))?;
        Ok(chunk.map_err(Refusal)?.last().map_or(0, |last| last.sequence + 1))
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        _: u32,
        _: LaneOptions,
    ) -> Result<(RabbitMqSink, Told), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        let (confirm, confirmed) = mpsc::unbounded_channel();
        let client = self.rabbit.connect().await?;
        let handler = move |item: MessageResult| {
            let confirm = confirm.clone();
            async move {
                // Whoever waited may be gone.
                let _ = confirm.send(confirms(item));
                Ok(())
            }
        };
        client.set_handler(handler).await;
        let declared = client.declare_publisher(NUMBER, None, &stream.name).await;
        let declared = declared.map_err(refused)?;
        if !declared.is_ok() {
            return Err(Refusal(format!("no publisher: {:?}", declared.code())));
        }
        let waiting = Rc::new(RefCell::new(VecDeque::new()));
        tokio::task::spawn_local(listen(Rc::clone(&waiting), confirmed, tell.clone()));
        let used = Arc::clone(&self.rabbit.used);
        Ok((RabbitMqSink { client, next: 0, waiting, used }, Told(told)))
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        let deleted = soon(self.client.delete_stream(name)).await?;
        self.rabbit.used.store(false, Ordering::Relaxed);
        match deleted.is_ok() {
            true => Ok(()),
            false => Err(Refusal(format!("the stream is not deleted: {:?}", deleted.code()))),
        }
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        _: u32,
        from: u64,
    ) -> Result<Reading<RabbitMqFeed>, Refusal> {
        let offset = OffsetSpecification::Offset(from);
        let feed = RabbitMqFeed::open(&self.rabbit, stream, offset, from).await?;
        Ok(Reading::new(feed, from))
    }
}

/// What became of published messages: numbers, and why they were not stored; `None` if the connection is gone.
type Confirms = Option<Vec<(u64, Option<String>)>>;

fn confirms(item: MessageResult) -> Confirms {
    match item?.ok()?.kind() {
        ResponseKind::PublishConfirm(confirm) => {
            Some(confirm.publishing_ids.into_iter().map(|id| (id, None)).collect())
        }
        ResponseKind::PublishError(errors) => {
            let told = errors.publishing_errors.into_iter();
            Some(told.map(|e| (e.publishing_id, Some(format!("{:?}", e.error_code)))).collect())
        }
        _ => Some(Vec::new()),
    }
}

/// A batch of which not all is confirmed.
struct Waiting {
    tag: u64,
    /// The number of its first message.
    first: u64,
    count: u32,
    answered: u32,
}

/// Publishes to one stream.
pub struct RabbitMqSink {
    client: Client,
    /// The number of the next message.
    next: u64,
    waiting: Rc<RefCell<VecDeque<Waiting>>>,
    used: Arc<AtomicBool>,
}

impl Sink for RabbitMqSink {
    /// Always: the window is the generator's own.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let bytes = taken(batch);
        let numbered = payloads(&bytes).zip(self.next..);
        let messages: Vec<_> = numbered
            .map(|(payload, id)| Record::builder().publising_id(id).body(payload).build())
            .collect();
        let (first, count) = (self.next, messages.len() as u32);
        self.next += u64::from(count);
        // Before it is sent: its confirm may be here before the sending has returned.
        self.waiting.borrow_mut().push_back(Waiting { tag, first, count, answered: 0 });
        self.used.store(true, Ordering::Relaxed);
        let sent = self.client.publish(NUMBER, messages).await;
        sent.map(drop).map_err(|error| {
            self.waiting.borrow_mut().retain(|waiting| waiting.first != first);
            Failure { unknown: true, message: error.to_string() }
        })
    }
}

/// Tells what the broker confirms. It does not say where a message lies.
async fn listen(
    waiting: Rc<RefCell<VecDeque<Waiting>>>,
    mut confirmed: mpsc::UnboundedReceiver<Confirms>,
    tell: mpsc::UnboundedSender<Outcome>,
) {
    let send = |outcome| {
        // Nobody listens any more once the lane has given up.
        let _ = tell.send(outcome);
    };
    while let Some(Some(confirms)) = confirmed.recv().await {
        let mut waiting = waiting.borrow_mut();
        for (tag, records, error) in runs(&mut waiting, confirms) {
            let fate = match error {
                None => Fate::Stored(None),
                Some(message) => Fate::Failed(Failure { unknown: false, message }),
            };
            send(Outcome { tag, records, fate });
        }
    }
    for gone in waiting.borrow_mut().drain(..) {
        let message = "the connection is gone".to_owned();
        send(Outcome::whole(gone.tag, Fate::Failed(Failure { unknown: true, message })));
    }
}

/// One run of records of one batch with one fate.
type Run = (u64, std::ops::Range<u32>, Option<String>);

/// Confirms as runs of records of batches; batches of which all is answered are forgotten.
fn runs(waiting: &mut VecDeque<Waiting>, confirms: Vec<(u64, Option<String>)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (id, error) in confirms {
        let at = waiting.partition_point(|batch| batch.first + u64::from(batch.count) <= id);
        let Some(batch) = waiting.get_mut(at).filter(|batch| batch.first <= id) else { continue };
        let index = (id - batch.first) as u32;
        batch.answered += 1;
        match runs.last_mut() {
            Some((tag, records, before))
                if (*tag, records.end) == (batch.tag, index) && *before == error =>
            {
                records.end += 1;
            }
            _ => runs.push((batch.tag, index..index + 1, error)),
        }
    }
    waiting.retain(|batch| batch.answered < batch.count);
    runs
}

/// What a subscription is sent, chunk by chunk.
pub struct RabbitMqFeed {
    client: Client,
    /// The messages of a chunk, and the number of the first.
    chunks: mpsc::UnboundedReceiver<Result<Chunk, String>>,
    /// What lies before this in its first chunk is not wanted.
    from: u64,
}

/// Messages the broker keeps together, and the number of the first.
type Chunk = (u64, Vec<Record>);

impl RabbitMqFeed {
    async fn open(
        rabbit: &RabbitMq,
        stream: &StreamDescription,
        offset: OffsetSpecification,
        from: u64,
    ) -> Result<RabbitMqFeed, Refusal> {
        let client = rabbit.connect().await?;
        let (give, chunks) = mpsc::unbounded_channel();
        let handler = move |item: MessageResult| {
            let give = give.clone();
            async move {
                if let Some(chunk) = chunk(item) {
                    // Whoever read may be gone.
                    let _ = give.send(chunk);
                }
                Ok(())
            }
        };
        client.set_handler(handler).await;
        let subscribed = client.subscribe(NUMBER, &stream.name, offset, CREDIT, HashMap::new());
        let subscribed = subscribed.await.map_err(refused)?;
        match subscribed.is_ok() {
            true => Ok(RabbitMqFeed { client, chunks, from }),
            false => Err(Refusal(format!("no subscription: {:?}", subscribed.code()))),
        }
    }
}

fn chunk(item: MessageResult) -> Option<Result<Chunk, String>> {
    match item {
        Some(Ok(response)) => match response.kind() {
            ResponseKind::Deliver(chunk) => Some(Ok((chunk.chunk_first_offset, chunk.messages))),
            _ => None,
        },
        Some(Err(error)) => Some(Err(error.to_string())),
        None => Some(Err("the connection is gone".to_owned())),
    }
}

/// The payload of a message, held by it.
pub struct Payload(Record);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.data().unwrap_or_default()
    }
}

impl Feed for RabbitMqFeed {
    type Payload = Payload;

    async fn more(&mut self) -> Result<Vec<Message<Payload>>, String> {
        loop {
            let chunk = self.chunks.recv().await.ok_or("the connection is gone")?;
            // On a task of its own, so that the chunk in hand is not lost if this is given up.
            let client = self.client.clone();
            tokio::spawn(async move {
                // A connection that is gone is heard of by the next chunk that is waited for.
                let _ = client.credit(NUMBER, 1).await;
            });
            let (first, messages) = chunk?;
            let messages: Vec<_> = (first..)
                .zip(messages)
                .filter(|(sequence, _)| *sequence >= self.from)
                .map(|(sequence, message)| Message {
                    sequence,
                    arrival_ns: 0,
                    payload: Payload(message),
                })
                .collect();
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_find_their_batches() {
        let batch = |tag, first, count| Waiting { tag, first, count, answered: 0 };
        let mut waiting = VecDeque::from([batch(5, 10, 3), batch(6, 13, 2), batch(7, 15, 1)]);
        let refused = || Some("no".to_owned());
        let told = vec![(10, None), (11, None), (12, refused()), (13, None), (99, None), (9, None)];
        let runs_told = runs(&mut waiting, told);
        assert_eq!(runs_told, [(5, 0..2, None), (5, 2..3, refused()), (6, 0..1, None)]);
        let left: Vec<u64> = waiting.iter().map(|batch| batch.tag).collect();
        assert_eq!(left, [6, 7]);
        assert_eq!(
            runs(&mut waiting, vec![(14, None), (15, None)]),
            [(6, 1..2, None), (7, 0..1, None)]
        );
        assert!(waiting.is_empty());
    }
}
