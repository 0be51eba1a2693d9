//! A consumer group that reads along and commits, so that there is a backlog to watch.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use highwater_client::{Client, ClientError, ClientOptions, ConsumerOptions, OnTrimmed, Start};
use highwater_wire::Position;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::signals::Stop;

const GROUP: &str = "demo-readers";

/// Positions are committed this often.
const COMMIT_EVERY: Duration = Duration::from_millis(250);

/// Reads `stream` on a thread of its own until `stop`.
pub fn spawn(
    target: String,
    stream: &'static str,
    stop: Stop,
) -> Result<thread::JoinHandle<()>, Failure> {
    let runtime = crate::cli::runtime()?;
    let read = move || {
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = read(&target, stream) => ended,
                () = stop.wait() => Ok(()),
            }
        });
        if let Err(error) = ended.as_ref()
            && !stop.requested()
        {
            eprintln!("group {GROUP} stopped reading: {error}");
        }
    };
    thread::Builder::new()
        .name("readers".into())
        .spawn(read)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}

async fn read(target: &str, stream: &str) -> Result<(), ClientError> {
    let client = Client::connect(target, ClientOptions::default()).await?;
    let stream = client.describe_stream(stream).await?;
    let (sender, mut moved) = mpsc::channel(64);
    for shard in &stream.shards {
        let options = ConsumerOptions {
            on_trimmed: OnTrimmed::ContinueAtOldest,
            ..ConsumerOptions::default()
        };
        let mut consumer = client.consumer(&stream, shard.shard, Start::Latest, options).await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(delivery)) = consumer.next().await {
                let position = Position { shard: consumer.shard(), sequence: delivery.next };
                if sender.send(position).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut read: BTreeMap<u32, u64> = BTreeMap::new();
    let mut commit = tokio::time::interval(COMMIT_EVERY);
    loop {
        tokio::select! {
            position = moved.recv() => match position {
                Some(position) => {
                    read.insert(position.shard, position.sequence);
                }
                None => return Ok(()),
            },
            _ = commit.tick(), if !read.is_empty() => {
                let positions: Vec<Position> = std::mem::take(&mut read)
                    .into_iter()
                    .map(|(shard, sequence)| Position { shard, sequence })
                    .collect();
                client.commit_positions(GROUP, &stream.name, &positions).await?;
            }
        }
    }
}
