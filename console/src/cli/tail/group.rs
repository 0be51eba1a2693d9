//! Positions of a consumer group, kept by the broker.

use std::io::Write;

use highwater_client::Client;
use highwater_wire::{ErrorCode, GroupDelivery, Position};

use super::Positions;
use crate::failure::Failure;

/// How a group gets a stream's records one by one; `None` for one that keeps positions, or is not there.
pub async fn delivery(
    client: &Client,
    group: &str,
    stream: &str,
) -> Result<Option<GroupDelivery>, Failure> {
    let described = match client.describe_group(group).await {
        Ok(described) => described,
        Err(e) if e.code() == Some(ErrorCode::UnknownGroup) => return Ok(None),
        Err(e) => return Err(Failure::doing(format!("cannot describe group {group}"), e)),
    };
    let found = described.into_iter().find(|found| found.stream == stream);
    Ok(found.and_then(|found| found.delivery))
}

/// Refuses what reads on from positions for a group that has none to read on from: before anything is read.
pub async fn must_keep_positions(
    client: &Client,
    group: &str,
    stream: &str,
) -> Result<(), Failure> {
    match delivery(client, group, stream).await? {
        None => Ok(()),
        Some(_) => Err(Failure::Failed(format!(
            "group {group} settles {stream} record by record: work on it with --exec COMMAND, or have it keep positions \
             (`highwater group set {group} --stream {stream} --delivery positions`)"
        ))),
    }
}

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
        must_keep_positions(client, name, stream).await?;
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

    /// Tells the broker what was read since the last time, once all of it has gone through `out`: whoever dies right
    /// after a commit must have printed it.
    pub async fn commit(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        if self.read.is_empty() {
            return Ok(());
        }
        out.flush()?;
        let moved: Vec<Position> =
            self.read.iter().map(|(&shard, &sequence)| Position { shard, sequence }).collect();
        self.client.commit_positions(&self.name, &self.stream, &moved).await.map_err(|e| {
            Failure::doing(format!("cannot commit positions of group {}", self.name), e)
        })?;
        self.committed.append(&mut self.read);
        Ok(())
    }
}
