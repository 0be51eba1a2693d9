//! What producers of a history do, and what they make of the answers.

use std::collections::VecDeque;

use highwater_engine::{AppendError, Appended, Parts};
use highwater_wire::{AckMode, Backpressure, BatchView, Compression};

use super::History;
use crate::clients::{Asked, Producer, Record, Sent, sequence_of};
use crate::node::Node;

impl History {
    pub(super) fn new_producer(&mut self) {
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

    pub(super) fn produce(&mut self, node: &mut Node) -> Result<(), String> {
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
    pub(super) fn resend(&mut self, node: &mut Node, at: usize) -> Result<(), String> {
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
    pub(super) fn repeat(&mut self, node: &mut Node) -> Result<(), String> {
        let at = self.random.usize(0..self.producers.len());
        let p = &self.producers[at];
        let Some(of) = p.unacked.front().filter(|_| !p.resend).map(|sent| sent.tag) else {
            return Ok(());
        };
        // Its answer carries a tag nobody waits for, but must still be right.
        self.next_tag += 1;
        self.send(node, at, of, self.next_tag - 1)
    }

    pub(super) fn answered(
        &mut self,
        tag: u64,
        result: Result<Appended, AppendError>,
    ) -> Result<(), String> {
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
}
