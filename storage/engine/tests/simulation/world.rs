//! A seed's history: what clients do, when the machine dies, what is checked.

mod coverage;
mod producing;
mod reading;

use std::collections::HashMap;

use highwater_engine::recovery::Case;
use highwater_engine::{Now, Output, Planted, Policy, ShardSpec};
use highwater_ring::{Crash, SimOptions, SimWorld};
use highwater_wire::{AckMode, ShardId, Unpacker};

use crate::checker::Checker;
use crate::clients::{Asked, Producer, Tally, policy};
use crate::node::Node;
pub use coverage::Coverage;

struct Shard {
    spec: ShardSpec,
    checker: Checker,
    reader: Option<u64>,
    position: u64,
    tally: Tally,
}

pub struct History {
    world: SimWorld,
    random: fastrand::Rng,
    planted: Planted,
    now: Now,
    epoch: u32,
    shards: Vec<Shard>,
    producers: Vec<Producer>,
    next_id: u64,
    next_tag: u64,
    asked: HashMap<u64, Asked>,
    unpacker: Unpacker,
    covered: Coverage,
}

/// Lives through one seed. `Err` names the broken promise.
pub fn run(seed: u64, planted: Planted) -> Result<Coverage, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let quota_bytes = if random.u8(..) < 40 { 900 << 10 } else { 1 << 30 };
    let world = SimWorld::new(seed, SimOptions { quota_bytes, ..SimOptions::default() });
    let shards = (0..random.u32(1..=3)).map(|shard| Shard {
        spec: ShardSpec {
            id: ShardId { stream: 1 + shard, shard: 0 },
            stream: format!("s{shard}"),
            ack: if random.u8(..) < 70 { AckMode::Written } else { AckMode::Durable },
            retention_ms: 0,
            retention_bytes: if random.u8(..) < 60 { 300 << 10 } else { 0 },
            policy: policy(&mut random),
            ..ShardSpec::default()
        },
        checker: Checker::default(),
        reader: None,
        position: 0,
        tally: Tally::default(),
    });
    let mut history = History {
        shards: shards.collect(),
        world,
        planted,
        now: Now { mono_ns: 0, wall_ns: 1_700_000_000_000_000_000 },
        epoch: 0,
        producers: Vec::new(),
        next_id: 1,
        next_tag: 1,
        asked: HashMap::new(),
        unpacker: Unpacker::default(),
        covered: Coverage::default(),
        random,
    };
    for _ in 0..history.random.usize(1..=4) {
        history.new_producer();
    }
    history.live()?;
    history.covered.trace = history.world.trace_hash();
    Ok(history.covered)
}

impl History {
    fn live(&mut self) -> Result<(), String> {
        let lives = self.random.usize(2..=5);
        for life in 0..lives {
            // The last life is not cut short: it has to answer everything.
            let last = life + 1 == lives;
            if !last {
                let within = *self.random.choice(&[30, 200, 1000]).unwrap_or(&200);
                self.world.crash_after(self.random.u64(1..within));
            }
            let Some(mut node) = self.start()? else { continue };
            self.serve(&mut node, last)?;
            if self.world.is_halted() {
                self.crash();
            } else {
                self.finish(node, last)?;
            }
        }
        // And once more, to see that what the last life said is kept.
        if let Some(mut node) = self.start()? {
            self.verify(&mut node)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Option<Node>, String> {
        self.epoch += 1;
        let specs: Vec<ShardSpec> = self.shards.iter().map(|s| s.spec.clone()).collect();
        let started = Node::start(&self.world, self.epoch, &specs, self.planted);
        let mut node = match started {
            Ok(node) => node?,
            Err(_) if self.world.is_halted() => {
                self.covered.crashes_while_starting += 1;
                self.crash();
                return Ok(None);
            }
            // A full disk: make room, as an operator would.
            Err(_) => {
                self.world.set_quota(1 << 30);
                // This incarnation is over, and so is the crash that was meant for it.
                self.world.crash_after(u64::MAX);
                self.crash();
                return Ok(None);
            }
        };
        self.covered.lost_in_flight += node.found(Case::LostInFlight);
        self.covered.torn_in_flight += node.found(Case::TornInFlight);
        self.covered.torn_last += node.found(Case::TornLast);
        self.asked.clear();
        for p in &mut self.producers {
            p.resend = true;
        }
        for shard in &mut self.shards {
            shard.reader = None;
            shard.tally = Tally::default();
        }
        self.verify(&mut node)?;
        Ok(Some(node))
    }

    fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.wall_ns += ns;
    }

    /// Random work until the machine dies or enough has been done.
    fn serve(&mut self, node: &mut Node, last: bool) -> Result<(), String> {
        let turns = self.random.usize(50..400);
        for _ in 0..turns {
            if self.world.is_halted() {
                return Ok(());
            }
            let ns = self.random.u64(100..400_000);
            self.pass(ns);
            match self.random.u8(..100) {
                0..=44 => self.produce(node)?,
                45..=49 => self.repeat(node)?,
                50..=54 => self.subscribe(node)?,
                55 => self.pass(200_000_000),
                _ => {
                    self.world.step();
                }
            }
            for output in node.poll(self.now) {
                self.hear(output)?;
            }
            self.compare(node)?;
        }
        if last {
            self.settle(node)?;
        }
        Ok(())
    }

    /// Nobody crashes any more: everything sent must be answered.
    fn settle(&mut self, node: &mut Node) -> Result<(), String> {
        self.world.set_quota(1 << 30);
        if self.random.bool() {
            // Lifted while batches are held; the strategy stays, so that retries are told the same.
            for shard in &mut self.shards {
                let backpressure = shard.spec.policy.backpressure;
                shard.spec.policy = Policy { backpressure, ..Policy::default() };
                node.core.set_policy(shard.spec.id, shard.spec.policy);
            }
            self.asked.values_mut().for_each(|asked| asked.not_after_ns = None);
        }
        for _ in 0..200_000 {
            if self.producers.iter().all(|p| p.unacked.is_empty()) && self.asked.is_empty() {
                return self.compare(node);
            }
            for at in 0..self.producers.len() {
                // Not as fast as they can.
                if self.random.u8(..) < 20 {
                    self.resend(node, at)?;
                }
            }
            self.world.step();
            self.pass(100_000);
            for output in node.poll(self.now) {
                self.hear(output)?;
            }
        }
        Err("appends are never answered although nothing fails any more".into())
    }

    /// What clients counted, and what the shards did.
    fn compare(&mut self, node: &Node) -> Result<(), String> {
        for shard in &self.shards {
            let said = node.core.counters(shard.spec.id).ok_or("the shard is gone")?;
            shard.tally.agrees(&said).map_err(|e| format!("{:?}: {e}", shard.spec.policy))?;
            self.covered.buffered = self.covered.buffered.max(said.buffered);
        }
        Ok(())
    }

    fn hear(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Appended { tag, result } => self.answered(tag, result),
            Output::Deliver { reader, chunk } => self.delivered(reader, &chunk),
            Output::Ended { reader, error } => self.ended(reader, &error),
            Output::Read { .. } | Output::Removed { .. } => Ok(()),
        }
    }

    fn crash(&mut self) {
        let kind = if self.random.bool() { Crash::PowerCut } else { Crash::ProcessKill };
        self.covered.crashes += 1;
        match kind {
            Crash::PowerCut => self.covered.power_cuts += 1,
            Crash::ProcessKill => self.covered.kills += 1,
        }
        self.world.crash(kind);
    }

    /// The end of a life that did not crash: a clean stop, or a kill after all.
    fn finish(&mut self, mut node: Node, last: bool) -> Result<(), String> {
        self.world.crash_after(u64::MAX);
        if !last && self.random.bool() {
            self.crash();
            return Ok(());
        }
        node.core.begin_stop();
        for _ in 0..200_000 {
            self.pass(100_000);
            for output in node.poll(self.now) {
                self.hear(output)?;
            }
            if node.core.stopped() {
                self.covered.clean_stops += 1;
                drop(node);
                self.world.crash(Crash::PowerCut);
                return Ok(());
            }
            self.world.step();
        }
        Err("the core does not stop".into())
    }
}
