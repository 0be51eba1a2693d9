//! Producers as the simulation has them: what they send, on what terms, and how they count what they are told.

use std::collections::VecDeque;

use highwater_engine::{AppendError, AppendTerms, Appended, Policy};
use highwater_wire::{
    Backpressure, BatchBuilder, BatchView, Compression, ErrorCode, Packer, ProducerStamp, Quota,
    SampleBy, ShardCounters,
};

use crate::checker::{Identity, payload};

/// A batch a client waits for.
pub struct Sent {
    pub tag: u64,
    pub bytes: Vec<u8>,
    /// Producer sequence of its first record.
    pub sequence: u64,
    /// Its first record among all of this producer.
    pub first: u64,
    /// Its records.
    pub records: Vec<Record>,
}

/// One record, as long as it may have to be sent again.
#[derive(Clone, Copy)]
pub struct Record {
    pub len: usize,
    /// Its key is too long: at fault by itself.
    pub faulty: bool,
}

/// An idempotent producer with a window, which resends from the first failure.
pub struct Producer {
    pub shard: usize,
    pub id: u64,
    pub next: u64,
    /// Its own numbering, which goes on when it takes a new id.
    pub identity: u64,
    pub first: u64,
    pub unacked: VecDeque<Sent>,
    pub resend: bool,
    /// It takes results by record.
    pub partial: bool,
    pub compression: Compression,
}

impl Sent {
    pub fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// The batch of these records.
    pub fn build(&mut self, id: u64, identity: u64, compression: Compression) {
        let mut builder = BatchBuilder::default();
        let long = "k".repeat(300);
        for (number, record) in (self.first..).zip(&self.records) {
            let key = if record.faulty { long.clone() } else { format!("key-{}", number % 50) };
            let _ =
                builder.push(key.as_bytes(), &[], &payload((identity, number), record.len), number);
        }
        let stamp = ProducerStamp { id, epoch: 0, sequence: self.sequence };
        self.bytes = builder.finish(stamp).to_vec();
        Packer::new(compression).pack(&mut self.bytes);
    }

    /// Only what was refused for now is left.
    pub fn keep_from(&mut self, decided: u64) {
        self.records.drain(..decided as usize);
        self.first += decided;
        self.sequence += decided;
    }
}

/// An append not yet answered.
#[derive(Clone)]
pub struct Asked {
    pub producer: usize,
    pub shard: usize,
    pub offered: u64,
    pub identity: u64,
    pub first: u64,
    pub expected: Option<u64>,
    /// It was held for quota when it came: stored, it is so by this time, ns since 1970 UTC.
    pub not_after_ns: Option<u64>,
}

impl Asked {
    pub fn terms(&self, partial: bool) -> AppendTerms {
        AppendTerms { partial, tell: true, expected: self.expected, client: None }
    }

    /// Whether it was held by `drop-oldest` and is stored; never beyond its age.
    pub fn in_time(&self, appended: &Appended) -> Result<bool, String> {
        let fresh = appended.record_count > 0 && !appended.duplicate;
        match self.not_after_ns.filter(|_| fresh) {
            Some(most) if appended.arrival_ns > most => {
                Err(format!("stored {} ns late: {appended:?}", appended.arrival_ns - most))
            }
            most => Ok(most.is_some()),
        }
    }

    /// The records that an answer says are stored, in order, and those that never will be.
    pub fn fates(&self, appended: &Appended) -> Result<(Vec<Identity>, Vec<Identity>), String> {
        let (mut stored, mut gone) = (Vec::new(), Vec::new());
        let mut why = vec![None; self.offered as usize];
        for outcome in appended.parts.iter().flat_map(|parts| &parts.outcomes) {
            let (first, count) = (outcome.first.to_native(), outcome.count.to_native());
            for index in first..first + count {
                let code = ErrorCode::from_number(outcome.code.to_native());
                match why.get_mut(index as usize) {
                    Some(why @ None) => *why = Some(code),
                    other => return Err(format!("record {index} is told twice: {other:?}")),
                }
            }
        }
        for (index, why) in (0..u64::from(appended.decided())).zip(&why) {
            let who = (self.identity, self.first + index);
            match why {
                None => stored.push(who),
                Some(ErrorCode::QuotaExceeded) => {
                    return Err(format!("{who:?} is decided: {why:?}"));
                }
                Some(_) => gone.push(who),
            }
        }
        // A client takes what is told of records not decided for nonsense.
        let told = why[appended.decided() as usize..].iter().any(Option::is_some);
        if stored.len() != appended.record_count as usize || told {
            return Err(format!("{appended:?} for {} records: {why:?}", self.offered));
        }
        Ok((stored, gone))
    }
}

/// A shard's records as its clients count them, to be compared with what the shard says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub ShardCounters);

impl Tally {
    /// A batch was offered, and taken or refused at once; not, if it was busy.
    pub fn offered(&mut self, records: u64, taken: &Result<(), AppendError>) {
        match taken {
            Err(AppendError::Busy { .. }) => {}
            Ok(()) => {
                self.0.offered += records;
                self.0.pending += records;
            }
            Err(error) => {
                self.0.offered += records;
                self.failed(records, error);
            }
        }
    }

    /// An answer came.
    pub fn answered(&mut self, records: u64, result: &Result<Appended, AppendError>) {
        self.0.pending -= records;
        match result {
            Ok(appended) => {
                let decided = u64::from(appended.decided());
                if appended.duplicate {
                    self.0.duplicates_recognised += decided;
                    self.0.refused += records - decided;
                    return;
                }
                let parts = appended.parts.clone().unwrap_or_default();
                let stored = u64::from(appended.record_count);
                let (dropped, sampled) = (u64::from(parts.dropped), u64::from(parts.sampled_out));
                self.0.acknowledged += stored;
                self.0.dropped += dropped;
                self.0.sampled_out += sampled;
                self.0.refused += records - stored - dropped - sampled;
            }
            Err(error) => self.failed(records, error),
        }
    }

    fn failed(&mut self, records: u64, error: &AppendError) {
        match error {
            AppendError::Duplicate(_) => self.0.duplicates_recognised += records,
            _ => self.0.refused += records,
        }
    }

    /// Compares with what the shard says, and that with itself.
    pub fn agrees(&self, said: &ShardCounters) -> Result<(), String> {
        let c = said;
        let sum = c.acknowledged
            + c.refused
            + c.dropped
            + c.sampled_out
            + c.duplicates_recognised
            + c.pending;
        if c.offered != sum {
            return Err(format!("counters do not add up: {c:?}"));
        }
        let (buffered, held_bytes, evictions) = (c.buffered, c.held_bytes, c.evictions);
        let ours = ShardCounters { buffered, held_bytes, evictions, ..self.0 };
        if ours != *c {
            return Err(format!("counted by clients: {ours:?}; by the shard: {c:?}"));
        }
        Ok(())
    }
}

/// Quotas that are met all the time, with some way of meeting them.
pub fn policy(random: &mut fastrand::Rng) -> Policy {
    if random.u8(..) < 90 {
        return Policy::default();
    }
    let quota = |random: &mut fastrand::Rng| Quota {
        records_in: if random.bool() { random.u64(100..4_000) } else { 0 },
        bytes_in: if random.bool() { random.u64(200_000..5_000_000) } else { 0 },
        bytes_out: if random.u8(..) < 80 { random.u64(5_000_000..100_000_000) } else { 0 },
        burst_ms: random.u32(1..50),
    };
    let (bytes, age_ms) = (random.u64(5_000..200_000), random.u64(1..50));
    let backpressure = match random.u8(..6) {
        0 => Backpressure::Reduce,
        1 => Backpressure::Scale { max_shards: 0 },
        2 => Backpressure::Buffer { bytes, age_ms },
        3 => Backpressure::DropOldest { bytes, age_ms },
        4 => Backpressure::DropNewest,
        _ => {
            let by = if random.bool() { SampleBy::Key } else { SampleBy::Record };
            Backpressure::Sample { ppm: random.u32(..1_000_000), by }
        }
    };
    let stream_quota = if random.u8(..) < 80 { quota(random) } else { Quota::default() };
    Policy { quota: quota(random), stream_quota, backpressure }
}

pub fn sequence_of(sent: &Sent) -> u64 {
    BatchView::parse(&sent.bytes).map_or(0, |b| b.header().producer_sequence.to_native())
}
