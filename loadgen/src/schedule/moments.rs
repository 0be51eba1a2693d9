//! How irregular arrivals are: the squared coefficient of variation of the gaps between them.

/// Gaps between successive due times, summed exactly: in integers, so that neither their number nor their
/// length costs precision. Of one producer each; [`Gaps::merge`] pools them.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    last_ns: Option<u64>,
    count: u64,
    /// Of all gaps, in nanoseconds.
    sum: u128,
    /// Of their squares. The gaps of a producer sum up to the run's length, less than 2⁵⁵ ns, so even
    /// 2¹⁷ producers cannot overflow it.
    squares: u128,
}

impl Gaps {
    /// The next due time; never before the last.
    #[inline]
    pub fn add(&mut self, due_ns: u64) {
        if let Some(last) = self.last_ns.replace(due_ns) {
            let gap = u128::from(due_ns.saturating_sub(last));
            self.count += 1;
            self.sum += gap;
            self.squares = self.squares.saturating_add(gap * gap);
        }
    }

    /// Pools the gaps of another producer.
    pub fn merge(&mut self, other: &Gaps) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares = self.squares.saturating_add(other.squares);
    }

    /// How many gaps.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their variance over their squared mean: 0 for evenly spaced records, 1 for a Poisson process.
    /// `None` for fewer than two gaps, or if all are 0.
    pub fn c2(&self) -> Option<f64> {
        if self.count < 2 || self.sum == 0 {
            return None;
        }
        let mean = self.sum as f64 / self.count as f64;
        let mean_square = self.squares as f64 / self.count as f64;
        Some((mean_square / (mean * mean) - 1.0).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn even_gaps_have_none_and_few_say_nothing() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.c2(), None);
        (0..3).for_each(|i| gaps.add(1_000 + i * 7));
        assert_eq!((gaps.count(), gaps.c2()), (2, Some(0.0)));
    }

    #[test]
    fn a_year_of_microseconds_stays_exact() {
        // 9 µs and 11 µs in turn: c² = 0.01, at offsets where a float has long lost nanoseconds.
        let mut gaps = Gaps::default();
        let mut at = 1 << 62;
        for i in 0..1_000_000u64 {
            gaps.add(at);
            at += if i % 2 == 0 { 9_000 } else { 11_000 };
        }
        assert!((gaps.c2().unwrap() - 0.01).abs() < 1e-7, "{:?}", gaps.c2());
    }

    proptest! {
        #[test]
        fn pooled_is_as_counted_together(
            parts in prop::collection::vec(prop::collection::vec(0u64..1 << 40, 0..50), 1..5),
        ) {
            let mut pooled = Gaps::default();
            let mut all = Vec::new();
            for lengths in &parts {
                let mut one = Gaps::default();
                let mut at = 5;
                one.add(at);
                for length in lengths {
                    at += length;
                    one.add(at);
                    all.push(*length as f64);
                }
                pooled.merge(&one);
            }
            prop_assert_eq!(pooled.count(), all.len() as u64);
            let n = all.len() as f64;
            let mean = all.iter().sum::<f64>() / n;
            if let Some(c2) = pooled.c2() {
                let variance = all.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
                prop_assert!((c2 - variance / (mean * mean)).abs() < 1e-9 * (1.0 + c2));
            }
        }
    }
}
