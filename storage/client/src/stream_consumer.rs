//! A reader of all shards of a stream, through splits and merges: no shard before its parents are at their end.

use std::time::Duration;

use highwater_wire::{ShardDescription, StreamDescription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::route::ReadingOrder;
use crate::{Client, ConsumeError, ConsumerOptions, Delivery, ShardConsumer, Start};

/// Deliveries that wait to be taken, over all shards. What the server may send ahead is bounded by credit.
const WAITING: usize = 4;

/// While a closed shard's children are not described yet, it is asked again this often.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Where a shard begins and ends to be read; `None` if it is not read at all.
pub type Span = Option<(Start, ConsumerOptions)>;

/// Reads all shards of a stream. The records of a shard come in order, and those of a partition key too, across
/// splits and merges; between shards there is no order.
#[derive(Debug)]
pub struct StreamConsumer {
    inbox: mpsc::Receiver<(u32, Result<Delivery, ConsumeError>)>,
    // Ends with the consumer.
    _reading: JoinSet<()>,
}

impl StreamConsumer {
    /// Reads `stream` as `span` says for each of its shards, and for those that come to be later. The starts of the
    /// shards to be read first are settled when this returns.
    pub async fn start(
        client: Client,
        stream: StreamDescription,
        span: impl Fn(&ShardDescription) -> Span + Send + 'static,
    ) -> Result<StreamConsumer, ConsumeError> {
        let (sender, inbox) = mpsc::channel(WAITING);
        let mut readers = Readers { client, stream, span, sender, tasks: JoinSet::new() };
        let mut order = ReadingOrder::default();
        let first = order.learn(&readers.stream);
        readers.begin(first, &mut order).await?;
        let mut reading = JoinSet::new();
        reading.spawn(readers.run(order));
        Ok(StreamConsumer { inbox, _reading: reading })
    }

    /// The next records of any shard, with its number; waits for them. `None` once all shards have been read to the
    /// end of their span. Cancelled, it loses nothing.
    pub async fn next(&mut self) -> Option<(u32, Result<Delivery, ConsumeError>)> {
        self.inbox.recv().await
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }
}

struct Readers<F> {
    client: Client,
    stream: StreamDescription,
    span: F,
    sender: mpsc::Sender<(u32, Result<Delivery, ConsumeError>)>,
    /// Each gives its shard, and whether that was read to the end of a closed shard.
    tasks: JoinSet<(u32, bool)>,
}

impl<F: Fn(&ShardDescription) -> Span> Readers<F> {
    async fn run(mut self, mut order: ReadingOrder) {
        while let Some(done) = self.tasks.join_next().await {
            // One that was cut short by the runtime's end has nobody to tell.
            let Ok((shard, true)) = done else { continue };
            if let Err(error) = self.go_on(shard, &mut order).await {
                let _ = self.sender.send((shard, Err(error))).await;
                return;
            }
        }
    }

    /// A closed shard was read to its end: its children may be read, once they are known.
    async fn go_on(&mut self, shard: u32, order: &mut ReadingOrder) -> Result<(), ConsumeError> {
        let mut ready = order.ended(shard);
        while !order.has_children(shard) && !self.sender.is_closed() {
            self.stream = self.client.describe_stream(&self.stream.name).await?;
            ready.extend(order.learn(&self.stream));
            if !order.has_children(shard) {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        self.begin(ready, order).await
    }

    async fn begin(
        &mut self,
        mut ready: Vec<u32>,
        order: &mut ReadingOrder,
    ) -> Result<(), ConsumeError> {
        while let Some(shard) = ready.pop() {
            let Some(description) = self.stream.shards.iter().find(|s| s.shard == shard) else {
                continue;
            };
            let Some((start, options)) = (self.span)(description) else {
                ready.extend(order.ended(shard));
                continue;
            };
            let stream = &self.stream;
            let consumer = self.client.consumer(stream, shard, start, options).await?;
            self.tasks.spawn(read(consumer, self.sender.clone()));
        }
        Ok(())
    }
}

async fn read(
    mut consumer: ShardConsumer,
    sender: mpsc::Sender<(u32, Result<Delivery, ConsumeError>)>,
) -> (u32, bool) {
    let shard = consumer.shard();
    while let Some(result) = consumer.next().await.transpose() {
        let failed = result.is_err();
        if sender.send((shard, result)).await.is_err() || failed {
            return (shard, false);
        }
    }
    (shard, consumer.ended())
}
