//! A leaf's driver task: connects, backs off, asks for producer ids, watches the time, and follows a closed shard.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::{ErrorCode, HashRange, ProducerStamp};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::outcome::Fate;
use crate::route::heirs;
use crate::window::Time;
use crate::{AppendError, ClientError};

use super::{Heirs, LeafSink, LeafStart, Shared, State};

/// Wait before the stream is described again for heirs that are not there yet: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What the driver is to do next.
enum Step {
    Connect(u16),
    Renew,
    /// The connection's queue is full.
    AwaitQueue(Connection, Option<Time>),
    Sleep(Option<Time>),
    /// The shard is closed and all that it decides is decided.
    Follow(Vec<HashRange>),
    Exit,
}

/// Ends when nothing is left to do.
pub(super) async fn drive(sink: Arc<LeafSink>) {
    let (shared, shard) = (&sink.shared, sink.shard);
    loop {
        match shared.step(shard) {
            Step::Exit => return,
            Step::Connect(port) => match shared.client.pool().to_core(port).await {
                Ok(connection) => {
                    shared.report(shard, |leaf, _| leaf.connection = Some(connection));
                }
                Err(error) => shared.report(shard, |leaf, now| {
                    leaf.window.unreachable(&ClientError::Connect(error), now);
                }),
            },
            Step::Renew => renew(shared, shard).await,
            Step::AwaitQueue(connection, alarm) => tokio::select! {
                // Whether there is room now or the connection ended: look again.
                _room = connection.permit() => {}
                // Time passes for the window although the connection stands still.
                () = shared.until(alarm) => {}
            },
            Step::Sleep(alarm) => tokio::select! {
                () = sink.work.notified() => {}
                () = shared.until(alarm) => {}
            },
            Step::Follow(ranges) => match find_heirs(shared, shard, &ranges).await {
                Ok((starts, heirs)) => return shared.follow(shard, starts, heirs),
                Err(error) => shared.give_up(shard, &error),
            },
        }
    }
}

async fn renew(shared: &Arc<Shared>, shard: u32) {
    let Some((old, fenced_by)) = ({
        let state = shared.state();
        state.leaves.get(&shard).map(|l| (l.window.next_stamp(), l.window.fenced_by()))
    }) else {
        return;
    };
    match shared.identity.renew(old, fenced_by).await {
        Ok(stamp) => shared.report(shard, |leaf, _| leaf.window.renewed(stamp.id, stamp.epoch)),
        Err(error) => shared.report(shard, |leaf, now| {
            let fenced = error.code() == Some(ErrorCode::ProducerFenced);
            if !error.retriable() {
                leaf.window.abandon(&error, fenced);
            }
            if !fenced {
                leaf.window.unreachable(&error, now);
            }
        }),
    }
}

/// The open shards that took over `ranges`, asked for until they are there.
async fn find_heirs(
    shared: &Shared,
    shard: u32,
    ranges: &[HashRange],
) -> Result<(Vec<LeafStart>, Heirs), ClientError> {
    let deadline = Instant::now().checked_add(shared.client.options().retry.deadline);
    let mut wait = LOOK_AGAIN.0;
    loop {
        let why = match shared.client.describe_stream(&shared.stream).await {
            Ok(stream) if stream.id != shared.stream_id => {
                return Err(ClientError::Protocol("the stream was deleted".to_owned()));
            }
            Ok(stream) => match heirs(&stream, shard, ranges) {
                Some(heirs) => {
                    let start = |(shard, ranges): &(u32, Vec<HashRange>)| {
                        let described = stream.shards.iter().find(|s| s.shard == *shard);
                        let port = described.map_or(0, |s| s.port);
                        let ranges = ranges.clone();
                        LeafStart { shard: *shard, port, ranges, producer: None }
                    };
                    return Ok((heirs.iter().map(start).collect(), heirs));
                }
                None => {
                    let name = &shared.stream;
                    ClientError::Protocol(format!("shard {shard} of {name} has no open heirs"))
                }
            },
            Err(error) if error.retriable() => error,
            Err(error) => return Err(error),
        };
        if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(why);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN.1);
    }
}

impl Shared {
    /// What the driver is to do; it is not woken for less than that.
    fn step(self: &Arc<Self>, shard: u32) -> Step {
        let now = self.now();
        let mut state = self.state();
        let silence = self.client.options().request_timeout;
        let Some(leaf) = state.leaves.get_mut(&shard) else { return Step::Exit };
        if leaf.window.tick(now)
            && let Some(connection) = &leaf.connection
            && connection.silent_for(silence)
        {
            connection.end();
        }
        if leaf.connection.as_ref().is_some_and(Connection::is_dead) {
            leaf.connection = None;
        }
        self.advance(&mut state, shard, now);
        let closed = state.closed;
        let Some(leaf) = state.leaves.get_mut(&shard) else { return Step::Exit };
        if leaf.window.is_empty() {
            let new = !leaf.lost || !leaf.moved.is_empty();
            let left = leaf.window.is_closed() && self.follows() && new;
            if left && !(closed && leaf.moved.is_empty()) {
                return Step::Follow(leaf.ranges.clone());
            }
        }
        if closed && state.is_idle() {
            state.leaves.remove(&shard);
            return Step::Exit;
        }
        let Some(leaf) = state.leaves.get_mut(&shard) else { return Step::Exit };
        if leaf.window.wants_producer() {
            return Step::Renew;
        }
        if leaf.window.wants_to_send(now) {
            let alarm = leaf.window.next_timeout();
            return match &leaf.connection {
                Some(connection) => Step::AwaitQueue(connection.clone(), alarm),
                None => Step::Connect(leaf.port),
            };
        }
        leaf.alarm = leaf.window.next_tick();
        Step::Sleep(leaf.alarm)
    }

    /// Leaves a closed shard for those who took over: what it did not take goes there first.
    fn follow(self: &Arc<Self>, shard: u32, starts: Vec<LeafStart>, heirs: Heirs) {
        let now = self.now();
        let mut state = self.state();
        let Some(leaf) = state.leaves.remove(&shard) else { return };
        // The same id: to the heirs it is new, and each counts its sequences for itself.
        let producer = Some(leaf.window.next_stamp()).filter(|stamp| stamp.id != 0);
        let producer = producer.map(|stamp| ProducerStamp { sequence: 0, ..stamp });
        for start in starts {
            if let Some(heir) = state.leaves.get_mut(&start.shard) {
                // A merge: another parent was left before.
                heir.ranges.extend(start.ranges);
            } else if !state.left.contains_key(&start.shard) {
                self.open(&mut state, LeafStart { producer, ..start });
            }
        }
        replace(&mut state, shard, &heirs);
        state.left.insert(shard, heirs.clone());
        for (parcel, moved) in leaf.moved {
            self.divide(&mut state, parcel, moved, &heirs, now);
        }
        leaf.room.notify_waiters();
        if state.closed && state.is_idle() {
            state.wake_drivers();
        }
    }

    /// The heirs cannot be found: what was to go there is not stored.
    fn give_up(&self, shard: u32, error: &ClientError) {
        let mut state = self.state();
        let Some(leaf) = state.leaves.get_mut(&shard) else { return };
        leaf.lost = true;
        for (parcel, moved) in leaf.moved.drain(..) {
            let error = AppendError::NotStored(error.clone());
            parcel.settle_from(moved.first, Fate::Failed(error));
        }
        leaf.room.notify_waiters();
        if state.closed && state.is_idle() {
            state.wake_drivers();
        }
    }
}

/// Whoever counted on `shard` now counts on its heirs, for their part.
fn replace(state: &mut State, shard: u32, heirs: &Heirs) {
    for known in state.left.values_mut() {
        let Some(at) = known.iter().position(|(heir, _)| *heir == shard) else { continue };
        let (_, ranges) = known.remove(at);
        for (heir, parts) in heirs {
            let parts = parts.iter().flat_map(|part| {
                ranges.iter().filter_map(|range| {
                    let (start, end) = (range.start.max(part.start), range.end.min(part.end));
                    (start <= end).then_some(HashRange { start, end })
                })
            });
            let parts: Vec<_> = parts.collect();
            match known.iter_mut().find(|(other, _)| other == heir) {
                _ if parts.is_empty() => {}
                Some((_, ranges)) => ranges.extend(parts),
                None => known.push((*heir, parts)),
            }
        }
    }
}
