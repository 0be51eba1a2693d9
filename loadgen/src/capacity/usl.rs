//! The Universal Scalability Law, fitted by least squares.
//!
//! X(N) = γN / (1 + α(N - 1) + βN(N - 1)), N. J. Gunther, *Guerrilla Capacity Planning*, 2007: γ is what one alone
//! does, α the share of the work that has to queue for something common, β what agreeing with each other costs. It
//! is a fit, not a law of nature: it knows nothing of a device that is full.
//!
//! The fit is Levenberg's and Marquardt's method on the three parameters, from the solution of the linearised
//! problem. Own code: the crates that offer the method bring a linear algebra library along, for a system of
//! three equations.

use serde::Serialize;

use crate::stats::student_95;

/// Fewest different values of N: with three parameters, one more leaves a residual to judge the fit by.
pub const SIZES_MIN: usize = 4;
/// From so many on the fit is more than a hint.
pub const SIZES_GOOD: usize = 6;
/// Nothing is said about more than this many times the largest N measured.
pub const REACH: f64 = 2.0;
/// Steps of the method at most; it takes a dozen.
const STEPS: usize = 200;

/// What was fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usl {
    /// Contention, 0 or more.
    pub alpha: f64,
    /// Coherency, 0 or more.
    pub beta: f64,
    /// Throughput of one.
    pub gamma: f64,
    /// Standard errors of the three; absent without residual degrees of freedom, or at a bound.
    pub errors: Option<[f64; 3]>,
    /// What was measured beside what the curve says, by N.
    pub residuals: Vec<Residual>,
    /// Share of the variance that the curve explains.
    pub r_squared: f64,
    /// Covariance of (α, β, γ), for the interval of what is read off the curve.
    #[serde(skip)]
    covariance: [[f64; 3]; 3],
    /// Scatter of a measurement around the curve.
    #[serde(skip)]
    scatter: f64,
}

/// A point and the curve there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Residual {
    /// N.
    pub n: f64,
    /// Measured throughput.
    pub measured: f64,
    /// The curve's.
    pub fitted: f64,
}

/// Why nothing was fitted, or nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum UslError {
    /// Too few different values of N.
    #[error("{found} different sizes; a fit of three parameters needs at least {SIZES_MIN}")]
    Few {
        /// How many there are.
        found: usize,
    },
    /// A size or a throughput that is none.
    #[error("size {n} with throughput {x}: both have to be more than 0")]
    Value {
        /// N.
        n: f64,
        /// X(N).
        x: f64,
    },
    /// The curve fits nothing.
    #[error("no curve of this form fits")]
    Singular,
    /// More than twice the largest size measured.
    #[error("{n} is more than {REACH} times {largest}, the largest size measured")]
    Beyond {
        /// What was asked for.
        n: f64,
        /// What was measured.
        largest: f64,
    },
}

/// α, β, γ.
type Params = [f64; 3];

fn curve([alpha, beta, gamma]: Params, n: f64) -> f64 {
    gamma * n / (1.0 + alpha * (n - 1.0) + beta * n * (n - 1.0))
}

/// Partial derivatives of the curve.
fn gradient([alpha, beta, gamma]: Params, n: f64) -> Params {
    let below = 1.0 + alpha * (n - 1.0) + beta * n * (n - 1.0);
    let common = -gamma * n * (n - 1.0) / (below * below);
    [common, common * n, n / below]
}

fn squares(params: Params, points: &[(f64, f64)]) -> f64 {
    points.iter().map(|(n, x)| (x - curve(params, *n)).powi(2)).sum()
}

impl Usl {
    /// Through `points` of (N, throughput), all equally certain.
    ///
    /// # Errors
    /// With fewer than [`SIZES_MIN`] different N, or values that are not positive and finite.
    pub fn fit(points: &[(f64, f64)]) -> Result<Usl, UslError> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        if let Some(&(n, x)) = points.iter().find(|(n, x)| !positive(*n) || !positive(*x)) {
            return Err(UslError::Value { n, x });
        }
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sizes: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
        sizes.dedup();
        if sizes.len() < SIZES_MIN {
            return Err(UslError::Few { found: sizes.len() });
        }
        // Neither cost can be negative. Where the best fit says so, the best one with that cost at 0 counts.
        let (mut best, mut free) = (None::<(f64, Params)>, [true; 3]);
        for choice in
            [[true, true, true], [true, false, true], [false, true, true], [false, false, true]]
        {
            let Some(params) = minimum(&points, choice) else { continue };
            let sum = squares(params, &points);
            let feasible = params[0] >= 0.0 && params[1] >= 0.0 && params[2] > 0.0;
            if feasible && best.is_none_or(|(least, _)| sum < least) {
                (best, free) = (Some((sum, params)), choice);
            }
        }
        let (sum, params) = best.ok_or(UslError::Singular)?;
        Ok(Usl::of(params, free, sum, &points))
    }

    fn of(params: Params, free: [bool; 3], sum: f64, points: &[(f64, f64)]) -> Usl {
        let count = points.len() as f64;
        let parameters = free.iter().filter(|free| **free).count() as f64;
        let freedom = (count - parameters).max(1.0);
        let scatter = (sum / freedom).sqrt();
        let mean = points.iter().map(|(_, x)| x).sum::<f64>() / count;
        let total: f64 = points.iter().map(|(_, x)| (x - mean).powi(2)).sum();
        let (mut covariance, mut errors) = ([[0.0; 3]; 3], None);
        if let Some(inverse) = inverse(normal(params, points, free)) {
            for (row, from) in covariance.iter_mut().zip(inverse) {
                *row = from.map(|v| v * scatter * scatter);
            }
            for i in (0..3).filter(|i| !free[*i]) {
                covariance[i] = [0.0; 3];
                covariance.iter_mut().for_each(|row| row[i] = 0.0);
            }
            if count > parameters && free == [true; 3] {
                errors = Some([0, 1, 2].map(|i| covariance[i][i].max(0.0).sqrt()));
            }
        }
        let residual =
            |(n, x): &(f64, f64)| Residual { n: *n, measured: *x, fitted: curve(params, *n) };
        Usl {
            alpha: params[0],
            beta: params[1],
            gamma: params[2],
            errors,
            residuals: points.iter().map(residual).collect(),
            r_squared: if total > 0.0 { 1.0 - sum / total } else { 1.0 },
            covariance,
            scatter,
        }
    }

    /// The largest N measured.
    pub fn largest(&self) -> f64 {
        self.residuals.iter().map(|point| point.n).fold(0.0, f64::max)
    }

    /// The curve at `n`, with the 95 % interval of a measurement there (never below 0).
    ///
    /// # Errors
    /// Beyond [`REACH`] times the largest N measured: a fit says nothing about that.
    pub fn at(&self, n: f64) -> Result<(f64, f64, f64), UslError> {
        let largest = self.largest();
        if !(n > 0.0 && n <= largest * REACH) {
            return Err(UslError::Beyond { n, largest });
        }
        let params = self.params();
        let (value, slope) = (curve(params, n), gradient(params, n));
        let mut variance = self.scatter * self.scatter;
        for i in 0..3 {
            for j in 0..3 {
                variance += slope[i] * self.covariance[i][j] * slope[j];
            }
        }
        let freedom = self.residuals.len().saturating_sub(3).max(1);
        let half = student_95(freedom) * variance.max(0.0).sqrt();
        Ok((value, (value - half).max(0.0), value + half))
    }

    /// Where the curve is highest from N = 1 on, and the throughput there: it rises while 1 - α > βN². `None` if it
    /// never falls. Whether that lies within reach of what was measured is the caller's to see.
    pub fn peak(&self) -> Option<(f64, f64)> {
        let n = match self.alpha + self.beta {
            // One is already more than is best.
            falls if falls > 1.0 => 1.0,
            _ => ((1.0 - self.alpha) / self.beta).sqrt(),
        };
        n.is_finite().then(|| (n, curve(self.params(), n)))
    }

    /// The whole N at which the curve is highest, and the throughput there. As [`Usl::peak`].
    pub fn best(&self) -> Option<(f64, f64)> {
        let (n, _) = self.peak()?;
        let at = |n: f64| (n, curve(self.params(), n));
        let (below, above) = (at(n.floor()), at(n.ceil()));
        Some(if above.1 > below.1 { above } else { below })
    }

    /// The smallest whole N, within reach, at which the curve comes to `throughput`.
    pub fn reaches(&self, throughput: f64) -> Option<f64> {
        let most = (self.largest() * REACH).floor() as u64;
        (1..=most).map(|n| n as f64).find(|n| curve(self.params(), *n) >= throughput)
    }

    /// The last whole N, within reach, at which one more still brings `share` of what the first brought.
    pub fn pays_until(&self, share: f64) -> f64 {
        let params = self.params();
        let most = (self.largest() * REACH).floor() as u64;
        let gain = |n: f64| curve(params, n + 1.0) - curve(params, n);
        let least = share * curve(params, 1.0);
        (1..most).map(|n| n as f64).find(|n| gain(*n) < least).unwrap_or(most as f64)
    }

    fn params(&self) -> Params {
        [self.alpha, self.beta, self.gamma]
    }
}

/// The parameters with the least squares; those that are not free stay 0.
fn minimum(points: &[(f64, f64)], free: [bool; 3]) -> Option<Params> {
    let mut params = start(points, free)?;
    let mut sum = squares(params, points);
    let mut damping = 1e-3;
    for _ in 0..STEPS {
        let mut matrix = normal(params, points, free);
        for (i, row) in matrix.iter_mut().enumerate() {
            row[i] *= 1.0 + damping;
        }
        let step = solve(matrix, descent(params, points, free))?;
        let next: Params = std::array::from_fn(|i| params[i] + step[i]);
        let after = squares(next, points);
        if after.is_finite() && after < sum {
            let done = sum - after <= sum * 1e-14;
            (params, sum, damping) = (next, after, damping * 0.1);
            if done {
                break;
            }
        } else if damping > 1e12 {
            break;
        } else {
            damping *= 10.0;
        }
    }
    Some(params)
}

/// N/X = 1/γ + (α/γ)(N - 1) + (β/γ)N(N - 1) is linear: its solution is where the method starts.
fn start(points: &[(f64, f64)], free: [bool; 3]) -> Option<Params> {
    let (mut matrix, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
    for (n, x) in points {
        let all = [n - 1.0, n * (n - 1.0), 1.0];
        let row: Params = std::array::from_fn(|i| if free[i] { all[i] } else { 0.0 });
        // By X^2: an error of X counts alike at all sizes then.
        let weight = x * x / (n * n);
        for i in 0..3 {
            right[i] += weight * row[i] * n / x;
            for j in 0..3 {
                matrix[i][j] += weight * row[i] * row[j];
            }
        }
    }
    fix(&mut matrix, free);
    let [a, b, c] = solve(matrix, right)?;
    let gamma = 1.0 / c;
    let usable = gamma.is_finite() && gamma > 0.0;
    let first = points.first().map(|(n, x)| x / n)?;
    Some(if usable { [a * gamma, b * gamma, gamma] } else { [0.0, 0.0, first] })
}

/// JᵀJ; the identity for what is not free.
fn normal(params: Params, points: &[(f64, f64)], free: [bool; 3]) -> [[f64; 3]; 3] {
    let mut matrix = [[0.0; 3]; 3];
    for (n, _) in points {
        let slope = gradient(params, *n);
        for i in (0..3).filter(|i| free[*i]) {
            for j in (0..3).filter(|j| free[*j]) {
                matrix[i][j] += slope[i] * slope[j];
            }
        }
    }
    fix(&mut matrix, free);
    matrix
}

/// Jᵀr; 0 for what is not free.
fn descent(params: Params, points: &[(f64, f64)], free: [bool; 3]) -> Params {
    let mut right = [0.0; 3];
    for (n, x) in points {
        let (slope, off) = (gradient(params, *n), x - curve(params, *n));
        for i in (0..3).filter(|i| free[*i]) {
            right[i] += slope[i] * off;
        }
    }
    right
}

fn fix(matrix: &mut [[f64; 3]; 3], free: [bool; 3]) {
    for i in (0..3).filter(|i| !free[*i]) {
        matrix[i][i] = 1.0;
    }
}

/// By Gauss' elimination with the largest pivot; `None` if there is no single solution.
fn solve(matrix: [[f64; 3]; 3], right: Params) -> Option<Params> {
    let mut rows: [[f64; 4]; 3] =
        std::array::from_fn(|i| [matrix[i][0], matrix[i][1], matrix[i][2], right[i]]);
    // Rows and columns differ by orders of magnitude (β is small, γ large): scaled to a diagonal of 1.
    let scale: Params = std::array::from_fn(|i| matrix[i][i].abs().sqrt());
    if scale.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        return None;
    }
    for (i, row) in rows.iter_mut().enumerate() {
        for j in 0..3 {
            row[j] /= scale[i] * scale[j];
        }
        row[3] /= scale[i];
    }
    for i in 0..3 {
        let pivot = (i..3).max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() < 1e-13 {
            return None;
        }
        let pivot = rows[i];
        for (_, row) in rows.iter_mut().enumerate().filter(|(k, _)| *k != i) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(value, by)| *value -= factor * by);
        }
    }
    Some(std::array::from_fn(|i| rows[i][3] / rows[i][i] / scale[i]))
}

fn inverse(matrix: [[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let columns = [0, 1, 2].map(|i| {
        let unit: Params = std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 });
        solve(matrix, unit)
    });
    let [a, b, c] = [columns[0]?, columns[1]?, columns[2]?];
    Some(std::array::from_fn(|i| [a[i], b[i], c[i]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sun SPARCcenter 2000 in the SPEC SDM91 benchmark, 1994: simulated users, scripts per hour (table in
    /// Gunther's book; the R package `usl` has it as `specsdm91`).
    const SPECSDM91: [(f64, f64); 7] = [
        (1.0, 64.9),
        (18.0, 995.9),
        (36.0, 1652.4),
        (72.0, 1853.2),
        (108.0, 1828.9),
        (144.0, 1775.0),
        (216.0, 1702.2),
    ];

    fn near(found: f64, expected: f64, error: f64) {
        assert!((found - expected).abs() <= error, "{found} is not {expected}");
    }

    #[test]
    fn the_public_data_gives_the_published_parameters() {
        let fit = Usl::fit(&SPECSDM91).unwrap();
        // As R's usl prints them: 0.0277285, 0.0001044, 89.995.
        near(fit.alpha, 0.027_728_5, 5e-8);
        near(fit.beta, 0.000_104_4, 5e-8);
        near(fit.gamma, 89.995, 5e-4);
        let (n, x) = fit.peak().unwrap();
        near(n, 96.52, 0.01);
        near(x, 1883.9, 0.05);
        // Standard errors: the roots of the diagonal of s²(JᵀJ)⁻¹ at these parameters, s² = 27,453.7 / 4.
        let [alpha, beta, gamma] = fit.errors.unwrap();
        near(alpha, 0.009_121_7, 1e-6);
        near(beta, 0.000_019_875, 1e-8);
        near(gamma, 14.213_5, 1e-3);
        near(fit.r_squared, 0.989_561, 1e-5);
    }

    #[test]
    fn nothing_is_said_beyond_twice_what_was_measured() {
        let fit = Usl::fit(&SPECSDM91).unwrap();
        let (value, low, high) = fit.at(432.0).unwrap();
        assert!(low < value && value < high);
        assert_eq!(fit.at(433.0), Err(UslError::Beyond { n: 433.0, largest: 216.0 }));
        assert!(fit.at(0.0).is_err());
        assert_eq!(fit.reaches(5_000.0), None);
        assert_eq!(fit.reaches(1_000.0), Some(17.0));
    }

    #[test]
    fn what_cannot_be_fitted_says_why() {
        assert_eq!(Usl::fit(&SPECSDM91[..3]), Err(UslError::Few { found: 3 }));
        let twice = [(1.0, 1.0), (1.0, 1.1), (2.0, 2.0), (2.0, 2.1), (3.0, 3.0)];
        assert_eq!(Usl::fit(&twice), Err(UslError::Few { found: 3 }));
        assert!(matches!(Usl::fit(&[(1.0, 0.0)]), Err(UslError::Value { .. })));
        assert!(matches!(Usl::fit(&[(f64::NAN, 2.0)]), Err(UslError::Value { .. })));
    }

    #[test]
    fn what_scales_evenly_has_no_costs_and_no_peak() {
        let points = [1.0, 2.0, 3.0, 4.0, 8.0].map(|n| (n, 1000.0 * n));
        let fit = Usl::fit(&points).unwrap();
        near(fit.alpha, 0.0, 1e-9);
        near(fit.beta, 0.0, 1e-9);
        near(fit.gamma, 1000.0, 1e-6);
        // Better than even: a cost below 0 is none.
        let better = [(1.0, 100.0), (2.0, 210.0), (4.0, 430.0), (8.0, 880.0)];
        let fit = Usl::fit(&better).unwrap();
        assert_eq!((fit.alpha, fit.beta, fit.peak()), (0.0, 0.0, None));
        assert_eq!(fit.pays_until(0.5), 16.0);
    }

    /// `sqrt((1 - α) / β)` is no number for α > 1, and lies below 1 for some below it: one was then said to be too few.
    #[test]
    fn a_curve_that_falls_from_the_first_on_peaks_there() {
        for (params, peak) in [
            ([1.5, 0.0, 100.0], Some((1.0, 100.0))),
            ([1.2, 0.01, 100.0], Some((1.0, 100.0))),
            ([0.5, 0.8, 100.0], Some((1.0, 100.0))),
            ([0.75, 0.25, 100.0], Some((1.0, 100.0))),
            ([0.0, 0.25, 100.0], Some((2.0, 200.0 / 1.5))),
            ([1.0, 0.0, 100.0], None),
            ([0.5, 0.0, 100.0], None),
        ] {
            let points = [1.0, 2.0, 4.0, 8.0].map(|n| (n, curve(params, n)));
            let fit = Usl::of(params, [true; 3], 0.0, &points);
            assert_eq!(fit.peak(), peak, "{params:?}");
        }
    }

    #[test]
    fn the_best_number_is_a_whole_one_beside_the_peak() {
        // Peaks at sqrt(0.69 / 0.24) = 1.70, where 2 do more than 1; at 1.34, where they do less; and at 30.8.
        for (alpha, beta, best) in [(0.31, 0.24, 2.0), (0.55, 0.25, 1.0), (0.05, 0.001, 31.0)] {
            let points = [1.0, 2.0, 4.0, 8.0].map(|n| (n, curve([alpha, beta, 100.0], n)));
            let fit = Usl::of([alpha, beta, 100.0], [true; 3], 0.0, &points);
            assert_eq!(fit.best(), Some((best, curve([alpha, beta, 100.0], best))), "{alpha}");
        }
    }

    proptest! {
        #[test]
        fn a_curve_is_found_again(
            alpha in 0.0..0.3f64, beta in 0.0..0.01f64, gamma in 1.0..1e6f64,
        ) {
            let points = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0].map(|n| (n, curve([alpha, beta, gamma], n)));
            let fit = Usl::fit(&points).unwrap();
            for (n, x) in points {
                prop_assert!((fit.at(n).unwrap().0 / x - 1.0).abs() < 1e-6, "{n} {:?}", fit);
            }
        }

        #[test]
        fn no_points_make_it_panic(points in prop::collection::vec((0.5..64.0f64, 1e-3..1e9f64), 0..12)) {
            if let Ok(fit) = Usl::fit(&points) {
                prop_assert!(fit.alpha >= 0.0 && fit.beta >= 0.0 && fit.gamma > 0.0);
                prop_assert!(fit.residuals.iter().all(|r| r.fitted.is_finite()));
            }
        }
    }
}
