//! The segments a shard writes: asked for ahead of time, begun, sealed.

use highwater_ring::{Done, Job, Op};

use super::append::NoPlace;
use super::{Item, Shard, Spare, State};
use crate::format::{BlockHeader, SEGMENT_HEADER_LEN, page_align, segment_path};
use crate::index::SparseIndex;
use crate::io::{Io, What};
use crate::segment::{Seal, Segment, seal_len};
use crate::types::{AppendError, Now};

/// After the file system refused a segment, the next attempt comes this much later.
const TAKE_AGAIN_NS: u64 = 500_000_000;
/// After this time without another attempt, ns, a refusal says nothing about how things are.
const REFUSAL_AGES_NS: u64 = 10_000_000_000;

/// A segment has to last this long at the rate of the last one, s; smaller ones are of no use.
const LEAST_LASTS_S: f64 = 0.25;

/// How often a segment asked for is halved before the disk counts as full: 256 MiB to 4 MiB.
const MOST_HALVINGS: u32 = 6;

impl Shard {
    /// Room to keep free for the seal: for the producers there are, and those the next group may add.
    pub(super) fn seal_reserve(&self) -> u64 {
        let entries = self.segments.back().map_or(0, |s| s.index.entries().len() as u64 + 2);
        let (producers, remembered) = self.producers.counts();
        seal_len(entries, producers + 64, remembered + 256)
    }

    pub(super) fn current_has(&self, need: u64) -> bool {
        self.current
            && self
                .segments
                .back()
                .is_some_and(|s| s.next_offset + need + self.seal_reserve() <= s.capacity)
    }

    /// Begins the next segment, if one is prepared.
    pub(super) fn roll(&mut self, now: Now, need: u64, io: &mut Io) -> Result<(), NoPlace> {
        let whole = SEGMENT_HEADER_LEN + need + self.seal_reserve();
        match self.spare {
            Some(spare) if spare.capacity >= whole => {
                if self.current {
                    self.seal_current();
                }
                self.spare = None;
                self.begin_segment(now, spare, io);
                Ok(())
            }
            Some(_) => {
                // Too small for this batch: give it back and take one that fits.
                self.give_back_spare(io);
                self.take_segment(now, whole, io)?;
                Err(NoPlace::Later)
            }
            None => {
                self.take_segment(now, whole, io)?;
                Err(NoPlace::Later)
            }
        }
    }

    fn begin_segment(&mut self, now: Now, spare: Spare, io: &mut Io) {
        self.segments.push_back(Segment {
            number: spare.number,
            generation: io.random.u64(1..),
            file: Some(spare.file),
            opening: false,
            capacity: spare.capacity,
            base_sequence: self.next_sequence,
            end_sequence: self.next_sequence,
            first_block: 0, // known when its header goes out
            last_block: 0,
            next_offset: SEGMENT_HEADER_LEN,
            seal_offset: 0,
            created_ns: now.wall_ns,
            last_arrival_ns: 0,
            index: SparseIndex::new(spare.capacity),
            reads: 0,
            touched: false,
        });
        self.current = true;
        self.ready.push_back(Item::Header { segment: spare.number });
    }

    /// Closes the current segment with its index and the producers as they are at this point of the log.
    pub(super) fn seal_current(&mut self) {
        let Some(segment) = self.segments.back_mut() else {
            return;
        };
        let room = segment.capacity - segment.next_offset;
        // Room was kept for what is usual. With very many producers or tiny batches the oldest of what is
        // remembered is left out: a later retry of those is told "stored before" instead of where.
        let body = [crate::producers::REMEMBERED, 4, 1].into_iter().find_map(|each| {
            let body = Seal {
                end_sequence: segment.end_sequence,
                last_arrival_ns: segment.last_arrival_ns,
                index: segment.index.entries().to_vec(),
                producers: self.producers.to_keep(each),
            }
            .encode();
            (page_align(BlockHeader::LEN + body.len()) as u64 <= room).then_some(body)
        });
        let Some(body) = body else {
            return; // without a seal the next start scans the segment
        };
        let length = page_align(BlockHeader::LEN + body.len()) as u64;
        let offset = segment.next_offset;
        segment.next_offset += length;
        segment.seal_offset = offset;
        self.ready.push_back(Item::Seal {
            segment: segment.number,
            offset,
            body,
            end_sequence: segment.end_sequence,
        });
    }

    /// Orders the next segment ahead of time, once the current one is half full.
    pub(super) fn prepare_next(&mut self, now: Now, io: &mut Io) {
        let half = self.segments.back().is_some_and(|s| s.next_offset > s.capacity / 2);
        if self.current && half && self.spare.is_none() {
            let _ = self.take_segment(now, 0, io);
        }
    }

    pub(super) fn take_segment(
        &mut self,
        now: Now,
        least: u64,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        if self.taking {
            return Ok(());
        }
        if now.mono_ns < self.take_again_ns
            && let Some(refused) = &self.take_refused
        {
            return Err(NoPlace::Refused(refused.clone()));
        }
        let least = (page_align(least as usize) as u64).max(io.options.segments.min);
        let capacity = (self.next_capacity(now, io) >> self.take_smaller).max(least);
        let lasts = page_align((self.fill_rate(now) * LEAST_LASTS_S) as usize) as u64;
        let least = lasts.clamp(least, capacity);
        let number = self.next_segment;
        // Before the request, so that the file just given back is the one that comes.
        self.ordered = capacity;
        self.retain(now, io);
        if self.must_recycle_first(now, capacity) {
            // Whoever appends does not wait for more readers than there are.
            self.leaves_at = self.leaves_at.min(now.mono_ns);
            self.ordered = 0;
            return Ok(());
        }
        self.taking = true;
        let path = segment_path(self.spec.id, number);
        self.submit(io, What::Take(number), Op::Job(Job::TakeSegment { path, capacity, least }));
        Ok(())
    }

    /// Four times larger when the last one fills within ten seconds, four times smaller when it lasts ten
    /// minutes; never more than an eighth of what retention allows.
    fn next_capacity(&self, now: Now, io: &Io) -> u64 {
        let sizes = io.options.segments;
        let most = match self.spec.retention_bytes {
            0 => sizes.max,
            bytes => sizes.max.min(page_align((bytes / 8) as usize) as u64).max(sizes.min),
        };
        let Some(last) = self.segments.back().filter(|_| self.current) else {
            return sizes.min;
        };
        let fills_in = last.capacity as f64 / self.fill_rate(now);
        let capacity = match fills_in {
            s if s < 10.0 => last.capacity.saturating_mul(4),
            s if s > 600.0 => last.capacity / 4,
            _ => last.capacity,
        };
        capacity.clamp(sizes.min, most)
    }

    /// Bytes a second that went to the current segment so far; 0 without one.
    fn fill_rate(&self, now: Now) -> f64 {
        let Some(last) = self.segments.back().filter(|_| self.current) else { return 0.0 };
        let age_ns = now.wall_ns.saturating_sub(last.created_ns).max(1);
        // Not too little is made of what has only begun.
        let written = last.next_offset.max(last.capacity / 100);
        written as f64 / (age_ns as f64 / 1e9)
    }

    /// Forgets why there was no further segment, once nobody has asked for one for a while.
    pub fn forget_refusal(&mut self, now: Now) {
        if now.mono_ns >= self.take_again_ns.saturating_add(REFUSAL_AGES_NS) {
            self.take_refused = None;
        }
    }

    pub(super) fn segment_taken(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        (self.taking, self.ordered) = (false, 0);
        match result {
            Ok(Done::Segment { file, capacity, cold }) => {
                self.take_refused = None;
                self.take_smaller = 0;
                self.next_segment = number + 1;
                self.stats.cold_segments += u64::from(cold);
                self.spare = Some(Spare { number, file, capacity });
                match self.state {
                    State::Open => self.drain_waiting(now, io),
                    State::Closed => self.give_back_spare(io),
                    _ => {}
                }
            }
            Ok(other) => {
                self.fail(format!("the preparer answered {other:?} to a request for a segment"), io)
            }
            Err(error)
                if error.kind() == std::io::ErrorKind::StorageFull
                    && self.take_smaller < MOST_HALVINGS
                    && self.state == State::Open =>
            {
                // A smaller one may still fit.
                self.take_smaller += 2;
                if !self.queue.is_empty() {
                    self.drain_waiting(now, io);
                }
            }
            Err(error) => {
                self.take_smaller = 0;
                self.take_again_ns = now.mono_ns + TAKE_AGAIN_NS;
                self.take_refused = Some(refusal(&error));
                // Those that need another segment are told so; it may have been ordered ahead, and what fits the present
                // one, or is held by backpressure, does not.
                if self.state == State::Open {
                    self.drain_waiting(now, io);
                }
            }
        }
    }
}

fn refusal(error: &std::io::Error) -> AppendError {
    let retry_after_ms = (TAKE_AGAIN_NS / 1_000_000) as u32;
    match error.kind() {
        // The ring's own table of files being full is told with the same kind, but is no answer of the disk.
        std::io::ErrorKind::QuotaExceeded if error.raw_os_error().is_none() => {
            AppendError::NoSegment { reason: error.to_string().into(), retry_after_ms }
        }
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => AppendError::DiskFull { retry_after_ms },
        _ => AppendError::NoSegment { reason: error.to_string().into(), retry_after_ms },
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use highwater_ring::{BufferPool, FileId};
    use highwater_wire::{Backpressure, BatchBuilder, ProducerStamp, Quota, ShardId};

    use super::*;
    use crate::options::CoreOptions;
    use crate::shard::ShardLog;
    use crate::types::{AppendTerms, Output, Policy, ShardSpec};

    const NOW: Now = Now { mono_ns: 1, wall_ns: 1_700_000_000_000_000_000 };

    fn segment(capacity: u64) -> Result<Done, std::io::Error> {
        Ok(Done::Segment { file: FileId(0), capacity, cold: false })
    }

    fn append(shard: &mut Shard, len: usize, io: &mut Io) {
        let mut builder = BatchBuilder::default();
        builder.push(b"k", &[], &vec![7; len], 1).unwrap();
        let batch = builder.finish(ProducerStamp::default()).to_vec();
        shard.append(NOW, &batch, &AppendTerms::default(), 1, io).unwrap();
    }

    /// What was answered: whether it was a refusal.
    fn refused(io: &mut Io) -> Vec<bool> {
        let appended = io.outputs.drain(..).filter_map(|output| match output {
            Output::Appended { result, .. } => Some(result.is_err()),
            _ => None,
        });
        appended.collect()
    }

    #[test]
    fn what_backpressure_held_was_refused_with_a_segment_that_was_ordered_ahead() {
        let mut io = Io::new(BufferPool::new(4 << 20, 0).unwrap(), CoreOptions::default(), 1);
        let quota = Quota { records_in: 10, burst_ms: 100, ..Quota::default() };
        let backpressure = Backpressure::Buffer { bytes: 1 << 20, age_ms: 60_000 };
        let policy = Policy { quota, backpressure, ..Policy::default() };
        let spec = ShardSpec {
            id: ShardId { stream: 1, shard: 0 },
            stream: "s".to_owned(),
            policy,
            ..ShardSpec::default()
        };
        let mut shard = Shard::new(spec, 1, ShardLog::empty(8), None);
        append(&mut shard, 100, &mut io); // waits for its segment
        shard.completed(NOW, What::Take(0), segment(4 << 20), &mut io);
        append(&mut shard, 100, &mut io);
        append(&mut shard, 100, &mut io);
        assert_eq!(shard.counters().buffered, 2, "{:?}", shard.counters());
        shard.segments[0].next_offset = 3 << 20;
        shard.prepare_next(NOW, &mut io);
        assert!(shard.preparing());
        let denied = Err(ErrorKind::PermissionDenied.into());
        shard.completed(NOW, What::Take(1), denied, &mut io);
        assert_eq!(refused(&mut io), Vec::<bool>::new());
        assert_eq!(shard.counters().pending, 3, "one has its place, two are held");
    }
}
