//! `highwater group reset`: positions set, forwards or back.

use std::str::FromStr;

use clap::Args;
use highwater_client::GroupReset;
use highwater_wire::{GroupName, ResetPosition, ResetTo, StreamName};
use jiff::Timestamp;
use serde::Serialize;

use super::named;
use crate::cli::Target;
use crate::failure::Failure;
use crate::output;
use crate::when::moment;

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The group; nobody may be reading as a member of it
    group: GroupName,
    /// Where to: oldest, latest, a time (RFC 3339, or back from now like -10m), or a sequence number
    #[arg(long, value_name = "oldest|latest|TIME|SEQ", allow_hyphen_values = true)]
    #[arg(required_unless_present = "shift_by")]
    to: Option<To>,
    /// And then on by so many records, or back; no further than what is kept
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value_t = 0)]
    shift_by: i64,
    /// Only in this stream [default: in all where it has positions]
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamName>,
    /// Only on this shard [default: on each]
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct To(ResetTo);

/// Not a place to set a position to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write oldest, latest, a time like 2026-05-17T10:05:03Z, -10m, or a sequence number")]
struct ToError;

impl FromStr for To {
    type Err = ToError;

    fn from_str(text: &str) -> Result<To, ToError> {
        parse(text, Timestamp::now()).map(To)
    }
}

fn parse(text: &str, now: Timestamp) -> Result<ResetTo, ToError> {
    match text {
        "oldest" => return Ok(ResetTo::Oldest),
        "latest" => return Ok(ResetTo::Latest),
        _ => {}
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(ResetTo::Sequence).map_err(|_| ToError);
    }
    moment(text, now).map(ResetTo::Time).ok_or(ToError)
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    group: &'a str,
    dry_run: bool,
    shards: &'a [ResetPosition],
}

/// Carries it out.
pub async fn run(args: ResetArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let group = args.group.as_str();
    let reset = GroupReset {
        stream: named(args.stream.as_ref()).to_owned(),
        shard: args.shard,
        to: args.to.map_or(ResetTo::Current, |to| to.0),
        shift: args.shift_by,
        dry_run: args.dry_run,
    };
    let shards = client
        .reset_group(group, &reset)
        .await
        .map_err(|e| Failure::doing(format!("cannot reset group {group}"), e))?;
    if args.json {
        return output::json(&Done { group, dry_run: args.dry_run, shards: &shards });
    }
    let rows = shards.iter().map(|shard| {
        let from = shard.from.map_or_else(|| "none".to_owned(), |from| from.to_string());
        let moved = match shard.from {
            Some(from) => format!("{:+}", i128::from(shard.to) - i128::from(from)),
            None => "-".to_owned(),
        };
        vec![shard.stream.clone(), shard.shard.to_string(), from, shard.to.to_string(), moved]
    });
    output::table(&["stream", "shard", "from", "to", "moved"], &rows.collect::<Vec<_>>())?;
    if args.dry_run {
        note!("nothing was changed (--dry-run)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_set_a_position_to() {
        let now: Timestamp = "2026-05-17T10:15:03Z".parse().unwrap();
        let to = |text| parse(text, now);
        assert_eq!(to("oldest"), Ok(ResetTo::Oldest));
        assert_eq!(to("latest"), Ok(ResetTo::Latest));
        assert_eq!(to("17"), Ok(ResetTo::Sequence(17)));
        let ten_minutes_ago = ResetTo::Time(1_779_012_303_000_000_000);
        assert_eq!(to("-10m"), Ok(ten_minutes_ago));
        assert_eq!(to("2026-05-17T10:05:03Z"), Ok(ten_minutes_ago));
        for wrong in ["", "newest", "-", "--1m", "99999999999999999999"] {
            assert_eq!(to(wrong), Err(ToError), "{wrong}");
        }
    }
}
