//! What gives out first, and whether the machine allows for more.

use super::rate::fits;
use crate::busy::AT_END;
use crate::capacity::answer::{Answer, Figure, Question, Rows, Unit, Verdict};
use crate::capacity::facts::Facts;
use crate::capacity::formula;
use crate::capacity::usl::REACH;
use crate::capacity::{ProbeFile, WriteFigure};
use crate::report::figures::{bytes, percent, rate, time};

/// Nothing gives out that is used less.
const NEAR_END: f64 = 0.9;

/// A resource and how much of it is used.
struct Resource {
    name: String,
    /// Share in use at `at`, records per second.
    share: f64,
    at: f64,
    from: String,
}

impl Resource {
    fn share_at(&self, rate: f64) -> f64 {
        self.share * rate / self.at
    }

    fn bound(&self) -> f64 {
        self.at / self.share
    }
}

fn resources(facts: &Facts<'_>) -> Vec<Resource> {
    let mut all = Vec::new();
    let best_write = facts
        .evidence
        .probes
        .iter()
        .filter_map(|(from, probe)| Some((from, probe.best_write()?.bytes_per_s)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((from, window)) = facts.busiest() {
        all.push(Resource {
            name: "busiest core".to_owned(),
            share: window.busy,
            at: window.records_in,
            from: from.to_owned(),
        });
        if let Some((probe, most)) = best_write {
            all.push(Resource {
                name: "device, durable writes".to_owned(),
                share: window.disk_bytes / most,
                at: window.records_in,
                from: format!("{from}, {probe}"),
            });
        }
    } else if let (Some((probe, most)), Some((per_record, from, _))) =
        (best_write, facts.disk_bytes())
    {
        all.push(Resource {
            name: "device, durable writes".to_owned(),
            share: per_record * facts.demand.rate / most,
            at: facts.demand.rate,
            from: format!("{probe}, {from}"),
        });
    }
    if let Some(drain) =
        facts.evidence.drains.iter().max_by(|a, b| a.rate.value.total_cmp(&b.rate.value))
    {
        all.push(Resource {
            name: match drain.generator_busy {
                Some(busy) if busy >= AT_END => "a consumer group of this generator, reading",
                _ => "a consumer group, reading",
            }
            .to_owned(),
            share: facts.demand.rate / drain.rate.value,
            at: facts.demand.rate,
            from: drain.from.clone(),
        });
    }
    all.retain(|r| r.share.is_finite() && r.share > 0.0 && r.at > 0.0);
    all
}

/// What gives out first?
pub fn first(facts: &Facts<'_>) -> Answer {
    let question = Question::FirstLimit;
    let demand = facts.demand.rate;
    let mut all = resources(facts);
    all.sort_by(|a, b| b.share_at(demand).total_cmp(&a.share_at(demand)));
    let Some(first) = all.first() else {
        let answer = Answer::not_measured(question, facts.commands.record());
        return match binding(facts) {
            Some(goal) => {
                answer.note(format!("In the search, {goal} gave out first; of what is not known."))
            }
            None => answer,
        };
    };
    let named: Vec<String> =
        all.iter().map(|r| format!("{} {}", r.name, percent(r.share_at(demand)))).collect();
    let far = demand > first.at * REACH;
    if gives_out(facts) && !far && first.share_at(demand) <= NEAR_END {
        return about(unknown(facts, &all, &named), facts);
    }
    let refuted = refuted(facts, first);
    let verdict = match first.share_at(demand) {
        _ if far => Verdict::BeyondMeasured,
        _ if refuted.is_some() => Verdict::Known,
        share if share > 1.0 => Verdict::No,
        _ => Verdict::Known,
    };
    let says = if far {
        format!(
            "recorded at {} records/s, less than half of what is asked: a line that long says nothing",
            rate(first.at)
        )
    } else {
        let unknown = match facts.recording() {
            Some(_) => "",
            None => "; cores not recorded",
        };
        let used = format!("{} in use at {} records/s", named.join("; "), rate(demand));
        match refuted {
            Some(most) => format!(
                "{used}; a straight line has the first used up at {}, but {} were delivered: fuller batches cost less",
                rate(first.bound()),
                rate(most)
            ),
            None => format!("{used}, the first used up at {}{unknown}", rate(first.bound())),
        }
    };
    let mut answer = Answer::new(question, verdict, says);
    if !far {
        answer = with_figures(answer, facts, &all);
    }
    about(answer, facts)
}

/// What was delivered by the same setup, if that is more than a line to the end of `resource` allows.
fn refuted(facts: &Facts<'_>, resource: &Resource) -> Option<f64> {
    let served = facts.capacity.as_ref()?.served.as_ref()?;
    Some(served.rate.value).filter(|_| served.rate.low > resource.bound())
}

/// Whether the average is known not to fit: then something has given out.
fn gives_out(facts: &Facts<'_>) -> bool {
    let refused = facts.capacity.as_ref().is_some_and(|c| fits(facts.demand, c).0 == Verdict::No);
    facts.unreachable.is_some() || refused
}

/// The goal that gave out first in the search.
fn binding(facts: &Facts<'_>) -> Option<String> {
    facts.capacity.as_ref()?.search.as_ref()?.binding.clone()
}

/// What gave out is none of what was measured.
fn unknown(facts: &Facts<'_>, all: &[Resource], named: &[String]) -> Answer {
    let command = match facts.recording() {
        Some(_) if facts.evidence.probes.is_empty() => facts.commands.probe(),
        _ => facts.commands.record(),
    };
    let answer = Answer::not_measured(Question::FirstLimit, command.clone());
    let answer = Answer {
        says: format!(
            "none of what was measured is near its end at {} records/s ({}), and what gave out is not known: run {command}",
            rate(facts.demand.rate),
            named.join("; ")
        ),
        ..answer
    };
    with_figures(answer, facts, all)
}

fn with_figures(mut answer: Answer, facts: &Facts<'_>, all: &[Resource]) -> Answer {
    let demand = facts.demand.rate;
    for resource in all {
        let inputs = |figure: Figure| {
            figure.from("share in use", resource.share, Unit::Share, &resource.from).from(
                "rate",
                resource.at,
                Unit::RecordsPerS,
                &resource.from,
            )
        };
        let (share, bound) = (resource.share_at(demand), resource.bound());
        let name = format!("{}, share in use", resource.name);
        let share = inputs(Figure::new(name, share, Unit::Share, formula::UTILISATION));
        let name = format!("{}, used up at", resource.name);
        let bound = inputs(Figure::new(name, bound, Unit::RecordsPerS, formula::BOUND));
        answer = answer
            .figure(share.from("demand", demand, Unit::RecordsPerS, &facts.demand.from))
            .figure(bound);
    }
    answer
}

/// What there is to know of it whatever gives out.
fn about(mut answer: Answer, facts: &Facts<'_>) -> Answer {
    if let Some((from, recorded)) = facts.recording() {
        answer = answer.note(format!(
            "{from}: busiest core over the mean of {} cores {:.2}, busiest shard over the mean {:.2}.",
            recorded.cores,
            recorded.core_skew,
            recorded.shard_skew.max(1.0)
        ));
    } else {
        answer =
            answer.note("The server's cores were not recorded.").better(facts.commands.record());
    }
    if facts.evidence.probes.is_empty() {
        answer = answer.note(format!(
            "What the device could do was not measured: run {}.",
            facts.commands.probe()
        ));
    }
    if let Some(goal) = binding(facts) {
        answer = answer.note(format!("In the search, {goal} gave out first."));
    }
    answer.note(
        "The network interface and the machines of producers and consumers were not measured.",
    )
}

/// Does the probe say that more is possible?
pub fn machine(facts: &Facts<'_>) -> Answer {
    let question = Question::Machine;
    let best = facts
        .evidence
        .probes
        .iter()
        .filter_map(|(from, probe)| Some((from, probe, probe.best_write()?)))
        .max_by(|a, b| a.2.bytes_per_s.total_cmp(&b.2.bytes_per_s));
    let Some((from, probe, best)) = best else {
        return Answer::not_measured(question, facts.commands.probe());
    };
    let (Some(capacity), Some((per_record, weighed_by, measured))) =
        (&facts.capacity, facts.disk_bytes())
    else {
        let says = format!(
            "the device makes {}/s durable; what the engine makes of it was not measured",
            bytes(best.bytes_per_s)
        );
        return Answer::new(question, Verdict::Known, says).better(facts.commands.search());
    };
    let used = capacity.safe * per_record;
    let room = best.bytes_per_s / used;
    let mut answer = Answer::new(question, Verdict::Known, device_says(room, best)).figure(
        Figure::new("device over what is used", room, Unit::Ratio, formula::DEVICE_ROOM)
            .from("probe, durable writes", best.bytes_per_s, Unit::BytesPerS, from)
            .from("safe rate", capacity.safe, Unit::RecordsPerS, &capacity.from)
            .from("on disk for a record", per_record, Unit::Bytes, &weighed_by),
    );
    if let Some(figure) = over_a_lone_write(facts, probe, from) {
        answer = answer.figure(figure);
    }
    if !measured {
        answer = answer.note(
            "What a record weighs on disk is the least the format adds; a recording measures it.",
        );
    }
    if probe.volatile {
        answer =
            answer.note("The probed directory lives in memory: it says nothing about a device.");
    }
    answer.tables.push(durable_writes(probe, from));
    answer
}

fn device_says(room: f64, best: WriteFigure) -> String {
    let device = bytes(best.bytes_per_s);
    match room {
        room if room >= 2.0 => format!(
            "yes: the device makes {device}/s durable, {room:.1} times what the safe rate writes; the CPU is what to \
             look at"
        ),
        room if room >= 1.1 => format!(
            "a little: the device makes {device}/s durable, {room:.1} times what the safe rate writes"
        ),
        room => format!(
            "no: the safe rate writes {} of the {device}/s that the device makes durable; a faster one is next",
            percent(1.0 / room)
        ),
    }
}

/// What the engine adds to a device that has nothing else to do.
fn over_a_lone_write(facts: &Facts<'_>, probe: &ProbeFile, from: &str) -> Option<Figure> {
    let lone = probe.lone_write()?;
    let points = facts.evidence.points.iter();
    let (point, p50) = points
        .filter_map(|point| Some((point, point.response_us[0]?)))
        .min_by(|a, b| a.0.offered.total_cmp(&b.0.offered))?;
    let name = "median response over a lone durable write";
    Some(
        Figure::new(name, p50 / lone.p50_us, Unit::Ratio, formula::RATIO)
            .from("response p50", p50, Unit::Microseconds, &point.from)
            .from("probe, smallest write p50", lone.p50_us, Unit::Microseconds, from),
    )
}

fn durable_writes(probe: &ProbeFile, from: &str) -> Rows {
    let mut rows = Rows {
        caption: format!("Durable writes of this machine ({from})"),
        columns: ["write", "in flight", "p50", "p99", "bytes/s"].map(str::to_owned).into(),
        rows: vec![],
    };
    for w in &probe.durable_write {
        let size = if w.bytes.is_multiple_of(1 << 20) {
            format!("{} MiB", w.bytes >> 20)
        } else {
            format!("{} KiB", w.bytes >> 10)
        };
        let cells = [
            size,
            w.depth.to_string(),
            time(w.p50_us),
            time(w.p99_us),
            format!("{}/s", bytes(w.bytes_per_s)),
        ];
        rows.rows.push(cells.into());
    }
    rows
}
