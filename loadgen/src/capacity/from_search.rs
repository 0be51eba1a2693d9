//! A search, or a point of a sweep, as evidence.

use super::evidence::{Ceiling, Evidence, Point, Range, Setup, Sustained};
use super::read::setup;
use crate::report::KEEPS_UP;
use crate::report::figures::{counted, percent, time, whole};
use crate::report::{quoted, shell_words};
use crate::search::{
    Bound, Ended, Goal, Interval, SearchFile, SearchResult, SweepFile, SweepMode, SweepPoint,
    TrialRecord, text,
};

/// A trial whose backlog grew by more than this share of what was offered shows what is delivered under overload.
const OVERLOADED: f64 = 0.05;

fn range(interval: Interval) -> Range {
    Range { value: interval.value, low: interval.low, high: interval.high }
}

/// Adds what the search `name` found, and every trial of it that counts.
pub fn search(evidence: &mut Evidence, name: &str, file: &SearchFile, in_sweep: bool) {
    let valid: Vec<&TrialRecord> =
        file.trials.iter().filter(|trial| trial.void_reason.is_none()).collect();
    let skews: Vec<f64> = valid.iter().map(|trial| trial.shard_skew).collect();
    let setup = setup(
        &file.load,
        file.shards,
        file.groups,
        &file.ack,
        file.mean_payload_bytes,
        Range::of(skews).map_or(0.0, |range| range.value),
    );
    let found = match file.result.as_ref().filter(|_| !valid.is_empty()) {
        Some(result) => sustained(name, file, result, &setup, valid.len(), in_sweep),
        None => unanswered(name, file, &setup, valid.len(), in_sweep),
    };
    if found.safe.is_none() && !found.unreachable {
        evidence.left_out.push(format!("{name} promises no rate: {}", found.remark));
    }
    // Of the many points of a sweep, one without an answer is merely missing.
    if !in_sweep || file.result.is_some() && !valid.is_empty() {
        evidence.sustained.push(found);
    }
    evidence.ceilings.extend(ceiling(name, &valid, &setup));
    evidence.points.extend(valid.iter().map(|trial| trial_point(name, file, trial, &setup)));
}

/// What trials under overload delivered: the median of them, and the slowest and the fastest second of any.
fn ceiling(name: &str, trials: &[&TrialRecord], setup: &Setup) -> Option<Ceiling> {
    let over: Vec<&TrialRecord> =
        trials.iter().copied().filter(|trial| overloaded(trial)).collect();
    let of_all = Range::of(over.iter().map(|trial| trial.delivered_rate).collect())?;
    let seconds = || over.iter().filter_map(|trial| trial.delivered_seconds);
    let busy = Range::of(over.iter().filter_map(|trial| trial.generator_busy).collect());
    Some(Ceiling {
        from: name.to_owned(),
        setup: setup.clone(),
        rate: Range {
            low: seconds().map(|(slow, _)| slow).fold(of_all.low, f64::min),
            high: seconds().map(|(_, fast)| fast).fold(of_all.high, f64::max),
            ..of_all
        },
        lasted_s: over.iter().map(|trial| trial.measured_s).fold(0.0, f64::max),
        generator_busy: busy.map(|busy| busy.value),
    })
}

fn overloaded(trial: &TrialRecord) -> bool {
    let grew = trial.backlog.is_some_and(|b| b.significant && b.growth > OVERLOADED);
    grew && trial.delivered_rate < trial.offered_rate * (1.0 - OVERLOADED / 2.0)
}

/// In words, and as (percentile, bound in microseconds).
fn goals(goals: &[Goal]) -> (String, Vec<(String, f64)>) {
    let words: Vec<String> =
        goals.iter().map(|goal| format!("{} within {}", goal.of, time(goal.bound_us))).collect();
    let words = if words.is_empty() { "no growing backlog".to_owned() } else { words.join(", ") };
    (words, goals.iter().map(|goal| (goal.of.clone(), goal.bound_us)).collect())
}

fn sustained(
    name: &str,
    file: &SearchFile,
    result: &SearchResult,
    setup: &Setup,
    trials: usize,
    in_sweep: bool,
) -> Sustained {
    let unreachable = result.ended == Ended::Unreachable
        || result.goals.iter().any(|g| g.bound == Bound::Unreachable);
    let best = result.goals.iter().find(|goal| goal.bound == Bound::Unreachable);
    let remark = match best {
        Some(goal) => {
            let seen = goal.best.map_or_else(String::new, |(share, trial)| {
                let took = goal.best_us.map(|us| format!(" ({})", time(us))).unwrap_or_default();
                format!(
                    "; the best seen was {} beyond the bound{took}, in trial {trial}",
                    percent(share)
                )
            });
            format!("{} was missed at every rate tried{seen}", goal.of)
        }
        None if result.needs_s.is_some() || result.published_rate.is_none() => result.in_words(),
        None => result.notes.first().cloned().unwrap_or_default(),
    };
    let longer = result.needs_s.map(|more_s| {
        let command = text::longer(&file.command, file.settings.budget_s + more_s);
        format!("{command} -o search-longer")
    });
    Sustained {
        estimate: result.estimate.map(range).filter(|_| !unreachable),
        safe: result.published_rate.filter(|_| !unreachable),
        binding: result.binding.clone(),
        remark,
        unreachable,
        longer,
        soak: result.soak.map(|soak| (soak.seconds, soak.held)),
        wanted_s: result.soak.map(|soak| soak.wanted_s),
        notes: result.notes.clone(),
        recovers: result.hysteresis.as_ref().map(|hysteresis| hysteresis.recovers),
        slower: result.hysteresis.as_ref().and_then(|hysteresis| hysteresis.slower),
        ..unanswered(name, file, setup, trials, in_sweep)
    }
}

/// A search that has no answer: interrupted, or without a trial that counts.
fn unanswered(
    name: &str,
    file: &SearchFile,
    setup: &Setup,
    trials: usize,
    in_sweep: bool,
) -> Sustained {
    let (goals, bounds) = goals(&file.settings.goals);
    let goes_on = || format!("{} -o {}", shell_words(&file.command), quoted(name));
    let (remark, longer) = match trials {
        0 => (format!("none of its {} trials counts", file.trials.len()), None),
        n => (
            format!(
                "it was interrupted before it had an answer, and its {} stand for none (the same command goes on)",
                counted(n as u64, "trial")
            ),
            (!file.command.is_empty()).then(goes_on),
        ),
    };
    Sustained {
        from: name.to_owned(),
        in_sweep,
        setup: setup.clone(),
        goals,
        bounds,
        estimate: None,
        safe: None,
        binding: None,
        remark,
        unreachable: false,
        longer,
        trials,
        void: file.trials.len() - trials,
        soak: None,
        wanted_s: None,
        notes: vec![],
        recovers: None,
        slower: None,
    }
}

/// What a plan, and whoever measures for one, take from a trial.
impl TrialRecord {
    /// Whether no more than the share `stable` of what was offered piled up, and nearly all of it was acknowledged.
    pub fn kept_up(&self, stable: f64) -> bool {
        self.backlog.is_none_or(|b| !b.significant || b.growth <= stable)
            && self.delivered_rate >= KEEPS_UP * self.offered_rate
    }

    /// Whether `goals`, those of its search, are met; absent if a share of late records is not known.
    pub fn meets(&self, goals: &[Goal]) -> Option<bool> {
        let mut met = true;
        for (at, goal) in goals.iter().enumerate() {
            met &= self.share_over(at)? <= goal.allowed;
        }
        Some(met)
    }
}

fn trial_point(name: &str, file: &SearchFile, trial: &TrialRecord, setup: &Setup) -> Point {
    let three = |d: &crate::Distribution| {
        let all = d.percentiles();
        [all[0], all[2], all[3]]
    };
    Point {
        from: format!("{name} trial {}", whole(u64::from(trial.number))),
        setup: setup.clone(),
        offered: trial.offered_rate,
        delivered: trial.delivered_rate,
        consumed: 0.0,
        response_us: three(&trial.response),
        propagation_us: three(&trial.propagation),
        met: trial.meets(&file.settings.goals).filter(|_| !file.settings.goals.is_empty()),
        kept_up: trial.kept_up(file.settings.stable),
        // Seconds of a search that promises nothing, or has not come to its end, are no promise either.
        stands: file.result.as_ref().is_some_and(|result| result.published_rate.is_some()),
    }
}

/// Adds a point of a sweep of which only the summary is there.
pub fn point(evidence: &mut Evidence, name: &str, file: &SweepFile, point: &SweepPoint) {
    // What else was varied cannot be told from the summary.
    let told = |name: &str| matches!(name, "shards" | "groups" | "ack" | "size" | "streams");
    if let Some(axis) = file.vary.iter().find(|axis| !told(&axis.name)) {
        let why = format!("its directory is not there, and {} is only told in it", axis.name);
        evidence.left_out.push(format!("{name}: {why}"));
        return;
    }
    let mut load = file.load.clone();
    // The point has the shards of a stream.
    if let Some(streams) = point.settings.iter().find(|setting| setting.name == "streams") {
        let Ok(streams) = streams.value.parse() else {
            evidence.left_out.push(format!("{name}: streams={} is no number", streams.value));
            return;
        };
        load.streams = streams;
    }
    let (bytes, skew) = (point.mean_payload_bytes, 0.0);
    let setup = setup(&load, point.shards, point.groups, &point.ack, bytes, skew);
    let Some(rate) = point.rate else { return };
    // Where nothing gave out, a search has no estimate, and its summary the published rate in the place of one.
    let estimate = Some(range(rate)).filter(|rate| rate.low < rate.high);
    let response = point.response.percentiles();
    let propagation = point.propagation.percentiles();
    match &file.mode {
        SweepMode::Search { settings } => evidence.sustained.push(Sustained {
            from: name.to_owned(),
            in_sweep: true,
            setup,
            goals: goals(&settings.goals).0,
            bounds: goals(&settings.goals).1,
            estimate,
            safe: point.published_rate,
            binding: None,
            remark: String::new(),
            unreachable: false,
            longer: None,
            trials: 0,
            void: 0,
            soak: None,
            wanted_s: None,
            notes: vec![],
            recovers: None,
            slower: None,
        }),
        SweepMode::Rate { rate: None, duration_s } => {
            evidence.ceilings.push(Ceiling {
                from: name.to_owned(),
                setup,
                rate: range(rate),
                lasted_s: *duration_s,
                generator_busy: None,
            });
        }
        SweepMode::Rate { rate: Some(offered), .. } => evidence.points.push(Point {
            from: name.to_owned(),
            setup,
            offered: *offered,
            delivered: rate.value,
            consumed: 0.0,
            response_us: [response[0], response[2], response[3]],
            propagation_us: [propagation[0], propagation[2], propagation[3]],
            met: None,
            kept_up: rate.value >= KEEPS_UP * offered,
            stands: true,
        }),
    }
}
