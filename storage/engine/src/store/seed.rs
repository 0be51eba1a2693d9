//! What one core's thread begins with: made where the directory is opened, grown where it is driven.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_ring::{
    BufferPool, Calibration, DirLock, OsFiles, PreparerHandle, UringDisk, UringOptions,
};
use highwater_wire::ShardId;

use super::{OpenError, Store, StoreOptions, doing, specs_of};
use crate::catalogue::{NamedProducer, PositionRecord};
use crate::checkpoint::{self, Claims};
use crate::core::Core;
use crate::options::CoreOptions;
use crate::producers::IdsGiven;
use crate::quota::Quotas;
use crate::recovery::{Bounds, recover};
use crate::routes::Routes;
use crate::shard::ShardLog;
use crate::types::ShardSpec;

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
    pub(super) fn seeds(&mut self, options: &StoreOptions, claims: Claims) -> Vec<CoreSeed> {
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
