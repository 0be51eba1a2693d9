//! One core: its shards, its disk, its checkpoint. Driven by hand: bare by [`crate::Engine`], inside an
//! async runtime by the server, by a seed in the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use highwater_ring::{BufferPool, Completion, Disk, Job, Op};
use highwater_wire::{ShardCounters, ShardId};

use self::checkpointing::{Checkpoint, Last};
use self::commands::Looking;
pub use self::commands::{CoreCommand, LagAsk};
use crate::checkpoint::{self, checkpoint_path};
use crate::io::{Io, What};
use crate::options::CoreOptions;
use crate::producers::IdsGiven;
use crate::quota::{Meters, Quotas};
use crate::routes::Routes;
use crate::shard::{ReadRequest, Shard, ShardLog};
use crate::shards::Shards;
use crate::snapshot::CoreReport;
use crate::types::{
    AppendError, AppendTerms, Arrivals, Backlog, Located, Now, Output, Policy, ReadError, ReaderId,
    ShardSpec, ShardStatus, Sifted, Start,
};

mod checkpointing;
mod commands;

/// How often retention looks and refused segments are asked for again, ns.
const TICK_NS: u64 = 1_000_000_000;

/// How soon a reader that found no buffer is looked at again, ns.
const STARVED_NS: u64 = 2_000_000;

/// The shards of one CPU.
pub struct Core<D: Disk> {
    number: usize,
    epoch: u32,
    disk: D,
    io: Io,
    shards: Shards,
    /// The shards of the last report.
    told: Vec<ShardId>,
    readers: BTreeMap<ReaderId, ShardId>,
    removals: BTreeMap<u64, Sender<Result<(), Arc<str>>>>,
    /// Meters that cores share.
    quotas: Arc<Quotas>,
    /// Who waits for shards to end, and for first segments.
    closings: Vec<(ShardId, Sender<ShardStatus>)>,
    preparations: Vec<(ShardId, Sender<()>)>,
    looking: Looking,
    routes: Routes,
    next_number: u64,
    completions: Vec<Completion>,
    touched: Vec<ShardId>,
    checkpoint: Checkpoint,
    next_tick: u64,
    /// When shards that lack memory are looked at again.
    retry_at: Option<u64>,
    stopping: bool,
    failure: Option<Arc<str>>,
}

impl<D: Disk> Core<D> {
    /// A core with the shards recovery found, whose checkpoint file is there ([`checkpoint::create`]).
    /// `seed` feeds the generations of segments.
    pub fn new(
        number: usize,
        epoch: u32,
        disk: D,
        pool: BufferPool,
        options: CoreOptions,
        seed: u64,
        shards: Vec<(ShardSpec, ShardLog)>,
    ) -> Core<D> {
        let slot_len = checkpoint::slot_len(shards.len());
        let quotas = Arc::new(Quotas::default());
        let mut found = Shards::default();
        for (spec, log) in shards {
            let stream = quotas.stream(spec.id.stream, &spec.policy.stream_quota);
            found.add(spec.id, || Shard::new(spec, epoch, log, stream));
        }
        let mut core = Core {
            number,
            epoch,
            disk,
            io: Io::new(pool, options, seed),
            shards: found,
            quotas,
            told: Vec::new(),
            readers: BTreeMap::new(),
            removals: BTreeMap::new(),
            closings: Vec::new(),
            preparations: Vec::new(),
            looking: Looking::default(),
            routes: Routes::new(1),
            next_number: 0,
            completions: Vec::new(),
            touched: Vec::new(),
            checkpoint: Checkpoint { slot_len, ..Checkpoint::default() },
            next_tick: 0,
            retry_at: None,
            stopping: false,
            failure: None,
        };
        let path = checkpoint_path(epoch, number);
        let job = Job::OpenSegment { path, write: true };
        core.io.submit(NO_SHARD, What::Checkpoint, Op::Job(job));
        core
    }

    /// Meters streams by what it shares with other cores. To be called before it serves.
    pub fn share_quotas(&mut self, quotas: &Arc<Quotas>) {
        self.quotas = Arc::clone(quotas);
        for shard in self.shards.values_mut() {
            let (stream, policy) = (shard.id().stream, shard.spec().policy);
            shard.set_policy(policy, quotas.stream(stream, &policy.stream_quota));
        }
    }

    /// Has it take batches from producers only that were given out, as `ids` and [`Core::fence`] know. To be called before
    /// it serves.
    pub fn know_producers(&mut self, ids: Arc<IdsGiven>) {
        self.io.ids_given = Some(ids);
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where all shards lie, as its owner knows when it starts; commands keep it up.
    pub fn set_routes(&mut self, routes: Routes) {
        self.routes = routes;
    }

    /// The core that owns a shard.
    pub fn owner(&self, shard: ShardId) -> usize {
        self.routes.core_of(shard)
    }

    /// Its disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The sizes it obeys.
    pub fn options(&self) -> &CoreOptions {
        &self.io.options
    }

    /// Takes a batch, checked here for everything a producer could get wrong, and copied. `Ok`: an
    /// [`Output::Appended`] with `tag` follows from a later [`Core::poll`].
    pub fn append(
        &mut self,
        now: Now,
        shard: ShardId,
        batch: &[u8],
        tag: u64,
    ) -> Result<(), AppendError> {
        self.append_on(now, shard, batch, &AppendTerms::default(), tag)
    }

    /// [`Core::append`] on other terms: in part, conditionally, under the quota of a client. [`AppendError::Busy`] is
    /// not counted: it may be tried again, or be given up ([`Core::given_up`]).
    pub fn append_on(
        &mut self,
        now: Now,
        shard: ShardId,
        batch: &[u8],
        terms: &AppendTerms,
        tag: u64,
    ) -> Result<(), AppendError> {
        if self.stopping {
            return Err(AppendError::Closing);
        }
        let found = self.shards.get_mut(&shard).ok_or(AppendError::UnknownShard(shard))?;
        let mut taken = found.append(now, batch, terms, tag, &mut self.io);
        if matches!(taken, Err(AppendError::Busy { .. })) && self.io.has_to_evict() {
            // What live consumers might still want gives way to what is to be stored.
            self.evict();
            if let Some(found) = self.shards.get_mut(&shard) {
                taken = found.append(now, batch, terms, tag, &mut self.io);
            }
        }
        if taken.is_ok() && self.touched.last() != Some(&shard) {
            self.touched.push(shard);
        }
        taken
    }

    /// A batch that was [`AppendError::Busy`] is not tried again: its records count as refused.
    pub fn given_up(&mut self, shard: ShardId, batch: &[u8]) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.given_up(batch);
        }
    }

    /// Changes what a shard lets pass, and what becomes of the rest.
    pub fn set_policy(&mut self, shard: ShardId, policy: Policy) {
        if let Some(found) = self.shards.get_mut(&shard) {
            found.set_policy(policy, self.quotas.stream(shard.stream, &policy.stream_quota));
            self.touched.push(shard);
        }
    }

    /// A single read; answered by [`Output::Read`].
    pub fn read(&mut self, now: Now, shard: ShardId, request: ReadRequest, tag: u64) {
        self.next_number += 1;
        match self.shards.get_mut(&shard) {
            Some(_) if self.stopping => {
                self.io.outputs.push(Output::Read { tag, result: Err(ReadError::Closing) });
            }
            Some(found) => found.read(now, self.next_number, request, tag, &mut self.io),
            None => {
                let result = Err(ReadError::UnknownShard(shard));
                self.io.outputs.push(Output::Read { tag, result });
            }
        }
    }

    /// Has single reads of a shard wait no longer: those of these tags are answered with what there is, by a later
    /// [`Core::poll`].
    pub fn hurry(&mut self, now: Now, shard: ShardId, tags: &BTreeSet<u64>) {
        if let Some(found) = self.shards.get_mut(&shard) {
            found.hurry(now, tags, &mut self.io);
        }
    }

    /// Begins a subscription under a number the caller has not used before.
    pub fn subscribe(
        &mut self,
        now: Now,
        shard: ShardId,
        from: u64,
        credit_bytes: u64,
        max_bytes: usize,
        reader: ReaderId,
    ) -> Result<Located, ReadError> {
        if self.stopping {
            return Err(ReadError::Closing);
        }
        let found = self.shards.get_mut(&shard).ok_or(ReadError::UnknownShard(shard))?;
        self.next_number += 1;
        let number = self.next_number;
        let located =
            found.subscribe(now, number, from, credit_bytes, max_bytes, reader, &mut self.io)?;
        self.readers.insert(reader, shard);
        Ok(located)
    }

    /// Has a subscription obey the quota of whoever reads (`None`: it has none), besides those of shard and stream.
    /// One that waited for another quota goes on with its next credit.
    pub fn limit(&mut self, reader: ReaderId, client: Option<Arc<Meters>>) {
        if let Some(shard) = self.readers.get(&reader).and_then(|id| self.shards.get_mut(id)) {
            shard.limit(reader, client);
        }
    }

    /// Whether a lease is in force on a shard; 0 is none and always right.
    ///
    /// # Errors
    /// [`ReadError::LeaseLost`] if it is not.
    pub fn leased(&self, shard: ShardId, lease: u64) -> Result<(), ReadError> {
        if lease == 0 {
            return Ok(());
        }
        self.shards.get(&shard).ok_or(ReadError::UnknownShard(shard))?.leased(lease)
    }

    /// Has a subscription end when a lease is not in force any more; it is now.
    pub fn bind(&mut self, reader: ReaderId, lease: u64) {
        if let Some(shard) = self.readers.get(&reader).and_then(|id| self.shards.get_mut(id)) {
            shard.bind(reader, lease);
        }
    }

    /// Has what a subscription reads go to a filter: it counts as handed out when [`Core::sifted`] says so.
    pub fn filter(&mut self, reader: ReaderId) {
        if let Some(shard) = self.readers.get(&reader).and_then(|id| self.shards.get_mut(id)) {
            shard.filter(reader);
        }
    }

    /// What a filter made of records that were read for it.
    pub fn sifted(&mut self, sifted: &Sifted) {
        if let Some(shard) = self.shards.get_mut(&sifted.shard) {
            shard.sifted(sifted);
        }
    }

    /// More credit for a subscription.
    pub fn credit(&mut self, now: Now, reader: ReaderId, bytes: u64) {
        if let Some(shard) = self.readers.get(&reader).and_then(|id| self.shards.get_mut(id)) {
            shard.credit(now, reader, bytes, &mut self.io);
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, reader: ReaderId) {
        if let Some(shard) = self.readers.remove(&reader).and_then(|id| self.shards.get_mut(&id)) {
            shard.unsubscribe(reader);
        }
    }

    /// Turns a start into a sequence number.
    pub fn locate(&self, shard: ShardId, start: Start) -> Result<Located, ReadError> {
        self.shards.get(&shard).ok_or(ReadError::UnknownShard(shard))?.locate(start)
    }

    /// Batches were handed over at `at_ns` (nanoseconds since 1970 UTC): to the socket, or to who reads them.
    pub fn handed_over(&mut self, arrivals: &Arrivals, at_ns: u64) {
        if let Some(shard) = self.shards.get_mut(&arrivals.shard) {
            shard.handed_over(arrivals, at_ns, &mut self.io);
        }
    }

    /// A shard's records by what became of them; `None` without such a shard.
    pub fn counters(&self, shard: ShardId) -> Option<ShardCounters> {
        Some(self.shards.get(&shard)?.counters())
    }

    /// The sequence number a shard gives next, which conditional appends are held against.
    pub fn next_sequence(&self, shard: ShardId) -> Option<u64> {
        Some(self.shards.get(&shard)?.next_sequence())
    }

    /// How far a position is behind.
    pub fn backlog(&self, now: Now, shard: ShardId, position: u64) -> Result<Backlog, ReadError> {
        Ok(self.shards.get(&shard).ok_or(ReadError::UnknownShard(shard))?.backlog(now, position))
    }

    /// A group's position, to be followed; `None`: it has none any more.
    pub fn set_position(&mut self, shard: ShardId, group: &str, position: Option<u64>) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.set_position(group, position);
        }
    }

    /// Serves a new, empty shard. One that exists is left as it is.
    pub fn add_shard(&mut self, spec: ShardSpec) {
        let (id, epoch, producers) = (spec.id, self.epoch, self.io.options.producers);
        let quotas = &self.quotas;
        self.shards.add(id, || {
            let stream = quotas.stream(id.stream, &spec.policy.stream_quota);
            Shard::new(spec, epoch, ShardLog::empty(producers), stream)
        });
    }

    /// Removes a shard and its files; answered by [`Output::Removed`].
    pub fn remove_shard(&mut self, shard: ShardId, tag: u64) {
        match self.shards.get_mut(&shard) {
            Some(found) => found.remove(tag, &mut self.io),
            None => self.io.outputs.push(Output::Removed { tag, result: Ok(()) }),
        }
    }

    /// Takes no more appends for a shard. Those it has in flight are stored; when they are, its readers get to
    /// its end and are told so.
    pub fn close_shard(&mut self, now: Now, shard: ShardId) {
        if let Some(found) = self.shards.get_mut(&shard) {
            found.close(now, &mut self.io);
            self.touched.push(shard);
        }
    }

    /// Gives a shard other settings.
    pub fn respec(&mut self, now: Now, spec: ShardSpec) {
        if let Some(found) = self.shards.get_mut(&spec.id) {
            let (id, policy) = (spec.id, spec.policy);
            found.respec(now, spec, &mut self.io);
            self.set_policy(id, policy);
        }
    }

    /// Refuses all appends that need room, or takes them again.
    pub fn set_disk_low(&mut self, low: bool) {
        self.io.disk_low = low;
    }

    /// A named producer has been given `epoch`: older ones are refused from now on, on every shard.
    pub fn fence(&mut self, id: u64, epoch: u32) {
        let least = self.io.fences.entry(id).or_default();
        *least = epoch.max(*least);
    }

    /// All shards in brief.
    pub fn status(&self, now: Now) -> Vec<ShardStatus> {
        self.shards.values().map(|shard| shard.status(now)).collect()
    }

    /// Takes what the disk has done, moves marks, submits groups, serves readers; appends to `out` what
    /// there is to say.
    pub fn poll(&mut self, now: Now, out: &mut Vec<Output>) {
        self.disk.reap(&mut self.completions);
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(now, completion);
        }
        self.completions = completions;
        self.touched.sort_unstable();
        self.touched.dedup();
        for id in self.touched.drain(..) {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.pump(now, &mut self.io);
            }
        }
        self.shards.note(&self.io);
        if self.next_wake().is_some_and(|at| at <= now.mono_ns) {
            self.tick(now);
        }
        if self.retry_at.is_none() && self.shards.starved().next().is_some() {
            self.retry_at = Some(now.mono_ns + STARVED_NS);
        }
        self.evict();
        self.write_checkpoint(now);
        self.go();
        for output in self.io.outputs.drain(..) {
            match output {
                Output::Removed { tag, result } => {
                    if let Some(done) = self.removals.remove(&tag) {
                        let _ = done.send(result);
                    } else {
                        out.push(Output::Removed { tag, result });
                    }
                }
                Output::Ended { reader, error } => {
                    self.readers.remove(&reader);
                    out.push(Output::Ended { reader, error });
                }
                other => out.push(other),
            }
        }
        self.shards.note(&self.io);
        self.tell_who_waits(now);
        if !(self.looking.lags.is_empty() && self.looking.since.is_empty()) {
            self.tell_who_looks(now);
        }
    }

    fn complete(&mut self, now: Now, completion: Completion) {
        let Some(pending) = self.io.complete(completion.token) else { return };
        if pending.what == What::Checkpoint {
            self.checkpoint_done(now, completion.result);
            return;
        }
        let Some(shard) = self.shards.get_mut(&pending.shard) else { return };
        let before = shard.high_water();
        shard.completed(now, pending.what, completion.result, &mut self.io);
        shard.pump(now, &mut self.io);
        shard.remove_when_idle(&mut self.io);
        if shard.high_water() != before {
            self.checkpoint.dirty = true;
            self.checkpoint.active_at = now.mono_ns;
        }
    }

    /// Everything that goes by time.
    fn tick(&mut self, now: Now) {
        let second = now.mono_ns >= self.next_tick;
        if second {
            self.next_tick = now.mono_ns + TICK_NS;
            self.io.kept.age();
        }
        let retry = self.retry_at.is_some_and(|at| at <= now.mono_ns);
        let ids: Vec<ShardId> = match second {
            true => self.shards.keys().copied().collect(),
            false => {
                let starved = self.shards.starved().filter(|_| retry);
                self.shards.due(now.mono_ns).chain(starved).collect()
            }
        };
        for id in ids {
            let Some(shard) = self.shards.get_mut(&id) else { continue };
            if second {
                shard.retain(now, &mut self.io);
                shard.close_idle_files(&mut self.io);
                shard.forget_refusal(now);
                shard.follow_groups(now, &mut self.io);
            }
            shard.pump(now, &mut self.io);
            shard.pump_readers(now, &mut self.io);
        }
        self.shards.note(&self.io);
        if second || retry {
            self.retry_at = None; // set again by whoever is still starved
        }
    }

    fn evict(&mut self) {
        for id in self.io.take_evicted() {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.drop_oldest_tail(&mut self.io);
            }
        }
    }

    /// Submits what was queued.
    fn go(&mut self) {
        for file in self.io.closes.drain(..) {
            self.disk.close(file);
        }
        for (token, op) in self.io.ops.drain(..) {
            self.disk.submit(token, op);
        }
        if let Err(error) = self.disk.flush() {
            self.failure = Some(format!("the ring of core {} failed: {error}", self.number).into());
        }
    }

    /// When [`Core::poll`] is needed at the latest even if nothing completes, monotonic.
    pub fn next_wake(&self) -> Option<u64> {
        let shards = self.shards.next_wake(&self.io);
        let core = [self.checkpoint_due(), self.retry_at, Some(self.next_tick)];
        core.into_iter().chain([shards]).flatten().min()
    }

    /// Begins a graceful stop: new work is refused; what was accepted is acknowledged, segments are sealed
    /// and a last checkpoint is written. Poll until [`Core::stopped`].
    pub fn begin_stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            for shard in self.shards.values_mut() {
                shard.stop(&mut self.io);
                self.touched.push(shard.id());
            }
        }
    }

    /// Whether everything is done.
    pub fn stopped(&self) -> bool {
        self.stopping && self.checkpoint.last == Last::Done && self.io.in_flight() == 0
    }

    /// Set when the core's ring itself failed: nothing more will complete.
    pub fn failure(&self) -> Option<&Arc<str>> {
        self.failure.as_ref()
    }

    /// A copy of the figures: with `all` of every shard, otherwise of those that have changed since the last
    /// report. After a shard has come or gone it is of all in any case.
    pub fn report(&mut self, now: Now, all: bool) -> CoreReport {
        let known = self.told.iter().eq(self.shards.keys());
        if !known {
            self.told = self.shards.keys().copied().collect();
        }
        let (complete, shards) = (all || !known, self.shards.values_mut());
        crate::snapshot::take(self.number, now, complete, &self.disk, &mut self.io, shards)
    }
}

/// In place of a shard, for what belongs to the core.
const NO_SHARD: ShardId = ShardId { stream: u32::MAX, shard: u32::MAX };
