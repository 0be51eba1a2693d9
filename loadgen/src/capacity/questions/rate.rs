//! Average, peak and groups against what is sustained.

use crate::busy::AT_END;
use crate::capacity::answer::{Answer, Figure, Question, Unit, Verdict, span};
use crate::capacity::demand::Demand;
use crate::capacity::evidence::{Ceiling, Range, SAME_SIZE, Sustained};
use crate::capacity::facts::{AVERAGE_FILL, Basis, Capacity, Facts};
use crate::capacity::formula::{self, excess};
use crate::report::figures::{bytes, counted, percent, rate};

/// Whether larger records are asked for than were measured: what a rate of those costs nobody knows.
fn larger_records(facts: &Facts<'_>, capacity: &Capacity) -> Option<String> {
    let (asked, setup) = (facts.demand.record_bytes?, capacity.setup.as_ref()?);
    (asked > setup.record_bytes * (1.0 + SAME_SIZE)).then(|| {
        format!(
            "measured with records of {}; {} were asked for",
            bytes(setup.record_bytes),
            bytes(asked)
        )
    })
}

fn unreachable_or_missing(facts: &Facts<'_>, question: Question) -> Answer {
    let answer = match (facts.unreachable, facts.open) {
        (Some(search), _) => Answer::new(question, Verdict::No, search.remark.clone())
            .note(format!("{} goals: {}.", search.from, search.goals)),
        (None, Some(search)) => {
            let longer = search.longer.clone().unwrap_or_else(|| facts.commands.search());
            Answer::not_measured(question, longer)
                .note(format!("{} promises no rate: {}.", search.from, search.remark))
        }
        (None, None) => Answer::not_measured(question, facts.commands.search()),
    };
    match &facts.without_goals {
        Some(run) => answer.note(format!(
            "{} kept up {} records/s with {}. That is no rate to rely on: the search has goals, and shows none that \
             meets them.",
            run.from,
            rate(run.safe),
            run.goals
        )),
        None => answer,
    }
}

/// Each group reads everything once more: what was measured with fewer than asked for fits at best tightly, and says so.
pub fn with_groups(mut answer: Answer, facts: &Facts<'_>) -> Answer {
    let setup = facts.capacity.as_ref().and_then(|capacity| capacity.setup.as_ref());
    let answered = !matches!(answer.verdict, Verdict::NotAsked | Verdict::NotMeasured);
    if let Some(setup) = setup.filter(|setup| answered && setup.groups < facts.demand.groups) {
        let groups = counted(u64::from(setup.groups), "group");
        answer.says +=
            &format!("; but measured with {groups} where {} are asked for", facts.demand.groups);
        if answer.verdict == Verdict::Fits {
            answer.verdict = Verdict::Tight;
        }
        let note = "Each group reads everything once more. See the question on groups.";
        answer = answer.note(note);
    }
    answer
}

/// Notes that go with a capacity.
fn about(mut answer: Answer, facts: &Facts<'_>, capacity: &Capacity) -> Answer {
    match capacity.basis {
        Basis::Search => {}
        Basis::Runs => {
            let more = "The rate is the highest a single run kept up: a bound from below, without an interval.";
            answer = answer.note(more).better(facts.commands.search());
        }
        Basis::Recording => {
            let more = "The rate is the highest that was seen in production without a backlog: the machine was \
                        never asked for more, so nothing is known about more.";
            answer = answer.note(more).better(facts.commands.search());
        }
    }
    if capacity.for_keys < 1.0 {
        answer = answer.note(format!(
            "Reduced to {} for keys of skew {:.2}, where {:.2} was measured.",
            percent(capacity.for_keys),
            facts.demand.skew.unwrap_or(1.0),
            capacity.setup.as_ref().map_or(1.0, |setup| setup.skew.max(1.0)),
        ));
    }
    if let Some(setup) = &capacity.setup {
        let asked =
            facts.demand.record_bytes.filter(|b| *b < setup.record_bytes * (1.0 - SAME_SIZE));
        if let Some(asked) = asked {
            answer = answer.note(format!(
                "Measured with records of {}; for {} the rate is a bound from below.",
                bytes(setup.record_bytes),
                bytes(asked)
            ));
        }
    }
    if !capacity.aside.is_empty() {
        let other = |(from, goals): &(String, String)| format!("{from} ({goals})");
        let others: Vec<String> = capacity.aside.iter().map(other).collect();
        answer = answer.note(format!(
            "Of several searches that fit, the one with the tightest goals counts: {} ({}). To plan by the goals of {}, \
             leave it out.",
            capacity.from,
            capacity.goals,
            others.join(" or ")
        ));
    }
    match capacity.search.as_ref().map(|search| (search.recovers, search.slower)) {
        Some((Some(false), _)) => answer.note(
            "After an overload the target missed its goals at rates that it had met them at: it does not recover by itself.",
        ),
        Some((_, Some(factor))) => answer.note(format!(
            "After an overload the goals were met as before, but p99 was {factor:.1} times what it had been at the same \
             rates: look whether that passes before you rely on it."
        )),
        _ => answer,
    }
}

fn sustained(capacity: &Capacity) -> Figure {
    let figure = match capacity.estimate {
        Some(range) => {
            Figure::new("sustained rate, R*", range.value, Unit::RecordsPerS, formula::MEASURED)
                .within(range.low, range.high)
        }
        None => {
            Figure::new("highest rate kept up", capacity.safe, Unit::RecordsPerS, formula::MEASURED)
        }
    };
    let measured = capacity.estimate.map_or(capacity.safe, |range| range.value);
    figure.from("measured", measured / capacity.for_keys, Unit::RecordsPerS, &capacity.from)
}

/// Does the average fit?
pub fn headroom(facts: &Facts<'_>) -> Answer {
    with_groups(average(facts), facts)
}

fn average(facts: &Facts<'_>) -> Answer {
    let question = Question::Headroom;
    let Some(capacity) = &facts.capacity else { return unreachable_or_missing(facts, question) };
    let demand = facts.demand;
    if let Some(larger) = larger_records(facts, capacity) {
        return Answer::new(question, Verdict::BeyondMeasured, larger)
            .better(facts.commands.search());
    }
    let used = formula::headroom(demand.rate, capacity.safe);
    let (verdict, says) = fits(demand, capacity);
    let share = Figure::new("share of the safe rate", used, Unit::Share, formula::HEADROOM)
        .from("demand", demand.rate, Unit::RecordsPerS, &demand.from)
        .from("safe rate", capacity.safe, Unit::RecordsPerS, &capacity.from);
    // The safe rate may lie below the whole interval of R*: that interval is no interval of this share.
    let of_estimate = capacity.estimate.map(|range| {
        let of = |rate: f64| demand.rate / rate.max(f64::MIN_POSITIVE);
        Figure::new("share of R*", of(range.value), Unit::Share, formula::OF_ESTIMATE)
            .within(of(range.low), of(range.high))
            .from("demand", demand.rate, Unit::RecordsPerS, &demand.from)
            .from_range("R*", range, Unit::RecordsPerS, &capacity.from)
    });
    let keys = if demand.skew.is_some() { demand.from.as_str() } else { "keys as measured" };
    let safe = Figure::new("safe rate", capacity.safe, Unit::RecordsPerS, formula::FOR_KEYS)
        .from("measured", capacity.safe / capacity.for_keys, Unit::RecordsPerS, &capacity.from)
        .from("factor for the keys", capacity.for_keys, Unit::Ratio, keys);
    let mut answer = Answer::new(question, verdict, says).figure(share).figure(safe);
    answer.figures.extend(of_estimate);
    let answer = about(answer.figure(sustained(capacity)), facts, capacity);
    match open(capacity).and_then(|search| search.notes.first()) {
        Some(note) => answer.caution(format!("No limit was found. {}", note.trim_end_matches('.'))),
        None => answer,
    }
}

/// The search, if nothing gave out in it: what it says is a bound from below.
fn open(capacity: &Capacity) -> Option<&Sustained> {
    capacity.search.as_ref().filter(|search| search.estimate.is_none())
}

/// Whether the average fits, and why, in words.
pub fn fits(asked: &Demand, capacity: &Capacity) -> (Verdict, String) {
    let demand = asked.rate;
    let used = formula::headroom(demand, capacity.safe);
    let of_safe = format!("{} of the safe rate, {} records/s", percent(used), rate(capacity.safe));
    match used {
        used if used <= AVERAGE_FILL => (Verdict::Fits, of_safe),
        used if used <= 1.0 && open(capacity).is_some() => (
            Verdict::Tight,
            format!(
                "{of_safe}, or less: nothing gave out there, and how much more is safe is not known"
            ),
        ),
        used if used <= 1.0 => (
            Verdict::Tight,
            format!("{of_safe}; more than 70 % leaves little for what is not average"),
        ),
        _ if capacity.served.as_ref().is_some_and(|served| demand > served.rate.high) => {
            let most = capacity.served.as_ref().map_or(0.0, |served| served.rate.high);
            (Verdict::No, format!("{of_safe}; {} are delivered at most", rate(most)))
        }
        _ if capacity.missed.is_some_and(|missed| demand >= missed) => (Verdict::No, of_safe),
        _ if capacity.estimate.is_some() => {
            let found = capacity.estimate.map_or(capacity.safe, |range| range.value);
            let known = match demand < found {
                true => {
                    "the goal gives out in the long run only at {}, but a run of two minutes may miss it here"
                }
                false => "in the long run the goal gives out at {} already",
            };
            (Verdict::No, format!("{of_safe}; {}", known.replace("{}", &rate(found))))
        }
        _ => (
            Verdict::BeyondMeasured,
            format!(
                "nothing above {} records/s was shown to hold, and nothing is extrapolated",
                rate(capacity.safe)
            ),
        ),
    }
}

/// Does the peak, and what happens if it does not?
pub fn peak(facts: &Facts<'_>) -> Answer {
    with_groups(highest(facts), facts)
}

fn highest(facts: &Facts<'_>) -> Answer {
    let question = Question::Peak;
    let Some(peak) = facts.demand.peak else {
        return Answer::new(question, Verdict::NotAsked, "add --peak 2x/10m");
    };
    let Some(capacity) = &facts.capacity else { return unreachable_or_missing(facts, question) };
    if let Some(larger) = larger_records(facts, capacity) {
        return Answer::new(question, Verdict::BeyondMeasured, larger)
            .better(facts.commands.search());
    }
    let (top, time) = (facts.demand.peak_rate(), span(peak.time_s));
    let share =
        Figure::new("share of the safe rate", top / capacity.safe, Unit::Share, formula::HEADROOM)
            .from("peak", top, Unit::RecordsPerS, &facts.demand.from)
            .from("safe rate", capacity.safe, Unit::RecordsPerS, &capacity.from);
    let answer = |verdict, says: String| {
        let answer = Answer::new(question, verdict, says).figure(share.clone());
        about(answer, facts, capacity)
    };
    if top <= capacity.safe {
        let says = format!(
            "{} records/s for {time}, {} of the safe rate",
            rate(top),
            percent(top / capacity.safe)
        );
        return answer(Verdict::Fits, says);
    }
    // What serves a peak is what is delivered under overload; the goal is missed then either way.
    let served = capacity.served.as_ref().map(|served| served.rate).or(capacity.estimate);
    let Some(served) = served else {
        let says = format!(
            "nothing above {} records/s was measured, and nothing is extrapolated",
            rate(capacity.safe)
        );
        return answer(Verdict::BeyondMeasured, says).better(facts.commands.saturate());
    };
    if top <= served.low {
        let says = format!(
            "{} records/s for {time} is above the safe rate: the goal may be missed, but up to {} are \
             delivered and nothing piles up",
            rate(top),
            rate(served.low)
        );
        return answer(Verdict::Tight, says);
    }
    let from = capacity.served.as_ref().map_or(&capacity.from, |served| &served.from);
    let overflowing = overflow(answer(Verdict::No, String::new()), facts, served, from);
    match &capacity.served {
        Some(ceiling) => as_measured(overflowing, ceiling, peak.time_s),
        None => overflowing
            .note(
                "No load above what can be served was offered: R* stands for C, which is likely more.",
            )
            .better(facts.commands.saturate()),
    }
}

/// What has to be known of how C was measured.
fn as_measured(mut answer: Answer, ceiling: &Ceiling, peak_s: f64) -> Answer {
    let lasted_s = ceiling.lasted_s;
    if lasted_s < peak_s {
        answer = answer.note(format!(
            "C was measured for {} at once, the peak lasts {}: what gets slower later is not in it.",
            span(lasted_s),
            span(peak_s)
        ));
    }
    match ceiling.generator_busy {
        Some(busy) if busy >= AT_END => answer.caution(format!(
            "What is delivered under overload, C = {} records/s, is what the generator could do, which had a CPU or \
             waited for one for {} of that time; the server may do more. The delay of the peak and the time to clear \
             hold for this generator on this machine, and are the longest to be expected elsewhere",
            rate(ceiling.rate.value),
            percent(busy)
        )),
        Some(busy) => answer.note(format!(
            "Under overload the generator had {} of its time to spare: C is the target's.",
            percent(1.0 - busy)
        )),
        None => answer.note(
            "Whether the target or the generator was at its end under overload is not known: the time the generator \
             wanted a CPU was not recorded.",
        ),
    }
}

/// What waits, how long, and until when.
fn overflow(mut answer: Answer, facts: &Facts<'_>, served: Range, from: &str) -> Answer {
    let (demand, top) = (facts.demand, facts.demand.peak_rate());
    let time_s = demand.peak.map_or(0.0, |peak| peak.time_s);
    let of = |served: f64| excess(top, time_s, demand.rate, served);
    let (left, worst, best) = (of(served.value), of(served.low), of(served.high));
    let inputs = |figure: Figure| {
        figure
            .from("peak", top, Unit::RecordsPerS, &demand.from)
            .from("T, how long the peak lasts", time_s, Unit::Seconds, &demand.from)
            .from_range("C, delivered under overload", served, Unit::RecordsPerS, from)
    };
    // Where C has no extent, how far it may be off is not known: that is no interval of no width.
    let within = |figure: Figure, one: f64, other: f64| match served.low < served.high {
        true => figure.within(one, other),
        false => figure,
    };
    let backlog = Figure::new(
        "backlog at the peak's end",
        left.backlog,
        Unit::Records,
        formula::PEAK_BACKLOG,
    );
    let backlog = within(backlog, best.backlog, worst.backlog);
    let delay = Figure::new("worst delay", left.delay_s, Unit::Seconds, formula::PEAK_DELAY);
    let delay = within(delay, best.delay_s, worst.delay_s);
    let clear = |left: formula::Excess| left.clear_s.unwrap_or(f64::INFINITY);
    let clears =
        Figure::new("cleared after the peak in", clear(left), Unit::Seconds, formula::PEAK_CLEAR);
    let clears = within(clears, clear(best), clear(worst)).from(
        "average",
        demand.rate,
        Unit::RecordsPerS,
        &demand.from,
    );
    let weight = facts
        .record_bytes()
        .map_or_else(String::new, |(size, _)| format!(" ({})", bytes(left.backlog * size)));
    answer.says = format!(
        "{} records/s for {}: {} records wait{weight}, delay up to {}{}, {}",
        rate(top),
        span(time_s),
        rate(left.backlog.round()),
        span(left.delay_s),
        delay.extent(),
        match left.clear_s {
            Some(clear_s) => format!("cleared {} after its end", span(clear_s)),
            None => "never cleared: the average is not below what is delivered".to_owned(),
        }
    );
    answer
        .figure(inputs(backlog))
        .figure(inputs(delay))
        .figure(inputs(clears))
        .note(
            "What serves a peak is what is delivered under overload (C), not the rate that meets the goal: the goal \
             is missed from the moment anything waits.",
        )
}

/// How many groups can follow?
pub fn groups(facts: &Facts<'_>) -> Answer {
    let question = Question::Groups;
    let (rate_asked, wanted) = (facts.demand.rate, facts.demand.groups);
    let figure = |read: f64, from: &str| {
        Figure::new("read by all groups", read, Unit::RecordsPerS, formula::GROUPS)
            .from("demand", rate_asked, Unit::RecordsPerS, &facts.demand.from)
            .from("groups", f64::from(wanted), Unit::Count, &facts.demand.from)
            .from("read rate measured", read, Unit::RecordsPerS, from)
    };
    // Whatever kept up with as many groups and at least the rate is an answer.
    let held = facts.evidence.points.iter().filter(|point| {
        point.kept_up && point.setup.groups >= wanted && point.delivered >= rate_asked * 0.99
    });
    if let Some(point) = held.max_by(|a, b| a.delivered.total_cmp(&b.delivered)) {
        let groups = point.setup.groups;
        let says = format!(
            "{wanted} asked for; {groups} followed {} records/s ({})",
            rate(point.delivered),
            point.from
        );
        let read = point.consumed.max(point.delivered * f64::from(groups));
        return Answer::new(question, Verdict::Fits, says).figure(figure(read, &point.from));
    }
    let points = facts.evidence.points.iter();
    let tried = points.filter(|p| p.kept_up && p.setup.groups > 0).map(|p| {
        (p.delivered * f64::from(p.setup.groups), p.setup.groups, p.delivered, p.from.clone())
    });
    // Beside far fewer arrivals others would have had less to read.
    let beside = facts.evidence.drains.iter().filter(|drain| drain.arrival >= 0.9 * rate_asked);
    let drained = beside.map(|drain| {
        // Those that catch up, and those that follow meanwhile.
        let all = drain.setup.as_ref().map_or(0, |setup| setup.groups).max(drain.paused);
        let live = f64::from(all - drain.paused);
        let read = drain.rate.value * f64::from(drain.paused) + drain.arrival * live;
        (read, all, drain.arrival, drain.from.clone())
    });
    let recorded = facts.evidence.recorded.iter().filter_map(|(from, recorded)| {
        let window = recorded.borne()?;
        Some((window.records_out, recorded.groups, window.records_in, from.clone()))
    });
    let best = tried.chain(drained).chain(recorded).max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((read, with, at, from)) = best else {
        return Answer::not_measured(question, facts.commands.groups());
    };
    let needed = rate_asked * f64::from(wanted);
    if read >= needed {
        let says = format!(
            "{wanted} groups would read {} records/s; {} were read, by {with} at {} records/s in ({from})",
            rate(needed),
            rate(read),
            rate(at)
        );
        let answer = Answer::new(question, Verdict::Tight, says).figure(figure(read, &from));
        return answer
            .note("As much was read in sum, by another number of groups or at another rate.")
            .better(facts.commands.groups());
    }
    let says = format!(
        "{wanted} groups would read {} records/s; nothing above {} was measured ({from})",
        rate(needed),
        rate(read)
    );
    Answer::new(question, Verdict::BeyondMeasured, says)
        .figure(figure(read, &from))
        .better(facts.commands.groups())
}
