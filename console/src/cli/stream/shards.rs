//! `highwater stream reshard|split|merge`.

use clap::Args;
use highwater_client::ClientError;
use highwater_wire::{MAX_SHARDS_PER_STREAM, StreamDescription, StreamName};

use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct ReshardArgs {
    /// The stream
    name: StreamName,
    /// Open shards wanted, with equal shares of the load seen lately; of the hash-key space if none was seen
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SHARDS_PER_STREAM)))]
    shards: u32,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub struct SplitArgs {
    /// The stream
    name: StreamName,
    /// The shard, open
    #[arg(long, value_name = "N")]
    shard: u32,
    /// First hash keys of the second and later children, 32 hexadecimal digits or fewer each [default: one that
    /// halves the load, by the hash keys seen lately]
    #[arg(long, value_name = "HASH", value_delimiter = ',', value_parser = hash_key)]
    at: Vec<u128>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The stream
    name: StreamName,
    /// The shards: open, and neighbours in the hash-key space
    #[arg(long, value_name = "N,N", value_delimiter = ',', required = true, num_args = 1..)]
    shards: Vec<u32>,
    #[command(flatten)]
    target: Target,
}

/// Not a hash key.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a hash key; write 1 to 32 hexadecimal digits, such as 80000000000000000000000000000000"
)]
pub struct NoHashKey;

fn hash_key(text: &str) -> Result<u128, NoHashKey> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NoHashKey);
    }
    u128::from_str_radix(digits, 16).map_err(|_| NoHashKey)
}

/// Carries out `reshard`.
pub async fn reshard(args: ReshardArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let done = client.reshard(args.name.as_str(), args.shards).await;
    told(&args.name, format!("cannot reshard stream {}", args.name), done)
}

/// Carries out `split`.
pub async fn split(args: SplitArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let done = client.split_shard(args.name.as_str(), args.shard, &args.at).await;
    told(&args.name, format!("cannot split shard {} of stream {}", args.shard, args.name), done)
}

/// Carries out `merge`.
pub async fn merge(args: MergeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let done = client.merge_shards(args.name.as_str(), &args.shards).await;
    told(&args.name, format!("cannot merge shards of stream {}", args.name), done)
}

fn told(
    name: &StreamName,
    cannot: String,
    done: Result<StreamDescription, ClientError>,
) -> Result<(), Failure> {
    let stream = done.map_err(|e| Failure::doing(cannot, e))?;
    let open: Vec<_> = stream.shards.iter().filter(|shard| !shard.closed).collect();
    let numbers: Vec<String> = open.iter().map(|shard| shard.shard.to_string()).collect();
    let shards = human::plural(open.len(), "open shard");
    output::line(format!("stream {name} has {shards}: {}", numbers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_keys() {
        assert_eq!(hash_key("80000000000000000000000000000000").unwrap(), 1 << 127);
        assert_eq!(hash_key("0xff").unwrap(), 255);
        for wrong in ["", "0x", "g", "-1", "+1", &"f".repeat(33)] {
            assert!(hash_key(wrong).is_err(), "{wrong}");
        }
    }
}
