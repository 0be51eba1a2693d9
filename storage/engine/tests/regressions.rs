//! Bugs that were, each test named for what it broke; on the simulated disk, driven by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "shared with the simulation, which uses all of it")]
mod node;

use std::collections::BTreeSet;
use std::path::Path;

use highwater_engine::recovery::{Bounds, recover};
use highwater_engine::{
    Claims, Core, CoreOptions, Now, Output, Planted, ReadError, ReadRequest, ReaderId, ShardSpec,
    Start, create_checkpoint, in_flight_bytes,
};
use highwater_ring::{BufferPool, Crash, Disk, Files, SimOptions, SimWorld};
use highwater_wire::{AckMode, BatchBuilder, ProducerStamp, ShardId};
use node::{Node, options};

const SHARD: ShardId = ShardId { stream: 1, shard: 0 };

/// A simulated machine with one shard.
struct Machine {
    world: SimWorld,
    now: Now,
    epoch: u32,
    /// Fetches of the oldest record that are under way.
    rereading: usize,
}

fn spec() -> ShardSpec {
    let (stream, ack) = ("s".to_owned(), AckMode::Durable);
    ShardSpec { id: SHARD, stream, ack, ..ShardSpec::default() }
}

fn batch(len: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    builder.push(b"k", &[], &vec![7; len], 1).unwrap();
    builder.finish(ProducerStamp::default()).to_vec()
}

fn read(from: u64, min_bytes: usize, deadline_ns: u64) -> ReadRequest {
    ReadRequest { from, max_bytes: 1 << 20, min_bytes, deadline_ns, lease: 0, filtered: false }
}

fn acknowledged(said: &[Output]) -> usize {
    said.iter().filter(|o| matches!(o, Output::Appended { result: Ok(_), .. })).count()
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let now = Now { mono_ns: 1, wall_ns: 1_700_000_000_000_000_000 };
        Machine { world: SimWorld::new(seed, SimOptions::default()), now, epoch: 0, rereading: 0 }
    }

    fn try_start(&mut self) -> Result<Node, String> {
        self.epoch += 1;
        Node::start(&self.world, self.epoch, &[spec()], Planted::default()).unwrap()
    }

    fn start(&mut self) -> Node {
        self.try_start().unwrap()
    }

    /// A node whose memory the test can pin.
    fn start_with(&mut self, pool: BufferPool) -> Node {
        self.start_on(pool, options(Planted::default()))
    }

    fn start_on(&mut self, pool: BufferPool, options: CoreOptions) -> Node {
        self.epoch += 1;
        let files = self.world.files();
        let claims = Claims::read_all(&files).unwrap();
        let in_flight_bytes = in_flight_bytes(&options);
        let bounds = Bounds { in_flight_bytes, producers: 8, read_only: false };
        let (log, findings) = recover(&files, SHARD, &claims, bounds).unwrap();
        let shards = vec![(spec(), log)];
        create_checkpoint(&files, self.epoch, 0, &shards).unwrap();
        let core = Core::new(0, self.epoch, self.world.disk(), pool, options, 1, shards);
        Node { core, findings }
    }

    fn run(&mut self, node: &mut Node, turns: usize) -> Vec<Output> {
        let mut all = Vec::new();
        for _ in 0..turns {
            self.now.mono_ns += 10_000;
            self.now.wall_ns += 10_000;
            all.extend(node.poll(self.now));
            self.world.step();
        }
        all.extend(node.poll(self.now));
        all
    }

    fn put(&mut self, node: &mut Node, len: usize) -> Vec<Output> {
        node.core.append(self.now, SHARD, &batch(len), 1).unwrap();
        self.run(node, 100)
    }

    /// A batch, and eight that share a block.
    fn put_a_block_of_eight(&mut self, node: &mut Node) {
        self.put(node, 100); // its segment is there now
        (2..10).for_each(|tag| node.core.append(self.now, SHARD, &batch(1_500), tag).unwrap());
        self.run(node, 100);
    }

    /// As [`Machine::run`], with four who fetch the oldest record, and again as soon as they are answered: at any time some
    /// of them are reading. What else is said, and how many answers they had.
    fn run_reread(&mut self, node: &mut Node, turns: usize, ns: u64) -> (Vec<Output>, usize) {
        let (mut all, mut answers) = (Vec::new(), 0);
        for _ in 0..turns {
            while self.rereading < 4 {
                self.rereading += 1;
                let oldest = node.core.locate(SHARD, Start::Oldest).unwrap().sequence;
                node.core.read(self.now, SHARD, read(oldest, 1, u64::MAX), 1 << 32);
            }
            self.now.mono_ns += ns;
            self.now.wall_ns += ns;
            self.world.step();
            for output in node.poll(self.now) {
                match output {
                    Output::Read { result: Ok(_) | Err(ReadError::Trimmed { .. }), .. } => {
                        (self.rereading, answers) = (self.rereading - 1, answers + 1);
                    }
                    other => all.push(other),
                }
            }
        }
        (all, answers)
    }

    /// Polls only when the core asks for it, for `span` of virtual time; how often that was, and what it said.
    fn only_when_asked(
        &mut self,
        node: &mut Node,
        span_ns: u64,
        step: bool,
    ) -> (usize, Vec<Output>) {
        let (mut polls, mut said) = (0, Vec::new());
        let end = self.now.mono_ns + span_ns;
        while self.now.mono_ns < end && polls < 1_000_000 {
            if step {
                self.world.run_until_idle();
            }
            said.extend(node.poll(self.now));
            polls += 1;
            let soon = self.now.mono_ns + 20_000;
            // A completion wakes the core as well.
            let completion = step && node.core.disk().in_flight() > 0;
            let asked = node.core.next_wake().unwrap();
            self.now.mono_ns = if completion { soon } else { soon.max(asked) };
        }
        (polls, said)
    }
}

#[test]
fn a_kill_after_a_clean_stop_made_an_unflushed_block_count_as_durable() {
    for seed in 0..300 {
        let mut m = Machine::new(seed);
        let mut node = m.start();
        m.put(&mut node, 100);
        node.core.begin_stop();
        while !node.core.stopped() {
            m.run(&mut node, 1);
        }
        m.world.crash(Crash::PowerCut);
        let mut node = m.start();
        m.run(&mut node, 50);
        node.core.append(m.now, SHARD, &batch(100), 2).unwrap();
        for _ in 0..200 {
            m.now.mono_ns += 1_000;
            node.poll(m.now);
            if node.core.disk().in_flight() >= 2 {
                break;
            }
            m.world.step();
        }
        m.world.crash(Crash::ProcessKill);
        let now = m.now;
        let shown = m.start().core.status(now)[0].high_water;
        m.world.crash(Crash::PowerCut);
        let node = m.try_start().unwrap_or_else(|damage| panic!("seed {seed}: {damage}"));
        assert!(node.core.status(m.now)[0].high_water >= shown, "seed {seed}: the mark went back");
    }
}

#[test]
fn a_long_poll_for_more_than_there_is_read_the_disk_again_and_again() {
    let mut m = Machine::new(1);
    let mut node = m.start();
    m.put(&mut node, 100);
    m.world.crash(Crash::ProcessKill);
    let mut node = m.start();
    m.run(&mut node, 100);
    let before = m.world.ops();
    node.core.read(m.now, SHARD, read(0, 1 << 20, m.now.mono_ns + 10_000_000_000), 9);
    assert!(m.run(&mut node, 2_000).is_empty());
    assert!(m.world.ops() - before < 20, "{} operations", m.world.ops() - before);
    let (_, said) = m.only_when_asked(&mut node, 11_000_000_000, true);
    let answer = said.iter().find_map(|o| match o {
        Output::Read { tag: 9, result } => Some(result.as_ref().unwrap().records),
        _ => None,
    });
    assert_eq!(answer, Some(1));
}

#[test]
fn readers_without_memory_kept_the_core_spinning_and_were_never_answered() {
    let mut m = Machine::new(2);
    let mut node = m.start();
    (0..3).for_each(|_| drop(m.put(&mut node, 60_000)));
    m.world.crash(Crash::ProcessKill);
    let pool = BufferPool::new(4 << 20, 4 << 20).unwrap();
    // All of the region, and the half of the large buffers that reads may have.
    let pinned: Vec<_> =
        [1 << 20; 4].into_iter().chain([2 << 20]).map(|len| pool.take(len).unwrap()).collect();
    let mut node = m.start_with(pool);
    m.run(&mut node, 200);
    node.core.subscribe(m.now, SHARD, 0, 1 << 20, 1 << 16, ReaderId(1)).unwrap();
    node.core.read(m.now, SHARD, read(0, 1, m.now.mono_ns + 100_000_000), 9);
    let (polls, said) = m.only_when_asked(&mut node, 10_000_000_000, true);
    assert!(polls < 10_000, "{polls} polls in 10 s");
    let busy = |o: &Output| matches!(o, Output::Read { result: Err(ReadError::Busy { .. }), .. });
    assert_eq!(said.iter().filter(|o| busy(o)).count(), 1);
    // With memory back the subscription goes on by itself.
    drop(pinned);
    let (_, said) = m.only_when_asked(&mut node, 100_000_000, true);
    assert!(said.iter().any(|o| matches!(o, Output::Deliver { .. })));
}

#[test]
fn a_fetch_that_waited_for_a_file_to_be_opened_kept_the_core_spinning() {
    let mut m = Machine::new(3);
    let mut node = m.start();
    m.put(&mut node, 100);
    m.world.crash(Crash::ProcessKill);
    let mut node = m.start();
    m.run(&mut node, 300);
    node.core.read(m.now, SHARD, read(0, 1, m.now.mono_ns), 9);
    // The preparer is busy elsewhere: the world stands still.
    let (polls, _) = m.only_when_asked(&mut node, 1_000_000_000, false);
    assert!(polls < 100, "{polls} polls in 1 s");
}

#[test]
fn what_a_failed_request_for_a_segment_left_barred_its_number_for_good() {
    let mut m = Machine::new(6);
    let mut node = m.start();
    m.run(&mut node, 50);
    m.world.files().create_dir(Path::new("shards/1-0")).unwrap();
    m.world.files().create(Path::new("shards/1-0/000000000000.seg"), 65536, false).unwrap();
    assert_eq!(acknowledged(&m.put(&mut node, 100)), 1);
}

#[test]
fn readers_that_came_while_a_shard_was_being_removed_were_never_answered() {
    let mut m = Machine::new(5);
    let mut node = m.start();
    m.put(&mut node, 100);
    m.run(&mut node, 3_000);
    node.core.remove_shard(SHARD, 77);
    node.core.read(m.now, SHARD, read(1, 1, m.now.mono_ns + 1_000_000_000), 9);
    assert_eq!(
        node.core.subscribe(m.now, SHARD, 1, 1_000, 1_000, ReaderId(5)).unwrap_err(),
        ReadError::Closing
    );
    let said = m.run(&mut node, 3_000);
    assert!(
        said.iter().any(|o| matches!(o, Output::Read { tag: 9, result: Err(ReadError::Closing) }))
    );
    assert!(said.iter().any(|o| matches!(o, Output::Removed { tag: 77, result: Ok(()) })));
}

#[test]
fn a_batch_that_waited_for_memory_was_placed_a_second_late() {
    let mut m = Machine::new(2);
    let pool = BufferPool::new(4 << 20, 4 << 20).unwrap();
    let mut node = m.start_with(pool.clone());
    m.run(&mut node, 300);
    node.core.append(m.now, SHARD, &batch(100), 1).unwrap(); // waits for its segment
    let pinned: Vec<_> = (0..4).map(|_| pool.take(1 << 20).unwrap()).collect();
    m.run(&mut node, 200);
    drop(pinned);
    let (_, said) = m.only_when_asked(&mut node, 20_000_000, true);
    assert_eq!(acknowledged(&said), 1);
}

#[test]
fn a_reader_with_little_credit_read_its_block_again_for_every_batch() {
    let mut m = Machine::new(7);
    let mut node = m.start();
    m.put_a_block_of_eight(&mut node);
    m.world.crash(Crash::ProcessKill);
    let mut node = m.start();
    m.run(&mut node, 100);
    let records = |said: Vec<Output>| {
        said.iter()
            .map(|o| if let Output::Deliver { chunk, .. } = o { chunk.records } else { 0 })
            .sum::<u64>()
    };
    node.core.subscribe(m.now, SHARD, 1, 1, 1 << 16, ReaderId(1)).unwrap();
    assert_eq!(records(m.run(&mut node, 100)), 1, "a batch, however little credit");
    let before = m.world.ops();
    for _ in 0..7 {
        node.core.credit(m.now, ReaderId(1), 1);
        assert_eq!(records(m.run(&mut node, 20)), 1);
    }
    assert_eq!(m.world.ops(), before, "the block was read");
}

#[test]
fn what_was_read_before_it_was_written_counted_as_damage() {
    for seed in 0..40 {
        let mut m = Machine::new(seed);
        // Hardly anything is kept in memory: a reader just behind the mark reads from disk what is about to be written.
        let options = CoreOptions { tail_bytes: 1, ..options(Planted::default()) };
        let mut node = m.start_on(BufferPool::new(4 << 20, 4 << 20).unwrap(), options);
        m.put(&mut node, 100);
        let reader = ReaderId(1);
        node.core.subscribe(m.now, SHARD, 0, 1, 1 << 16, reader).unwrap();
        let (mut records, mut ended) = (0, None);
        for turn in 0..900 {
            if turn % 4 == 0 {
                node.core.credit(m.now, reader, 1);
            }
            if turn % 3 == 0 && turn < 300 {
                node.core.append(m.now, SHARD, &batch(1_000), 1).unwrap();
            }
            for said in m.run(&mut node, 1 + turn % 4) {
                match said {
                    Output::Deliver { chunk, .. } => records += chunk.records,
                    Output::Ended { error, .. } => ended = Some(error),
                    _ => {}
                }
            }
        }
        assert_eq!(ended, None, "seed {seed}");
        assert_eq!(records, 101, "seed {seed}");
    }
}

#[test]
fn a_row_of_single_reads_gets_everything_once_and_in_order() {
    let mut m = Machine::new(8);
    let mut node = m.start();
    (0..60).for_each(|_| drop(m.put(&mut node, 3_000)));
    m.world.crash(Crash::ProcessKill);
    let mut node = m.start();
    m.run(&mut node, 100);
    let mut next = 0;
    for tag in 10.. {
        node.core.read(m.now, SHARD, ReadRequest { max_bytes: 10_000, ..read(next, 0, 0) }, tag);
        let said = m.run(&mut node, 60);
        let chunk = said.iter().find_map(|o| match o {
            Output::Read { result, .. } => Some(result.as_ref().unwrap()),
            _ => None,
        });
        let chunk = chunk.unwrap();
        assert_eq!(chunk.next, next + chunk.records, "none is left out, none comes again");
        next = chunk.next;
        if chunk.records == 0 {
            break;
        }
    }
    assert_eq!(next, 60);
}

#[test]
fn records_before_a_damaged_block_were_not_delivered() {
    for credit in [1, 1 << 20] {
        let mut m = Machine::new(9);
        let mut node = m.start();
        (0..8).for_each(|_| drop(m.put(&mut node, 3_000)));
        m.world.crash(Crash::ProcessKill);
        let mut node = m.start();
        m.run(&mut node, 100);
        // A page for the segment's header and one for each block: in the fourth.
        let path = Path::new("shards/1-0/000000000000.seg");
        m.world.flip(path, 4 * 4096 + 200, 1).unwrap();
        node.core.subscribe(m.now, SHARD, 0, credit, 1 << 16, ReaderId(1)).unwrap();
        let (mut next, mut ended) = (0, None);
        for _ in 0..10 {
            for said in m.run(&mut node, 50) {
                match said {
                    Output::Deliver { chunk, .. } => next = chunk.next,
                    Output::Ended { error, .. } => ended = Some(error),
                    _ => {}
                }
            }
            node.core.credit(m.now, ReaderId(1), 1);
        }
        assert_eq!(next, 3, "credit {credit}");
        assert!(matches!(ended, Some(ReadError::Damaged { .. })), "credit {credit}: {ended:?}");
    }
}

#[test]
fn readers_of_the_oldest_segment_kept_it_and_with_it_the_appends() {
    for seed in 0..5 {
        let mut m = Machine::new(seed);
        // Nothing of it is in memory.
        let options = CoreOptions { tail_bytes: 1, ..options(Planted::default()) };
        let mut node = m.start_on(BufferPool::new(4 << 20, 4 << 20).unwrap(), options);
        node.core.respec(m.now, ShardSpec { retention_bytes: 256 << 10, ..spec() });
        m.put(&mut node, 10_000);
        let (mut stored, mut answers) = (0, 0);
        for put in 0..160 {
            // The last turns are for what is under way.
            if put < 150 {
                node.core.append(m.now, SHARD, &batch(10_000), 1).unwrap();
            }
            let (said, more) = m.run_reread(&mut node, 40, 10_000);
            answers += more;
            stored += acknowledged(&said);
        }
        let status = &node.core.status(m.now)[0];
        assert_eq!(stored, 150, "seed {seed}: {status:?}");
        assert!(status.oldest > 100, "seed {seed}: {status:?}");
        assert!(status.stored_bytes <= (256 + 2 * 64) << 10, "seed {seed}: {status:?}");
        assert!(answers > 1_000, "seed {seed}: the readers had {answers} answers");
    }
}

#[test]
fn readers_of_the_oldest_segment_kept_it_beyond_its_age() {
    let mut m = Machine::new(3);
    let options = CoreOptions { tail_bytes: 1, ..options(Planted::default()) };
    let mut node = m.start_on(BufferPool::new(4 << 20, 4 << 20).unwrap(), options);
    (0..20).for_each(|_| drop(m.put(&mut node, 10_000)));
    node.core.respec(m.now, ShardSpec { retention_ms: 1_000, ..spec() });
    // While nobody waits for the room, readers may read it to its end.
    let (_, answers) = m.run_reread(&mut node, 500, 10_000_000);
    assert!(answers > 200, "the readers had {answers} answers");
    assert_eq!(node.core.status(m.now)[0].oldest, 0);
    m.run_reread(&mut node, 1_500, 10_000_000);
    assert!(node.core.status(m.now)[0].oldest > 0);
}

#[test]
fn what_is_kept_for_live_consumers_ended_reading_ahead() {
    let mut m = Machine::new(4);
    // As a server has it: half of the pool.
    let options = CoreOptions { tail_bytes: 2 << 20, ..options(Planted::default()) };
    let pool = BufferPool::new(4 << 20, 4 << 20).unwrap();
    let mut node = m.start_on(pool.clone(), options);
    (0..60).for_each(|_| drop(m.put(&mut node, 20_000)));
    assert_eq!(pool.region_used(), 2 << 20);
    let fetch = |from| ReadRequest { max_bytes: 50_000, ..read(from, 0, 0) };
    let next = |said: Vec<Output>| {
        said.iter().find_map(|o| match o {
            Output::Read { result, .. } => Some(result.as_ref().unwrap().next),
            _ => None,
        })
    };
    node.core.read(m.now, SHARD, fetch(5), 9);
    assert_eq!(next(node.poll(m.now)), None, "it is on disk");
    let from = next(m.run(&mut node, 60)).unwrap();
    // The next one has come meanwhile.
    node.core.read(m.now, SHARD, fetch(from), 9);
    assert!(next(node.poll(m.now)).is_some_and(|next| next > from));
}

#[test]
fn a_reader_that_had_starved_kept_the_core_spinning_for_good() {
    let mut m = Machine::new(7);
    let mut node = m.start();
    m.put_a_block_of_eight(&mut node);
    m.world.crash(Crash::ProcessKill);
    let pool = BufferPool::new(4 << 20, 4 << 20).unwrap();
    // All but one read of 16 KiB.
    let _pinned: Vec<_> = [1 << 20; 4]
        .into_iter()
        .chain([(2 << 20) - (16 << 10)])
        .map(|len| pool.take(len).unwrap())
        .collect();
    let mut node = m.start_with(pool);
    m.run(&mut node, 100);
    let delivered =
        |said: &[Output]| said.iter().filter(|o| matches!(o, Output::Deliver { .. })).count();
    node.core.subscribe(m.now, SHARD, 0, 1, 1 << 16, ReaderId(1)).unwrap();
    m.run(&mut node, 20); // the file is open
    node.core.subscribe(m.now, SHARD, 1, 1, 1 << 16, ReaderId(2)).unwrap();
    // It finds no memory, and then what the other one kept.
    node.core.subscribe(m.now, SHARD, 2, 1, 1 << 16, ReaderId(3)).unwrap();
    assert_eq!(delivered(&m.run(&mut node, 20)), 2);
    let (polls, _) = m.only_when_asked(&mut node, 10_000_000_000, true);
    assert!(polls < 1_000, "{polls} polls in 10 s");
}

#[test]
fn shards_made_while_a_core_ran_had_no_place_in_its_checkpoint() {
    let mut m = Machine::new(12);
    let mut node = m.start();
    // A slot for one shard has room for 1,151.
    let id = |shard| ShardId { stream: 2, shard };
    let mut stored = 0;
    for shard in 0..1_200 {
        node.core.add_shard(ShardSpec { id: id(shard), ..spec() });
        node.core.append(m.now, id(shard), &batch(100), 1).unwrap();
        // All that is under way at once would be too much.
        while shard % 100 == 99 && stored <= shard {
            stored += acknowledged(&m.run(&mut node, 10)) as u32;
        }
    }
    m.now.mono_ns += 200_000_000;
    m.run(&mut node, 200);
    drop(node);
    m.world.crash(Crash::PowerCut);
    let claims = Claims::read_all(&m.world.files()).unwrap();
    let missing = (0..1_200).filter(|shard| claims.of(id(*shard)).is_none_or(|c| c.block == 0));
    assert_eq!(missing.count(), 0);
}

#[test]
fn fetches_of_a_connection_that_was_gone_waited_on() {
    let mut m = Machine::new(9);
    let mut node = m.start();
    m.put(&mut node, 100);
    let long = m.now.mono_ns + 60_000_000_000;
    // At the end, for more than there is, and of somebody else.
    node.core.read(m.now, SHARD, read(1, 1, long), 10);
    node.core.read(m.now, SHARD, read(0, 1 << 20, long), 11);
    node.core.read(m.now, SHARD, read(1, 1, long), 12);
    assert!(m.run(&mut node, 10).is_empty());
    let answers = |said: Vec<Output>| {
        let records = |o| match o {
            Output::Read { tag, result } => (tag, result.unwrap().records),
            other => panic!("{other:?}"),
        };
        said.into_iter().map(records).collect::<Vec<_>>()
    };
    node.core.hurry(m.now, SHARD, &BTreeSet::from([10, 11, 99]));
    assert_eq!(answers(node.poll(m.now)), [(10, 0), (11, 1)]);
    node.core.hurry(m.now, SHARD, &BTreeSet::from([10, 11]));
    assert!(m.run(&mut node, 10).is_empty());
    node.core.append(m.now, SHARD, &batch(100), 1).unwrap();
    let said = m.run(&mut node, 100).into_iter();
    let said = said.filter(|o| matches!(o, Output::Read { .. })).collect();
    assert_eq!(answers(said), [(12, 1)]);
}
