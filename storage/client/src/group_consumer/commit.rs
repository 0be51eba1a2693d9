//! What was processed, and its commit.

use highwater_wire::{ControlReply, ControlRequest, ErrorCode, Kind, LeasedPosition};
use tokio::time::Instant;

use super::{GroupConsumer, Held};
use crate::ClientError;
use crate::client::Repeat;
use crate::connection::unexpected;

impl GroupConsumer {
    /// Everything of a shard below `sequence` was processed. Overrides what follows from asking for the next event.
    pub fn done(&mut self, shard: u32, sequence: u64) {
        if self.handed.is_some_and(|(handed, _)| handed == shard) {
            self.handed = None;
        }
        if let Some(held) = self.held.get_mut(&shard) {
            held.done = Some(sequence);
        }
    }

    /// What was handed out last counts as processed.
    pub(super) fn settle(&mut self) {
        if let Some((shard, next)) = self.handed.take()
            && let Some(held) = self.held.get_mut(&shard)
        {
            held.done = Some(next);
        }
    }

    /// Keeps the positions of all that was processed, durably. Of shards that have gone to others meanwhile it says so
    /// by [`crate::GroupEvent::Lost`].
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let every = self.options.auto_commit;
        self.commit_at = every.and_then(|every| Instant::now().checked_add(every));
        loop {
            let moved = self.moved();
            if moved.is_empty() {
                return Ok(());
            }
            let request = ControlRequest::CommitLeased {
                group: self.identity.group.clone(),
                stream: self.identity.stream.clone(),
                member: self.identity.member,
                positions: moved.clone(),
            };
            match self.identity.client.control(request, Repeat::Yes).await {
                Ok(ControlReply::Done) => {
                    for position in moved {
                        if let Some(held) = self.held.get_mut(&position.shard) {
                            held.committed = Some(position.sequence);
                        }
                    }
                    return Ok(());
                }
                Ok(_) => return Err(unexpected(Kind::ControlReply)),
                Err(error) => match (error.code(), &error) {
                    (Some(ErrorCode::LeaseLost), ClientError::Refused(refusal))
                        if self.held.contains_key(&(refusal.detail as u32)) =>
                    {
                        self.lose(refusal.detail as u32);
                    }
                    (Some(ErrorCode::UnknownMember), _) => {
                        let all: Vec<u32> = self.held.keys().copied().collect();
                        all.into_iter().for_each(|shard| self.lose(shard));
                        self.shared.wake.notify_one();
                        return Ok(());
                    }
                    // Nothing is lost yet: it is tried again.
                    _ if every.is_some() && error.retriable() => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// The positions that have moved since they were committed.
    fn moved(&self) -> Vec<LeasedPosition> {
        let position = |(shard, held): (&u32, &Held)| {
            let sequence = held.done.filter(|_| held.done != held.committed)?;
            Some(LeasedPosition { shard: *shard, lease: held.lease, sequence })
        };
        self.held.iter().filter_map(position).collect()
    }
}
