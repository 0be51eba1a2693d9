//! A data directory: its lock, its format version, its calibration, its control database, its preparer; and
//! one seed for each core that will serve part of it.

mod identity;
mod options;
mod seed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_ring::{
    Calibration, CalibrationError, DirLock, Files, FilesError, FilesOptions, LockError, OsFiles,
    PoolStatus, PreparerHandle, PreparerOptions, UringError, spawn_preparer,
};
use highwater_wire::{ShardId, StreamConfig};

use crate::catalogue::{
    Catalogue, CatalogueError, KeptDeliveries, NamedProducer, PositionRecord, StreamRecord,
};
use crate::checkpoint::{self, Claims};
use crate::format::{parse_shard_dir, shard_dir};
use crate::layout::ShardRecord;
use crate::producers::IdsGiven;
use crate::quota::Quotas;
use crate::routes::Routes;
use crate::types::{Policy, ShardSpec};
use crate::watermark::reserve_of;
use identity::IDENTITY;
pub(crate) use identity::read_format;
pub use options::StoreOptions;
pub use seed::{CoreSeed, in_flight_bytes};

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or its file system.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Written by a newer release.
    #[error("{dir}: data format {found}, this release knows up to {known}: use a newer highwater")]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Not a data directory, but not empty either.
    #[error("{dir}: not empty, and not a Highwater data directory (no {IDENTITY}); choose another")]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The identity file does not parse.
    #[error("{file}: {reason}")]
    Identity {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The way to durability could not be measured.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The control database.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] UringError),
    /// Something else on the way.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// An option out of its range.
    #[error("{field} is {value}; {limit}")]
    Option {
        /// Which.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        limit: &'static str,
    },
}

/// An open data directory.
pub struct Store {
    files: OsFiles,
    calibration: Calibration,
    catalogue: Arc<Mutex<Catalogue>>,
    streams: Vec<(String, StreamRecord)>,
    positions: Vec<PositionRecord>,
    deliveries: KeptDeliveries,
    fences: Arc<[NamedProducer]>,
    ids_given: Arc<IdsGiven>,
    routes: Routes,
    epoch: u32,
    notes: Arc<Mutex<Vec<String>>>,
    preparer: PreparerHandle,
    quotas: Arc<Quotas>,
    reserve_bytes: u64,
    smallest_segment: u64,
    held_bytes: u64,
    /// Whether a core could not write its checkpoint: then those of earlier starts are still needed.
    keep_checkpoints: Arc<AtomicBool>,
    _lock: Arc<DirLock>,
}

impl Store {
    /// Opens (or makes) a data directory and takes its lock. Returns a seed for each of `options.cores`.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Store, Vec<CoreSeed>), OpenError> {
        options::check(&options)?;
        let files = OsFiles::open(dir, FilesOptions { allow_buffered: options.allow_buffered })?;
        let lock = Arc::new(files.open_lock()?);
        identity::identify(dir, &files)?;
        let calibration = identity::calibration(dir, &options)?;
        let notes = Vec::from_iter(weakness(dir, &files, &calibration));
        let catalogue = Catalogue::open(&dir.join("control.redb"))?;
        let epoch = catalogue.epoch();
        let streams: Vec<_> = catalogue.streams()?.into_iter().collect();
        let positions = catalogue.positions()?;
        let deliveries = catalogue.deliveries()?;
        let fences = catalogue.named_producers()?.into();
        let ids_given = catalogue.ids_given();
        let quotas = Arc::new(Quotas::default());
        for kept in catalogue.client_quotas()? {
            quotas.set_client(&kept.client, &kept.quota);
        }
        let mut routes = Routes::new(options.cores.len());
        for (_, record) in &streams {
            for kept in &record.shards {
                routes.place(ShardId { stream: record.id, shard: kept.shard }, kept.home);
            }
        }
        let reserve_bytes = reserve(&files, &options)?;
        let preparer_options = PreparerOptions {
            max_bytes: options.prepared_bytes,
            reserve_bytes,
            // Every stream begins with it: the first records shall not be the slow ones.
            prepare: vec![options.core.segments.min],
            ..PreparerOptions::default()
        };
        let preparer =
            spawn_preparer(files.clone(), preparer_options).map_err(doing("preparing segments"))?;
        let claims = Claims::read_all(&files).map_err(doing("reading checkpoints"))?;
        remove_orphans(&files, &streams).map_err(doing("removing shards that are no more"))?;
        let notes = Arc::new(Mutex::new(notes));
        let mut store = Store {
            files,
            calibration,
            catalogue: Arc::new(Mutex::new(catalogue)),
            streams,
            positions,
            deliveries,
            fences,
            ids_given,
            routes,
            epoch,
            notes,
            preparer,
            quotas,
            reserve_bytes,
            smallest_segment: options.core.segments.min,
            held_bytes: options.core.held_bytes as u64,
            keep_checkpoints: Arc::default(),
            _lock: lock,
        };
        let seeds = store.seeds(&options, claims);
        Ok((store, seeds))
    }

    /// The meters that cores share: of streams, and of clients by name.
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// To be called when every seed has been built: what only the start needed is removed.
    pub fn started(&self) -> io::Result<()> {
        if self.keep_checkpoints.load(Ordering::Acquire) {
            return Ok(());
        }
        checkpoint::remove_others(&self.files, self.epoch)
    }

    /// Number of this start.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How writes are made durable, in words.
    pub fn durability(&self) -> String {
        let c = &self.calibration;
        let cache = c.write_cache.as_deref().unwrap_or("unknown");
        format!(
            "{} (16 KiB: dsync {} us, write+flush {} us; {}, write cache {cache}, fua {})",
            c.durability.name(),
            c.dsync_p50_us,
            c.flush_p50_us,
            self.files.filesystem(),
            c.fua.as_deref().unwrap_or("unknown"),
        )
    }

    /// Whether acknowledged records survive a power cut: false on a file system in memory.
    pub fn durable(&self) -> bool {
        !self.calibration.volatile_fs
    }

    /// What an operator should know, from the start until now.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        warnings
            .extend(self.preparer.status().last_error.map(|e| format!("preparing segments: {e}")));
        warnings
    }

    /// Free and total bytes of the file system.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        self.files.space()
    }

    /// Bytes of it that no segment may take.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Bytes of the smallest segment.
    pub fn smallest_segment(&self) -> u64 {
        self.smallest_segment
    }

    /// Bytes of batches that backpressure may hold back on one core, over all of its shards.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The pool of prepared segment files.
    pub fn pool(&self) -> PoolStatus {
        self.preparer.status()
    }

    /// The files, for those who watch space.
    pub fn files(&self) -> &OsFiles {
        &self.files
    }

    pub(crate) fn catalogue(&self) -> Arc<Mutex<Catalogue>> {
        self.catalogue.clone()
    }

    pub(crate) fn streams(&self) -> &[(String, StreamRecord)] {
        &self.streams
    }

    pub(crate) fn positions(&self) -> &[PositionRecord] {
        &self.positions
    }

    pub(crate) fn deliveries(&self) -> &KeptDeliveries {
        &self.deliveries
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }
}

/// The shards of a stream. Those that are open share what it may keep.
pub(crate) fn specs_of(name: &str, record: &StreamRecord) -> Vec<ShardSpec> {
    let open = record.shards.iter().filter(|s| !s.closed).count() as u64;
    let share = match record.config.retention_bytes {
        0 => 0,
        // Less than a byte would mean no bound.
        bytes => (bytes / open.max(1)).max(1),
    };
    let spec = |kept: &ShardRecord| ShardSpec {
        id: ShardId { stream: record.id, shard: kept.shard },
        stream: name.to_owned(),
        ack: record.config.ack,
        retention_ms: record.config.retention_ms,
        retention_bytes: share,
        trimmed: kept.trimmed,
        closed: kept.closed,
        policy: policy_of(&record.config),
    };
    record.shards.iter().map(spec).collect()
}

/// What each shard of a stream lets pass, and what becomes of the rest.
pub(crate) fn policy_of(config: &StreamConfig) -> Policy {
    Policy {
        quota: config.quota,
        stream_quota: config.stream_quota,
        backpressure: config.backpressure,
    }
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> OpenError {
    let doing = what.to_owned();
    move |source| OpenError::Io { doing, source }
}

/// Why what is acknowledged may not survive, or is slower to.
fn weakness(dir: &Path, files: &OsFiles, calibration: &Calibration) -> Option<String> {
    let dir = dir.display();
    if calibration.volatile_fs {
        let kind = files.filesystem();
        Some(format!("NOT DURABLE: {dir} is on {kind}, which keeps data in memory only"))
    } else if !calibration.direct {
        Some(format!("{dir} takes no O_DIRECT: writes are buffered and flushed"))
    } else {
        None
    }
}

/// Bytes of the file system that no segment may take.
fn reserve(files: &OsFiles, options: &StoreOptions) -> Result<u64, OpenError> {
    // Where the file system does not say how large it is, it has to refuse by itself.
    let total = files.space().map_or(0, |(_, total)| total);
    let reserve_bytes = options.reserve_bytes.unwrap_or_else(|| reserve_of(total));
    if total > 0 && reserve_bytes >= total {
        return Err(OpenError::Option {
            field: "reserve_bytes",
            value: format!("{reserve_bytes}, of a file system of {total} bytes"),
            limit: "with all of it kept in reserve nothing could be stored",
        });
    }
    Ok(reserve_bytes)
}

/// Shards that the catalogue does not know (any more) go.
fn remove_orphans(files: &OsFiles, streams: &[(String, StreamRecord)]) -> io::Result<()> {
    for name in files.list(Path::new("shards"))? {
        if let Some(id) = parse_shard_dir(&name)
            && !streams.iter().any(|(_, r)| r.id == id.stream && r.shard(id.shard).is_some())
        {
            files.remove_dir(&shard_dir(id))?;
        }
    }
    Ok(())
}
