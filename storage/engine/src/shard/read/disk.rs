//! Reading from disk: stretches of segments, the whole and sound blocks in them, and what follows.

use highwater_ring::{BLOCK_ALIGN, Done, Job, Op};

use super::blocks::{Damage, Next, Stop, Wish, take_blocks};
use super::{Reader, ReaderKey};
use crate::format::{BlockHeader, KIND_DATA, segment_path};
use crate::io::{Io, What};
use crate::kept::Piece;
use crate::shard::place::{FIRST, LOOK_BYTES, Wanted};
use crate::shard::{Shard, State};
use crate::types::{Chunk, Now, Output, ReadError};

/// Most bytes of a read from disk, to which it grows while a reader goes on from one to the next; only a block that is
/// larger by itself is read whole.
const LARGEST_READ: usize = 1 << 20;
/// Marks the numbers of reads ahead; those of look-ups have the bit above.
const AHEAD: u64 = 1 << 62;
// One would get what the other read.
const _: () = assert!(AHEAD & FIRST == 0, "reads ahead and look-ups have numbers of their own");
/// The part of a core's buffers in which what was read and not delivered yet is kept.
const KEPT_SHARE: usize = 8;

/// Where the next read from disk begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    segment: u64,
    offset: u64,
    /// Bytes to read.
    len: usize,
    /// Bytes without which there is no use: of a block whose length is known.
    least: usize,
}

impl Shard {
    /// Reads the stretch of file that holds the reader's next record. `true` if it should look again at once.
    pub(super) fn read_disk(&mut self, now: Now, at: usize, io: &mut Io) -> bool {
        let next = self.readers[at].next;
        let usual = self.usual_read(at, io);
        let cursor = self.readers[at].cursor.take().or_else(|| {
            let segment = &self.segments[self.segment_of(next)?];
            let entry = segment.index.by_sequence(next)?;
            let (segment, offset) = (segment.number, entry.offset);
            Some(Cursor { segment, offset, len: usual, least: usual })
        });
        let Some(cursor) = cursor else {
            self.damage(format!("no index entry leads to sequence {next}"), io);
            return false;
        };
        let id = self.spec.id;
        if self.is_leaving(cursor.segment, now) {
            self.retain(now, io); // at once, if nobody reads there any more
            return false; // looked at when it has gone
        }
        let Some(segment) = self.segment_mut(cursor.segment) else {
            return true; // its segment is gone: look again without the cursor
        };
        let Some(file) = segment.file else {
            if !segment.opening {
                segment.opening = true;
                let number = segment.number;
                let job = Job::OpenSegment { path: segment_path(id, number), write: false };
                self.submit(io, What::Open(number), Op::Job(job));
            }
            return false;
        };
        let left = segment.capacity.saturating_sub(cursor.offset) as usize;
        let lengths = [cursor.len, cursor.least].map(|len| len.min(left).max(BLOCK_ALIGN));
        let Some((buf, len)) = lengths.iter().find_map(|&len| Some((io.take_for_read(len)?, len)))
        else {
            let r = &mut self.readers[at];
            (r.starved, r.cursor) = (true, Some(cursor));
            if let ReaderKey::Once(tag) = r.key
                && now.mono_ns >= r.deadline_ns
            {
                r.gone = true;
                let result = Err(ReadError::Busy { retry_after_ms: 5 });
                io.outputs.push(Output::Read { tag, result });
            }
            return false;
        };
        segment.reads += 1;
        segment.touched = true;
        let mark = self.high_water;
        let r = &mut self.readers[at];
        (r.live, r.read_to) = (false, mark);
        (r.busy, r.starved, r.cursor) = (true, false, Some(Cursor { len, ..cursor }));
        let number = r.number;
        self.submit(
            io,
            What::Read(number),
            Op::Read { file, offset: cursor.offset, buf, len: len as u32 },
        );
        false
    }

    pub(in crate::shard) fn segment_opened(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        let id = self.spec.id;
        let Some(segment) = self.segment_mut(number) else {
            if let Ok(Done::Segment { file, .. }) = result {
                io.closes.push(file);
            }
            return;
        };
        segment.opening = false;
        match result {
            Ok(Done::Segment { file, .. }) => segment.file = Some(file),
            Ok(_) => {}
            Err(error) => {
                let reason = format!("opening {}: {error}", segment_path(id, number).display());
                let (from, to) = (segment.base_sequence, segment.end_sequence);
                let error = ReadError::Io { shard: id, reason: reason.into() };
                for at in 0..self.readers.len() {
                    if (from..to).contains(&self.readers[at].next) {
                        self.end_reader(at, &error, io);
                    }
                }
            }
        }
        self.pump_readers(now, io);
    }

    pub(in crate::shard) fn read_done(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Done, std::io::Error>,
        io: &mut Io,
    ) {
        let Some(at) = self.readers.iter().position(|r| r.number == number) else { return };
        self.readers[at].busy = false;
        let Some(cursor) = self.readers[at].cursor.take() else { return };
        if let Some(segment) = self.segment_mut(cursor.segment) {
            segment.reads = segment.reads.saturating_sub(1);
        }
        if self.readers[at].key == ReaderKey::Ahead {
            io.kept.arrived(cursor.len);
            self.aheads = self.aheads.saturating_sub(1);
        }
        match result {
            Ok(Done::Read { buf, len }) => match self.readers[at].key {
                ReaderKey::Look(_, wanted) => {
                    self.look_at_blocks(at, wanted, cursor, &buf[..len as usize], io);
                }
                key => {
                    let Cursor { segment, offset, len: asked, .. } = cursor;
                    let (buf, len) = (buf.freeze(), len as usize);
                    let mark = self.readers[at].read_to;
                    let piece =
                        Piece { segment, offset, asked, mark, buf, len, pos: 0, sound: false };
                    if key == ReaderKey::Ahead {
                        self.readers[at].gone = true;
                        self.keep(self.readers[at].next, piece, io);
                    } else {
                        self.read_blocks(now, at, piece, io);
                    }
                }
            },
            Ok(_) => {}
            Err(error) => {
                let path = segment_path(self.spec.id, cursor.segment);
                let reason = format!("reading {} at {}: {error}", path.display(), cursor.offset);
                let error = ReadError::Io { shard: self.spec.id, reason: reason.into() };
                self.end_reader(at, &error, io);
            }
        }
        self.pump_readers(now, io);
        self.look_on(now, io);
        if self.oldest_is_leaving(now) {
            self.retain(now, io);
        }
    }

    /// Whether no read may begin in a segment any more.
    fn is_leaving(&self, segment: u64, now: Now) -> bool {
        self.segments.front().is_some_and(|oldest| oldest.number == segment)
            && self.oldest_is_leaving(now)
    }

    /// Bytes of a read from disk, unless a block is larger.
    fn usual_read(&self, at: usize, io: &Io) -> usize {
        match self.readers[at].reads() {
            true => io.options.read_bytes,
            false => LOOK_BYTES.min(io.options.read_bytes),
        }
    }

    /// Takes the whole, sound blocks out of what was read, as far as credit goes; the rest is kept for more of it.
    pub(super) fn read_blocks(&mut self, now: Now, at: usize, mut piece: Piece, io: &mut Io) {
        if self.readers[at].gone {
            return;
        }
        let Some((wish, end_sequence)) = self.wish(now, at, &piece, io) else { return };
        let segment = piece.segment;
        let mut chunk = Chunk { next: self.readers[at].next, ..Chunk::default() };
        let cursor = match take_blocks(&mut piece, wish, &mut chunk) {
            Stop::Done => None,
            Stop::Damaged(damage) if chunk.slices.is_empty() => {
                return self.damage_at(segment, damage, io);
            }
            // What is sound before it is delivered first: the damage is met again.
            Stop::Damaged(_) => None,
            Stop::Cut(next) => Some(self.behind(now, at, &piece, next, chunk.next, io)),
            Stop::Spent(Next { offset, least }) => {
                // Should it not be kept, it is read again.
                self.keep(chunk.next, piece, io);
                Some(Cursor { segment, offset, len: least, least })
            }
        };
        self.readers[at].cursor = cursor.filter(|_| chunk.next < end_sequence);
        if !chunk.slices.is_empty() {
            self.give(now, at, chunk, io);
        }
    }

    /// What a reader wants of a piece, and where the piece's segment ends; `None` if that is gone.
    fn wish(&mut self, now: Now, at: usize, piece: &Piece, io: &Io) -> Option<(Wish, u64)> {
        let r = &self.readers[at];
        // Others may have used up the quota meanwhile: what was read for it goes out all the same, one batch of it.
        let room = self.metering.room_out(now, r.client.as_deref()).unwrap_or(1);
        let budget = (r.max_bytes as u64).min(r.credit).min(room) as usize;
        let segment = self.segment_mut(piece.segment)?;
        let (generation, end) = (segment.generation, segment.end_sequence);
        let to = piece.mark.min(end);
        Some((Wish { generation, to, budget, usual: io.options.read_bytes }, end))
    }

    /// Where a reader goes on that has all whole blocks of a piece, for the record `next`.
    fn behind(
        &mut self,
        now: Now,
        at: usize,
        piece: &Piece,
        Next { offset, least }: Next,
        next: u64,
        io: &mut Io,
    ) -> Cursor {
        let r = &self.readers[at];
        let once = matches!(r.key, ReaderKey::Once(_));
        let most = if once { r.max_bytes } else { r.credit as usize };
        // Whoever goes on from one stretch to the next gets longer ones, as far as they can be delivered at once.
        let longer = (2 * piece.asked).min(LARGEST_READ).min(most);
        let len = (longer / BLOCK_ALIGN * BLOCK_ALIGN).max(least);
        let cursor = Cursor { segment: piece.segment, offset, len, least };
        if once {
            self.read_ahead(now, cursor, next, io);
        }
        cursor
    }

    /// Keeps what was read for whoever wants the record `next`.
    fn keep(&self, next: u64, piece: Piece, io: &mut Io) {
        io.kept.keep(self.spec.id, next, piece, io.pool.region_bytes() / KEPT_SHARE);
    }

    /// Reads what follows a single read while its answer is on its way: a row of them then goes as fast as the disk.
    fn read_ahead(&mut self, now: Now, cursor: Cursor, next: u64, io: &mut Io) {
        let waits = |r: &Reader| r.key == ReaderKey::Ahead && r.next == next;
        if self.readers.iter().any(waits) || self.is_leaving(cursor.segment, now) {
            return;
        }
        let Some(segment) = self.segment_mut(cursor.segment) else { return };
        let left = segment.capacity.saturating_sub(cursor.offset) as usize;
        let len = cursor.len.min(left).max(BLOCK_ALIGN);
        let Some(file) = segment.file else { return };
        // A guess takes nothing from anybody: there has to be room to keep it, and the quarter of the pool that reads
        // leave. The tail gives way by itself, and may have half of the pool at all times: of what does not give way there
        // has to be little.
        let (all, used) = (io.pool.region_bytes(), io.pool.region_used());
        let bound = all / KEPT_SHARE;
        if used > all / 4 * 3 || used.saturating_sub(io.tail_used) > all / 4 {
            return;
        }
        let Some(buf) = io.pool.take(len) else { return };
        if !io.kept.has_room(buf.capacity(), bound) {
            return;
        }
        io.kept.expect(len);
        (segment.reads, segment.touched) = (segment.reads + 1, true);
        self.next_ahead += 1;
        self.aheads += 1;
        let number = AHEAD | self.next_ahead;
        self.readers.push(Reader {
            busy: true,
            cursor: Some(Cursor { len, ..cursor }),
            read_to: self.high_water,
            ..Reader::idle(ReaderKey::Ahead, number, next)
        });
        let op = Op::Read { file, offset: cursor.offset, buf, len: len as u32 };
        self.submit(io, What::Read(number), op);
    }

    /// The blocks of what was read for a look-up, up to the one it wants.
    fn look_at_blocks(
        &mut self,
        at: usize,
        wanted: Wanted,
        cursor: Cursor,
        read: &[u8],
        io: &mut Io,
    ) {
        if self.readers[at].gone {
            return;
        }
        let usual = self.usual_read(at, io);
        let found = self.segment_mut(cursor.segment).map(|s| (s.generation, s.end_sequence));
        let Some((generation, end_sequence)) = found else { return };
        let mut pos = 0;
        let then = loop {
            let next = self.readers[at].next;
            if next >= self.readers[at].read_to.min(end_sequence) {
                return;
            }
            let offset = cursor.offset + pos as u64;
            let rest = read.get(pos..).filter(|rest| rest.len() >= BLOCK_ALIGN);
            let Some(rest) = rest else { break (offset, usual) };
            let damaged = |sequence, what| Damage { offset, sequence, what };
            let Some(header) = BlockHeader::read(rest, generation) else {
                return self.damage_at(cursor.segment, damaged(next, "block header"), io);
            };
            let length = header.length.to_native() as usize;
            let base = header.base_sequence.to_native();
            let end = base + u64::from(header.record_count.to_native());
            if header.kind.to_native() == KIND_DATA && end > next {
                if rest.len() < length {
                    break (offset, length.max(usual));
                }
                if !header.body_is_sound(&rest[..length]) {
                    return self.damage_at(cursor.segment, damaged(base, "block body"), io);
                }
                let body_end = BlockHeader::LEN + header.body_length.to_native() as usize;
                let segment = cursor.segment;
                if self.look_in_block(at, wanted, &rest[..length], body_end, segment, offset) {
                    return;
                }
                self.readers[at].next = end;
            }
            pos += length;
        };
        if then.0 == cursor.offset && then.1 <= cursor.len {
            let (offset, sequence) = (cursor.offset, self.readers[at].next);
            let damage = Damage { offset, sequence, what: "end of file" };
            return self.damage_at(cursor.segment, damage, io);
        }
        self.readers[at].cursor =
            Some(Cursor { segment: cursor.segment, offset: then.0, len: then.1, least: then.1 });
    }

    fn damage_at(&mut self, segment: u64, damage: Damage, io: &mut Io) {
        let Damage { offset, sequence, what } = damage;
        let path = segment_path(self.spec.id, segment);
        let reason = format!(
            "damaged {what} in {} at byte {offset}, records from {sequence} on; run `highwater inspect`",
            path.display()
        );
        self.damage(reason, io);
    }

    /// Stops the shard: what was durable cannot be read back.
    pub(super) fn damage(&mut self, reason: String, io: &mut Io) {
        self.fail(reason.clone(), io);
        self.state = State::Damaged(reason.clone().into());
        self.end_readers(&ReadError::Damaged { shard: self.spec.id, reason: reason.into() }, io);
    }
}
