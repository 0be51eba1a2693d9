//! Series over time with bounded memory: fine for minutes, coarse for an hour. What is dropped or drawn together
//! keeps its largest value, so that a spike of a second survives a chart of an hour.

use std::collections::VecDeque;
use std::time::Duration;

/// Fine points kept: five minutes at a sample a second.
const FINE: usize = 300;

/// Length of a coarse point, nanoseconds.
const COARSE_NS: u64 = 10_000_000_000;

/// Coarse points kept: an hour.
const COARSE: usize = 360;

/// A value is taken to hold for this long when nothing newer is known, nanoseconds.
const HOLDS_NS: u64 = 2_500_000_000;

/// Between samples of a server with many busy shards pass up to ten seconds, nanoseconds: what is further apart has a gap.
const RAREST_NS: u64 = 11_000_000_000;

/// One value over time: every sample of the last minutes, and the largest of every ten seconds of the last hour.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    fine: VecDeque<(u64, f64)>,
    coarse: VecDeque<(u64, f64)>,
}

impl Trace {
    /// Adds what was measured at `at_ns`.
    pub fn push(&mut self, at_ns: u64, value: f64) {
        if self.fine.len() == FINE {
            self.fine.pop_front();
        }
        self.fine.push_back((at_ns, value));
        match self.coarse.back_mut() {
            Some((at, max)) if *at / COARSE_NS == at_ns / COARSE_NS => {
                (*at, *max) = (at_ns, max.max(value));
            }
            _ => {
                if self.coarse.len() == COARSE {
                    self.coarse.pop_front();
                }
                self.coarse.push_back((at_ns, value));
            }
        }
    }

    /// Every sample kept, oldest first.
    pub fn fine(&self) -> impl DoubleEndedIterator<Item = (u64, f64)> + ExactSizeIterator {
        self.fine.iter().copied()
    }

    /// See [`columns`].
    pub fn columns(&self, end_ns: u64, window: Duration, n: usize) -> Vec<Option<f64>> {
        let from = self.fine.front().map_or(u64::MAX, |&(at, _)| at);
        let older = self.coarse.iter().copied().filter(|&(at, _)| at < from);
        columns(older.chain(self.fine()), end_ns, window, n)
    }
}

/// The `window` up to `end_ns` in `n` columns, oldest first: each the largest value of its time. One without a
/// value keeps that before it for a little while, and is `None` after that. Columns stand still while time goes on
/// (their bounds are multiples of their length), so that a chart does not shimmer.
pub fn columns(
    points: impl Iterator<Item = (u64, f64)>,
    end_ns: u64,
    window: Duration,
    n: usize,
) -> Vec<Option<f64>> {
    let mut columns = vec![None; n];
    if n == 0 {
        return columns;
    }
    let width = (window.as_nanos() as u64 / n as u64).max(1);
    let first = (end_ns / width).saturating_sub(n as u64 - 1);
    // What came just before the window holds into it.
    let mut before = None;
    for (at, value) in points.filter(|&(at, _)| at <= end_ns) {
        match (at / width).checked_sub(first) {
            Some(column) => {
                // At most n - 1, because it is not later than the end.
                let slot: &mut Option<f64> = &mut columns[column as usize];
                *slot = Some(slot.map_or(value, |old| old.max(value)));
            }
            None => before = Some((at, value)),
        }
    }
    hold(&mut columns, before, first, width);
    columns
}

fn hold(columns: &mut [Option<f64>], before: Option<(u64, f64)>, first: u64, width: u64) {
    let mut last = before;
    for i in 0..columns.len() {
        let start = (first + i as u64).saturating_mul(width);
        match (columns[i], last) {
            (Some(value), last_known) => {
                // Where samples are rare, a rate is that of all the time since the one before.
                if last_known.is_some_and(|(at, _)| start.saturating_sub(at) <= RAREST_NS) {
                    let unknown = columns[..i].iter_mut().rev().take_while(|c| c.is_none());
                    unknown.for_each(|column| *column = Some(value));
                }
                last = Some((start, value));
            }
            (None, Some((at, value))) if start.saturating_sub(at) <= HOLDS_NS.max(width) => {
                columns[i] = Some(value);
            }
            (None, _) => {}
        }
    }
}

/// A straight line through points: how steep, and how sure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    /// Growth a second.
    pub per_s: f64,
    /// Its standard error; 0 through two points.
    pub error: f64,
}

/// Points a line needs to be told from what was before it.
const PART: usize = 3;

/// Two lines are taken for one when they leave so many times less to chance than that one does: the F statistic of three
/// parameters more (slope, height, and where the second begins). Well above its 1 % point of 30 samples, 4.7, because the
/// best of all places is looked for.
const TURNED: f64 = 12.0;

/// What a least squares line through some points needs.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    t: f64,
    v: f64,
    tt: f64,
    tv: f64,
    vv: f64,
}

impl Sums {
    fn and(self, (t, v): (f64, f64)) -> Sums {
        Sums {
            n: self.n + 1.0,
            t: self.t + t,
            v: self.v + v,
            tt: self.tt + t * t,
            tv: self.tv + t * v,
            vv: self.vv + v * v,
        }
    }

    fn without(self, first: Sums) -> Sums {
        Sums {
            n: self.n - first.n,
            t: self.t - first.t,
            v: self.v - first.v,
            tt: self.tt - first.tt,
            tv: self.tv - first.tv,
            vv: self.vv - first.vv,
        }
    }

    /// The line, and the squares it leaves; `None` for fewer than two points or no time between them.
    fn line(self) -> Option<(Slope, f64)> {
        let (tt, tv) = (self.tt - self.t * self.t / self.n, self.tv - self.t * self.v / self.n);
        if self.n < 2.0 || tt <= 0.0 {
            return None;
        }
        let per_s = tv / tt;
        let left = (self.vv - self.v * self.v / self.n - per_s * tv).max(0.0);
        let error = if self.n > 2.0 { (left / (self.n - 2.0) / tt).sqrt() } else { 0.0 };
        Some((Slope { per_s, error }, left))
    }
}

/// How `points` go on, oldest first: a least squares line through all, or, if they have turned and two lines say much
/// better how they went, through those since. `None` for fewer than two or no time between them.
pub fn trend(points: &[(u64, f64)]) -> Option<Slope> {
    let &(start, base) = points.first()?;
    // Relative to the first, for the sake of precision.
    let near = |&(at, v): &(u64, f64)| ((at as f64 - start as f64) / 1e9, v - base);
    let mut sums = Sums::default();
    let until: Vec<Sums> = points
        .iter()
        .map(|point| {
            sums = sums.and(near(point));
            sums
        })
        .collect();
    let (line, left) = sums.line()?;
    let parts = (PART..=points.len().saturating_sub(PART)).filter_map(|from| {
        let before = until[from - 1];
        let (since, left) = sums.without(before).line()?;
        Some((since, left + before.line()?.1))
    });
    let Some((since, left_by_two)) = parts.min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Some(line);
    };
    let gained = (left - left_by_two) / 3.0;
    let chance = left_by_two / (sums.n - 5.0).max(1.0);
    // What a line leaves is exact to a few digits only.
    let told = gained > sums.vv * 1e-12;
    Some(if told && gained > TURNED * chance { since } else { line })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    /// A multiple of an hour, for round columns.
    const T0: u64 = 3_600 * S * 480_000;

    #[test]
    fn a_spike_survives_zooming_out() {
        let mut trace = Trace::default();
        for s in 0..3_600 {
            trace.push(T0 + s * S, if s == 100 { 900.0 } else { 5.0 });
        }
        let end = T0 + 3_599 * S;
        let hour = trace.columns(end, Duration::from_secs(3_600), 60);
        assert_eq!(hour.iter().position(|v| *v == Some(900.0)), Some(1));
        assert!(hour.iter().all(Option::is_some));
        let minute = trace.columns(end, Duration::from_secs(60), 120);
        assert!(minute.iter().all(|v| *v == Some(5.0)), "held between samples: {minute:?}");
        assert!(trace.fine.len() <= FINE && trace.coarse.len() <= COARSE);
    }

    #[test]
    fn columns_stand_still() {
        let points: Vec<(u64, f64)> = (0..60).map(|s| (T0 + s * S, s as f64)).collect();
        let at = |end: u64| {
            let until = points.iter().copied().filter(|p| p.0 <= end);
            columns(until, end, Duration::from_secs(60), 12)
        };
        let (a, b) = (at(T0 + 50 * S), at(T0 + 53 * S));
        assert_eq!(a[..11], b[..11]);
        assert_eq!((a[11], b[11]), (Some(50.0), Some(53.0)));
    }

    #[test]
    fn gaps_are_gaps() {
        let points = [(T0, 1.0), (T0 + 50 * S, 2.0)];
        let columns = columns(points.into_iter(), T0 + 59 * S, Duration::from_secs(60), 60);
        let known: Vec<usize> = (0..60).filter(|&i| columns[i].is_some()).collect();
        assert_eq!(known, [0, 1, 2, 50, 51, 52]);
        let rare = (0..6).map(|n| (T0 + 10 * n * S, n as f64));
        let columns = super::columns(rare, T0 + 50 * S, Duration::from_secs(50), 50);
        assert!(columns.iter().all(Option::is_some), "{columns:?}");
        assert_eq!(super::columns([].into_iter(), 5, Duration::from_secs(1), 0), []);
    }

    fn every_second(values: impl IntoIterator<Item = f64>) -> Vec<(u64, f64)> {
        values.into_iter().zip(0u64..).map(|(v, s)| (T0 + s * S, v)).collect()
    }

    #[test]
    fn slopes_and_how_sure_they_are() {
        let line = |noise: f64| {
            every_second((0..10).map(|s| 1e9 + 3.0 * f64::from(s) + noise * f64::from(s % 2)))
        };
        let exact = trend(&line(0.0)).unwrap();
        assert!((exact.per_s - 3.0).abs() < 1e-6 && exact.error < 1e-5, "{exact:?}");
        assert!(trend(&line(50.0)).unwrap().error > 1.0);
        assert_eq!(trend(&line(0.0)[..1]), None);
        assert_eq!(trend(&[(T0, 1.0), (T0, 2.0)]), None);
        assert_eq!(trend(&line(0.0)[..2]), Some(Slope { per_s: 3.0, error: 0.0 }));
    }

    /// About 0, as positions are that are committed once a second and looked at once a second.
    fn noise(n: u64) -> f64 {
        ((n * 7_919 + 13) % 97) as f64 / 97.0 * 2_000.0
    }

    #[test]
    fn a_turn_is_told_by_the_third_or_fourth_sample_after_it() {
        for (slope, after) in [(2_000.0, 4), (-2_000.0, 4), (20_000.0, 3)] {
            let quiet = (0..26).map(noise);
            let turned = (1..=after).map(|s| 1_000.0 + slope * f64::from(s));
            let found = trend(&every_second(quiet.chain(turned))).unwrap().per_s;
            assert!((found - slope).abs() < slope.abs() * 0.2, "{slope}: {found}");
        }
    }

    #[test]
    fn what_comes_and_goes_has_not_turned() {
        // Positions committed every five, and every ten seconds; and noise alone, wherever it begins.
        let saw = |period: u64| (0..40u64).map(move |s| 1_000.0 * (s % period) as f64);
        for series in
            [every_second(saw(5)), every_second(saw(10)), every_second((0..40).map(noise))]
        {
            for end in 30..=40 {
                let slope = trend(&series[end - 30..end]).unwrap();
                assert!(slope.per_s.abs() < (2.0 * slope.error).max(100.0), "{end}: {slope:?}");
            }
        }
    }
}
