//! Splitting and merging while a stream is served.
//!
//! In this order, so that a crash at any point leaves something a start completes by itself (the table is in
//! `shard/close.rs`):
//!
//! 1. Parents closed and children added, in the catalogue: one durable transaction.
//! 2. Every core learns where the children lie; their cores open them and have a first segment ready.
//! 3. The parents' cores close them: what has no place in a log yet is refused, the rest is stored and sealed.
//! 4. When all parents are at rest the children are told to whoever asks.
//!
//! A core answers within a turn of its loop, which waits for no disk, and a parent is at rest when its last writes are
//! durable. Meanwhile this thread has no time for others, those who look for the children among them. So the wait is
//! [`PATIENCE`] at most: before step 1 nothing is changed then, after step 3 the children are told without it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use highwater_wire::{HashRange, MAX_SHARDS_PER_STREAM, ShardId, StreamDescription};

use super::{Control, ControlError, now_ns};
use crate::balance::{self, FEW_SAMPLES, ShardLoad, middle};
use crate::core::CoreCommand;
use crate::hotkeys::SplitPoint;
use crate::layout::{Plan, ReshardError};
use crate::store::specs_of;
use crate::types::ShardStatus;

/// How long a split or merge waits for the cores, before it changes anything and again for its parents to be at rest.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long the first segments of children may take before the parents close all the same.
const PREPARING: Duration = Duration::from_secs(1);

impl Control {
    /// Splits a shard at hash keys; without any at the weighted median of its latest records' hash keys, or in the
    /// middle of its range if nothing is known of them.
    pub fn split(
        &mut self,
        name: &str,
        shard: u32,
        at: &[u128],
    ) -> Result<StreamDescription, ControlError> {
        let record = self.find(name)?;
        let refuse = |reason| ControlError::Reshard { stream: name.to_owned(), reason };
        let found = record.shard(shard).ok_or(refuse(ReshardError::Unknown(shard)))?;
        let id = ShardId { stream: record.id, shard };
        let at = match at {
            [] if found.closed || found.hash_start == found.hash_end => Vec::new(),
            [] => match self.split_point(id, found.range())? {
                SplitPoint::At { hash, .. } => vec![hash],
                SplitPoint::OneKey { hash, samples } => {
                    return Err(refuse(ReshardError::OneKey { shard, samples, hash }));
                }
                SplitPoint::Unknown => vec![middle(found.range())],
            },
            at => at.to_vec(),
        };
        let plan = self.find(name)?.layout().split(shard, &at).map_err(refuse)?;
        self.carry_out(name, plan)
    }

    /// Merges neighbouring shards into one.
    pub fn merge(&mut self, name: &str, shards: &[u32]) -> Result<StreamDescription, ControlError> {
        let plan = self.find(name)?.layout().merge(shards);
        let plan =
            plan.map_err(|reason| ControlError::Reshard { stream: name.to_owned(), reason })?;
        self.carry_out(name, plan)
    }

    /// Divides the hash-key space into `shards` open shards with equal shares of the load seen lately; evenly where none, or
    /// too little for so many, was seen. Those that fit already stay as they are.
    pub fn reshard(&mut self, name: &str, shards: u32) -> Result<StreamDescription, ControlError> {
        if !(1..=MAX_SHARDS_PER_STREAM).contains(&shards) {
            return Err(ControlError::Argument {
                field: "shards",
                value: shards.into(),
                limit: format!("1 to {MAX_SHARDS_PER_STREAM} are allowed"),
            });
        }
        let loads = self.loads(name)?;
        let plan = self.find(name)?.layout().divided(balance::divide(&loads, shards));
        let plan =
            plan.map_err(|reason| ControlError::Reshard { stream: name.to_owned(), reason })?;
        self.carry_out(name, plan)
    }

    /// What the cores know of the load of a stream's open shards.
    fn loads(&self, name: &str) -> Result<Vec<ShardLoad>, ControlError> {
        let record = self.find(name)?;
        let mut waits = Vec::new();
        for kept in record.layout().open() {
            let (shard, range) = (ShardId { stream: record.id, shard: kept.shard }, kept.range());
            let (core, wait) =
                self.ask(shard, |reply| CoreCommand::Load { shard, range, reply })?;
            waits.push((core, range, wait));
        }
        let until = Instant::now() + self.reshard_patience;
        let told = waits.into_iter().map(|(core, range, wait)| {
            let idle = ShardLoad { range, records: 0.0, hashes: Vec::new() };
            match wait.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(load) => Ok(load.unwrap_or(idle)),
                Err(RecvTimeoutError::Disconnected) => Ok(idle),
                Err(RecvTimeoutError::Timeout) => {
                    let reason = ReshardError::NoAnswer { core, waited_ms: self.patience_ms() };
                    Err(ControlError::Reshard { stream: name.to_owned(), reason })
                }
            }
        });
        told.collect()
    }

    /// Where a shard's load would be divided best.
    pub(super) fn split_point(
        &self,
        shard: ShardId,
        range: HashRange,
    ) -> Result<SplitPoint, ControlError> {
        let asked = |reply| CoreCommand::SplitPoint { shard, range, reply };
        let (core, wait) = self.ask(shard, asked)?;
        let point = wait.recv_timeout(super::PATIENCE);
        let point = point.map_err(|_| ControlError::CoreGone(core))?;
        Ok(match point {
            Some(SplitPoint::At { samples, .. } | SplitPoint::OneKey { samples, .. })
                if samples < FEW_SAMPLES =>
            {
                SplitPoint::Unknown
            }
            Some(point) => point,
            None => SplitPoint::Unknown,
        })
    }

    fn carry_out(&mut self, name: &str, mut plan: Plan) -> Result<StreamDescription, ControlError> {
        if plan.is_empty() {
            return self.describe(name);
        }
        let mut record = self.find(name)?.clone();
        let stream = record.id;
        self.all_serve(name, stream, &plan)?;
        plan.place(&mut self.open_per_core(stream, &plan));
        (record.shards, record.next_shard) = plan.apply(record.layout(), now_ns());
        self.catalogue().update_stream(name, &record)?;
        self.streams.insert(name.to_owned(), record.clone());
        // From here on the next start would complete it.
        plan.close.iter().for_each(|&shard| self.tending.closed(ShardId { stream, shard }));
        for child in &plan.open {
            let shard = ShardId { stream, shard: child.shard };
            self.routes.place(shard, child.home);
            for link in &self.links {
                // A core that is gone needs not know.
                let _ = link(CoreCommand::Place { shard, home: child.home });
            }
        }
        let specs = specs_of(name, &record);
        let is_child = |shard: ShardId| plan.open.iter().any(|c| c.shard == shard.shard);
        let mut preparing = Vec::new();
        for spec in &specs {
            if is_child(spec.id) {
                self.tell(spec.id, CoreCommand::AddShard(spec.clone()))?;
                let shard = spec.id;
                preparing.push(self.ask(shard, |done| CoreCommand::Prepare { shard, done })?);
            }
        }
        let until = Instant::now() + PREPARING;
        for (_, wait) in preparing {
            // Without it the first append waits for its segment.
            let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
        let mut closing = Vec::new();
        for &shard in &plan.close {
            let id = ShardId { stream, shard };
            let (_, wait) = self.ask(id, |done| CoreCommand::CloseShard { shard: id, done })?;
            closing.push((shard, wait));
        }
        let until = Instant::now() + self.reshard_patience;
        let at_rest = |wait: &Receiver<ShardStatus>| {
            wait.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
        };
        let late = closing.iter().find(|(_, wait)| !at_rest(wait)).map(|(shard, _)| *shard);
        // How many share what the stream may keep has changed.
        for spec in specs {
            if !is_child(spec.id) {
                self.tell(spec.id, CoreCommand::Respec(spec))?;
            }
        }
        match late {
            None => self.describe(name),
            Some(shard) => {
                let reason = ReshardError::UnderWay { shard, waited_ms: self.patience_ms() };
                Err(ControlError::Reshard { stream: name.to_owned(), reason })
            }
        }
    }

    fn patience_ms(&self) -> u64 {
        u64::try_from(self.reshard_patience.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether all parents take appends: what a shard with a failed disk has in doubt would be left so.
    fn all_serve(&self, name: &str, stream: u32, plan: &Plan) -> Result<(), ControlError> {
        let status = self.status_within(self.reshard_patience).map_err(|error| match error {
            ControlError::CoreGone(core) => {
                let reason = ReshardError::NoAnswer { core, waited_ms: self.patience_ms() };
                ControlError::Reshard { stream: name.to_owned(), reason }
            }
            other => other,
        })?;
        for &shard in &plan.close {
            let state = status.get(&ShardId { stream, shard }).map(|s| s.state.as_str());
            let state = state.unwrap_or("missing");
            if !state.starts_with("open") {
                let reason = ReshardError::NotServing { shard, state: state.to_owned() };
                return Err(ControlError::Reshard { stream: name.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// Open shards of all streams by core, without those a plan closes.
    fn open_per_core(&self, stream: u32, plan: &Plan) -> Vec<u64> {
        let mut open = vec![0; self.links.len()];
        for record in self.streams.values() {
            for kept in record.shards.iter().filter(|s| !s.closed) {
                if record.id != stream || !plan.close.contains(&kept.shard) {
                    let shard = ShardId { stream: record.id, shard: kept.shard };
                    open[self.routes.core_of(shard)] += 1;
                }
            }
        }
        open
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use highwater_wire::{Backpressure, ErrorCode, ShardCounters, StreamConfig};

    use super::*;
    use crate::store::{Store, StoreOptions};

    /// A core that does nothing but say how its shards are.
    #[derive(Debug, Default)]
    struct Fake {
        silent: bool,
        /// Records refused so far, and how many more each time it is asked.
        refused: (u64, u64),
        states: BTreeMap<ShardId, &'static str>,
    }

    impl Fake {
        fn hear(&mut self, command: CoreCommand) {
            match command {
                CoreCommand::AddShard(spec) => {
                    self.states.insert(spec.id, "open");
                }
                CoreCommand::Prepare { done, .. } => done.send(()).unwrap(),
                // It says nothing: its writes take long.
                CoreCommand::CloseShard { shard, .. } => {
                    self.states.insert(shard, "closing");
                }
                CoreCommand::SplitPoint { reply, .. } => {
                    reply.send(Some(SplitPoint::Unknown)).unwrap();
                }
                CoreCommand::Status { reply } if !self.silent => {
                    self.refused.0 += self.refused.1;
                    let refused = self.refused.0;
                    let status = self.states.iter().map(|(id, state)| ShardStatus {
                        id: *id,
                        oldest: 0,
                        high_water: 0,
                        stored_bytes: 0,
                        log_bytes: 0,
                        state: (*state).to_owned(),
                        counters: ShardCounters { refused, ..ShardCounters::default() },
                        arriving_per_s: 0.0,
                        pressed: false,
                        closed: *state != "open",
                        expired: false,
                    });
                    reply.send(status.collect()).unwrap();
                }
                _ => {}
            }
        }
    }

    /// A stream of one shard on such a core.
    fn faked(dir: &Path, config: StreamConfig) -> (Control, Arc<Mutex<Fake>>, StreamDescription) {
        let mut options = StoreOptions { cores: vec![0], ..StoreOptions::default() };
        (options.pool_bytes, options.prepared_bytes) = (8 << 20, 64 << 20);
        let (store, _seeds) = Store::open(dir, options).unwrap();
        let fake = Arc::new(Mutex::new(Fake::default()));
        let heard = Arc::clone(&fake);
        let link = Box::new(move |command| {
            heard.lock().unwrap().hear(command);
            true
        });
        let mut control = Control::new(&store, vec![link]);
        control.reshard_patience = Duration::from_millis(20);
        let stream = control.create_stream("s", StreamConfig { shards: 1, ..config }).unwrap();
        (control, fake, stream)
    }

    #[test]
    fn a_shard_that_was_split_has_no_advice_any_more() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let backpressure = Backpressure::Scale { max_shards: 0 };
        let config = StreamConfig { backpressure, ..StreamConfig::default() };
        let (mut control, fake, _) = faked(dir.path(), config);
        fake.lock().unwrap().refused.1 = 5;
        let advice = |control: &Control| control.describe("s").unwrap().shards[0].advice.clone();
        for _ in 0..4 {
            control.tend().unwrap();
        }
        assert!(advice(&control).contains("split it"), "{}", advice(&control));
        control.split("s", 0, &[]).unwrap_err();
        assert_eq!(advice(&control), "");
        assert!(control.advice().is_empty());
        control.tend().unwrap();
        assert_eq!(advice(&control), "");
    }

    #[test]
    fn a_core_that_does_not_answer_is_not_waited_for_and_no_child_is_told_too_early() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (mut control, fake, stream) = faked(dir.path(), StreamConfig::default());

        fake.lock().unwrap().silent = true;
        let error = control.reshard("s", 2).unwrap_err();
        assert_eq!(error.to_wire().code, ErrorCode::Unavailable);
        let reason = |error| match error {
            ControlError::Reshard { reason, .. } => reason,
            other => panic!("{other}"),
        };
        assert_eq!(reason(error), ReshardError::NoAnswer { core: 0, waited_ms: 20 });
        fake.lock().unwrap().silent = false;
        assert_eq!(control.describe("s").unwrap().shards.len(), 1, "nothing was changed");

        let error = control.reshard("s", 2).unwrap_err();
        assert_eq!(error.to_wire().code, ErrorCode::Unavailable);
        assert_eq!(reason(error), ReshardError::UnderWay { shard: 0, waited_ms: 20 });
        let shards = |control: &Control| {
            let stream = control.describe("s").unwrap();
            stream.shards.iter().map(|s| (s.shard, s.closed)).collect::<Vec<_>>()
        };
        assert_eq!(shards(&control), [(0, true)], "its last writes are in flight");
        let parent = ShardId { stream: stream.id, shard: 0 };
        fake.lock().unwrap().states.insert(parent, "closed");
        assert_eq!(shards(&control), [(0, true), (1, false), (2, false)]);
        // What was asked for is there: asked again, there is nothing to do.
        assert_eq!(control.reshard("s", 2).unwrap().shards.len(), 3);
    }
}
