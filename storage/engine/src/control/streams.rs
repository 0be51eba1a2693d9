//! Streams: created, removed, described.

use std::collections::BTreeMap;

use highwater_wire::{
    MAX_SHARDS_PER_STREAM, ShardDescription, ShardId, StreamConfig, StreamDescription,
};

use super::error::stream_name;
use super::{Control, ControlError, PATIENCE, now_ns, settings};
use crate::catalogue::StreamRecord;
use crate::core::CoreCommand;
use crate::store::specs_of;
use crate::types::ShardStatus;

impl Control {
    /// Creates a stream: kept durably, then served.
    pub fn create_stream(
        &mut self,
        name: &str,
        config: StreamConfig,
    ) -> Result<StreamDescription, ControlError> {
        stream_name(name)?;
        if !(1..=MAX_SHARDS_PER_STREAM).contains(&config.shards) {
            let limit = format!("1 to {MAX_SHARDS_PER_STREAM} are allowed");
            return Err(ControlError::Argument {
                field: "shards",
                value: config.shards.into(),
                limit,
            });
        }
        if self.streams.contains_key(name) {
            return Err(ControlError::StreamExists(name.to_owned()));
        }
        settings::check(&config)?;
        self.bounds.check(Some(config.retention_bytes), Some(&config.backpressure))?;
        let record = self.catalogue().add_stream(name, config, now_ns())?;
        self.streams.insert(name.to_owned(), record.clone());
        for spec in specs_of(name, &record) {
            self.tell(spec.id, CoreCommand::AddShard(spec))?;
        }
        self.describe(name)
    }

    /// Removes a stream and its records: forgotten durably, then its files go.
    pub fn delete_stream(&mut self, name: &str) -> Result<(), ControlError> {
        let record = self.find(name)?.clone();
        self.catalogue().remove_stream(name, record.id)?;
        self.streams.remove(name);
        self.positions.retain(|(_, stream, _), _| *stream != record.id);
        self.members.forget_stream(record.id);
        self.deliveries.forget_stream(record.id);
        self.ends.retain(|id, _| id.stream != record.id);
        let shards = record.shards.iter().map(|s| ShardId { stream: record.id, shard: s.shard });
        self.remove_files(name, shards.collect())
    }

    /// Has the cores remove shards that the catalogue has forgotten.
    pub(super) fn remove_files(
        &mut self,
        name: &str,
        shards: Vec<ShardId>,
    ) -> Result<(), ControlError> {
        let mut waits = Vec::new();
        for &shard in &shards {
            // A core that is gone has its files removed at the next start.
            waits.extend(self.ask(shard, |done| CoreCommand::RemoveShard { shard, done }));
            self.routes.forget(shard);
        }
        for (core, wait) in waits {
            match wait.recv_timeout(PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    return Err(ControlError::Remove { stream: name.to_owned(), reason });
                }
                Err(_) => return Err(ControlError::CoreGone(core)),
            }
        }
        Ok(())
    }

    /// Describes a stream. Ports are left at 0: only a server has them.
    pub fn describe(&self, name: &str) -> Result<StreamDescription, ControlError> {
        let record = self.find(name)?;
        Ok(self.description(name, record, &self.status()?))
    }

    /// Describes all streams, by name.
    pub fn list_streams(&self) -> Result<Vec<StreamDescription>, ControlError> {
        let status = self.status()?;
        Ok(self
            .streams
            .iter()
            .map(|(name, record)| self.description(name, record, &status))
            .collect())
    }

    fn description(
        &self,
        name: &str,
        record: &StreamRecord,
        status: &BTreeMap<ShardId, ShardStatus>,
    ) -> StreamDescription {
        // No child is told to anybody before its parents have nothing in flight.
        let at_work = |parent: &u32| {
            let of = status.get(&ShardId { stream: record.id, shard: *parent });
            of.is_some_and(|of| of.closed && of.state == "closing")
        };
        let told = record.shards.iter().filter(|kept| !kept.parents.iter().any(at_work));
        let shards = told.map(|kept| {
            let id = ShardId { stream: record.id, shard: kept.shard };
            let of = status.get(&id);
            ShardDescription {
                shard: kept.shard,
                hash_start: kept.hash_start,
                hash_end: kept.hash_end,
                core: self.routes.core_of(id) as u32,
                port: 0,
                oldest: of.map_or(0, |s| s.oldest),
                high_water: of.map_or(0, |s| s.high_water),
                stored_bytes: of.map_or(0, |s| s.stored_bytes),
                log_bytes: of.map_or(0, |s| s.log_bytes),
                state: of.map_or_else(|| "missing".to_owned(), |s| s.state.clone()),
                closed: kept.closed,
                parents: kept.parents.clone(),
                children: kept.children.clone(),
                counters: of.map_or_else(Default::default, |s| s.counters),
                advice: self.tending.advice(id),
            }
        });
        StreamDescription {
            name: name.to_owned(),
            id: record.id,
            created_ns: record.created_ns,
            config: record.config.clone(),
            shards: shards.collect(),
        }
    }
}
