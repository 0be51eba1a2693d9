//! `highwater dlq purge`.

use clap::Args;
use highwater_wire::TrimBefore;
use serde::Serialize;

use super::Name;
use crate::cli::Target;
use crate::cli::stream::Before;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// The stream of dead letters
    name: Name,
    /// Only those before this sequence number, or that came before this time (RFC 3339, or back from now like -10m)
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    before: Option<Before>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Purged<'a> {
    stream: &'a str,
    purged: u64,
    kept: u64,
}

/// Carries it out.
pub async fn run(args: PurgeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let name = args.name.as_str();
    let all = super::all(&client).await?;
    let Some(dead) = all.into_iter().find(|dead| dead.name() == name) else {
        let what = format!(
            "{name} is no stream of dead letters; `highwater stream trim` trims any stream"
        );
        return Err(Failure::Failed(what));
    };
    let mut kept = 0;
    for shard in &dead.stream.shards {
        // What came meanwhile was not meant.
        let before = args.before.map_or(TrimBefore::Sequence(shard.high_water), |before| before.0);
        let trimmed = client.trim_stream(name, Some(shard.shard), before).await;
        let trimmed = trimmed.map_err(|e| Failure::doing(format!("cannot purge {name}"), e))?;
        let now = trimmed.shards.iter().find(|s| s.shard == shard.shard);
        kept += now.map_or(0, |now| shard.high_water.saturating_sub(now.oldest));
    }
    let records = |s: &highwater_wire::ShardDescription| s.high_water.saturating_sub(s.oldest);
    let before: u64 = dead.stream.shards.iter().map(records).sum();
    let purged = before.saturating_sub(kept);
    if args.json {
        return output::json(&Purged { stream: name, purged, kept });
    }
    let (letters, left) = (human::counted(purged, "letter"), human::grouped(kept));
    output::line(format!("purged {letters} of {name}; {left} kept"))
}
