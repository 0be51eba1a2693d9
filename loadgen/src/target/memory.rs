//! A target in memory for tests, able to do everything a broken server might.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_wire::{
    BatchBuilder, BatchView, Limits, ProducerStamp, RecordView, ShardDescription, ShardId,
    StreamConfig, StreamDescription, hash_key, split_evenly, stamp,
};
use tokio::sync::{Notify, mpsc};

use crate::target::{
    At, Chunk, Failure, Fate, LaneOptions, Link, Outcome, Outcomes, Refusal, Sink, Source, Target,
    Trouble,
};

/// What goes wrong with the n-th batch of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged, not stored.
    Lose,
    /// Acknowledged, and its sequence numbers given to nothing.
    Skip,
    /// Stored twice.
    Double,
    /// Stored after the next one (of as many records), though acknowledged before.
    Swap,
    /// A byte of the last payload is changed before it is stored.
    Corrupt,
    /// Refused, not stored.
    Refuse,
    /// Refused, and stored.
    RefuseAndStore,
    /// Not stored, and nobody says so.
    Forget,
    /// Stored, but the answer is that nobody knows.
    Doubt,
    /// Stored, and removed with everything before it as soon as the next one comes.
    Trim,
}

#[derive(Debug, Default)]
struct Shard {
    /// Batches and their base sequences.
    batches: BTreeMap<u64, Arc<Vec<u8>>>,
    high_water: u64,
    oldest: u64,
    trim_to: u64,
    held_back: Option<Vec<u8>>,
    appended: usize,
}

#[derive(Debug)]
struct State {
    streams: Mutex<BTreeMap<String, StreamDescription>>,
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    grown: Notify,
    faults: BTreeMap<usize, Fault>,
    /// Batches that `ready` lets through before it holds one up, and for how long.
    holds_up: (usize, Duration),
    /// Records this far behind the end come one batch at a time, and each so late.
    old: Option<(u64, Duration)>,
    /// Batches of one record that shard 0 takes before it splits into 1 and 2, and shard 1 before these merge into 3.
    reshards: Option<usize>,
}

/// How far a stream that reshards has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Whole,
    Split,
    Merged,
}

impl Stage {
    /// The shards there are: number, eighths of the hash-key space, parents.
    fn shards(self) -> &'static [(u32, Range<usize>, &'static [u32])] {
        static ALL: [(u32, Range<usize>, &[u32]); 4] =
            [(0, 0..8, &[]), (1, 0..4, &[0]), (2, 4..8, &[0]), (3, 0..8, &[1, 2])];
        match self {
            Stage::Whole => &ALL[..1],
            Stage::Split => &ALL[..3],
            Stage::Merged => &ALL,
        }
    }

    fn closed(self, shard: u32) -> bool {
        self.shards().iter().any(|(_, _, parents)| parents.contains(&shard))
    }

    /// The shard that has this key.
    fn of(self, key: &[u8]) -> u32 {
        let eighth = (hash_key(key) >> 125) as usize;
        let open = self.shards().iter().rfind(|(_, range, _)| range.contains(&eighth));
        open.map_or(0, |(shard, ..)| *shard)
    }
}

/// The target.
#[derive(Clone, Debug)]
pub struct Memory(Arc<State>);

impl Memory {
    /// With these faults at these batches of each shard.
    pub fn with_faults(faults: &[(usize, Fault)]) -> Memory {
        Memory::new(faults, (usize::MAX, Duration::ZERO))
    }

    /// Takes `batches` of each shard, then none for `stall`.
    pub fn stalling_after(batches: usize, stall: Duration) -> Memory {
        Memory::new(&[], (batches, stall))
    }

    /// Splits and merges after so many batches of one record each, with these faults.
    pub fn resharding_after(batches: usize, faults: &[(usize, Fault)]) -> Memory {
        let mut state = Memory::state(faults, (usize::MAX, Duration::ZERO));
        state.reshards = Some(batches);
        Memory(Arc::new(state))
    }

    /// Takes `delay` for every batch that lies more than `lag` records behind the end of its shard.
    pub fn slow_with_old(lag: u64, delay: Duration) -> Memory {
        let mut state = Memory::state(&[], (usize::MAX, Duration::ZERO));
        state.old = Some((lag, delay));
        Memory(Arc::new(state))
    }

    fn new(faults: &[(usize, Fault)], holds_up: (usize, Duration)) -> Memory {
        Memory(Arc::new(Memory::state(faults, holds_up)))
    }

    fn state(faults: &[(usize, Fault)], holds_up: (usize, Duration)) -> State {
        State {
            streams: Mutex::default(),
            shards: Mutex::default(),
            grown: Notify::new(),
            faults: faults.iter().copied().collect(),
            holds_up,
            old: None,
            reshards: None,
        }
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<ShardId, Shard>> {
        self.0.shards.lock().unwrap()
    }

    fn stage(&self, shards: &BTreeMap<ShardId, Shard>, stream: u32) -> Stage {
        let full = |shard| {
            let appended = shards.get(&ShardId { stream, shard }).map_or(0, |s| s.appended);
            self.0.reshards.is_some_and(|batches| appended >= batches)
        };
        match (full(0), full(1)) {
            (false, _) => Stage::Whole,
            (true, false) => Stage::Split,
            (true, true) => Stage::Merged,
        }
    }

    /// Takes a batch, for the shard or, once that is closed, for the one that has its key now.
    fn take(&self, shard: &mut ShardId, bytes: &[u8]) -> Result<Option<u64>, Option<Failure>> {
        let mut shards = self.shards();
        if self.0.reshards.is_some() {
            let view = BatchView::parse(bytes).unwrap();
            assert_eq!(view.record_count(), 1, "divided by whole batches");
            shard.shard = self.stage(&shards, shard.stream).of(view.records().next().unwrap().key);
        }
        let shard = *shard;
        let s = shards.entry(shard).or_default();
        let fault = self.0.faults.get(&s.appended).copied();
        s.appended += 1;
        if s.trim_to > 0 {
            s.oldest = std::mem::take(&mut s.trim_to);
            s.batches = s.batches.split_off(&s.oldest);
        }
        let mut bytes = bytes.to_vec();
        let base = s.high_water;
        let failure = |unknown| Some(Failure { unknown, message: "as the test wants it".into() });
        match fault {
            Some(Fault::Lose) => return Ok(Some(base)),
            Some(Fault::Skip) => {
                s.high_water += u64::from(BatchView::parse(&bytes).unwrap().record_count());
                return Ok(Some(base));
            }
            Some(Fault::Refuse) => return Err(failure(false)),
            Some(Fault::Forget) => return Err(None),
            Some(Fault::Swap) => {
                let records = BatchView::parse(&bytes).unwrap().record_count();
                s.held_back = Some(bytes);
                return Ok(Some(base + u64::from(records)));
            }
            Some(Fault::Corrupt) => {
                let payload = BatchView::parse(&bytes).unwrap().records().last().unwrap().payload;
                let end = payload.as_ptr_range().end as usize - bytes.as_ptr() as usize;
                bytes[end - 1] ^= 1;
            }
            _ => {}
        }
        s.store(bytes.clone());
        if let Some(before) = s.held_back.take() {
            s.store(before);
        }
        match fault {
            Some(Fault::Double) => s.store(bytes),
            Some(Fault::Trim) => s.trim_to = s.high_water,
            _ => {}
        }
        drop(shards);
        self.0.grown.notify_waiters();
        match fault {
            Some(Fault::RefuseAndStore) => Err(failure(false)),
            Some(Fault::Doubt) => Err(failure(true)),
            _ => Ok(Some(base)),
        }
    }
}

impl Shard {
    fn store(&mut self, mut bytes: Vec<u8>) {
        let base = self.high_water;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        stamp(&mut bytes, base, now.as_nanos() as u64, 0);
        self.high_water += u64::from(BatchView::parse(&bytes).unwrap().record_count());
        self.batches.insert(base, Arc::new(bytes));
    }
}

impl Target for Memory {
    type Link = Memory;

    fn address(&self) -> &str {
        "memory"
    }

    async fn link(&self) -> Result<Memory, Refusal> {
        Ok(self.clone())
    }
}

impl Link for Memory {
    type Sink = MemorySink;
    type Outcomes = mpsc::UnboundedReceiver<Outcome>;
    type Source = MemorySource;

    fn server(&self) -> String {
        "memory".into()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let mut streams = self.0.streams.lock().unwrap();
        let id = streams.len() as u32 + 1;
        let stream = streams
            .entry(name.to_owned())
            .or_insert_with(|| StreamDescription::evenly(name, id, config.clone()));
        Ok(stream.clone())
    }

    async fn describe(&self, stream: &StreamDescription) -> Result<StreamDescription, Refusal> {
        let stage = self.stage(&self.shards(), stream.id);
        if self.0.reshards.is_none() {
            return Ok(stream.clone());
        }
        let (mut now, eighths) = (stream.clone(), split_evenly(8));
        let shards = stage.shards().iter().map(|(shard, range, parents)| ShardDescription {
            shard: *shard,
            hash_start: eighths[range.start].start,
            hash_end: eighths[range.end - 1].end,
            parents: parents.to_vec(),
            closed: stage.closed(*shard),
            ..ShardDescription::default()
        });
        now.shards = shards.collect();
        Ok(now)
    }

    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal> {
        let shard = ShardId { stream: stream.id, shard };
        Ok(self.shards().entry(shard).or_default().high_water)
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        _: LaneOptions,
    ) -> Result<(MemorySink, Self::Outcomes), Refusal> {
        let shard = ShardId { stream: stream.id, shard };
        let (tell, outcomes) = mpsc::unbounded_channel();
        Ok((MemorySink { memory: self.clone(), shard, tell }, outcomes))
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
    ) -> Result<MemorySource, Refusal> {
        let shard = ShardId { stream: stream.id, shard };
        Ok(MemorySource { memory: self.clone(), shard, position: from, trimmed: 0, ended: false })
    }
}

/// Appends to one shard.
pub struct MemorySink {
    memory: Memory,
    shard: ShardId,
    tell: mpsc::UnboundedSender<Outcome>,
}

impl Sink for MemorySink {
    async fn ready(&mut self) {
        let taken = self.memory.shards().entry(self.shard).or_default().appended;
        let (batches, stall) = self.memory.0.holds_up;
        if taken == batches {
            tokio::time::sleep(stall).await;
        }
    }

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let mut shard = self.shard;
        let answer = self.memory.take(&mut shard, batch.finish(ProducerStamp::default()));
        batch.clear();
        match answer {
            Err(None) => {}
            Ok(base) => {
                let at = base.map(|sequence| At { shard: shard.shard, sequence });
                self.tell.send(Outcome::whole(tag, Fate::Stored(at))).unwrap();
            }
            Err(Some(failure)) => {
                self.tell.send(Outcome::whole(tag, Fate::Failed(failure))).unwrap();
            }
        }
        Ok(())
    }
}

impl Outcomes for mpsc::UnboundedReceiver<Outcome> {
    async fn next(&mut self) -> Option<Outcome> {
        self.recv().await
    }
}

/// Reads one shard, batch by batch.
pub struct MemorySource {
    memory: Memory,
    shard: ShardId,
    position: u64,
    trimmed: u64,
    ended: bool,
}

impl Source for MemorySource {
    type Chunk = Arc<Vec<u8>>;

    async fn next(&mut self) -> Result<Option<Arc<Vec<u8>>>, Trouble> {
        if let Some((lag, delay)) = self.memory.0.old {
            let high_water = self.memory.shards().entry(self.shard).or_default().high_water;
            if high_water.saturating_sub(self.position) > lag {
                tokio::time::sleep(delay).await;
            }
        }
        loop {
            let grown = self.memory.0.grown.notified();
            {
                let mut shards = self.memory.shards();
                let shard = shards.entry(self.shard).or_default();
                if shard.oldest > self.position {
                    self.trimmed += shard.oldest - self.position;
                    self.position = shard.oldest;
                }
                if let Some((&found, batch)) = shard.batches.range(self.position..).next() {
                    if found > self.position {
                        return Err(Trouble::Gap { expected: self.position, found });
                    }
                    self.position = BatchView::parse(batch).unwrap().end_sequence();
                    return Ok(Some(Arc::clone(batch)));
                }
                if self.memory.stage(&shards, self.shard.stream).closed(self.shard.shard) {
                    self.ended = true;
                    return Ok(None);
                }
            }
            grown.await;
        }
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn resume(&mut self, at: u64) {
        self.position = at;
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn trimmed(&self) -> u64 {
        self.trimmed
    }
}

impl Chunk for Arc<Vec<u8>> {
    fn each(&self, mut take: impl FnMut(RecordView<'_>, u64)) {
        let batch = BatchView::parse(self).unwrap();
        let arrival_ns = batch.header().arrival_ns.to_native();
        batch.records().for_each(|record| take(record, arrival_ns));
    }
}
