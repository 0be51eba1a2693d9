//! More shards: what one more brings, and how many a target needs.

use serde::Serialize;

use crate::capacity::answer::{Answer, Figure, Question, Rows, Unit, Verdict};
use crate::capacity::evidence::{Evidence, Setup};
use crate::capacity::facts::{AVERAGE_FILL, Facts};
use crate::capacity::formula;
use crate::capacity::usl::{REACH, SIZES_GOOD, SIZES_MIN, Usl, UslError};
use crate::report::figures::{percent, rate, whole};

/// One more shard no longer pays when it brings less than this share of what the first brought.
const PAYS: f64 = 0.25;
/// A size whose rate comes this near to what the device does is bound by it, and says nothing about shards.
const AT_DEVICE: f64 = 0.9;

/// How the rate grows with the shards.
#[derive(Clone, Debug, Serialize)]
pub struct Scaling {
    /// Whether the rates are sustained ones, or what is delivered under overload.
    pub of: &'static str,
    /// (shards, records per second, source), by shards.
    pub points: Vec<(f64, f64, String)>,
    /// The curve; absent with too few sizes.
    pub fit: Option<Usl>,
    /// Why there is none.
    #[serde(skip)]
    pub error: Option<UslError>,
    /// What the device could take at most, in records per second, and the probe that says so.
    pub device: Option<(f64, String)>,
    /// Sizes that come so near to it that the curve is not fitted to them.
    pub at_device: Vec<f64>,
}

/// The largest set of rates that differ in nothing but the shards; `None` without two sizes.
pub fn scaling(facts: &Facts<'_>) -> Option<Scaling> {
    let evidence = facts.evidence;
    let sustained: Vec<(&Setup, f64, &str)> = evidence
        .sustained
        .iter()
        .filter_map(|s| Some((&s.setup, s.estimate.map(|e| e.value).or(s.safe)?, s.from.as_str())))
        .collect();
    let ceilings: Vec<(&Setup, f64, &str)> =
        evidence.ceilings.iter().map(|c| (&c.setup, c.rate.value, c.from.as_str())).collect();
    let candidates =
        [("sustained", family(&sustained)), ("delivered under overload", family(&ceilings))];
    // Of sets as large, that of sustained rates.
    let (of, points) = candidates.into_iter().rev().max_by_key(|(_, points)| sizes(points))?;
    if sizes(&points) < 2 {
        return None;
    }
    let device = device(facts, evidence);
    let at_device = |x: f64| device.as_ref().is_some_and(|(most, _)| x >= AT_DEVICE * most);
    let (full, free): (Vec<_>, Vec<_>) = points.iter().partition(|(_, x, _)| at_device(*x));
    let fitted: Vec<(f64, f64)> = free.iter().map(|(n, x, _)| (*n, *x)).collect();
    let (fit, error) = match Usl::fit(&fitted) {
        Ok(fit) => (Some(fit), None),
        Err(error) => (None, Some(error)),
    };
    let at_device = full.iter().map(|(n, _, _)| *n).collect();
    Some(Scaling { of, points, fit, error, device, at_device })
}

fn sizes(points: &[(f64, f64, String)]) -> usize {
    let mut sizes: Vec<u64> = points.iter().map(|(n, _, _)| n.to_bits()).collect();
    sizes.dedup();
    sizes.len()
}

fn family(all: &[(&Setup, f64, &str)]) -> Vec<(f64, f64, String)> {
    // Producers may grow with the shards.
    let without = |setup: &mut Setup| (setup.shards, setup.producers) = (0, 0);
    let set = |of: &Setup| -> Vec<(f64, f64, String)> {
        let alike = all.iter().filter(|(setup, _, _)| setup.same_but(of, without));
        let mut set: Vec<_> = alike
            .map(|(setup, x, from)| (f64::from(setup.shards), *x, (*from).to_owned()))
            .collect();
        set.sort_by(|a, b| a.0.total_cmp(&b.0));
        set
    };
    all.iter().map(|(setup, _, _)| set(setup)).max_by_key(|set| sizes(set)).unwrap_or_default()
}

fn device(facts: &Facts<'_>, evidence: &Evidence) -> Option<(f64, String)> {
    let (per_record, _, _) = facts.disk_bytes()?;
    let probes = evidence.probes.iter();
    probes
        .filter_map(|(from, probe)| {
            Some((probe.best_write()?.bytes_per_s / per_record, from.clone()))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

fn table(scaling: &Scaling) -> Rows {
    let mut rows = Rows {
        caption: format!("Records per second by shards, {}", scaling.of),
        columns: ["shards", "measured", "curve", "off by", "run"].map(str::to_owned).into(),
        rows: vec![],
    };
    for (n, x, from) in &scaling.points {
        let curve = scaling
            .fit
            .as_ref()
            .and_then(|fit| fit.residuals.iter().find(|r| r.n == *n && r.measured == *x));
        let (curve, off) = match curve {
            Some(r) => (rate(r.fitted), format!("{:+.1} %", (r.measured / r.fitted - 1.0) * 100.0)),
            None if scaling.at_device.contains(n) => ("-".into(), "the device's".into()),
            None => ("-".into(), "-".into()),
        };
        rows.rows.push(vec![rate(*n), rate(*x), curve, off, from.clone()]);
    }
    rows
}

fn notes(mut answer: Answer, scaling: &Scaling, fit: &Usl) -> Answer {
    answer.tables.push(table(scaling));
    let errors = fit.errors.map_or_else(String::new, |[a, b, g]| {
        format!(" (standard errors {a:.2e}, {b:.2e}, {})", rate(g))
    });
    answer = answer.note(format!(
        "USL over {}: a = {:.4}, b = {:.6}, g = {} records/s{errors}; it explains {} of the variance.",
        scaling.of,
        fit.alpha,
        fit.beta,
        rate(fit.gamma),
        percent(fit.r_squared)
    ));
    if fit.residuals.len() < SIZES_GOOD {
        answer = answer.note(format!(
            "{} sizes are few for a fit of three parameters: {SIZES_GOOD} or more are wanted.",
            fit.residuals.len()
        ));
    }
    if let Some((most, from)) = &scaling.device {
        answer = answer.note(format!(
            "The device takes at most {} records/s ({from}): beyond that no shard helps. {}",
            rate(*most),
            match scaling.at_device.first() {
                Some(n) => format!("From {} shards on it binds.", rate(*n)),
                None => "None of the sizes comes near it.".to_owned(),
            }
        ));
    }
    answer
}

/// What does one more shard bring?
pub fn one_more(facts: &Facts<'_>, scaling: Option<&Scaling>) -> Answer {
    let question = Question::OneMoreShard;
    let Some(scaling) = scaling else {
        return Answer::not_measured(question, facts.commands.sweep_shards());
    };
    let Some(fit) = &scaling.fit else {
        let mut answer = Answer::not_measured(question, facts.commands.sweep_shards());
        answer.tables.push(table(scaling));
        let why = match scaling.error {
            Some(UslError::Few { found }) => {
                format!(
                    "Measured at {found} sizes that the device does not bind; a fit needs {SIZES_MIN}."
                )
            }
            Some(error) => format!("{error}."),
            None => String::new(),
        };
        return answer.note(why);
    };
    let largest = fit.largest();
    let now = facts.shards().map_or(largest, |(n, _)| f64::from(n));
    let (here, there) = match (fit.at(now), fit.at(now + 1.0)) {
        (Ok(here), Ok(there)) => (here, there),
        (Err(error), _) | (_, Err(error)) => {
            let answer = Answer::new(question, Verdict::BeyondMeasured, error.to_string());
            return notes(answer, scaling, fit).better(facts.commands.sweep_shards());
        }
    };
    let device = scaling.device.as_ref().map_or(f64::INFINITY, |(most, _)| *most);
    let gain = there.0.min(device) - here.0.min(device);
    let pays = fit.pays_until(PAYS);
    let until = match fit.peak() {
        _ if pays >= (largest * REACH).floor() => {
            format!("pays up to {} shards at least, twice what was measured", rate(pays))
        }
        Some((n, x)) if n <= largest * REACH => format!(
            "pays up to {} shards; most is {} records/s at {}",
            rate(pays),
            rate(x.min(device)),
            rate(n.round())
        ),
        _ => format!("pays up to {} shards", rate(pays)),
    };
    let says = format!(
        "{} -> {}: {}{} records/s ({:+.1} %); {until}",
        whole(now as u64),
        whole(now as u64 + 1),
        if gain < 0.0 { "-" } else { "+" },
        rate(gain.abs()),
        gain / here.0 * 100.0
    );
    let verdict = if gain > 0.0 { Verdict::Known } else { Verdict::No };
    let fitted = |figure: Figure| {
        figure
            .from("g", fit.gamma, Unit::RecordsPerS, "fit")
            .from("a", fit.alpha, Unit::Ratio, "fit")
            .from("b", fit.beta, Unit::Ratio, "fit")
    };
    let mut answer = Answer::new(question, verdict, says)
        .figure(fitted(
            Figure::new(
                format!("rate of {} shards", rate(now + 1.0)),
                there.0.min(device),
                Unit::RecordsPerS,
                formula::USL,
            )
            .within(there.1, there.2),
        ))
        .figure(Figure::new("one more brings", gain, Unit::RecordsPerS, formula::USL));
    if let Some((n, x)) = fit.peak().filter(|(n, _)| *n <= largest * REACH) {
        answer = answer
            .figure(fitted(Figure::new("most shards that help", n, Unit::Count, formula::USL)))
            .figure(fitted(Figure::new(
                "rate at the peak",
                x.min(device),
                Unit::RecordsPerS,
                formula::USL,
            )));
    } else {
        answer = answer.note(format!(
            "Where the curve peaks is not said: it is no fact beyond {} shards, twice the largest number measured.",
            rate(largest * REACH)
        ));
    }
    notes(answer, scaling, fit)
}

/// How many shards and cores does the target need?
pub fn shards_and_cores(facts: &Facts<'_>, scaling: Option<&Scaling>) -> Answer {
    let question = Question::ShardsAndCores;
    let single = facts
        .evidence
        .sustained
        .iter()
        .find_map(|s| (s.setup.shards == 1).then_some((s.safe?, s.from.clone(), 1u32)));
    let shared = facts.capacity.as_ref().and_then(|capacity| {
        let shards = capacity.setup.as_ref()?.shards.max(1);
        Some((capacity.safe / capacity.for_keys / f64::from(shards), capacity.from.clone(), shards))
    });
    let Some((per_shard, from, of)) = single.or(shared) else {
        return Answer::not_measured(question, facts.commands.search());
    };
    let (target, demand) = (facts.target(), facts.demand);
    let skew = demand.skew.unwrap_or_else(|| {
        let setup = facts.capacity.as_ref().and_then(|capacity| capacity.setup.as_ref());
        setup.map_or(1.0, |setup| setup.skew.max(1.0))
    });
    let needed = formula::shards(target, skew, per_shard);
    let largest =
        scaling.map_or(f64::from(of), |s| s.points.iter().map(|p| p.0).fold(0.0, f64::max));
    let figure = Figure::new("shards, if they add up evenly", needed, Unit::Count, formula::SHARDS)
        .from("target", target, Unit::RecordsPerS, &demand.from)
        .from(
            "skew of the keys",
            skew,
            Unit::Ratio,
            if demand.skew.is_some() { &demand.from } else { &from },
        )
        .from("safe rate of a shard", per_shard, Unit::RecordsPerS, &from);
    let aim = format!(
        "for {} records/s (the average at {} of what is safe, or the peak)",
        rate(target),
        percent(AVERAGE_FILL)
    );
    let fit = scaling.and_then(|scaling| scaling.fit.as_ref().map(|fit| (scaling, fit)));
    let (verdict, says) = match fit {
        Some((scaling, fit)) => {
            let most = scaling.device.as_ref().map_or(f64::INFINITY, |(most, _)| *most);
            match fit.reaches(target * skew) {
                Some(n) if target <= most => {
                    (Verdict::Known, format!("{} by the curve {aim}", whole(n as u64)))
                }
                _ => {
                    let top = fit.peak().filter(|(n, _)| *n <= largest * REACH).map_or_else(
                        || fit.at(largest * REACH).map_or(fit.gamma, |at| at.0),
                        |(_, x)| x,
                    );
                    let says = format!(
                        "no number of shards on this machine up to twice what was measured: the curve's most is {} records/s, {aim}; \
                         less skew, larger batches or a second machine",
                        rate(top.min(most))
                    );
                    (Verdict::No, says)
                }
            }
        }
        None if needed > largest * REACH => (
            Verdict::BeyondMeasured,
            format!(
                "{} if they added up evenly {aim}; no more than {} were measured",
                whole(needed as u64),
                whole(largest as u64)
            ),
        ),
        None => (Verdict::Known, format!("{} if they add up evenly {aim}", whole(needed as u64))),
    };
    let mut answer = Answer::new(question, verdict, says).figure(figure);
    if fit.is_none() {
        answer = answer
            .note("Whether shards add up evenly was not measured.")
            .better(facts.commands.sweep_shards());
    }
    cores(answer, facts)
}

fn cores(answer: Answer, facts: &Facts<'_>) -> Answer {
    let Some((from, window)) = facts.busiest() else {
        return answer.note(format!("Cores: not measured: run {}.", facts.commands.record()));
    };
    let target = facts.target();
    if target > window.records_in * REACH / AVERAGE_FILL {
        return answer.note(format!(
            "Cores: {from} shows {} records/s, too few to say how many {} need.",
            rate(window.records_in),
            rate(target)
        ));
    }
    let cores = facts.recording().map_or(1, |(_, recorded)| recorded.cores.max(1));
    let needed = (f64::from(cores) * window.busy * target / window.records_in).ceil().max(1.0);
    let mut answer = answer.figure(
        Figure::new("cores of the server", needed, Unit::Count, formula::CORES)
            .from("cores", f64::from(cores), Unit::Count, from)
            .from("busiest core, share in use", window.busy, Unit::Share, from)
            .from("rate", window.records_in, Unit::RecordsPerS, from)
            .from("target", target, Unit::RecordsPerS, &facts.demand.from),
    );
    answer.says +=
        &format!("; {} by the recording", crate::report::figures::counted(needed as u64, "core"));
    answer
}
