//! `highwater dlq purge`.

use std::ops::ControlFlow;

use clap::Args;
use highwater_client::Client;
use highwater_wire::{ShardDescription, TrimBefore};
use serde::Serialize;

use super::letter::each;
use super::{Dead, Name};
use crate::cli::Target;
use crate::cli::stream::Before;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// A stream of dead letters, or a group that has one to itself
    #[arg(value_name = "NAME|GROUP")]
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
    /// The stream; of several that a group has, all with a comma between.
    stream: &'a str,
    purged: u64,
    kept: u64,
}

/// Carries it out.
pub async fn run(args: PurgeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let name = args.name.as_str();
    let Some((streams, group)) = super::find(&client, name).await? else {
        let what = format!(
            "{name} is no stream of dead letters, nor a group that has one; `highwater stream trim` trims any stream"
        );
        return Err(Failure::Failed(what));
    };
    if let Some(group) = &group {
        // A stream is trimmed from its beginning: whose letters lie there has to be one and the same.
        for dead in &streams {
            if let Some(other) = other(&client, dead, group).await? {
                let name = dead.name();
                let what = format!(
                    "{name} has letters that are not of group {group} ({other}); `dlq purge {name}` gives all of them \
                     up, `dlq redrive {group}` gives those of the group again"
                );
                return Err(Failure::Failed(what));
            }
        }
    }
    let (mut purged, mut kept) = (0, 0);
    for dead in &streams {
        let (gone, left) = purge(&client, dead, args.before.map(|before| before.0)).await?;
        (purged, kept) = (purged + gone, kept + left);
    }
    let names: Vec<&str> = streams.iter().map(Dead::name).collect();
    let stream = names.join(", ");
    if args.json {
        return output::json(&Purged { stream: &stream, purged, kept });
    }
    let (letters, left) = (human::counted(purged, "letter"), human::grouped(kept));
    output::line(format!("purged {letters} of {stream}; {left} kept"))
}

/// Where the first letter comes from that is not of `group`, if there is one.
async fn other(client: &Client, dead: &Dead, group: &str) -> Result<Option<String>, Failure> {
    let mut found = None;
    let look = |letter: super::letter::Letter| {
        if letter.told.origin.group.as_deref() == Some(group) {
            return ControlFlow::Continue(());
        }
        found = Some(letter.told.place());
        ControlFlow::Break(())
    };
    each(client, dead, None, look).await?;
    Ok(found)
}

/// Gives the letters of a stream up that were there when it was described; how many went, and how many stay.
async fn purge(
    client: &Client,
    dead: &Dead,
    before: Option<TrimBefore>,
) -> Result<(u64, u64), Failure> {
    let name = dead.name();
    let mut kept = 0;
    for shard in &dead.stream.shards {
        // What came meanwhile was not meant.
        let before = before.unwrap_or(TrimBefore::Sequence(shard.high_water));
        let trimmed = client.trim_stream(name, Some(shard.shard), before).await;
        let trimmed = trimmed.map_err(|e| Failure::doing(format!("cannot purge {name}"), e))?;
        let now = trimmed.shards.iter().find(|s| s.shard == shard.shard);
        kept += now.map_or(0, |now| shard.high_water.saturating_sub(now.oldest));
    }
    let records = |s: &ShardDescription| s.high_water.saturating_sub(s.oldest);
    let were: u64 = dead.stream.shards.iter().map(records).sum();
    Ok((were.saturating_sub(kept), kept))
}
