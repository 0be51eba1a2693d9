//! What a run is asked to do, and the check that it can be done.

use std::time::Duration;

use highwater_wire::{AckMode, MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM, StreamName};
use serde::{Serialize, Serializer};

use crate::{LoadError, payload};

/// How fast records are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Records per second, all producers together; more than 0 and at most 10⁹.
    PerSecond(f64),
    /// As fast as the target takes them. Nothing is scheduled then: the intended time of a record is the
    /// moment it was made, so response says nothing about records that could not even be offered.
    Max,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rate::PerSecond(rate) => write!(f, "{rate}"),
            Rate::Max => f.write_str("max"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Rate::PerSecond(rate) => serializer.serialize_f64(*rate),
            Rate::Max => serializer.serialize_str("max"),
        }
    }
}

/// How due times are spaced around the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Evenly: the k-th record at `start + k / rate`.
    #[default]
    Constant,
    /// As independent producers behave: exponential gaps, seeded.
    Poisson,
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arrival::Constant => "constant",
            Arrival::Poisson => "poisson",
        })
    }
}

/// A run. [`LoadOptions::default`] gives the values named with each field.
#[derive(Clone, Debug, Serialize)]
pub struct LoadOptions {
    /// Server, `host:port`. Default `127.0.0.1:7411`.
    pub target: String,
    /// Stream to write; created if missing. Default `load-` and eight random hexadecimal digits.
    pub stream: String,
    /// Shards of a stream this run creates, 1 to 4,096. An existing stream keeps its own. Default 1.
    pub shards: u32,
    /// Acknowledgement of a stream this run creates. Default durable.
    pub ack: AckMode,
    /// Bytes kept of a stream this run creates, over all shards. Default 4 GiB.
    pub retention_bytes: u64,
    /// Records per second in total. Default 10,000.
    pub rate: Rate,
    /// Spacing of the due times. Default constant.
    pub arrival: Arrival,
    /// Length of the measured window, more than 0. Default 10 s.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    /// Sent before the measured window at the same rate and not measured. Default 1 s.
    #[serde(rename = "warmup_s", serialize_with = "seconds")]
    pub warmup: Duration,
    /// Payload bytes of a record, at least [`payload::HEADER_LEN`]. Default 1 KiB.
    pub record_size: usize,
    /// Producers, each with its own order in every shard; 1 to 4,096. Default 1.
    pub producers: usize,
    /// Shard consumers; `None` one per shard, `Some(0)` none (then loss is not judged), otherwise at
    /// most one per shard: records of shards without one are not judged. Default `None`.
    pub consumers: Option<usize>,
    /// Closed loop: this many callers with one record outstanding each, timed from the actual send.
    /// With a rate they share it, and a caller held up past its due times sends at once until it has
    /// caught up. `producers`, `batch_bytes`, `linger` and `inflight` then mean nothing. Default `None`:
    /// open loop.
    pub clients: Option<usize>,
    /// A batch is sent when it has this many bytes. Default 256 KiB.
    pub batch_bytes: usize,
    /// ... or this long after the intended time of its first record; at once if no further record of
    /// the producer for that shard falls due within that time. Default 200 µs.
    #[serde(rename = "linger_us", serialize_with = "microseconds")]
    pub linger: Duration,
    /// Unacknowledged batches per producer and shard, 1 to 4,096; in all at most 4 GiB. Default 16.
    pub inflight: usize,
    /// Connections to each of the server's cores, per worker thread; 1 to 64. Default 1.
    pub connections: usize,
    /// CPUs the worker threads are pinned to, one worker each. Empty: not pinned, and as many workers as
    /// there are producers, at most one less than there are CPUs. Default empty.
    pub cores: Vec<usize>,
    /// Seed of arrivals, keys and filler. Default random.
    pub seed: u64,
    /// The last stretch before a due time is waited for awake. 0 never spins (and is late by the
    /// timer's 50 to 100 µs). Default 60 µs.
    #[serde(rename = "spin_us", serialize_with = "microseconds")]
    pub spin: Duration,
    /// How long to wait at the end for acknowledgements, and then for the consumers. Default 30 s.
    #[serde(rename = "drain_timeout_s", serialize_with = "seconds")]
    pub drain_timeout: Duration,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            target: "127.0.0.1:7411".to_owned(),
            stream: format!("load-{:08x}", fastrand::u32(..)),
            shards: 1,
            ack: AckMode::Durable,
            retention_bytes: 4 << 30,
            rate: Rate::PerSecond(10_000.0),
            arrival: Arrival::Constant,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            record_size: 1 << 10,
            producers: 1,
            consumers: None,
            clients: None,
            batch_bytes: 256 << 10,
            linger: Duration::from_micros(200),
            inflight: 16,
            connections: 1,
            cores: Vec::new(),
            // JSON readers keep integers exactly only up to 2⁵³.
            seed: fastrand::u64(..1 << 53),
            spin: Duration::from_micros(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl LoadOptions {
    /// Whether every field is in its range; the first that is not, named with its value and limit.
    pub fn validate(&self) -> Result<(), LoadError> {
        let between = |field, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(LoadError::OutOfRange { field, value: value.to_string(), least, most })
            }
        };
        StreamName::new(&self.stream)
            .map_err(|source| LoadError::StreamName { name: self.stream.clone(), source })?;
        between("shards", self.shards as usize, 1, MAX_SHARDS_PER_STREAM as usize)?;
        if let Rate::PerSecond(rate) = self.rate
            && !(rate > 0.0 && rate <= 1e9)
        {
            return Err(LoadError::Rate { rate });
        }
        if self.duration.is_zero() || self.duration > MAX_TIME {
            return Err(LoadError::Duration { field: "duration", value: self.duration });
        }
        for (field, value) in [
            ("warmup", self.warmup),
            ("linger", self.linger),
            ("spin", self.spin),
            ("drain_timeout", self.drain_timeout),
        ] {
            if value > MAX_TIME {
                return Err(LoadError::Duration { field, value });
            }
        }
        let ceiling = MAX_RECORD_CEILING as usize;
        between("record_size", self.record_size, payload::HEADER_LEN, ceiling)?;
        between("producers", self.producers, 1, MAX_PRODUCERS)?;
        if let Some(clients) = self.clients {
            between("clients", clients, 1, MAX_PRODUCERS)?;
        }
        between("batch_bytes", self.batch_bytes, 1, 2 * ceiling)?;
        between("inflight", self.inflight, 1, 4096)?;
        between("connections", self.connections, 1, 64)?;
        between("cores", self.cores.len(), 0, 1024)
    }
}

/// Most producers or closed-loop callers: each has its own state in every shard.
const MAX_PRODUCERS: usize = 4096;

/// Longest time any option may give: far within what nanoseconds in 64 bits hold.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

fn seconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64())
}

fn microseconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut LoadOptions)) -> String {
        let mut options = LoadOptions::default();
        options.validate().unwrap();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn fields_out_of_range_are_named_with_value_and_limit() {
        let said = refused(|o| o.record_size = 8);
        assert!(
            said.contains("record_size") && said.contains('8') && said.contains("32"),
            "{said}"
        );
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refused(|o| o.rate = Rate::PerSecond(rate)).contains("rate"));
        }
        assert!(refused(|o| o.duration = Duration::ZERO).contains("duration"));
        assert!(refused(|o| o.warmup = Duration::MAX).contains("warmup"));
        assert!(refused(|o| o.producers = 0).contains("producers"));
        assert!(refused(|o| o.clients = Some(0)).contains("clients"));
        assert!(refused(|o| o.stream = "a/b".into()).contains("a/b"));
    }
}
