//! The shards a member holds: begun, given up, lost, read to their end.

use std::collections::BTreeMap;

use highwater_wire::{ErrorCode, LeaseGrant};
use tokio::time::Instant;

use super::reading::{Read, Reading};
use super::{GroupConsumer, GroupEvent, Held, Stage};
use crate::{ClientError, ConsumeError, Start};

impl GroupConsumer {
    /// Takes note of the leases as they are now.
    pub(super) async fn follow(&mut self) -> Result<(), ConsumeError> {
        let view = self.view.borrow().clone();
        if view.failed.is_some() {
            return Err(self.failed().into());
        }
        if view.joined != self.joined {
            self.joined = view.joined;
            let all: Vec<u32> = self.held.keys().copied().collect();
            all.into_iter().for_each(|shard| self.lose(shard));
        }
        let now: BTreeMap<u32, LeaseGrant> =
            view.leases.into_iter().map(|lease| (lease.shard, lease)).collect();
        let gone: Vec<u32> = self
            .held
            .iter()
            .filter(|(shard, held)| now.get(shard).is_none_or(|lease| lease.lease != held.lease))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in gone {
            // What was read and committed to its end is nobody's any more.
            match self.held.get(&shard) {
                Some(held) if held.stage == Stage::AtEnd && held.done == held.committed => {
                    self.held.remove(&shard);
                }
                _ => self.lose(shard),
            }
        }
        for (shard, lease) in now {
            match self.held.get_mut(&shard) {
                Some(held) if lease.revoked && held.stage != Stage::Leaving => {
                    held.stage = Stage::Leaving;
                    held.reader.abort();
                    self.events.push_back(GroupEvent::Revoked { shard });
                }
                Some(_) => {}
                // Nothing of it was read.
                None if lease.revoked => self.shared.release(shard),
                None => self.begin(lease).await?,
            }
        }
        self.behind = false;
        Ok(())
    }

    /// Begins to read a shard.
    async fn begin(&mut self, lease: LeaseGrant) -> Result<(), ConsumeError> {
        let LeaseGrant { shard, lease, position, .. } = lease;
        if self.stream.shards.iter().all(|known| known.shard != shard) {
            self.stream = self.identity.client.describe_stream(&self.stream.name).await?;
        }
        let known = self.stream.shards.iter().find(|known| known.shard == shard);
        let Some(known) = known else { return Ok(()) };
        let mut options = self.options.consumer.clone();
        // A closed shard is read to its end in any case.
        options.end = match &self.options.until {
            Some(until) if !known.closed => until(known),
            _ => None,
        };
        let reading = Reading {
            client: self.identity.client.clone(),
            stream: self.stream.clone(),
            shard,
            lease,
            start: position.map_or(Start::Oldest, Start::At),
            options,
        };
        let reader = self.tasks.spawn(reading.run(self.sender.clone()));
        let held = Held { lease, stage: Stage::Reading, done: None, committed: position, reader };
        self.held.insert(shard, held);
        self.begun = true;
        self.over_at = None;
        self.events.push_back(GroupEvent::Assigned { shard, position });
        Ok(())
    }

    /// A shard is others'.
    pub(super) fn lose(&mut self, shard: u32) {
        if let Some(held) = self.held.remove(&shard) {
            held.reader.abort();
            self.detained.remove(&shard);
            self.handed = self.handed.filter(|(handed, _)| *handed != shard);
            self.events.push_back(GroupEvent::Lost { shard });
        }
    }

    /// Gives up the shards that are to go to others, their last positions committed first.
    pub(super) async fn give_up(&mut self) -> Result<(), ClientError> {
        if self.held.values().all(|held| held.stage != Stage::Leaving) {
            return Ok(());
        }
        if self.options.auto_commit.is_some() {
            self.commit().await?;
        }
        let detained = &self.detained;
        let going = |(shard, held): &(&u32, &Held)| {
            held.stage == Stage::Leaving && !detained.contains(shard)
        };
        let going: Vec<u32> = self.held.iter().filter(going).map(|(shard, _)| *shard).collect();
        for shard in going {
            self.held.remove(&shard);
            self.shared.release(shard);
        }
        Ok(())
    }

    /// What a reader brought, if its lease is still the one that is held.
    pub(super) fn take(
        &mut self,
        shard: u32,
        lease: u64,
        read: Read,
    ) -> Result<Option<GroupEvent>, ConsumeError> {
        let held = self.held.get_mut(&shard).filter(|held| held.lease == lease);
        let Some(held) = held.filter(|held| held.stage == Stage::Reading) else { return Ok(None) };
        match read {
            Read::Records(delivery) => {
                self.handed = Some((shard, delivery.next));
                Ok(Some(GroupEvent::Records { shard, delivery }))
            }
            Read::End { position, closed } => {
                held.stage = Stage::AtEnd;
                if !closed {
                    return Ok(None);
                }
                held.done = Some(position);
                // Committed at once if it commits by itself: its children wait for that.
                self.commit_at = self.options.auto_commit.map(|_| Instant::now());
                Ok(Some(GroupEvent::Ended { shard }))
            }
            Read::Failed(ConsumeError::Client(error))
                if error.code() == Some(ErrorCode::LeaseLost) =>
            {
                self.shared.wake.notify_one();
                self.lose(shard);
                Ok(self.events.pop_front())
            }
            Read::Failed(error) => {
                held.stage = Stage::AtEnd;
                Err(error)
            }
        }
    }
}
