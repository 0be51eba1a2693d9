//! A target that keeps nothing and answers on the spot: what remains is the generator itself.
//!
//! Every batch is completed and its checksum computed, as a real client does, and acknowledged on the same
//! thread. To try the generator (and its reader's understanding of it), answers can be delayed, and the
//! whole target can stand still at intervals.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use highwater_wire::{
    BatchBuilder, Limits, MAX_RECORD_CEILING, ProducerStamp, RecordView, StreamConfig,
    StreamDescription,
};
use tokio::sync::Notify;

use super::{
    At, Chunk, Failure, Fate, LaneOptions, Link, Outcome, Outcomes, Refusal, Sink, Source, Target,
    Trouble,
};

/// The null target, `null[:stall=FOR/EVERY][,service=TIME]`.
#[derive(Clone, Debug)]
pub struct Null {
    name: String,
    /// From each batch's arrival to its answer.
    service: Duration,
    stall: Option<Stall>,
    /// When the first batch came, at any link.
    since: Arc<OnceLock<Instant>>,
}

/// Standing still for the last `length` of every `every`, counted from the first batch.
#[derive(Clone, Copy, Debug)]
struct Stall {
    length: Duration,
    every: Duration,
}

/// What a null target cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NullError {
    /// Not one of its settings.
    #[error("null target setting {0:?}; there are stall=FOR/EVERY and service=TIME")]
    Unknown(String),
    /// A time that is none.
    #[error("null target {setting}: {value:?} is no time: {why}")]
    Time {
        /// Which setting.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A stall without an end or a beginning.
    #[error(
        "null target stall {length:?}/{every:?}: it must be more than 0 and less than its period"
    )]
    Stall {
        /// How long it stands still.
        length: Duration,
        /// Of how long.
        every: Duration,
    },
}

impl Default for Null {
    /// Without delay or stall.
    fn default() -> Null {
        Null {
            name: "null".to_owned(),
            service: Duration::ZERO,
            stall: None,
            since: Arc::default(),
        }
    }
}

impl FromStr for Null {
    type Err = NullError;

    fn from_str(text: &str) -> Result<Null, NullError> {
        let mut null = Null { name: text.to_owned(), ..Null::default() };
        let settings = match text.split_once(':') {
            None if text == "null" => return Ok(null),
            Some(("null", settings)) => settings,
            _ => return Err(NullError::Unknown(text.to_owned())),
        };
        for setting in settings.split(',') {
            match setting.split_once('=') {
                Some(("service", value)) => null.service = time("service", value)?,
                Some(("stall", value)) => {
                    let Some((length, every)) = value.split_once('/') else {
                        return Err(NullError::Unknown(setting.to_owned()));
                    };
                    let (length, every) = (time("stall", length)?, time("stall", every)?);
                    if length.is_zero() || length >= every {
                        return Err(NullError::Stall { length, every });
                    }
                    null.stall = Some(Stall { length, every });
                }
                _ => return Err(NullError::Unknown(setting.to_owned())),
            }
        }
        Ok(null)
    }
}

fn time(setting: &'static str, value: &str) -> Result<Duration, NullError> {
    humantime::parse_duration(value).map_err(|error| NullError::Time {
        setting,
        value: value.to_owned(),
        why: error.to_string(),
    })
}

impl Null {
    /// When it goes on, if it stands still at `now`.
    fn stalled_until(&self, now: Instant) -> Option<Instant> {
        let Stall { length, every } = self.stall?;
        let since = now.duration_since(*self.since.get()?);
        let period = since.as_nanos() % every.as_nanos();
        let still = period >= (every - length).as_nanos();
        let left = every.as_nanos() - period;
        still.then(|| now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// When a batch that came at `now` is answered.
    fn answered_at(&self, now: Instant) -> Instant {
        let at = now + self.service;
        self.stalled_until(at).unwrap_or(at)
    }
}

impl Target for Null {
    type Link = NullLink;

    fn address(&self) -> &str {
        &self.name
    }

    async fn link(&self) -> Result<NullLink, Refusal> {
        Ok(NullLink(self.clone()))
    }

    fn readable(&self) -> bool {
        false
    }
}

/// A way to nowhere.
#[derive(Debug)]
pub struct NullLink(Null);

impl Link for NullLink {
    type Sink = NullSink;
    type Outcomes = NullOutcomes;
    type Source = NullSource;

    fn server(&self) -> String {
        "none".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits::for_record(MAX_RECORD_CEILING)
    }

    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    async fn high_water(&self, _: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        Ok(0)
    }

    async fn sink(
        &self,
        _: &StreamDescription,
        shard: u32,
        lane: LaneOptions,
    ) -> Result<(NullSink, NullOutcomes), Refusal> {
        let shared = Rc::new(Shared {
            answers: RefCell::new(VecDeque::with_capacity(lane.inflight)),
            added: Notify::new(),
            closed: Cell::new(false),
        });
        let (null, sequence) = (self.0.clone(), 0);
        let sink = NullSink { null, shared: Rc::clone(&shared), shard, sequence };
        Ok((sink, NullOutcomes(shared)))
    }

    async fn source(&self, _: &StreamDescription, _: u32, _: u64) -> Result<NullSource, Refusal> {
        Err(Refusal("a null target keeps nothing to read".to_owned()))
    }
}

/// Answers not heard yet, oldest first.
#[derive(Debug)]
struct Shared {
    /// With the time from which each may be heard; `None`: at once.
    answers: RefCell<VecDeque<(Option<Instant>, Outcome)>>,
    added: Notify,
    closed: Cell<bool>,
}

/// Takes batches for one shard.
#[derive(Debug)]
pub struct NullSink {
    null: Null,
    shared: Rc<Shared>,
    shard: u32,
    /// Of the next record.
    sequence: u64,
}

impl Sink for NullSink {
    /// Always: as with a server that stands still, what is sent is under way and the answer is missing.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        std::hint::black_box(batch.finish(ProducerStamp::default()));
        let first = self.sequence;
        self.sequence += u64::from(batch.record_count());
        batch.clear();
        let delayed = !self.null.service.is_zero() || self.null.stall.is_some();
        let at = delayed.then(|| {
            let now = Instant::now();
            self.null.since.get_or_init(|| now);
            self.null.answered_at(now)
        });
        let place = At { shard: self.shard, sequence: first };
        let outcome = Outcome::whole(tag, Fate::Stored(Some(place)));
        self.shared.answers.borrow_mut().push_back((at, outcome));
        self.shared.added.notify_one();
        Ok(())
    }
}

impl Drop for NullSink {
    fn drop(&mut self) {
        self.shared.closed.set(true);
        self.shared.added.notify_one();
    }
}

/// Tells of the batches of one sink.
#[derive(Debug)]
pub struct NullOutcomes(Rc<Shared>);

impl Outcomes for NullOutcomes {
    async fn next(&mut self) -> Option<Outcome> {
        loop {
            let front = self.0.answers.borrow().front().map(|(at, _)| *at);
            match front {
                Some(at) => {
                    if let Some(at) = at {
                        until(at).await;
                    }
                    return self.0.answers.borrow_mut().pop_front().map(|(_, outcome)| outcome);
                }
                None if self.0.closed.get() => return None,
                None => self.0.added.notified().await,
            }
        }
    }
}

/// Returns at `at` to within microseconds: the runtime's timer, which ticks in milliseconds, for most of
/// a long wait, and awake for the rest.
async fn until(at: Instant) {
    const TICKS: Duration = Duration::from_millis(2);
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        } else if left > TICKS {
            tokio::time::sleep(left - TICKS).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// There is none: nothing was kept.
#[derive(Debug)]
pub enum NullSource {}

impl Source for NullSource {
    type Chunk = NullChunk;

    async fn next(&mut self) -> Result<Option<NullChunk>, Trouble> {
        match *self {}
    }

    fn resume(&mut self, _: u64) {
        match *self {}
    }

    fn position(&self) -> u64 {
        match *self {}
    }

    fn trimmed(&self) -> u64 {
        match *self {}
    }
}

/// There is none either.
#[derive(Debug)]
pub enum NullChunk {}

impl Chunk for NullChunk {
    fn each(&self, _: impl FnMut(RecordView<'_>, u64)) {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_wrong_ones_named() {
        let null: Null = "null:stall=1s/10s,service=20us".parse().unwrap();
        assert_eq!(null.service, Duration::from_micros(20));
        assert_eq!(null.stall.map(|s| (s.length.as_secs(), s.every.as_secs())), Some((1, 10)));
        assert_eq!("null".parse::<Null>().unwrap().address(), "null");
        for (text, part) in [
            ("nil", "nil"),
            ("null:speed=3", "speed=3"),
            ("null:stall=1s", "stall=1s"),
            ("null:service=fast", "fast"),
            ("null:stall=10s/10s", "10s"),
        ] {
            let said = text.parse::<Null>().unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn it_stands_still_at_the_end_of_every_period() {
        let null: Null = "null:stall=1s/10s,service=5s".parse().unwrap();
        let start = Instant::now();
        assert_eq!(null.stalled_until(start), None);
        null.since.set(start).unwrap();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(null.stalled_until(at(8.5)), None);
        assert_eq!(null.stalled_until(at(9.5)), Some(at(10.0)));
        assert_eq!(null.stalled_until(at(10.0)), None);
        assert_eq!(null.stalled_until(at(119.0)), Some(at(120.0)));
        // An answer that would fall into a stall comes at its end.
        assert_eq!(null.answered_at(at(4.5)), at(10.0));
        assert_eq!(null.answered_at(at(5.5)), at(10.5));
    }
}
