//! `highwater stream create|list|describe|delete`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use highwater_wire::{AckMode, MAX_SHARDS_PER_STREAM, StreamConfig, StreamDescription, StreamName};

use super::Target;
use crate::failure::Failure;
use crate::{human, output, units};

/// `highwater stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    /// Create a stream
    Create(CreateArgs),
    /// List streams
    List(ListArgs),
    /// Describe a stream and its shards
    Describe(DescribeArgs),
    /// Delete a stream and its records
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name: 1 to 128 of a-z A-Z 0-9 . _ -
    name: StreamName,
    /// Shards: what is written and read in parallel; each keeps its order
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SHARDS_PER_STREAM)))]
    shards: u32,
    /// Drop segments whose last record is older than this [default: keep for ever]
    #[arg(long, value_name = "AGE", value_parser = units::duration)]
    retention: Option<Duration>,
    /// Drop the oldest segments above this size [default: no bound]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    retention_bytes: Option<u64>,
    /// When an append is acknowledged
    #[arg(long, value_enum, default_value_t)]
    ack: Ack,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct DescribeArgs {
    /// Its name
    name: StreamName,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// Its name
    name: StreamName,
    #[command(flatten)]
    target: Target,
}

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// When the device has the bytes
    #[default]
    Durable,
    /// When the write completed; a flush follows within 10 ms
    Written,
}

impl From<Ack> for AckMode {
    fn from(ack: Ack) -> AckMode {
        match ack {
            Ack::Durable => AckMode::Durable,
            Ack::Written => AckMode::Written,
        }
    }
}

impl CreateArgs {
    fn config(&self) -> StreamConfig {
        let age = self.retention.map_or(0, |age| age.as_millis());
        StreamConfig {
            shards: self.shards,
            retention_ms: u64::try_from(age).unwrap_or(u64::MAX),
            retention_bytes: self.retention_bytes.unwrap_or(0),
            ack: self.ack.into(),
            ..StreamConfig::default()
        }
    }
}

/// Carries it out.
pub fn run(args: StreamArgs) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match args.command {
            StreamCommand::Create(args) => create(args).await,
            StreamCommand::List(args) => list(args).await,
            StreamCommand::Describe(args) => describe(args).await,
            StreamCommand::Delete(args) => delete(args).await,
        }
    })
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let stream = client
        .create_stream(args.name.as_str(), args.config())
        .await
        .map_err(|e| Failure::doing(format!("cannot create stream {}", args.name), e))?;
    let shards = human::plural(stream.shards.len(), "shard");
    output::line(format!("created stream {} with {shards}", stream.name))
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let streams =
        client.list_streams().await.map_err(|e| Failure::doing("cannot list streams", e))?;
    if args.json {
        return output::json(&streams);
    }
    let row = |stream: &StreamDescription| {
        let records = stream.shards.iter().map(|s| s.high_water.saturating_sub(s.oldest)).sum();
        let bytes: u64 = stream.shards.iter().map(|s| s.stored_bytes).sum();
        let odd = stream.shards.iter().filter(|s| s.state != "open").count();
        let state = if odd == 0 {
            "open".to_owned()
        } else {
            format!("{} not open", human::plural(odd, "shard"))
        };
        vec![
            stream.name.clone(),
            stream.config.shards.to_string(),
            human::grouped(records),
            human::binary(bytes),
            stream.config.ack.to_string(),
            retention(&stream.config),
            state,
        ]
    };
    let rows: Vec<_> = streams.iter().map(row).collect();
    output::table(&["stream", "shards", "records", "stored", "ack", "retention", "state"], &rows)
}

async fn describe(args: DescribeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let stream = client
        .describe_stream(args.name.as_str())
        .await
        .map_err(|e| Failure::doing(format!("cannot describe stream {}", args.name), e))?;
    if args.json {
        return output::json(&stream);
    }
    let (config, created) = (&stream.config, human::rfc3339(stream.created_ns));
    output::line(format!(
        "stream {} (number {}), created {created}, ack {}, retention {}",
        stream.name,
        stream.id,
        config.ack,
        retention(config)
    ))?;
    let rows: Vec<_> = stream
        .shards
        .iter()
        .map(|shard| {
            vec![
                shard.shard.to_string(),
                shard.core.to_string(),
                shard.oldest.to_string(),
                shard.high_water.to_string(),
                human::binary(shard.stored_bytes),
                shard.state.clone(),
                format!("{:032x}..{:032x}", shard.hash_start, shard.hash_end),
            ]
        })
        .collect();
    let head = ["shard", "core", "oldest", "high-water", "stored", "state", "hash keys"];
    output::table(&head, &rows)
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    client
        .delete_stream(args.name.as_str())
        .await
        .map_err(|e| Failure::doing(format!("cannot delete stream {}", args.name), e))?;
    output::line(format!("deleted stream {}", args.name))
}

fn retention(config: &StreamConfig) -> String {
    let age = Duration::from_millis(config.retention_ms);
    match (config.retention_ms, config.retention_bytes) {
        (0, 0) => "for ever".to_owned(),
        (_, 0) => human::duration(age),
        (0, bytes) => human::binary(bytes),
        (_, bytes) => format!("{} or {}", human::duration(age), human::binary(bytes)),
    }
}
