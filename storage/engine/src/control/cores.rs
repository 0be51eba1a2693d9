//! What the control plane has cores do, and what it asks them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use highwater_wire::ShardId;

use super::{Control, ControlError, PATIENCE};
use crate::core::CoreCommand;
use crate::types::{Located, ShardStatus, Start};

/// Delivers a command to a core; `false` when the core is gone.
pub type CoreLink = Box<dyn Fn(CoreCommand) -> bool + Send>;

impl Control {
    /// Sends a command to the core that owns a shard.
    pub(super) fn tell(&self, shard: ShardId, command: CoreCommand) -> Result<usize, ControlError> {
        let core = self.routes.core_of(shard);
        if (self.links[core])(command) { Ok(core) } else { Err(ControlError::CoreGone(core)) }
    }

    /// The same for one that answers; the core and the answer to wait for.
    pub(super) fn ask<T>(
        &self,
        shard: ShardId,
        command: impl FnOnce(Sender<T>) -> CoreCommand,
    ) -> Result<(usize, Receiver<T>), ControlError> {
        let (sender, wait) = channel();
        Ok((self.tell(shard, command(sender))?, wait))
    }

    /// Sends a command to every core, and waits until all have answered.
    pub(super) fn ask_all(
        &self,
        command: impl Fn(Sender<()>) -> CoreCommand,
    ) -> Result<(), ControlError> {
        let mut waits = Vec::new();
        for (core, link) in self.links.iter().enumerate() {
            let (done, wait) = channel();
            if !link(command(done)) {
                return Err(ControlError::CoreGone(core));
            }
            waits.push((core, wait));
        }
        waits.into_iter().try_for_each(|(core, wait)| {
            wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))
        })
    }

    /// Where a start lies on a shard of a stream.
    pub(super) fn locate(
        &self,
        name: &str,
        shard: ShardId,
        start: Start,
    ) -> Result<Located, ControlError> {
        let (core, wait) = self.ask(shard, |reply| CoreCommand::Locate { shard, start, reply })?;
        let located = wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))?;
        located.map_err(|reason| ControlError::Locate {
            stream: name.to_owned(),
            shard: shard.shard,
            reason,
        })
    }

    pub(super) fn status(&self) -> Result<BTreeMap<ShardId, ShardStatus>, ControlError> {
        self.status_within(PATIENCE)
    }

    pub(super) fn status_within(
        &self,
        patience: Duration,
    ) -> Result<BTreeMap<ShardId, ShardStatus>, ControlError> {
        let until = Instant::now() + patience;
        let mut waits = Vec::new();
        for (core, link) in self.links.iter().enumerate() {
            let (reply, wait) = channel();
            if !link(CoreCommand::Status { reply }) {
                return Err(ControlError::CoreGone(core));
            }
            waits.push((core, wait));
        }
        let mut status = BTreeMap::new();
        for (core, wait) in waits {
            let left = until.saturating_duration_since(Instant::now());
            let shards = wait.recv_timeout(left).map_err(|_| ControlError::CoreGone(core))?;
            status.extend(shards.into_iter().map(|s| (s.id, s)));
        }
        Ok(status)
    }
}
