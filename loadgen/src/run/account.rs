//! What the target itself says became of the records it was offered: the difference of its account over the run.

use std::time::Duration;

use highwater_wire::{ShardCounters, StreamDescription};
use tokio::time::timeout;

use crate::plan::Plan;
use crate::report::Account;
use crate::target::Link;

/// A target that has answered everything is not waited for any longer than this for its account.
const WAIT: Duration = Duration::from_secs(5);

/// The account since the streams were described before the first record; `None` if the target keeps none, or does not
/// tell.
pub async fn read<L: Link>(control: &L, plan: &Plan) -> Option<Account> {
    let all = async {
        let mut now = Vec::with_capacity(plan.streams.len());
        for stream in &plan.streams {
            now.push(control.describe(stream).await.ok()?);
        }
        between(&plan.streams, &now)
    };
    timeout(WAIT, all).await.ok().flatten()
}

/// What was counted from `before` to `now`, which are of the same streams. Of shards that came up meanwhile all counts.
fn between(before: &[StreamDescription], now: &[StreamDescription]) -> Option<Account> {
    let config = &now.first()?.config;
    let mut account = Account {
        quota: config.quota,
        stream_quota: config.stream_quota,
        backpressure: config.backpressure,
        ..Account::default()
    };
    for (before, now) in before.iter().zip(now) {
        for shard in &now.shards {
            let known = before.shards.iter().find(|known| known.shard == shard.shard);
            let was = known.map_or_else(ShardCounters::default, |known| known.counters);
            let is = &shard.counters;
            // It was restarted, and has begun to count anew.
            if is.offered < was.offered {
                return None;
            }
            account.offered += is.offered - was.offered;
            account.acknowledged += is.acknowledged.saturating_sub(was.acknowledged);
            account.refused += is.refused.saturating_sub(was.refused);
            account.buffered += is.buffered.saturating_sub(was.buffered);
            account.dropped += is.dropped.saturating_sub(was.dropped);
            account.sampled_out += is.sampled_out.saturating_sub(was.sampled_out);
            account.duplicates_recognised +=
                is.duplicates_recognised.saturating_sub(was.duplicates_recognised);
        }
    }
    (account.offered > 0).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{ShardDescription, StreamConfig};

    fn stream(counted: &[(u64, u64)]) -> StreamDescription {
        let mut stream = StreamDescription::evenly("s", 1, StreamConfig::default());
        let shards = (0..).zip(counted).map(|(shard, &(offered, refused))| ShardDescription {
            shard,
            counters: ShardCounters {
                offered,
                refused,
                acknowledged: offered - refused,
                ..ShardCounters::default()
            },
            ..ShardDescription::default()
        });
        stream.shards = shards.collect();
        stream
    }

    #[test]
    fn the_account_is_that_of_the_run_with_the_shards_that_came_up_in_it() {
        let account = between(&[stream(&[(10, 4)])], &[stream(&[(25, 5), (7, 2)])]).unwrap();
        assert_eq!((account.offered, account.refused, account.acknowledged), (22, 3, 19));
    }

    #[test]
    fn a_target_that_counts_nothing_or_began_anew_has_none() {
        assert_eq!(between(&[stream(&[(0, 0)])], &[stream(&[(0, 0)])]), None);
        assert_eq!(between(&[stream(&[(10, 0)])], &[stream(&[(9, 0)])]), None);
        assert_eq!(between(&[], &[]), None);
    }
}
