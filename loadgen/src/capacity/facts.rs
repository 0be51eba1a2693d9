//! What several questions need: the capacity a plan is made with, and what a record weighs.

use super::commands::Commands;
use super::demand::Demand;
use super::evidence::{Ceiling, Evidence, Point, Range, SAME_SIZE, Setup, Sustained};
use super::recorded::{Recorded, Window};
use crate::workload::Workload;

/// What a capacity rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A search.
    Search,
    /// The highest rate that single runs kept up.
    Runs,
    /// The highest rate a recording shows as borne.
    Recording,
}

/// What the machine sustains, as far as it is known.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// The source.
    pub from: String,
    /// What it rests on.
    pub basis: Basis,
    /// What it holds for.
    pub setup: Option<Setup>,
    /// The goals, in words.
    pub goals: String,
    /// What may be relied on, in records per second.
    pub safe: f64,
    /// The estimate around it; absent for what runs kept up, and where nothing gave out at any rate tried.
    pub estimate: Option<Range>,
    /// The lowest rate above `safe` that was tried and did not hold; absent if none was.
    pub missed: Option<f64>,
    /// What is delivered when more is offered.
    pub served: Option<Ceiling>,
    /// What all rates were multiplied with: skew measured over the skew of the keys, at most 1.
    pub for_keys: f64,
    /// The search it came from.
    pub search: Option<Sustained>,
    /// Searches of the same that were left aside for their other goals: source and goals in words.
    pub aside: Vec<(String, String)>,
}

/// Everything an answer may look at.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What was measured.
    pub evidence: &'a Evidence,
    /// What is asked.
    pub demand: &'a Demand,
    /// What would answer more.
    pub commands: Commands,
    /// Absent if nothing says what the machine sustains.
    pub capacity: Option<Capacity>,
    /// A search that found no rate to meet its goals; absent with a capacity.
    pub unreachable: Option<&'a Sustained>,
    /// A search that promises no rate, as its budget was too short, it was interrupted or nothing in it counts; absent
    /// with a capacity.
    pub open: Option<&'a Sustained>,
    /// What was kept up without the goals of a search that promises no rate: nothing to rely on.
    pub without_goals: Option<Capacity>,
}

impl<'a> Facts<'a> {
    /// Those of `evidence` for `demand`.
    pub fn of(evidence: &'a Evidence, demand: &'a Demand) -> Facts<'a> {
        let searches = &evidence.sustained;
        let found = by_search(evidence, demand);
        let kept_up = || by_runs(evidence, demand).or_else(|| by_recording(evidence));
        let of_search =
            found.as_ref().and_then(|(search, aside)| capacity(evidence, search, aside));
        // What is borne without the goals of a search is nothing to rely on where that search promises nothing.
        let (capacity, without_goals) = match (of_search, searches.is_empty()) {
            (None, true) => (kept_up(), None),
            (None, false) => (None, kept_up()),
            (of_search, _) => (of_search, None),
        };
        let capacity = capacity.map(|capacity| for_keys(capacity, demand));
        let none = |search: &&Sustained| capacity.is_none() && search.safe.is_none();
        let refused = found.map(|(search, _)| search).filter(|search| search.unreachable);
        let unreachable = refused.or_else(|| searches.iter().find(|s| s.unreachable)).filter(none);
        let open = searches.iter().find(|s| none(s) && !s.unreachable);
        let of = capacity.as_ref().map(|capacity| capacity.from.as_str());
        let of = of.or(unreachable.or(open).map(|search| search.from.as_str()));
        Facts {
            evidence,
            demand,
            commands: Commands::of(evidence, demand, of, bearable(evidence, capacity.as_ref())),
            capacity,
            unreachable,
            open,
            without_goals,
        }
    }

    /// Payload bytes of a record, and who says so.
    pub fn record_bytes(&self) -> Option<(f64, String)> {
        let measured = |setup: &Setup, from: &str| {
            (setup.record_bytes > 0.0).then(|| (setup.record_bytes, from.to_owned()))
        };
        let asked = self.demand.record_bytes.map(|bytes| (bytes, "asked for".to_owned()));
        let of_capacity = || {
            let capacity = self.capacity.as_ref()?;
            measured(capacity.setup.as_ref()?, &capacity.from)
        };
        let of_point = || self.evidence.points.iter().find_map(|p| measured(&p.setup, &p.from));
        // With its framing: a recording does not tell payloads apart.
        let of_recording = || {
            let (from, recorded) = self.recording()?;
            Some((recorded.batch_bytes_per_record()?, from.to_owned()))
        };
        // What a run asked for, even if nothing it measured counts.
        let of_options = || {
            self.evidence.sources.iter().find_map(|source| match source.load.as_ref()?.workload {
                Workload::Fixed { size } => Some((size as f64, source.name.clone())),
                _ => None,
            })
        };
        asked.or_else(of_capacity).or_else(of_point).or_else(of_recording).or_else(of_options)
    }

    /// The recording under the highest load.
    pub fn recording(&self) -> Option<(&'a str, &'a Recorded)> {
        let all = self.evidence.recorded.iter().map(|(from, recorded)| (from.as_str(), recorded));
        all.max_by(|a, b| a.1.mean.records_in.total_cmp(&b.1.mean.records_in))
    }

    /// Its busiest window: what resources were used there is least disturbed by what else a server does.
    pub fn busiest(&self) -> Option<(&'a str, &'a Window)> {
        let (from, recorded) = self.recording()?;
        Some((from, recorded.busiest().filter(|window| window.records_in > 0.0)?))
    }

    /// Bytes on the device for a record: measured by a recording of records of this size, or the least that the
    /// format adds. With who says so, and whether it was measured.
    pub fn disk_bytes(&self) -> Option<(f64, String, bool)> {
        let (payload, _) = self.record_bytes()?;
        // What a record adds in its batch, by docs/wire.md: a header, the end rounded up to 8 bytes, and a key.
        let least = payload + LEAST_FRAMING;
        let measured = self.recording().and_then(|(from, recorded)| {
            let framed = recorded.batch_bytes_per_record()?;
            // Of other records it says nothing about these.
            let alike = self.demand.record_bytes.is_none() && framed <= least * 1.25 + 64.0
                || (framed / least - 1.0).abs() <= 2.0 * SAME_SIZE;
            let on_disk =
                recorded.disk_bytes_per_record().filter(|_| alike && framed >= payload)?;
            Some((on_disk, from.to_owned(), true))
        });
        measured.or_else(|| Some((least, "docs/wire.md".to_owned(), false)))
    }

    /// The rate above the average that has to fit as well.
    pub fn target(&self) -> f64 {
        (self.demand.rate / AVERAGE_FILL).max(self.demand.peak_rate())
    }

    /// Shards in use, and who says so.
    pub fn shards(&self) -> Option<(u32, String)> {
        let of_capacity = || {
            let capacity = self.capacity.as_ref()?;
            Some((capacity.setup.as_ref()?.shards, capacity.from.clone()))
        };
        let of_recording = || self.recording().map(|(from, r)| (r.shards, from.to_owned()));
        of_capacity().or_else(of_recording)
    }
}

/// An average fills at most so much of what is safe: the rest is for what is not average.
pub const AVERAGE_FILL: f64 = 0.7;

/// A short key with its share of the rounding up to 8 bytes.
const KEY_BYTES: f64 = 12.0;
/// What a record adds in its batch at least.
pub const LEAST_FRAMING: f64 = highwater_wire::RECORD_HEADER_LEN as f64 + KEY_BYTES;

/// The search whose answer fits best, and those left aside only for their goals. The user's own come before the points of
/// a sweep, durable ones with as many groups first. Of these the tightest goals count, and of the same goals the highest
/// rate; of goals that cannot be compared the lowest. That no rate meets them is an answer too.
fn by_search<'a>(
    evidence: &'a Evidence,
    demand: &Demand,
) -> Option<(&'a Sustained, Vec<&'a Sustained>)> {
    let size = |setup: &Setup| {
        demand
            .record_bytes
            .is_none_or(|bytes| (setup.record_bytes / bytes - 1.0).abs() <= SAME_SIZE)
    };
    let fit = |s: &Sustained| {
        (size(&s.setup), s.setup.ack == "durable", s.setup.groups >= demand.groups, !s.in_sweep)
    };
    let answers = || {
        let all = evidence.sustained.iter();
        all.filter(|s| s.safe.is_some() || (s.unreachable && !s.in_sweep))
    };
    let best = answers().map(fit).max()?;
    let alike: Vec<&Sustained> = answers().filter(|s| fit(s) == best).collect();
    let tightest: Vec<&Sustained> =
        alike.iter().copied().filter(|s| !alike.iter().any(|t| t.tighter_than(s))).collect();
    let safe = |s: &Sustained| s.safe.unwrap_or(0.0);
    let highest =
        |s: &&Sustained| tightest.iter().all(|t| t.bounds != s.bounds || safe(t) <= safe(s));
    let best = tightest.iter().copied().filter(highest);
    let found = best.min_by(|a, b| safe(a).total_cmp(&safe(b)))?;
    let aside = alike.iter().copied().filter(|s| s.bounds != found.bounds).collect();
    Some((found, aside))
}

/// What `search` promises; `None` if that is nothing.
fn capacity(evidence: &Evidence, search: &Sustained, aside: &[&Sustained]) -> Option<Capacity> {
    let safe = search.safe?;
    Some(Capacity {
        from: search.from.clone(),
        basis: Basis::Search,
        setup: Some(search.setup.clone()),
        goals: search.goals.clone(),
        safe,
        estimate: search.estimate,
        missed: search.estimate.map(|estimate| estimate.high),
        served: served(evidence, &search.setup, &search.from),
        for_keys: 1.0,
        search: Some(search.clone()),
        aside: aside.iter().map(|other| (other.from.clone(), other.goals.clone())).collect(),
    })
}

/// The highest rate, in records per second, at which it makes sense to measure something else: an average's share of what
/// is delivered under overload, or of the estimate where that is not known, and whatever is safe.
fn bearable(evidence: &Evidence, capacity: Option<&Capacity>) -> Option<f64> {
    let Some(capacity) = capacity else {
        let most = evidence.ceilings.iter().map(|ceiling| ceiling.rate.value);
        return most.max_by(f64::total_cmp).map(|most| most * AVERAGE_FILL);
    };
    let most = capacity.served.as_ref().map(|served| served.rate).or(capacity.estimate);
    Some(most.map_or(capacity.safe, |most| capacity.safe.max(most.value * AVERAGE_FILL)))
}

/// What is delivered under overload by this setup: as the same source says, or another.
fn served(evidence: &Evidence, setup: &Setup, from: &str) -> Option<Ceiling> {
    let alike = evidence.ceilings.iter().filter(|c| c.setup.same_but(setup, |_| ()));
    alike.max_by_key(|ceiling| ceiling.from == from).cloned()
}

/// By the highest rate that a run kept up, within its bounds if it had any.
fn by_runs(evidence: &Evidence, demand: &Demand) -> Option<Capacity> {
    let held = |point: &&Point| point.met.unwrap_or(point.kept_up) && point.kept_up && point.stands;
    let fit = |point: &Point| (point.setup.ack == "durable", point.setup.groups >= demand.groups);
    let best = evidence
        .points
        .iter()
        .filter(held)
        .max_by(|a, b| fit(a).cmp(&fit(b)).then(a.delivered.total_cmp(&b.delivered)))?;
    let alike = evidence.points.iter().filter(|point| point.setup.same_but(&best.setup, |_| ()));
    let missed = alike
        .filter(|point| !held(point) && point.offered > best.delivered)
        .map(|point| point.offered)
        .min_by(f64::total_cmp);
    let goals = if best.met.is_some() { "its bounds met" } else { "nothing left waiting" };
    Some(Capacity {
        from: best.from.clone(),
        basis: Basis::Runs,
        setup: Some(best.setup.clone()),
        goals: goals.to_owned(),
        safe: best.delivered,
        estimate: None,
        missed,
        served: served(evidence, &best.setup, &best.from),
        for_keys: 1.0,
        search: None,
        aside: vec![],
    })
}

/// By the busiest stretch that a recording shows as borne.
fn by_recording(evidence: &Evidence) -> Option<Capacity> {
    let all = evidence.recorded.iter().filter_map(|(from, r)| Some((from, r.borne()?)));
    let (from, window) = all.max_by(|a, b| a.1.records_in.total_cmp(&b.1.records_in))?;
    Some(Capacity {
        from: from.clone(),
        basis: Basis::Recording,
        setup: None,
        goals: "what was unread not growing".to_owned(),
        safe: window.records_in,
        estimate: None,
        missed: None,
        served: None,
        for_keys: 1.0,
        search: None,
        aside: vec![],
    })
}

/// For keys that are less even than those measured, everything is less.
fn for_keys(capacity: Capacity, demand: &Demand) -> Capacity {
    let measured = capacity.setup.as_ref().map_or(0.0, |setup| setup.skew.max(1.0));
    let factor = match demand.skew {
        Some(skew) if measured > 0.0 => (measured / skew).min(1.0),
        _ => 1.0,
    };
    let scale =
        |r: Range| Range { value: r.value * factor, low: r.low * factor, high: r.high * factor };
    Capacity {
        safe: capacity.safe * factor,
        estimate: capacity.estimate.map(scale),
        missed: capacity.missed.map(|rate| rate * factor),
        served: capacity.served.map(|served| Ceiling { rate: scale(served.rate), ..served }),
        for_keys: factor,
        ..capacity
    }
}
