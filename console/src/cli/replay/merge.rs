//! All shards of a stream as one sequence: put in order by time, each shard in its own order, and what came of a split or
//! merge after its parents.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use highwater_client::{Client, ConsumerOptions, KeptRecord, ReadingOrder, ShardConsumer, Start};
use highwater_wire::{ShardDescription, StreamDescription};

use super::{By, Until};
use crate::cli::tail::{Found, clamp};
use crate::failure::Failure;

/// What is wanted of a stream.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub from: Start,
    pub until: Option<Until>,
    pub shard: Option<u32>,
    pub by: By,
    /// Only records for which this expression is true.
    pub filter: Option<String>,
}

/// A record that is next.
#[derive(Clone, Debug)]
pub struct Next {
    pub shard: u32,
    pub record: KeptRecord,
    /// When it was recorded, nanoseconds since 1970 UTC: never less than of one before it.
    pub time_ns: u64,
}

/// Bytes that the server may send ahead over all shards. (A shard needs two largest batches, however many there are.)
const AHEAD: u64 = 64 << 20;

/// Bytes of a delivery: each shard holds one.
const DELIVERY: u32 = 256 << 10;

/// The records of a stream, those that were there when it was opened.
pub struct Merge {
    client: Client,
    stream: StreamDescription,
    wanted: Wanted,
    /// What the filter found.
    pub found: Found,
    order: ReadingOrder,
    lanes: BTreeMap<u32, Lane>,
    /// The first record of each lane: its time and shard.
    heads: BinaryHeap<Reverse<(u64, u32)>>,
    /// Lanes whose first record is not known.
    open: BTreeSet<u32>,
}

/// A shard.
#[derive(Debug)]
struct Lane {
    consumer: ShardConsumer,
    waiting: VecDeque<KeptRecord>,
    /// The latest time so far: a record is never before those in front of it.
    time_ns: u64,
}

impl Merge {
    /// Of a stream, as it is now.
    pub async fn open(
        client: &Client,
        name: &str,
        wanted: Wanted,
        found: Found,
    ) -> Result<Merge, Failure> {
        let reading = |e| Failure::doing(format!("cannot read stream {name}"), e);
        let stream = client.describe_stream(name).await.map_err(reading)?;
        if let Some(shard) = wanted.shard
            && stream.shards.iter().all(|s| s.shard != shard)
        {
            let shards = stream.shards.len();
            let what = format!("stream {name} has {shards} shards; there is no shard {shard}");
            return Err(Failure::Failed(what));
        }
        let mut merge = Merge {
            client: client.clone(),
            stream,
            wanted,
            found,
            order: ReadingOrder::default(),
            lanes: BTreeMap::new(),
            heads: BinaryHeap::new(),
            open: BTreeSet::new(),
        };
        let first = merge.order.learn(&merge.stream);
        merge.begin(first).await?;
        Ok(merge)
    }

    /// How many shards there are to be read.
    pub fn shards(&self) -> usize {
        self.wanted.shard.map_or(self.stream.shards.len(), |_| 1)
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Next>, Failure> {
        // Only when the first of every shard is known is it known which is the first of all.
        while let Some(shard) = self.open.first().copied() {
            self.look(shard).await?;
            self.open.remove(&shard);
        }
        let Some(Reverse((time_ns, shard))) = self.heads.pop() else { return Ok(None) };
        let lane = self.lanes.get_mut(&shard);
        let Some(record) = lane.and_then(|lane| lane.waiting.pop_front()) else { return Ok(None) };
        self.open.insert(shard);
        Ok(Some(Next { shard, record, time_ns }))
    }

    /// Finds a lane's first record; a shard that is at its end makes room for those that came of it.
    async fn look(&mut self, shard: u32) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(&shard) else { return Ok(()) };
        while lane.waiting.is_empty() {
            let read = lane.consumer.next().await;
            let read = read.map_err(|e| {
                Failure::doing(format!("cannot read stream {}", self.stream.name), e)
            })?;
            let Some(delivery) = read else { break };
            lane.waiting.extend(delivery.keep());
            self.found.took(&delivery);
        }
        let until_ns = match self.wanted.until {
            Some(Until::Time(ns)) => ns,
            _ => u64::MAX,
        };
        match lane.waiting.front().filter(|record| record.arrival_ns < until_ns) {
            Some(record) => {
                let time_ns = match self.wanted.by {
                    By::Arrival => record.arrival_ns,
                    By::Timestamp => record.timestamp_ns,
                };
                lane.time_ns = lane.time_ns.max(time_ns);
                self.heads.push(Reverse((lane.time_ns, shard)));
                Ok(())
            }
            None => {
                self.lanes.remove(&shard);
                let ready = self.order.ended(shard);
                self.begin(ready).await
            }
        }
    }

    /// Begins to read shards.
    async fn begin(&mut self, mut ready: Vec<u32>) -> Result<(), Failure> {
        while let Some(shard) = ready.pop() {
            let found = self.stream.shards.iter().find(|s| s.shard == shard);
            let Some((start, options)) = found.and_then(|shard| self.span(shard)) else {
                ready.extend(self.order.ended(shard));
                continue;
            };
            let consumer = self.client.consumer(&self.stream, shard, start, options).await;
            let consumer = consumer.map_err(|e| {
                Failure::doing(format!("cannot read stream {}", self.stream.name), e)
            })?;
            let lane = Lane { consumer, waiting: VecDeque::new(), time_ns: 0 };
            self.lanes.insert(shard, lane);
            self.open.insert(shard);
        }
        Ok(())
    }

    /// Where a shard begins and ends; `None` if it is not wanted.
    fn span(&self, shard: &ShardDescription) -> Option<(Start, ConsumerOptions)> {
        if self.wanted.shard.is_some_and(|wanted| wanted != shard.shard) {
            return None;
        }
        let several = self.wanted.shard.is_none() && self.stream.shards.len() > 1;
        let start = if several { clamp(shard, self.wanted.from) } else { self.wanted.from };
        let end = match self.wanted.until {
            Some(Until::Sequence(until)) => until.min(shard.high_water),
            _ => shard.high_water,
        };
        // A position beyond the mark is an error, not the end.
        let beyond = matches!(start, Start::At(position) if position > shard.high_water);
        let lanes = self.stream.shards.len().max(1) as u64;
        let options = ConsumerOptions {
            credit_bytes: AHEAD / lanes,
            max_delivery_bytes: DELIVERY,
            end: (!beyond).then_some(end),
            filter: self.wanted.filter.clone(),
            ..ConsumerOptions::default()
        };
        Some((start, options))
    }
}
