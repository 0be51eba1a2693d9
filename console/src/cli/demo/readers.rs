//! Consumer groups that read along and commit, so that there is a backlog to watch. One of them may go away for a
//! while and come back to what has gathered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_client::{
    Client, ClientError, ClientOptions, ConsumerOptions, OnTrimmed, ShardConsumer, Start,
};
use highwater_wire::Position;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::acts::{Act, Lapse};
use crate::failure::Failure;
use crate::signals::Stop;

/// Positions are committed this often.
const COMMIT_EVERY: Duration = Duration::from_millis(250);

/// A reader whose last record is no older has caught up.
const CURRENT: Duration = Duration::from_millis(250);

/// What became of a group's absences.
#[derive(Clone, Debug, Default)]
pub struct Story(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    absences: AtomicU64,
    /// Records read after the last return until the group had caught up.
    behind: AtomicU64,
    /// How long that took, in nanoseconds; 0: not yet.
    catch_up_ns: AtomicU64,
}

impl Story {
    /// Absences so far.
    pub fn absences(&self) -> u64 {
        self.0.absences.load(Ordering::Relaxed)
    }

    /// Records the last absence left to be read, and how long reading them took; `None` while that goes on.
    pub fn last(&self) -> Option<(u64, Duration)> {
        match self.0.catch_up_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some((self.0.behind.load(Ordering::Relaxed), Duration::from_nanos(ns))),
        }
    }
}

/// Reads the stream of `act` on a thread of its own until `stop`.
pub fn spawn(
    target: String,
    act: &Act,
    stop: Stop,
) -> Result<(thread::JoinHandle<()>, Story), Failure> {
    let runtime = crate::cli::runtime()?;
    let (stream, group, lapse) = (act.stream, act.group, act.lapse);
    let story = Story::default();
    let tell = story.clone();
    let read = move || {
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = read(&target, stream, group, lapse, tell) => ended,
                () = stop.wait() => Ok(()),
            }
        });
        if let Err(error) = ended.as_ref()
            && !stop.requested()
        {
            note!("group {group} stopped reading: {error}");
        }
    };
    let thread = thread::Builder::new()
        .name(group.into())
        .spawn(read)
        .map_err(|e| Failure::doing("cannot start a thread", e))?;
    Ok((thread, story))
}

async fn read(
    target: &str,
    stream: &str,
    group: &str,
    lapse: Option<Lapse>,
    story: Story,
) -> Result<(), ClientError> {
    let client = Client::connect(target, ClientOptions::default()).await?;
    let stream = client.describe_stream(stream).await?;
    let (sender, mut moved) = mpsc::channel(64);
    let away = watch::Sender::new(false);
    for shard in &stream.shards {
        let options = ConsumerOptions {
            on_trimmed: OnTrimmed::ContinueAtOldest,
            ..ConsumerOptions::default()
        };
        let consumer = client.consumer(&stream, shard.shard, Start::Latest, options).await?;
        tokio::spawn(follow(consumer, away.subscribe(), sender.clone(), story.clone()));
    }
    drop(sender);
    if let Some(lapse) = lapse {
        tokio::spawn(come_and_go(lapse, away, story));
    }
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
                client.commit_positions(group, &stream.name, &positions).await?;
            }
        }
    }
}

/// Goes away and comes back, for ever.
async fn come_and_go(lapse: Lapse, away: watch::Sender<bool>, story: Story) {
    tokio::time::sleep(lapse.after).await;
    loop {
        away.send_replace(true);
        story.0.absences.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(lapse.away).await;
        away.send_replace(false);
        tokio::time::sleep(lapse.back).await;
    }
}

/// Reads one shard, but not while the group is away.
async fn follow(
    mut consumer: ShardConsumer,
    mut away: watch::Receiver<bool>,
    moved: mpsc::Sender<Position>,
    story: Story,
) {
    // When the group came back, and what it has read since; until it has caught up.
    let mut returned: Option<(Instant, u64)> = None;
    loop {
        if *away.borrow_and_update() {
            // Whoever sends it lives as long as this stream is read; without it nobody is ever away again.
            let _ = away.wait_for(|away| !*away).await;
            returned = Some((Instant::now(), 0));
        }
        let Ok(Some(delivery)) = consumer.next().await else { return };
        if let Some((since, records)) = &mut returned {
            let (count, last_ns) = delivery
                .records()
                .fold((0, 0), |(count, _), record| (count + 1, record.timestamp_ns));
            *records += count;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if now.saturating_sub(Duration::from_nanos(last_ns)) < CURRENT {
                let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                story.0.behind.store(*records, Ordering::Relaxed);
                story.0.catch_up_ns.store(took.max(1), Ordering::Relaxed);
                returned = None;
            }
        }
        let position = Position { shard: consumer.shard(), sequence: delivery.next };
        if moved.send(position).await.is_err() {
            return;
        }
    }
}
