//! More shards: what one more brings, and how many a target needs.

use serde::Serialize;

use super::rate::with_groups;
use crate::capacity::answer::{Answer, Figure, Question, Rows, Unit, Verdict};
use crate::capacity::evidence::{Evidence, Setup};
use crate::capacity::facts::{AVERAGE_FILL, Capacity, Facts};
use crate::capacity::formula;
use crate::capacity::usl::{REACH, SIZES_GOOD, SIZES_MIN, Usl, UslError};
use crate::report::figures::{counted, percent, rate, whole};

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
    /// What it holds for, but for the shards and the producers.
    #[serde(skip)]
    pub setup: Setup,
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
    let (of, (setup, points)) = candidates
        .into_iter()
        .filter_map(|(of, family)| Some((of, family?)))
        .rev()
        .max_by_key(|(_, (_, points))| sizes(points))?;
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
    Some(Scaling { of, points, fit, error, device, at_device, setup })
}

fn sizes(points: &[(f64, f64, String)]) -> usize {
    let mut sizes: Vec<u64> = points.iter().map(|(n, _, _)| n.to_bits()).collect();
    sizes.dedup();
    sizes.len()
}

type Family = (Setup, Vec<(f64, f64, String)>);

fn family(all: &[(&Setup, f64, &str)]) -> Option<Family> {
    // Producers may grow with the shards.
    let without = |setup: &mut Setup| (setup.shards, setup.producers) = (0, 0);
    let set = |of: &Setup| -> Family {
        let alike = all.iter().filter(|(setup, _, _)| setup.same_but(of, without));
        let mut set: Vec<_> = alike
            .map(|(setup, x, from)| (f64::from(setup.shards), *x, (*from).to_owned()))
            .collect();
        set.sort_by(|a, b| a.0.total_cmp(&b.0));
        (of.clone(), set)
    };
    all.iter().map(|(setup, _, _)| set(setup)).max_by_key(|(_, set)| sizes(set))
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

fn notes(mut answer: Answer, facts: &Facts<'_>, scaling: &Scaling, fit: &Usl) -> Answer {
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
    let groups = facts.demand.groups;
    if scaling.setup.groups < groups {
        answer = answer.note(format!(
            "The curve is of {}: {groups} are asked for, and each reads everything once more.",
            counted(u64::from(scaling.setup.groups), "group")
        ));
    }
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
    let device = scaling.device.as_ref().map_or(f64::INFINITY, |(most, _)| *most);
    // Nothing is read off above what the device does.
    let at = |n: f64| fit.at(n).map(|(x, low, high)| [x, low, high].map(|x| x.min(device)));
    let (here, there) = match (at(now), at(now + 1.0)) {
        (Ok([here, ..]), Ok(there)) => (here, there),
        (Err(error), _) | (_, Err(error)) => {
            let answer = Answer::new(question, Verdict::BeyondMeasured, error.to_string());
            return notes(answer, facts, scaling, fit).better(facts.commands.sweep_shards());
        }
    };
    let [next, low, high] = there;
    let gain = next - here;
    let pays = fit.pays_until(PAYS);
    let shards = |n: f64| counted(n as u64, "shard");
    let until = match fit.best() {
        _ if pays >= (largest * REACH).floor() => {
            format!("pays up to {} at least, twice what was measured", shards(pays))
        }
        Some((n, x)) if n <= largest * REACH => format!(
            "pays up to {}; most is {} records/s at {}",
            shards(pays),
            rate(x.min(device)),
            rate(n)
        ),
        _ => format!("pays up to {}", shards(pays)),
    };
    let says = format!(
        "{} -> {}: {}{} records/s ({:+.1} %); {until}",
        whole(now as u64),
        whole(now as u64 + 1),
        if gain < 0.0 { "-" } else { "+" },
        rate(gain.abs()),
        gain / here * 100.0
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
                next,
                Unit::RecordsPerS,
                formula::USL,
            )
            .within(low, high),
        ))
        .figure(fitted(Figure::new("one more brings", gain, Unit::RecordsPerS, formula::USL)));
    if let Some((n, x)) = fit.best().filter(|(n, _)| *n <= largest * REACH) {
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
    notes(answer, facts, scaling, fit)
}

/// How many shards and cores does the target need?
pub fn shards_and_cores(facts: &Facts<'_>, scaling: Option<&Scaling>) -> Answer {
    let question = Question::ShardsAndCores;
    let Some((capacity, setup)) =
        facts.capacity.as_ref().and_then(|capacity| Some((capacity, capacity.setup.as_ref()?)))
    else {
        return Answer::not_measured(question, facts.commands.search());
    };
    let need = Need::of(facts, capacity, setup);
    let largest =
        scaling.map_or(need.of, |s| s.points.iter().map(|point| point.0).fold(0.0, f64::max));
    let by_curve = scaling.and_then(|scaling| Some((scaling, scaling.fit.as_ref()?)));
    let carried = by_curve
        .and_then(|(scaling, fit)| Some((scaling, fit, Carried::of(fit, capacity, setup)?)));
    let answer = match carried {
        Some((scaling, fit, carried)) => {
            let open = capacity.missed.is_none();
            let (verdict, says) = shards_by_curve(&need, scaling, fit, carried, open);
            let answer = Answer::new(question, verdict, says).figure(need.figure(facts));
            match verdict {
                Verdict::Known => answer.figure(carried.figure(&need, fit, facts, capacity)),
                _ => answer,
            }
        }
        None => {
            let says =
                format!("{} if they add up evenly {}", whole(need.shards as u64), need.aim());
            let far = need.shards > largest * REACH;
            let answer = match far {
                true => Answer::new(
                    question,
                    Verdict::BeyondMeasured,
                    format!("{says}; no more than {} were measured", whole(largest as u64)),
                ),
                false => Answer::new(question, Verdict::Known, says),
            };
            answer
                .figure(need.figure(facts))
                .note("Whether shards add up evenly was not measured.")
                .better(facts.commands.sweep_shards())
        }
    };
    with_groups(cores(answer, facts), facts)
}

/// What the target needs if every shard bears as much.
struct Need {
    /// Records per second of an average that fills as much as it may, or of the peak.
    target: f64,
    /// Busiest shard over the mean.
    skew: f64,
    /// What a shard safely bears, in records per second, who says so, and of how many.
    per_shard: f64,
    from: String,
    of: f64,
    shards: f64,
}

impl Need {
    fn of(facts: &Facts<'_>, capacity: &Capacity, setup: &Setup) -> Need {
        let measured = setup.skew.max(1.0);
        // A shard by itself shares no machine with others; but its goals have to be the same.
        let of_one = |setup: &mut Setup| (setup.shards, setup.producers) = (1, 0);
        let bounds = capacity.search.as_ref().map(|search| &search.bounds);
        let alone = facts.evidence.sustained.iter().find(|s| {
            let one = s.setup.shards == 1 && setup.shards != 1 && Some(&s.bounds) == bounds;
            one && s.safe.is_some() && s.setup.same_but(setup, of_one)
        });
        let (per_shard, from, of, skew) = match alone.and_then(|s| Some((s.safe?, s))) {
            Some((safe, s)) => (safe, s.from.clone(), 1.0, facts.demand.skew.unwrap_or(measured)),
            None => {
                let shards = f64::from(setup.shards.max(1));
                // Of several it is the busiest that bears the skew of the keys measured.
                let busiest = capacity.safe / capacity.for_keys * measured / shards;
                let skew = facts.demand.skew.unwrap_or(measured).max(measured);
                (busiest, capacity.from.clone(), shards, skew)
            }
        };
        let target = facts.target();
        let shards = formula::shards(target, skew, per_shard);
        Need { target, skew, per_shard, from, of, shards }
    }

    fn aim(&self) -> String {
        format!(
            "for {} records/s (the average at {} of what is safe, or the peak)",
            rate(self.target),
            percent(AVERAGE_FILL)
        )
    }

    fn figure(&self, facts: &Facts<'_>) -> Figure {
        let asked = &facts.demand.from;
        let skew = if facts.demand.skew.is_some() { asked } else { &self.from };
        let name = "shards, if they add up evenly";
        Figure::new(name, self.shards, Unit::Count, formula::SHARDS)
            .from("target", self.target, Unit::RecordsPerS, asked)
            .from("skew of the keys", self.skew, Unit::Ratio, skew)
            .from("safe rate of a shard", self.per_shard, Unit::RecordsPerS, &self.from)
    }
}

/// The point from which a safe rate is carried over along the curve. The curve itself may be of estimates or of
/// overload, which nobody promises.
#[derive(Clone, Copy)]
struct Carried {
    /// Shards for which the safe rate is known.
    n: f64,
    /// What the curve has there, in records per second.
    curve: f64,
    /// What is safe there, for the keys asked for.
    safe: f64,
}

impl Carried {
    /// `None` if the curve says nothing about as many shards as the capacity was measured with.
    fn of(fit: &Usl, capacity: &Capacity, setup: &Setup) -> Option<Carried> {
        let n = f64::from(setup.shards.max(1));
        let (curve, _, _) = fit.at(n).ok()?;
        Some(Carried { n, curve, safe: capacity.safe })
    }

    /// The fewest shards that safely bear `target`.
    fn shards(self, fit: &Usl, target: f64) -> Option<f64> {
        fit.reaches(self.curve * (target / self.safe))
    }

    /// What of a point of the curve would be safe.
    fn safe_at(self, curve: f64) -> f64 {
        curve * self.safe / self.curve
    }

    fn figure(self, need: &Need, fit: &Usl, facts: &Facts<'_>, capacity: &Capacity) -> Figure {
        let shards = self.shards(fit, need.target).unwrap_or(f64::INFINITY);
        Figure::new("shards, by the curve", shards, Unit::Count, formula::SHARDS_BY_CURVE)
            .from("target", need.target, Unit::RecordsPerS, &facts.demand.from)
            .from("n, shards measured", self.n, Unit::Count, &capacity.from)
            .from("X(n)", self.curve, Unit::RecordsPerS, "fit")
            .from("safe rate of n shards", self.safe, Unit::RecordsPerS, &capacity.from)
    }
}

/// `open` if nothing above what is safe was tried.
fn shards_by_curve(
    need: &Need,
    scaling: &Scaling,
    fit: &Usl,
    carried: Carried,
    open: bool,
) -> (Verdict, String) {
    let device = scaling.device.as_ref().map_or(f64::INFINITY, |(most, _)| *most);
    let found = carried.shards(fit, need.target).filter(|_| need.target <= device);
    if let Some(n) = found.filter(|n| !open || *n <= carried.n) {
        return (Verdict::Known, format!("{} by the curve {}", whole(n as u64), need.aim()));
    }
    // A rate at which nothing gave out is a bound from below: it says what is enough, and not what is too little.
    if open && need.target <= device {
        let says = format!(
            "nothing gave out at {} records/s with {}, the most that was tried: how many it takes {} is not known",
            rate(carried.safe),
            counted(carried.n as u64, "shard"),
            need.aim()
        );
        return (Verdict::BeyondMeasured, says);
    }
    let reach = fit.largest() * REACH;
    let top = fit
        .best()
        .filter(|(n, _)| *n <= reach)
        .map_or_else(|| fit.at(reach).map_or(fit.gamma, |at| at.0), |(_, x)| x);
    let says = format!(
        "no number of shards on this machine up to twice what was measured: the most that is safe by the curve is {} \
         records/s, {}; less skew, larger batches or a second machine",
        rate(carried.safe_at(top).min(device)),
        need.aim()
    );
    (Verdict::No, says)
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
    // Of all of them: the busiest says what gives out first, and not how much work there is.
    let needed = (window.cores_busy * target / window.records_in).ceil().max(1.0);
    let mut answer = answer.figure(
        Figure::new("cores of the server", needed, Unit::Count, formula::CORES)
            .from("CPU time of all cores a second", window.cores_busy, Unit::Seconds, from)
            .from("rate", window.records_in, Unit::RecordsPerS, from)
            .from("target", target, Unit::RecordsPerS, &facts.demand.from),
    );
    answer.says += &format!("; {} by the recording", counted(needed as u64, "core"));
    answer
}
