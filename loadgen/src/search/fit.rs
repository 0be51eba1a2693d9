//! Which rate keeps a share: a response curve through all trials at once, and where it crosses what is allowed.
//!
//! A rate is not sustained or missed by one trial: with stalls every few seconds, a trial of ten seconds at the very
//! boundary says yes or no by luck, and bisection then throws away half the range on the toss of a coin. Here no
//! trial decides anything. The share of records over a bound is taken as a smooth, growing function of the load,
//!
//! ```text
//! logit(share) = a + b x,    x = -ln(1 - rate / capacity),    b >= 1,
//! ```
//!
//! near the crossing: by local quasi-binomial regression over all stretches of all trials (McCullagh and Nelder,
//! Generalized Linear Models, section 4.5 and chapter 9; kernel weights as in Loader, Local Regression and Likelihood).
//! The capacity is what trials with a growing backlog show ([`capacity`]). The scale is the physics of a queue:
//! whatever holds a target up for a moment, what has gathered meanwhile is worked off by the capacity that the load
//! leaves over, so the time records are late for grows as 1 / (1 - load): b = 1 for stalls whose own length does not
//! depend on the load, more for everything that does.
//!
//! The variance of a stretch's share is φ share (1 - share) / seconds. φ, in seconds, is how clustered slow
//! records are (stalls make it far larger than independent records would), and is taken from the scatter
//! itself, so that intervals are as wide as the target is erratic.

use crate::stats::{NORMAL_95, student_95};

/// One stretch of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Records per second, more than 0.
    pub rate: f64,
    /// How long, more than 0.
    pub seconds: f64,
    /// Share beyond the bound, 0 to 1.
    pub share: f64,
}

/// Half the width of the window at most.
const WIDEST: f64 = 3.0;
/// The window ends where the curve is this many units of the logit away from the crossing: a factor of 20 in small shares.
const REACH: f64 = 3.0;
/// Points a window has at least on each side of the crossing, as long as there are that many.
const SIDE: usize = 3;
/// Shares below the allowed one divided by this are all alike: none.
const NONE: f64 = 50.0;
/// Slopes are kept within these: the physics, and what can no longer be told apart.
const SLOPES: (f64, f64) = (1.0, 100.0);
/// How far slopes may be from the least before they need evidence: the standard deviation of what is believed of them.
const SLOPE_SPREAD: f64 = 1.0;
/// How well a rate can be known at best, as a share of it: curves are not quite straight, and machines do not repeat
/// themselves better.
const REPEATS: f64 = 0.01;
/// Loads beyond this are as good as at capacity.
const FULL: f64 = 0.999;
/// The length of the run a safe rate is promised for.
pub const PROMISE_S: f64 = 120.0;

/// What the points say about the rate at which the share is as allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Crossing {
    /// Even all together the points say nothing: there are none.
    Nothing,
    /// The share stays within what is allowed at all rates tried.
    Above,
    /// It is beyond at all rates tried.
    Below,
    /// It is crossed.
    At(Fit),
}

/// A curve around its crossing.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// What is allowed.
    pub allowed: f64,
    /// Where the curve crosses it.
    pub rate: f64,
    /// 95 % interval of that.
    pub interval: (f64, f64),
    /// The highest rate at which a run of [`PROMISE_S`] keeps what is allowed with 95 %, the uncertainty of the
    /// curve included.
    pub safe: f64,
    /// How clustered slow records are, in seconds.
    pub dispersion_s: f64,
    curve: Line,
    /// Standard errors to either side that hold 95 %.
    student: f64,
    /// Records per second at which what waits begins to grow.
    capacity: f64,
}

/// logit(share) = a + b (x - x0), with the covariance of a and b.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    x0: f64,
    a: f64,
    b: f64,
    cov: [f64; 3],
}

impl Line {
    fn at(&self, x: f64) -> f64 {
        self.a + self.b * (x - self.x0)
    }

    fn error(&self, x: f64) -> f64 {
        let z = x - self.x0;
        (self.cov[0] + 2.0 * z * self.cov[1] + z * z * self.cov[2]).max(0.0).sqrt()
    }
}

fn logit(share: f64) -> f64 {
    (share / (1.0 - share)).ln()
}

fn logistic(eta: f64) -> f64 {
    1.0 / (1.0 + (-eta).exp())
}

impl Fit {
    /// The share at a rate, and its 95 % interval.
    pub fn share(&self, rate: f64) -> (f64, f64, f64) {
        let x = load(rate, self.capacity);
        let (eta, reach) = (self.curve.at(x), self.student * self.curve.error(x));
        (logistic(eta), logistic(eta - reach), logistic(eta + reach))
    }

    /// The scatter of the share of a run of so many seconds at a rate: its standard deviation, that of the curve
    /// included.
    pub fn scatter(&self, rate: f64, seconds: f64) -> f64 {
        let x = load(rate, self.capacity);
        let share = logistic(self.curve.at(x));
        let error = share * (1.0 - share) * self.curve.error(x.max(self.curve.x0));
        (self.dispersion_s * share * (1.0 - share) / seconds + error * error).sqrt()
    }

    /// Whether the interval is as narrow as `precision` to either side.
    pub fn precise(&self, precision: f64) -> bool {
        let (low, high) = self.interval;
        high - low <= 2.0 * precision * self.rate
    }
}

/// Where the share crosses `allowed` (more than 0 and less than 0.5), below a `capacity` in records per second; trials
/// at it and beyond say nothing about the share.
pub fn crossing(points: &[Point], allowed: f64, capacity: f64) -> Crossing {
    let mut points: Vec<Sample> = points
        .iter()
        .filter(|p| p.rate > 0.0 && p.rate < capacity * FULL && p.seconds > 0.0)
        .filter(|p| p.share.is_finite())
        .map(|p| Sample { x: load(p.rate, capacity), weight: p.seconds, share: p.share })
        .collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    if points.is_empty() {
        return Crossing::Nothing;
    }
    let Some(middle) = isotonic(&points, allowed) else {
        let of_all = mean(&points);
        return if of_all > allowed { Crossing::Below } else { Crossing::Above };
    };
    Crossing::At(fit(&points, allowed, middle, capacity))
}

/// The scale on which the share is straight.
fn load(rate: f64, capacity: f64) -> f64 {
    -(1.0 - (rate / capacity).min(FULL)).ln()
}

/// The rate there.
fn rate(x: f64, capacity: f64) -> f64 {
    capacity * (1.0 - (-x).exp())
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    x: f64,
    weight: f64,
    share: f64,
}

fn mean(points: &[Sample]) -> f64 {
    let weight: f64 = points.iter().map(|p| p.weight).sum();
    points.iter().map(|p| p.weight * p.share).sum::<f64>() / weight
}

/// Where the growing step function that fits best passes `allowed`: in the middle between the last point of the steps
/// that are within and the first beyond. `None` if all steps are on one side. By pooling neighbours that are in the wrong
/// order (Ayer and others, 1955).
fn isotonic(points: &[Sample], allowed: f64) -> Option<f64> {
    // Each level: sum of weights, weighted sum of shares, points.
    let mut levels: Vec<(f64, f64, usize)> = Vec::with_capacity(points.len());
    for point in points {
        let mut level = (point.weight, point.weight * point.share, 1);
        while let Some(below) = levels.last().copied()
            && below.1 / below.0 >= level.1 / level.0
        {
            level = (level.0 + below.0, level.1 + below.1, level.2 + below.2);
            levels.pop();
        }
        levels.push(level);
    }
    let within = levels.iter().take_while(|level| level.1 / level.0 <= allowed);
    let within: usize = within.map(|level| level.2).sum();
    let (low, high) = (points.get(within.checked_sub(1)?)?, points.get(within)?);
    Some((low.x + high.x) / 2.0)
}

/// The curve near `middle`, and what follows from it.
fn fit(points: &[Sample], allowed: f64, middle: f64, capacity: f64) -> Fit {
    let target = logit(allowed);
    let floor = allowed / NONE;
    // Below all that was tried a crossing is no more than a guess.
    let first = points.first().map_or(0.0, |point| point.x);
    let ends = (first, load(capacity, capacity));
    let (mut center, mut slope, mut dispersion_s) = (middle, SLOPES.0, 0.0);
    let (mut line, mut freedom) = (Line::default(), 0);
    for _ in 0..12 {
        let width = window(points, center, slope);
        let kernel: Vec<f64> = points.iter().map(|p| tricube((p.x - center) / width)).collect();
        line = regress(points, &kernel, center, floor, target, slope, dispersion_s);
        (dispersion_s, freedom) = scatter(points, &kernel, &mut line, floor);
        let crossed = line.x0 + (target - line.a) / line.b;
        let next = crossed.clamp(center - width / 2.0, center + width / 2.0);
        let next = next.clamp(ends.0, ends.1);
        let moved = (next - center).abs();
        (center, slope) = (next, (slope * line.b).sqrt());
        if moved < 1e-4 {
            break;
        }
    }
    let student = student_95(freedom);
    // By the curve's error where it crosses, not where it would leave what is allowed: far from the trials a curve
    // with any slope is possible, and an interval that asks it there has no ends.
    let full = rate(center, capacity);
    let least = REPEATS * full / (capacity - full).max(1e-9 * capacity);
    let reach = (student * line.error(center) / line.b).hypot(least);
    let end = |x: f64| rate(x.clamp(0.0, ends.1), capacity);
    let found = Fit {
        allowed,
        rate: rate(center, capacity),
        interval: (end(center - reach), end(center + reach)),
        safe: 0.0,
        dispersion_s,
        curve: line,
        student,
        capacity,
    };
    let safe = (0..400).map(|n| found.rate * (1.0 - f64::from(n) / 400.0));
    let safe = safe.into_iter().find(|rate| found.keeps(*rate));
    Fit { safe: safe.unwrap_or(0.0).min(found.interval.0), ..found }
}

impl Default for Line {
    fn default() -> Line {
        Line { x0: 0.0, a: 0.0, b: 1.0, cov: [0.0; 3] }
    }
}

impl Fit {
    /// Whether a run of [`PROMISE_S`] keeps what is allowed with 95 %. Its share is taken as gamma distributed: sums of
    /// stalls are. By Wilson and Hilferty's cube root.
    fn keeps(&self, rate: f64) -> bool {
        let mean = self.share(rate).0;
        let scatter = self.scatter(rate, PROMISE_S);
        let shape = (mean / scatter).powi(2);
        // Student's two-sided factor on one side: the scatter of rare and clustered records is mostly estimated too low.
        let root = 1.0 - 1.0 / (9.0 * shape) + self.student / (3.0 * shape.sqrt());
        mean * root.max(0.0).powi(3) <= self.allowed && mean < self.allowed
    }
}

/// Half the width of the window.
fn window(points: &[Sample], center: f64, slope: f64) -> f64 {
    let by_slope = (REACH / slope).min(WIDEST);
    let nearest = |distances: &mut Vec<f64>| {
        distances.sort_by(f64::total_cmp);
        let at = distances.len().min(SIDE + 1);
        at.checked_sub(1).and_then(|at| distances.get(at)).copied().unwrap_or(0.0)
    };
    let mut below: Vec<f64> =
        points.iter().filter(|p| p.x <= center).map(|p| center - p.x).collect();
    let mut above: Vec<f64> =
        points.iter().filter(|p| p.x > center).map(|p| p.x - center).collect();
    by_slope.max(nearest(&mut below) * 1.05).max(nearest(&mut above) * 1.05).max(1e-3)
}

fn tricube(u: f64) -> f64 {
    let u = u.abs();
    if u < 1.0 { (1.0 - u.powi(3)).powi(3) } else { 0.0 }
}

/// By Newton's method with halved steps, beginning at the crossing itself.
fn regress(
    points: &[Sample],
    kernel: &[f64],
    x0: f64,
    floor: f64,
    target: f64,
    slope: f64,
    dispersion_s: f64,
) -> Line {
    let (mut a, mut b) = (target, slope);
    let belief = dispersion_s / (SLOPE_SPREAD * SLOPE_SPREAD);
    for _ in 0..30 {
        let (mut ga, mut gb) = (0.0, 0.0);
        let [mut haa, mut hab, mut hbb] = [1e-12, 0.0, 1e-12];
        for (point, kernel) in points.iter().zip(kernel).filter(|(_, kernel)| **kernel > 0.0) {
            let (z, weight) = (point.x - x0, point.weight * kernel);
            let mean = logistic(a + b * z);
            let residual = weight * (point.share.clamp(floor, 1.0 - floor) - mean);
            let variance = weight * mean * (1.0 - mean);
            ga += residual;
            gb += residual * z;
            haa += variance;
            hab += variance * z;
            hbb += variance * z * z;
        }
        gb -= belief * (b - SLOPES.0);
        hbb += belief;
        let det = haa * hbb - hab * hab;
        let (da, db) = if det > 1e-9 * haa * hbb {
            ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det)
        } else {
            // All at one rate: the slope stays.
            (ga / haa, 0.0)
        };
        let next = (b + db.clamp(-b, b)).clamp(SLOPES.0, SLOPES.1);
        // A slope at its end stays there: the level alone moves.
        let da = if next == b { ga / haa } else { da };
        let moved = da.abs().max((next - b).abs());
        a += da.clamp(-1.0, 1.0);
        b = next;
        if moved < 1e-7 {
            break;
        }
    }
    Line { x0, a, b, cov: [0.0; 3] }
}

/// Dispersion and degrees of freedom; fills the line's covariance.
fn scatter(points: &[Sample], kernel: &[f64], line: &mut Line, floor: f64) -> (f64, usize) {
    let (mut chi, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let (mut bread, mut meat) = ([0.0; 3], [0.0; 3]);
    for (point, kernel) in points.iter().zip(kernel).filter(|(_, kernel)| **kernel > 0.0) {
        let z = point.x - line.x0;
        let mean = logistic(line.at(point.x));
        let variance = mean * (1.0 - mean);
        let residual = point.share.clamp(floor, 1.0 - floor) - mean;
        chi += kernel * point.weight * residual * residual / variance;
        sum += kernel;
        squares += kernel * kernel;
        for (slot, z) in [1.0, z, z * z].into_iter().enumerate() {
            bread[slot] += kernel * point.weight * variance * z;
            meat[slot] += kernel * kernel * point.weight * variance * z;
        }
    }
    let points = if squares > 0.0 { sum * sum / squares } else { 0.0 };
    let freedom = (points - 2.0).max(0.0);
    let dispersion =
        if freedom > 0.0 { chi / sum * points / freedom } else { chi / sum.max(1e-12) };
    // What is believed of the slope counts as evidence.
    let belief = dispersion / (SLOPE_SPREAD * SLOPE_SPREAD);
    bread[2] += belief;
    meat[2] += belief;
    let det = bread[0] * bread[2] - bread[1] * bread[1];
    let inverse = if det > 1e-9 * bread[0] * bread[2] {
        [bread[2] / det, -bread[1] / det, bread[0] / det]
    } else {
        [1.0 / bread[0].max(1e-12), 0.0, 0.0]
    };
    // inverse x meat x inverse, all symmetric.
    let [p, q, r] = inverse;
    let [s, t, u] = meat;
    let (c00, c01) = (p * s + q * t, p * t + q * u);
    let (c10, c11) = (q * s + r * t, q * t + r * u);
    line.cov = [
        dispersion * (c00 * p + c01 * q),
        dispersion * (c00 * q + c01 * r),
        dispersion * (c10 * q + c11 * r),
    ];
    (dispersion, freedom.floor() as usize)
}

/// The rate at which what waits begins to grow, and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// The estimate.
    pub rate: f64,
    /// 95 % interval.
    pub interval: (f64, f64),
    /// What it does not fall below in a single run, with 95 %.
    pub safe: f64,
}

/// A trial, as far as its backlog goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Records per second offered.
    pub rate: f64,
    /// By which share of that what waits grew, beyond doubt; 0 if it did not.
    pub share: f64,
}

/// The lowest overloads say most: under heavier ones a target may do less.
const OVERLOADS: usize = 6;
/// What a capacity is known to at best.
const CAPACITY_ERROR: f64 = 0.003;

/// What trials with a growing backlog show: of `rate` offered, the share by which the backlog grew was not served.
/// `stable` is the growth that counts as none. `None` if nothing grew.
pub fn capacity(trials: &[Growth], stable: f64) -> Option<Capacity> {
    let mut over: Vec<Growth> = trials.iter().copied().filter(|t| t.share > stable).collect();
    over.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let lowest = over.first()?.rate;
    let steady = trials.iter().filter(|t| t.share <= stable && t.rate < lowest);
    let steady = steady.map(|t| t.rate).fold(0.0, f64::max);
    let served: Vec<f64> = over.iter().take(OVERLOADS).map(|t| t.rate * (1.0 - t.share)).collect();
    let n = served.len() as f64;
    let mean = served.iter().sum::<f64>() / n;
    let spread = served.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    // One overload alone has no scatter: a tenth is what to expect of a busy machine.
    let spread = if n > 1.0 { spread.sqrt() } else { 0.1 * mean };
    let spread = spread.max(CAPACITY_ERROR * mean);
    let student = if n > 1.0 { student_95(served.len() - 1) } else { NORMAL_95 };
    let rate = mean.max(steady).min(lowest);
    let reach = (student * spread / n.sqrt()).hypot(REPEATS * rate);
    let low = (rate - reach).min(rate);
    let high = (rate + reach).min(lowest).max(rate);
    let safe = (rate - student * spread * (1.0 + 1.0 / n).sqrt()).min(rate);
    Some(Capacity { rate, interval: (low, high), safe })
}
