//! Looks through a data directory offline: every block of every segment, and what does not fit. Writes
//! nothing, and takes no lock that would keep it from looking.

use std::io;
use std::path::{Path, PathBuf};

use highwater_ring::{Files, FilesError, FilesOptions, OsFiles};
use highwater_wire::{BatchError, BatchView, Limits, ShardId, Unpacker};
use serde::Serialize;

use crate::checkpoint::Claims;
use crate::format::{
    FORMAT_VERSION, SegmentHeader, parse_segment, parse_shard_dir, segment_path, shard_dir,
};
use crate::options::CoreOptions;
use crate::producers::Producers;
use crate::recovery::{Bounds, Case, Window, recover, scan_segment};
use crate::segment::Segment;
use crate::store::{in_flight_bytes, read_format};

/// Why a directory could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Not there, or not readable.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// No data directory.
    #[error("{0}: not a Highwater data directory (no highwater.json)")]
    NotOurs(PathBuf),
    /// Written by a newer release.
    #[error(
        "{dir}: data format {found}, this release knows up to {FORMAT_VERSION}: use a newer highwater"
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What there is, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InspectReport {
    /// Segment files that hold records, or should.
    pub segments: u64,
    /// Sound batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Places where durable data is damaged.
    pub damaged: u64,
    /// Tails that a start will cut because nothing says that they were durable.
    pub torn: u64,
    /// By shard.
    pub shards: Vec<ShardReport>,
    /// Everything found, in words.
    pub findings: Vec<String>,
}

/// One shard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShardReport {
    /// The stream's number.
    pub stream: u32,
    /// The shard's number.
    pub shard: u32,
    /// Its segments.
    pub segments: u64,
    /// Sound batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Oldest sequence number.
    pub oldest: u64,
    /// Sequence number after the last sound record.
    pub end: u64,
    /// What a start would say of it: `sound`, or the damage.
    pub state: String,
}

/// Looks through `dir`.
pub fn inspect(dir: &Path) -> Result<InspectReport, InspectError> {
    match read_format(dir) {
        Some(format) if format > FORMAT_VERSION => {
            return Err(InspectError::NewerFormat { dir: dir.to_owned(), found: format });
        }
        Some(_) => {}
        None => return Err(InspectError::NotOurs(dir.to_owned())),
    }
    let files = OsFiles::open(dir, FilesOptions { allow_buffered: true })?;
    let io = |path: &Path| {
        let path = dir.join(path);
        move |source| InspectError::Io { path, source }
    };
    let checkpoints = Path::new(crate::checkpoint::CHECKPOINT_DIR);
    let claims = Claims::peek(&files).map_err(io(checkpoints))?;
    let mut report = InspectReport::default();
    let shards = files.list(Path::new("shards")).map_err(io(Path::new("shards")))?;
    let mut ids: Vec<ShardId> = shards.iter().filter_map(|name| parse_shard_dir(name)).collect();
    ids.sort();
    for id in ids {
        inspect_shard(&files, id, &claims, &mut report).map_err(io(&shard_dir(id)))?;
    }
    Ok(report)
}

fn inspect_shard(
    files: &OsFiles,
    id: ShardId,
    claims: &Claims,
    report: &mut InspectReport,
) -> io::Result<()> {
    let mut shard = ShardReport { stream: id.stream, shard: id.shard, ..ShardReport::default() };
    // What a start would make of it: where the log ends, and whether durable data is missing there.
    let options = CoreOptions::default();
    let bounds = Bounds {
        in_flight_bytes: in_flight_bytes(&options),
        producers: options.producers,
        read_only: true,
    };
    let (log, found) = recover(files, id, claims, bounds)?;
    let mut problems: Vec<(bool, String)> = found
        .iter()
        .filter(|f| f.case != Case::CleanEnd)
        .map(|f| (f.case.is_damage(), f.text.clone()))
        .collect();
    // A start trusts the seals; here every block is read.
    let numbers: Vec<u64> =
        files.list(&shard_dir(id))?.iter().filter_map(|name| parse_segment(name)).collect();
    let mut previous: Option<(u64, u32)> = None;
    let mut first = true;
    for (i, &number) in numbers.iter().enumerate() {
        let path = segment_path(id, number);
        let Some(header) = read_header(files, id, number)? else {
            // Prepared ahead, or damaged: recovery has said which.
            continue;
        };
        let next = numbers.get(i + 1).map(|&n| read_header(files, id, n)).transpose()?.flatten();
        let mut segment = Segment::unread(number, &header);
        let first_crc = match previous {
            Some((block, crc)) if block + 1 == segment.first_block => crc,
            _ => header.prev_crc.to_native(),
        };
        if std::mem::take(&mut first) {
            shard.oldest = segment.base_sequence;
        }
        let last = next.as_ref().map(|n| n.prev_last_block.to_native());
        let limits = Limits::for_record(highwater_wire::MAX_RECORD_CEILING);
        let (mut batches, mut records, mut bytes, mut bad) = (0, 0, 0, Vec::new());
        let mut producers = Producers::new(options.producers);
        let (mut unpacker, mut inflated) = (Unpacker::default(), Vec::new());
        let found = scan_segment(
            files,
            &path,
            &mut segment,
            first_crc,
            last,
            &mut producers,
            &mut |batch| match check(batch, &limits, &mut unpacker, &mut inflated) {
                Ok(()) => {
                    batches += 1;
                    records += u64::from(batch.record_count());
                    bytes += batch.bytes().len() as u64;
                }
                Err(error) => bad.push(format!("records from {}: {error}", batch.base_sequence())),
            },
        )?;
        problems.extend(bad.into_iter().map(|text| (true, format!("{}: {text}", path.display()))));
        let known = log.segments.iter().find(|s| s.number == number);
        let expected = last.or(known.map(|s| s.last_block)).unwrap_or(segment.last_block);
        let text = format!(
            "{} at byte {}: block {} of {expected} is damaged ({:?}); records {} on",
            path.display(),
            segment.next_offset,
            segment.last_block + 1,
            found.ending,
            segment.end_sequence
        );
        // Recovery reports the place where the log ends; this one lies before it.
        let reported =
            problems.iter().any(|(_, p)| p.contains(&format!("{} at byte", path.display())));
        if segment.last_block < expected && !reported {
            problems.push((true, text));
        }
        previous = (segment.last_block == expected).then_some((segment.last_block, found.prev_crc));
        shard.segments += 1;
        shard.batches += batches;
        shard.records += records;
        shard.end = shard.end.max(segment.end_sequence);
        report.bytes += bytes;
    }
    report.segments += shard.segments;
    report.batches += shard.batches;
    report.records += shard.records;
    report.damaged += problems.iter().filter(|(damage, _)| *damage).count() as u64;
    report.torn += problems.iter().filter(|(damage, _)| !damage).count() as u64;
    shard.state = problems
        .iter()
        .find(|(damage, _)| *damage)
        .map_or("sound".to_owned(), |(_, text)| text.clone());
    report.findings.extend(problems.into_iter().map(|(_, text)| text));
    report.shards.push(shard);
    Ok(())
}

fn read_header(files: &OsFiles, id: ShardId, number: u64) -> io::Result<Option<SegmentHeader>> {
    let path = segment_path(id, number);
    let mut window = Window::pages(files, &path);
    Ok(SegmentHeader::read(window.page(0)?, id, number).copied())
}

/// The door check, of what is inside a compressed batch too.
fn check(
    batch: &BatchView<'_>,
    limits: &Limits,
    unpacker: &mut Unpacker,
    inflated: &mut Vec<u8>,
) -> Result<(), BatchError> {
    if !batch.compressed() {
        return batch.check(limits);
    }
    batch.check_outside(limits)?;
    unpacker.unpack_into(batch, limits.max_batch, inflated)?;
    batch.check_inside(inflated, limits)
}
