//! The meters a batch has to pass: those of its shard, of its stream and of whoever appends it.

use std::sync::Arc;

use crate::quota::{Demand, Meters};
use crate::types::{Now, Policy};

/// The meters of a shard.
#[derive(Debug, Default)]
pub(super) struct Metering {
    shard: Meters,
    /// Shared by all shards of the stream.
    stream: Option<Arc<Meters>>,
    /// Whether any of them meters appends.
    pub appends: bool,
    /// Whether any of them meters reads.
    pub reads: bool,
}

fn least(rooms: impl Iterator<Item = Demand>) -> Demand {
    let most = Demand { records: u64::MAX, bytes: u64::MAX };
    rooms.fold(most, |a, b| Demand {
        records: a.records.min(b.records),
        bytes: a.bytes.min(b.bytes),
    })
}

impl Metering {
    pub fn new(policy: &Policy, stream: Option<Arc<Meters>>) -> Metering {
        Metering { shard: Meters::new(&policy.quota), ..Metering::default() }.with_stream(stream)
    }

    /// The same with other meters for the stream.
    pub fn with_stream(self, stream: Option<Arc<Meters>>) -> Metering {
        let has = |of: fn(&Meters) -> bool| of(&self.shard) || stream.as_deref().is_some_and(of);
        let (appends, reads) = (has(Meters::meter_in), has(|meters| meters.out().is_some()));
        Metering { shard: self.shard, stream, appends, reads }
    }

    fn all<'a>(&'a self, client: Option<&'a Meters>) -> impl Iterator<Item = &'a Meters> {
        std::iter::once(&self.shard).chain(self.stream.as_deref()).chain(client)
    }

    /// Whether a batch fits the shard's and the stream's quota; one that may be `cut` takes no more than there is,
    /// another may be larger than the burst and then be paid back.
    pub fn fits(&self, now: Now, demand: Demand, cut: bool) -> bool {
        self.all(None).all(|meters| meters.fits(now, demand, cut))
    }

    /// What fits all of them.
    pub fn room(&self, now: Now, client: Option<&Meters>) -> Demand {
        least(self.all(client).map(|meters| meters.room(now)))
    }

    /// What fits all of them beside a sample.
    pub fn spare(&self, now: Now, client: Option<&Meters>) -> Demand {
        least(self.all(client).map(|meters| meters.spare(now)))
    }

    /// Whether all of every burst is there.
    pub fn full(&self, now: Now, client: Option<&Meters>) -> bool {
        self.all(client).all(|meters| meters.full(now))
    }

    /// Whether appends come to the shard as fast as its own quota lets them.
    pub fn pressed(&self, now: Now) -> bool {
        self.shard.low(now)
    }

    /// A batch passes.
    pub fn take(&self, now: Now, demand: Demand, client: Option<&Meters>) {
        self.all(client).for_each(|meters| meters.take(now, demand));
    }

    /// Nanoseconds until `demand` fits once `before` has passed.
    pub fn wait_ns(
        &self,
        now: Now,
        before: Demand,
        demand: Demand,
        client: Option<&Meters>,
    ) -> u64 {
        self.all(client).map(|meters| meters.wait_ns(now, before, demand)).max().unwrap_or(0)
    }

    /// Bytes that a reader may be given now, or nanoseconds until it may be given any. What is given is whole
    /// batches, so it may be more; it is paid for all the same.
    pub fn room_out(&self, now: Now, client: Option<&Meters>) -> Result<u64, u64> {
        let out = || self.all(client).filter_map(Meters::out);
        let wait_ns = out().map(|meter| meter.wait_ns(now, 0, 1)).max().unwrap_or(0);
        if wait_ns > 0 {
            return Err(wait_ns);
        }
        Ok(out().map(|meter| meter.room(now)).min().unwrap_or(u64::MAX).max(1))
    }

    /// A reader is given so many bytes.
    pub fn take_out(&self, now: Now, bytes: u64, client: Option<&Meters>) {
        self.all(client).filter_map(Meters::out).for_each(|meter| meter.take(now, bytes));
    }
}
