//! What a run needs from whatever it loads.
//!
//! A driver for another system is a [`Target`] (where it is), a [`Link`] (one thread's connection), and
//! what a link gives for each shard: a [`Sink`] that takes batches, [`Outcomes`] that say what became of
//! them, and a [`Source`] that gives [`Chunk`]s of records back. [`crate::run_on`] does the rest. What to
//! promise:
//!
//! - A sink takes whole batches, in order, several of them unanswered at a time; each record is answered once,
//!   by its batch's tag and its index there, in any order; all records of a batch at once, or some at a time.
//! - A source gives the records of a shard in the shard's order, with the payload, key and headers as
//!   they were appended, and a dense sequence number of its own.
//! - Shards may split and merge under way, if [`Link::describe`] and [`Source::ended`] tell of it: records then go on in
//!   other shards, those of a key in order, and an answer says in which.
//! - An answer means what the target's acknowledgement means. What is not known is
//!   [`Failure::unknown`]: it is resolved by what is read.
//!
//! Targets are chosen at compile time: nothing on the path of a record is a virtual call. A link and
//! all that comes from it stays on the thread that opened it; the runtime there is tokio's, one thread,
//! with a `LocalSet`, so that `tokio::task::spawn_local` works.

#![expect(async_fn_in_trait, reason = "a link stays on its thread: no future needs to be Send")]

#[cfg(target_os = "linux")]
pub mod embedded;
mod highwater;
#[cfg(test)]
pub(crate) mod memory;
mod null;

use std::ops::Range;

use highwater_wire::{
    BatchBuilder, Limits, Position, RecordView, StreamConfig, StreamDescription, hash_key,
};

pub(crate) use highwater::lane_name;
pub use highwater::{Highwater, HighwaterLink};
pub use null::{Null, NullChunk, NullError, NullLink, NullOutcomes, NullSink, NullSource};

/// Why a target did not do something, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a source gave no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The target left records out, though retention did not remove them.
    #[error("records {expected} to {found} are missing")]
    Gap {
        /// Next sequence number wanted.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// What came is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Something that stores streams.
pub trait Target: Clone + Send + 'static {
    /// A way to it, of one thread.
    type Link: Link;

    /// Its address, for people.
    fn address(&self) -> &str;

    /// Opens a link.
    async fn link(&self) -> Result<Self::Link, Refusal>;

    /// Whether records can be read back. If not, there are no consumers and nothing is checked.
    fn readable(&self) -> bool {
        true
    }
}

/// One thread's way to a target.
pub trait Link: 'static {
    /// Takes batches.
    type Sink: Sink;
    /// Tells what became of them.
    type Outcomes: Outcomes;
    /// Gives records back.
    type Source: Source;

    /// The target's release.
    fn server(&self) -> String;

    /// The sizes it accepts.
    fn limits(&self) -> Limits;

    /// The stream `name`, created with `config` if there is none.
    async fn stream(&self, name: &str, config: &StreamConfig)
    -> Result<StreamDescription, Refusal>;

    /// The stream as it is now. Shards may have split and merged since: their children name them as parents, and each
    /// has its key's records after theirs. A target whose shards stay as they are says again what it is given.
    async fn describe(&self, stream: &StreamDescription) -> Result<StreamDescription, Refusal> {
        Ok(stream.clone())
    }

    /// The index in `stream.shards` of the shard that records with `key` belong to; `None` if there is
    /// none. Asked once per key before the run (never per record), once for all streams whose shards
    /// have the same hash ranges, and not at all for streams of one shard.
    fn shard_of(&self, stream: &StreamDescription, key: &[u8]) -> Option<usize> {
        let hash = hash_key(key);
        stream.shards.iter().position(|s| (s.hash_start..=s.hash_end).contains(&hash))
    }

    /// The high-water mark of `shard`.
    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal>;

    /// Appends to `shard`, for one lane.
    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        lane: LaneOptions,
    ) -> Result<(Self::Sink, Self::Outcomes), Refusal>;

    /// Keeps for `group` how far it has read, so that whoever watches the target sees it: next sequence numbers by
    /// shard. A target that keeps no positions does nothing.
    async fn commit(
        &self,
        group: &str,
        stream: &str,
        positions: &[Position],
    ) -> Result<(), Refusal> {
        let _unused = (group, stream, positions);
        Ok(())
    }

    /// Removes the stream `name` and all records. A target that keeps none does nothing.
    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        let _unused = name;
        Ok(())
    }

    /// Reads `shard` from sequence `from` on, past what retention removes.
    async fn source(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
    ) -> Result<Self::Source, Refusal>;
}

/// Whose batches a sink takes: those of one lane, one producer's records for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOptions {
    /// The lane's number in the run, from 0.
    pub number: usize,
    /// Most batches unanswered, at least 1.
    pub inflight: usize,
}

/// Takes batches for one shard.
pub trait Sink: 'static {
    /// Waits until a batch would be taken at once.
    async fn ready(&mut self);

    /// Sends what `batch` holds and empties it. What became of it comes as an [`Outcome`] with `tag`; after
    /// an error there will be none.
    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure>;
}

/// What became of the batches of one sink.
pub trait Outcomes: 'static {
    /// The next; `None` if there will be no more.
    async fn next(&mut self) -> Option<Outcome>;
}

/// What became of records of one batch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As given with it.
    pub tag: u64,
    /// Their indices in it. What lies beyond its end does not count.
    pub records: Range<u32>,
    /// What became of all of them.
    pub fate: Fate,
}

impl Outcome {
    /// Of a whole batch.
    pub fn whole(tag: u64, fate: Fate) -> Outcome {
        Outcome { tag, records: 0..u32::MAX, fate }
    }
}

/// What became of a record.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Stored. Where the first of the records is, the others right behind it, if the target still knows.
    Stored(Option<At>),
    /// Not stored, as the stream is made: dropped.
    Dropped,
    /// Not stored, as the stream is made: not in the sample.
    SampledOut,
    /// Not acknowledged.
    Failed(Failure),
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The shard.
    pub shard: u32,
    /// Its sequence number there.
    pub sequence: u64,
}

/// A batch was not acknowledged.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whether it may be stored all the same.
    pub unknown: bool,
    /// Why.
    pub message: String,
}

/// Gives the records of one shard.
pub trait Source: 'static {
    /// Records received together.
    type Chunk: Chunk;

    /// The next ones; `None` if there will be no more. May be dropped unfinished without losing any, and
    /// asked again after an error.
    async fn next(&mut self) -> Result<Option<Self::Chunk>, Trouble>;

    /// Whether there will be no more because a split or merge closed the shard: its children have what comes after.
    fn ended(&self) -> bool {
        false
    }

    /// Goes on at sequence `at`, past a gap.
    fn resume(&mut self, at: u64);

    /// Next sequence number to read.
    fn position(&self) -> u64;

    /// Records passed over so far because retention had removed them.
    fn trimmed(&self) -> u64;
}

/// Records received together.
pub trait Chunk {
    /// Gives each record, in order, with the time at which the target says it arrived there
    /// (nanoseconds since 1970 UTC on the target's clock; 0 if it does not say).
    fn each(&self, take: impl FnMut(RecordView<'_>, u64));
}
