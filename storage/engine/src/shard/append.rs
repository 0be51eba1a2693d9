//! Appending: the door check, the place in the log, the open commit group.

use highwater_ring::{Done, Job, Op};
use highwater_wire::{BatchHeader, BatchView};

use super::{Item, Shard, Spare, State, Waiting, empty_index};
use crate::format::{BlockHeader, SEGMENT_HEADER_LEN, page_align, segment_path};
use crate::group::{Group, PendingAck};
use crate::index::IndexEntry;
use crate::io::{Io, What};
use crate::producers::{Claim, Stored, Verdict};
use crate::segment::{Seal, Segment, seal_len};
use crate::types::{AppendError, Appended, Now, Output};

/// After the file system refused a segment, the next attempt comes this much later.
const TAKE_AGAIN_NS: u64 = 500_000_000;

/// How often a segment asked for is halved before the disk counts as full: 256 MiB to 4 MiB.
const MOST_HALVINGS: u32 = 6;

/// What keeps a batch from its place.
enum NoPlace {
    /// A segment is being prepared.
    Later,
    /// For good, or until a retry.
    Refused(AppendError),
}

impl Shard {
    /// Takes a batch. `Ok`: an [`Output::Appended`] with `tag` follows.
    pub fn append(
        &mut self,
        now: Now,
        batch: &[u8],
        tag: u64,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        let taken = self.try_append(now, batch, tag, io);
        // `Busy` is often made good by the caller, who waits for memory and tries again.
        if taken.as_ref().is_err_and(|e| !matches!(e, AppendError::Busy { .. })) {
            self.stats.refused += 1;
        }
        taken
    }

    fn try_append(
        &mut self,
        now: Now,
        batch: &[u8],
        tag: u64,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        match &self.state {
            State::Open => {}
            State::Failed(reason) => {
                return Err(AppendError::Failed { shard: self.spec.id, reason: reason.clone() });
            }
            State::Damaged(reason) => {
                return Err(AppendError::Damaged { shard: self.spec.id, reason: reason.clone() });
            }
            State::Closing => return Err(AppendError::Closing),
        }
        let view = BatchView::parse(batch)?;
        view.check(&io.options.limits)?;
        if view.bytes().len() != batch.len() {
            let need = view.bytes().len();
            return Err(highwater_wire::BatchError::Truncated { have: batch.len(), need }.into());
        }
        if !self.waiting.is_empty() {
            // Order: behind those that wait already.
            return self.wait(now.mono_ns, batch, tag, io);
        }
        match self.place(now, now.mono_ns, &view, tag, io) {
            Ok(()) => Ok(()),
            Err(NoPlace::Later) => self.wait(now.mono_ns, batch, tag, io),
            Err(NoPlace::Refused(error)) => Err(error),
        }
    }

    fn wait(
        &mut self,
        arrived_mono_ns: u64,
        batch: &[u8],
        tag: u64,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        if io.waiting_used + batch.len() > io.options.waiting_bytes.max(batch.len()) {
            return Err(AppendError::Busy { retry_after_ms: 5 });
        }
        io.waiting_used += batch.len();
        self.waiting.push_back(Waiting { batch: batch.to_vec(), tag, arrived_mono_ns });
        Ok(())
    }

    /// Gives the batches that waited their place, in order.
    pub(super) fn drain_waiting(&mut self, now: Now, io: &mut Io) {
        while let Some(first) = self.waiting.pop_front() {
            // Checked when it came.
            let placed = match BatchView::parse(&first.batch) {
                Ok(view) => self.place(now, first.arrived_mono_ns, &view, first.tag, io),
                Err(error) => Err(NoPlace::Refused(error.into())),
            };
            match placed {
                Err(NoPlace::Later) | Err(NoPlace::Refused(AppendError::Busy { .. })) => {
                    self.waiting.push_front(first);
                    return;
                }
                Err(NoPlace::Refused(error)) => {
                    self.stats.refused += 1;
                    io.outputs.push(Output::Appended { tag: first.tag, result: Err(error) });
                }
                Ok(()) => {}
            }
            io.waiting_used -= first.batch.len();
        }
    }

    pub(super) fn refuse_waiting(&mut self, error: &AppendError, io: &mut Io) {
        for waiting in std::mem::take(&mut self.waiting) {
            io.waiting_used -= waiting.batch.len();
            self.stats.refused += 1;
            io.outputs.push(Output::Appended { tag: waiting.tag, result: Err(error.clone()) });
        }
    }

    fn place(
        &mut self,
        now: Now,
        arrived_mono_ns: u64,
        batch: &BatchView<'_>,
        tag: u64,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        let claim = claim_of(batch.header());
        match self.producers.judge(claim) {
            Verdict::Refuse(error) => return Err(NoPlace::Refused(error)),
            Verdict::Repeat(stored) => {
                self.repeat(stored, tag, arrived_mono_ns, io);
                return Ok(());
            }
            Verdict::Fresh => {}
        }
        self.find_room(now, batch.bytes().len(), io)?;
        let (base_sequence, arrival_ns) = (self.next_sequence, now.wall_ns);
        let Some(group) = self.open.as_mut() else {
            return Err(NoPlace::Later);
        };
        group.push(batch, arrival_ns, self.epoch);
        self.stats.keys.see(batch);
        let record_count = batch.record_count();
        let appended = Appended { base_sequence, record_count, arrival_ns, duplicate: false };
        group.acks.push(PendingAck { tag, appended, arrived_mono_ns });
        self.next_sequence += u64::from(record_count);
        self.producers.record(claim, base_sequence, arrival_ns);
        Ok(())
    }

    /// A batch that is stored, or about to be: answered now, or together with the original.
    fn repeat(&mut self, stored: Stored, tag: u64, arrived_mono_ns: u64, io: &mut Io) {
        self.stats.duplicates += 1;
        let appended = Appended {
            base_sequence: stored.base_sequence,
            record_count: stored.records,
            arrival_ns: stored.arrival_ns,
            duplicate: true,
        };
        let ack = PendingAck { tag, appended, arrived_mono_ns };
        let holds = |base: u64, end: u64| (base..end).contains(&stored.base_sequence);
        if let Some(group) = self.open.as_mut().filter(|g| holds(g.base_sequence, g.end_sequence()))
        {
            group.acks.push(ack);
            return;
        }
        for item in &mut self.ready {
            if let Item::Group(group) = item
                && holds(group.base_sequence, group.end_sequence())
            {
                group.acks.push(ack);
                return;
            }
        }
        let flying = self.flights.iter_mut().find(|f| holds(f.base_sequence, f.end_sequence));
        if let Some(flight) = flying
            && flight.block > self.last_ack_block
        {
            flight.acks.push(ack);
            return;
        }
        io.outputs.push(Output::Appended { tag, result: Ok(appended) });
    }

    /// Makes sure that there is an open group with room for a batch of `len` bytes.
    fn find_room(&mut self, now: Now, len: usize, io: &mut Io) -> Result<(), NoPlace> {
        let group_max = io.options.group_max;
        if let Some(mut group) = self.open.take() {
            if group.admits(len, group_max) {
                let roomy = group.make_room(len, io);
                let empty = group.batches == 0;
                self.open = Some(group);
                if roomy {
                    return Ok(());
                }
                if empty {
                    return Err(NoPlace::Refused(AppendError::Busy { retry_after_ms: 2 }));
                }
            } else {
                self.open = Some(group);
            }
            self.close_open_group();
        }
        if self.groups_bytes() > io.pool.region_bytes() / 4 && self.writing > 0 {
            // One shard must not take the whole core's memory.
            return Err(NoPlace::Refused(AppendError::Busy { retry_after_ms: 2 }));
        }
        let need = page_align(BlockHeader::LEN + len) as u64;
        if !self.current_has(need) {
            self.roll(now, need, io)?;
        }
        self.prepare_next(now, io);
        let seal = self.seal_reserve();
        let Some(segment) = self.segments.back() else {
            return Err(NoPlace::Later);
        };
        let cap = (segment.capacity - segment.next_offset - seal) as usize;
        // Start with what the last group came to: at a steady rate that spares the moves.
        let first = need as usize;
        let buf = io
            .take(first.max(self.last_group_len().min(group_max).min(cap)))
            .or_else(|| io.take(first));
        let Some(buf) = buf else {
            return Err(NoPlace::Refused(AppendError::Busy { retry_after_ms: 2 }));
        };
        self.open = Some(Box::new(Group::new(
            buf,
            cap,
            segment.number,
            segment.next_offset,
            self.next_sequence,
        )));
        Ok(())
    }

    fn last_group_len(&self) -> usize {
        self.flights.back().map_or(0, |f| f.body_end)
    }

    /// Bytes of groups not yet durable.
    fn groups_bytes(&self) -> usize {
        let ready =
            self.ready.iter().map(|i| if let Item::Group(g) = i { g.buf.capacity() } else { 0 });
        ready.sum::<usize>() + self.flights.iter().map(|f| f.buf.capacity()).sum::<usize>()
    }

    /// Room to keep free for the seal: for the producers there are, and those the next group may add.
    fn seal_reserve(&self) -> u64 {
        let entries = self.segments.back().map_or(0, |s| s.index.entries().len() as u64 + 2);
        let (producers, remembered) = self.producers.counts();
        seal_len(entries, producers + 64, remembered + 256)
    }

    fn current_has(&self, need: u64) -> bool {
        self.current
            && self
                .segments
                .back()
                .is_some_and(|s| s.next_offset + need + self.seal_reserve() <= s.capacity)
    }

    /// The open group grows no further; it goes out in its turn.
    pub(super) fn close_open_group(&mut self) {
        let Some(group) = self.open.take().filter(|g| g.batches > 0) else {
            return;
        };
        let length = page_align(group.len) as u64;
        if let Some(segment) = self.segment_mut(group.segment) {
            segment.next_offset = group.offset + length;
            segment.end_sequence = group.end_sequence();
            segment.last_arrival_ns = group.last_arrival_ns;
            segment.index.note(IndexEntry {
                sequence: group.base_sequence,
                offset: group.offset,
                arrival_ns: group.first_arrival_ns,
            });
        }
        self.ready.push_back(Item::Group(group));
    }

    /// Begins the next segment, if one is prepared.
    fn roll(&mut self, now: Now, need: u64, io: &mut Io) -> Result<(), NoPlace> {
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
            Some(spare) => {
                // Too small for this batch: give it back and take one that fits.
                self.spare = None;
                io.closes.push(spare.file);
                let path = segment_path(self.spec.id, spare.number);
                self.submit(io, What::Discard, Op::Job(Job::Recycle { path }));
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
            index: empty_index(spare.capacity),
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
    fn prepare_next(&mut self, now: Now, io: &mut Io) {
        let half = self.segments.back().is_some_and(|s| s.next_offset > s.capacity / 2);
        if self.current && half && self.spare.is_none() {
            let _ = self.take_segment(now, 0, io);
        }
    }

    fn take_segment(&mut self, now: Now, least: u64, io: &mut Io) -> Result<(), NoPlace> {
        if self.taking {
            return Ok(());
        }
        if now.mono_ns < self.take_again_ns
            && let Some(refused) = &self.take_refused
        {
            return Err(NoPlace::Refused(refused.clone()));
        }
        let least = page_align(least as usize) as u64;
        let capacity = (self.next_capacity(now, io) >> self.take_smaller)
            .max(io.options.segments.min)
            .max(least);
        let number = self.next_segment;
        self.taking = true;
        let path = segment_path(self.spec.id, number);
        self.submit(io, What::Take(number), Op::Job(Job::TakeSegment { path, capacity }));
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
        let used = last.next_offset.max(1) as f64 / last.capacity as f64;
        let fills_in = now.wall_ns.saturating_sub(last.created_ns) as f64 / 1e9 / used.max(0.01);
        let capacity = match fills_in {
            s if s < 10.0 => last.capacity.saturating_mul(4),
            s if s > 600.0 => last.capacity / 4,
            _ => last.capacity,
        };
        capacity.clamp(sizes.min, most)
    }

    pub(super) fn segment_taken(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        self.taking = false;
        match result {
            Ok(Done::Segment { file, capacity, cold }) => {
                self.take_refused = None;
                self.take_smaller = 0;
                self.next_segment = number + 1;
                self.stats.cold_segments += u64::from(cold);
                self.spare = Some(Spare { number, file, capacity });
                if self.state == State::Open {
                    self.drain_waiting(now, io);
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
                if !self.waiting.is_empty() {
                    self.drain_waiting(now, io);
                }
            }
            Err(error) => {
                self.take_smaller = 0;
                let refused = refusal(&error);
                self.take_again_ns = now.mono_ns + TAKE_AGAIN_NS;
                self.take_refused = Some(refused.clone());
                self.refuse_waiting(&refused, io);
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

pub(crate) fn claim_of(header: &BatchHeader) -> Claim {
    Claim {
        id: header.producer_id.to_native(),
        epoch: header.producer_epoch.to_native(),
        sequence: header.producer_sequence.to_native(),
        records: header.record_count.to_native(),
    }
}
