//! What is acknowledged, what is waited for, and what to say while nothing comes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use highwater_client::{ClientError, Receipt, SendError};
use highwater_wire::{ErrorCode, StreamName};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use super::dead::stream_of;
use crate::failure::{Failure, chain};
use crate::signals::Stop;
use crate::{human, output};

/// A record sent.
pub struct Awaited {
    /// Its acknowledgement.
    pub receipt: Receipt,
    /// Its payload, bytes.
    pub bytes: usize,
    /// Where it came from.
    pub line: u64,
    /// Why it is a dead letter, if it is one.
    pub unfit: Option<String>,
}

/// How far sending and settling are; the two run side by side.
#[derive(Debug, Default)]
pub struct Progress {
    sent: Cell<u64>,
    settled: Cell<u64>,
}

/// A silence of the server this long is told.
const SILENCE: Duration = Duration::from_millis(1_500);

/// The client ends a record's attempts itself at the deadline; this much later it is taken for stuck.
const SLACK: Duration = Duration::from_secs(5);

impl Progress {
    /// A record more is on its way.
    pub fn sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    /// One more is settled, well or not.
    pub fn settled(&self) {
        self.settled.set(self.settled.get() + 1);
    }

    /// Says on stderr when nothing was acknowledged for a while, less and less often, and what `held_up` tells of why;
    /// ends with a reason when it lasts longer than `timeout` allows.
    pub async fn watch(
        &self,
        timeout: Duration,
        held_up: impl Fn() -> Option<ClientError>,
    ) -> String {
        let mut tick = interval(Duration::from_millis(250));
        let mut silence = Silence::new(Instant::now());
        loop {
            let now = tick.tick().await;
            let silent = silence.at(now, self.sent.get(), self.settled.get());
            if silent > timeout + SLACK {
                let why = why(held_up().as_ref());
                return format!("nothing was acknowledged for {} s: {why}", silent.as_secs());
            }
            if let Some(seconds) = silence.told(silent) {
                let why = why(held_up().as_ref());
                note!(
                    "waiting: nothing was acknowledged for {seconds} s: {why} (trying again until {} s)",
                    timeout.as_secs()
                );
            }
        }
    }
}

/// Why nothing is acknowledged, by what the client has heard last.
fn why(held_up: Option<&ClientError>) -> String {
    let Some(cause) = held_up else { return "no reply has come yet".to_owned() };
    match cause.code() {
        Some(ErrorCode::QuotaExceeded) => {
            let after = human::nanos(cause.retry_after().as_nanos().try_into().unwrap_or(u64::MAX));
            format!("a quota holds records up; there is room for more in {after}")
        }
        Some(ErrorCode::DiskFull) => "the server's disk is full".to_owned(),
        Some(_) => chain(cause),
        None => format!("the server is out of reach: {}", chain(cause)),
    }
}

/// Since when nothing was acknowledged although something was sent.
struct Silence {
    settled: u64,
    since: Instant,
    tell_at: Duration,
}

impl Silence {
    fn new(now: Instant) -> Silence {
        Silence { settled: 0, since: now, tell_at: SILENCE }
    }

    /// How long it has been so.
    fn at(&mut self, now: Instant, sent: u64, settled: u64) -> Duration {
        if sent == settled || settled != self.settled {
            *self = Silence { settled, ..Silence::new(now) };
        }
        now.duration_since(self.since)
    }

    /// The seconds to tell, if it is time to.
    fn told(&mut self, silent: Duration) -> Option<u64> {
        (silent >= self.tell_at).then(|| {
            self.tell_at = silent * 2;
            silent.as_secs_f64().round() as u64
        })
    }
}

/// What is acknowledged.
#[derive(Default)]
pub struct Stored {
    records: u64,
    bytes: u64,
    /// Records the stream's backpressure dropped, and those it left out of its sample.
    shed: [u64; 2],
    /// Dead letters, and the line and reason of the first.
    dead: u64,
    first_dead: Option<(u64, String)>,
    /// First and last sequence number and number of records, by shard.
    shards: BTreeMap<u32, (u64, u64, u64)>,
    failed: Option<String>,
}

impl Stored {
    /// Waits for every acknowledgement of `receipts`; the first failure is told to `failed`, the others are
    /// still counted.
    pub async fn settle(
        &mut self,
        mut receipts: mpsc::Receiver<Awaited>,
        progress: &Progress,
        failed: &Stop,
    ) -> Result<(), String> {
        while let Some(awaited) = receipts.recv().await {
            if let Err(error) = self.take(awaited).await {
                self.failed.get_or_insert(error);
                failed.request();
            }
            progress.settled();
        }
        self.first(Ok(()))
    }

    /// Waits for one acknowledgement, and counts it.
    pub async fn take(&mut self, awaited: Awaited) -> Result<(), String> {
        let Awaited { receipt, bytes, line, unfit } = awaited;
        match receipt.await {
            Ok(_) if unfit.is_some() => {
                self.dead += 1;
                self.first_dead = self.first_dead.take().or(unfit.map(|why| (line, why)));
            }
            Ok(acked) => self.count(acked.shard, acked.sequence, bytes),
            // What the stream was told to do is no failure, but is said.
            Err(SendError::Shed { sampled }) => self.shed[usize::from(sampled)] += 1,
            Err(e) => return Err(format!("line {line}: {}", chain(&e))),
        }
        Ok(())
    }

    /// Records whose fate is known and good.
    pub fn total(&self) -> u64 {
        self.records + self.dead + self.shed.iter().sum::<u64>()
    }

    /// The first record's failure if there was one, else how it `ended`.
    pub fn first(&self, ended: Result<(), String>) -> Result<(), String> {
        self.failed.clone().map_or(ended, Err)
    }

    fn count(&mut self, shard: u32, sequence: u64, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        let (first, last, records) = self.shards.entry(shard).or_insert((sequence, sequence, 0));
        *first = sequence.min(*first);
        *last = sequence.max(*last);
        *records += 1;
    }

    /// On stdout: how many in all, and where in each shard.
    pub fn report(&self, stream: &StreamName) -> Result<(), Failure> {
        let (records, bytes) =
            (human::counted(self.records, "record"), human::counted(self.bytes, "byte"));
        output::line(format!("stored {records}, {bytes} in {stream}"))?;
        for (what, shed) in ["dropped", "sampled out"].iter().zip(self.shed) {
            if shed > 0 {
                let records = human::counted(shed, "record");
                output::line(format!("{what} {records}, as the stream's backpressure says"))?;
            }
        }
        if let Some((line, why)) = &self.first_dead {
            let (letters, dead) = (human::counted(self.dead, "dead letter"), stream_of(stream));
            output::line(format!("{letters} in {dead}; the first is line {line}: {why}"))?;
        }
        for (shard, (first, last, records)) in &self.shards {
            let records = human::counted(*records, "record");
            output::line(format!("shard {shard}: {records}, sequence {first} to {last}"))?;
        }
        Ok(())
    }

    /// How many are stored, and of how many that is not known.
    pub fn tally(&self, progress: &Progress) -> String {
        let verb = if self.records == 1 { "was" } else { "were" };
        let stored = format!("{} {verb} stored", human::counted(self.records, "record"));
        match progress.sent.get().saturating_sub(self.total()) {
            0 => stored,
            open => format!("{stored}; {} sent without an acknowledgement", human::grouped(open)),
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_wire::WireError;

    use super::*;

    #[test]
    fn what_holds_records_up_is_told_by_its_code() {
        let refused = |code, after_ms| {
            let error = WireError::new(code, "not now").retry_after(after_ms);
            why(Some(&ClientError::Refused(error)))
        };
        assert!(refused(ErrorCode::QuotaExceeded, 1_000).starts_with("a quota holds records up"));
        assert_eq!(refused(ErrorCode::DiskFull, 0), "the server's disk is full");
        assert!(refused(ErrorCode::Busy, 5).contains("Busy"));
        let silent = ClientError::TimedOut { after: Duration::from_secs(3) };
        assert!(why(Some(&silent)).starts_with("the server is out of reach"));
        assert_eq!(why(None), "no reply has come yet");
    }

    #[test]
    fn a_silence_is_told_soon_and_then_less_often() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut silence = Silence::new(start);
        let mut told = |at: u32, sent, settled| {
            let silent = silence.at(start + second * at, sent, settled);
            silence.told(silent)
        };
        assert_eq!(told(9, 0, 0), None, "nothing was sent: the input is slow, not the server");
        let said: Vec<u32> = (10..40).filter(|&at| told(at, 5, 0).is_some()).collect();
        assert_eq!(said, [11, 13, 17, 25], "seconds after the ninth: 2, 4, 8, 16");
        assert_eq!(told(41, 5, 3), None, "something came");
        assert_eq!(told(43, 5, 3), Some(2));
    }
}
