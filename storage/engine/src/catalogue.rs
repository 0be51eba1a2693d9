//! The control database: streams, positions of consumer groups, counters. Small and rarely written, so an
//! embedded database does it; never touched by a shard's thread.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_wire::StreamConfig;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

const STREAMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("streams");
const POSITIONS: TableDefinition<'_, (&str, u32, u32), u64> = TableDefinition::new("positions");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

/// Producer ids are set aside in lots, so that most cost no transaction.
const PRODUCER_LOT: u64 = 1024;

/// Why the control database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The database, or the disk under it.
    #[error("the control database failed: {0}")]
    Database(Box<redb::Error>),
    /// A value in it does not parse.
    #[error("the control database holds a stream {name:?} that does not parse: {reason}")]
    Value {
        /// Its key.
        name: String,
        /// What is wrong.
        reason: String,
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
    /// What it was created with.
    pub config: StreamConfig,
}

/// A position as it is kept: group, stream number, shard, next sequence number to read.
pub type PositionRecord = (String, u32, u32, u64);

/// The open database.
pub struct Catalogue {
    db: Database,
    epoch: u32,
    next_producer: u64,
    producers_end: u64,
}

impl Catalogue {
    /// Opens or creates the database and counts a new start: the epoch.
    pub fn open(path: &Path) -> Result<Catalogue, CatalogueError> {
        let db = Database::create(path)?;
        let tx = begin(&db)?;
        let epoch = {
            tx.open_table(STREAMS)?;
            tx.open_table(POSITIONS)?;
            let mut counters = tx.open_table(COUNTERS)?;
            let epoch = counters.get("epoch")?.map_or(0, |v| v.value()) + 1;
            counters.insert("epoch", epoch)?;
            epoch as u32
        };
        tx.commit()?;
        Ok(Catalogue { db, epoch, next_producer: 0, producers_end: 0 })
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
            let record = serde_json::from_slice(value.value())
                .map_err(|e| CatalogueError::Value { name: name.clone(), reason: e.to_string() })?;
            streams.insert(name, record);
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
            let record = StreamRecord { id: id as u32, created_ns, config };
            let value = serde_json::to_vec(&record).map_err(|e| CatalogueError::Value {
                name: name.to_owned(),
                reason: e.to_string(),
            })?;
            tx.open_table(STREAMS)?.insert(name, value.as_slice())?;
            record
        };
        tx.commit()?;
        Ok(record)
    }

    /// Forgets a stream and its groups' positions.
    pub fn remove_stream(&mut self, name: &str, id: u32) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        tx.open_table(STREAMS)?.remove(name)?;
        tx.open_table(POSITIONS)?.retain(|(_, stream, _), _| stream != id)?;
        tx.commit()?;
        Ok(())
    }

    /// Keeps positions, all of them in one durable transaction.
    pub fn commit_positions(&mut self, positions: &[PositionRecord]) -> Result<(), CatalogueError> {
        let tx = begin(&self.db)?;
        {
            let mut table = tx.open_table(POSITIONS)?;
            for (group, stream, shard, sequence) in positions {
                table.insert((group.as_str(), *stream, *shard), *sequence)?;
            }
        }
        tx.commit()?;
        Ok(())
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
        self.next_producer += 1;
        Ok(self.next_producer - 1)
    }
}

/// A transaction that is durable when it commits, and after which a crash costs no walk of the database.
fn begin(db: &Database) -> Result<WriteTransaction, CatalogueError> {
    let mut tx = db.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    tx.set_quick_repair(true);
    Ok(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::AckMode;

    #[test]
    fn what_is_kept_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.redb");
        let config = StreamConfig {
            shards: 2,
            retention_ms: 0,
            retention_bytes: 5,
            ack: AckMode::Written,
            ..StreamConfig::default()
        };
        let mut c = Catalogue::open(&path).unwrap();
        assert_eq!(c.epoch(), 1);
        let a = c.add_stream("a", config.clone(), 7).unwrap();
        c.commit_positions(&[("g".into(), a.id, 0, 42), ("g".into(), a.id, 1, 43)]).unwrap();
        assert_eq!((c.new_producer().unwrap(), c.new_producer().unwrap()), (1, 2));
        drop(c);
        let mut c = Catalogue::open(&path).unwrap();
        assert_eq!(c.epoch(), 2);
        assert_eq!(c.streams().unwrap()["a"], a);
        assert_eq!(c.positions().unwrap().len(), 2);
        assert!(c.new_producer().unwrap() > 2);
        c.remove_stream("a", a.id).unwrap();
        assert!(c.positions().unwrap().is_empty());
        let b = c.add_stream("a", config, 8).unwrap();
        assert!(b.id > a.id, "numbers are not reused");
    }
}
