//! `highwater stream trim`: the oldest records are given up.

use std::str::FromStr;

use clap::Args;
use highwater_wire::{StreamName, TrimBefore};
use jiff::Timestamp;

use crate::cli::Target;
use crate::failure::Failure;
use crate::when::moment;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct TrimArgs {
    /// The stream
    name: StreamName,
    /// Records before this sequence number, or that arrived before this time (RFC 3339, or back from now like -10m)
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    before: Before,
    /// Only of this shard [default: of each]
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    #[command(flatten)]
    target: Target,
}

/// Up to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before(pub TrimBefore);

/// Not a place to trim before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a sequence number, a time like 2026-05-17T10:05:03Z, or -10m")]
pub struct BeforeError;

impl FromStr for Before {
    type Err = BeforeError;

    fn from_str(text: &str) -> Result<Before, BeforeError> {
        parse(text, Timestamp::now()).map(Before)
    }
}

fn parse(text: &str, now: Timestamp) -> Result<TrimBefore, BeforeError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(TrimBefore::Sequence).map_err(|_| BeforeError);
    }
    moment(text, now).map(TrimBefore::Time).ok_or(BeforeError)
}

/// Carries it out.
pub async fn run(args: TrimArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let stream = client
        .trim_stream(args.name.as_str(), args.shard, args.before.0)
        .await
        .map_err(|e| Failure::doing(format!("cannot trim stream {}", args.name), e))?;
    for shard in stream.shards.iter().filter(|s| args.shard.is_none_or(|n| n == s.shard)) {
        let kept = human::counted(shard.high_water.saturating_sub(shard.oldest), "record");
        output::line(format!("shard {}: oldest {}, {kept} kept", shard.shard, shard.oldest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_trim_before() {
        let now: Timestamp = "2026-05-17T10:15:03Z".parse().unwrap();
        let before = |text| parse(text, now);
        assert_eq!(before("17"), Ok(TrimBefore::Sequence(17)));
        let ten_minutes_ago = TrimBefore::Time(1_779_012_303_000_000_000);
        assert_eq!(before("-10m"), Ok(ten_minutes_ago));
        assert_eq!(before("2026-05-17T10:05:03Z"), Ok(ten_minutes_ago));
        for wrong in ["", "oldest", "-", "--1m", "99999999999999999999"] {
            assert_eq!(before(wrong), Err(BeforeError), "{wrong}");
        }
    }
}
