//! Quotas and the five kinds of backpressure on one shard of the simulated disk, driven by hand: what is offered and
//! what becomes of it adds up, the rate holds, and what is wrong gets its typed answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "shared with the simulation, which uses all of it")]
mod node;

use highwater_engine::{
    AppendError, AppendTerms, Appended, Now, Output, Planted, Policy, ReadError, ReadRequest,
    ReaderId, ShardSpec, Start,
};
use highwater_ring::{Crash, SimOptions, SimWorld};
use highwater_wire::{
    Backpressure, BatchBuilder, BatchError, BatchHeader, BatchIter, Compression, ErrorCode, Packer,
    ProducerStamp, Quota, SampleBy, ShardCounters, ShardId, crc32c,
};
use node::Node;

const SHARD: ShardId = ShardId { stream: 1, shard: 0 };

/// Records of a batch, and its bytes.
const RECORDS: u64 = 10;

/// A simulated machine with one shard.
struct Machine {
    world: SimWorld,
    now: Now,
    policy: Policy,
    epoch: u32,
    sequence: u64,
    answers: Vec<(u64, Result<Appended, AppendError>)>,
    delivered: Vec<(u64, usize)>,
}

fn records_a_second(records_in: u64, backpressure: Backpressure) -> Policy {
    let quota = Quota { records_in, burst_ms: 100, ..Quota::default() };
    Policy { quota, backpressure, ..Policy::default() }
}

fn partial() -> AppendTerms {
    AppendTerms { partial: true, tell: true, ..AppendTerms::default() }
}

fn batch(stamp: ProducerStamp, records: u64, len: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    for i in 0..records {
        let key = format!("key-{}", stamp.sequence + i);
        builder.push(key.as_bytes(), &[], &vec![7; len], i).unwrap();
    }
    builder.finish(stamp).to_vec()
}

impl Machine {
    fn new(policy: Policy) -> Machine {
        Machine {
            world: SimWorld::new(1, SimOptions::default()),
            now: Now { mono_ns: 1, wall_ns: 1_700_000_000_000_000_000 },
            policy,
            epoch: 0,
            sequence: 0,
            answers: Vec::new(),
            delivered: Vec::new(),
        }
    }

    fn start(&mut self) -> Node {
        self.epoch += 1;
        let spec = ShardSpec {
            id: SHARD,
            stream: "s".into(),
            policy: self.policy,
            ..ShardSpec::default()
        };
        Node::start(&self.world, self.epoch, &[spec], Planted::default()).unwrap().unwrap()
    }

    fn run(&mut self, node: &mut Node, ns: u64) {
        let until = self.now.mono_ns + ns;
        while self.now.mono_ns < until {
            let step = 50_000.min(until - self.now.mono_ns);
            self.now.mono_ns += step;
            self.now.wall_ns += step;
            self.world.run_until_idle();
            for output in node.poll(self.now) {
                match output {
                    Output::Appended { tag, result } => self.answers.push((tag, result)),
                    Output::Deliver { chunk, .. } => {
                        self.delivered.push((self.now.mono_ns, chunk.bytes));
                    }
                    _ => {}
                }
            }
        }
    }

    /// A batch of a producer that goes on with what comes next, whatever became of the one before.
    fn offer(&mut self, node: &mut Node, terms: &AppendTerms) -> Result<(), AppendError> {
        let stamp = ProducerStamp { id: 7, epoch: 0, sequence: self.sequence };
        let bytes = batch(stamp, RECORDS, 100);
        node.core.append_on(self.now, SHARD, &bytes, terms, self.sequence)
    }

    /// Offers twice the quota of 1,000 records a second for two seconds, obeying what is refused.
    fn twice_the_quota(&mut self, node: &mut Node, terms: &AppendTerms) -> ShardCounters {
        for _ in 0..400 {
            let before = self.answers.len();
            if self.offer(node, terms).is_ok() {
                self.sequence += RECORDS;
            }
            self.run(node, 5_000_000);
            for (tag, answer) in &self.answers[before..] {
                // The rest of a batch comes again, under the sequence that is due.
                let decided = answer.as_ref().map_or(RECORDS, |a| u64::from(a.decided()));
                if decided < RECORDS {
                    self.sequence = tag + decided;
                }
            }
            adds_up(&node.core.counters(SHARD).unwrap());
        }
        node.core.counters(SHARD).unwrap()
    }

    /// All records of the log.
    fn log(&mut self, node: &mut Node) -> u64 {
        let located = node.core.locate(SHARD, Start::Oldest).unwrap();
        located.high_water - located.oldest
    }
}

fn adds_up(c: &ShardCounters) {
    let sum = c.acknowledged + c.refused + c.dropped + c.sampled_out + c.duplicates_recognised;
    assert_eq!(c.offered, sum + c.pending, "{c:?}");
}

#[test]
fn each_strategy_keeps_the_rate_and_accounts_for_every_record() {
    let (bytes, age_ms) = (20_000, 100);
    let by = SampleBy::Record;
    for (strategy, terms) in [
        (Backpressure::Reduce, AppendTerms::default()),
        (Backpressure::Reduce, partial()),
        (Backpressure::Scale { max_shards: 0 }, partial()),
        (Backpressure::Buffer { bytes, age_ms }, AppendTerms::default()),
        (Backpressure::DropOldest { bytes, age_ms }, AppendTerms::default()),
        (Backpressure::DropNewest, AppendTerms::default()),
        (Backpressure::DropNewest, partial()),
        (Backpressure::Sample { ppm: 50_000, by }, partial()),
    ] {
        let mut m = Machine::new(records_a_second(1_000, strategy));
        let mut node = m.start();
        let c = m.twice_the_quota(&mut node, &terms);
        let what = format!("{strategy:?} partial {}: {c:?}", terms.partial);
        assert_eq!(c.offered, 4_000, "{what}");
        // Two seconds at 1,000, and a burst of 100; one batch may be late.
        assert!((1_900..=2_110).contains(&c.acknowledged), "{what}");
        let (lost, refused) = (c.dropped + c.sampled_out, c.refused);
        match strategy {
            Backpressure::Reduce | Backpressure::Scale { .. } => {
                assert!(refused > 1_800 && lost + c.buffered == 0, "{what}");
            }
            Backpressure::Buffer { .. } => {
                assert!(refused > 1_600 && c.buffered > 1_000 && lost == 0, "{what}");
                assert!(c.held_bytes <= bytes, "{what}");
            }
            Backpressure::DropOldest { .. } => {
                assert!(c.dropped > 1_600 && c.buffered > 1_000 && refused == 0, "{what}");
                assert!(c.held_bytes <= bytes, "{what}");
            }
            Backpressure::DropNewest => assert!(c.dropped > 1_800 && refused == 0, "{what}"),
            Backpressure::Sample { .. } => {
                assert!(c.sampled_out > 1_500 && refused == 0, "{what}");
            }
        }
        m.run(&mut node, 500_000_000);
        let c = node.core.counters(SHARD).unwrap();
        adds_up(&c);
        assert_eq!((c.pending, c.held_bytes), (0, 0), "{strategy:?}: {c:?}");
        assert_eq!(c.acknowledged, m.log(&mut node), "{strategy:?}: {c:?}");
    }
}

/// A full bucket of 100 let 18 of 200 pass, and of compressed ones whole batches on credit.
#[test]
fn a_sample_comes_on_top_of_what_there_is_room_for_also_of_compressed_batches() {
    let sample = Backpressure::Sample { ppm: 50_000, by: SampleBy::Record };
    for compression in [Compression::None, Compression::Zstd] {
        for terms in [partial(), AppendTerms { tell: true, ..AppendTerms::default() }] {
            let mut m = Machine::new(records_a_second(1_000, sample));
            let mut node = m.start();
            let send = |m: &mut Machine, node: &mut Node, sequence: u64| {
                let stamp = ProducerStamp { id: 7, epoch: 0, sequence };
                let mut bytes = batch(stamp, 200, 100);
                Packer::new(compression).pack(&mut bytes);
                node.core.append_on(m.now, SHARD, &bytes, &terms, sequence).unwrap();
                // The whole burst comes back.
                m.run(node, 100_000_000);
                m.answers.pop().unwrap().1.unwrap()
            };
            for nth in 0..20 {
                let first = send(&mut m, &mut node, nth * 200);
                assert!((90..=100).contains(&first.record_count), "{first:?}");
                assert_eq!((first.duplicate, first.decided()), (false, 200));
                let again = send(&mut m, &mut node, nth * 200);
                assert_eq!((again.duplicate, again.parts), (true, first.parts), "told the same");
            }
            let c = node.core.counters(SHARD).unwrap();
            assert_eq!((c.refused, c.acknowledged + c.sampled_out), (0, 4_000));
            adds_up(&c);
        }
    }
}

#[test]
fn a_retry_of_what_was_dropped_is_told_so_and_the_producer_goes_on_after_a_crash() {
    let mut m = Machine::new(records_a_second(10, Backpressure::DropNewest));
    let mut node = m.start();
    m.offer(&mut node, &partial()).unwrap();
    m.run(&mut node, 5_000_000);
    let (_, first) = m.answers.pop().unwrap();
    let first = first.unwrap();
    let parts = first.parts.clone().unwrap();
    assert_eq!((first.record_count, parts.decided, parts.dropped), (1, 10, 9));
    // All of the next is dropped; the machine dies before anything else is stored.
    m.sequence = 10;
    m.offer(&mut node, &partial()).unwrap();
    m.run(&mut node, 5_000_000);
    assert_eq!(m.answers.pop().unwrap().1.unwrap().parts.unwrap().dropped, 10);
    drop(node);
    m.world.crash(Crash::PowerCut);
    let mut node = m.start();
    for (sequence, record_count, dropped) in [(0, 1, 9), (10, 0, 10)] {
        m.sequence = sequence;
        m.offer(&mut node, &partial()).unwrap();
        m.run(&mut node, 1_000_000);
        let again = m.answers.pop().unwrap().1.unwrap();
        assert!(again.duplicate);
        let parts = again.parts.unwrap();
        assert_eq!((again.record_count, parts.decided, parts.dropped), (record_count, 10, dropped));
    }
    m.sequence = 20;
    m.run(&mut node, 2_000_000_000);
    m.offer(&mut node, &partial()).unwrap();
    m.run(&mut node, 5_000_000);
    assert_eq!(m.answers.pop().unwrap().1.unwrap().base_sequence, 1);
}

#[test]
fn a_batch_is_stored_whole_or_refused_whole_unless_parts_are_taken() {
    let mut m = Machine::new(records_a_second(1, Backpressure::Reduce));
    let mut node = m.start();
    // Larger than the burst, but all of that is there: it passes, and is paid for.
    m.offer(&mut node, &AppendTerms::default()).unwrap();
    m.run(&mut node, 5_000_000);
    assert_eq!(m.answers.pop().unwrap().1.unwrap().record_count, 10);
    m.sequence = 10;
    let refused = m.offer(&mut node, &AppendTerms::default()).unwrap_err();
    assert_eq!(refused.to_wire().code, ErrorCode::QuotaExceeded);
    assert!((9_900..=10_000).contains(&refused.to_wire().retry_after_ms), "{refused:?}");
    m.run(&mut node, 10_000_000_000);
    m.offer(&mut node, &partial()).unwrap();
    m.run(&mut node, 5_000_000);
    let part = m.answers.pop().unwrap().1.unwrap();
    assert_eq!((part.record_count, part.decided()), (1, 1));
    let parts = part.parts.unwrap();
    assert_eq!(parts.outcomes, [], "those put off are no news");
    assert!(parts.retry_after_ms > 900, "{parts:?}");
}

/// It was stored: whether it fitted by now was asked first.
#[test]
fn what_is_beyond_its_age_is_dropped_although_quota_came_free_before_it_was_looked_at() {
    let strategy = Backpressure::DropOldest { bytes: 20_000, age_ms: 100 };
    let mut m = Machine::new(records_a_second(1_000, strategy));
    let mut node = m.start();
    // All of the burst, and two batches more.
    for _ in 0..12 {
        m.offer(&mut node, &partial()).unwrap();
        m.sequence += RECORDS;
        m.run(&mut node, 50_000);
    }
    m.run(&mut node, 1_000_000);
    let c = node.core.counters(SHARD).unwrap();
    assert_eq!((c.acknowledged, c.buffered, c.pending), (100, 20, 20));
    m.answers.clear();
    // Nobody looks for as long as it takes.
    m.now.mono_ns += 10_000_000_000;
    m.now.wall_ns += 10_000_000_000;
    m.run(&mut node, 5_000_000);
    let decided = |a: &Appended| (a.record_count, a.parts.as_ref().map_or(0, |p| p.dropped));
    let told: Vec<_> = m.answers.drain(..).map(|(_, a)| decided(&a.unwrap())).collect();
    assert_eq!(told, [(0, 10), (0, 10)]);
    // What comes now is stored.
    m.offer(&mut node, &partial()).unwrap();
    m.run(&mut node, 5_000_000);
    assert_eq!(decided(m.answers.pop().unwrap().1.as_ref().unwrap()), (10, 0));
    adds_up(&node.core.counters(SHARD).unwrap());
}

#[test]
fn a_quota_may_be_lifted_while_batches_are_held() {
    let held = Backpressure::Buffer { bytes: 1 << 20, age_ms: 60_000 };
    let mut m = Machine::new(records_a_second(10, held));
    let mut node = m.start();
    for _ in 0..5 {
        m.offer(&mut node, &AppendTerms::default()).unwrap();
        m.sequence += RECORDS;
        // The first one waits for a segment, which is not counted.
        m.run(&mut node, 5_000_000);
    }
    let c = node.core.counters(SHARD).unwrap();
    assert_eq!((c.pending, c.acknowledged, c.buffered), (40, 10, 40));
    node.core.set_policy(SHARD, Policy::default());
    m.run(&mut node, 5_000_000);
    let sequences: Vec<u64> =
        m.answers.iter().map(|(_, a)| a.as_ref().unwrap().base_sequence).collect();
    assert_eq!(sequences, [0, 10, 20, 30, 40]);
}

#[test]
fn conditions_and_fences_are_held_against_what_the_shard_knows() {
    let mut m = Machine::new(Policy::default());
    let mut node = m.start();
    let expecting = |expected| AppendTerms { expected: Some(expected), ..AppendTerms::default() };
    let refused = m.offer(&mut node, &expecting(3)).unwrap_err();
    assert_eq!(refused, AppendError::Expected { expected: 3, next: 0 });
    assert_eq!(refused.to_wire().code, ErrorCode::SequenceMismatch);
    m.offer(&mut node, &expecting(0)).unwrap();
    // A retry finds its original, whatever comes next by now.
    m.offer(&mut node, &expecting(0)).unwrap();
    m.run(&mut node, 5_000_000);
    let told: Vec<_> = m.answers.drain(..).map(|(_, a)| a.unwrap()).collect();
    assert_eq!(told.iter().map(|a| a.duplicate).collect::<Vec<_>>(), [false, true]);
    node.core.fence(7, 2);
    m.sequence = 10;
    let fenced = m.offer(&mut node, &AppendTerms::default()).unwrap_err();
    assert_eq!(fenced, AppendError::Fenced { current: 2, got: 0 });
    let stamp = ProducerStamp { id: 7, epoch: 2, sequence: 0 };
    node.core.append(m.now, SHARD, &batch(stamp, 1, 10), 1).unwrap();
}

#[test]
fn what_is_compressed_is_looked_into_within_bounds() {
    let mut m = Machine::new(Policy::default());
    let mut node = m.start();
    let refusal = |node: &mut Node, bytes: &[u8]| match node.core.append(m.now, SHARD, bytes, 1) {
        Err(AppendError::Batch(error)) => error,
        other => panic!("{other:?}"),
    };
    let packed = |compression, records, len| {
        let mut bytes = batch(ProducerStamp::default(), records, len);
        Packer::new(compression).pack(&mut bytes);
        bytes
    };
    let patch = |bytes: &mut Vec<u8>, change: fn(&mut BatchHeader)| {
        let mut header = *BatchHeader::view(bytes).unwrap();
        change(&mut header);
        header.write_to(bytes);
        let crc = crc32c(&bytes[24..]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    };
    for compression in [Compression::Lz4, Compression::Zstd] {
        // A bomb that says what it is, one that lies, and one whose records are none.
        let bomb = packed(compression, 100, 90_000);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        assert!(matches!(refusal(&mut node, &bomb), BatchError::TooLarge { .. }));
        let mut lies = bomb.clone();
        patch(&mut lies, |header| header.body_length = 50_000.into());
        assert!(matches!(refusal(&mut node, &lies), BatchError::Packed { .. }));
        let mut odd = packed(compression, 20, 1_000);
        patch(&mut odd, |header| header.record_count = 21.into());
        assert!(matches!(refusal(&mut node, &odd), BatchError::Structure { .. }));
        let mut forged = batch(ProducerStamp { id: 7, epoch: 0, sequence: 0 }, 1, 10);
        patch(&mut forged, |header| header.producer_count = 1_000.into());
        assert!(matches!(refusal(&mut node, &forged), BatchError::Unsupported { .. }));
        node.core.append(m.now, SHARD, &packed(compression, 20, 1_000), 1).unwrap();
    }
    m.run(&mut node, 5_000_000);
    // Delivered as they came.
    let request = ReadRequest {
        from: 0,
        max_bytes: 1 << 20,
        min_bytes: 1,
        deadline_ns: 0,
        lease: 0,
        filtered: false,
    };
    node.core.read(m.now, SHARD, request, 5);
    let said = node.poll(m.now);
    let Some(Output::Read { result: Ok(chunk), .. }) = said.into_iter().next() else { panic!() };
    let batches: Vec<u8> = chunk.slices.iter().flat_map(|s| s.bytes().to_vec()).collect();
    let tags: Vec<u8> = BatchIter::new(&batches).map(|b| b.unwrap().header().compression).collect();
    assert_eq!(tags, [Compression::Lz4 as u8, Compression::Zstd as u8]);
}

#[test]
fn records_at_fault_are_refused_alone_where_parts_are_taken() {
    let mut m = Machine::new(Policy::default());
    let mut node = m.start();
    let mut builder = BatchBuilder::default();
    for key in ["good", &"long".repeat(100), "fine"] {
        builder.push(key.as_bytes(), &[], b"payload", 1).unwrap();
    }
    let bytes = builder.finish(ProducerStamp { id: 7, epoch: 0, sequence: 0 }).to_vec();
    let whole = node.core.append(m.now, SHARD, &bytes, 1).unwrap_err();
    assert_eq!(whole.to_wire().code, ErrorCode::KeyTooLong);
    node.core.append_on(m.now, SHARD, &bytes, &partial(), 2).unwrap();
    m.run(&mut node, 5_000_000);
    let part = m.answers.pop().unwrap().1.unwrap();
    let outcome = part.parts.as_ref().unwrap().outcomes[0];
    assert_eq!((part.record_count, part.decided()), (2, 3));
    assert_eq!((outcome.first.to_native(), outcome.count.to_native()), (1, 1));
    let c = node.core.counters(SHARD).unwrap();
    assert_eq!((c.offered, c.acknowledged, c.refused), (6, 2, 4));
}

#[test]
fn readers_share_the_quota_of_what_is_read() {
    let quota = Quota { bytes_out: 100_000, burst_ms: 100, ..Quota::default() };
    let mut m = Machine::new(Policy { quota, ..Policy::default() });
    let mut node = m.start();
    for _ in 0..200 {
        m.offer(&mut node, &AppendTerms::default()).unwrap();
        m.sequence += RECORDS;
        m.run(&mut node, 1_000_000);
    }
    let began = m.now.mono_ns;
    for reader in [1, 2] {
        node.core.subscribe(m.now, SHARD, 0, 1 << 30, 5_000, ReaderId(reader)).unwrap();
    }
    m.run(&mut node, 1_000_000_000);
    let sum: usize = m.delivered.iter().map(|(_, bytes)| bytes).sum();
    // A second, a burst of a tenth, and the last batches in debt.
    assert!((100_000..120_000).contains(&sum), "{sum}");
    assert!(m.delivered.iter().any(|(at, _)| at - began > 900_000_000), "{:?}", m.delivered);
    let request = ReadRequest {
        from: 0,
        max_bytes: 100,
        min_bytes: 1,
        deadline_ns: 0,
        lease: 0,
        filtered: false,
    };
    node.core.read(m.now, SHARD, request, 5);
    let told = node.poll(m.now).into_iter().find_map(|output| match output {
        Output::Read { result: Err(error), .. } => Some(error),
        _ => None,
    });
    assert!(matches!(told, Some(ReadError::Quota { .. })), "{told:?}");
}
