//! A data directory: its lock, its format version, its calibration, its control database, its preparer; and
//! one seed for each core that will serve part of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_ring::{
    BufferPool, Calibration, CalibrationError, DirLock, Files, FilesError, FilesOptions, LockError,
    OsFiles, PoolStatus, PreparerHandle, PreparerOptions, UringDisk, UringError, UringOptions,
    calibrate, spawn_preparer,
};
use highwater_wire::{ShardId, StreamConfig};
use serde::{Deserialize, Serialize};

use crate::catalogue::{
    Catalogue, CatalogueError, KeptDeliveries, NamedProducer, PositionRecord, StreamRecord,
};
use crate::checkpoint::{self, Claims};
use crate::core::Core;
use crate::format::{FORMAT_VERSION, parse_shard_dir, shard_dir};
use crate::layout::ShardRecord;
use crate::options::CoreOptions;
use crate::producers::IdsGiven;
use crate::quota::Quotas;
use crate::recovery::{Bounds, recover};
use crate::routes::Routes;
use crate::shard::ShardLog;
use crate::types::{Policy, ShardSpec};
use crate::watermark::reserve_of;

/// Names the format version; the first file written, the last to be trusted.
const IDENTITY: &str = "highwater.json";
const CALIBRATION: &str = "calibration.txt";

/// How a data directory is used.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// CPUs, one core thread each.
    pub cores: Vec<usize>,
    /// Registered buffer memory of each core, in bytes.
    pub pool_bytes: usize,
    /// Memory of each core for batches larger than 1 MiB, in bytes.
    pub large_bytes: usize,
    /// What shards obey.
    pub core: CoreOptions,
    /// Bytes of prepared segment files to keep ready.
    pub prepared_bytes: u64,
    /// Bytes of the file system that no segment may take; `None` for [`reserve_of`] its size.
    pub reserve_bytes: Option<u64>,
    /// Use a file system without O_DIRECT (labelled).
    pub allow_buffered: bool,
    /// Measure the way to durability again although it is remembered.
    pub calibrate_again: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cores: vec![0],
            pool_bytes: 32 << 20,
            large_bytes: 64 << 20,
            core: CoreOptions::default(),
            prepared_bytes: 1 << 30,
            reserve_bytes: None,
            allow_buffered: false,
            calibrate_again: false,
        }
    }
}

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

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    created_by: String,
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
    /// Whether a core could not write its checkpoint: then those of earlier starts are still needed.
    keep_checkpoints: Arc<AtomicBool>,
    _lock: Arc<DirLock>,
}

/// What one core's thread needs to begin.
pub struct CoreSeed {
    /// Its number.
    pub core: usize,
    /// The CPU it is meant for.
    pub cpu: usize,
    files: OsFiles,
    preparer: PreparerHandle,
    options: StoreOptions,
    calibration: Calibration,
    claims: Arc<Claims>,
    shards: Vec<ShardSpec>,
    positions: Vec<PositionRecord>,
    fences: Arc<[NamedProducer]>,
    ids_given: Arc<IdsGiven>,
    routes: Routes,
    epoch: u32,
    notes: Arc<Mutex<Vec<String>>>,
    quotas: Arc<Quotas>,
    keep_checkpoints: Arc<AtomicBool>,
    _lock: Arc<DirLock>,
}

impl Store {
    /// Opens (or makes) a data directory and takes its lock. Returns a seed for each of `options.cores`.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Store, Vec<CoreSeed>), OpenError> {
        check(&options)?;
        let files = OsFiles::open(dir, FilesOptions { allow_buffered: options.allow_buffered })?;
        let lock = Arc::new(files.open_lock()?);
        identify(dir, &files)?;
        let mut notes = Vec::new();
        let calibration = calibration(dir, &options)?;
        if calibration.volatile_fs {
            notes.push(format!(
                "NOT DURABLE: {} is on {}, which keeps data in memory only",
                dir.display(),
                files.filesystem()
            ));
        } else if !calibration.direct {
            notes.push(format!(
                "{} takes no O_DIRECT: writes are buffered and flushed",
                dir.display()
            ));
        }
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
        let preparer_options = PreparerOptions {
            max_bytes: options.prepared_bytes,
            reserve_bytes,
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

    fn seeds(&mut self, options: &StoreOptions, claims: Claims) -> Vec<CoreSeed> {
        let claims = Arc::new(claims);
        let specs: Vec<ShardSpec> =
            self.streams.iter().flat_map(|(name, r)| specs_of(name, r)).collect();
        let seed = |(core, &cpu): (usize, &usize)| CoreSeed {
            core,
            cpu,
            files: self.files.clone(),
            preparer: self.preparer.clone(),
            options: options.clone(),
            calibration: self.calibration.clone(),
            claims: claims.clone(),
            shards: specs.iter().filter(|s| self.routes.core_of(s.id) == core).cloned().collect(),
            positions: self.positions.clone(),
            fences: self.fences.clone(),
            ids_given: self.ids_given.clone(),
            routes: self.routes.clone(),
            epoch: self.epoch,
            notes: self.notes.clone(),
            quotas: self.quotas.clone(),
            keep_checkpoints: self.keep_checkpoints.clone(),
            _lock: self._lock.clone(),
        };
        options.cores.iter().enumerate().map(seed).collect()
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

impl CoreSeed {
    /// Makes the core, on the thread that will drive it (pinned before, so that memory is near): its
    /// buffers, its ring, and its shards as recovery finds them.
    pub fn build(self) -> Result<Core<UringDisk>, OpenError> {
        let pool = BufferPool::new(self.options.pool_bytes, self.options.large_bytes)
            .map_err(doing("mapping buffer memory"))?;
        let ring =
            UringOptions { durability: self.calibration.durability, ..UringOptions::default() };
        let disk = UringDisk::new(&pool, Some(self.preparer.clone()), ring)?;
        let options = self.options.core;
        let bounds = Bounds {
            in_flight_bytes: in_flight_bytes(&options),
            producers: options.producers,
            read_only: false,
        };
        let mut notes: Vec<String> =
            disk.warnings().iter().map(|w| format!("core {}: {w}", self.core)).collect();
        let mut shards = Vec::new();
        for spec in self.shards {
            let what = format!("recovering shard {} of stream {:?}", spec.id.shard, spec.stream);
            // What cannot be read stops its shard, not the others.
            let (log, findings) = recover(&self.files, spec.id, &self.claims, bounds)
                .unwrap_or_else(|error| {
                    let damaged = Some(format!("{what}: {error}"));
                    let claimed = self.claims.of(spec.id);
                    let log = ShardLog { damaged, claimed, ..ShardLog::empty(options.producers) };
                    (log, Vec::new())
                });
            notes.extend(
                findings.iter().map(|f| {
                    format!("stream {:?} shard {}: {}", spec.stream, spec.id.shard, f.text)
                }),
            );
            shards.push((spec, log));
        }
        match checkpoint::create(&self.files, self.epoch, self.core, &shards) {
            Ok(()) => {}
            // A full disk must not keep the core from serving what there is.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.keep_checkpoints.store(true, Ordering::Release);
                notes.push(format!(
                    "core {}: the file system is full, no checkpoint could be written: damage of the very last group could pass for a torn tail",
                    self.core
                ));
            }
            Err(error) => return Err(doing("making a checkpoint")(error)),
        }
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
        let seed = fastrand::u64(..);
        let mut core = Core::new(self.core, self.epoch, disk, pool, options, seed, shards);
        core.share_quotas(&self.quotas);
        core.set_routes(self.routes);
        core.know_producers(self.ids_given);
        for producer in self.fences.iter() {
            core.fence(producer.id, producer.epoch);
        }
        for (group, stream, shard, sequence) in self.positions {
            core.set_position(ShardId { stream, shard }, &group, Some(sequence));
        }
        Ok(core)
    }
}

/// How far behind a bad block groups in flight with it may lie.
pub fn in_flight_bytes(options: &CoreOptions) -> u64 {
    let largest = options.group_max.max(options.limits.max_batch as usize + 4096) as u64;
    (options.depth as u64 + 1) * largest + (1 << 20)
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

fn check(options: &StoreOptions) -> Result<(), OpenError> {
    let refuse = |field, value: String, limit| Err(OpenError::Option { field, value, limit });
    if options.cores.is_empty() {
        return refuse("cores", "empty".into(), "at least one CPU is needed");
    }
    if options.pool_bytes < 4 << 20 {
        return refuse(
            "pool_bytes",
            options.pool_bytes.to_string(),
            "at least 4 MiB per core are needed",
        );
    }
    let sizes = options.core.segments;
    if sizes.min < 64 << 10
        || sizes.max < sizes.min
        || !sizes.min.is_multiple_of(4096)
        || !sizes.max.is_multiple_of(4096)
    {
        let value = format!("{} to {}", sizes.min, sizes.max);
        return refuse(
            "segments",
            value,
            "sizes are multiples of 4 KiB, at least 64 KiB, min at most max",
        );
    }
    if !(1..=64).contains(&options.core.depth) {
        return refuse("depth", options.core.depth.to_string(), "1 to 64 groups may be in flight");
    }
    Ok(())
}

/// The format version a data directory says it has; `None` if it is not one.
pub(crate) fn read_format(dir: &Path) -> Option<u32> {
    let text = std::fs::read(dir.join(IDENTITY)).ok()?;
    serde_json::from_slice::<Identity>(&text).ok().map(|identity| identity.format)
}

fn identify(dir: &Path, files: &OsFiles) -> Result<(), OpenError> {
    let path = dir.join(IDENTITY);
    match std::fs::read(&path) {
        Ok(text) => {
            let identity: Identity = serde_json::from_slice(&text)
                .map_err(|e| OpenError::Identity { file: path.clone(), reason: e.to_string() })?;
            match identity.format {
                FORMAT_VERSION => Ok(()),
                // An older release must not read what is written from here on.
                older if older < FORMAT_VERSION => identify_as_ours(files, &path),
                found => {
                    let (dir, known) = (dir.to_owned(), FORMAT_VERSION);
                    Err(OpenError::NewerFormat { dir, found, known })
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let others = files.list(Path::new("")).map_err(doing("listing the data directory"))?;
            // Hidden files are leavings of a first start that was cut short, or nobody's data.
            let ours = ["LOCK", "lost+found", "highwater.part", CALIBRATION];
            if others.iter().any(|name| !name.starts_with('.') && !ours.contains(&name.as_str())) {
                return Err(OpenError::NotOurs { dir: dir.to_owned() });
            }
            identify_as_ours(files, &path)
        }
        Err(source) => Err(OpenError::Io { doing: format!("reading {}", path.display()), source }),
    }
}

fn identify_as_ours(files: &OsFiles, path: &Path) -> Result<(), OpenError> {
    let identity = Identity {
        format: FORMAT_VERSION,
        created_by: concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = serde_json::to_string_pretty(&identity).unwrap_or_default();
    write_durably(files, path, text.as_bytes())
        .map_err(doing("writing the identity of the directory"))
}

/// A small file beside the data: written, synced, renamed into place.
fn write_durably(files: &OsFiles, path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let part = path.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let relative = |p: &Path| p.strip_prefix(files.root()).unwrap_or(p).to_path_buf();
    files.rename(&relative(&part), &relative(path))
}

/// Measured once per device, and remembered beside the data.
fn calibration(dir: &Path, options: &StoreOptions) -> Result<Calibration, OpenError> {
    let path = dir.join(CALIBRATION);
    let remembered =
        std::fs::read_to_string(&path).ok().and_then(|t| Calibration::from_text(&t)).filter(|c| {
            !options.calibrate_again
                && highwater_ring::device_of(dir).is_ok_and(|device| device == c.device)
        });
    if let Some(calibration) = remembered {
        return Ok(calibration);
    }
    let calibration = calibrate(dir)?;
    // Not worth failing for: it would only be measured again.
    let _ = std::fs::write(&path, calibration.to_text());
    Ok(calibration)
}

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
