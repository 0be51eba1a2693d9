//! `--expect-sequence`: a number means something only where all records go to one shard.

use highwater_client::Client;
use highwater_wire::StreamDescription;

use crate::failure::Failure;
use crate::input::Key;

/// Why a sequence number cannot be expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// Each shard counts for itself, and the keys do not all lead to one.
    #[error(
        "--expect-sequence: stream {stream} has {shards} open shards, each with sequence numbers of its own; with \
         --key const or const:VALUE all records go to one of them"
    )]
    SeveralShards {
        /// The stream.
        stream: String,
        /// Its open shards.
        shards: usize,
    },
}

/// Refuses a stream on which it would not be known of which shard the number is.
pub async fn check(client: &Client, stream: &str, key: Option<&Key>) -> Result<(), Failure> {
    let cannot = |e| Failure::doing(format!("cannot write to stream {stream}"), e);
    let described = client.describe_stream(stream).await.map_err(cannot)?;
    one_shard(&described, key).map_err(Failure::failed)
}

/// Whether records with `key` all go to one shard, as the stream is now. One that is split later refuses them.
fn one_shard(stream: &StreamDescription, key: Option<&Key>) -> Result<(), ExpectError> {
    let shards = stream.shards.iter().filter(|shard| !shard.closed).count();
    if shards <= 1 || matches!(key, Some(Key::Constant(_))) {
        return Ok(());
    }
    Err(ExpectError::SeveralShards { stream: stream.name.clone(), shards })
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::StreamConfig;

    #[test]
    fn a_number_is_expected_of_one_shard_only() {
        let stream = |shards, closed| {
            let config = StreamConfig { shards, ..StreamConfig::default() };
            let mut stream = StreamDescription::evenly("s", 1, config);
            stream.shards.iter_mut().take(closed).for_each(|shard| shard.closed = true);
            stream
        };
        let several = |shards| Err(ExpectError::SeveralShards { stream: "s".to_owned(), shards });
        let constant = Key::Constant("k".to_owned());
        let field = Key::Field("user".to_owned());
        let cases = [
            (stream(1, 0), None, Ok(())),
            (stream(3, 2), Some(&Key::Random), Ok(())),
            (stream(3, 0), Some(&constant), Ok(())),
            (stream(3, 0), None, several(3)),
            (stream(3, 1), Some(&Key::Random), several(2)),
            (stream(2, 0), Some(&field), several(2)),
        ];
        for (stream, key, wanted) in cases {
            assert_eq!(one_shard(&stream, key), wanted, "{key:?}");
        }
    }
}
