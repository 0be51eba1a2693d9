//! What readers of a history do, and what they must find.

use highwater_engine::{Chunk, Output, ReadError, ReadRequest, ReaderId};
use highwater_wire::{AckMode, BatchIter, Unpacker};

use super::History;
use crate::checker::{Identity, entry};
use crate::node::Node;

impl History {
    /// Reads every shard from its oldest record to its mark and checks all promises.
    pub(super) fn verify(&mut self, node: &mut Node) -> Result<(), String> {
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

    pub(super) fn subscribe(&mut self, node: &mut Node) -> Result<(), String> {
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

    pub(super) fn delivered(&mut self, reader: ReaderId, chunk: &Chunk) -> Result<(), String> {
        let Some(shard) = self.shards.iter_mut().find(|s| s.reader == Some(reader.0)) else {
            return Ok(());
        };
        shard.checker.bounds(chunk.oldest, chunk.high_water)?;
        for slice in &chunk.slices {
            let whole = inflated(slice.bytes(), &mut self.unpacker)?;
            for batch in BatchIter::new(&whole) {
                let batch = batch.map_err(|e| e.to_string())?;
                let from = shard.position;
                for record in batch.records().filter(|r| r.sequence >= from) {
                    let (sequence, next) = (record.sequence, shard.position);
                    if sequence != next {
                        return Err(format!("record {sequence} after {next}"));
                    }
                    if sequence >= chunk.high_water {
                        return Err(format!("record {sequence} above the mark was shown"));
                    }
                    shard.checker.read(&record)?;
                    shard.position += 1;
                    self.covered.delivered += 1;
                }
            }
        }
        Ok(())
    }

    pub(super) fn ended(&mut self, reader: ReaderId, error: &ReadError) -> Result<(), String> {
        if let Some(shard) = self.shards.iter_mut().find(|s| s.reader == Some(reader.0)) {
            shard.reader = None;
        }
        match error {
            ReadError::Trimmed { .. } | ReadError::Closing => Ok(()),
            other => Err(format!("a subscription ended: {other}")),
        }
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
