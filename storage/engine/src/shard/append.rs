//! Appending: the door check, the place in the log, the open commit group.

use highwater_wire::{BatchError, BatchHeader, BatchView};

use super::{FlightKind, Item, Shard, State};
use crate::format::{BlockHeader, page_align};
use crate::group::{Group, PendingAck};
use crate::index::IndexEntry;
use crate::io::Io;
use crate::producers::{Claim, Stored, Verdict};
use crate::quota::{Demand, Meters};
use crate::types::{AppendError, AppendTerms, Appended, Now, Parts};

/// While the file system is below its reserve, retries are asked to wait this long.
const DISK_AGAIN_MS: u32 = 500;

/// What keeps a batch from its place.
pub(super) enum NoPlace {
    /// A segment is being prepared.
    Later,
    /// Backpressure holds it, for so long at least, once so many bytes held before it have been dropped.
    Held { wait_ns: u64, drop: u64 },
    /// For good, or until a retry.
    Refused(AppendError),
}

/// A batch that wants a place, checked.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub batch: BatchView<'a>,
    pub terms: &'a AppendTerms,
    pub tag: u64,
    pub arrived_mono_ns: u64,
    /// Its records, as sent.
    pub offered: u32,
    /// Some of them are at fault by themselves.
    pub faulty: bool,
    /// It has waited in the queue.
    pub queued: bool,
    /// For quota, by the stream's backpressure.
    pub held: bool,
    /// It is to be dropped.
    pub doomed: bool,
}

impl<'a> Ask<'a> {
    pub fn demand(&self) -> Demand {
        Demand { records: self.offered.into(), bytes: self.batch.bytes().len() as u64 }
    }

    pub fn client(&self) -> Option<&'a Meters> {
        self.terms.client.as_deref()
    }
}

impl Shard {
    /// Takes a batch. `Ok`: an [`crate::Output::Appended`] with `tag` follows.
    pub fn append(
        &mut self,
        now: Now,
        batch: &[u8],
        terms: &AppendTerms,
        tag: u64,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        let (batch, faulty) = match door(batch, io) {
            Ok(checked) => checked,
            Err(error) => {
                // Nobody knows how many records it is about.
                self.stats.refused += 1;
                return Err(error.into());
            }
        };
        let offered = batch.record_count();
        let arrived_mono_ns = now.mono_ns;
        let (queued, held, doomed) = (false, false, false);
        let ask = Ask { batch, terms, tag, arrived_mono_ns, offered, faulty, queued, held, doomed };
        let taken = match faulty && !terms.partial {
            true => self.fault(&ask, io),
            false => self.try_append(now, &ask, io),
        };
        match &taken {
            Ok(()) => self.stats.counters.offered += u64::from(offered),
            // Often made good by the caller, who waits for memory and tries again: see [`Shard::given_up`].
            Err(AppendError::Busy { .. }) => {}
            Err(error) => self.stats.turned_away(offered, error),
        }
        taken
    }

    /// A batch that found no memory is not tried again.
    pub fn given_up(&mut self, batch: &[u8]) {
        if let Ok(batch) = BatchView::parse(batch) {
            let busy = AppendError::Busy { retry_after_ms: 0 };
            self.stats.turned_away(batch.record_count(), &busy);
        }
    }

    fn try_append(&mut self, now: Now, ask: &Ask<'_>, io: &mut Io) -> Result<(), AppendError> {
        match &self.state {
            State::Open | State::Closed => {}
            State::Failed(reason) => {
                return Err(AppendError::Failed { shard: self.spec.id, reason: reason.clone() });
            }
            State::Damaged(reason) => {
                return Err(AppendError::Damaged { shard: self.spec.id, reason: reason.clone() });
            }
            State::Closing => return Err(AppendError::Closing),
        }
        let claim = claim_of(ask.batch.header());
        if self.state == State::Closed {
            return self.append_closed(now, ask, io);
        }
        if !self.queue.is_empty() {
            // Order: behind those that wait already.
            io.admits(&claim)?;
            return self.queue_behind(now, claim, ask, io);
        }
        match self.place(now, ask, io) {
            Ok(()) => Ok(()),
            Err(NoPlace::Later) => self.wait(ask, false, io),
            Err(NoPlace::Held { wait_ns, drop }) => {
                self.hold(drop, ask, io)?;
                self.queue.until = Some(self.look_at(now, ask.arrived_mono_ns, wait_ns));
                Ok(())
            }
            Err(NoPlace::Refused(error)) => Err(error),
        }
    }

    /// The first fault of a batch of which nothing may be left out.
    fn fault(&self, ask: &Ask<'_>, io: &mut Io) -> Result<(), AppendError> {
        let (batch, limits) = (ask.batch, io.options.limits);
        let fault = with_body(&batch, io, |body, _| Ok(batch.check_inside(body, &limits)))?;
        fault.map_err(AppendError::from)
    }

    /// Gives a batch its place in the log, or part of it, if there is room and quota.
    pub(super) fn place(&mut self, now: Now, ask: &Ask<'_>, io: &mut Io) -> Result<(), NoPlace> {
        let claim = claim_of(ask.batch.header());
        io.admits(&claim).map_err(NoPlace::Refused)?;
        match self.producers.judge(claim) {
            Verdict::Refuse(error) => return Err(NoPlace::Refused(error)),
            Verdict::Repeat(stored) => {
                return self.repeat(now, stored, ask, io).map_err(NoPlace::Refused);
            }
            Verdict::Fresh => {}
        }
        if let Some(expected) = ask.terms.expected.filter(|e| *e != self.next_sequence) {
            let next = self.next_sequence;
            return Err(NoPlace::Refused(AppendError::Expected { expected, next }));
        }
        if ask.doomed {
            return self.drop_whole(now, ask, io);
        }
        if self.metering.appends || ask.faulty || ask.terms.client.is_some() {
            return self.place_metered(now, claim, ask, io);
        }
        self.store(now, ask, &ask.batch, None, io)
    }

    /// Puts a batch, or what is left of it, into the open group.
    pub(super) fn store(
        &mut self,
        now: Now,
        ask: &Ask<'_>,
        batch: &BatchView<'_>,
        parts: Option<Box<Parts>>,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        self.find_room(now, batch.bytes().len(), io)?;
        let (base_sequence, arrival_ns) = (self.next_sequence, now.wall_ns);
        let Some(group) = self.open.as_mut() else {
            return Err(NoPlace::Later);
        };
        group.push(batch, arrival_ns, self.epoch);
        if !batch.compressed() {
            self.stats.keys.see(batch);
        } else if !ask.queued {
            // As the door has inflated it.
            self.stats.keys.see_body(&io.scratch, batch.record_count());
        } else if self.stats.keys.is_due(batch.record_count()) {
            // One that had to wait (for a segment, say) is inflated again, but only if it is to be looked into.
            let (keys, count) = (&mut self.stats.keys, batch.record_count());
            // It was inflated at the door: it can be.
            let _seen = with_body(batch, io, |body, _| {
                keys.see_body(body, count);
                Ok(())
            });
        } else {
            self.stats.keys.pass(batch.record_count());
        }
        let record_count = batch.record_count();
        let appended =
            Appended { base_sequence, record_count, arrival_ns, duplicate: false, parts };
        let (tag, arrived_mono_ns, offered) = (ask.tag, ask.arrived_mono_ns, ask.offered);
        group.acks.push(PendingAck { tag, appended, arrived_mono_ns, offered });
        self.next_sequence += u64::from(record_count);
        self.producers.record(claim_of(batch.header()), record_count, base_sequence, arrival_ns);
        Ok(())
    }

    /// A batch that is stored, or about to be: answered now, or together with the original.
    pub(super) fn repeat(
        &mut self,
        now: Now,
        stored: Stored,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        if stored.decided < ask.offered && !ask.terms.partial {
            // Cut differently, and whoever sent it takes no part of an answer.
            let sequence = ask.batch.header().producer_sequence.to_native();
            return Err(AppendError::Duplicate(sequence));
        }
        let appended = Appended {
            base_sequence: stored.base_sequence,
            record_count: stored.records,
            arrival_ns: stored.arrival_ns,
            duplicate: true,
            parts: self.recalled(now, stored, ask, io)?,
        };
        self.stats.duplicates += 1;
        let (tag, arrived_mono_ns, offered) = (ask.tag, ask.arrived_mono_ns, ask.offered);
        let ack = PendingAck { tag, appended, arrived_mono_ns, offered };
        let base = stored.base_sequence;
        // One without records may lie at the end of a group as well as at the begin of the next: the later will do.
        let reach = u64::from(stored.records == 0);
        let holds = |from: u64, end: u64| (from..end + reach).contains(&base);
        if let Some(group) = self.open.as_mut().filter(|g| g.batches > 0)
            && holds(group.base_sequence, group.end_sequence())
        {
            group.acks.push(ack);
            return Ok(());
        }
        for item in self.ready.iter_mut().rev() {
            if let Item::Group(group) = item
                && holds(group.base_sequence, group.end_sequence())
            {
                group.acks.push(ack);
                return Ok(());
            }
        }
        let groups = self.flights.iter_mut().rev().filter(|f| f.kind == FlightKind::Group);
        let flying = groups.into_iter().find(|f| holds(f.base_sequence, f.end_sequence));
        if let Some(flight) = flying
            && flight.block > self.last_ack_block
        {
            flight.acks.push(ack);
            return Ok(());
        }
        self.answer(ack.tag, ack.offered, Ok(ack.appended), io);
        Ok(())
    }

    /// Makes sure that there is an open group with room for a batch of `len` bytes.
    fn find_room(&mut self, now: Now, len: usize, io: &mut Io) -> Result<(), NoPlace> {
        if io.disk_low {
            return Err(NoPlace::Refused(AppendError::DiskFull { retry_after_ms: DISK_AGAIN_MS }));
        }
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
}

/// The door check: everything a producer could get wrong. Whether some of the batch's records are at fault while
/// the others could be stored.
fn door<'a>(batch: &'a [u8], io: &mut Io) -> Result<(BatchView<'a>, bool), BatchError> {
    let view = BatchView::parse(batch)?;
    let limits = io.options.limits;
    view.check_outside(&limits)?;
    let (have, need) = (batch.len(), view.bytes().len());
    if have != need {
        return Err(BatchError::Truncated { have, need });
    }
    if view.header().producer_count.to_native() != 0 {
        // Only a server says so; from anybody else it would move the producer's window.
        return Err(BatchError::Unsupported { field: "producer_count", value: 1 });
    }
    match with_body(&view, io, |body, _| Ok(view.check_inside(body, &limits)))? {
        Ok(()) => Ok((view, false)),
        Err(
            BatchError::RecordTooLarge { .. }
            | BatchError::KeyTooLong { .. }
            | BatchError::KeyNotUtf8 { .. },
        ) => Ok((view, true)),
        Err(error) => Err(error),
    }
}

/// Calls `look` with a batch's body, uncompressed.
pub(super) fn with_body<T>(
    batch: &BatchView<'_>,
    io: &mut Io,
    look: impl FnOnce(&[u8], &mut Io) -> Result<T, BatchError>,
) -> Result<T, BatchError> {
    if !batch.compressed() {
        return look(batch.body(), io);
    }
    // Of one size for all shards of the core: what the largest batch may have. It is no larger whatever a batch
    // says of itself.
    let mut body = std::mem::take(&mut io.scratch);
    let unpacked = io.unpacker.unpack_into(batch, io.options.limits.max_batch, &mut body);
    let seen = unpacked.and_then(|()| look(&body, io));
    io.scratch = body;
    seen
}

/// Who a batch says it is from. Of one that was stored in part, with the records that are decided.
pub(crate) fn claim_of(header: &BatchHeader) -> Claim {
    let decided = header.producer_count.to_native();
    Claim {
        id: header.producer_id.to_native(),
        epoch: header.producer_epoch.to_native(),
        sequence: header.producer_sequence.to_native(),
        records: if decided == 0 { header.record_count.to_native() } else { decided },
    }
}
