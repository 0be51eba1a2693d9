//! What durability costs, and which batch and linger to take.

use crate::capacity::answer::{Answer, Figure, Question, Rows, Unit, Verdict};
use crate::capacity::evidence::{Point, Sustained};
use crate::capacity::facts::Facts;
use crate::capacity::formula;
use crate::report::figures::{bytes, percent, rate, time, time_or_dash};

/// Offered rates that differ by less are the same.
const SAME_RATE: f64 = 0.05;
/// So are p99s that were measured once each.
const SAME_P99: f64 = 0.1;

fn alike_rate(a: &Point, b: &Point) -> bool {
    (a.offered / b.offered - 1.0).abs() <= SAME_RATE
}

/// What does waiting for the device cost?
pub fn durability(facts: &Facts<'_>) -> Answer {
    let question = Question::Durability;
    let without_ack = |setup: &mut crate::capacity::evidence::Setup| setup.ack = String::new();
    let searches = pair(&facts.evidence.sustained, |durable: &Sustained, written: &Sustained| {
        let kinds = durable.setup.ack == "durable" && written.setup.ack == "written";
        kinds
            && durable.setup.same_but(&written.setup, without_ack)
            && durable.goals == written.goals
            && durable.safe.is_some()
            && written.safe.is_some()
    });
    let runs = pair(&facts.evidence.points, |durable: &Point, written: &Point| {
        let kinds = durable.setup.ack == "durable" && written.setup.ack == "written";
        let both = durable.response_us[0].is_some() && written.response_us[0].is_some();
        kinds
            && both
            && durable.setup.same_but(&written.setup, without_ack)
            && alike_rate(durable, written)
    });
    if searches.is_none() && runs.is_none() {
        return Answer::not_measured(question, facts.commands.sweep_ack());
    }
    let mut says = Vec::new();
    let mut answer = Answer::new(question, Verdict::Known, "");
    if let Some((durable, written)) = searches {
        let (a, b) = (durable.safe.unwrap_or_default(), written.safe.unwrap_or_default());
        says.push(format!(
            "{} of the rate: {} records/s durable, {} written",
            percent(1.0 - a / b),
            rate(a),
            rate(b)
        ));
        answer = answer.figure(
            Figure::new("durable over written, safe rate", a / b, Unit::Ratio, formula::RATIO)
                .from("durable", a, Unit::RecordsPerS, &durable.from)
                .from("written", b, Unit::RecordsPerS, &written.from),
        );
    }
    if let Some((durable, written)) = runs {
        for (i, name) in [(0, "p50"), (1, "p99")] {
            let (Some(a), Some(b)) = (durable.response_us[i], written.response_us[i]) else {
                continue;
            };
            says.push(format!("{name} {} instead of {}", time(a), time(b)));
            answer = answer.figure(
                Figure::new(
                    format!("durable over written, response {name}"),
                    a / b,
                    Unit::Ratio,
                    formula::RATIO,
                )
                .from("durable", a, Unit::Microseconds, &durable.from)
                .from("written", b, Unit::Microseconds, &written.from),
            );
        }
        says.push(format!("at {} records/s", rate(durable.offered)));
    }
    answer.says = says.join(", ");
    if runs.is_some() {
        answer = answer.note(
            "One run of each, the generator's lateness in both: their reports say how late it was, before you rely on a \
             difference in p99.",
        );
    }
    answer.note(
        "Written means accepted by the kernel and flushed within 10 ms: a power cut may take what was \
         acknowledged.",
    )
}

/// The pair with the highest index of both, the last measured, for which `fits`.
fn pair<T>(all: &[T], fits: impl Fn(&T, &T) -> bool) -> Option<(&T, &T)> {
    let pairs = all.iter().rev().flat_map(|a| all.iter().rev().map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| fits(a, b))
}

/// A choice of batch and linger, and what it brings.
struct Choice {
    batch: u64,
    linger_us: f64,
    rate: f64,
    p50: Option<f64>,
    p99: f64,
    kept_up: bool,
    from: String,
}

/// Which batch and linger?
pub fn batch_and_linger(facts: &Facts<'_>) -> Answer {
    let question = Question::BatchAndLinger;
    let Some(choices) = choices(facts) else {
        return Answer::not_measured(question, facts.commands.sweep_batch());
    };
    // Nothing else has both a higher rate and a lower p99.
    let better = |a: &Choice, b: &Choice| {
        a.rate >= b.rate && a.p99 <= b.p99 && (a.rate > b.rate || a.p99 < b.p99)
    };
    let front: Vec<bool> = choices
        .iter()
        .map(|b| b.kept_up && !choices.iter().any(|a| a.kept_up && better(a, b)))
        .collect();
    let words = |c: &Choice| {
        format!("batches of {}, linger {}", bytes(c.batch as f64), linger(c.linger_us))
    };
    // A rate within the noise of the demand's counts as all the same: then the lowest p99 decides, and of those within
    // the noise of that the lowest p50.
    let enough = || {
        let least = facts.demand.rate * (1.0 - SAME_RATE);
        choices.iter().filter(move |c| c.kept_up && c.rate >= least)
    };
    let lowest = enough().map(|c| c.p99).fold(f64::INFINITY, f64::min);
    let alike = enough().filter(|c| c.p99 <= lowest * (1.0 + SAME_P99));
    let p50 = |c: &Choice| c.p50.unwrap_or(f64::INFINITY);
    let best = alike.min_by(|a, b| p50(a).total_cmp(&p50(b)));
    let says = match best {
        Some(best) => format!(
            "{}: p50 {}, p99 {} at {} records/s",
            words(best),
            time_or_dash(best.p50),
            time(best.p99),
            rate(best.rate)
        ),
        None => {
            let most = choices.iter().map(|c| c.rate).fold(0.0, f64::max);
            format!(
                "none was measured at {} records/s; the most is {}",
                rate(facts.demand.rate),
                rate(most)
            )
        }
    };
    let verdict = if best.is_some() { Verdict::Known } else { Verdict::BeyondMeasured };
    let mut answer = Answer::new(question, verdict, says);
    if let Some(best) = best {
        answer = answer.figure(
            Figure::new("response p99", best.p99, Unit::Microseconds, formula::MEASURED)
                .from("batch", best.batch as f64, Unit::Bytes, &best.from)
                .from("linger", best.linger_us, Unit::Microseconds, &best.from)
                .from("rate", best.rate, Unit::RecordsPerS, &best.from),
        );
    }
    let mut rows = Rows {
        caption: "Batch and linger: the frontier is what nothing else beats in both rate and p99"
            .to_owned(),
        columns: ["batch", "linger", "records/s", "p50", "p99", "frontier", "run"]
            .map(str::to_owned)
            .into(),
        rows: vec![],
    };
    for (c, front) in choices.iter().zip(&front) {
        let mark = match (c.kept_up, front) {
            (false, _) => "did not keep up",
            (true, true) => "yes",
            (true, false) => "",
        };
        let cells = [
            bytes(c.batch as f64),
            linger(c.linger_us),
            rate(c.rate),
            time_or_dash(c.p50),
            time(c.p99),
            mark.to_owned(),
            c.from.clone(),
        ];
        rows.rows.push(cells.into());
    }
    answer.tables.push(rows);
    answer = answer.note("Each was measured once: p99s within a tenth of each other are alike.");
    if best.is_none() { answer.better(facts.commands.sweep_batch()) } else { answer }
}

fn linger(us: f64) -> String {
    if us == 0.0 { "none".to_owned() } else { time(us) }
}

/// Points that differ in nothing but batch and linger (and the rate): the largest such set, if it has at least two
/// choices. At several rates, those nearest to the demand.
fn choices(facts: &Facts<'_>) -> Option<Vec<Choice>> {
    let without = |setup: &mut crate::capacity::evidence::Setup| {
        (setup.batch_bytes, setup.linger_us) = (0, 0.0);
    };
    let points = &facts.evidence.points;
    let set = |of: &Point| -> Vec<&Point> {
        points
            .iter()
            .filter(|p| p.setup.same_but(&of.setup, without) && alike_rate(p, of))
            .collect()
    };
    let different = |set: &[&Point]| {
        let mut all: Vec<_> =
            set.iter().map(|p| (p.setup.batch_bytes, p.setup.linger_us.to_bits())).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let off = |p: &Point| (p.offered / facts.demand.rate - 1.0).abs();
    let best = points
        .iter()
        .map(|point| (point, set(point)))
        .filter(|(_, set)| different(set) >= 2)
        .max_by(|(a, set_a), (b, set_b)| {
            different(set_a).cmp(&different(set_b)).then(off(b).total_cmp(&off(a)))
        })?
        .1;
    let mut choices: Vec<Choice> = best
        .into_iter()
        .filter_map(|point| {
            Some(Choice {
                batch: point.setup.batch_bytes,
                linger_us: point.setup.linger_us,
                rate: point.delivered,
                p50: point.response_us[0],
                p99: point.response_us[1]?,
                kept_up: point.kept_up,
                from: point.from.clone(),
            })
        })
        .collect();
    choices.sort_by(|a, b| a.batch.cmp(&b.batch).then(a.linger_us.total_cmp(&b.linger_us)));
    (choices.len() >= 2).then_some(choices)
}
