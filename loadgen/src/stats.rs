//! The statistics behind warm-up and comparison: a straight line with its error, and resampled intervals.
//!
//! Pure functions of numbers: no clock, no input. Seconds of a run are neighbours, not independent
//! draws: a flush or a stall reaches into the next one. So intervals come from blocks of ten seconds
//! ([`BLOCK_S`]) that are drawn whole, never from single seconds.

/// Length of a block, in seconds: a single second is not independent of the next.
pub const BLOCK_S: f64 = 10.0;

/// Values and how often each occurred: what is left of a histogram when only the buckets in use count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Ascending, each value once.
    pairs: Vec<(u64, u64)>,
    count: u64,
}

impl Counted {
    /// Of values in ascending order, each once, with its count.
    pub fn sorted(pairs: Vec<(u64, u64)>) -> Counted {
        debug_assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "ascending");
        let count = pairs.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        Counted { pairs, count }
    }

    /// All of several together.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Counted>) -> Counted {
        let mut all = std::collections::BTreeMap::new();
        for (value, count) in parts.into_iter().flat_map(|part| &part.pairs) {
            let sum: &mut u64 = all.entry(*value).or_default();
            *sum = sum.saturating_add(*count);
        }
        Counted::sorted(all.into_iter().collect())
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value that at least the share `quantile` of all are not above; `None` of nothing.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let wanted = rank(quantile, self.count);
        let mut seen = 0u64;
        self.pairs
            .iter()
            .find(|(_, count)| {
                seen = seen.saturating_add(*count);
                seen >= wanted
            })
            .map(|(value, _)| *value)
    }
}

/// Which of `count` values in order is the quantile, from 1: as HdrHistogram counts.
fn rank(quantile: f64, count: u64) -> u64 {
    ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1))
}

/// How often intervals are drawn anew. The ends of a 95 % interval then wander by a few per cent of its
/// width.
const RESAMPLES: usize = 1000;

/// A figure of a run as it was, and as it would have been had other ten-second blocks come.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    /// Of all blocks together.
    pub value: f64,
    /// Of blocks drawn from them with replacement; of any two resampled alike, the n-th were drawn
    /// independently of each other.
    draws: Vec<f64>,
    /// How many blocks there were.
    blocks: usize,
}

impl Resampled {
    /// Quantiles of what `blocks` hold, in the order of `quantiles`; empty if they hold nothing.
    pub fn quantiles(blocks: &[Counted], quantiles: &[f64], seed: u64) -> Vec<Resampled> {
        let all = Counted::merged(blocks);
        let of = |quantile: &f64| {
            let (draws, blocks) = (Vec::with_capacity(RESAMPLES), blocks.len());
            Some(Resampled { value: all.quantile(*quantile)? as f64, draws, blocks })
        };
        let Some(mut found) = quantiles.iter().map(of).collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        // Each value becomes its place among all values, so that a sum is a sum of arrays.
        let place = |value: &u64| all.pairs.binary_search_by_key(value, |pair| pair.0).ok();
        let indexed: Vec<Vec<(usize, u64)>> = blocks
            .iter()
            .map(|block| {
                let pairs = block.pairs.iter();
                pairs.filter_map(|(value, count)| Some((place(value)?, *count))).collect()
            })
            .collect();
        let mut sums = vec![0u64; all.pairs.len()];
        redraw(blocks.len(), seed, |times| {
            sums.fill(0);
            for (block, times) in indexed.iter().zip(times) {
                for (place, count) in block.iter().filter(|_| *times > 0) {
                    sums[*place] = sums[*place].saturating_add(count.saturating_mul(*times));
                }
            }
            let drawn = all.pairs.iter().map(|(value, _)| *value).zip(sums.iter().copied());
            let drawn = Counted::sorted(drawn.collect());
            for (one, quantile) in found.iter_mut().zip(quantiles) {
                // None where only empty blocks were drawn: that says nothing about the values.
                one.draws.extend(drawn.quantile(*quantile).map(|value| value as f64));
            }
        });
        found
    }

    /// The rate of what `blocks` counted: each has a count and the seconds it was counted in. `None` if
    /// there are no seconds.
    pub fn rate(blocks: &[(f64, f64)], seed: u64) -> Option<Resampled> {
        let blocks: Vec<_> = blocks.iter().filter(|(_, seconds)| *seconds > 0.0).collect();
        let count: f64 = blocks.iter().map(|(count, _)| count).sum();
        let seconds: f64 = blocks.iter().map(|(_, seconds)| seconds).sum();
        let mut draws = Vec::with_capacity(RESAMPLES);
        redraw(blocks.len(), seed, |times| {
            let drawn = blocks.iter().zip(times);
            let (count, seconds) = drawn.fold((0.0, 0.0), |(c, s), ((count, seconds), times)| {
                (c + count * *times as f64, s + seconds * *times as f64)
            });
            draws.push(count / seconds);
        });
        (seconds > 0.0).then(|| Resampled { value: count / seconds, draws, blocks: blocks.len() })
    }

    /// The ratio of this to `base`; `None` unless both are positive.
    pub fn over(&self, base: &Resampled) -> Option<Resampled> {
        let ratio = |(a, b): (&f64, &f64)| a / b;
        (self.value > 0.0 && base.value > 0.0).then(|| Resampled {
            value: self.value / base.value,
            draws: self.draws.iter().zip(&base.draws).map(ratio).collect(),
            // As good as the weaker of the two.
            blocks: self.blocks.min(base.blocks),
        })
    }

    /// In another unit.
    pub fn scaled(mut self, factor: f64) -> Resampled {
        self.value *= factor;
        self.draws.iter_mut().for_each(|draw| *draw *= factor);
        self
    }

    /// The 95 % interval; `None` with fewer than [`BLOCKS_MIN`] blocks, or a value that is not positive.
    ///
    /// The middle 95 % of what was drawn are too narrow where there are few blocks: they take the scatter
    /// of n blocks for that of the source, and the normal distribution for Student's. So both ends
    /// are moved away from the value by what these two come to (Hesterberg's expanded percentile
    /// interval), on a logarithmic scale: times and ratios are never below 0.
    pub fn interval(&self) -> Option<(f64, f64)> {
        if self.blocks < BLOCKS_MIN || self.value <= 0.0 {
            return None;
        }
        let mut draws: Vec<f64> =
            self.draws.iter().copied().filter(|draw| draw.is_finite() && *draw > 0.0).collect();
        draws.sort_by(f64::total_cmp);
        let at = |quantile| draws.get(rank(quantile, draws.len() as u64) as usize - 1).copied();
        let n = self.blocks as f64;
        let stretch = student_95(self.blocks - 1) / NORMAL_95 * (n / (n - 1.0)).sqrt();
        let end = |drawn: f64| self.value * ((drawn / self.value).ln() * stretch).exp();
        let (low, high) = (end(at(0.025)?), end(at(0.975)?));
        // Drawn values may all lie to one side of a quantile at the edge of a block.
        Some((low.min(self.value), high.max(self.value)))
    }
}

/// Fewest blocks an interval can be drawn from.
pub const BLOCKS_MIN: usize = 3;

/// Calls `each` with how often each of `blocks` was drawn, [`RESAMPLES`] times.
fn redraw(blocks: usize, seed: u64, mut each: impl FnMut(&[u64])) {
    if blocks == 0 {
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut times = vec![0u64; blocks];
    for _ in 0..RESAMPLES {
        times.fill(0);
        for _ in 0..blocks {
            times[random.usize(..blocks)] += 1;
        }
        each(&times);
    }
}

/// A straight line through points, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Change of y per unit of x.
    pub slope: f64,
    /// Its standard error, as if the points scattered around the line independently.
    pub error: f64,
    /// Mean of y.
    pub mean: f64,
    /// From the smallest x to the largest.
    pub span: f64,
    /// How many points.
    pub points: usize,
}

impl Slope {
    /// Through `points` of (x, y). `None` for fewer than three, for points without any extent in x, and
    /// where a number is not finite: then nothing can be said.
    pub fn of(points: &[(f64, f64)]) -> Option<Slope> {
        if points.len() < 3 || points.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return None;
        }
        let n = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / n;
        // Around the means: sums of squares of the raw values would cancel.
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y) in points {
            xx += (x - mean_x) * (x - mean_x);
            xy += (x - mean_x) * (y - mean);
        }
        if xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let off = |(x, y): &(f64, f64)| y - mean - slope * (x - mean_x);
        let scatter: f64 = points.iter().map(|point| off(point).powi(2)).sum();
        let (least, most) = points
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (x, _)| (a.min(*x), b.max(*x)));
        let error = (scatter / (n - 2.0) / xx).sqrt();
        Some(Slope { slope, error, mean, span: most - least, points: points.len() })
    }

    /// What the line rises over the whole span, as a share of the mean (not negative; infinite for a mean
    /// of 0 and a line that is not flat).
    pub fn drift(&self) -> f64 {
        let rise = (self.slope * self.span).abs();
        if rise == 0.0 { 0.0 } else { rise / self.mean.abs() }
    }

    /// Whether the slope differs from 0 by more than its scatter explains, at 95 % (two-sided t-test).
    pub fn significant(&self) -> bool {
        self.slope.abs() > student_95(self.points.saturating_sub(2)) * self.error
    }
}

/// How many standard errors to either side hold 95 %, with `freedom` degrees of freedom (Student's t).
/// Infinite for 0: one value says nothing about its error.
pub fn student_95(freedom: usize) -> f64 {
    const SMALL: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        0 => f64::INFINITY,
        1..=10 => SMALL[freedom - 1],
        // Cornish and Fisher's expansion: right to 0.001 from here on.
        _ => {
            let (z, n) = (NORMAL_95, freedom as f64);
            let first = (z.powi(3) + z) / 4.0;
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
            z + first / n + second / (n * n) + third / (n * n * n)
        }
    }
}

/// [`student_95`] without end: the normal distribution's.
pub const NORMAL_95: f64 = 1.959_964;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_with_its_error() {
        // By hand: x 0..4, y 1 3 2 5 4 has slope 0.8, residual sum 3.6, error sqrt(3.6 / 3 / 10).
        let points = [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 5.0), (4.0, 4.0)];
        let line = Slope::of(&points).unwrap();
        assert!((line.slope - 0.8).abs() < 1e-12);
        assert!((line.error - (3.6f64 / 3.0 / 10.0).sqrt()).abs() < 1e-12);
        assert_eq!((line.mean, line.span, line.points), (3.0, 4.0, 5));
        assert!((line.drift() - 0.8 * 4.0 / 3.0).abs() < 1e-12);
        assert!(!line.significant(), "2.3 errors from 0, and 3.18 are needed");
        // The same far from the origin.
        let far: Vec<_> = points.iter().map(|(x, y)| (x + 1e9, y + 1e9)).collect();
        assert!((Slope::of(&far).unwrap().slope - 0.8).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_line_has_none() {
        assert_eq!(Slope::of(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Slope::of(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(Slope::of(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]), None);
        let flat = Slope::of(&[(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]).unwrap();
        assert_eq!(flat.drift(), 0.0);
        assert!(!flat.significant());
        let exact = Slope::of(&[(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]).unwrap();
        assert!(exact.significant());
    }

    #[test]
    fn student_has_heavier_tails_the_fewer_values_there_are() {
        for (freedom, table) in [(1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042), (120, 1.980)] {
            assert!((student_95(freedom) - table).abs() < 1e-3, "{freedom}");
        }
        assert_eq!(student_95(0), f64::INFINITY);
        assert!((1..200).all(|n| student_95(n) > student_95(n + 1)));
    }

    fn block(values: impl IntoIterator<Item = u64>) -> Counted {
        let mut pairs = std::collections::BTreeMap::new();
        for value in values {
            *pairs.entry(value).or_insert(0) += 1;
        }
        Counted::sorted(pairs.into_iter().collect())
    }

    #[test]
    fn quantiles_count_as_the_histogram_does() {
        let all = block(1..=1000);
        assert_eq!(all.count(), 1000);
        for (quantile, value) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.9999, 1000), (1.0, 1000)] {
            assert_eq!(all.quantile(quantile), Some(value));
        }
        assert_eq!(Counted::default().quantile(0.5), None);
        assert_eq!(Counted::merged([&block([1, 2]), &block([2, 3])]), block([1, 2, 2, 3]));
    }

    #[test]
    fn resampling_is_its_seeds_and_needs_blocks() {
        let blocks: Vec<_> = (0..6).map(|n| block(n * 10..n * 10 + 50)).collect();
        let once = Resampled::quantiles(&blocks, &[0.5, 0.9], 7);
        assert_eq!(once, Resampled::quantiles(&blocks, &[0.5, 0.9], 7));
        assert_ne!(once, Resampled::quantiles(&blocks, &[0.5, 0.9], 8));
        let (low, high) = once[0].interval().unwrap();
        assert!(low < once[0].value && once[0].value < high);
        assert_eq!(Resampled::quantiles(&blocks[..2], &[0.5], 7)[0].interval(), None);
        assert!(Resampled::quantiles(&[Counted::default()], &[0.5], 7).is_empty());
        assert!(Resampled::quantiles(&[], &[0.5], 7).is_empty());
        assert_eq!(Resampled::rate(&[], 7), None);
        assert_eq!(Resampled::rate(&[(1.0, 0.0)], 7), None);
    }

    #[test]
    fn equal_blocks_leave_nothing_open() {
        let blocks = vec![block([5, 6, 7]); 4];
        assert_eq!(Resampled::quantiles(&blocks, &[0.5], 1)[0].interval(), Some((6.0, 6.0)));
        let rate = Resampled::rate(&[(100.0, 10.0); 4], 1).unwrap();
        assert_eq!((rate.value, rate.interval()), (10.0, Some((10.0, 10.0))));
        assert_eq!(rate.over(&rate).map(|ratio| ratio.value), Some(1.0));
        let none = Resampled::rate(&[(0.0, 10.0); 4], 1).unwrap();
        assert_eq!(rate.over(&none), None);
    }

    /// The reason for the stretch: the interval must hold the truth about as often as it says, also for
    /// few blocks. 400 sources of 6 blocks each, with a known median.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let held = (0..400u64).filter(|seed| {
            let mut random = fastrand::Rng::with_seed(1000 + seed);
            let blocks: Vec<_> = (0..6)
                .map(|_| {
                    // Neighbours share a level; the sum of 12 is all but normal.
                    let level = 0.1 * ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0);
                    block((0..200).map(|_| {
                        let own = random.f64() - 0.5;
                        (1e6 * (level + 0.2 * own).exp()) as u64
                    }))
                })
                .collect();
            let found = Resampled::quantiles(&blocks, &[0.5], *seed);
            let (low, high) = found[0].interval().unwrap();
            low <= 1e6 && 1e6 <= high
        });
        let held = held.count();
        assert!((364..=396).contains(&held), "{held} of 400; 380 are 95 %");
    }
}
