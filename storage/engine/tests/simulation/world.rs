//! A seed's history: what clients do, when the machine dies, what is checked.

use std::collections::{HashMap, VecDeque};

use highwater_engine::recovery::Case;
use highwater_engine::{
    AppendError, Appended, Chunk, Now, Output, Parts, Planted, Policy, ReadError, ReadRequest,
    ReaderId, ShardSpec,
};
use highwater_ring::{Crash, SimOptions, SimWorld};
use highwater_wire::{AckMode, Backpressure, BatchIter, BatchView, Compression, ShardId, Unpacker};

use crate::checker::{Checker, Identity, entry};
use crate::clients::{Asked, Producer, Record, Sent, Tally, policy, sequence_of};
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
    written_lost,
    in_part,
    duplicates_in_part,
    faulty,
    dropped,
    dropped_whole,
    sampled_out,
    buffered,
    held_in_time,
    quota_refused,
    compressed,
    conditional,
    mismatched,
    read_throttled
);

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
            partial: self.random.bool(),
            compression: *self.random.choice(&Compression::ALL).unwrap_or(&Compression::None),
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

    /// Reads every shard from its oldest record to its mark and checks all promises.
    fn verify(&mut self, node: &mut Node) -> Result<(), String> {
        for at in 0..self.shards.len() {
            let id = self.shards[at].spec.id;
            let mut status = node.core.status(self.now);
            let mut status = status.drain(..).find(|s| s.id == id).ok_or("the shard is gone")?;
            if self.shards[at].spec.ack == AckMode::Written {
                let lost = self.shards[at].checker.forgive_unread(status.high_water);
                self.covered.written_lost += lost as u64;
            }
            let mut log: Vec<(u64, Identity)> = Vec::new();
            let mut from = status.oldest;
            while from < status.high_water {
                // Usually it waits for quota, sometimes it does not.
                let patient = self.random.u8(..) < 250;
                let deadline_ns = if patient { u64::MAX } else { self.now.mono_ns };
                let request = ReadRequest {
                    from,
                    max_bytes: 50_000,
                    min_bytes: 1,
                    deadline_ns,
                    lease: 0,
                    filtered: false,
                };
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
                    Some(Err(ReadError::Quota { .. })) => {
                        self.covered.read_throttled += 1;
                        continue;
                    }
                    Some(Err(error)) => return Err(error.to_string()),
                };
                let before = from;
                for record in records(&chunk, &mut self.unpacker) {
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

    fn produce(&mut self, node: &mut Node) -> Result<(), String> {
        let at = self.random.usize(0..self.producers.len());
        if self.producers[at].resend {
            return self.resend(node, at);
        }
        if self.producers[at].unacked.len() >= 6 {
            return Ok(());
        }
        let large = self.random.u8(..) < 4;
        self.covered.large_batches += u64::from(large);
        let count = if large { 1 } else { self.random.u64(1..=5) };
        let partial = self.producers[at].partial;
        let records = (0..count).map(|_| Record {
            len: match large {
                true => self.random.usize(30_000..90_000),
                false => self.random.usize(0..3_000),
            },
            faulty: partial && self.random.u8(..) < 5,
        });
        let records = records.collect();
        let tag = self.next_tag;
        self.next_tag += 1;
        let p = &mut self.producers[at];
        let (sequence, first) = (p.next, p.first);
        let mut sent = Sent { tag, bytes: Vec::new(), sequence, first, records };
        sent.build(p.id, p.identity, p.compression);
        p.next += count;
        p.first += count;
        p.unacked.push_back(sent);
        self.send(node, at, tag, tag)
    }

    /// Sends the batch with a tag, under that or another one.
    fn send(&mut self, node: &mut Node, at: usize, of: u64, tag: u64) -> Result<(), String> {
        let p = &self.producers[at];
        let Some(sent) = p.unacked.iter().find(|s| s.tag == of) else { return Ok(()) };
        let shard = &mut self.shards[p.shard];
        let conditional = self.random.u8(..) < 8;
        let mut asked = Asked {
            producer: at,
            shard: p.shard,
            offered: sent.count(),
            identity: p.identity,
            first: sent.first,
            expected: conditional.then(|| node.core.next_sequence(shard.spec.id)).flatten(),
            not_after_ns: None,
        };
        self.covered.conditional += u64::from(conditional);
        let compressed = BatchView::parse(&sent.bytes).is_ok_and(|b| b.compressed());
        self.covered.compressed += u64::from(compressed);
        let terms = asked.terms(p.partial);
        let buffered = |node: &Node| node.core.counters(shard.spec.id).map_or(0, |c| c.buffered);
        let before = buffered(node);
        let taken = node.core.append_on(self.now, shard.spec.id, &sent.bytes, &terms, tag);
        if let Backpressure::DropOldest { age_ms, .. } = shard.spec.policy.backpressure
            && buffered(node) > before
        {
            asked.not_after_ns = Some(self.now.wall_ns + age_ms * 1_000_000);
        }
        shard.tally.offered(asked.offered, &taken);
        match taken {
            Ok(()) => {
                self.asked.insert(tag, asked);
                Ok(())
            }
            Err(error) if of == tag => self.refused(at, &error),
            Err(_) => Ok(()),
        }
    }

    /// Everything unacknowledged again, from the first on, under new tags.
    fn resend(&mut self, node: &mut Node, at: usize) -> Result<(), String> {
        if !std::mem::take(&mut self.producers[at].resend) {
            return Ok(());
        }
        let mut tags = Vec::new();
        for sent in &mut self.producers[at].unacked {
            sent.tag = self.next_tag;
            tags.push(self.next_tag);
            self.next_tag += 1;
        }
        for tag in tags {
            self.send(node, at, tag, tag)?;
        }
        Ok(())
    }

    /// A batch sent once more although nothing was wrong: a retry whose original is under way.
    fn repeat(&mut self, node: &mut Node) -> Result<(), String> {
        let at = self.random.usize(0..self.producers.len());
        let p = &self.producers[at];
        let Some(of) = p.unacked.front().filter(|_| !p.resend).map(|sent| sent.tag) else {
            return Ok(());
        };
        // Its answer carries a tag nobody waits for, but must still be right.
        self.next_tag += 1;
        self.send(node, at, of, self.next_tag - 1)
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
                    let whole = inflated(slice.bytes(), &mut self.unpacker)?;
                    for batch in BatchIter::new(&whole) {
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

    fn answered(&mut self, tag: u64, result: Result<Appended, AppendError>) -> Result<(), String> {
        let asked =
            self.asked.remove(&tag).ok_or(format!("{tag} is answered twice: {result:?}"))?;
        let (at, shard) = (asked.producer, &mut self.shards[asked.shard]);
        shard.tally.answered(asked.offered, &result);
        let wanted = self.producers[at].unacked.iter().position(|s| s.tag == tag);
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => {
                return if wanted.is_some() { self.refused(at, &error) } else { Ok(()) };
            }
        };
        if asked.expected.is_some_and(|e| !appended.duplicate && e != appended.base_sequence) {
            return Err(format!("{appended:?} although {:?} was expected", asked.expected));
        }
        self.covered.held_in_time += u64::from(asked.in_time(&appended)?);
        let (stored, gone) = asked.fates(&appended)?;
        shard.checker.acked(appended.base_sequence, &stored)?;
        if shard.spec.ack == AckMode::Durable {
            shard.checker.gone(&gone)?;
        }
        self.cover(&asked, &appended);
        // Acknowledged in order: all before it are stored as well. (A retry of an earlier batch may have
        // been refused for lack of memory, though it is stored, while this one is told as repeated.)
        let Some(index) = wanted else { return Ok(()) };
        if index != 0 && !appended.duplicate {
            return Err(format!("batch {index} of a window was acknowledged before the first"));
        }
        let p = &mut self.producers[at];
        let decided = u64::from(appended.decided());
        if decided == asked.offered {
            p.unacked.remove(index);
        } else if let Some(sent) = p.unacked.get_mut(index) {
            sent.keep_from(decided);
            sent.build(p.id, p.identity, p.compression);
            p.resend = true;
        }
        Ok(())
    }

    fn cover(&mut self, asked: &Asked, appended: &Appended) {
        let parts = appended.parts.as_ref();
        let count = |of: fn(&Parts) -> u32| parts.map_or(0, |p| u64::from(of(p)));
        let (dropped, sampled_out) = (count(|p| p.dropped), count(|p| p.sampled_out));
        let c = &mut self.covered;
        c.acked += 1;
        c.duplicates += u64::from(appended.duplicate);
        c.in_part += u64::from(u64::from(appended.decided()) < asked.offered);
        c.duplicates_in_part += u64::from(appended.duplicate && parts.is_some());
        c.dropped += dropped;
        c.dropped_whole += u64::from(dropped == asked.offered);
        c.sampled_out += sampled_out;
        let stored = u64::from(appended.record_count);
        c.faulty += u64::from(appended.decided()) - stored - dropped - sampled_out;
    }

    fn refused(&mut self, at: usize, error: &AppendError) -> Result<(), String> {
        let written = self.shards[self.producers[at].shard].spec.ack == AckMode::Written;
        match error {
            AppendError::DiskFull { .. } => self.covered.disk_full += 1,
            AppendError::Busy { .. } => self.covered.busy += 1,
            AppendError::OutOfSequence { .. } => self.covered.out_of_sequence += 1,
            AppendError::Quota { .. } => self.covered.quota_refused += 1,
            AppendError::Expected { .. } => self.covered.mismatched += 1,
            _ => {}
        }
        // The shard forgot the producer, or (a written stream) lost what it had acknowledged: a new id, and
        // the records in doubt are given up, as a client without certainty must.
        let lost = matches!(error, AppendError::OutOfSequence { expected, .. }
            if self.producers[at].unacked.front().is_some_and(|s| *expected < sequence_of(s)));
        if lost && !written {
            return Err(format!("what was decided of producer {at} is forgotten: {error}"));
        }
        let p = &mut self.producers[at];
        if lost || matches!(error, AppendError::UnknownProducer { .. } | AppendError::Duplicate(_))
        {
            p.unacked.clear();
            (p.id, p.next) = (self.next_id, 0);
            self.next_id += 1;
            return Ok(());
        }
        p.resend = true;
        Ok(())
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

/// Batches as readers see them, compressed ones inflated.
fn inflated(batches: &[u8], unpacker: &mut Unpacker) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    for batch in BatchIter::new(batches) {
        let batch = batch.map_err(|e| e.to_string())?;
        if batch.record_count() == 0 {
            return Err("a batch without records was shown".into());
        }
        unpacker.unpack_batch(&batch, 200_000, &mut all).map_err(|e| e.to_string())?;
    }
    Ok(all)
}

fn records(chunk: &Chunk, unpacker: &mut Unpacker) -> Vec<Result<(u64, Identity), String>> {
    let mut all = Vec::new();
    for slice in &chunk.slices {
        match inflated(slice.bytes(), unpacker) {
            Ok(batches) => {
                let batches = BatchIter::new(&batches).flatten();
                all.extend(batches.flat_map(|batch| batch.records().map(|r| entry(&r))));
            }
            Err(error) => all.push(Err(error)),
        }
    }
    all
}
