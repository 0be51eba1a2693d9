//! Single reads: when one is begun, what it waits for, and that it does not outlast who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_engine::quota::retry_ms;
use highwater_engine::{ReadError, ReadRequest};
use highwater_wire::{ErrorCode, ShardId, WireError};

use super::{Step, stopping};
use crate::connection::Connection;
use crate::core_state::CoreState;
use crate::filter::{Fetching, Program, Wanted};
use crate::options::bounds::{FETCH_BYTES, OUT_PRESSED, RETRY_MS};
use crate::pending::Pending;
use crate::request::Fetch;
use crate::router::{Ask, Signal, address};

/// A fetch came.
pub(super) fn fetch(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    shard: ShardId,
    mut fetch: Fetch,
    filter: &str,
) -> Step {
    fetch.max_bytes = fetch.max_bytes.clamp(1, core.limits.max_batch);
    fetch.min_bytes = fetch.min_bytes.min(fetch.max_bytes);
    if filter.is_empty() {
        return begin_fetch(core, connection, correlation, shard, fetch, None);
    }
    let wanted = Wanted::Fetch { shard, fetch };
    match core.program(connection, correlation, filter, wanted) {
        Ok(None) => Step::Done,
        Ok(program) => begin_fetch(core, connection, correlation, shard, fetch, program),
        Err(error) => {
            connection.refuse(core, correlation, &error);
            Step::Done
        }
    }
}

/// Why a fetch that may bring `reserved` bytes is not begun now, if it is not; `waits`: it may wait here.
fn fetch_refusal(
    core: &CoreState,
    connection: &Connection,
    reserved: usize,
    waits: bool,
) -> Option<WireError> {
    if core.stopping.get() {
        return Some(stopping());
    }
    let (waiting, most) = (core.waits.get(), core.memory.waiters());
    if waits && waiting >= most {
        let message =
            format!("{waiting} fetches wait on this core for records; the limit is {most}");
        return Some(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
    }
    let fetching = connection.fetching.get();
    if fetching > 0 && fetching + reserved > FETCH_BYTES {
        let message = format!(
            "fetches under way on this connection may bring {fetching} bytes, this one {reserved} more; \
             the limit is {FETCH_BYTES}"
        );
        return Some(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
    }
    if core.queued.spent() || (core.queued.pressed() && (fetching > 0 || connection.full())) {
        let (queued, bound) = (core.queued.bytes(), core.queued.bound());
        let message = format!(
            "{queued} bytes are queued for clients of this core; above {bound} a connection fetches {OUT_PRESSED} \
             bytes at a time, above {} nothing",
            2 * bound
        );
        return Some(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
    }
    let client = connection.meters(&core.quotas)?;
    let wait_ns = client.out()?.wait_ns(core.clock.now(), 0, 1);
    (wait_ns > 0).then(|| ReadError::Quota { retry_after_ms: retry_ms(wait_ns) }.to_wire())
}

/// Reads once, for a filter if there is one.
pub(crate) fn begin_fetch(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    shard: ShardId,
    mut fetch: Fetch,
    program: Option<Arc<Program>>,
) -> Step {
    if core.queued.pressed() {
        // Who takes what it gets goes on, a little at a time.
        fetch.max_bytes = fetch.max_bytes.min(OUT_PRESSED as u32);
        fetch.min_bytes = fetch.min_bytes.min(fetch.max_bytes);
    }
    if !connection.asks() {
        // Its filter was being compiled when the peer closed its side.
        fetch.wait_ms = 0;
    }
    let (fetching, reserved) = (connection.fetching.get(), fetch.max_bytes as usize);
    let owner = core.owner(shard);
    let forwarded = (owner != core.index).then_some((owner, 0));
    // One that wants no bytes may wait for quota.
    let waits = fetch.wait_ms > 0;
    if let Some(refusal) = fetch_refusal(core, connection, reserved, waits && forwarded.is_none()) {
        connection.refuse(core, correlation, &refusal);
        return Step::Done;
    }
    let pending = Pending {
        connection: connection.id,
        correlation,
        reserved,
        forwarded,
        waits,
        ..Pending::default()
    };
    let begun = |slot: u64| {
        if waits {
            connection.waits.borrow_mut().insert(slot, shard);
        }
        if let Some(program) = program {
            let fetching = Fetching::new(shard, fetch.from, reserved, program);
            core.filters.fetches.borrow_mut().insert(slot, fetching);
        }
    };
    if forwarded.is_some() {
        connection.fetching.set(fetching + reserved);
        return match core.forward(connection, pending, owner, shard, Ask::Fetch(fetch)) {
            Ok(slot) => {
                begun(slot);
                Step::Done
            }
            Err(error) => {
                connection.fetching.set(fetching);
                connection.refuse(core, correlation, &error);
                Step::Done
            }
        };
    }
    connection.pending.set(connection.pending.get() + 1);
    connection.fetching.set(fetching + reserved);
    core.waits.set(core.waits.get() + usize::from(waits));
    let slot = core.pending.borrow_mut().insert(pending);
    begun(slot);
    core.engine_read(shard, fetch, address(core.index, slot));
    Step::Worked
}

impl CoreState {
    /// Asks the engine for one read.
    pub fn engine_read(&self, shard: ShardId, fetch: Fetch, tag: u64) {
        let now = self.clock.now();
        let request = ReadRequest {
            from: fetch.from,
            max_bytes: fetch.max_bytes as usize,
            min_bytes: fetch.min_bytes as usize,
            deadline_ns: now.mono_ns + u64::from(fetch.wait_ms) * 1_000_000,
            lease: fetch.lease,
            filtered: fetch.filtered,
        };
        self.engine.borrow_mut().read(now, shard, request, tag);
    }

    /// Has the fetches of a connection that wait answered with what there is: its peer asks for nothing more, or is gone.
    pub fn end_waits(&self, connection: &Connection) {
        let mut by_shard = BTreeMap::<ShardId, BTreeSet<u64>>::new();
        for (slot, shard) in connection.waits.take() {
            by_shard.entry(shard).or_default().insert(address(self.index, slot));
        }
        if by_shard.is_empty() {
            return;
        }
        let now = self.clock.now();
        for (shard, tags) in by_shard {
            match self.owner(shard) {
                here if here == self.index => self.engine.borrow_mut().hurry(now, shard, &tags),
                there => self.signal(there, Signal::Hurry { shard, tags }),
            }
        }
        self.log_wake.notify_one();
    }
}
