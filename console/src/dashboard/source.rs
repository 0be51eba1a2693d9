//! Where snapshots come from: the dashboard's only I/O besides the terminal.

use std::future::Future;
use std::thread;
use std::time::Duration;

use highwater_client::{Client, ClientOptions, RetryPolicy};
use highwater_wire::telemetry::Snapshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::{Failure, chain};
use crate::signals::Stop;

/// How often a server is asked; it publishes once a second.
pub const PERIOD: Duration = Duration::from_secs(1);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(8);

/// What a source brings.
#[derive(Debug)]
pub enum Reading {
    /// Figures.
    Snapshot(Box<Snapshot>),
    /// There are none for now.
    Lost {
        /// Why.
        reason: String,
    },
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
    due: Instant,
    retry: Duration,
}

impl Live {
    /// The server at `target`.
    pub fn new(target: impl Into<String>) -> Live {
        Live { target: target.into(), client: None, due: Instant::now(), retry: FIRST_RETRY }
    }

    async fn ask(&mut self) -> Result<Snapshot, String> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.target).await.map_err(|e| chain(&e))?,
        };
        let snapshot = client.snapshot().await.map_err(|e| chain(&e))?;
        self.client = Some(client);
        Ok(snapshot)
    }
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
        sleep_until(self.due).await;
        let asked = Instant::now();
        Some(match self.ask().await {
            Ok(snapshot) => {
                self.retry = FIRST_RETRY;
                self.due = asked + PERIOD;
                Reading::Snapshot(Box::new(snapshot))
            }
            Err(reason) => {
                self.due = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                Reading::Lost { reason }
            }
        })
    }
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

/// Two snapshots at least `span` apart, for one measurement; an error when they do not come in time.
pub async fn pair(target: &str, span: Duration) -> Result<(Snapshot, Snapshot), String> {
    let work = async {
        let client = connect(target).await.map_err(|e| chain(&e))?;
        let ask = || async { client.snapshot().await.map_err(|e| chain(&e)) };
        let first = ask().await?;
        let wanted = first.taken_ns + span.as_nanos() as u64;
        loop {
            sleep(Duration::from_millis(100)).await;
            let second = ask().await?;
            if second.started_ns != first.started_ns {
                return Err("the server was restarted meanwhile".to_owned());
            }
            if second.taken_ns >= wanted {
                return Ok((first, second));
            }
        }
    };
    let limit = span + Duration::from_secs(5);
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no second sample within {limit:?}")),
    }
}
