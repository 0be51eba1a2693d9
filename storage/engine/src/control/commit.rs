//! Positions and settlements, kept together: of several groups in one durable transaction.

use std::collections::BTreeSet;

use super::error::{group_name, unknown_shard};
use super::{Commit, Control, ControlError, Settle};
use crate::catalogue::{CatalogueError, PositionRecord};
use crate::deliveries::DeliveryError;

/// What became of requests to keep something, in their order.
#[derive(Debug, Default)]
pub struct Committed {
    /// Of positions.
    pub positions: Vec<Result<(), ControlError>>,
    /// Of settlements.
    pub settled: Vec<Result<(), ControlError>>,
}

impl Control {
    /// Keeps positions of several groups in one durable transaction; each request is answered on its own.
    pub fn commit_positions(&mut self, commits: &[Commit]) -> Vec<Result<(), ControlError>> {
        self.commit(commits, &[]).positions
    }

    /// Keeps positions and settlements of several groups in one durable transaction; each request is answered on its own.
    pub fn commit(&mut self, commits: &[Commit], settles: &[Settle]) -> Committed {
        let mut records: Vec<PositionRecord> = Vec::new();
        let mut positions: Vec<Result<(), ControlError>> = Vec::new();
        for commit in commits {
            positions.push(self.check_commit(commit, &mut records));
        }
        let mut settled: Vec<Result<(), ControlError>> = Vec::new();
        let mut places = BTreeSet::new();
        for settle in settles {
            settled.push(self.settle(settle).map(|place| {
                places.insert(place);
            }));
        }
        match self.keep(records) {
            Ok(kept) => {
                places.extend(kept);
                self.finish_shards(&places);
            }
            Err(error) => {
                // What was settled is kept with the next that can be: whoever settles it again does no harm.
                let text = error.to_string();
                for result in positions.iter_mut().chain(&mut settled).filter(|r| r.is_ok()) {
                    let failed = redb::Error::Io(std::io::Error::other(text.clone()));
                    *result = Err(CatalogueError::Database(Box::new(failed)).into());
                }
            }
        }
        Committed { positions, settled }
    }

    fn check_commit(
        &self,
        commit: &Commit,
        records: &mut Vec<PositionRecord>,
    ) -> Result<(), ControlError> {
        let Commit { group, stream, positions, .. } = commit;
        group_name(group)?;
        let record = self.find(stream)?;
        if let Some(odd) = positions.iter().find(|p| p.shard >= record.next_shard) {
            return Err(unknown_shard(stream, record, odd.shard));
        }
        if self.deliveries.config(group, record.id).is_some() {
            return Err(DeliveryError::Records(group.clone()).into());
        }
        self.check_leases(commit, record.id)?;
        // What was a shard until retention emptied it has no position any more; the others are kept.
        let kept = positions.iter().filter(|p| record.shard(p.shard).is_some());
        records.extend(kept.map(|p| (group.clone(), record.id, p.shard, p.sequence)));
        Ok(())
    }
}
