//! What all threads of a run know: fixed before the first record, but for the ledgers and the end.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_wire::{BatchBuilder, BatchHeader, Limits, StreamDescription};

use crate::clock::{Clock, nanos};
use crate::integrity::Ledger;
use crate::keys::{KEY_LEN, Keys, keys};
use crate::schedule::{Schedule, mix};
use crate::{LoadError, LoadOptions, Mode, Rate};

/// A run's common knowledge.
#[derive(Debug)]
pub struct Plan {
    /// What was asked.
    pub options: LoadOptions,
    /// How records are offered.
    pub mode: Mode,
    /// Number of the run.
    pub run: u64,
    /// Where records go.
    pub stream: StreamDescription,
    /// Partition keys, by shard.
    pub keys: Vec<Keys>,
    /// Shard sequence before which nothing of this run lies, by shard.
    pub from: Vec<u64>,
    /// Shards that are read: the first so many.
    pub consumers: usize,
    /// Producers, or closed-loop callers.
    pub producers: usize,
    /// Most records in a batch.
    pub batch_records: usize,
    /// The clock of all threads.
    pub clock: Clock,
    ledgers: Vec<Mutex<Ledger>>,
    start_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Plan {
    /// For a valid set of options and the stream they lead to, whose shards stand at `from`.
    pub fn new(
        options: LoadOptions,
        stream: StreamDescription,
        limits: Limits,
        from: Vec<u64>,
    ) -> Result<Plan, LoadError> {
        let shards = stream.shards.len();
        let consumers = options.consumers.unwrap_or(shards);
        if consumers > shards {
            return Err(LoadError::Consumers { consumers, shards });
        }
        let record_len = BatchBuilder::record_len(KEY_LEN, 0, options.record_size);
        let (max_record, max_batch) = (limits.max_record, limits.max_batch);
        for (overhead, limit) in [
            (KEY_LEN, max_record),
            (record_len - options.record_size + BatchHeader::LEN, max_batch),
        ] {
            if options.record_size + overhead > limit as usize {
                let record_size = options.record_size;
                return Err(LoadError::RecordTooLarge { record_size, overhead, limit });
            }
        }
        let room = options.batch_bytes.min(max_batch as usize).saturating_sub(BatchHeader::LEN);
        let mode = match (options.clients, options.rate) {
            (Some(_), _) => Mode::Closed,
            (None, Rate::Max) => Mode::Saturating,
            (None, Rate::PerSecond(_)) => Mode::Open,
        };
        let producers = options.clients.unwrap_or(options.producers);
        let lanes = if mode == Mode::Closed { producers } else { producers * shards };
        let batch_records = if mode == Mode::Closed { 1 } else { (room / record_len).max(1) };
        let inflight = if mode == Mode::Closed { 1 } else { options.inflight };
        // What a target that stands still would leave here; every factor is bounded, far within 64 bits.
        let unanswered = (lanes * inflight) as u64 * (batch_records * record_len) as u64;
        if unanswered > MAX_UNANSWERED {
            return Err(LoadError::Memory { bytes: unanswered, limit: MAX_UNANSWERED });
        }
        Ok(Plan {
            keys: keys(&stream.shards, mix(options.seed, KEY_SEED))?,
            batch_records,
            mode,
            run: fastrand::u64(1..1 << 53),
            from,
            consumers,
            producers,
            clock: Clock::start(),
            ledgers: (0..lanes).map(|_| Mutex::default()).collect(),
            start_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(u64::MAX),
            stream,
            options,
        })
    }

    /// Sets when the first record is due.
    pub fn begin(&self, start_ns: u64) {
        let total = nanos(self.options.warmup + self.options.duration);
        self.start_ns.store(start_ns, Ordering::Release);
        self.end_ns.store(start_ns.saturating_add(total), Ordering::Release);
    }

    /// Ends production at `now_ns`, if it would not end sooner.
    pub fn cut(&self, now_ns: u64) {
        self.end_ns.fetch_min(now_ns, Ordering::AcqRel);
    }

    /// When the first record is due.
    pub fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Acquire)
    }

    /// Nothing is due from here on.
    pub fn end_ns(&self) -> u64 {
        self.end_ns.load(Ordering::Acquire)
    }

    /// The measured window, by intended time; empty if the run was stopped in the warm-up.
    pub fn window(&self) -> Range<u64> {
        let start = self.start_ns().saturating_add(nanos(self.options.warmup));
        start..self.end_ns().max(start)
    }

    /// Lanes: pairs of a producer and a shard it writes to.
    pub fn lanes(&self) -> usize {
        self.ledgers.len()
    }

    /// Producer and index of the shard of a lane.
    pub fn lane(&self, index: usize) -> (u32, usize) {
        let shards = self.stream.shards.len();
        let producer = if self.mode == Mode::Closed { index } else { index / shards };
        (producer as u32, index % shards)
    }

    /// The lane of a record met in a shard; `None` if this run put no such record there.
    pub fn lane_of(&self, producer: u32, shard: usize) -> Option<usize> {
        let (producer, shards) = (producer as usize, self.stream.shards.len());
        if producer >= self.producers {
            None
        } else if self.mode == Mode::Closed {
            (producer % shards == shard).then_some(producer)
        } else {
            Some(producer * shards + shard)
        }
    }

    /// Whether a shard is read.
    pub fn read(&self, shard: usize) -> bool {
        shard < self.consumers
    }

    /// The sequence after the last one acknowledged, of each shard that is read.
    pub fn acked_ends(&self) -> Vec<u64> {
        let mut ends = vec![0; self.consumers];
        for lane in 0..self.lanes() {
            if let Some(end) = ends.get_mut(self.lane(lane).1) {
                *end = self.ledger(lane).acked_end().max(*end);
            }
        }
        ends
    }

    /// Most unanswered batches of a lane.
    pub fn inflight(&self) -> usize {
        if self.mode == Mode::Closed { 1 } else { self.options.inflight }
    }

    /// The due times of a lane; `None` without a rate.
    pub fn schedule(&self, lane: usize) -> Option<Schedule> {
        let Rate::PerSecond(rate) = self.options.rate else { return None };
        let (o, lanes) = (&self.options, self.lanes());
        Some(Schedule::new(o.arrival, rate, lane, lanes, self.start_ns(), o.seed))
    }

    /// The history of a lane.
    pub fn ledger(&self, lane: usize) -> MutexGuard<'_, Ledger> {
        // A ledger is whole between calls: a panic elsewhere does not spoil it.
        self.ledgers[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most bytes of unanswered batches a run may come to hold: its memory if the target stalls.
const MAX_UNANSWERED: u64 = 4 << 30;

/// Part of the seed that keys come from; lanes use 0 to their number.
const KEY_SEED: u64 = u64::MAX - 1;
/// ... and the one the filler comes from.
pub const FILLER_SEED: u64 = u64::MAX - 2;
