//! Writing: groups become device writes, several in flight; completions advance the high-water mark in
//! order, and only then is anything acknowledged.

use highwater_ring::{AlignedBuf, BLOCK_ALIGN, Done, Op, SharedBuf};
use highwater_wire::AckMode;

use super::{Flight, FlightKind, FlightState, Item, Shard, State, TailBlock};
use crate::format::{BlockHeader, FORMAT_VERSION, SEGMENT_MAGIC, SegmentHeader};
use crate::group::{Group, PendingAck};
use crate::io::{Io, What};
use crate::segment::{Seal, SealPlace};
use crate::types::Now;

/// Segments that may hold writes not yet durable.
pub(crate) const IN_FLIGHT_SEGMENTS: u64 = 4;

impl Shard {
    /// Submits what may go out now.
    pub fn pump(&mut self, now: Now, io: &mut Io) {
        if matches!(self.state, State::Failed(_) | State::Damaged(_)) || self.removing.is_some() {
            return;
        }
        if self.may_drain(now) {
            self.drain_waiting(now, io);
        }
        loop {
            let depth_free = self.writing < io.options.depth;
            if self.ready.is_empty() && depth_free && self.open_may_go(io) {
                self.close_open_group();
            }
            match self.ready.front() {
                Some(Item::Group(_)) if !depth_free => break,
                Some(Item::Header { segment }) if self.spans_too_much(*segment) => break,
                None => break,
                Some(_) => {}
            }
            if let Some(item) = self.ready.pop_front() {
                self.launch(now, item, io);
            }
        }
        if self.spec.ack == AckMode::Written {
            self.flush_written(now, io);
        }
    }

    /// Not more than a few segments may be in flight at once: a start after a crash settles just the last
    /// ones. (Only streams whose flushes come late, with the smallest of segments, ever get there.)
    fn spans_too_much(&self, next: u64) -> bool {
        self.flights.front().is_some_and(|f| f.segment + IN_FLIGHT_SEGMENTS <= next)
    }

    /// Group commit without a timer: with nothing in flight a lone batch goes at once; with one group in
    /// flight a group worth a write follows it; with more, only large ones do, because what the device
    /// gives grows with the size of a write (here 1.1 GB/s with four of 64 KiB, 2.4 with four of 256 KiB).
    fn open_may_go(&self, io: &Io) -> bool {
        let least = match self.writing {
            0 => 0,
            1 => io.options.group_min,
            _ => io.options.group_large,
        };
        self.open.as_ref().is_some_and(|g| g.batches > 0 && g.len >= least)
    }

    fn launch(&mut self, now: Now, item: Item, io: &mut Io) {
        match item {
            Item::Header { segment } => self.launch_header(now, segment, io),
            Item::Seal { segment, offset, body, end_sequence } => {
                let Some(generation) = self.segment_mut(segment).map(|s| s.generation) else {
                    return;
                };
                let block = self.next_block;
                let place = SealPlace {
                    generation,
                    block,
                    committed: self.committed,
                    prev_crc: self.prev_crc,
                };
                let (buf, len, crc) = Seal::block(&body, end_sequence, place);
                self.take_block_number(segment, crc);
                let flight = self.flight(FlightKind::Seal, segment, block, end_sequence, buf, now);
                self.write(flight, offset, len, io);
            }
            Item::Group(group) => self.launch_group(now, *group, io),
        }
    }

    fn launch_header(&mut self, now: Now, number: u64, io: &mut Io) {
        let Some(at) = self.segments.iter().position(|s| s.number == number) else { return };
        let (prev_generation, prev_seal_offset) = at
            .checked_sub(1)
            .map_or((0, 0), |p| (self.segments[p].generation, self.segments[p].seal_offset));
        let next_block = self.next_block;
        let segment = &mut self.segments[at];
        segment.first_block = next_block;
        segment.last_block = next_block - 1;
        let header = SegmentHeader {
            magic: SEGMENT_MAGIC.into(),
            format: FORMAT_VERSION.into(),
            epoch: self.epoch.into(),
            stream: self.spec.id.stream.into(),
            shard: self.spec.id.shard.into(),
            generation: segment.generation.into(),
            segment: number.into(),
            base_sequence: segment.base_sequence.into(),
            first_block: next_block.into(),
            capacity: segment.capacity.into(),
            created_ns: segment.created_ns.into(),
            prev_generation: prev_generation.into(),
            prev_last_block: (next_block - 1).into(),
            prev_seal_offset: prev_seal_offset.into(),
            committed: self.committed.into(),
            prev_crc: self.prev_crc.into(),
            ack: u32::from(self.spec.ack == AckMode::Written).into(),
            reserved: 0.into(),
            header_crc: 0.into(),
        };
        let base_sequence = segment.base_sequence;
        let mut page = AlignedBuf::alloc(BLOCK_ALIGN);
        header.seal_into(&mut page);
        let flight =
            self.flight(FlightKind::Header, number, next_block - 1, base_sequence, page, now);
        self.write(flight, 0, BLOCK_ALIGN, io);
    }

    fn launch_group(&mut self, now: Now, mut group: Group, io: &mut Io) {
        let Some(generation) = self.segment_mut(group.segment).map(|s| s.generation) else {
            return;
        };
        let block = self.next_block;
        let (length, crc) = group.seal(generation, block, self.committed, self.prev_crc);
        self.take_block_number(group.segment, crc);
        for ack in &group.acks {
            let waited = now.mono_ns.saturating_sub(ack.arrived_mono_ns);
            io.stats.queue.record(waited, u64::from(ack.appended.record_count));
        }
        let (segment, offset) = (group.segment, group.offset);
        let end_sequence = group.end_sequence();
        let mut flight =
            self.flight(FlightKind::Group, segment, block, end_sequence, group.buf, now);
        flight.base_sequence = group.base_sequence;
        flight.acks = group.acks;
        flight.body_end = group.len;
        self.writing += 1;
        self.stats.groups += 1;
        io.stats.group_bytes.record(length as u64, 1);
        if io.options.planted.ack_before_flush {
            for ack in std::mem::take(&mut flight.acks) {
                self.answer(ack.tag, ack.offered, Ok(ack.appended), io);
            }
        }
        self.write(flight, offset, length, io);
    }

    fn take_block_number(&mut self, segment: u64, crc: u32) {
        let block = self.next_block;
        self.next_block += 1;
        self.prev_crc = crc;
        if let Some(segment) = self.segment_mut(segment) {
            segment.last_block = block;
        }
    }

    fn flight(
        &mut self,
        kind: FlightKind,
        segment: u64,
        block: u64,
        end_sequence: u64,
        buf: AlignedBuf,
        now: Now,
    ) -> Flight {
        let number = self.next_flight;
        self.next_flight += 1;
        Flight {
            number,
            kind,
            state: FlightState::Writing,
            segment,
            offset: 0,
            block,
            base_sequence: end_sequence,
            end_sequence,
            acks: Vec::new(),
            buf: buf.freeze(),
            body_end: 0,
            submitted_ns: now.mono_ns,
            written_ns: 0,
        }
    }

    fn write(&mut self, flight: Flight, offset: u64, len: usize, io: &mut Io) {
        let flight = Flight { offset, ..flight };
        let Some(file) = self.segment_mut(flight.segment).and_then(|s| s.file) else {
            self.fail(format!("segment {} is not open for writing", flight.segment), io);
            return;
        };
        self.stats.disk_bytes += len as u64;
        let durable = self.spec.ack == AckMode::Durable;
        let op = Op::Write { file, offset, buf: flight.buf.clone(), len: len as u32, durable };
        self.submit(io, What::Flight(flight.number), op);
        self.flights.push_back(flight);
    }

    pub(super) fn flight_done(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        // Flights are numbered without gaps; one that is gone went down with a failure.
        let first = self.flights.front().map_or(0, |f| f.number);
        let Some(at) =
            number.checked_sub(first).map(|i| i as usize).filter(|&i| i < self.flights.len())
        else {
            return;
        };
        if let Err(error) = result {
            let segment = self.flights[at].segment;
            self.fail(format!("writing segment {segment}: {error}"), io);
            return;
        }
        let flight = &mut self.flights[at];
        flight.state = FlightState::Written;
        flight.written_ns = now.mono_ns;
        if flight.kind == FlightKind::Group {
            let took = now.mono_ns.saturating_sub(flight.submitted_ns);
            self.writing = self.writing.saturating_sub(1);
            self.stats.write.record(took, 1);
            io.stats.write.record(took, 1);
        }
        if io.options.planted.mark_out_of_order {
            for earlier in self.flights.iter_mut().take(at) {
                earlier.state = earlier.state.max(FlightState::Written);
            }
        }
        self.advance(now, io);
    }

    /// Moves the high-water mark over the durable prefix of what is in flight, and acknowledges.
    fn advance(&mut self, now: Now, io: &mut Io) {
        let durable_when = match self.spec.ack {
            AckMode::Durable => FlightState::Written,
            AckMode::Written => FlightState::Durable,
        };
        while self.flights.front().is_some_and(|f| f.state >= durable_when) {
            let Some(flight) = self.flights.pop_front() else { return };
            self.committed = self.committed.max(flight.block);
            if flight.kind != FlightKind::Group {
                continue;
            }
            self.high_water = flight.end_sequence;
            self.last_ack_block = self.last_ack_block.max(flight.block);
            self.acknowledge(now, flight.acks, &flight.buf, io);
            self.keep_in_tail(
                TailBlock {
                    base_sequence: flight.base_sequence,
                    end_sequence: flight.end_sequence,
                    durable_ns: now.mono_ns,
                    buf: flight.buf,
                    body_end: flight.body_end,
                    segment: flight.segment,
                    offset: flight.offset,
                },
                io,
            );
        }
        if self.spec.ack == AckMode::Written {
            self.acknowledge_written(now, io);
        }
        self.pump_readers(now, io);
    }

    fn keep_in_tail(&mut self, block: TailBlock, io: &mut Io) {
        let bytes = block.buf.capacity();
        self.tail.push_back(block);
        io.keep_tail(self.spec.id, bytes);
    }

    /// A `written` stream's promise is weaker: acknowledged in order of the log when the write completed.
    fn acknowledge_written(&mut self, now: Now, io: &mut Io) {
        let mut done: Vec<(Vec<PendingAck>, SharedBuf)> = Vec::new();
        for flight in self.flights.iter_mut().take_while(|f| f.state >= FlightState::Written) {
            if flight.kind == FlightKind::Group && flight.block > self.last_ack_block {
                self.last_ack_block = flight.block;
                done.push((std::mem::take(&mut flight.acks), flight.buf.clone()));
            }
        }
        for (acks, buf) in done {
            self.acknowledge(now, acks, &buf, io);
        }
    }

    fn acknowledge(&mut self, now: Now, acks: Vec<PendingAck>, block: &SharedBuf, io: &mut Io) {
        if acks.is_empty() {
            return;
        }
        let fresh = acks.iter().filter(|a| !a.appended.duplicate);
        let (batches, records) =
            fresh.fold((0, 0), |(b, r), a| (b + 1, r + u64::from(a.appended.record_count)));
        self.stats.batches_in += batches;
        self.stats.records_in += records;
        let body = BlockHeader::view(block).map_or(0, |h| u64::from(h.body_length.to_native()));
        self.stats.bytes_in += body;
        for ack in acks {
            let took = now.mono_ns.saturating_sub(ack.arrived_mono_ns);
            io.stats.append.record(took, u64::from(ack.appended.record_count));
            self.answer(ack.tag, ack.offered, Ok(ack.appended), io);
        }
    }

    /// Flushes completed writes of a `written` stream, at the latest a few milliseconds after the first.
    fn flush_written(&mut self, now: Now, io: &mut Io) {
        let pressed = self.state != State::Open
            || matches!(self.ready.front(), Some(Item::Header { segment }) if self.spans_too_much(*segment));
        let Some(first) = self.flights.front().filter(|f| f.state == FlightState::Written) else {
            return;
        };
        let due = pressed || now.mono_ns >= first.written_ns + io.options.flush_after_ns;
        if self.syncing || !due {
            return;
        }
        let segment = first.segment;
        let covered = self
            .flights
            .iter()
            .take_while(|f| f.state == FlightState::Written && f.segment == segment)
            .last()
            .map_or(first.number, |f| f.number);
        let Some(file) = self.segment_mut(segment).and_then(|s| s.file) else { return };
        self.syncing = true;
        self.submit(io, What::Sync(covered), Op::Sync { file });
    }

    pub(super) fn sync_done(
        &mut self,
        now: Now,
        covered: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        self.syncing = false;
        if let Err(error) = result {
            // Never retried: after a failed flush the kernel may call lost pages clean.
            self.fail(format!("flushing: {error}"), io);
            return;
        }
        for flight in self.flights.iter_mut().take_while(|f| f.number <= covered) {
            flight.state = FlightState::Durable;
        }
        self.advance(now, io);
    }
}
