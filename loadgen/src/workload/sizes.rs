//! Payload sizes: fixed, uniform, lognormal.

/// Draws sizes; shared by all producers.
#[derive(Clone, Debug)]
pub(super) enum Sizes {
    Fixed(u32),
    /// The least, and how many there are from it on.
    Uniform(u32, u32),
    /// Equally likely sizes in ascending order: the quantiles of a distribution.
    Table(Box<[u32]>),
}

/// Sizes in a table: a draw is as good as one from the distribution, up to its 1 − 2⁻¹⁷ quantile.
const TABLE: usize = 1 << 16;

impl Sizes {
    pub fn uniform(least: usize, most: usize) -> Sizes {
        let (least, most) = (least as u32, most.max(least) as u32);
        if least == most { Sizes::Fixed(least) } else { Sizes::Uniform(least, most - least + 1) }
    }

    /// Lognormal: half of all sizes are below `median`; their logarithms have the standard deviation
    /// `sigma`. Cut off (not heaped up) above `most` and below `least`.
    pub fn log_normal(least: usize, median: usize, sigma: f64, most: usize) -> Sizes {
        let median_ln = (median as f64).ln();
        // Cut where the normal distribution all but ends, lest narrow ones be walked in vain.
        let z_of = |size: f64| ((size.ln() - median_ln) / sigma).clamp(-8.0, 8.0);
        let (from, to) = (z_of(least as f64 - 0.5), z_of(most as f64 + 0.5));
        // Walks the normal density in small steps, and notes where each equal part of its mass lies.
        const STEPS: usize = 1 << 18;
        let width = (to - from) / STEPS as f64;
        let density = |step: usize| {
            let z = from + (step as f64 + 0.5) * width;
            (-z * z / 2.0).exp()
        };
        let total: f64 = (0..STEPS).map(density).sum();
        let mut table = Vec::with_capacity(TABLE);
        let mut mass = 0.0;
        for step in 0..STEPS {
            mass += density(step) / total;
            let z = from + (step as f64 + 0.5) * width;
            while table.len() < TABLE && mass >= (table.len() as f64 + 0.5) / TABLE as f64 {
                let size = (median_ln + sigma * z).exp().round();
                table.push((size as u32).clamp(least as u32, most as u32));
            }
        }
        // Rounding may leave the very last out.
        table.resize(TABLE, most as u32);
        Sizes::Table(table.into())
    }

    #[inline]
    pub fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform(least, span) => least + random.u32(..*span),
            Sizes::Table(table) => table[random.usize(..table.len())],
        }
    }

    pub fn mean(&self) -> f64 {
        match self {
            Sizes::Fixed(size) => f64::from(*size),
            Sizes::Uniform(least, span) => f64::from(*least) + f64::from(span - 1) / 2.0,
            Sizes::Table(table) => {
                table.iter().map(|size| f64::from(*size)).sum::<f64>() / table.len() as f64
            }
        }
    }

    pub fn most(&self) -> u32 {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform(least, span) => least + span - 1,
            Sizes::Table(table) => table.last().copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_sizes_cover_their_range_evenly() {
        let sizes = Sizes::uniform(100, 109);
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = [0; 10];
        (0..100_000).for_each(|_| counts[sizes.draw(&mut random) as usize - 100] += 1);
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
        assert_eq!((sizes.mean(), sizes.most()), (104.5, 109));
    }

    #[test]
    fn lognormal_sizes_have_their_median_spread_and_mean() {
        let sizes = Sizes::log_normal(32, 1000, 0.5, 1 << 20);
        let Sizes::Table(table) = &sizes else { panic!("no table") };
        assert!(table.is_sorted() && table.len() == TABLE);
        let quantile = |q: f64| f64::from(table[(q * TABLE as f64) as usize]);
        for (q, z) in [(0.5, 0.0), (0.841_345, 1.0), (0.158_655, -1.0), (0.977_25, 2.0)] {
            let wanted = 1000.0 * f64::exp(0.5 * z);
            assert!((quantile(q) / wanted - 1.0).abs() < 0.01, "{q}: {} {wanted}", quantile(q));
        }
        // exp(σ²/2) times the median.
        assert!((sizes.mean() / (1000.0 * 0.125f64.exp()) - 1.0).abs() < 0.01, "{}", sizes.mean());
    }

    #[test]
    fn lognormal_sizes_are_cut_off_not_heaped_up() {
        let sizes = Sizes::log_normal(32, 1000, 1.0, 2000);
        let Sizes::Table(table) = &sizes else { panic!("no table") };
        assert!(sizes.most() <= 2000 && table[0] >= 32);
        let at_most = table.iter().filter(|size| **size == 2000).count();
        assert!(at_most < TABLE / 500, "{at_most}");
        // All the same size, and hardly any spread, are distributions too.
        assert_eq!(Sizes::log_normal(32, 32, 0.01, 32).mean(), 32.0);
        assert_eq!(Sizes::log_normal(32, 500, 1e-9, 1000).mean(), 500.0);
    }
}
