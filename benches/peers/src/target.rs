//! What all drivers share: a batch becomes messages, answers become outcomes, and messages become records again.
//!
//! Only payloads travel. The generator's proofs are in them; partition keys, which Highwater stores as well, are left
//! out, in favour of the others.

#[cfg(feature = "iggy")]
pub mod iggy;
pub mod kafka;
pub mod nats;
pub mod rabbitmq;
pub mod redis;

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use highwater_loadgen::target::{
    At, Chunk, Failure, Fate, Outcome, Outcomes, Refusal, Source, Trouble,
};
use highwater_wire::{BatchBuilder, BatchIter, ProducerStamp, RecordView};
use tokio::sync::mpsc;

/// The only shard there is: none of the others is asked for partitions here.
pub const SHARD: u32 = 0;

/// The bytes of a batch, which is empty afterwards.
pub fn taken(batch: &mut BatchBuilder) -> Bytes {
    let next = Vec::with_capacity(batch.len());
    Bytes::from(batch.finish_into(ProducerStamp::default(), next))
}

/// The payloads in the bytes of a batch.
pub fn payloads(batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    let batches = BatchIter::new(batch).map_while(Result::ok);
    batches.flat_map(|batch| batch.records().map(|record| record.payload))
}

/// An error of a rival's client, for people.
pub fn refused(error: impl std::fmt::Display) -> Refusal {
    Refusal(error.to_string())
}

/// How long a rival's client may take to connect, or to do what is asked beside the load: not all of them have a limit of
/// their own.
const SOON: Duration = Duration::from_secs(15);

/// What `asked` gives, unless it takes too long.
pub async fn soon<T, E: std::fmt::Display>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(SOON, asked).await {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(Refusal(format!("no answer within {SOON:?}"))),
    }
}

/// An answer that is awaited.
pub type Answer<T> = Pin<Box<dyn Future<Output = T>>>;

/// Has a request take its place in its client's queue, before whatever comes next, and calls `then` with the answer when
/// it is there.
pub async fn in_order<T: 'static>(mut answer: Answer<T>, then: impl FnOnce(T) + 'static) {
    match poll!(&mut answer) {
        Poll::Ready(answer) => then(answer),
        Poll::Pending => {
            tokio::task::spawn_local(async move { then(answer.await) });
        }
    }
}

/// What became of the batches of one sink, told by whoever hears of it.
pub struct Told(pub mpsc::UnboundedReceiver<Outcome>);

impl Outcomes for Told {
    async fn next(&mut self) -> Option<Outcome> {
        self.0.recv().await
    }
}

/// Tells of one batch, run by run: records that lie one after the other are told of together.
pub struct Teller {
    tell: mpsc::UnboundedSender<Outcome>,
    tag: u64,
    /// Of the records not told of yet, all stored, the first of them where it says.
    run: Range<u32>,
    at: u64,
}

impl Teller {
    /// Of the batch with `tag`, from its first record on.
    pub fn new(tell: mpsc::UnboundedSender<Outcome>, tag: u64) -> Teller {
        Teller { tell, tag, run: 0..0, at: 0 }
    }

    /// The next record is stored at `sequence`.
    pub fn stored(&mut self, sequence: u64) {
        let length = u64::from(self.run.end - self.run.start);
        if length > 0 && sequence != self.at + length {
            self.flush();
        }
        if self.run.is_empty() {
            self.at = sequence;
        }
        self.run.end += 1;
    }

    /// All `count` records are stored, one after the other from `first` on; or none is known to be.
    pub fn whole(mut self, count: usize, first: Result<u64, String>) {
        match first {
            Ok(first) => (first..).take(count).for_each(|sequence| self.stored(sequence)),
            Err(why) => (0..count).for_each(|_| self.failed(true, why.clone())),
        }
        self.flush();
    }

    /// The next record is not known to be stored.
    pub fn failed(&mut self, unknown: bool, message: String) {
        self.flush();
        let records = self.run.end..self.run.end + 1;
        self.send(records.clone(), Fate::Failed(Failure { unknown, message }));
        self.run = records.end..records.end;
    }

    /// Tells what is known.
    pub fn flush(&mut self) {
        if !self.run.is_empty() {
            let place = At { shard: SHARD, sequence: self.at };
            self.send(self.run.clone(), Fate::Stored(Some(place)));
            self.run.start = self.run.end;
        }
    }

    fn send(&self, records: Range<u32>, fate: Fate) {
        // Nobody listens any more once the lane has given up.
        let _ = self.tell.send(Outcome { tag: self.tag, records, fate });
    }
}

/// A message as it was read.
#[derive(Debug)]
pub struct Message<B> {
    /// Its number in the stream, from 0.
    pub sequence: u64,
    /// When it arrived, nanoseconds since 1970 UTC by the rival's clock; 0 if it does not say.
    pub arrival_ns: u64,
    /// What it carries.
    pub payload: B,
}

/// What a rival's client reads.
pub trait Feed: 'static {
    /// How a payload is held.
    type Payload: AsRef<[u8]> + 'static;

    /// The next messages, at least one, in ascending order. May be dropped unfinished without losing any.
    async fn more(&mut self) -> Result<Vec<Message<Self::Payload>>, String>;
}

/// A source over a feed: what is missing between messages is a gap.
pub struct Reading<F: Feed> {
    feed: F,
    /// Read and not yet given, from `position` on or behind a gap.
    held: VecDeque<Message<F::Payload>>,
    position: u64,
}

impl<F: Feed> Reading<F> {
    /// From `position` on, which is where the feed begins.
    pub fn new(feed: F, position: u64) -> Reading<F> {
        Reading { feed, held: VecDeque::new(), position }
    }

    /// The messages held that follow each other; what came before the position is among them, for the judge to see
    /// it as read again.
    fn contiguous(&mut self) -> Result<Messages<F::Payload>, Trouble> {
        let mut next = self.position;
        let gap = self.held.iter().position(|message| {
            let gap = message.sequence > next;
            next = next.max(message.sequence.saturating_add(1));
            gap
        });
        if let (Some(0), Some(first)) = (gap, self.held.front()) {
            return Err(Trouble::Gap { expected: self.position, found: first.sequence });
        }
        let given: Vec<_> = self.held.drain(..gap.unwrap_or(self.held.len())).collect();
        let end = given.last().map_or(self.position, |last| last.sequence.saturating_add(1));
        self.position = self.position.max(end);
        Ok(Messages(given))
    }
}

impl<F: Feed> Source for Reading<F> {
    type Chunk = Messages<F::Payload>;

    async fn next(&mut self) -> Result<Option<Self::Chunk>, Trouble> {
        if self.held.is_empty() {
            self.held.extend(self.feed.more().await.map_err(Trouble::Failed)?);
        }
        self.contiguous().map(Some)
    }

    fn resume(&mut self, at: u64) {
        self.held.retain(|message| message.sequence >= at);
        self.position = at;
    }

    fn position(&self) -> u64 {
        self.position
    }

    /// None: the streams of the others are made without a bound, and deleted after each run.
    fn trimmed(&self) -> u64 {
        0
    }
}

/// Messages received together.
pub struct Messages<B>(Vec<Message<B>>);

impl<B: AsRef<[u8]>> Chunk for Messages<B> {
    fn each(&self, mut take: impl FnMut(RecordView<'_>, u64)) {
        for message in &self.0 {
            let payload = message.payload.as_ref();
            let sequence = message.sequence;
            let view =
                RecordView { sequence, timestamp_ns: 0, key: &[], raw_headers: &[], payload };
            take(view, message.arrival_ns);
        }
    }
}

#[cfg(test)]
mod tests;
