//! How a member of a group reads.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::{ResetTo, ShardDescription};

use crate::ConsumerOptions;

/// Where a shard is read to at most, chosen when its reading begins; `None` for ever on.
pub type Until = Arc<dyn Fn(&ShardDescription) -> Option<u64> + Send + Sync>;

/// How a member of a group reads.
#[derive(Clone)]
pub struct GroupOptions {
    /// What operators see it as. Default: the client's name and the member's number.
    pub name: Option<String>,
    /// The name stays the same through restarts: whoever joins under it within the session takes its leases over, and
    /// leaving keeps them for the session. Needs a name. Default false.
    pub fixed: bool,
    /// Longest silence after which its shards go to others. Default 10 s.
    pub session_timeout: Duration,
    /// Where a group begins that has no positions yet. Default: the oldest record kept.
    pub start: ResetTo,
    /// Commits by itself this often, and before it gives a shard up. Default: never; see [`crate::GroupConsumer::commit`].
    pub auto_commit: Option<Duration>,
    /// How each shard is read; its `end` is not used.
    pub consumer: ConsumerOptions,
    /// Where shards are read to; [`crate::GroupConsumer::next`] ends when all it holds are there. Default: for ever on.
    pub until: Option<Until>,
}

impl std::fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOptions")
            .field("name", &self.name)
            .field("fixed", &self.fixed)
            .field("session_timeout", &self.session_timeout)
            .field("auto_commit", &self.auto_commit)
            .finish_non_exhaustive()
    }
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            name: None,
            fixed: false,
            session_timeout: Duration::from_secs(10),
            start: ResetTo::Oldest,
            auto_commit: None,
            consumer: ConsumerOptions::default(),
            until: None,
        }
    }
}
