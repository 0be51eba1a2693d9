//! One incarnation of an engine core on the simulated disk.

use highwater_engine::recovery::{Bounds, Case, Finding, recover};
use highwater_engine::{
    Claims, Core, CoreOptions, Now, Output, Planted, SegmentSizes, ShardSpec, create_checkpoint,
    in_flight_bytes, remove_other_checkpoints,
};
use highwater_ring::{BufferPool, SimDisk, SimWorld};
use highwater_wire::Limits;

/// Small in every respect, so that edges are met all the time.
pub fn options(planted: Planted) -> CoreOptions {
    CoreOptions {
        limits: Limits { max_record: 100_000, max_batch: 120_000 },
        segments: SegmentSizes { min: 64 << 10, max: 256 << 10 },
        depth: 3,
        group_min: 4 << 10,
        group_large: 8 << 10,
        group_max: 24 << 10,
        tail_bytes: 64 << 10,
        waiting_bytes: 128 << 10,
        producers: 8,
        read_bytes: 16 << 10,
        planted,
        ..CoreOptions::default()
    }
}

/// A running core.
pub struct Node {
    pub core: Core<SimDisk>,
    pub findings: Vec<Finding>,
}

impl Node {
    /// Starts on what the world's disk holds. An error is a crash in the middle of starting.
    pub fn start(
        world: &SimWorld,
        epoch: u32,
        specs: &[ShardSpec],
        planted: Planted,
    ) -> Result<Result<Node, String>, std::io::Error> {
        let files = world.files();
        let options = options(planted);
        let claims = Claims::read_all(&files)?;
        let bounds = Bounds {
            in_flight_bytes: in_flight_bytes(&options),
            producers: options.producers,
            read_only: false,
        };
        let (mut shards, mut findings) = (Vec::new(), Vec::new());
        for spec in specs {
            let (log, found) = recover(&files, spec.id, &claims, bounds)?;
            if let Some(damage) = &log.damaged {
                return Ok(Err(format!("a crash passes for damage: {damage}")));
            }
            findings.extend(found);
            shards.push((spec.clone(), log));
        }
        create_checkpoint(&files, epoch, 0, &shards)?;
        remove_other_checkpoints(&files, epoch)?;
        let pool = BufferPool::new(4 << 20, 4 << 20)?;
        let core =
            Core::new(0, epoch, world.disk(), pool, options, u64::from(epoch) * 7919, shards);
        Ok(Ok(Node { core, findings }))
    }

    pub fn found(&self, case: Case) -> u64 {
        self.findings.iter().filter(|f| f.case == case).count() as u64
    }

    pub fn poll(&mut self, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.core.poll(now, &mut out);
        out
    }
}
