//! A consumer group that was away.

use crate::busy::AT_END;
use crate::capacity::answer::{Answer, Figure, Question, Unit, Verdict, span};
use crate::capacity::evidence::Drain;
use crate::capacity::facts::Facts;
use crate::capacity::formula;
use crate::report::figures::{percent, rate, time};

/// A drain measured beside fewer arrivals than asked for, by more than this, says nothing: reading and writing share
/// the machine.
const MORE_ARRIVALS: f64 = 1.1;

/// A drain shorter than this, in seconds, or of a backlog so many times shorter than asked for, is of what was in memory.
const SHORT_S: f64 = 10.0;
const MUCH: f64 = 10.0;

/// The drain measured beside the arrivals nearest to what is asked: rather more than fewer.
fn nearest<'a>(facts: &Facts<'a>) -> Option<&'a Drain> {
    let asked = facts.demand.rate;
    let off = |drain: &Drain| {
        let ratio = drain.arrival / asked;
        if ratio * MORE_ARRIVALS >= 1.0 { (ratio - 1.0).abs() } else { 1e6 + 1.0 / ratio.max(1e-9) }
    };
    facts.evidence.drains.iter().min_by(|a, b| off(a).total_cmp(&off(b)))
}

/// After an outage, how long to catch up, and how long may it be?
pub fn catch_up(facts: &Facts<'_>) -> Answer {
    let question = Question::CatchUp;
    let Some(drain) = nearest(facts) else {
        return Answer::not_measured(question, facts.commands.backlog());
    };
    let demand = facts.demand;
    let fewer = demand.rate > drain.arrival * MORE_ARRIVALS;
    // Who drains too little beside more arrivals than asked for may drain enough beside fewer.
    let too_hard = drain.rate.value <= demand.rate && drain.arrival > demand.rate * MORE_ARRIVALS;
    if fewer || too_hard {
        let says = format!(
            "catching up was measured beside {} records/s, not beside {}",
            rate(drain.arrival),
            rate(demand.rate)
        );
        return Answer::new(question, Verdict::BeyondMeasured, says)
            .better(facts.commands.backlog());
    }
    let answer = match demand.outage_s {
        Some(outage_s) => after(facts, drain, outage_s),
        None => {
            let says = format!(
                "a group reads {} records/s while {} arrive; add --outage 30m",
                rate(drain.rate.value),
                rate(drain.arrival)
            );
            Answer::new(question, Verdict::NotAsked, says)
        }
    };
    far(live(retained(answer, facts, drain), drain), facts, drain)
}

/// What was read within seconds was just written: a backlog many times as long comes from the device.
fn far(answer: Answer, facts: &Facts<'_>, drain: &Drain) -> Answer {
    let asked = facts.demand.rate * facts.demand.outage_s.unwrap_or(0.0);
    let measured = drain.arrival * drain.outage_s;
    let short = drain.took_s.is_some_and(|took_s| took_s < SHORT_S) || asked > MUCH * measured;
    if measured <= 0.0 || asked <= 2.0 * measured || !short {
        return answer;
    }
    answer.caution(format!(
        "Catching up was measured on {} records{}, and {} wait after {}: those come from the device, which may be slower. \
         A longer --outage of load backlog says",
        rate(measured.round()),
        drain.took_s.map_or(String::new(), |took_s| format!(" in {}", span(took_s))),
        rate(asked.round()),
        span(facts.demand.outage_s.unwrap_or(0.0))
    ))
}

fn after(facts: &Facts<'_>, drain: &Drain, outage_s: f64) -> Answer {
    let demand = facts.demand;
    let of = |rate: f64| formula::catch_up(demand.rate, outage_s, rate).unwrap_or(f64::INFINITY);
    let takes = of(drain.rate.value);
    let backlog = demand.rate * outage_s;
    let mut figure = Figure::new("caught up after", takes, Unit::Seconds, formula::CATCH_UP)
        .from("arrival", demand.rate, Unit::RecordsPerS, &demand.from)
        .from("outage", outage_s, Unit::Seconds, &demand.from)
        .from_range("drain, while writing", drain.rate, Unit::RecordsPerS, &drain.from);
    if drain.rate.low < drain.rate.high {
        figure = figure.within(of(drain.rate.high), of(drain.rate.low));
    }
    let waits =
        Figure::new("waits when it returns", backlog, Unit::Records, formula::OUTAGE_BACKLOG)
            .from("arrival", demand.rate, Unit::RecordsPerS, &demand.from)
            .from("outage", outage_s, Unit::Seconds, &demand.from);
    let lost = demand.retention_s.is_some_and(|retention| outage_s > retention);
    let close = demand.retention_s.is_some_and(|retention| {
        outage_s > formula::survivable(retention, demand.rate, drain.rate.value)
    });
    let (verdict, says) = match takes {
        _ if lost => (
            Verdict::No,
            format!("away for {}: retention takes what nobody has read", span(outage_s)),
        ),
        takes if takes.is_infinite() => (
            Verdict::No,
            format!(
                "away for {}: never caught up, {} records/s are read and {} arrive",
                span(outage_s),
                rate(drain.rate.value),
                rate(demand.rate)
            ),
        ),
        takes => (
            if close { Verdict::Tight } else { Verdict::Fits },
            format!(
                "away for {}: caught up {}{} after its return, reading {} records/s while {} arrive",
                span(outage_s),
                span(takes),
                figure.extent(),
                rate(drain.rate.value),
                rate(demand.rate)
            ),
        ),
    };
    Answer::new(Question::CatchUp, verdict, says).figure(figure).figure(waits)
}

/// How long it may be.
fn retained(answer: Answer, facts: &Facts<'_>, drain: &Drain) -> Answer {
    let demand = facts.demand;
    let Some(retention_s) = demand.retention_s else {
        return answer.note(
            "How long a group may be away is bounded by the retention: add --retention 24h.",
        );
    };
    let most = |rate: f64| formula::survivable(retention_s, demand.rate, rate);
    let mut figure =
        Figure::new("may be away for", most(drain.rate.value), Unit::Seconds, formula::SURVIVABLE)
            .from("retention", retention_s, Unit::Seconds, &demand.from)
            .from("arrival", demand.rate, Unit::RecordsPerS, &demand.from)
            .from_range("drain, while writing", drain.rate, Unit::RecordsPerS, &drain.from);
    if drain.rate.low < drain.rate.high {
        figure = figure.within(most(drain.rate.low), most(drain.rate.high));
    }
    let mut answer = answer.figure(figure);
    if let (Some((from, recorded)), Some((bytes, weighed_by, _))) =
        (facts.recording(), facts.disk_bytes())
    {
        let lasts = recorded.disk_free as f64 / (demand.rate * bytes);
        answer = answer.figure(
            Figure::new("disk free lasts for", lasts, Unit::Seconds, formula::DISK_LASTS)
                .from("free", recorded.disk_free as f64, Unit::Bytes, from)
                .from("demand", demand.rate, Unit::RecordsPerS, &demand.from)
                .from("on disk for a record", bytes, Unit::Bytes, &weighed_by),
        );
        if lasts < retention_s {
            answer = answer
                .note("The disk is full before the retention is over: that bounds the outage.");
        }
    }
    answer
}

/// What catching up does to everybody else.
fn live(mut answer: Answer, drain: &Drain) -> Answer {
    if let Some((before, during)) = drain.live_us {
        answer.says +=
            &format!("; meanwhile response p99 {} instead of {}", time(during), time(before));
        answer = answer.figure(
            Figure::new(
                "live response p99 while it catches up",
                during,
                Unit::Microseconds,
                formula::MEASURED,
            )
            .from("before the outage", before, Unit::Microseconds, &drain.from),
        );
    }
    if !drain.measured_interval {
        answer = answer.note(match drain.rate.low < drain.rate.high {
            true => {
                "Catching up was measured for less than 30 s: the interval is the slowest and the fastest second of it, not \
                 one of 95 %. A longer outage gives one."
            }
            false => "No whole second of catching up is known: there is no interval.",
        });
    }
    match drain.generator_busy {
        Some(busy) if busy >= AT_END => {
            answer = answer.caution(format!(
                "Catching up at {} records/s is what the generator could read and check, which had a CPU or waited for one \
                 for {} of that time; consumers that do less with a record, or on CPUs of their own, may be faster",
                rate(drain.rate.value),
                percent(busy)
            ));
        }
        Some(busy) => {
            answer = answer.note(format!(
                "While the group caught up the generator had {} of its time to spare: the rate is the target's.",
                percent(1.0 - busy)
            ));
        }
        None => {}
    }
    if drain.took_s.is_none() {
        answer = answer.note(format!(
            "In {} the group did not come to the head while it was watched.",
            drain.from
        ));
    }
    answer.note(format!(
        "Measured: {}, {} records/s arriving ({}).",
        drain.what,
        rate(drain.arrival),
        drain.from
    ))
}
