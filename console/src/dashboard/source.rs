//! Where samples come from: the dashboard's only I/O besides the terminal and recordings.

use std::future::Future;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_client::{Client, ClientOptions, FetchOptions, RetryPolicy};
use highwater_wire::telemetry::Snapshot;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::browse::{Answer, Ask, Record, Records};
use crate::failure::{Failure, chain};
use crate::signals::Stop;

/// How often the server publishes.
pub const PERIOD: Duration = Duration::from_secs(1);

/// A new snapshot is asked for a little before it is due, and then again soon: so its age stays small, and none
/// is missed.
const EARLY: Duration = Duration::from_millis(30);
const AGAIN: Duration = Duration::from_millis(60);
/// A server that publishes late is asked less eagerly.
const LATE: Duration = Duration::from_millis(250);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(8);

/// Questions that wait to be asked.
const ASKS: usize = 4;

/// What was received at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was received, nanoseconds since 1970 UTC by the receiver's clock.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What a sample is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Figures.
    Snapshot(Box<Snapshot>),
    /// There were none, for this reason.
    Lost(String),
}

/// What a source brings.
#[derive(Debug)]
pub enum Reading {
    /// Figures, or why there are none.
    Sample(Sample),
    /// The answer to a question.
    Answer(Answer),
}

/// Something that brings readings at its own pace.
pub trait Source: Send + 'static {
    /// The next one; `None` when there will be no more.
    fn next(&mut self) -> impl Future<Output = Option<Reading>>;
}

/// A running server, asked once a second, and again with growing pauses when it does not answer.
#[derive(Debug)]
pub struct Live {
    target: String,
    client: Option<Client>,
    asks: mpsc::Receiver<Ask>,
    due: Instant,
    retry: Duration,
    last: Last,
}

/// The last answer.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// None, or a failure.
    None,
    /// A snapshot with this serial number, received then.
    New { serial: u64, at: Instant },
}

/// Where questions are asked; the answers come as readings.
pub type Asker = mpsc::Sender<Ask>;

/// A queue of questions for [`Live::new`].
pub fn questions() -> (Asker, mpsc::Receiver<Ask>) {
    mpsc::channel(ASKS)
}

impl Live {
    /// The server at `target`, which is also asked what comes through `asks`.
    pub fn new(target: impl Into<String>, asks: mpsc::Receiver<Ask>) -> Live {
        Live {
            target: target.into(),
            client: None,
            asks,
            due: Instant::now(),
            retry: FIRST_RETRY,
            last: Last::None,
        }
    }

    async fn client(&mut self) -> Result<Client, String> {
        match self.client.take() {
            Some(client) => Ok(client),
            None => connect(&self.target).await.map_err(|e| chain(&e)),
        }
    }

    /// The latest, if it is another than the last.
    async fn snapshot(&mut self) -> Result<Option<Snapshot>, String> {
        let client = self.client().await?;
        let snapshot = match self.last {
            Last::None => client.snapshot().await.map(Some),
            Last::New { serial, .. } => client.snapshot_after(serial).await,
        };
        let snapshot = snapshot.map_err(|e| chain(&e))?;
        self.client = Some(client);
        Ok(snapshot)
    }

    /// Asks for a snapshot and decides when to ask again; `None` if there is nothing new.
    async fn sample(&mut self) -> Option<Sample> {
        let what = match self.snapshot().await {
            Ok(snapshot) => {
                let now = Instant::now();
                self.retry = FIRST_RETRY;
                let Some(snapshot) = snapshot else {
                    let last = if let Last::New { at, .. } = self.last { at } else { now };
                    let late = now.saturating_duration_since(last) > 2 * PERIOD;
                    self.due = now + if late { LATE } else { AGAIN };
                    return None;
                };
                self.last = Last::New { serial: snapshot.serial, at: now };
                self.due = now + PERIOD - EARLY;
                What::Snapshot(Box::new(snapshot))
            }
            Err(reason) => {
                self.last = Last::None;
                self.due = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                What::Lost(reason)
            }
        };
        Some(Sample { at: now_ns(), what })
    }

    async fn answer(&mut self, ask: Ask) -> Answer {
        match self.try_answer(&ask).await {
            Ok(answer) => answer,
            Err(reason) => Answer::Failed { ask, reason },
        }
    }

    async fn try_answer(&mut self, ask: &Ask) -> Result<Answer, String> {
        let client = self.client().await?;
        let answer = match ask {
            Ask::Describe { stream } => {
                let description = client.describe_stream(stream).await.map_err(|e| chain(&e))?;
                Answer::Description(Box::new(description))
            }
            Ask::Records { stream, shard, last, until } => {
                let records = records(&client, stream, *shard, *last, *until).await?;
                Answer::Records(records)
            }
        };
        self.client = Some(client);
        Ok(answer)
    }
}

/// Bytes asked for in one fetch, and fetches for one answer: bounds for a shard of large records.
const FETCH_BYTES: u32 = 256 << 10;
const FETCHES: usize = 4;

/// The last `last` records of the shard, or of those before `until`; or as many as a few fetches bring.
async fn records(
    client: &Client,
    stream: &str,
    shard: u32,
    last: u32,
    until: Option<u64>,
) -> Result<Records, String> {
    let description = client.describe_stream(stream).await.map_err(|e| chain(&e))?;
    let Some(about) = description.shards.iter().find(|s| s.shard == shard) else {
        return Err(format!("stream {stream} has no shard {shard}"));
    };
    let end = until.unwrap_or(u64::MAX).min(about.high_water);
    let mut from = end.saturating_sub(u64::from(last)).max(about.oldest);
    let mut answer = Records {
        stream: stream.to_owned(),
        shard,
        oldest: about.oldest,
        high_water: about.high_water,
        until,
        records: Vec::new(),
    };
    let options = FetchOptions { max_bytes: FETCH_BYTES, ..FetchOptions::default() };
    for _ in 0..FETCHES {
        if from >= end {
            break;
        }
        let fetched =
            client.fetch(&description, shard, from, options).await.map_err(|e| chain(&e))?;
        let wanted = fetched.delivery.records().filter(|record| record.sequence < end);
        answer.records.extend(wanted.map(|record| Record::of(&record)));
        if fetched.delivery.next <= from {
            break;
        }
        from = fetched.delivery.next;
    }
    let extra = answer.records.len().saturating_sub(last as usize);
    answer.records.drain(..extra);
    Ok(answer)
}

/// A connection for figures: gives up soon, because it asks again soon.
pub async fn connect(target: &str) -> Result<Client, highwater_client::ConnectError> {
    let options = ClientOptions {
        name: "highwater top".into(),
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        retry: RetryPolicy { deadline: Duration::from_secs(2), ..RetryPolicy::default() },
        ..ClientOptions::default()
    };
    Client::connect(target, options).await
}

impl Source for Live {
    async fn next(&mut self) -> Option<Reading> {
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                () = sleep_until(due) => {
                    if let Some(sample) = self.sample().await {
                        return Some(Reading::Sample(sample));
                    }
                }
                Some(ask) = self.asks.recv() => {
                    return Some(Reading::Answer(self.answer(ask).await));
                }
            }
        }
    }
}

/// Our clock, nanoseconds since 1970 UTC.
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Runs the source that `make` gives on a thread of its own until it ends, `stop` is asked for, or `sink`
/// returns false.
pub fn spawn<S: Source>(
    make: impl FnOnce() -> S + Send + 'static,
    stop: Stop,
    mut sink: impl FnMut(Reading) -> bool + Send + 'static,
) -> Result<thread::JoinHandle<()>, Failure> {
    let runtime = crate::cli::runtime()?;
    let play = move || {
        runtime.block_on(async {
            let mut source = make();
            loop {
                let reading = tokio::select! {
                    reading = source.next() => reading,
                    () = stop.wait() => None,
                };
                let Some(reading) = reading else { return };
                if !sink(reading) {
                    return;
                }
            }
        });
    };
    thread::Builder::new()
        .name("snapshots".into())
        .spawn(play)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}
