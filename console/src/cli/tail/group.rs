//! Positions of a consumer group, kept by the broker.

use highwater_client::Client;
use highwater_wire::Position;

use super::Positions;
use crate::failure::Failure;

/// A group reading one stream.
pub struct Group {
    client: Client,
    name: String,
    stream: String,
    /// As the broker knows them.
    committed: Positions,
    /// Read since.
    read: Positions,
}

impl Group {
    /// With the positions it committed before.
    pub async fn open(client: &Client, name: &str, stream: &str) -> Result<Group, Failure> {
        let positions = client
            .fetch_positions(name, stream)
            .await
            .map_err(|e| Failure::doing(format!("cannot read the positions of group {name}"), e))?;
        Ok(Group {
            client: client.clone(),
            name: name.to_owned(),
            stream: stream.to_owned(),
            committed: positions.iter().map(|p| (p.shard, p.sequence)).collect(),
            read: Positions::new(),
        })
    }

    /// Where the group is, on the shards it was ever on.
    pub fn positions(&self) -> &Positions {
        &self.committed
    }

    /// Everything below `next` was printed.
    pub fn advance(&mut self, shard: u32, next: u64) {
        self.read.insert(shard, next);
    }

    /// Tells the broker what was read since the last time.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        if self.read.is_empty() {
            return Ok(());
        }
        let moved: Vec<Position> =
            self.read.iter().map(|(&shard, &sequence)| Position { shard, sequence }).collect();
        self.client.commit_positions(&self.name, &self.stream, &moved).await.map_err(|e| {
            Failure::doing(format!("cannot commit positions of group {}", self.name), e)
        })?;
        self.committed.append(&mut self.read);
        Ok(())
    }
}
