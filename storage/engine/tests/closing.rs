//! Shards that a split or merge closes, on the simulated disk: what they still answer, where they end, and what
//! a crash in the middle leaves (the table in `shard/close.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "shared with the simulation, which uses all of it")]
mod node;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;

use highwater_engine::{
    AppendError, CoreCommand, Now, Output, Planted, ReadError, ReadRequest, ReaderId, ShardSpec,
};
use highwater_ring::{Crash, SimOptions, SimWorld};
use highwater_wire::{AckMode, BatchBuilder, BatchIter, ProducerStamp, ShardId};
use node::Node;

const SHARD: ShardId = ShardId { stream: 1, shard: 0 };
const PRODUCER: u64 = 77;

struct Machine {
    world: SimWorld,
    now: Now,
    epoch: u32,
    spec: ShardSpec,
}

fn batch(sequence: u64, len: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    builder.push(b"k", &[], &vec![sequence as u8; len], 1).unwrap();
    builder.finish(ProducerStamp { id: PRODUCER, epoch: 0, sequence }).to_vec()
}

fn once(from: u64, min_bytes: usize, deadline_ns: u64) -> ReadRequest {
    ReadRequest { from, max_bytes: 1 << 20, min_bytes, deadline_ns, lease: 0, filtered: false }
}

impl Machine {
    fn new(seed: u64, ack: AckMode) -> Machine {
        Machine {
            world: SimWorld::new(seed, SimOptions::default()),
            now: Now { mono_ns: 1, wall_ns: 1_700_000_000_000_000_000 },
            epoch: 0,
            spec: ShardSpec { id: SHARD, stream: "s".into(), ack, ..ShardSpec::default() },
        }
    }

    fn start(&mut self) -> Node {
        self.epoch += 1;
        let specs = [self.spec.clone()];
        Node::start(&self.world, self.epoch, &specs, Planted::default()).unwrap().unwrap()
    }

    fn turn(&mut self, node: &mut Node) -> Vec<Output> {
        self.now.mono_ns += 50_000;
        self.now.wall_ns += 50_000;
        let said = node.poll(self.now);
        self.world.step();
        said
    }

    fn run(&mut self, node: &mut Node, turns: usize) -> Vec<Output> {
        (0..turns).flat_map(|_| self.turn(node)).collect()
    }

    /// As the control plane does it: durable first (here the spec of the next start), then the core.
    fn close(&mut self, node: &mut Node) {
        self.spec.closed = true;
        node.core.close_shard(self.now, SHARD);
    }

    /// Payloads' first bytes from the oldest record to the end, and how the reading ended.
    fn read_to_the_end(&mut self, node: &mut Node) -> (Vec<u8>, ReadError) {
        let (mut read, mut from) = (Vec::new(), 0);
        loop {
            node.core.read(self.now, SHARD, once(from, 1, u64::MAX), 9);
            let result = loop {
                let said = self.turn(node);
                let found = said.into_iter().find_map(|output| match output {
                    Output::Read { tag: 9, result } => Some(result),
                    _ => None,
                });
                if let Some(result) = found {
                    break result;
                }
            };
            match result {
                Ok(chunk) => {
                    for slice in &chunk.slices {
                        for batch in BatchIter::new(slice.bytes()) {
                            let batch = batch.unwrap();
                            let records = batch.records().filter(|r| r.sequence >= from);
                            read.extend(records.map(|r| r.payload[0]));
                        }
                    }
                    from = chunk.next;
                }
                Err(error) => return (read, error),
            }
        }
    }
}

fn appended(outputs: Vec<Output>) -> BTreeMap<u64, Result<bool, AppendError>> {
    let answers = outputs.into_iter().filter_map(|output| match output {
        Output::Appended { tag, result } => Some((tag, result.map(|a| a.duplicate))),
        _ => None,
    });
    answers.collect()
}

#[test]
fn a_closed_shard_answers_retries_and_sends_the_rest_to_its_children() {
    let mut m = Machine::new(1, AckMode::Durable);
    let mut node = m.start();
    node.core.append(m.now, SHARD, &batch(0, 100), 1).unwrap();
    m.run(&mut node, 100);
    m.close(&mut node);
    m.run(&mut node, 100);
    for restarted in [false, true] {
        if restarted {
            m.world.crash(Crash::PowerCut);
            node = m.start();
        }
        let status = &node.core.status(m.now)[0];
        assert_eq!((status.state.as_str(), status.closed, status.high_water), ("closed", true, 1));
        node.core.append(m.now, SHARD, &batch(0, 100), 2).unwrap();
        let answers = appended(m.run(&mut node, 20));
        assert_eq!(answers[&2], Ok(true), "stored, and told so");
        let next = node.core.append(m.now, SHARD, &batch(1, 100), 3);
        assert_eq!(next, Err(AppendError::ShardClosed(SHARD)));
        let (read, end) = m.read_to_the_end(&mut node);
        assert_eq!((read, end), (vec![0], ReadError::ShardEnded { shard: SHARD, end: 1 }));
    }
}

#[test]
fn readers_who_wait_are_told_the_end() {
    let mut m = Machine::new(2, AckMode::Durable);
    let mut node = m.start();
    node.core.subscribe(m.now, SHARD, 0, 1 << 20, 1 << 20, ReaderId(1)).unwrap();
    node.core.append(m.now, SHARD, &batch(0, 100), 1).unwrap();
    m.run(&mut node, 100);
    // One waits for records, one for more than there will ever be, one has no credit left.
    node.core.read(m.now, SHARD, once(1, 1, u64::MAX), 2);
    node.core.read(m.now, SHARD, once(0, 1 << 20, u64::MAX), 3);
    node.core.subscribe(m.now, SHARD, 1, 0, 1 << 20, ReaderId(4)).unwrap();
    m.run(&mut node, 10);
    let (done, wait) = channel();
    node.core.command(m.now, CoreCommand::CloseShard { shard: SHARD, done });
    let said = m.run(&mut node, 100);
    assert_eq!(wait.try_recv().unwrap().high_water, 1);
    let ended = ReadError::ShardEnded { shard: SHARD, end: 1 };
    let mut told = Vec::new();
    for output in said {
        match output {
            Output::Ended { reader, error } => told.push((reader.0, Err(error))),
            Output::Read { tag, result } => told.push((tag, result.map(|c| c.records))),
            _ => {}
        }
    }
    told.sort_by_key(|(tag, _)| *tag);
    let end = || Err(ended.clone());
    assert_eq!(told, [(1, end()), (2, end()), (3, Ok(1)), (4, end())]);
    // Whoever comes later, too: at the end it is the end, behind it an error as ever.
    let located = node.core.subscribe(m.now, SHARD, 1, 1, 1, ReaderId(5)).unwrap();
    assert_eq!(located.high_water, 1);
    let said = m.run(&mut node, 5);
    assert!(said.iter().any(|o| matches!(o, Output::Ended { reader: ReaderId(5), .. })));
    let beyond = node.core.subscribe(m.now, SHARD, 2, 1, 1, ReaderId(6));
    assert_eq!(beyond, Err(ReadError::BeyondEnd { from: 2, high_water: 1 }));
}

#[test]
fn whenever_it_crashes_a_closed_shard_has_what_it_acknowledged_and_keeps_the_end_it_told() {
    let (mut before_the_end, mut after, mut retried) = (0, 0, 0);
    for seed in 0..300 {
        let ack = if seed % 4 == 0 { AckMode::Written } else { AckMode::Durable };
        let mut m = Machine::new(seed, ack);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut node = m.start();
        let mut answers = BTreeMap::new();
        let sent = random.u64(1..40);
        for sequence in 0..sent {
            let len = random.usize(1..9_000);
            // Whatever is refused for memory is refused in order: the rest is as well.
            let _ = node.core.append(m.now, SHARD, &batch(sequence, len), sequence);
            let turns = random.usize(0..3);
            answers.extend(appended(m.run(&mut node, turns)));
        }
        let mark = node.core.status(m.now)[0].high_water;
        let (done, wait) = channel();
        m.spec.closed = true;
        node.core.command(m.now, CoreCommand::CloseShard { shard: SHARD, done });
        let turns = random.usize(0..14);
        answers.extend(appended(m.run(&mut node, turns)));
        let told = wait.try_recv().ok().map(|status| status.high_water);
        before_the_end += u32::from(told.is_none());
        after += u32::from(told.is_some());
        drop(node);
        m.world.crash(if random.bool() { Crash::PowerCut } else { Crash::ProcessKill });

        let mut node = m.start();
        let (read, error) = m.read_to_the_end(&mut node);
        let ReadError::ShardEnded { end, .. } = error else { panic!("seed {seed}: {error}") };
        assert_eq!(read.len() as u64, end, "seed {seed}");
        assert!(end >= mark, "seed {seed}: what was readable is");
        assert!(told.is_none_or(|told| told == end), "seed {seed}: told {told:?}, now {end}");
        let in_order = (0..end).map(|sequence| sequence as u8);
        assert!(read.iter().copied().eq(in_order), "seed {seed}");
        for (&sequence, answer) in &answers {
            match answer {
                Ok(_) if ack == AckMode::Durable => assert!(sequence < end, "seed {seed}"),
                Ok(_) => {}
                Err(AppendError::ShardClosed(_)) => assert!(sequence >= end, "seed {seed}"),
                Err(_) => {}
            }
        }
        // Every batch is either stored here or belongs to a child, and a retry tells which.
        for sequence in 0..sent {
            // With the same content: the length matters to nobody but the producer.
            match node.core.append(m.now, SHARD, &batch(sequence, 1), 1000 + sequence) {
                Ok(()) => {
                    let told = appended(m.run(&mut node, 5));
                    assert_eq!(told[&(1000 + sequence)], Ok(true), "seed {seed}");
                    retried += 1;
                    assert!(sequence < end, "seed {seed}");
                }
                // Longer ago than is remembered: stored, too.
                Err(AppendError::Duplicate(_)) => assert!(sequence < end, "seed {seed}"),
                Err(AppendError::ShardClosed(_)) => assert!(sequence >= end, "seed {seed}"),
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
    }
    assert!(
        before_the_end > 20 && after > 20 && retried > 1000,
        "{before_the_end} {after} {retried}"
    );
}

#[test]
fn a_trim_is_seen_at_once_and_kept() {
    let mut m = Machine::new(3, AckMode::Durable);
    let mut node = m.start();
    for sequence in 0..30 {
        node.core.append(m.now, SHARD, &batch(sequence, 8_000), sequence).unwrap();
        m.run(&mut node, 60);
    }
    let stored = node.core.status(m.now)[0].stored_bytes;
    node.core.subscribe(m.now, SHARD, 2, 0, 1, ReaderId(1)).unwrap();
    m.spec.trimmed = 25;
    node.core.respec(m.now, m.spec.clone());
    let said = m.run(&mut node, 100);
    let trimmed = ReadError::Trimmed { from: 2, oldest: 25 };
    assert!(said.iter().any(|o| matches!(o, Output::Ended { error, .. } if *error == trimmed)));
    for restarted in [false, true] {
        if restarted {
            drop(node);
            m.world.crash(Crash::PowerCut);
            node = m.start();
        }
        let status = &node.core.status(m.now)[0];
        assert_eq!((status.oldest, status.high_water), (25, 30));
        assert!(status.stored_bytes < stored, "whole segments went");
        node.core.read(m.now, SHARD, once(24, 1, 0), 5);
        let said = m.run(&mut node, 5);
        let refused = ReadError::Trimmed { from: 24, oldest: 25 };
        assert!(said.iter().any(
            |o| matches!(o, Output::Read { tag: 5, result: Err(error) } if *error == refused)
        ));
    }
    // Everything: the numbers go on all the same.
    m.spec.trimmed = 30;
    node.core.respec(m.now, m.spec.clone());
    node.core.append(m.now, SHARD, &batch(30, 100), 100).unwrap();
    m.run(&mut node, 100);
    let status = &node.core.status(m.now)[0];
    assert_eq!((status.oldest, status.high_water), (30, 31));
}

#[test]
fn a_named_producers_older_epoch_is_refused_where_the_newer_one_has_not_been() {
    let mut m = Machine::new(4, AckMode::Durable);
    let mut node = m.start();
    node.core.fence(PRODUCER, 3);
    node.core.fence(PRODUCER, 2);
    let refused = node.core.append(m.now, SHARD, &batch(0, 100), 1);
    assert_eq!(refused, Err(AppendError::Fenced { current: 3, got: 0 }));
}

#[test]
fn a_full_disk_refuses_what_is_new_but_not_what_is_known() {
    let mut m = Machine::new(5, AckMode::Durable);
    let mut node = m.start();
    node.core.append(m.now, SHARD, &batch(0, 100), 1).unwrap();
    m.run(&mut node, 100);
    node.core.command(m.now, CoreCommand::DiskLow(true));
    let refused = node.core.append(m.now, SHARD, &batch(1, 100), 2);
    assert!(matches!(refused, Err(AppendError::DiskFull { .. })), "{refused:?}");
    node.core.append(m.now, SHARD, &batch(0, 100), 3).unwrap();
    node.core.command(m.now, CoreCommand::DiskLow(false));
    node.core.append(m.now, SHARD, &batch(1, 100), 4).unwrap();
    let answers = appended(m.run(&mut node, 100));
    assert_eq!((answers[&3].clone(), answers[&4].clone()), (Ok(true), Ok(false)));
}
