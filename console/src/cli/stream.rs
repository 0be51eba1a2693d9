//! `highwater stream`: what streams there are, what they are told, and how they are cut into shards.

mod describe;
mod keys;
mod list;
mod settings;
mod shards;
mod trim;

use clap::{Args, Subcommand, ValueEnum};
use highwater_client::{Client, ClientError};
use highwater_wire::{AckMode, MAX_SHARDS_PER_STREAM, StreamConfig, StreamName};

use super::Target;
use crate::failure::Failure;
use crate::{human, output};
use settings::Settings;
pub use trim::Before;

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
    /// Change a stream's settings, at once
    Set(SetArgs),
    /// List streams
    List(list::ListArgs),
    /// Describe a stream, its shards, and what became of the records offered to them
    Describe(describe::DescribeArgs),
    /// Split and merge until so many shards are open
    Reshard(shards::ReshardArgs),
    /// Split a shard
    Split(shards::SplitArgs),
    /// Merge neighbouring shards into one
    Merge(shards::MergeArgs),
    /// Give up the oldest records
    Trim(trim::TrimArgs),
    /// Show the partition keys most records have, by shard
    TopKeys(keys::TopKeysArgs),
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
    /// When an append is acknowledged
    #[arg(long, value_enum, default_value_t)]
    ack: Ack,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Its name
    name: StreamName,
    /// Not a setting; whoever tries is told what does it
    #[arg(long, value_name = "N", hide = true)]
    shards: Option<String>,
    #[command(flatten)]
    settings: Settings,
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

/// Carries it out.
pub fn run(args: StreamArgs) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match args.command {
            StreamCommand::Create(args) => create(args).await,
            StreamCommand::Set(args) => set(args).await,
            StreamCommand::List(args) => list::run(args).await,
            StreamCommand::Describe(args) => describe::run(args).await,
            StreamCommand::Reshard(args) => shards::reshard(args).await,
            StreamCommand::Split(args) => shards::split(args).await,
            StreamCommand::Merge(args) => shards::merge(args).await,
            StreamCommand::Trim(args) => trim::run(args).await,
            StreamCommand::TopKeys(args) => keys::run(args).await,
            StreamCommand::Delete(args) => delete(args).await,
        }
    })
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let config = args.settings.on(StreamConfig {
        shards: args.shards,
        ack: args.ack.into(),
        ..StreamConfig::default()
    });
    let client = args.target.connect().await?;
    let stream = client
        .create_stream(args.name.as_str(), config)
        .await
        .map_err(|e| settings::refused(format!("cannot create stream {}", args.name), e))?;
    let shards = human::plural(stream.shards.len(), "shard");
    output::line(format!("created stream {} with {shards}", stream.name))
}

async fn set(args: SetArgs) -> Result<(), Failure> {
    if let Some(shards) = &args.shards {
        let what = format!(
            "--shards is no setting: `highwater stream reshard {} --shards {shards}` splits and merges shards until so \
             many are open",
            args.name
        );
        return Err(Failure::Usage(what));
    }
    if args.settings.is_empty() {
        let what = "nothing to change: name at least one of --preset, --quota-in, --quota-out, --quota-burst, \
                    --stream-quota-in, --stream-quota-out, --backpressure, --retention, --retention-bytes";
        return Err(Failure::Usage(what.to_owned()));
    }
    let cannot = |e| settings::refused(format!("cannot change stream {}", args.name), e);
    let client = args.target.connect().await?;
    let changed: Result<_, ClientError> = change(&client, &args).await;
    let config = changed.map_err(cannot)?;
    output::line(format!("stream {}: {}", args.name, settings::text(&config)))
}

/// A quota is set whole, so the parts not named are taken from what is in force.
async fn change(client: &Client, args: &SetArgs) -> Result<StreamConfig, ClientError> {
    let name = args.name.as_str();
    let before = client.describe_stream(name).await?.config;
    Ok(client.set_stream(name, args.settings.change(&before)).await?.config)
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    client
        .delete_stream(args.name.as_str())
        .await
        .map_err(|e| Failure::doing(format!("cannot delete stream {}", args.name), e))?;
    output::line(format!("deleted stream {}", args.name))
}
