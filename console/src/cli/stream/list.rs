//! `highwater stream list`.

use clap::Args;
use highwater_wire::StreamDescription;

use super::settings::retention;
use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Carries it out.
pub async fn run(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let streams =
        client.list_streams().await.map_err(|e| Failure::doing("cannot list streams", e))?;
    if args.json {
        let all: Vec<_> = streams.iter().map(super::describe::Description::of).collect();
        return output::json(&all);
    }
    let rows: Vec<_> = streams.iter().map(row).collect();
    output::table(&["stream", "shards", "records", "stored", "ack", "retention", "state"], &rows)
}

fn row(stream: &StreamDescription) -> Vec<String> {
    let records = stream.shards.iter().map(|s| s.high_water.saturating_sub(s.oldest)).sum();
    let bytes: u64 = stream.shards.iter().map(|s| s.stored_bytes).sum();
    let odd = stream.shards.iter().filter(|s| !s.closed && s.state != "open").count();
    let state = match odd {
        0 => "open".to_owned(),
        odd => format!("{} not open", human::plural(odd, "shard")),
    };
    vec![
        stream.name.clone(),
        stream.shards.iter().filter(|s| !s.closed).count().to_string(),
        human::grouped(records),
        human::binary(bytes),
        stream.config.ack.to_string(),
        retention(&stream.config),
        state,
    ]
}
