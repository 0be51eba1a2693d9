//! Reading: recent groups from memory, older ones from disk (`read/disk.rs`), for single reads and for subscriptions.
//! Nothing above the high-water mark is ever seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_ring::SharedBuf;
use highwater_wire::{BatchIter, BatchView};

use self::disk::Cursor;
use super::Shard;
use super::place::Wanted;
use crate::format::BlockHeader;
use crate::io::Io;
use crate::quota::{Meters, retry_ms};
use crate::types::{
    Arrivals, Chunk, Located, Now, Output, ReadError, ReaderId, Sifted, Slice, Start,
};

mod blocks;
mod disk;

/// Whose reader it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderKey {
    /// A subscription.
    Push(ReaderId),
    /// A single read, answered with this tag.
    Once(u64),
    /// A look-up of this number, which gives no records to anybody.
    Look(u64, Wanted),
    /// Nobody yet: what the next of a row of single reads will want.
    Ahead,
}

/// Soonest time after which a reader without quota is looked at again, ns: what has become free by then goes as one.
const LOOK_NS: u64 = 1_000_000;

/// Someone who reads this shard.
#[derive(Debug)]
pub(crate) struct Reader {
    key: ReaderKey,
    number: u64,
    pub(super) next: u64,
    credit: u64,
    max_bytes: usize,
    min_bytes: usize,
    deadline_ns: u64,
    busy: bool,
    /// Waits for buffer memory.
    starved: bool,
    /// Has caught up with the mark since it last read from disk: what it gets now is as old as its way here,
    /// not as old as the reader's being behind.
    live: bool,
    gone: bool,
    /// Waits for records: the mark when it was last looked at. It is not looked at again before the mark moves
    /// or its time is up.
    waits_at: Option<u64>,
    /// Waits for quota until then, monotonic.
    throttled: Option<u64>,
    /// The meters of whoever reads, if there is a quota for them.
    client: Option<Arc<Meters>>,
    /// It reads as long as this lease is in force; 0 for none.
    lease: u64,
    /// What it reads goes to a filter: who gets what of it is said later.
    filtered: bool,
    cursor: Option<Cursor>,
    /// The mark when its read from disk was submitted: what lies beyond may have been read before it was written.
    read_to: u64,
}

impl Reader {
    /// One that wants nothing yet.
    fn idle(key: ReaderKey, number: u64, next: u64) -> Reader {
        Reader {
            key,
            number,
            next,
            credit: u64::MAX,
            max_bytes: 1,
            min_bytes: 0,
            deadline_ns: u64::MAX,
            busy: false,
            starved: false,
            live: false,
            gone: false,
            waits_at: None,
            throttled: None,
            client: None,
            lease: 0,
            filtered: false,
            cursor: None,
            read_to: 0,
        }
    }

    /// A look-up that begins at a sequence number.
    pub(super) fn looking(number: u64, next: u64, wanted: Wanted) -> Reader {
        Reader::idle(ReaderKey::Look(number, wanted), number, next)
    }

    /// It has what it wanted.
    pub(super) fn end(&mut self) {
        self.gone = true;
    }

    /// What it is known by.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it reads records, rather than looks something up.
    pub(super) fn reads(&self) -> bool {
        matches!(self.key, ReaderKey::Push(_) | ReaderKey::Once(_))
    }

    /// Whether it waits for buffer memory.
    pub(super) fn starved(&self) -> bool {
        self.starved && !self.busy && !self.gone
    }

    /// When it has to be looked at, monotonic: a single read because it has to be answered, any because it may
    /// have quota again.
    pub(super) fn deadline(&self) -> Option<u64> {
        if self.busy {
            return None;
        }
        let waits = self.waits_at.is_some() || self.throttled.is_some();
        let answer = (matches!(self.key, ReaderKey::Once(_)) && waits).then_some(self.deadline_ns);
        [answer, self.throttled].into_iter().flatten().min()
    }
}

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// First sequence number wanted.
    pub from: u64,
    /// Most bytes; at least one batch comes, whatever its size.
    pub max_bytes: usize,
    /// Wait until this many bytes are there.
    pub min_bytes: usize,
    /// Answer at this time (monotonic, ns) with what is there.
    pub deadline_ns: u64,
    /// The lease it is read under; 0 for none.
    pub lease: u64,
    /// What is read goes to a filter: it does not count as handed out before [`crate::Core::sifted`] says so.
    pub filtered: bool,
}

impl Shard {
    /// A single read; answered by [`Output::Read`].
    pub fn read(&mut self, now: Now, number: u64, request: ReadRequest, tag: u64, io: &mut Io) {
        let located =
            self.leased(request.lease).and_then(|()| self.locate(Start::At(request.from)));
        if let Err(error) = located {
            io.outputs.push(Output::Read { tag, result: Err(error) });
            return;
        }
        self.readers.push(Reader {
            max_bytes: request.max_bytes.max(1),
            min_bytes: request.min_bytes,
            deadline_ns: request.deadline_ns,
            lease: request.lease,
            filtered: request.filtered,
            ..Reader::idle(ReaderKey::Once(tag), number, request.from)
        });
        self.pump_readers(now, io);
    }

    /// Has the single reads of these tags wait no longer.
    pub fn hurry(&mut self, now: Now, tags: &BTreeSet<u64>, io: &mut Io) {
        for r in &mut self.readers {
            if matches!(r.key, ReaderKey::Once(tag) if tags.contains(&tag)) {
                r.deadline_ns = r.deadline_ns.min(now.mono_ns);
            }
        }
        self.pump_readers(now, io);
    }

    /// A subscription from `from` on: [`Output::Deliver`] as credit allows, until [`Output::Ended`].
    #[allow(
        clippy::too_many_arguments,
        reason = "one call site; a struct would only rename the arguments"
    )]
    pub fn subscribe(
        &mut self,
        now: Now,
        number: u64,
        from: u64,
        credit: u64,
        max_bytes: usize,
        reader: ReaderId,
        io: &mut Io,
    ) -> Result<Located, ReadError> {
        let located = self.locate(Start::At(from))?;
        self.readers.push(Reader {
            credit,
            max_bytes: max_bytes.max(1),
            ..Reader::idle(ReaderKey::Push(reader), number, from)
        });
        self.pump_readers(now, io);
        Ok(located)
    }

    /// More credit for a subscription, in bytes.
    pub fn credit(&mut self, now: Now, reader: ReaderId, bytes: u64, io: &mut Io) {
        let Some(at) = self.readers.iter().position(|r| r.key == ReaderKey::Push(reader)) else {
            return;
        };
        self.readers[at].credit = self.readers[at].credit.saturating_add(bytes);
        if self.metering.reads {
            // What quota there is goes in turn.
            self.pump_readers(now, io);
        } else if self.pump_one(now, at, io) {
            self.readers.retain(|r| !r.gone || r.busy);
        }
    }

    /// Has a subscription obey the quota of whoever reads from now on; `None`: it has none.
    pub fn limit(&mut self, reader: ReaderId, client: Option<Arc<Meters>>) {
        if let Some(r) = self.readers.iter_mut().find(|r| r.key == ReaderKey::Push(reader)) {
            (r.client, r.throttled) = (client, None);
        }
    }

    /// Whether a lease is in force; 0 is none and always right.
    pub fn leased(&self, lease: u64) -> Result<(), ReadError> {
        if lease == 0 || self.leases.contains(&lease) {
            return Ok(());
        }
        Err(ReadError::LeaseLost { shard: self.spec.id, lease })
    }

    /// Has a subscription end with a lease.
    pub fn bind(&mut self, reader: ReaderId, lease: u64) {
        if let Some(r) = self.readers.iter_mut().find(|r| r.key == ReaderKey::Push(reader)) {
            r.lease = lease;
        }
    }

    /// Has what a subscription reads go to a filter.
    pub fn filter(&mut self, reader: ReaderId) {
        if let Some(r) = self.readers.iter_mut().find(|r| r.key == ReaderKey::Push(reader)) {
            r.filtered = true;
        }
    }

    /// What a filter made of records that were read for it.
    pub fn sifted(&mut self, sifted: &Sifted) {
        self.stats.filter_looked += sifted.looked;
        self.stats.filter_matched += sifted.matched;
        self.stats.records_out += sifted.matched;
        self.stats.bytes_out += sifted.bytes;
    }

    /// Another lease is in force in place of `old`, under which nobody reads any more; 0 for none.
    pub fn set_lease(&mut self, old: u64, new: u64, io: &mut Io) {
        if old > 0 {
            self.leases.remove(&old);
            let error = ReadError::LeaseLost { shard: self.spec.id, lease: old };
            for at in 0..self.readers.len() {
                if self.readers[at].lease == old {
                    self.end_reader(at, &error, io);
                }
            }
            self.readers.retain(|r| !r.gone || r.busy);
        }
        if new > 0 {
            self.leases.insert(new);
        }
    }

    /// Ends a subscription, without an answer.
    pub fn unsubscribe(&mut self, reader: ReaderId) {
        for r in &mut self.readers {
            r.gone |= r.key == ReaderKey::Push(reader);
        }
        self.readers.retain(|r| !r.gone || r.busy);
    }

    pub(super) fn end_readers(&mut self, error: &ReadError, io: &mut Io) {
        for at in 0..self.readers.len() {
            self.end_reader(at, error, io);
        }
        self.readers.retain(|r| r.busy);
    }

    /// Ends one with an error.
    fn end_reader(&mut self, at: usize, error: &ReadError, io: &mut Io) {
        let r = &mut self.readers[at];
        if r.gone {
            return;
        }
        r.gone = true;
        match r.key {
            ReaderKey::Push(reader) => {
                io.outputs.push(Output::Ended { reader, error: error.clone() });
            }
            ReaderKey::Once(tag) => {
                io.outputs.push(Output::Read { tag, result: Err(error.clone()) });
            }
            key @ ReaderKey::Look(..) => self.look_failed(key, error),
            ReaderKey::Ahead => {}
        }
    }

    /// Gives every reader what can be had now.
    pub fn pump_readers(&mut self, now: Now, io: &mut Io) {
        if self.readers.is_empty() {
            return;
        }
        if self.metering.reads {
            // Who is first takes what quota there is: everybody is in turn.
            self.readers.rotate_left(1);
        }
        for at in 0..self.readers.len() {
            self.pump_one(now, at, io);
        }
        self.readers.retain(|r| !r.gone || r.busy);
    }

    /// Gives one reader what can be had now; `true` if it has ended.
    fn pump_one(&mut self, now: Now, at: usize, io: &mut Io) -> bool {
        // Damage that one of them meets ends them all.
        let ready = |r: &Reader| !r.busy && !r.gone;
        while self.readers.get(at).is_some_and(ready) && self.pump_reader(now, at, io) {}
        self.readers.get(at).is_none_or(|r| r.gone)
    }

    /// One step for one reader; `true` if another may follow at once.
    fn pump_reader(&mut self, now: Now, at: usize, io: &mut Io) -> bool {
        let (oldest, high_water) = (self.oldest(), self.high_water);
        let (shard, ended) = (self.spec.id, self.ended());
        let r = &mut self.readers[at];
        r.starved = false; // unless it finds no memory again
        let from = r.next;
        if let ReaderKey::Look(_, wanted) = r.key {
            return self.pump_look(now, at, wanted, io);
        }
        if let Some(end) = ended.filter(|end| from >= *end) {
            self.end_reader(at, &ReadError::ShardEnded { shard, end }, io);
            return false;
        }
        if from < oldest {
            self.end_reader(at, &ReadError::Trimmed { from, oldest }, io);
            return false;
        }
        let r = &mut self.readers[at];
        let waits = r.waits_at == Some(high_water) && now.mono_ns < r.deadline_ns;
        if r.credit == 0 || (waits && ended.is_none()) {
            return false;
        }
        r.waits_at = None;
        if r.next >= high_water {
            r.live = true;
            if let ReaderKey::Once(tag) = r.key
                && (now.mono_ns >= r.deadline_ns || r.min_bytes == 0)
            {
                r.gone = true;
                let chunk = Chunk { next: r.next, high_water, oldest, ..Chunk::default() };
                io.outputs.push(Output::Read { tag, result: Ok(chunk) });
            }
            r.waits_at = Some(high_water);
            return false;
        }
        let Some(room) = self.room_out(now, at, io) else { return false };
        let r = &self.readers[at];
        let budget = (r.max_bytes as u64).min(r.credit).min(room) as usize;
        if self.tail.front().is_some_and(|b| b.base_sequence <= from) {
            let chunk = self.collect_tail(from, budget);
            self.readers[at].cursor = None;
            return self.give(now, at, chunk, io);
        }
        if let Some(piece) = io.kept.take(shard, from) {
            self.readers[at].live = false;
            self.read_blocks(now, at, piece, io);
            return true;
        }
        let ahead = |r: &Reader| r.key == ReaderKey::Ahead && r.next == from && !r.gone;
        if self.aheads > 0 && self.readers.iter().any(ahead) {
            return false; // it is on its way
        }
        self.read_disk(now, at, io)
    }

    /// One step of a look-up.
    fn pump_look(&mut self, now: Now, at: usize, wanted: Wanted, io: &mut Io) -> bool {
        let from = self.readers[at].next;
        if from >= self.high_water || from < self.oldest() {
            self.look_ended(at, wanted);
            return false;
        }
        if self.tail.front().is_some_and(|b| b.base_sequence <= from) {
            self.look_in_tail(at, wanted);
            return false;
        }
        self.read_disk(now, at, io)
    }

    /// Bytes that a reader may be given by quota; `None` if it has to wait, or its time is up.
    fn room_out(&mut self, now: Now, at: usize, io: &mut Io) -> Option<u64> {
        let r = &mut self.readers[at];
        if !self.metering.reads && r.client.is_none() {
            return Some(u64::MAX);
        }
        let wait_ns = match self.metering.room_out(now, r.client.as_deref()) {
            Ok(room) => {
                r.throttled = None;
                return Some(room);
            }
            Err(wait_ns) => wait_ns,
        };
        if let ReaderKey::Once(tag) = r.key
            && now.mono_ns >= r.deadline_ns
        {
            r.gone = true;
            let result = Err(ReadError::Quota { retry_after_ms: retry_ms(wait_ns) });
            io.outputs.push(Output::Read { tag, result });
        } else {
            r.throttled = Some(now.mono_ns + wait_ns.max(LOOK_NS));
        }
        None
    }

    /// Hands a chunk over, unless a single read should wait for more.
    fn give(&mut self, now: Now, at: usize, mut chunk: Chunk, io: &mut Io) -> bool {
        chunk.high_water = self.high_water;
        chunk.oldest = self.oldest();
        let ended = self.ended().is_some();
        let r = &mut self.readers[at];
        if !r.live {
            chunk.durable_ns = 0;
        }
        match r.key {
            ReaderKey::Push(reader) => {
                let bytes = chunk.bytes as u64;
                self.metering.take_out(now, bytes, r.client.as_deref());
                r.next = chunk.next;
                r.credit = r.credit.saturating_sub(chunk.bytes as u64);
                let (live, filtered) = (r.live, r.filtered);
                self.count_out(&mut chunk, live, filtered);
                io.outputs.push(Output::Deliver { reader, chunk });
                true
            }
            ReaderKey::Once(tag) => {
                let more_may_come =
                    chunk.next >= chunk.high_water && chunk.bytes < r.max_bytes && !ended;
                if chunk.bytes < r.min_bytes && more_may_come && now.mono_ns < r.deadline_ns {
                    r.waits_at = Some(chunk.high_water);
                    return false;
                }
                let bytes = chunk.bytes as u64;
                self.metering.take_out(now, bytes, r.client.as_deref());
                r.gone = true;
                let (live, filtered) = (r.live, r.filtered);
                self.count_out(&mut chunk, live, filtered);
                io.outputs.push(Output::Read { tag, result: Ok(chunk) });
                false
            }
            // They take no records.
            ReaderKey::Look(..) | ReaderKey::Ahead => false,
        }
    }

    fn count_out(&mut self, chunk: &mut Chunk, live: bool, filtered: bool) {
        if !filtered {
            self.stats.records_out += chunk.records;
            self.stats.bytes_out += chunk.bytes as u64;
        }
        if live {
            let batches = chunk.slices.iter().flat_map(|s| BatchIter::new(s.bytes())).flatten();
            let arrival = |batch: BatchView<'_>| {
                (batch.header().arrival_ns.to_native(), batch.record_count())
            };
            let batches = batches.map(arrival).collect();
            chunk.arrivals = Some(Arrivals { shard: self.id(), batches });
        }
    }

    /// Batches were handed over at `at_ns`, nanoseconds since 1970 UTC.
    pub fn handed_over(&mut self, arrivals: &Arrivals, at_ns: u64, io: &mut Io) {
        for &(arrival_ns, records) in &arrivals.batches {
            let (delay, records) = (at_ns.saturating_sub(arrival_ns), u64::from(records));
            self.stats.propagation.record(delay, records);
            io.stats.propagation.record(delay, records);
        }
    }

    fn collect_tail(&self, from: u64, budget: usize) -> Chunk {
        let mut chunk = Chunk { next: from, ..Chunk::default() };
        let first = self.tail.partition_point(|b| b.end_sequence <= from);
        chunk.durable_ns = self.tail.get(first).map_or(0, |b| b.durable_ns);
        for block in self.tail.iter().skip(first) {
            if !add_batches(&mut chunk, &block.buf, BlockHeader::LEN, block.body_end, budget) {
                break;
            }
        }
        chunk
    }
}

/// Adds the batches of `buf[start..end]` from `chunk.next` on, as one slice, as far as `budget` bytes go
/// (at least one batch in all). `false` when the budget ended it.
fn add_batches(
    chunk: &mut Chunk,
    buf: &SharedBuf,
    start: usize,
    end: usize,
    budget: usize,
) -> bool {
    let mut first = None;
    let mut pos = start;
    let mut whole = true;
    for batch in BatchIter::new(&buf[start..end]) {
        let Ok(batch) = batch else { break };
        let len = batch.bytes().len();
        if batch.record_count() == 0 {
            // It only says how far a producer has come: no reader is to see it.
            if let Some(first) = first.take() {
                chunk.slices.push(Slice { buf: buf.clone(), start: first, end: pos });
            }
        } else if batch.end_sequence() > chunk.next {
            if chunk.bytes + len > budget && chunk.bytes > 0 {
                whole = false;
                break;
            }
            first.get_or_insert(pos);
            chunk.bytes += len;
            chunk.records += u64::from(batch.record_count());
            chunk.next = batch.end_sequence();
        }
        pos += len;
    }
    if let Some(first) = first {
        chunk.slices.push(Slice { buf: buf.clone(), start: first, end: pos });
    }
    whole
}
