//! The check that a run can be done: every option in its range, and none against another.

use highwater_wire::{
    Compression, MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM, ProducerName, StreamName,
};

use super::{
    Arrival, LoadOptions, MAX_CLIENT_NAME, MAX_GROUPS, MAX_LANES, MAX_PRODUCERS, MAX_STREAMS,
    MAX_TIME, RETENTION_LEAST, Rate, Scenario, WarmUpRule,
};
use crate::LoadError;
use crate::schedule::Profile;
use crate::target::lane_name;

impl LoadOptions {
    /// Whether every field is in its range and none contradicts another; the first that is not, named
    /// with its value and limit.
    pub fn validate(&self) -> Result<(), LoadError> {
        for name in self.stream_names() {
            StreamName::new(&name).map_err(|source| LoadError::StreamName { name, source })?;
        }
        between("streams", self.streams as usize, 1, MAX_STREAMS)?;
        between("shards", self.shards as usize, 1, MAX_SHARDS_PER_STREAM as usize)?;
        if (1..RETENTION_LEAST).contains(&self.retention_bytes) {
            return Err(LoadError::Retention {
                value: self.retention_bytes,
                least: RETENTION_LEAST,
            });
        }
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
