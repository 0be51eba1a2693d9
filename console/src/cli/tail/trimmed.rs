//! `--on-trimmed`: what becomes of a reader whose next record is not kept any more.

use clap::ValueEnum;
use highwater_client::{ConsumeError, Delivery, OnTrimmed};

use super::TailArgs;
use crate::failure::Failure;
use crate::human::counted;

/// What to do if the next record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnGone {
    /// End with an error
    Fail,
    /// Go on at the oldest record kept
    Oldest,
}

impl From<OnGone> for OnTrimmed {
    fn from(on_gone: OnGone) -> OnTrimmed {
        match on_gone {
            OnGone::Fail => OnTrimmed::Fail,
            OnGone::Oldest => OnTrimmed::ContinueAtOldest,
        }
    }
}

/// Says how many records are missing before those of a delivery.
pub fn tell(shard: u32, delivery: &Delivery) {
    if delivery.trimmed > 0 {
        note!("note: {}", gap(shard, delivery.from(), delivery.trimmed));
    }
}

fn gap(shard: u32, from: u64, trimmed: u64) -> String {
    let first = from.saturating_sub(trimmed);
    format!(
        "{} of shard {shard}, from {first} on, were removed before they were read; going on at {from}",
        counted(trimmed, "record")
    )
}

/// Reading ended with an error; of one that can be helped it is said how.
pub fn failure(args: &TailArgs, error: ConsumeError) -> Failure {
    let hint = match error {
        ConsumeError::Trimmed { .. } => {
            let group = args.group.as_ref().map(|group| group.as_str());
            hint(args.stream.as_str(), group)
        }
        _ => String::new(),
    };
    match Failure::doing(format!("cannot read stream {}", args.stream), error) {
        Failure::Failed(what) => Failure::Failed(what + &hint),
        other => other,
    }
}

fn hint(stream: &str, group: Option<&str>) -> String {
    let mut hint = "; --on-trimmed oldest goes on there".to_owned();
    if let Some(group) = group {
        hint += &format!(
            ", and `highwater group reset {group} --stream {stream} --to oldest` sets the group there on every shard \
             while nobody reads as a member"
        );
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_words() {
        assert_eq!(
            gap(3, 1_500, 1_000),
            "1,000 records of shard 3, from 500 on, were removed before they were read; going on at 1500"
        );
    }

    #[test]
    fn a_group_can_be_set_forward_too() {
        assert_eq!(hint("s", None), "; --on-trimmed oldest goes on there");
        assert!(hint("s", Some("g")).contains("`highwater group reset g --stream s --to oldest`"));
    }
}
