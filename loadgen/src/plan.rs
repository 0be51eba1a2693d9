//! What all threads of a run know: fixed before the first record, but for the ledgers and the times at which
//! its parts begin and end.
//!
//! A *place* is one shard of one of the run's streams. A *lane* is one producer's records for one place,
//! numbered densely. A *reader* is one group's way through one shard: a place, or a shard that came of places.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_wire::{BatchBuilder, BatchHeader, Limits, StreamDescription};

use crate::clock::{Clock, nanos};
use crate::descent::Descent;
use crate::integrity::Ledger;
use crate::options::{MAX_LANES, between};
use crate::routes::Routes;
use crate::schedule::{PreparedProfile, Schedule};
use crate::target::Link;
use crate::timeline::{Marks, Times};
use crate::workload::{Material, Source};
use crate::{LoadError, LoadOptions, Mode, Rate, Scenario};

/// How far ahead of their time records are dealt to lanes, beyond the linger: longer than a runtime's
/// timer is late.
pub const AHEAD: Duration = Duration::from_millis(10);

/// What else has to happen before a time that was set comes.
const LEAD: Duration = Duration::from_millis(20);

/// One shard of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in [`Plan::streams`].
    pub stream: usize,
    /// The shard's number.
    pub shard: u32,
}

/// What records are made of, and when they are due: prepared before the target is asked for anything.
#[derive(Debug)]
pub struct Supplies {
    /// What records are made of.
    pub material: Arc<Material>,
    /// How the rate changes in the measured window.
    pub profile: PreparedProfile,
}

impl Supplies {
    /// Reads and checks the files the options refer to.
    pub fn prepare(options: &LoadOptions) -> Result<Supplies, LoadError> {
        let material = Material::prepare(&options.workload, &options.keys, options.seed)?;
        Ok(Supplies { material: Arc::new(material), profile: options.profile.prepare()? })
    }
}

/// A run's common knowledge.
#[derive(Debug)]
pub struct Plan {
    /// What was asked.
    pub options: LoadOptions,
    /// How records are offered.
    pub mode: Mode,
    /// Number of the run.
    pub run: u64,
    /// What records are made of.
    pub material: Arc<Material>,
    /// How the rate changes in the measured window.
    pub profile: PreparedProfile,
    /// Where records go.
    pub streams: Vec<StreamDescription>,
    /// Their shards that were open when the run began, stream by stream.
    pub places: Vec<Place>,
    /// What comes of them.
    pub descent: Descent,
    /// Which record goes where.
    pub routes: Routes,
    /// Shard sequence before which nothing of this run lies, by place.
    pub from: Vec<u64>,
    /// Consumer groups.
    pub groups: usize,
    /// Consumers over all groups; 0: nothing is read.
    pub consumers: usize,
    /// Producers, or closed-loop callers.
    pub producers: usize,
    /// Most bytes of a batch's records, without its header.
    pub batch_room: usize,
    /// The clock of all threads.
    pub clock: Clock,
    /// When its parts begin and end.
    pub marks: Marks,
    ledgers: Vec<Mutex<Ledger>>,
}

impl Plan {
    /// For a valid set of options and the streams they lead to through `link`, whose open shards (stream by
    /// stream) stand at `from`. From some targets nothing is `readable`.
    pub fn new<L: Link>(
        options: LoadOptions,
        supplies: Supplies,
        link: &L,
        mut streams: Vec<StreamDescription>,
        from: Vec<u64>,
        readable: bool,
    ) -> Result<Plan, LoadError> {
        let Supplies { material, profile } = supplies;
        let limits = link.limits();
        let descent = Descent::new(&streams, options.groups);
        for stream in &mut streams {
            stream.shards.retain(|shard| !shard.closed);
        }
        let places: Vec<Place> = streams
            .iter()
            .enumerate()
            .flat_map(|(stream, described)| {
                described.shards.iter().map(move |shard| Place { stream, shard: shard.shard })
            })
            .collect();
        let mode = match (options.clients, options.rate) {
            (Some(_), _) => Mode::Closed,
            (None, Rate::Max) => Mode::Saturating,
            (None, Rate::PerSecond(_)) => Mode::Open,
        };
        let groups = options.groups;
        let consumers = consumers(&options, places.len(), readable)?;
        let producers = options.clients.unwrap_or(options.producers);
        let lanes = producers * places.len();
        if lanes > MAX_LANES {
            let (streams, shards) = (streams.len(), places.len());
            return Err(LoadError::Lanes { producers, streams, shards, lanes, limit: MAX_LANES });
        }
        let record = record_room(&material);
        check_sizes(&material, &limits)?;
        let room = options.batch_bytes.min(limits.max_batch as usize);
        // The smallest batch is one record.
        let batch_room = room.saturating_sub(BatchHeader::LEN).max(record);
        let inflight = if mode == Mode::Closed { 1 } else { options.inflight };
        let batch = if mode == Mode::Closed { record } else { batch_room };
        // What a target that stands still would leave here; every factor is bounded, far within 64 bits.
        let unanswered = (lanes * inflight) as u64 * batch as u64;
        if unanswered > MAX_UNANSWERED {
            return Err(LoadError::Memory { bytes: unanswered, limit: MAX_UNANSWERED });
        }
        let read_by = if consumers > 0 { groups } else { 0 };
        Ok(Plan {
            mode,
            run: fastrand::u64(1..1 << 53),
            routes: Routes::survey(link, &streams, &material)?,
            material,
            profile,
            streams,
            places,
            descent,
            from,
            groups,
            consumers,
            producers,
            batch_room,
            clock: Clock::start(),
            marks: Marks::new(&options),
            ledgers: (0..lanes).map(|_| Mutex::new(Ledger::new(read_by))).collect(),
            options,
        })
    }

    /// How far ahead times must be set so that no record beyond them has been dealt yet.
    pub fn lead(&self) -> Duration {
        self.options.linger.min(MAX_AHEAD) + AHEAD + LEAD
    }

    /// How far ahead of their time records are dealt, in nanoseconds.
    pub fn horizon_ns(&self) -> u64 {
        nanos(self.options.linger.min(MAX_AHEAD) + AHEAD)
    }

    /// The times of the run as far as they are known now.
    pub fn times(&self) -> Times {
        self.marks.times()
    }

    /// Lanes.
    pub fn lanes(&self) -> usize {
        self.producers * self.places.len()
    }

    /// Producer and place of a lane.
    pub fn lane(&self, index: usize) -> (u32, usize) {
        let places = self.places.len();
        ((index / places) as u32, index % places)
    }

    /// The place of a record with this key hash, met in a shard of a stream that came of the stream's places.
    pub fn place_of(&self, stream: usize, hash: u128) -> Option<usize> {
        let first = self.places.partition_point(|place| place.stream < stream);
        self.descent.place(stream, hash).map(|place| first + place)
    }

    /// The lane of a record met in a place; `None` if this run has no such producer.
    pub fn lane_of(&self, producer: u32, place: usize) -> Option<usize> {
        let producer = producer as usize;
        (producer < self.producers).then(|| producer * self.places.len() + place)
    }

    /// The stream of a place.
    pub fn stream(&self, place: usize) -> &StreamDescription {
        &self.streams[self.places[place].stream]
    }

    /// The consumer, of all there are, that reads a place for a group; there is none without consumers.
    pub fn consumer_of(&self, group: usize, place: usize) -> Option<usize> {
        let (each, more) = (self.consumers / self.groups, self.consumers % self.groups);
        let members = each + usize::from(group < more);
        let first = group * each + group.min(more);
        (members > 0).then(|| first + place % members)
    }

    /// Groups and places that worker `index` of `of` reads.
    pub fn readers_of(
        &self,
        index: usize,
        of: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<'_> {
        let all = (0..self.groups).flat_map(|g| (0..self.places.len()).map(move |p| (g, p)));
        all.filter(move |&(group, place)| {
            self.consumer_of(group, place).is_some_and(|consumer| consumer % of == index)
        })
    }

    /// Whether records are read.
    pub fn read(&self) -> bool {
        self.consumers > 0
    }

    /// Groups that read: all of them, or none.
    pub fn readers(&self) -> usize {
        if self.read() { self.groups } else { 0 }
    }

    /// The groups that go away for a time: the last ones.
    pub fn paused(&self) -> Range<usize> {
        let paused = match self.options.scenario {
            Scenario::Backlog { paused_groups, .. } => paused_groups as usize,
            Scenario::Run | Scenario::Burst => 0,
        };
        self.readers().saturating_sub(paused)..self.readers()
    }

    /// The groups that are always there.
    pub fn live(&self) -> Range<usize> {
        0..self.paused().start
    }

    /// The sequence after the last one acknowledged, by stream and shard.
    pub fn acked_ends(&self) -> BTreeMap<(usize, u32), u64> {
        let mut ends = BTreeMap::new();
        for lane in 0..self.lanes() {
            let stream = self.places[self.lane(lane).1].stream;
            for (shard, acked) in self.ledger(lane).acked_ends() {
                let end: &mut u64 = ends.entry((stream, *shard)).or_default();
                *end = (*end).max(*acked);
            }
        }
        ends
    }

    /// Most unanswered batches of a lane.
    pub fn inflight(&self) -> usize {
        if self.mode == Mode::Closed { 1 } else { self.options.inflight }
    }

    /// Due times of a producer's warm-up: at the mean rate, from the start of the run on. `None` without a
    /// rate.
    pub fn warm_up(&self, producer: usize) -> Option<Schedule> {
        let Rate::PerSecond(rate) = self.options.rate else { return None };
        let (mean, flat) = (self.profile.mean_rate(rate), PreparedProfile::flat());
        // The window's arrivals must not repeat those of the warm-up.
        Some(self.schedule(producer, &flat, mean, self.times().start_ns, !self.options.seed))
    }

    /// Due times of a producer in the measured window, from its beginning on. `None` without a rate.
    pub fn measured(&self, producer: usize) -> Option<Schedule> {
        let Rate::PerSecond(rate) = self.options.rate else { return None };
        Some(self.schedule(
            producer,
            &self.profile,
            rate,
            self.times().window_ns,
            self.options.seed,
        ))
    }

    fn schedule(
        &self,
        producer: usize,
        profile: &PreparedProfile,
        rate: f64,
        start_ns: u64,
        seed: u64,
    ) -> Schedule {
        let arrival = self.options.arrival;
        Schedule::new(arrival, profile, rate, producer, self.producers, start_ns, seed)
    }

    /// Records due from the start of the run to `ns`, over all producers: exact for constant arrivals,
    /// expected for others. 0 without a rate.
    pub fn due_by(&self, ns: u64) -> u64 {
        let Rate::PerSecond(rate) = self.options.rate else { return 0 };
        let (times, arrival) = (self.times(), self.options.arrival);
        let (mean, flat) = (self.profile.mean_rate(rate), PreparedProfile::flat());
        let warm_up = Schedule::new(arrival, &flat, mean, 0, 1, times.start_ns, 0);
        let mut due = warm_up.due_before(ns.min(times.window_ns).min(times.end_ns));
        if ns > times.window_ns {
            let window = Schedule::new(arrival, &self.profile, rate, 0, 1, times.window_ns, 0);
            due += window.due_before(ns.min(times.end_ns));
        }
        due
    }

    /// What a producer's records are, one after the other.
    pub fn source(&self, producer: u32) -> Source {
        self.material.source(producer, self.producers as u32, self.options.seed)
    }

    /// The history of a lane.
    pub fn ledger(&self, lane: usize) -> MutexGuard<'_, Ledger> {
        // A ledger is whole between calls: a panic elsewhere does not spoil it.
        self.ledgers[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lingers longer than this are not looked ahead over in one piece.
const MAX_AHEAD: Duration = Duration::from_secs(1);

/// Most bytes a record takes in a batch.
pub fn record_room(material: &Material) -> usize {
    let overhead = material.max_record().saturating_sub(material.max_payload());
    BatchBuilder::record_len(overhead, 0, material.max_payload())
}

/// How many consumers there are, if that is possible.
fn consumers(options: &LoadOptions, places: usize, readable: bool) -> Result<usize, LoadError> {
    let most = options.groups * places;
    match options.consumers {
        Some(0) => Ok(0),
        _ if !readable && matches!(options.scenario, Scenario::Backlog { .. }) => {
            Err(LoadError::Contradiction {
                field: "scenario",
                value: "backlog".to_owned(),
                why: "nothing can be read from this target",
            })
        }
        _ if !readable => Ok(0),
        None => Ok(most),
        Some(consumers) => {
            between("consumers", consumers, options.groups, most).map(|()| consumers)
        }
    }
}

/// Whether the largest record is one the target accepts, alone and in a batch.
fn check_sizes(material: &Material, limits: &Limits) -> Result<(), LoadError> {
    let payload = material.max_payload();
    for (bytes, limit) in [
        (material.max_record(), limits.max_record),
        (record_room(material) + BatchHeader::LEN, limits.max_batch),
    ] {
        if bytes > limit as usize {
            return Err(LoadError::RecordTooLarge { payload, overhead: bytes - payload, limit });
        }
    }
    Ok(())
}

/// Most bytes of unanswered batches a run may come to hold: its memory if the target stalls.
const MAX_UNANSWERED: u64 = 4 << 30;
