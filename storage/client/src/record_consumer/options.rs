//! How a member of a group that settles record by record reads.

use std::time::Duration;

use highwater_wire::ResetTo;

use crate::{ConsumerOptions, GroupOptions, OnTrimmed, Until};

/// How a member of a group that settles record by record reads.
#[derive(Clone)]
pub struct RecordOptions {
    /// What operators see it as. Default: the client's name and the member's number.
    pub name: Option<String>,
    /// As in [`GroupOptions`]. Default false.
    pub fixed: bool,
    /// Longest silence after which its shards go to others. Default 10 s.
    pub session_timeout: Duration,
    /// Where a group begins that has no positions yet. Default: the oldest record kept.
    pub start: ResetTo,
    /// Records in a lot, 1 to 10,000. Default 100.
    pub most: u32,
    /// How each shard is read; its `end` is not used. What its filter leaves out counts as processed. Default: what
    /// retention removed is passed over, since the server counts it.
    pub consumer: ConsumerOptions,
    /// Where shards are read to; [`crate::RecordConsumer::next`] ends when all it holds are there and nothing waits. Default:
    /// for ever on.
    pub until: Option<Until>,
}

impl std::fmt::Debug for RecordOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordOptions")
            .field("name", &self.name)
            .field("fixed", &self.fixed)
            .field("session_timeout", &self.session_timeout)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Default for RecordOptions {
    fn default() -> RecordOptions {
        let GroupOptions { name, fixed, session_timeout, start, until, .. } =
            GroupOptions::default();
        let on_trimmed = OnTrimmed::ContinueAtOldest;
        let consumer = ConsumerOptions { on_trimmed, ..ConsumerOptions::default() };
        RecordOptions { name, fixed, session_timeout, start, most: 100, consumer, until }
    }
}
