//! One turn of a filter: looks at records of a lot until it has found enough or its time is up. Pure but for asking
//! whether it is.

use std::sync::Arc;

use highwater_engine::{Arrivals, Chunk, ReaderId, Slice};
use highwater_process::{Filter, Record};
use highwater_wire::select::{Run, append_run, records, spans};
use highwater_wire::{
    BatchError, BatchHeader, BatchIter, BatchView, FilterTally, RecordView, Unpacker,
};

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Program {
    filter: Filter,
    /// Bytes it may take.
    pub memory: usize,
}

impl Program {
    /// Compiles `source` for so many threads.
    pub fn compile(source: &str, threads: usize) -> Result<Program, String> {
        let filter = Filter::compile(source).map_err(|error| error.to_string())?;
        let memory = filter.expression().memory(threads);
        Ok(Program { filter, memory })
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Subscription(ReaderId),
    /// By the tag of the request.
    Fetch(u64),
}

/// Batches that were read for a filter.
#[derive(Debug, Default)]
pub(crate) struct Lot {
    batches: Batches,
    /// Their bytes.
    pub bytes: usize,
    /// Sequence number after the last record.
    pub next: u64,
    /// The high-water mark when they were read.
    pub high_water: u64,
    /// When the first of them became durable, monotonic nanoseconds; 0 for a reader that had not caught up.
    pub durable_ns: u64,
    /// Whether the reader had caught up: how long records take to it is measured.
    live: bool,
}

#[derive(Debug)]
enum Batches {
    /// In the log's buffers.
    Shared(Vec<Slice>),
    Owned(Vec<u8>),
}

impl Default for Batches {
    fn default() -> Batches {
        Batches::Owned(Vec::new())
    }
}

impl Lot {
    /// What was read, in the log's buffers or, unless they may be held, as a copy; and the capacity of buffers held.
    pub fn of(chunk: Chunk, share: bool) -> (Lot, usize) {
        let held = if share { chunk.capacity() } else { 0 };
        let Chunk { slices, bytes, next, high_water, durable_ns, arrivals, .. } = chunk;
        let batches = if share {
            Batches::Shared(slices)
        } else {
            let mut copy = Vec::with_capacity(bytes);
            slices.iter().for_each(|slice| copy.extend_from_slice(slice.bytes()));
            Batches::Owned(copy)
        };
        let live = arrivals.is_some();
        (Lot { batches, bytes, next, high_water, durable_ns, live }, held)
    }

    fn batches(&self) -> impl Iterator<Item = Result<BatchView<'_>, BatchError>> {
        let (slices, owned) = match &self.batches {
            Batches::Shared(slices) => (&slices[..], &[][..]),
            Batches::Owned(bytes) => (&[][..], &bytes[..]),
        };
        slices.iter().flat_map(|slice| BatchIter::new(slice.bytes())).chain(BatchIter::new(owned))
    }
}

/// Which records are still to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Sequence number of the next.
    pub next: u64,
    /// Batches that arrived earlier are passed over, up to the first that did not; 0 from then on.
    pub since_ns: u64,
    /// None from this number on.
    pub until: u64,
}

/// A turn to be taken.
#[derive(Debug)]
pub(crate) struct Turn {
    pub whose: Whose,
    pub program: Arc<Program>,
    pub lot: Lot,
    pub span: Span,
    /// It ends with the record by which it has found this many bytes.
    pub room: usize,
    /// Largest batch, inflated, in bytes.
    pub max_batch: u32,
}

/// Why a turn cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// A batch is damaged, or no client could inflate it.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A defect in what evaluates filters.
    #[error("the filter thread panicked; the server's log says where")]
    Panicked,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Batches of the records that match.
    pub data: Vec<u8>,
    pub tally: FilterTally,
    /// When they arrived, of a reader that had caught up: time and number of records, by batch.
    pub arrivals: Option<Vec<(u64, u32)>>,
    /// What is still to be looked at.
    pub span: Span,
    /// Whether all of the lot was.
    pub finished: bool,
    /// Why it cannot be gone on with.
    pub flaw: Option<Flaw>,
}

impl Found {
    /// The arrivals of what matched, of this shard.
    pub fn arrivals_of(&mut self, shard: highwater_wire::ShardId) -> Option<Arrivals> {
        let batches = self.arrivals.take().filter(|batches| !batches.is_empty())?;
        Some(Arrivals { shard, batches })
    }
}

/// What a client inflates at most of one delivery is four times the largest batch; a turn stays below.
const INFLATED: usize = 3;

/// Memory that turns of one thread share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    unpacker: Unpacker,
    body: Vec<u8>,
}

impl Turn {
    /// Takes it. `enough` is asked before each record but the first and ends it: at least one record is looked at.
    pub fn take(&self, scratch: &mut Scratch, enough: impl FnMut() -> bool) -> Found {
        let mut look = Look { turn: self, enough, inflated: 0, found: self.nothing() };
        match look.lot(scratch) {
            Ok(finished) => look.found.finished = finished,
            Err(flaw) => look.found.flaw = Some(flaw.into()),
        }
        look.found
    }

    /// What has been found before the first record is looked at.
    fn nothing(&self) -> Found {
        Found {
            data: Vec::new(),
            tally: FilterTally::default(),
            arrivals: self.lot.live.then(Vec::new),
            span: self.span,
            finished: false,
            flaw: None,
        }
    }

    /// What is said of it if it was not taken to its end because of a defect: nothing was found, and it ends here.
    pub fn panicked(&self) -> Found {
        Found { flaw: Some(Flaw::Panicked), ..self.nothing() }
    }
}

/// A turn being taken.
struct Look<'t, E> {
    turn: &'t Turn,
    enough: E,
    /// Bytes of what was found, as they are when inflated.
    inflated: usize,
    found: Found,
}

impl<E: FnMut() -> bool> Look<'_, E> {
    /// All of the lot; `false` if it ended before.
    fn lot(&mut self, scratch: &mut Scratch) -> Result<bool, BatchError> {
        for batch in self.turn.lot.batches() {
            let batch = batch?;
            if self.found.span.next >= self.found.span.until {
                break;
            }
            if batch.end_sequence() <= self.found.span.next {
                continue;
            }
            let header = batch.header();
            if header.arrival_ns.to_native() < self.found.span.since_ns {
                self.found.span.next = batch.end_sequence();
                continue;
            }
            self.found.span.since_ns = 0;
            let whole = BatchHeader::LEN + header.body_length.to_native() as usize;
            let most = INFLATED * self.turn.max_batch as usize;
            if !self.found.data.is_empty() && self.inflated + whole > most {
                return Ok(false);
            }
            let body = if batch.compressed() {
                scratch.unpacker.unpack_into(&batch, self.turn.max_batch, &mut scratch.body)?;
                &scratch.body
            } else {
                batch.body()
            };
            if !self.batch(&batch, body)? {
                return Ok(false);
            }
        }
        // What is passed over at its end, being of no record, counts as looked at.
        let end = self.turn.lot.next.min(self.found.span.until);
        self.found.span.next = self.found.span.next.max(end);
        Ok(true)
    }

    /// One batch; `false` if the turn ended in it.
    fn batch(&mut self, batch: &BatchView<'_>, body: &[u8]) -> Result<bool, BatchError> {
        let (header, start) = (batch.header(), self.found.data.len());
        let (base, count) = (batch.base_sequence(), batch.record_count());
        let arrival_ns = header.arrival_ns.to_native();
        let before = self.found.tally.matched;
        let (mut run, mut at): (Option<Run>, usize) = (None, 0);
        let mut ended = false;
        for ((index, bytes), record) in spans(body, count).zip(records(body, count, base)) {
            let place = at..at + bytes.len();
            at = place.end;
            if record.sequence < self.found.span.next {
                continue;
            }
            if record.sequence >= self.found.span.until {
                break;
            }
            if self.full(run.as_ref()) || (self.found.tally.looked > 0 && (self.enough)()) {
                ended = true;
                break;
            }
            self.found.span.next = record.sequence + 1;
            if !self.matches(record, arrival_ns) {
                self.close(header, body, run.take());
                continue;
            }
            let last = highwater_wire::RecordHeader::view(bytes);
            let last_timestamp_ns = last.map_or(0, |header| header.timestamp_ns.to_native());
            match &mut run {
                Some(run) => {
                    (run.count, run.bytes.end) = (run.count + 1, place.end);
                    run.last_timestamp_ns = last_timestamp_ns;
                }
                none => {
                    *none = Some(Run { first: index, count: 1, bytes: place, last_timestamp_ns });
                }
            }
        }
        self.close(header, body, run);
        let end = batch.end_sequence().min(self.found.span.until);
        if !ended && self.found.span.next < end {
            // It was checked when it came; nothing is passed over in silence all the same.
            return Err(BatchError::Structure { record: (self.found.span.next - base) as u32 });
        }
        let matched = (self.found.tally.matched - before) as u32;
        if matched == count {
            // All of it: as it came, with its producer's checksum.
            self.found.data.truncate(start);
            self.found.data.extend_from_slice(batch.bytes());
        }
        if let Some(arrivals) = self.found.arrivals.as_mut().filter(|_| matched > 0) {
            arrivals.push((arrival_ns, matched));
        }
        Ok(!ended)
    }

    /// Whether as much was found as there is room for.
    fn full(&self, run: Option<&Run>) -> bool {
        let open = run.map_or(0, |run| BatchHeader::LEN + run.bytes.len());
        self.found.data.len() + open >= self.turn.room
    }

    fn matches(&mut self, record: RecordView<'_>, arrival_ns: u64) -> bool {
        let (turn, tally) = (self.turn, &mut self.found.tally);
        let filter = &turn.program.filter;
        tally.looked += 1;
        match filter.matches(&Record::new(record, arrival_ns, filter.expression().wanted())) {
            Ok(true) => tally.matched += 1,
            Ok(false) => return false,
            Err(error) => {
                if let Some(count) = tally.unanswered.get_mut(error.index()) {
                    *count += 1;
                }
                return false;
            }
        }
        true
    }

    /// The records up to here that match are a batch.
    fn close(&mut self, header: &BatchHeader, body: &[u8], run: Option<Run>) {
        if let Some(run) = run {
            let before = self.found.data.len();
            append_run(&mut self.found.data, header, body, &run);
            self.inflated += self.found.data.len() - before;
        }
    }
}

#[cfg(test)]
mod tests;
