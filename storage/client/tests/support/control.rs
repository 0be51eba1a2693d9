//! Control requests of the small server, and its splits and merges.

use highwater_wire::*;

use super::{Shard, World};

impl World {
    pub(super) fn control(
        &mut self,
        request: ControlRequest,
        port: u16,
    ) -> Result<ControlReply, WireError> {
        let find = |world: &World, name: &str| {
            let at = world.streams.iter().position(|s| s.0 == name);
            at.ok_or_else(|| WireError::new(ErrorCode::UnknownStream, format!("no stream {name}")))
        };
        Ok(match request {
            ControlRequest::Hello { .. } => {
                let limits = Limits::default();
                ControlReply::Hello(ClusterInfo {
                    protocol: PROTOCOL_VERSION,
                    server: "test".to_owned(),
                    max_record: limits.max_record,
                    max_batch: limits.max_batch,
                    core_ports: vec![port],
                    now_ns: 1,
                })
            }
            ControlRequest::CreateStream { name, config } => {
                if find(self, &name).is_ok() {
                    return Err(WireError::new(ErrorCode::StreamExists, "exists"));
                }
                self.streams.push((name, config.shards));
                ControlReply::Stream(self.describe(self.streams.len() - 1, port))
            }
            ControlRequest::ListStreams => ControlReply::Streams(
                (0..self.streams.len()).map(|at| self.describe(at, port)).collect(),
            ),
            ControlRequest::DescribeStream { name } => {
                ControlReply::Stream(self.describe(find(self, &name)?, port))
            }
            ControlRequest::DeleteStream { name } => {
                let at = find(self, &name)?;
                self.streams.remove(at);
                ControlReply::Done
            }
            ControlRequest::NewProducer => {
                self.producers += 1;
                ControlReply::Producer { id: self.producers, epoch: 1 }
            }
            ControlRequest::OpenProducer { name } => {
                let at = self.names.iter().position(|known| known.0 == name);
                let at = at.unwrap_or_else(|| {
                    self.names.push((name, 0));
                    self.names.len() - 1
                });
                self.names[at].1 += 1;
                ControlReply::Producer { id: 1_000_000 + at as u64, epoch: self.names[at].1 }
            }
            ControlRequest::CommitPositions { positions, .. } => {
                self.positions = positions;
                ControlReply::Done
            }
            ControlRequest::FetchPositions { .. } => {
                ControlReply::Positions(self.positions.clone())
            }
            ControlRequest::ListGroups { .. } => ControlReply::Groups(Vec::new()),
            ControlRequest::Snapshot => ControlReply::Snapshot(Box::default()),
            ControlRequest::SnapshotAfter { .. } => ControlReply::Unchanged,
            other => panic!("{other:?} is not scripted"),
        })
    }

    /// Of stream `s`, the shards as they are; of another, as many as it was created with.
    fn describe(&self, at: usize, port: u16) -> StreamDescription {
        let (name, shards) = &self.streams[at];
        let port = if self.core_port == 0 { port } else { self.core_port };
        let config = StreamConfig { shards: *shards, ..StreamConfig::default() };
        let mut stream = StreamDescription::evenly(name, at as u32 + 1, config);
        if at == 0 {
            let numbered = (0..).zip(&self.shards);
            let describe = |(n, s): (u32, &Shard)| ShardDescription {
                shard: n,
                hash_start: s.range.0,
                hash_end: s.range.1,
                oldest: s.oldest,
                high_water: s.next,
                closed: s.closed,
                parents: s.parents.clone(),
                ..ShardDescription::default()
            };
            stream.shards = numbered.map(describe).collect();
        }
        stream.shards.iter_mut().for_each(|shard| shard.port = port);
        stream
    }

    /// Closes `parents` and opens one shard for each of `ranges`.
    fn replace(&mut self, parents: &[u32], ranges: &[(u128, u128)]) {
        for range in ranges {
            let (range, parents) = (*range, parents.to_vec());
            self.shards.push(Shard { range, parents, ..Shard::default() });
        }
        for parent in parents {
            self.shards[*parent as usize].closed = true;
        }
    }

    pub fn split(&mut self, shard: u32) {
        let (start, end) = self.shards[shard as usize].range;
        let middle = start + (end - start) / 2;
        self.replace(&[shard], &[(start, middle), (middle + 1, end)]);
    }

    /// Merges an open shard with its neighbour above, if there is one.
    pub fn merge(&mut self, shard: u32) {
        let (start, end) = self.shards[shard as usize].range;
        let above = |s: &Shard| !s.closed && Some(s.range.0) == end.checked_add(1);
        if let Some(other) = self.shards.iter().position(above) {
            let range = (start, self.shards[other].range.1);
            self.replace(&[shard, other as u32], &[range]);
        }
    }

    /// Splits or merges some open shard.
    pub(super) fn reshard(&mut self) {
        let open: Vec<u32> =
            (0..).zip(&self.shards).filter(|(_, s)| !s.closed).map(|(n, _)| n).collect();
        let shard = open[self.rng.usize(..open.len())];
        if self.rng.bool() { self.split(shard) } else { self.merge(shard) }
    }
}
