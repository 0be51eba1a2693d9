//! What became of the records of a batch, in runs of records that fared alike.

use highwater_wire::{AppendReply, ErrorCode, RecordOutcome};

use crate::AppendError;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Stored. (Of a run: where its first record is; the others follow.)
    Stored {
        /// The shard.
        shard: u32,
        /// Its sequence number there.
        sequence: u64,
    },
    /// Dropped by the stream's backpressure.
    Dropped,
    /// Left out by the stream's backpressure: not in the sample.
    SampledOut,
    /// Not acknowledged.
    Failed(AppendError),
}

/// Consecutive records of a batch that fared alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index in the batch of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// What became of them.
    pub fate: Fate,
}

impl Run {
    /// What became of the record with this index, if it is one of them.
    fn fate_of(&self, index: u32) -> Option<Fate> {
        let offset = index.checked_sub(self.first).filter(|offset| *offset < self.count)?;
        Some(match &self.fate {
            Fate::Stored { shard, sequence } => {
                Fate::Stored { shard: *shard, sequence: sequence + u64::from(offset) }
            }
            fate => fate.clone(),
        })
    }
}

/// What became of the records of a batch. The usual single run takes no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    first: Option<Run>,
    rest: Vec<Run>,
}

impl Runs {
    /// The runs.
    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.first.iter().chain(&self.rest)
    }

    /// What became of the record with this index in the batch; `None` past its end.
    pub fn fate_of(&self, index: u32) -> Option<Fate> {
        self.iter().find_map(|run| run.fate_of(index))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn push(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        match &mut self.first {
            Some(_) => self.rest.push(run),
            none => *none = Some(run),
        }
    }

    /// By index, as they came from several places.
    pub(crate) fn sort(&mut self) {
        if let (Some(first), false) = (&mut self.first, self.rest.is_empty()) {
            self.rest
                .push(std::mem::replace(first, Run { first: 0, count: 0, fate: Fate::Dropped }));
            self.rest.sort_unstable_by_key(|run| run.first);
            *first = self.rest.remove(0);
        }
    }
}

/// The outcome of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// As given to [`Appender::append`](crate::Appender::append).
    pub tag: u64,
    /// What became of its records: runs that cover the batch, in order; those of a part, if it is told in parts.
    pub runs: Runs,
}

impl Ack {
    /// Sequence number of the first record, if the whole batch is stored in one piece; why not otherwise.
    pub fn whole(&self) -> Result<u64, Fate> {
        let first = self.runs.first.as_ref().map(|run| run.fate.clone());
        let other = self.runs.rest.iter().map(|run| run.fate.clone());
        let failed = first.iter().cloned().chain(other).find(|f| !matches!(f, Fate::Stored { .. }));
        match (failed, first) {
            (None, Some(Fate::Stored { sequence, .. })) => Ok(sequence),
            (Some(fate), _) | (None, Some(fate)) => Err(fate),
            (None, None) => Err(Fate::Failed(AppendError::Empty)),
        }
    }
}

/// A reply to an append, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub base_sequence: u64,
    /// Records stored.
    pub stored: u32,
    /// Records from the front that are decided.
    pub decided: u32,
    pub retry_after_ms: u32,
    /// Of the decided ones, those that are not stored: first, count, code; ascending.
    pub exceptions: Vec<(u32, u32, ErrorCode)>,
}

impl Decision {
    /// Reads a reply and the outcomes behind it; `None` if they contradict each other.
    pub(crate) fn read(reply: &AppendReply, data: &[u8]) -> Option<Decision> {
        let mut decision = Decision {
            base_sequence: reply.base_sequence.to_native(),
            stored: reply.record_count.to_native(),
            decided: reply.decided.to_native(),
            retry_after_ms: reply.retry_after_ms.to_native(),
            exceptions: Vec::with_capacity(data.len() / RecordOutcome::LEN),
        };
        let (mut end, mut missing) = (0, 0);
        for outcome in data.chunks(RecordOutcome::LEN) {
            let outcome = RecordOutcome::view(outcome)?;
            let (first, count) = (outcome.first.to_native(), outcome.count.to_native());
            if first < end || count == 0 {
                return None;
            }
            end = first.checked_add(count).filter(|end| *end <= decision.decided)?;
            missing += count;
            let code = ErrorCode::from_number(outcome.code.to_native());
            decision.exceptions.push((first, count, code));
        }
        (decision.stored.checked_add(missing) == Some(decision.decided)).then_some(decision)
    }

    /// Adds what it says of records that begin at index `first` of their batch.
    pub(crate) fn add_to(&self, runs: &mut Runs, shard: u32, first: u32) {
        let (mut next, mut sequence) = (0, self.base_sequence);
        let mut stored = |runs: &mut Runs, from: u32, to: u32| {
            let count = to - from;
            runs.push(Run { first: first + from, count, fate: Fate::Stored { shard, sequence } });
            sequence = sequence.saturating_add(u64::from(count));
        };
        for &(at, count, code) in &self.exceptions {
            stored(runs, next, at);
            let fate = match code {
                ErrorCode::RecordDropped => Fate::Dropped,
                ErrorCode::RecordSampledOut => Fate::SampledOut,
                code => Fate::Failed(AppendError::Refused { code }),
            };
            runs.push(Run { first: first + at, count, fate });
            next = at + count;
        }
        stored(runs, next, self.decided);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(stored: u32, decided: u32, outcomes: &[(u32, u32, ErrorCode)]) -> Option<Decision> {
        let mut reply = AppendReply::whole(100, 0, stored, false);
        reply.decided = decided.into();
        let outcome = |&(first, count, code): &(u32, u32, ErrorCode)| {
            let (first, count, code) = (first.into(), count.into(), (code as u16).into());
            RecordOutcome { first, count, code, reserved: 0.into() }.to_array()
        };
        Decision::read(&reply, &outcomes.iter().flat_map(outcome).collect::<Vec<_>>())
    }

    #[test]
    fn every_record_learns_its_own_fate() {
        use ErrorCode::{RecordDropped, RecordSampledOut, RecordTooLarge};
        let outcomes = [(0, 1, RecordTooLarge), (3, 2, RecordDropped), (6, 1, RecordSampledOut)];
        let mut runs = Runs::default();
        reply(4, 8, &outcomes).unwrap().add_to(&mut runs, 9, 10);
        let stored = |sequence| Some(Fate::Stored { shard: 9, sequence });
        let refused = Fate::Failed(AppendError::Refused { code: RecordTooLarge });
        let (dropped, sampled) = (Some(Fate::Dropped), Some(Fate::SampledOut));
        let expected = [
            Some(refused),
            stored(100),
            stored(101),
            dropped.clone(),
            dropped,
            stored(102),
            sampled,
            stored(103),
            None,
        ];
        for (index, fate) in (10..).zip(expected) {
            assert_eq!(runs.fate_of(index), fate, "{index}");
        }
        assert_eq!(
            Ack { tag: 0, runs: Runs::default() }.whole(),
            Err(Fate::Failed(AppendError::Empty))
        );
    }

    #[test]
    fn runs_from_several_places_are_put_in_order() {
        let mut runs = Runs::default();
        for first in [4, 0, 2] {
            let fate = Fate::Stored { shard: first, sequence: 7 };
            runs.push(Run { first, count: 2, fate });
        }
        runs.sort();
        assert!(runs.iter().map(|run| run.first).eq([0, 2, 4]));
        assert_eq!(Ack { tag: 0, runs }.whole(), Ok(7));
    }

    #[test]
    fn a_reply_that_contradicts_itself_is_none() {
        use ErrorCode::RecordDropped as Dropped;
        assert!(reply(3, 3, &[]).is_some() && reply(2, 3, &[(1, 1, Dropped)]).is_some());
        for (stored, decided, outcomes) in [
            (3, 2, &[][..]),
            (2, 3, &[]),
            (2, 3, &[(3, 1, Dropped)]),
            (1, 3, &[(1, 1, Dropped), (0, 1, Dropped)]),
            (3, 3, &[(1, 0, Dropped)]),
            (2, 3, &[(1, u32::MAX, Dropped)]),
            (u32::MAX, 3, &[(1, 1, Dropped)]),
        ] {
            assert_eq!(reply(stored, decided, outcomes), None, "{stored} {decided} {outcomes:?}");
        }
        let cut_short = Decision::read(&AppendReply::whole(0, 0, 1, false), &[0; 11]);
        assert_eq!(cut_short, None);
    }
}
