//! The control database: streams, positions of consumer groups, counters. Small and rarely written, so an
//! embedded database does it; never touched by a shard's thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use highwater_wire::{ClientQuota, DeliveryConfig, Quota, StreamConfig};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::deliveries::{Kept, KeptShard};
use crate::layout::{Layout, ShardRecord, first_shards};
use crate::producers::IdsGiven;

const STREAMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("streams");
const POSITIONS: TableDefinition<'_, (&str, u32, u32), u64> = TableDefinition::new("positions");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
/// By name: producer id and the epoch given out last.
const PRODUCERS: TableDefinition<'_, &str, (u64, u32)> = TableDefinition::new("producers");
const CLIENT_QUOTAS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("client_quotas");
/// By group and stream number: how it settles record by record.
const DELIVERY_CONFIGS: TableDefinition<'_, (&str, u32), &[u8]> =
    TableDefinition::new("delivery_configs");
/// By group, stream number and shard: what is settled, and what waits.
const DELIVERIES: TableDefinition<'_, (&str, u32, u32), &[u8]> = TableDefinition::new("deliveries");

/// Producer ids are set aside in lots, so that most cost no transaction.
const PRODUCER_LOT: u64 = 1024;

/// Named producers that may be kept; their epochs are held in memory by every core.
pub const MAX_NAMED_PRODUCERS: u64 = 65_536;

/// Client names that may have a quota.
pub const MAX_CLIENT_QUOTAS: u64 = 4_096;

/// Why the control database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The database, or the disk under it.
    #[error("the control database failed: {0}")]
    Database(Box<redb::Error>),
    /// A value in it does not parse.
    #[error("the control database holds {what} {name:?} that does not parse: {reason}")]
    Value {
        /// `a stream`, `a client's quota`.
        what: &'static str,
        /// Its key.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A table is full.
    #[error("there are {limit} {what}; no more are kept")]
    Full {
        /// Which.
        what: &'static str,
        /// How many.
        limit: u64,
    },
}

impl<E: Into<redb::Error>> From<E> for CatalogueError {
    fn from(error: E) -> CatalogueError {
        CatalogueError::Database(Box::new(error.into()))
    }
}

/// A stream as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its number, never reused.
    pub id: u32,
    /// When it was created, nanoseconds since 1970 UTC.
    pub created_ns: u64,
    /// What it was created with, and set to since.
    pub config: StreamConfig,
    /// Its shards, by number. (Releases before splits did not keep them: then those it was created with.)
    #[serde(default)]
    pub shards: Vec<ShardRecord>,
    /// Number of the next shard.
    #[serde(default)]
    pub next_shard: u32,
}

impl StreamRecord {
    fn new(id: u32, created_ns: u64, config: StreamConfig) -> StreamRecord {
        let (shards, next_shard) = (first_shards(id, config.shards), config.shards);
        StreamRecord { id, created_ns, config, shards, next_shard }
    }

    /// As [`StreamRecord::new`] for one that was kept without its shards.
    fn completed(self) -> StreamRecord {
        if self.next_shard > 0 {
            return self;
        }
        StreamRecord::new(self.id, self.created_ns, self.config)
    }

    /// Its shards, to be planned with.
    pub fn layout(&self) -> Layout<'_> {
        Layout { shards: &self.shards, next: self.next_shard }
    }

    /// One of its shards.
    pub fn shard(&self, shard: u32) -> Option<&ShardRecord> {
        self.shards.iter().find(|s| s.shard == shard)
    }
}

/// A named producer as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedProducer {
    /// Its id.
    pub id: u64,
    /// The epoch given out last.
    pub epoch: u32,
}

/// A position as it is kept: group, stream number, shard, next sequence number to read.
pub type PositionRecord = (String, u32, u32, u64);

/// What is kept of groups that settle record by record.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptDeliveries {
    /// Group, stream number, and how it settles.
    pub configs: Vec<(String, u32, DeliveryConfig)>,
    /// What it has settled beyond its positions.
    pub shards: Vec<KeptShard>,
}

/// Values about groups that settle record by record, in words.
const DELIVERIES_OF: &str = "deliveries of group";

/// The open database.
pub struct Catalogue {
    db: Database,
    epoch: u32,
    next_producer: u64,
    producers_end: u64,
    ids_given: Arc<IdsGiven>,
}

impl Catalogue {
    /// Opens or creates the database and counts a new start: the epoch.
    pub fn open(path: &Path) -> Result<Catalogue, CatalogueError> {
        let db = Database::create(path)?;
        let tx = begin(&db)?;
        let (epoch, next_producer) = {
            tx.open_table(STREAMS)?;
            tx.open_table(POSITIONS)?;
            tx.open_table(PRODUCERS)?;
            tx.open_table(CLIENT_QUOTAS)?;
            tx.open_table(DELIVERY_CONFIGS)?;
            tx.open_table(DELIVERIES)?;
            let mut counters = tx.open_table(COUNTERS)?;
            let epoch = counters.get("epoch")?.map_or(0, |v| v.value()) + 1;
            counters.insert("epoch", epoch)?;
            (epoch as u32, counters.get("next_producer")?.map_or(1, |v| v.value()))
        };
        tx.commit()?;
        // What a former start had left of its lot counts as given out: nobody else will ever have those ids.
        let ids_given = Arc::new(IdsGiven::below(next_producer));
        let producers_end = next_producer;
        Ok(Catalogue { db, epoch, next_producer, producers_end, ids_given })
    }

    /// The producer ids given out, as it goes on counting them.
    pub(crate) fn ids_given(&self) -> Arc<IdsGiven> {
        Arc::clone(&self.ids_given)
    }

    /// Number of this start, from 1.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// All streams by name.
    pub fn streams(&self) -> Result<BTreeMap<String, StreamRecord>, CatalogueError> {
        let tx = self.db.begin_read()?;
        let table = tx.open_table(STREAMS)?;
        let mut streams = BTreeMap::new();
        for entry in table.iter()? {
            let (name, value) = entry?;
            let name = name.value().to_owned();
            let record: StreamRecord = serde_json::from_slice(value.value())
                .map_err(|error| value_error("a stream", &name, &error))?;
            streams.insert(name, record.completed());
        }
        Ok(streams)
    }

    /// Keeps a new stream under a number of its own.
    pub fn add_stream(
        &mut self,
        name: &str,
        config: StreamConfig,
        created_ns: u64,
    ) -> Result<StreamRecord, CatalogueError> {
        let tx = begin(&self.db)?;
        let record = {
            let mut counters = tx.open_table(COUNTERS)?;
            let id = counters.get("next_stream")?.map_or(1, |v| v.value());
            counters.insert("next_stream", id + 1)?;
            let record = StreamRecord::new(id as u32, created_ns, config);
            put_stream(&tx, name, &record)?;
            record
        };
        tx.commit()?;
        Ok(record)
    }

    /// Keeps a stream as it is now, in place of what was kept of it. Positions in shards it no longer has are
    /// forgotten.
    pub fn update_stream(
        &mut self,
        name: &str,
        record: &StreamRecord,
    ) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        put_stream(&tx, name, record)?;
        let gone = |stream, shard| stream == record.id && record.shard(shard).is_none();
        tx.open_table(POSITIONS)?.retain(|(_, stream, shard), _| !gone(stream, shard))?;
        tx.open_table(DELIVERIES)?.retain(|(_, stream, shard), _| !gone(stream, shard))?;
        tx.commit()?;
        Ok(())
    }

    /// Forgets a stream and its groups' positions.
    pub fn remove_stream(&mut self, name: &str, id: u32) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        tx.open_table(STREAMS)?.remove(name)?;
        tx.open_table(POSITIONS)?.retain(|(_, stream, _), _| stream != id)?;
        tx.open_table(DELIVERIES)?.retain(|(_, stream, _), _| stream != id)?;
        tx.open_table(DELIVERY_CONFIGS)?.retain(|(_, stream), _| stream != id)?;
        tx.commit()?;
        Ok(())
    }

    /// Keeps positions, and what groups have settled beyond them, all of it in one durable transaction.
    pub(crate) fn commit(
        &mut self,
        positions: &[PositionRecord],
        deliveries: &[KeptShard],
    ) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        {
            let mut table = tx.open_table(POSITIONS)?;
            for (group, stream, shard, sequence) in positions {
                table.insert((group.as_str(), *stream, *shard), *sequence)?;
            }
        }
        if !deliveries.is_empty() {
            let mut table = tx.open_table(DELIVERIES)?;
            for (group, stream, shard, kept) in deliveries {
                let value = serde_json::to_vec(kept)
                    .map_err(|error| value_error(DELIVERIES_OF, group, &error))?;
                table.insert((group.as_str(), *stream, *shard), value.as_slice())?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Forgets a group in a stream: its positions and how it settles.
    pub fn remove_group(&mut self, group: &str, stream: u32) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        {
            let range = (group, stream, 0)..=(group, stream, u32::MAX);
            tx.open_table(POSITIONS)?.retain_in(range.clone(), |_, _| false)?;
            tx.open_table(DELIVERIES)?.retain_in(range, |_, _| false)?;
            tx.open_table(DELIVERY_CONFIGS)?.remove((group, stream))?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Keeps how a group settles record by record; `None` forgets that, and what it has settled beyond its positions.
    pub(crate) fn set_delivery(
        &mut self,
        group: &str,
        stream: u32,
        config: Option<&DeliveryConfig>,
    ) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        {
            let mut table = tx.open_table(DELIVERY_CONFIGS)?;
            match config {
                Some(config) => {
                    let value = serde_json::to_vec(config)
                        .map_err(|error| value_error(DELIVERIES_OF, group, &error))?;
                    table.insert((group, stream), value.as_slice())?;
                }
                None => {
                    table.remove((group, stream))?;
                    let range = (group, stream, 0)..=(group, stream, u32::MAX);
                    tx.open_table(DELIVERIES)?.retain_in(range, |_, _| false)?;
                }
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// All that is kept of groups that settle record by record.
    pub(crate) fn deliveries(&self) -> Result<KeptDeliveries, CatalogueError> {
        let tx = self.db.begin_read()?;
        let mut kept = KeptDeliveries::default();
        for entry in tx.open_table(DELIVERY_CONFIGS)?.iter()? {
            let (key, value) = entry?;
            let (group, stream) = key.value();
            let config = serde_json::from_slice(value.value())
                .map_err(|error| value_error(DELIVERIES_OF, group, &error))?;
            kept.configs.push((group.to_owned(), stream, config));
        }
        for entry in tx.open_table(DELIVERIES)?.iter()? {
            let (key, value) = entry?;
            let (group, stream, shard) = key.value();
            let of: Kept = serde_json::from_slice(value.value())
                .map_err(|error| value_error(DELIVERIES_OF, group, &error))?;
            kept.shards.push((group.to_owned(), stream, shard, of));
        }
        Ok(kept)
    }

    /// All positions.
    pub fn positions(&self) -> Result<Vec<PositionRecord>, CatalogueError> {
        let tx = self.db.begin_read()?;
        let table = tx.open_table(POSITIONS)?;
        let mut positions = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            let (group, stream, shard) = key.value();
            positions.push((group.to_owned(), stream, shard, value.value()));
        }
        Ok(positions)
    }

    /// A producer id never given before, from 1.
    pub fn new_producer(&mut self) -> Result<u64, CatalogueError> {
        if self.next_producer == self.producers_end {
            let tx = begin(&self.db)?;
            {
                let mut counters = tx.open_table(COUNTERS)?;
                self.next_producer = counters.get("next_producer")?.map_or(1, |v| v.value());
                self.producers_end = self.next_producer + PRODUCER_LOT;
                counters.insert("next_producer", self.producers_end)?;
            }
            tx.commit()?;
        }
        let id = self.next_producer;
        self.next_producer += 1;
        self.ids_given.give(id);
        Ok(id)
    }

    /// The producer of this name with its next epoch, durably: 1 at first.
    pub fn open_producer(&mut self, name: &str) -> Result<NamedProducer, CatalogueError> {
        let known = {
            let tx = self.db.begin_read()?;
            let table = tx.open_table(PRODUCERS)?;
            if table.get(name)?.is_none() && table.len()? >= MAX_NAMED_PRODUCERS {
                let what = "named producers";
                return Err(CatalogueError::Full { what, limit: MAX_NAMED_PRODUCERS });
            }
            table.get(name)?.map(|v| v.value())
        };
        // Past the last epoch a new id, which nobody else has, serves as well.
        let (id, epoch) = match known.and_then(|(id, epoch)| Some((id, epoch.checked_add(1)?))) {
            Some(next) => next,
            None => (self.new_producer()?, 1),
        };
        let tx = begin(&self.db)?;
        tx.open_table(PRODUCERS)?.insert(name, (id, epoch))?;
        tx.commit()?;
        Ok(NamedProducer { id, epoch })
    }

    /// All named producers with their last epochs.
    pub fn named_producers(&self) -> Result<Vec<NamedProducer>, CatalogueError> {
        let tx = self.db.begin_read()?;
        let table = tx.open_table(PRODUCERS)?;
        let mut producers = Vec::new();
        for entry in table.iter()? {
            let (id, epoch) = entry?.1.value();
            producers.push(NamedProducer { id, epoch });
        }
        Ok(producers)
    }

    /// Keeps the quota of a client name; one of zeros is forgotten.
    pub fn set_client_quota(&mut self, client: &str, quota: Quota) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        {
            let mut table = tx.open_table(CLIENT_QUOTAS)?;
            if quota == Quota::default() {
                table.remove(client)?;
            } else {
                if table.get(client)?.is_none() && table.len()? >= MAX_CLIENT_QUOTAS {
                    let what = "quotas of client names";
                    return Err(CatalogueError::Full { what, limit: MAX_CLIENT_QUOTAS });
                }
                let value = serde_json::to_vec(&quota)
                    .map_err(|error| value_error("a client's quota", client, &error))?;
                table.insert(client, value.as_slice())?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// The quotas of client names, by name.
    pub fn client_quotas(&self) -> Result<Vec<ClientQuota>, CatalogueError> {
        let tx = self.db.begin_read()?;
        let table = tx.open_table(CLIENT_QUOTAS)?;
        let mut quotas = Vec::new();
        for entry in table.iter()? {
            let (client, value) = entry?;
            let client = client.value().to_owned();
            let quota = serde_json::from_slice(value.value())
                .map_err(|error| value_error("a client's quota", &client, &error))?;
            quotas.push(ClientQuota { client, quota });
        }
        Ok(quotas)
    }
}

fn value_error(what: &'static str, name: &str, error: &serde_json::Error) -> CatalogueError {
    CatalogueError::Value { what, name: name.to_owned(), reason: error.to_string() }
}

fn put_stream(
    tx: &WriteTransaction,
    name: &str,
    record: &StreamRecord,
) -> Result<(), CatalogueError> {
    let value =
        serde_json::to_vec(record).map_err(|error| value_error("a stream", name, &error))?;
    tx.open_table(STREAMS)?.insert(name, value.as_slice())?;
    Ok(())
}

/// A transaction that is durable when it commits, and after which a crash costs no walk of the database.
fn begin(db: &Database) -> Result<WriteTransaction, CatalogueError> {
    let mut tx = db.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    tx.set_quick_repair(true);
    Ok(tx)
}

#[cfg(test)]
mod tests;
