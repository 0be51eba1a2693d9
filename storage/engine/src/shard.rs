//! One shard: an ordered log of batches, as a state machine. Appends gather into commit groups
//! (`append`), groups become device writes whose completions advance the high-water mark in order
//! (`write`), in one segment after the other (`segments`); readers are served from recent groups or from disk
//! (`read`), old segments go (`retain`), splits close it (`close`). No clock, no file, no thread: time comes in,
//! operations go out.

mod append;
mod close;
mod end;
mod held;
mod metered;
mod metering;
mod part;
mod place;
mod read;
mod retain;
mod segments;
mod status;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_ring::{Done, Op, SharedBuf};
use highwater_wire::{AckMode, ShardId};

use crate::checkpoint::Claim;
use crate::group::{Group, PendingAck};
use crate::io::{Io, What};
use crate::lag::{Follow, Growth};
use crate::producers::Producers;
use crate::quota::Meters;
use crate::segment::Segment;
use crate::stats::ShardStats;
use crate::types::{AppendError, Located, Now, Output, Policy, ReadError, ShardSpec, Start};

pub(crate) use append::claim_of;
pub use read::ReadRequest;
pub(crate) use write::IN_FLIGHT_SEGMENTS;

/// What a shard starts with: fresh, or as recovery found it.
#[derive(Debug, Default)]
pub struct ShardLog {
    /// Its segments, oldest first, none open yet.
    pub segments: Vec<Segment>,
    /// Next sequence number to give.
    pub next_sequence: u64,
    /// Next block number to give.
    pub next_block: u64,
    /// Header CRC of the last block.
    pub prev_crc: u32,
    /// Number for the next segment.
    pub next_segment: u64,
    /// What is remembered of producers.
    pub producers: Producers,
    /// Set when durable data is damaged: file, offset and records.
    pub damaged: Option<String>,
    /// What earlier checkpoints say, kept for a damaged shard: without it the next start would take the
    /// damage for a torn tail, and cut it.
    pub claimed: Option<Claim>,
}

impl ShardLog {
    /// For a checkpoint written before anything else: what recovery found is durable.
    pub fn claim(&self) -> Option<Claim> {
        if self.damaged.is_some() {
            return self.claimed;
        }
        let segment = self.segments.last()?;
        Some(Claim {
            generation: segment.generation,
            block: self.next_block - 1,
            seal_offset: segment.seal_offset,
        })
    }

    /// An empty log.
    pub fn empty(producers: usize) -> ShardLog {
        ShardLog { next_block: 1, producers: Producers::new(producers), ..ShardLog::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A write failed: reads go on, appends do not.
    Failed(Arc<str>),
    /// Durable data is damaged: nothing goes on.
    Damaged(Arc<str>),
    /// A split or merge closed it: what is in flight is finished, reads go on to the end.
    Closed,
    Closing,
}

/// A segment prepared ahead.
#[derive(Clone, Copy, Debug)]
struct Spare {
    number: u64,
    file: highwater_ring::FileId,
    capacity: u64,
}

/// Something to be written, its place decided.
#[derive(Debug)]
enum Item {
    /// The header of a segment just begun.
    Header { segment: u64 },
    /// A group, no longer growing.
    Group(Box<Group>),
    /// The seal of a segment that is full.
    Seal { segment: u64, offset: u64, body: Vec<u8>, end_sequence: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlightKind {
    Header,
    Group,
    Seal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FlightState {
    Writing,
    /// The write completed; durable if it was a durable write.
    Written,
    /// A flush submitted after that completed.
    Durable,
}

/// A write under way, in the order of the log.
#[derive(Debug)]
struct Flight {
    number: u64,
    kind: FlightKind,
    state: FlightState,
    segment: u64,
    offset: u64,
    block: u64,
    base_sequence: u64,
    end_sequence: u64,
    acks: Vec<PendingAck>,
    buf: SharedBuf,
    body_end: usize,
    submitted_ns: u64,
    written_ns: u64,
}

/// How far a consumer group is.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// Next sequence number to read.
    position: u64,
    follow: Follow,
}

/// A group kept in memory after it became durable.
#[derive(Debug)]
struct TailBlock {
    base_sequence: u64,
    end_sequence: u64,
    /// When it became durable, monotonic.
    durable_ns: u64,
    buf: SharedBuf,
    body_end: usize,
    /// Where it lies on disk.
    segment: u64,
    offset: u64,
}

/// One shard of one core.
pub struct Shard {
    spec: ShardSpec,
    epoch: u32,
    state: State,
    segments: VecDeque<Segment>,
    /// Whether the last of `segments` was begun by this incarnation and is being written.
    current: bool,
    spare: Option<Spare>,
    taking: bool,
    /// Bytes of the segment that is under way.
    ordered: u64,
    recycling: bool,
    /// From then on no read begins in the oldest segment while it is to go, monotonic; `u64::MAX`: nothing presses.
    leaves_at: u64,
    /// After the oldest segment could not be given back: not before this time again.
    recycle_again_ns: u64,
    /// After the file system refused a segment: not before this time again.
    take_again_ns: u64,
    take_refused: Option<AppendError>,
    /// How often the next request for a segment is halved, after the file system refused a larger one.
    take_smaller: u32,
    next_segment: u64,
    next_sequence: u64,
    next_block: u64,
    prev_crc: u32,
    committed: u64,
    high_water: u64,
    open: Option<Box<Group>>,
    ready: VecDeque<Item>,
    flights: VecDeque<Flight>,
    next_flight: u64,
    next_ahead: u64,
    /// Reads ahead under way.
    aheads: usize,
    /// Groups being written.
    writing: usize,
    syncing: bool,
    /// Batches that have no place yet.
    queue: held::Queue,
    metering: metering::Metering,
    producers: Producers,
    tail: VecDeque<TailBlock>,
    readers: Vec<read::Reader>,
    groups: BTreeMap<String, Mark>,
    /// Records that come in, followed.
    arriving: Growth,
    places: place::Places,
    /// The leases that are in force.
    leases: BTreeSet<u64>,
    ops: usize,
    removing: Option<u64>,
    gone: bool,
    last_ack_block: u64,
    /// For a shard found damaged: what earlier checkpoints say of it.
    claimed: Option<Claim>,
    pub(crate) stats: ShardStats,
}

impl Shard {
    /// A shard with the log recovery found. Nothing is written until the first append.
    /// `stream`: the meters of its stream, which its shards share, if there is such a quota.
    pub fn new(spec: ShardSpec, epoch: u32, log: ShardLog, stream: Option<Arc<Meters>>) -> Shard {
        let metering = metering::Metering::new(&spec.policy, stream);
        let claimed = log.claimed.filter(|_| log.damaged.is_some());
        let state = match log.damaged {
            Some(reason) => State::Damaged(reason.into()),
            None if spec.closed => State::Closed,
            None => State::Open,
        };
        Shard {
            spec,
            epoch,
            state,
            segments: log.segments.into(),
            current: false,
            spare: None,
            taking: false,
            ordered: 0,
            recycling: false,
            leaves_at: u64::MAX,
            recycle_again_ns: 0,
            take_again_ns: 0,
            take_refused: None,
            take_smaller: 0,
            next_segment: log.next_segment,
            next_sequence: log.next_sequence,
            next_block: log.next_block,
            prev_crc: log.prev_crc,
            committed: log.next_block - 1,
            high_water: log.next_sequence,
            open: None,
            ready: VecDeque::new(),
            flights: VecDeque::new(),
            next_flight: 0,
            next_ahead: 0,
            aheads: 0,
            writing: 0,
            syncing: false,
            queue: held::Queue::default(),
            metering,
            producers: log.producers,
            tail: VecDeque::new(),
            readers: Vec::new(),
            groups: BTreeMap::new(),
            arriving: Growth::default(),
            places: place::Places::default(),
            leases: BTreeSet::new(),
            ops: 0,
            removing: None,
            gone: false,
            last_ack_block: log.next_block - 1,
            claimed,
            stats: ShardStats::default(),
        }
    }

    /// Which.
    pub fn id(&self) -> ShardId {
        self.spec.id
    }

    /// What it was made with.
    pub fn spec(&self) -> &ShardSpec {
        &self.spec
    }

    /// The high-water mark.
    pub fn high_water(&self) -> u64 {
        self.high_water
    }

    /// The sequence number to be given next.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Oldest sequence number kept.
    pub fn oldest(&self) -> u64 {
        let kept = self.segments.front().map_or(self.next_sequence, |s| s.base_sequence);
        kept.max(self.spec.trimmed.min(self.high_water))
    }

    /// Commit groups being written.
    pub fn writing(&self) -> usize {
        self.writing
    }

    /// Whether nothing is under way or waiting to be.
    pub fn quiet(&self) -> bool {
        self.flights.is_empty()
            && self.ready.is_empty()
            && self.open.is_none()
            && self.queue.is_empty()
    }

    /// For the checkpoint.
    pub fn checkpoint(&self) -> Option<Claim> {
        if self.claimed.is_some() {
            return self.claimed;
        }
        let segment = self.segments.back()?;
        // Only a segment nobody writes any more, durable to its seal, is told as sealed.
        let closed = !self.current && self.quiet() && segment.last_block <= self.committed;
        Some(Claim {
            generation: segment.generation,
            block: self.committed,
            seal_offset: if closed { segment.seal_offset } else { 0 },
        })
    }

    /// Sets what it lets pass from now on. Meters of a quota that changed begin with all their burst.
    pub fn set_policy(&mut self, policy: Policy, stream: Option<Arc<Meters>>) {
        self.metering = match policy.quota == self.spec.policy.quota {
            true => std::mem::take(&mut self.metering).with_stream(stream),
            false => metering::Metering::new(&policy, stream),
        };
        self.spec.policy = policy;
        // What is held may pass now, or not any more: looked at with the next turn.
        self.queue.until = self.queue.until.map(|_| 0);
    }

    /// Turns a start into a sequence number.
    pub fn locate(&self, start: Start) -> Result<Located, ReadError> {
        if let State::Damaged(reason) = &self.state {
            return Err(ReadError::Damaged { shard: self.spec.id, reason: reason.clone() });
        }
        if self.removing.is_some() {
            return Err(ReadError::Closing);
        }
        let (oldest, high_water) = (self.oldest(), self.high_water);
        let sequence = match start {
            Start::Oldest => oldest,
            Start::Latest => high_water,
            Start::At(sequence) => sequence,
            Start::After(sequence) => sequence.saturating_add(1),
            Start::Time(time_ns) => self.sequence_at(time_ns).clamp(oldest, high_water),
        };
        if sequence < oldest {
            return Err(ReadError::Trimmed { from: sequence, oldest });
        }
        if sequence > high_water {
            return Err(ReadError::BeyondEnd { from: sequence, high_water });
        }
        Ok(Located { sequence, oldest, high_water })
    }

    fn sequence_at(&self, time_ns: u64) -> u64 {
        let late_enough = self.segments.iter().find(|s| s.last_arrival_ns >= time_ns);
        match late_enough.and_then(|s| s.index.by_time(time_ns)) {
            Some(entry) => entry.sequence,
            None => self.high_water,
        }
    }

    fn segment_of(&self, sequence: u64) -> Option<usize> {
        self.segments.partition_point(|s| s.base_sequence <= sequence).checked_sub(1)
    }

    fn segment_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().rev().find(|s| s.number == number)
    }

    fn submit(&mut self, io: &mut Io, what: What, op: Op) {
        self.ops += 1;
        io.submit(self.spec.id, what, op);
    }

    /// An operation completed.
    pub fn completed(
        &mut self,
        now: Now,
        what: What,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        self.ops -= 1;
        match what {
            What::Flight(number) => self.flight_done(now, number, result, io),
            What::Sync(number) => self.sync_done(now, number, result, io),
            What::Read(number) => self.read_done(now, number, result, io),
            What::Take(number) => self.segment_taken(now, number, result, io),
            What::Open(number) => self.segment_opened(now, number, result, io),
            What::Recycle if result.is_ok() => self.segment_gone(now, io),
            What::Recycle => {
                self.recycling = false;
                self.recycle_again_ns = now.mono_ns + retain::RECYCLE_AGAIN_NS;
                self.pump_readers(now, io);
            }
            What::Discard | What::Checkpoint => {}
            What::RemoveDir => {
                let result = result.map(|_| ()).map_err(|e| e.to_string().into());
                self.gone = true;
                if let Some(tag) = self.removing.take() {
                    io.outputs.push(Output::Removed { tag, result });
                }
            }
        }
    }

    /// Gives back the memory of the oldest group kept for live consumers.
    pub fn drop_oldest_tail(&mut self, io: &mut Io) -> bool {
        match self.tail.pop_front() {
            Some(block) => {
                io.tail_used -= block.buf.capacity();
                true
            }
            None => false,
        }
    }

    fn drop_tail(&mut self, io: &mut Io) {
        while self.drop_oldest_tail(io) {}
        io.tail_order.retain(|(shard, _)| *shard != self.spec.id);
    }

    /// Whether a reader or an accepted batch waits for buffer memory.
    pub fn starved(&self) -> bool {
        let waits = !self.queue.is_empty() && self.queue.until.is_none();
        let appends = waits && !self.taking && self.state == State::Open;
        appends || self.readers.iter().any(|r| r.starved())
    }

    /// When the shard needs attention at the latest, monotonic.
    pub fn next_wake(&self, io: &Io) -> Option<u64> {
        if self.removing.is_some() {
            return None; // its last operation wakes it
        }
        let sync = (self.spec.ack == AckMode::Written && !self.syncing)
            .then(|| self.flights.front().filter(|f| f.state == FlightState::Written))
            .flatten()
            .map(|f| f.written_ns + io.options.flush_after_ns);
        let reads = self.readers.iter().filter_map(read::Reader::deadline).min();
        [sync, reads, self.queue.until].into_iter().flatten().min()
    }
}
