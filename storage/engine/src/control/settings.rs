//! Settings that change while a stream is served, trims, named producers, quotas of client names. Durable first,
//! then told to the cores.

use highwater_wire::{
    Backpressure, ClientQuota, MAX_SHARDS_PER_STREAM, NameError, ProducerName, Quota, ShardId,
    StreamChange, StreamConfig, StreamDescription, TrimBefore,
};

use super::{Control, ControlError, unknown_shard};
use crate::catalogue::StreamRecord;
use crate::core::CoreCommand;
use crate::store::{Store, specs_of};
use crate::types::Start;

/// Longest burst of a quota and longest time a batch may be held, milliseconds: an hour.
const LONGEST_MS: u64 = 3_600_000;

/// Longest client name, characters.
const CLIENT_NAME: usize = 128;

impl Control {
    /// Changes a stream's settings. In force when it returns, and after every restart.
    pub fn set_stream(
        &mut self,
        name: &str,
        change: &StreamChange,
    ) -> Result<StreamDescription, ControlError> {
        let mut record = self.find(name)?.clone();
        let config = &mut record.config;
        config.retention_ms = change.retention_ms.unwrap_or(config.retention_ms);
        config.retention_bytes = change.retention_bytes.unwrap_or(config.retention_bytes);
        config.quota = change.quota.unwrap_or(config.quota);
        config.stream_quota = change.stream_quota.unwrap_or(config.stream_quota);
        config.backpressure = change.backpressure.unwrap_or(config.backpressure);
        check(config)?;
        // What is in force already stays so, also where the server has less memory now.
        self.bounds.check(change.retention_bytes, change.backpressure.as_ref())?;
        self.update(name, record)?;
        self.describe(name)
    }

    /// Gives up the records of one shard, or of all, that lie before a sequence number or arrived before a time. The
    /// oldest position moves at once; the space comes back by whole segments.
    ///
    /// # Errors
    /// When a sequence number lies beyond the end of the shard that was named, or beyond those of all. (Otherwise each
    /// is trimmed as far as it goes.)
    pub fn trim(
        &mut self,
        name: &str,
        shard: Option<u32>,
        before: TrimBefore,
    ) -> Result<StreamDescription, ControlError> {
        let mut record = self.find(name)?.clone();
        if let Some(odd) = shard.filter(|s| record.shard(*s).is_none()) {
            return Err(unknown_shard(name, &record, odd));
        }
        let status = self.status()?;
        let stream = record.id;
        let ends = record
            .shards
            .iter()
            .map(|s| status.get(&ShardId { stream, shard: s.shard }).map_or(0, |s| s.high_water));
        if let TrimBefore::Sequence(sequence) = before
            && shard.is_none()
            && let Some(last) = ends.max().filter(|last| sequence > *last)
        {
            return Err(ControlError::Argument {
                field: "before",
                value: sequence,
                limit: format!("no shard goes beyond {last}"),
            });
        }
        for kept in record.shards.iter_mut().filter(|s| shard.is_none_or(|only| only == s.shard)) {
            let id = ShardId { stream, shard: kept.shard };
            let end = status.get(&id).map_or(0, |s| s.high_water);
            let to = match before {
                TrimBefore::Sequence(sequence) if sequence > end && shard.is_some() => {
                    return Err(ControlError::Argument {
                        field: "before",
                        value: sequence,
                        limit: format!("shard {} ends at {end}", kept.shard),
                    });
                }
                TrimBefore::Sequence(sequence) => sequence.min(end),
                TrimBefore::Time(time_ns) => self.first_at(name, id, time_ns)?,
            };
            kept.trimmed = kept.trimmed.max(to);
        }
        self.update(name, record)?;
        self.describe(name)
    }

    /// The first record of a shard that arrived at a time or later, or one within an index interval before it: then
    /// fewer are trimmed.
    fn first_at(&self, name: &str, shard: ShardId, time_ns: u64) -> Result<u64, ControlError> {
        self.locate(name, shard, Start::Time(time_ns)).map(|located| located.sequence)
    }

    /// Keeps a stream as it is now, and gives its shards their new settings.
    pub(super) fn update(&mut self, name: &str, record: StreamRecord) -> Result<(), ControlError> {
        self.catalogue().update_stream(name, &record)?;
        self.tending.forget(record.id);
        let specs = specs_of(name, &record);
        self.streams.insert(name.to_owned(), record);
        for spec in specs {
            self.tell(spec.id, CoreCommand::Respec(spec))?;
        }
        Ok(())
    }

    /// The producer of a name, with an epoch greater than any before. When it returns, no core takes anything from
    /// an older one.
    pub fn open_producer(&mut self, name: &str) -> Result<(u64, u32), ControlError> {
        ProducerName::new(name).map_err(|reason| ControlError::Name {
            field: "producer",
            name: name.to_owned(),
            reason,
        })?;
        let producer = self.catalogue().open_producer(name)?;
        let (id, epoch) = (producer.id, producer.epoch);
        self.ask_all(|done| CoreCommand::Fence { id, epoch, done })?;
        Ok((id, epoch))
    }

    /// Bounds all connections that greet with a name; a quota of zeros lifts that.
    pub fn set_client_quota(&mut self, client: &str, quota: Quota) -> Result<(), ControlError> {
        let refuse =
            |reason| ControlError::Name { field: "client", name: client.to_owned(), reason };
        match client.chars().count() {
            0 => return Err(refuse(NameError::Empty)),
            1..=CLIENT_NAME => {}
            long => return Err(refuse(NameError::TooLong(long))),
        }
        check_quota(&quota)?;
        self.catalogue().set_client_quota(client, quota)?;
        self.quotas.set_client(client, &quota);
        Ok(())
    }

    /// The quotas of client names, by name.
    pub fn client_quotas(&self) -> Result<Vec<ClientQuota>, ControlError> {
        Ok(self.catalogue().client_quotas()?)
    }
}

/// Held back whatever the server's memory: what `buffer` and `drop-oldest` mean if no size is said.
const ALWAYS_HELD: u64 = 64 << 20;

/// Bounds of settings that depend on how the server was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Least bytes that a stream may be bounded to, if it is.
    retention: u64,
    /// Most bytes that a shard may be told to hold back.
    held: u64,
}

impl Bounds {
    /// Those of a store.
    pub fn of(store: &Store) -> Bounds {
        Bounds {
            // The segment that is written, and one that is full: with less, each that fills would go at once.
            retention: 2 * store.smallest_segment(),
            held: store.held_bytes().max(ALWAYS_HELD),
        }
    }

    /// Whether what is to be set is within them.
    pub fn check(
        &self,
        retention_bytes: Option<u64>,
        backpressure: Option<&Backpressure>,
    ) -> Result<(), ControlError> {
        if let Some(value @ 1..) = retention_bytes
            && value < self.retention
        {
            let limit = format!("{} at least (two segments), or 0 for no bound", self.retention);
            return Err(ControlError::Argument { field: "retention_bytes", value, limit });
        }
        match backpressure {
            Some(Backpressure::Buffer { bytes, .. } | Backpressure::DropOldest { bytes, .. })
                if *bytes > self.held =>
            {
                let limit = format!("at most {}: a core has no more memory for it", self.held);
                Err(ControlError::Argument { field: "backpressure bytes", value: *bytes, limit })
            }
            _ => Ok(()),
        }
    }
}

fn at_most(field: &'static str, value: u64, limit: u64) -> Result<(), ControlError> {
    if value > limit {
        return Err(ControlError::Argument { field, value, limit: format!("at most {limit}") });
    }
    Ok(())
}

fn check_quota(quota: &Quota) -> Result<(), ControlError> {
    at_most("burst_ms", quota.burst_ms.into(), LONGEST_MS)
}

/// Whether settings of a stream are within their ranges.
pub(super) fn check(config: &StreamConfig) -> Result<(), ControlError> {
    check_quota(&config.quota)?;
    check_quota(&config.stream_quota)?;
    match config.backpressure {
        Backpressure::Reduce | Backpressure::DropNewest => Ok(()),
        Backpressure::Scale { max_shards } => {
            at_most("max_shards", max_shards.into(), MAX_SHARDS_PER_STREAM.into())
        }
        Backpressure::Buffer { age_ms, .. } | Backpressure::DropOldest { age_ms, .. } => {
            at_most("age_ms", age_ms, LONGEST_MS)
        }
        Backpressure::Sample { ppm: 0, .. } => Err(ControlError::Argument {
            field: "ppm",
            value: 0,
            limit: "1 to 1000000 are allowed; to keep none there is drop-newest".to_owned(),
        }),
        Backpressure::Sample { ppm, .. } => at_most("ppm", ppm.into(), 1_000_000),
    }
}
