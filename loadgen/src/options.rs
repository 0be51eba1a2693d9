//! What a run is asked to do, and the check that it can be done.

use std::time::Duration;

use highwater_wire::{
    AckMode, Compression, MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM, ProducerName, StreamName,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schedule::Profile;
use crate::target::lane_name;
use crate::workload::{Keys, Workload};
use crate::{LATE_P99_MAX, LoadError, STEAL_MAX};

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

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Word(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(rate) => Ok(Rate::PerSecond(rate)),
            Form::Word(word) if word == "max" => Ok(Rate::Max),
            Form::Word(word) => Err(serde::de::Error::custom(format!(
                "rate {word:?} is neither a number nor \"max\""
            ))),
        }
    }
}

/// How due times are spaced around the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a run goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Scenario {
    /// A warm-up and a measured window.
    #[default]
    Run,
    /// The same under a burst profile, calm and burst told apart.
    Burst,
    /// Some consumer groups stay away for a while, and return while producers go on. `duration` is what
    /// is measured before that.
    Backlog {
        /// How long they stay away, more than 0.
        #[serde(rename = "outage_s", with = "seconds")]
        outage: Duration,
        /// How long they may take to catch up, more than 0.
        #[serde(rename = "drain_limit_s", with = "seconds")]
        drain_limit: Duration,
        /// How many groups; at least 1 and fewer than there are.
        paused_groups: u32,
    },
}

impl Scenario {
    /// One group away for `outage`, with ten times that, and at least a minute, to catch up.
    pub fn backlog(outage: Duration) -> Scenario {
        let drain_limit = outage.saturating_mul(10).clamp(Duration::from_secs(60), MAX_TIME);
        Scenario::Backlog { outage, drain_limit, paused_groups: 1 }
    }
}

/// When the warm-up ends. Its records are sent at the profile's mean rate and not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WarmUpForm", into = "WarmUpForm")]
pub enum WarmUpRule {
    /// After this long, whatever was seen.
    Fixed(Duration),
    /// When rate and latency have become steady, but no later than `most`.
    Steady {
        /// The longest it may take.
        most: Duration,
    },
}

impl WarmUpRule {
    /// The longest it may last.
    pub fn most(&self) -> Duration {
        match *self {
            WarmUpRule::Fixed(most) | WarmUpRule::Steady { most } => most,
        }
    }
}

/// A warm-up rule as JSON has it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct WarmUpForm {
    steady: bool,
    #[serde(rename = "most_s", with = "seconds")]
    most: Duration,
}

impl From<WarmUpForm> for WarmUpRule {
    fn from(form: WarmUpForm) -> WarmUpRule {
        match form {
            WarmUpForm { steady: true, most } => WarmUpRule::Steady { most },
            WarmUpForm { steady: false, most } => WarmUpRule::Fixed(most),
        }
    }
}

impl From<WarmUpRule> for WarmUpForm {
    fn from(rule: WarmUpRule) -> WarmUpForm {
        WarmUpForm { steady: matches!(rule, WarmUpRule::Steady { .. }), most: rule.most() }
    }
}

/// A run. [`LoadOptions::default`] gives the values named with each field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOptions {
    /// What the run goes through. Default a plain run.
    pub scenario: Scenario,
    /// Server, `host:port`, or another target as the caller of [`crate::run_on`] names it. Default
    /// `127.0.0.1:7411`.
    pub target: String,
    /// Stream to write; created if missing. With several streams, the part of their names before `-0`,
    /// `-1` and so on. Default `load-` and eight random hexadecimal digits.
    pub stream: String,
    /// Streams, 1 to 1,024. Every producer writes to each in turn. Default 1.
    pub streams: u32,
    /// Shards of each stream this run creates, 1 to 4,096. An existing stream keeps its own. Default 1.
    pub shards: u32,
    /// Acknowledgement of a stream this run creates. Default durable.
    pub ack: AckMode,
    /// Bytes kept of a stream this run creates, over all shards. Default 4 GiB.
    pub retention_bytes: u64,
    /// Records per second in total. Default 10,000.
    pub rate: Rate,
    /// Spacing of the due times. Default constant.
    pub arrival: Arrival,
    /// How the rate changes with time. Default flat.
    pub profile: Profile,
    /// Length of the measured window, more than 0 (the outage of a backlog scenario and the catch-up come
    /// on top). Default 10 s.
    #[serde(rename = "duration_s", with = "seconds")]
    pub duration: Duration,
    /// Sent before the measured window and not measured. Default until steady, at most 30 s.
    pub warmup: WarmUpRule,
    /// What records look like. Default 1 KiB of filler each.
    pub workload: Workload,
    /// Partition keys, for workloads that do not bring their own.
    pub keys: Keys,
    /// Producers over all streams, each with its own order in every shard; 1 to 4,096. Producers, streams
    /// and shards multiplied may come to 16,384. Default 1.
    pub producers: usize,
    /// Consumer groups, each of which reads everything; 1 to 64. Default 1.
    pub groups: usize,
    /// Consumers over all groups; `None` one per group and shard, `Some(0)` none (then loss is not
    /// judged), otherwise at least one per group and at most one per group and shard. Default `None`.
    pub consumers: Option<usize>,
    /// Closed loop: this many callers with one record outstanding each, timed from the actual send.
    /// With a rate they share it, and a caller held up past its due times sends at once until it has
    /// caught up. `producers`, `batch_bytes`, `linger` and `inflight` must be left alone then. Default
    /// `None`: open loop.
    pub clients: Option<usize>,
    /// A batch is sent when it has this many bytes. Default 256 KiB.
    pub batch_bytes: usize,
    /// ... or this long after the intended time of its first record; at once if no further record of
    /// the producer for that shard falls due within that time. Default 200 µs.
    #[serde(rename = "linger_us", with = "microseconds")]
    pub linger: Duration,
    /// Unacknowledged batches per producer and shard, 1 to 4,096; in all at most 4 GiB. Default 16.
    pub inflight: usize,
    /// Connections to each of the server's cores, per worker thread; 1 to 64. Default 1.
    pub connections: usize,
    /// How batches are compressed, by the generator as by any client; only for a server. Default not at all.
    #[serde(default)]
    pub compression: Compression,
    /// The name by which the server knows the generator's connections, and may bound them together; 1 to 128
    /// characters. Default `highwater-loadgen`.
    #[serde(default = "client_name")]
    pub client_name: String,
    /// Producers have names that the server keeps: this with `-` and the number of the lane (producer and shard) behind
    /// it. A run with the same name fences off one that is still under way. Only for a server. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// CPUs the worker threads are pinned to, one worker each. Empty: not pinned, and as many workers as
    /// there are producers, at most one less than there are CPUs. Default empty.
    pub cores: Vec<usize>,
    /// CPUs the engine's threads are pinned to, if the target is embedded. Default empty.
    pub engine_cores: Vec<usize>,
    /// Seed of arrivals, keys, sizes and filler. Default random.
    pub seed: u64,
    /// The last stretch before a due time is waited for awake. 0 never spins (and is late by the
    /// timer's 50 to 100 µs). Default 60 µs.
    #[serde(rename = "spin_us", with = "microseconds")]
    pub spin: Duration,
    /// How long to wait at the end for acknowledgements, and then for the consumers. Default 30 s.
    #[serde(rename = "drain_timeout_s", with = "seconds")]
    pub drain_timeout: Duration,
    /// Groups keep their positions at the target, about once a second and at the end, so that whoever watches it
    /// sees them fall behind and catch up. Default true.
    #[serde(default)]
    pub commit: bool,
    /// Streams that held nothing before the run are removed after it. Default false.
    #[serde(default)]
    pub delete_stream: bool,
    /// The target may die and come back: the run waits for it as long as it lasts. Default false.
    pub tolerate_restart: bool,
    /// Nothing answered for so long while something is outstanding ends the run early, unless restarts
    /// are tolerated. More than 0. Default 10 s.
    #[serde(rename = "target_timeout_s", with = "seconds")]
    pub target_timeout: Duration,
    /// Lateness of the generator itself at the 99th percentile that voids a run; more than 0. Default
    /// [`LATE_P99_MAX`].
    #[serde(rename = "late_bound_us", with = "microseconds")]
    pub late_bound: Duration,
    /// Share of the machine's CPU time given to others by the hypervisor that voids a run, 0 to 1. Default
    /// [`STEAL_MAX`].
    #[serde(default = "steal_bound")]
    pub steal_bound: f64,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            scenario: Scenario::Run,
            target: "127.0.0.1:7411".to_owned(),
            stream: format!("load-{:08x}", fastrand::u32(..)),
            streams: 1,
            shards: 1,
            ack: AckMode::Durable,
            retention_bytes: 4 << 30,
            rate: Rate::PerSecond(10_000.0),
            arrival: Arrival::Constant,
            profile: Profile::Flat,
            duration: Duration::from_secs(10),
            warmup: WarmUpRule::Steady { most: Duration::from_secs(30) },
            workload: Workload::Fixed { size: 1 << 10 },
            keys: Keys::default(),
            producers: 1,
            groups: 1,
            consumers: None,
            clients: None,
            batch_bytes: 256 << 10,
            linger: Duration::from_micros(200),
            inflight: 16,
            connections: 1,
            compression: Compression::None,
            client_name: client_name(),
            producer: None,
            cores: Vec::new(),
            engine_cores: Vec::new(),
            // JSON readers keep integers exactly only up to 2⁵³.
            seed: fastrand::u64(..1 << 53),
            spin: Duration::from_micros(60),
            drain_timeout: Duration::from_secs(30),
            commit: true,
            delete_stream: false,
            tolerate_restart: false,
            target_timeout: Duration::from_secs(10),
            late_bound: LATE_P99_MAX,
            steal_bound: STEAL_MAX,
        }
    }
}

fn steal_bound() -> f64 {
    STEAL_MAX
}

fn client_name() -> String {
    "highwater-loadgen".to_owned()
}

/// Most characters of a client's name.
pub(crate) const MAX_CLIENT_NAME: usize = 128;
/// Most producers or closed-loop callers.
pub(crate) const MAX_PRODUCERS: usize = 4096;
/// Most streams of one run.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Most consumer groups.
pub(crate) const MAX_GROUPS: usize = 64;
/// Most lanes: each has a window of batches and a history of its own.
pub(crate) const MAX_LANES: usize = 16_384;

/// Longest time any option may give: far within what nanoseconds in 64 bits hold.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

impl LoadOptions {
    /// Whether every field is in its range and none contradicts another; the first that is not, named
    /// with its value and limit.
    pub fn validate(&self) -> Result<(), LoadError> {
        for name in self.stream_names() {
            StreamName::new(&name).map_err(|source| LoadError::StreamName { name, source })?;
        }
        between("streams", self.streams as usize, 1, MAX_STREAMS)?;
        between("shards", self.shards as usize, 1, MAX_SHARDS_PER_STREAM as usize)?;
        if let Rate::PerSecond(rate) = self.rate
            && !(rate > 0.0 && rate <= 1e9)
        {
            return Err(LoadError::Rate { rate });
        }
        between("producers", self.producers, 1, MAX_PRODUCERS)?;
        between("groups", self.groups, 1, MAX_GROUPS)?;
        if let Some(clients) = self.clients {
            between("clients", clients, 1, MAX_PRODUCERS)?;
        }
        between("batch_bytes", self.batch_bytes, 1, 2 * MAX_RECORD_CEILING as usize)?;
        between("inflight", self.inflight, 1, 4096)?;
        between("connections", self.connections, 1, 64)?;
        self.validate_names()?;
        between("cores", self.cores.len(), 0, 1024)?;
        between("engine_cores", self.engine_cores.len(), 0, 1024)?;
        self.validate_times()?;
        self.validate_together()
    }

    /// The longest the run may take: every part at its limit.
    pub fn longest(&self) -> Duration {
        let scenario = match self.scenario {
            Scenario::Backlog { outage, drain_limit, .. } => outage.saturating_add(drain_limit),
            Scenario::Run | Scenario::Burst => Duration::ZERO,
        };
        // Acknowledgements, the marks and the readers are each waited for.
        let drain = self.drain_timeout.saturating_mul(3);
        [self.warmup.most(), self.duration, scenario, drain, Duration::from_secs(60)]
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The names of the streams: that of `stream`, or with a number at the end if there are several.
    pub fn stream_names(&self) -> impl Iterator<Item = String> {
        let several = self.streams > 1;
        (0..self.streams.max(1)).map(move |n| match several {
            true => format!("{}-{n}", self.stream),
            false => self.stream.clone(),
        })
    }

    fn validate_names(&self) -> Result<(), LoadError> {
        let name = &self.client_name;
        let chars = name.chars().count();
        if chars == 0 || chars > MAX_CLIENT_NAME || name.chars().any(char::is_control) {
            return Err(LoadError::ClientName { name: name.clone(), limit: MAX_CLIENT_NAME });
        }
        if let Some(producer) = &self.producer {
            let name = lane_name(producer, MAX_LANES);
            let valid = ProducerName::new(&name);
            valid.map_err(|source| LoadError::ProducerName { name: producer.clone(), source })?;
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), LoadError> {
        let mut some = vec![
            ("duration", self.duration),
            ("target_timeout", self.target_timeout),
            ("late_bound", self.late_bound),
        ];
        if let Scenario::Backlog { outage, drain_limit, .. } = self.scenario {
            some.extend([("outage", outage), ("drain_limit", drain_limit)]);
        }
        if let WarmUpRule::Steady { most } = self.warmup {
            some.push(("warmup", most));
        }
        for (field, value) in some {
            if value.is_zero() || value > MAX_TIME {
                return Err(LoadError::Duration { field, value, least: "more than 0" });
            }
        }
        for (field, value) in [
            ("warmup", self.warmup.most()),
            ("linger", self.linger),
            ("spin", self.spin),
            ("drain_timeout", self.drain_timeout),
        ] {
            if value > MAX_TIME {
                return Err(LoadError::Duration { field, value, least: "0 or more" });
            }
        }
        Ok(())
    }

    /// What each field allows alone and not together.
    fn validate_together(&self) -> Result<(), LoadError> {
        let refused = |field, value: &dyn std::fmt::Display, why| {
            Err(LoadError::Contradiction { field, value: value.to_string(), why })
        };
        if self.rate == Rate::Max {
            if self.arrival != Arrival::Constant {
                return refused("arrival", &self.arrival, "at rate max nothing is scheduled");
            }
            if self.profile != Profile::Flat {
                return refused("profile", &"not flat", "at rate max nothing is scheduled");
            }
        }
        if self.clients.is_some() {
            let usual = LoadOptions::default();
            let why = "each of the clients has one record outstanding, and sends it at once";
            for (field, value, default) in [
                ("producers", self.producers, usual.producers),
                ("batch_bytes", self.batch_bytes, usual.batch_bytes),
                ("inflight", self.inflight, usual.inflight),
            ] {
                if value != default {
                    return refused(field, &value, why);
                }
            }
            if self.linger != usual.linger {
                return refused("linger", &format!("{:?}", self.linger), why);
            }
        }
        if ["null", "embedded"].iter().any(|kind| self.target.split(':').next() == Some(*kind)) {
            let why = "only a server's client does that";
            if self.compression != Compression::None {
                return refused("compression", &self.compression, why);
            }
            if let Some(producer) = &self.producer {
                return refused("producer", producer, why);
            }
        }
        match self.scenario {
            Scenario::Run => {}
            Scenario::Burst if matches!(self.profile, Profile::Burst(_)) => {}
            Scenario::Burst => {
                return refused("scenario", &"burst", "the profile must be one of bursts");
            }
            Scenario::Backlog { paused_groups, .. } => {
                if paused_groups == 0 || paused_groups as usize >= self.groups {
                    let why = "at least one group must stay away, and at least one stay";
                    return refused("paused_groups", &paused_groups, why);
                }
                if self.consumers == Some(0) {
                    return refused("consumers", &0, "without them there is nothing to catch up");
                }
            }
        }
        if !self.engine_cores.is_empty() && !self.target.starts_with("embedded") {
            let why = "only an embedded target has its engine here";
            return refused("engine_cores", &format!("{:?}", self.engine_cores), why);
        }
        Ok(())
    }
}

/// Whether a number is in its range.
pub(crate) fn between(
    field: &'static str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), LoadError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(LoadError::OutOfRange { field, value: value.to_string(), least, most })
    }
}

/// Durations as seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

/// Durations as microseconds.
pub(crate) mod microseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64() * 1e6)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let microseconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(microseconds / 1e6).map_err(serde::de::Error::custom)
    }
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
        let said = refused(|o| o.streams = 2000);
        assert!(said.contains("streams") && said.contains("2000") && said.contains("1024"));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refused(|o| o.rate = Rate::PerSecond(rate)).contains("rate"));
        }
        assert!(refused(|o| o.duration = Duration::ZERO).contains("duration"));
        assert!(refused(|o| o.warmup = WarmUpRule::Fixed(Duration::MAX)).contains("warmup"));
        assert!(refused(|o| o.target_timeout = Duration::ZERO).contains("target_timeout"));
        assert!(refused(|o| o.producers = 0).contains("producers"));
        assert!(refused(|o| o.groups = 0).contains("groups"));
        assert!(refused(|o| o.clients = Some(0)).contains("clients"));
        assert!(refused(|o| o.stream = "a/b".into()).contains("a/b"));
    }

    #[test]
    fn contradictions_are_named_with_the_reason() {
        let said = refused(|o| (o.rate, o.arrival) = (Rate::Max, Arrival::Poisson));
        assert!(said.contains("arrival") && said.contains("poisson"), "{said}");
        for change in [
            |o: &mut LoadOptions| o.batch_bytes = 1000,
            |o: &mut LoadOptions| o.linger = Duration::ZERO,
            |o: &mut LoadOptions| o.inflight = 1,
            |o: &mut LoadOptions| o.producers = 2,
        ] {
            let said = refused(|o| {
                o.clients = Some(1);
                change(o);
            });
            assert!(said.contains("clients"), "{said}");
        }
        let away = || Scenario::backlog(Duration::from_secs(5));
        assert!(refused(|o| o.scenario = away()).contains("paused_groups"));
        let nobody =
            |o: &mut LoadOptions| (o.scenario, o.groups, o.consumers) = (away(), 2, Some(0));
        assert!(refused(nobody).contains("consumers"));
        assert!(refused(|o| o.scenario = Scenario::Burst).contains("scenario"));
        assert!(refused(|o| o.engine_cores = vec![1]).contains("engine_cores"));
    }

    #[test]
    fn options_come_back_from_json_as_they_went() {
        let mut options = LoadOptions { rate: Rate::Max, ..LoadOptions::default() };
        for scenario in [Scenario::Run, Scenario::backlog(Duration::from_millis(1500))] {
            options.scenario = scenario;
            let json = serde_json::to_string(&options).unwrap();
            let back: LoadOptions = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), json);
            assert_eq!(
                (back.scenario, back.rate, back.linger),
                (scenario, Rate::Max, options.linger)
            );
        }
        options.rate = Rate::PerSecond(7.5);
        options.warmup = WarmUpRule::Fixed(Duration::from_secs(2));
        let json = serde_json::to_value(&options).unwrap();
        assert_eq!(json["warmup"], serde_json::json!({"steady": false, "most_s": 2.0}));
        let back: LoadOptions = serde_json::from_value(json).unwrap();
        assert_eq!((back.rate, back.warmup), (options.rate, options.warmup));
    }
}
