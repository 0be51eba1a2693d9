//! Draws from weighted choices in constant time, whatever the weights: Vose's alias method.

/// Weighted choices. A draw costs one random number and one look-up.
#[derive(Clone, Debug)]
pub struct Alias {
    slots: Box<[Slot]>,
}

/// One slot per choice, all equally likely: the choice itself below the threshold, another above it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of 2³².
    threshold: u32,
    other: u32,
}

/// 2³² as a float.
const FULL: f64 = 4_294_967_296.0;

impl Alias {
    /// Choice `i` is drawn in proportion to `weights[i]`, to within 2⁻³² of a slot. Weights must be finite and
    /// not negative, at least one of them above 0, and fewer than 2³²; `None` otherwise.
    pub fn new(weights: &[f64]) -> Option<Alias> {
        let count = u32::try_from(weights.len()).ok()?;
        let total: f64 = weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) || weights.iter().any(|weight| *weight < 0.0) {
            return None;
        }
        // In units of a slot: their mean is 1.
        let mut left: Vec<f64> =
            weights.iter().map(|weight| weight / total * f64::from(count)).collect();
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for choice in 0..count {
            if left[choice as usize] < 1.0 { &mut small } else { &mut large }.push(choice);
        }
        // What is left over in the end differs from a full slot by rounding only.
        let mut slots = Alias::evenly(count).slots;
        while let (Some(&least), Some(&most)) = (small.last(), large.last()) {
            small.pop();
            let share = left[least as usize];
            slots[least as usize] = Slot { threshold: (share * FULL) as u32, other: most };
            left[most as usize] -= 1.0 - share;
            if left[most as usize] < 1.0 {
                large.pop();
                small.push(most);
            }
        }
        Some(Alias { slots })
    }

    /// In proportion to 1, 1/2ˢ, 1/3ˢ, ... for `count` choices: Zipf's law with exponent `s`, 0 or more.
    pub fn zipf(count: u32, s: f64) -> Alias {
        let weights: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-s)).collect();
        // The first weight is 1 and none is larger: they can always be drawn from.
        Alias::new(&weights).unwrap_or_else(|| Alias::evenly(count))
    }

    /// All choices equally often; at least one.
    pub fn evenly(count: u32) -> Alias {
        let full = |choice| Slot { threshold: u32::MAX, other: choice };
        Alias { slots: (0..count.max(1)).map(full).collect() }
    }

    /// One of the choices.
    #[inline]
    pub fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        let bits = random.u64(..);
        // The upper half picks the slot, the lower half decides within it.
        let index = ((bits >> 32) * self.slots.len() as u64) >> 32;
        let slot = self.slots[index as usize];
        if (bits as u32) < slot.threshold { index as u32 } else { slot.other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The probabilities of the choices, as the slots give them.
    fn exact(alias: &Alias) -> Vec<f64> {
        let n = alias.slots.len() as f64;
        let mut shares = vec![0.0; alias.slots.len()];
        for (choice, slot) in alias.slots.iter().enumerate() {
            let own = f64::from(slot.threshold) / FULL;
            shares[choice] += own / n;
            shares[slot.other as usize] += (1.0 - own) / n;
        }
        shares
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(0.0..1e6f64, 1..200)) {
            prop_assume!(weights.iter().any(|w| *w > 0.0));
            let alias = Alias::new(&weights).unwrap();
            let total: f64 = weights.iter().sum();
            for (share, weight) in exact(&alias).iter().zip(&weights) {
                prop_assert!((share - weight / total).abs() < 1e-7, "{} {}", share, weight / total);
            }
        }
    }

    #[test]
    fn draws_follow_zipfs_law() {
        const DRAWS: usize = 1_000_000;
        for s in [0.5, 1.0, 1.1, 2.0] {
            let alias = Alias::zipf(1000, s);
            let mut random = fastrand::Rng::with_seed(7);
            let mut counts = [0u32; 1000];
            (0..DRAWS).for_each(|_| counts[alias.draw(&mut random) as usize] += 1);
            let norm: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-s)).sum();
            let mut chi2 = 0.0;
            for (rank, count) in (1..=1000).zip(counts) {
                let expected = f64::from(rank).powf(-s) / norm * DRAWS as f64;
                chi2 += (f64::from(count) - expected).powi(2) / expected;
            }
            // 999 degrees of freedom: mean 999, standard deviation 45.
            assert!((800.0..1200.0).contains(&chi2), "exponent {s}: chi² {chi2}");
        }
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for weights in [&[][..], &[0.0], &[-1.0, 2.0], &[f64::NAN], &[f64::INFINITY, 1.0]] {
            assert!(Alias::new(weights).is_none(), "{weights:?}");
        }
    }
}
