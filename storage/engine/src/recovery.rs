//! Starting from what a directory holds: which blocks are the log, and where it ends.
//!
//! Runs before the shard serves, blocking, on any [`Files`]. It writes nothing into a segment: the new
//! incarnation begins a segment of its own at its first append, whose header durably says where the old
//! tail ended. Only files that hold nothing acknowledged are removed.

pub mod cases;
mod scan;
mod window;

use std::io;
use std::path::Path;

use highwater_ring::{BLOCK_ALIGN, Files};
use highwater_wire::ShardId;

pub use cases::{Case, Evidence, Place};
pub use scan::{Ending, Found, scan_segment};
pub use window::Window;

use crate::checkpoint::Claims;
use crate::format::{
    BlockHeader, KIND_SEAL, KIND_SEAL_1, NO_BLOCK, SEGMENT_HEADER_LEN, SEGMENT_MAGIC,
    SegmentHeader, parse_segment, segment_path, shard_dir, sidecar_path,
};
use crate::index::SparseIndex;
use crate::producers::{Producer, Producers, REMEMBERED};
use crate::segment::{Seal, SealPlace, Segment};
use crate::shard::{IN_FLIGHT_SEGMENTS, ShardLog};

/// Something recovery wants an operator to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which shard.
    pub shard: ShardId,
    /// The case.
    pub case: Case,
    /// File, offset, block and what became of it.
    pub text: String,
}

/// Bounds recovery needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes behind a bad block in which groups in flight with it may lie.
    pub in_flight_bytes: u64,
    /// Producers remembered.
    pub producers: usize,
    /// Whether files may be removed and indexes written (`inspect` does neither).
    pub read_only: bool,
}

struct Header {
    number: u64,
    header: SegmentHeader,
}

/// Finds the log of a shard.
pub fn recover(
    files: &dyn Files,
    id: ShardId,
    claims: &Claims,
    bounds: Bounds,
) -> io::Result<(ShardLog, Vec<Finding>)> {
    let mut recovery = Recovery { files, id, claims, bounds, findings: Vec::new() };
    let log = recovery.run()?;
    Ok((log, recovery.findings))
}

struct Recovery<'a> {
    files: &'a dyn Files,
    id: ShardId,
    claims: &'a Claims,
    bounds: Bounds,
    findings: Vec<Finding>,
}

impl Recovery<'_> {
    fn run(&mut self) -> io::Result<ShardLog> {
        let numbers: Vec<u64> =
            self.files.list(&shard_dir(self.id))?.iter().filter_map(|n| parse_segment(n)).collect();
        let next_segment = numbers.last().map_or(0, |n| n + 1);
        let claimed = self.claims.of(self.id);
        let mut log = ShardLog { next_segment, claimed, ..ShardLog::empty(self.bounds.producers) };
        let (headers, behind) = self.headers(&numbers, &mut log)?;
        if log.damaged.is_some() {
            return Ok(log);
        }
        if !headers.is_empty() {
            self.walk(&headers, &mut log)?;
        }
        let known = self.known_durable(&behind, log.next_block)?;
        if log.damaged.is_none() && known >= log.next_block {
            let last = headers.last().map_or(0, |h| h.number + 1);
            let at = match numbers.iter().find(|n| **n >= last) {
                Some(&number) => format!(
                    "{} at byte 0: the segment header is damaged or does not follow the segment before",
                    segment_path(self.id, number).display()
                ),
                None => format!("{}: a segment is missing", shard_dir(self.id).display()),
            };
            let (next_block, next_sequence) = (log.next_block, log.next_sequence);
            let text = format!(
                "{at}: block {known} is known to be durable, the segments before hold up to block {} and record {next_sequence}",
                next_block - 1,
            );
            self.damage(Case::DamagedHeader, text, &mut log);
        }
        if log.damaged.is_none() && !self.bounds.read_only {
            // Prepared ahead, or begun while their header was still in flight: nothing in them was
            // acknowledged.
            // From the end, so that a crash in the middle leaves what still fits together.
            for &number in numbers.iter().rev().filter(|n| !headers.iter().any(|h| h.number == **n))
            {
                self.files.remove(&segment_path(self.id, number))?;
            }
            self.remove_stray_sidecars(&numbers)?;
        }
        Ok(log)
    }

    /// The headers of the segments up to the first that has none, and of those behind it; after making sure
    /// that no write of a dead process can still change the last ones.
    fn headers(
        &mut self,
        numbers: &[u64],
        log: &mut ShardLog,
    ) -> io::Result<(Vec<Header>, Vec<Header>)> {
        if !self.bounds.read_only && !self.stopped_cleanly(numbers)? {
            // Only what the last incarnation wrote can be in flight: its last segments, one it had prepared,
            // and those an earlier start was about to remove. Older ones were durable before it rolled on.
            for &number in numbers.iter().rev().take(2 * IN_FLIGHT_SEGMENTS as usize + 2) {
                self.files.settle(&segment_path(self.id, number))?;
            }
        }
        let (mut headers, mut behind) = (Vec::new(), Vec::new());
        let mut whole = true;
        for &number in numbers {
            match self.header(number)? {
                Some(header) => {
                    let before = headers.last().map(|h: &Header| h.header.generation);
                    whole &= before.is_none_or(|before| before == header.prev_generation);
                    let side = if whole { &mut headers } else { &mut behind };
                    side.push(Header { number, header });
                }
                // Prepared and never used: whether something is missing here is said by the chain.
                None if !self.header_is_damaged(number)? => {}
                None => {
                    let path = segment_path(self.id, number);
                    let text = format!(
                        "{} at byte 0: the segment header is damaged; its records cannot be told",
                        path.display()
                    );
                    self.damage(Case::DamagedHeader, text, log);
                    return Ok((headers, behind));
                }
            }
        }
        Ok((headers, behind))
    }

    /// Whether a file begins with something that was a segment header. A header lies in one sector, so it is
    /// never torn: the old bytes are there, or the new ones, or damage.
    fn header_is_damaged(&self, number: u64) -> io::Result<bool> {
        let path = segment_path(self.id, number);
        let mut window = Window::pages(self.files, &path);
        let page = window.page(0)?;
        Ok(SegmentHeader::view(page).is_some_and(|h| {
            h.magic.to_native() == SEGMENT_MAGIC && !SegmentHeader::is_sound(page)
        }))
    }

    /// Indexes kept beside segments that retention has taken meanwhile.
    fn remove_stray_sidecars(&self, numbers: &[u64]) -> io::Result<()> {
        for name in self.files.list(&shard_dir(self.id))? {
            let number = name.strip_suffix(".seal").and_then(|n| n.parse::<u64>().ok());
            if let Some(number) = number.filter(|n| !numbers.contains(n)) {
                self.files.remove(&sidecar_path(self.id, number))?;
            }
        }
        Ok(())
    }

    fn header(&self, number: u64) -> io::Result<Option<SegmentHeader>> {
        let path = segment_path(self.id, number);
        let mut window = Window::pages(self.files, &path);
        Ok(SegmentHeader::read(window.page(0)?, self.id, number).copied())
    }

    /// Whether the checkpoint says that the shard was stopped and its last segment sealed: then nothing can
    /// be in flight.
    fn stopped_cleanly(&self, numbers: &[u64]) -> io::Result<bool> {
        let Some(claim) = self.claims.of(self.id).filter(|c| c.seal_offset != 0) else {
            return Ok(false);
        };
        for &number in numbers.iter().rev() {
            // A header still in flight reads as none: nothing behind the claim's segment may change any more.
            self.files.settle(&segment_path(self.id, number))?;
            if let Some(header) = self.header(number)? {
                return Ok(header.generation == claim.generation);
            }
        }
        Ok(false)
    }

    /// Loads the seals there are, and scans from the first segment without one.
    fn walk(&mut self, headers: &[Header], log: &mut ShardLog) -> io::Result<()> {
        log.next_block = headers[0].header.first_block.to_native();
        log.next_sequence = headers[0].header.base_sequence.to_native();
        log.prev_crc = headers[0].header.prev_crc.to_native();
        for (i, this) in headers.iter().enumerate() {
            let next = headers.get(i + 1).map(|n| &n.header);
            let begins_right = this.header.first_block.to_native() == log.next_block
                && this.header.base_sequence.to_native() == log.next_sequence;
            if !begins_right {
                let path = segment_path(self.id, this.number);
                let text = format!(
                    "{}: begins with block {} and record {}, expected {} and {}",
                    path.display(),
                    this.header.first_block,
                    this.header.base_sequence,
                    log.next_block,
                    log.next_sequence
                );
                self.damage(Case::LostWrite, text, log);
                return Ok(());
            }
            if let Some((segment, producers)) = self.sealed(this, &headers[i + 1..])? {
                log.next_block = segment.last_block + 1;
                log.next_sequence = segment.end_sequence;
                log.prev_crc = match next {
                    Some(next) => next.prev_crc.to_native(),
                    None => self.last_crc(&segment)?,
                };
                log.producers = Producers::restore(self.bounds.producers, producers);
                log.segments.push(segment);
                continue;
            }
            if !self.scan(headers, i, log)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A segment whose seal says what it holds, if it has one that is sound.
    fn sealed(
        &self,
        this: &Header,
        later: &[Header],
    ) -> io::Result<Option<(Segment, Vec<Producer>)>> {
        let generation = this.header.generation.to_native();
        let claim = self.claims.of(self.id);
        // Where the seal lies is said by the next segment, or by the checkpoint of a clean stop.
        let (offset, last_block) = match (later.first(), claim) {
            (Some(next), _) => {
                (next.header.prev_seal_offset.to_native(), next.header.prev_last_block.to_native())
            }
            (None, Some(claim)) if claim.seal_offset != 0 && claim.generation == generation => {
                (claim.seal_offset, claim.block)
            }
            (None, _) => return Ok(None),
        };
        // The next header may have gone out before the tail of this segment was durable: the seal counts
        // only if someone knows it to be durable. (Reading it back is no proof for the blocks before it.)
        if !later.is_empty() && self.known_durable(later, last_block)? < last_block {
            return Ok(None);
        }
        let path = segment_path(self.id, this.number);
        let (seal, next_offset) = if offset != 0 {
            match read_seal(self.files, &path, offset, generation, last_block)? {
                Some(found) => found,
                None => return Ok(None),
            }
        } else {
            let sidecar = sidecar_path(self.id, this.number);
            match self.files.len(&sidecar) {
                Ok(_) => match read_seal(self.files, &sidecar, 0, generation, last_block)? {
                    Some((seal, _)) => (seal, 0),
                    None => return Ok(None),
                },
                Err(_) => return Ok(None),
            }
        };
        let mut segment = Segment::unread(this.number, &this.header);
        segment.end_sequence = seal.end_sequence;
        segment.last_arrival_ns = seal.last_arrival_ns;
        segment.last_block = last_block;
        segment.seal_offset = offset;
        segment.next_offset = if next_offset == 0 { segment.capacity } else { next_offset };
        segment.index = SparseIndex::restore(segment.capacity, seal.index);
        Ok(Some((segment, seal.producers)))
    }

    /// Highest block known durable: by the headers of later segments, by a checkpoint, or (read only if
    /// those do not reach `enough`) by the blocks of later segments.
    fn known_durable(&self, later: &[Header], enough: u64) -> io::Result<u64> {
        let claim = self.claims.of(self.id).map_or(NO_BLOCK, |c| c.block);
        let mut known = later.iter().map(|h| h.header.committed.to_native()).fold(claim, u64::max);
        for header in later {
            if known < enough {
                known = known.max(self.committed_in(header)?);
            }
        }
        Ok(known)
    }

    fn last_crc(&self, segment: &Segment) -> io::Result<u32> {
        let path = segment_path(self.id, segment.number);
        let mut window = Window::pages(self.files, &path);
        let block = BlockHeader::read(window.page(segment.seal_offset)?, segment.generation);
        Ok(block.map_or(0, |b| b.header_crc.to_native()))
    }

    /// Scans segment `i`. `true` if it holds all that the next one expects before it, `false` if the log
    /// ends (or is damaged) here.
    fn scan(&mut self, headers: &[Header], i: usize, log: &mut ShardLog) -> io::Result<bool> {
        let this = &headers[i];
        let path = segment_path(self.id, this.number);
        let mut segment = Segment::unread(this.number, &this.header);
        let next = headers.get(i + 1);
        let last = next.map(|n| n.header.prev_last_block.to_native());
        let producers = &mut log.producers;
        let found = scan_segment(
            self.files,
            &path,
            &mut segment,
            log.prev_crc,
            last,
            producers,
            &mut |_| {},
        )?;
        log.next_block = segment.last_block + 1;
        log.next_sequence = segment.end_sequence;
        log.prev_crc = found.prev_crc;
        let generation = segment.generation;
        let complete = last == Some(segment.last_block);
        let last_block = segment.last_block;
        let offset = segment.next_offset;
        let (base, end) = (segment.base_sequence, segment.end_sequence);
        if complete || (next.is_none() && found.ending == Ending::Full) {
            if !self.bounds.read_only {
                self.write_sidecar(&segment, log)?;
            }
            log.segments.push(segment);
            return Ok(complete);
        }
        // Block k is not where it should be. Who knows of it?
        let k = last_block + 1;
        let behind = self.behind(&path, generation, offset, k)?;
        let known = behind.unwrap_or(NO_BLOCK).max(self.known_durable(&headers[i + 1..], k)?);
        let place = match found.ending {
            Ending::Full | Ending::Stale => Place::Stale,
            Ending::BadHeader => Place::BadHeader,
            Ending::BadBody => Place::BadBody,
        };
        let evidence =
            Evidence { place, claimed: known >= k, followed: behind.is_some() || next.is_some() };
        let case = Case::of(evidence);
        let place =
            format!("{} at byte {offset}: block {k}, records from {end} on", path.display());
        if case.is_damage() {
            let text = format!(
                "{place}: known to be durable (block {known} was), now {case:?}; records {base} to {end} before it are sound"
            );
            log.segments.push(segment);
            self.damage(case, text, log);
            return Ok(false);
        }
        if case != Case::CleanEnd {
            let what = if case.is_ambiguous() { ", which may have been durable" } else { "" };
            self.findings.push(Finding {
                shard: self.id,
                case,
                text: format!("{place}: cut as {case:?}{what}"),
            });
        }
        if !self.bounds.read_only {
            for later in headers[i + 1..].iter().rev() {
                self.files.remove(&segment_path(self.id, later.number))?;
            }
            self.write_sidecar(&segment, log)?;
        }
        segment.next_offset = offset;
        log.segments.push(segment);
        Ok(false)
    }

    /// Looks for valid blocks behind a bad place, within what can have been in flight; the highest
    /// `committed` any of them carries, `None` if there are none.
    fn behind(&self, path: &Path, generation: u64, offset: u64, k: u64) -> io::Result<Option<u64>> {
        let mut window = Window::new(self.files, path);
        let mut known = None;
        let mut at = offset + BLOCK_ALIGN as u64;
        let mut end = offset + self.bounds.in_flight_bytes;
        while at < end {
            let page = window.page(at)?;
            if page.len() < BLOCK_ALIGN {
                break;
            }
            match BlockHeader::read(page, generation).filter(|b| b.block.to_native() > k) {
                Some(block) => {
                    known = known.max(Some(block.committed.to_native()));
                    at += u64::from(block.length.to_native());
                    // Damage in the middle is followed by the whole rest of the log: go on to its end.
                    end = end.max(at + self.bounds.in_flight_bytes);
                }
                None => at += BLOCK_ALIGN as u64,
            }
        }
        Ok(known)
    }

    fn committed_in(&self, later: &Header) -> io::Result<u64> {
        let path = segment_path(self.id, later.number);
        let mut window = Window::new(self.files, &path);
        let (mut known, mut offset) = (0, SEGMENT_HEADER_LEN);
        while let Some(block) =
            BlockHeader::read(window.page(offset)?, later.header.generation.to_native())
        {
            known = known.max(block.committed.to_native());
            offset += u64::from(block.length.to_native());
        }
        Ok(known)
    }

    /// Keeps the index of a segment that was not sealed, so that the next start need not scan it again.
    fn write_sidecar(&self, segment: &Segment, log: &ShardLog) -> io::Result<()> {
        if segment.last_block < segment.first_block || segment.seal_offset != 0 {
            return Ok(());
        }
        let seal = Seal {
            end_sequence: segment.end_sequence,
            last_arrival_ns: segment.last_arrival_ns,
            index: segment.index.entries().to_vec(),
            producers: log.producers.to_keep(REMEMBERED),
        };
        let place = SealPlace {
            generation: segment.generation,
            block: segment.last_block,
            committed: segment.last_block,
            prev_crc: log.prev_crc,
        };
        let (buf, len, _) = Seal::block(&seal.encode(), seal.end_sequence, place);
        let path = sidecar_path(self.id, segment.number);
        self.files.remove(&path)?;
        let written = self
            .files
            .create(&path, len as u64, true)
            .and_then(|()| self.files.write_at(&path, 0, &buf, len));
        if written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            // It would only have spared the next start a scan: a full disk must not keep the shard from serving.
            return self.files.remove(&path);
        }
        written
    }

    fn damage(&mut self, case: Case, text: String, log: &mut ShardLog) {
        self.findings.push(Finding { shard: self.id, case, text: text.clone() });
        log.damaged = Some(text);
    }
}

/// The seal at `offset` of a file, with the offset behind it, if it is sound, of this generation and numbered
/// as the segment's last block.
pub fn read_seal(
    files: &dyn Files,
    path: &Path,
    offset: u64,
    generation: u64,
    last_block: u64,
) -> io::Result<Option<(Seal, u64)>> {
    let mut window = Window::pages(files, path);
    let Some(header) = BlockHeader::read(window.page(offset)?, generation).copied() else {
        return Ok(None);
    };
    let len = header.length.to_native() as usize;
    let block = window.get(offset, len)?;
    let kind = header.kind.to_native();
    let right = matches!(kind, KIND_SEAL | KIND_SEAL_1) && header.block.to_native() == last_block;
    if !right || block.len() < len || !header.body_is_sound(block) {
        return Ok(None);
    }
    let body = &block[BlockHeader::LEN..BlockHeader::LEN + header.body_length.to_native() as usize];
    Ok(Seal::decode_kind(kind, body).map(|seal| (seal, offset + len as u64)))
}

impl Segment {
    /// A segment of which only the header is known.
    pub(crate) fn unread(number: u64, header: &SegmentHeader) -> Segment {
        let capacity = header.capacity.to_native();
        let first_block = header.first_block.to_native();
        let base_sequence = header.base_sequence.to_native();
        Segment {
            number,
            generation: header.generation.to_native(),
            file: None,
            opening: false,
            capacity,
            base_sequence,
            end_sequence: base_sequence,
            first_block,
            last_block: first_block - 1,
            next_offset: SEGMENT_HEADER_LEN,
            seal_offset: 0,
            created_ns: header.created_ns.to_native(),
            last_arrival_ns: 0,
            index: SparseIndex::new(capacity),
            reads: 0,
            touched: false,
        }
    }
}
