//! A seed's history: what clients do, when the machine dies, what is checked.

use std::collections::VecDeque;

use highwater_engine::recovery::Case;
use highwater_engine::{
    AppendError, Chunk, Now, Output, Planted, ReadError, ReadRequest, ReaderId, ShardSpec,
};
use highwater_ring::{Crash, SimOptions, SimWorld};
use highwater_wire::{AckMode, BatchBuilder, BatchIter, ProducerStamp, ShardId};

use crate::checker::{Checker, Identity, entry, payload};
use crate::node::Node;

macro_rules! coverage {
    ($($name:ident),*) => {
        /// What a history met on its way.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub struct Coverage { $( pub $name: u64, )* pub trace: u64 }

        impl Coverage {
            pub fn add(&mut self, other: &Coverage) { $( self.$name += other.$name; )* }

            /// Events that were never met.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $( if self.$name == 0 { missing.push(stringify!($name)); } )*
                missing
            }
        }
    };
}
coverage!(
    crashes,
    power_cuts,
    kills,
    crashes_while_starting,
    clean_stops,
    acked,
    duplicates,
    out_of_sequence,
    lost_in_flight,
    torn_in_flight,
    torn_last,
    disk_full,
    busy,
    trimmed,
    delivered,
    read_again,
    large_batches,
    written_lost
);

/// A batch a client waits for.
struct Sent {
    tag: u64,
    bytes: Vec<u8>,
    first: u64,
    count: u64,
}

/// An idempotent producer with a window, which resends from the first failure.
struct Producer {
    shard: usize,
    id: u64,
    next: u64,
    /// Its own numbering, which goes on when it takes a new id.
    identity: u64,
    first: u64,
    unacked: VecDeque<Sent>,
    resend: bool,
}

struct Shard {
    spec: ShardSpec,
    checker: Checker,
    reader: Option<u64>,
    position: u64,
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
        },
        checker: Checker::default(),
        reader: None,
        position: 0,
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
    fn new_producer(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        let shard = self.random.usize(0..self.shards.len());
        self.producers.push(Producer {
            shard,
            id,
            next: 0,
            identity: id,
            first: 0,
            unacked: VecDeque::new(),
            resend: false,
        });
    }

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
        self.verify(&mut node)?;
        for p in &mut self.producers {
            p.resend = true;
        }
        for shard in &mut self.shards {
            shard.reader = None;
        }
        Ok(Some(node))
    }

    /// Reads every shard from its oldest record to its mark and checks all promises.
    fn verify(&mut self, node: &mut Node) -> Result<(), String> {
        for at in 0..self.shards.len() {
            let id = self.shards[at].spec.id;
            let mut status =
                node.core.status().into_iter().find(|s| s.id == id).ok_or("the shard is gone")?;
            if self.shards[at].spec.ack == AckMode::Written {
                let lost = self.shards[at].checker.forgive_unread(status.high_water);
                self.covered.written_lost += lost as u64;
            }
            let mut log: Vec<(u64, Identity)> = Vec::new();
            let mut from = status.oldest;
            while from < status.high_water {
                let request =
                    ReadRequest { from, max_bytes: 50_000, min_bytes: 1, deadline_ns: u64::MAX };
                node.core.read(self.now, id, request, 0);
                let chunk = match self.wait_for_read(node)? {
                    None => return Ok(()),
                    Some(Ok(chunk)) => chunk,
                    // Retention went on while we read: begin again where the log does.
                    Some(Err(ReadError::Trimmed { oldest, .. })) => {
                        self.covered.trimmed += 1;
                        log.clear();
                        (from, status.oldest) = (oldest, oldest);
                        continue;
                    }
                    Some(Err(error)) => return Err(error.to_string()),
                };
                let before = from;
                for record in records(&chunk) {
                    let (sequence, who) = record?;
                    if sequence >= from {
                        log.push((sequence, who));
                    }
                }
                from = chunk.next;
                if from == before {
                    return Err(format!("reading shard {id} makes no progress at {from}"));
                }
            }
            let (oldest, high_water) = (status.oldest, status.high_water);
            self.shards[at]
                .checker
                .whole_log(oldest, high_water, &log)
                .map_err(|e| format!("shard {id} ({}): {e}", self.shards[at].spec.ack))?;
            self.covered.read_again += log.len() as u64;
        }
        Ok(())
    }

    fn wait_for_read(
        &mut self,
        node: &mut Node,
    ) -> Result<Option<Result<Chunk, ReadError>>, String> {
        for _ in 0..100_000 {
            self.pass(10_000);
            for output in node.poll(self.now) {
                match output {
                    Output::Read { result, .. } => {
                        return Ok(Some(result));
                    }
                    other => self.hear(other)?,
                }
            }
            if self.world.is_halted() {
                return Ok(None);
            }
            self.world.step();
        }
        Err("a read is never answered".into())
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
                0..=44 => self.produce(node),
                45..=49 => self.repeat(node),
                50..=54 => self.subscribe(node)?,
                55 => self.pass(200_000_000),
                _ => {
                    self.world.step();
                }
            }
            for output in node.poll(self.now) {
                self.hear(output)?;
            }
        }
        if last {
            self.settle(node)?;
        }
        Ok(())
    }

    /// Nobody crashes any more: everything sent must be answered.
    fn settle(&mut self, node: &mut Node) -> Result<(), String> {
        self.world.set_quota(1 << 30);
        for _ in 0..200_000 {
            if self.producers.iter().all(|p| p.unacked.is_empty()) {
                return Ok(());
            }
            for at in 0..self.producers.len() {
                self.resend(node, at);
            }
            self.world.step();
            self.pass(100_000);
            for output in node.poll(self.now) {
                self.hear(output)?;
            }
        }
        Err("appends are never answered although nothing fails any more".into())
    }

    fn produce(&mut self, node: &mut Node) {
        let at = self.random.usize(0..self.producers.len());
        if self.producers[at].resend {
            self.resend(node, at);
            return;
        }
        if self.producers[at].unacked.len() >= 6 {
            return;
        }
        let large = self.random.u8(..) < 4;
        self.covered.large_batches += u64::from(large);
        let count = if large { 1 } else { self.random.u64(1..=5) };
        let p = &self.producers[at];
        let (identity, first, next, id) = (p.identity, p.first, p.next, p.id);
        let mut builder = BatchBuilder::default();
        for i in 0..count {
            let len =
                if large { self.random.usize(30_000..90_000) } else { self.random.usize(0..3_000) };
            let _ = builder.push(b"k", &[], &payload((identity, first + i), len), 1);
        }
        let bytes = builder.finish(ProducerStamp { id, epoch: 0, sequence: next }).to_vec();
        let tag = self.next_tag;
        self.next_tag += 1;
        let p = &mut self.producers[at];
        p.next += count;
        p.first += count;
        p.unacked.push_back(Sent { tag, bytes, first, count });
        self.send(node, at, tag);
    }

    fn send(&mut self, node: &mut Node, at: usize, tag: u64) {
        let p = &self.producers[at];
        let Some(sent) = p.unacked.iter().find(|s| s.tag == tag) else { return };
        let shard = self.shards[p.shard].spec.id;
        if let Err(error) = node.core.append(self.now, shard, &sent.bytes, tag) {
            self.refused(at, &error);
        }
    }

    /// Everything unacknowledged again, from the first on, under new tags.
    fn resend(&mut self, node: &mut Node, at: usize) {
        if !std::mem::take(&mut self.producers[at].resend) {
            return;
        }
        let mut tags = Vec::new();
        for sent in &mut self.producers[at].unacked {
            sent.tag = self.next_tag;
            tags.push(self.next_tag);
            self.next_tag += 1;
        }
        for tag in tags {
            self.send(node, at, tag);
        }
    }

    /// A batch sent once more although nothing was wrong: a retry whose original is under way.
    fn repeat(&mut self, node: &mut Node) {
        let at = self.random.usize(0..self.producers.len());
        let p = &self.producers[at];
        let shard = self.shards[p.shard].spec.id;
        if let Some(sent) = p.unacked.front().filter(|_| !p.resend) {
            // Its answer carries a tag nobody waits for, but must still be right.
            let _ = node.core.append(self.now, shard, &sent.bytes, sent.tag | REPEAT);
        }
    }

    fn subscribe(&mut self, node: &mut Node) -> Result<(), String> {
        let at = self.random.usize(0..self.shards.len());
        let number = self.next_tag;
        self.next_tag += 1;
        let shard = &mut self.shards[at];
        if let Some(reader) = shard.reader {
            node.core.credit(self.now, ReaderId(reader), 20_000);
            return Ok(());
        }
        let from = shard.position;
        match node.core.subscribe(self.now, shard.spec.id, from, 20_000, 8_000, ReaderId(number)) {
            Ok(located) => {
                shard.reader = Some(number);
                shard.checker.bounds(located.oldest, located.high_water)
            }
            Err(ReadError::Trimmed { oldest, .. }) => {
                self.covered.trimmed += 1;
                shard.position = oldest;
                Ok(())
            }
            Err(other) => Err(format!("subscribing at {from}: {other}")),
        }
    }

    fn hear(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Appended { tag, result } => self.answered(tag, result),
            Output::Deliver { reader, chunk } => {
                let Some(shard) = self.shards.iter_mut().find(|s| s.reader == Some(reader.0))
                else {
                    return Ok(());
                };
                shard.checker.bounds(chunk.oldest, chunk.high_water)?;
                for slice in &chunk.slices {
                    for batch in BatchIter::new(slice.bytes()) {
                        let batch = batch.map_err(|e| e.to_string())?;
                        let from = shard.position;
                        for record in batch.records().filter(|r| r.sequence >= from) {
                            if record.sequence != shard.position {
                                return Err(format!(
                                    "record {} after {}",
                                    record.sequence, shard.position
                                ));
                            }
                            if record.sequence >= chunk.high_water {
                                return Err(format!(
                                    "record {} above the mark was shown",
                                    record.sequence
                                ));
                            }
                            shard.checker.read(&record)?;
                            shard.position += 1;
                            self.covered.delivered += 1;
                        }
                    }
                }
                Ok(())
            }
            Output::Ended { reader, error } => {
                if let Some(shard) = self.shards.iter_mut().find(|s| s.reader == Some(reader.0)) {
                    shard.reader = None;
                }
                match error {
                    ReadError::Trimmed { .. } | ReadError::Closing => Ok(()),
                    other => Err(format!("a subscription ended: {other}")),
                }
            }
            Output::Read { .. } | Output::Removed { .. } => Ok(()),
        }
    }

    fn answered(
        &mut self,
        tag: u64,
        result: Result<highwater_engine::Appended, AppendError>,
    ) -> Result<(), String> {
        let wanted = tag & !REPEAT;
        let Some(at) =
            self.producers.iter().position(|p| p.unacked.iter().any(|s| s.tag == wanted))
        else {
            return Ok(());
        };
        match result {
            Ok(appended) => {
                let p = &mut self.producers[at];
                let Some(index) = p.unacked.iter().position(|s| s.tag == wanted) else {
                    return Ok(());
                };
                // Acknowledged in order: all before it are stored as well. (A retry of an earlier batch may have
                // been refused for lack of memory, though it is stored, while this one is told as repeated.)
                if index != 0 && tag == wanted && !appended.duplicate {
                    return Err(format!(
                        "batch {index} of a window was acknowledged before the first"
                    ));
                }
                let (first, count, who, shard) =
                    (p.unacked[index].first, p.unacked[index].count, p.identity, p.shard);
                if tag == wanted {
                    p.unacked.remove(index);
                }
                self.covered.acked += 1;
                self.covered.duplicates += u64::from(appended.duplicate);
                self.shards[shard].checker.acked(appended.base_sequence, who, first, count)
            }
            Err(error) => {
                if tag == wanted {
                    self.refused(at, &error);
                }
                Ok(())
            }
        }
    }

    fn refused(&mut self, at: usize, error: &AppendError) {
        let written = self.shards[self.producers[at].shard].spec.ack == AckMode::Written;
        match error {
            AppendError::DiskFull { .. } => self.covered.disk_full += 1,
            AppendError::Busy { .. } => self.covered.busy += 1,
            AppendError::OutOfSequence { .. } => self.covered.out_of_sequence += 1,
            _ => {}
        }
        // The shard forgot the producer, or (a written stream) lost what it had acknowledged: a new id, and
        // the records in doubt are given up, as a client without certainty must.
        let lost = matches!(error, AppendError::OutOfSequence { expected, .. }
            if written && self.producers[at].unacked.front().is_none_or(|s| *expected < sequence_of(s)));
        if lost || matches!(error, AppendError::UnknownProducer { .. } | AppendError::Duplicate(_))
        {
            let p = &mut self.producers[at];
            p.unacked.clear();
            (p.id, p.next) = (self.next_id, 0);
            self.next_id += 1;
            return;
        }
        self.producers[at].resend = true;
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

const REPEAT: u64 = 1 << 62;

fn sequence_of(sent: &Sent) -> u64 {
    highwater_wire::BatchView::parse(&sent.bytes)
        .map_or(0, |b| b.header().producer_sequence.to_native())
}

fn records(chunk: &Chunk) -> Vec<Result<(u64, Identity), String>> {
    let mut all = Vec::new();
    for slice in &chunk.slices {
        for batch in BatchIter::new(slice.bytes()) {
            match batch {
                Ok(batch) => all.extend(batch.records().map(|r| entry(&r))),
                Err(error) => all.push(Err(error.to_string())),
            }
        }
    }
    all
}
