//! A [`Distribution`]'s buckets, packed: two small numbers each, put together once and copied as bytes from there on.

use super::Distribution;

impl Distribution {
    /// Of values with their counts, the values ascending and each named once.
    pub fn of(buckets: impl IntoIterator<Item = (u64, u64)>, max: u64) -> Distribution {
        let buckets = buckets.into_iter();
        let (least, most) = buckets.size_hint();
        let packed = Vec::with_capacity(4 * most.unwrap_or(least));
        let mut all = Packer { packed, ..Packer::default() };
        buckets.for_each(|(value, count)| all.push(value, count));
        all.finish(max)
    }

    /// Value and count of each bucket that is not empty, the values ascending. What is not packed soundly ends it.
    pub fn buckets(&self) -> Buckets<'_> {
        Buckets { rest: &self.packed, value: 0 }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets().fold(0, |all, (_, n)| all.saturating_add(n))
    }

    /// What was added since `earlier`, an older state of the same distribution. The maximum of the
    /// difference is the value of its highest bucket.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut old = earlier.buckets().peekable();
        let (mut new, mut max) = (Packer::default(), 0);
        for (value, count) in self.buckets() {
            while old.next_if(|&(v, _)| v < value).is_some() {}
            let before = old.next_if(|&(v, _)| v == value).map_or(0, |(_, n)| n);
            if count > before {
                new.push(value, count - before);
                max = value;
            }
        }
        Distribution { sum: self.sum.saturating_sub(earlier.sum), ..new.finish(max) }
    }

    /// This and `other` together.
    pub fn merge(&mut self, other: &Distribution) {
        let (mut all, mut theirs) = (Packer::default(), other.buckets().peekable());
        for (value, count) in self.buckets() {
            while let Some((v, n)) = theirs.next_if(|&(v, _)| v < value) {
                all.push(v, n);
            }
            let more = theirs.next_if(|&(v, _)| v == value).map_or(0, |(_, n)| n);
            all.push(value, count.saturating_add(more));
        }
        theirs.for_each(|(value, count)| all.push(value, count));
        let sum = self.sum.saturating_add(other.sum);
        *self = Distribution { sum, ..all.finish(self.max.max(other.max)) };
    }

    /// The value at quantile `q` (0 to 1): nearest rank over the buckets. `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        self.buckets().find_map(|(value, n)| {
            seen = seen.saturating_add(n);
            (seen >= rank).then_some(value)
        })
    }
}

/// The buckets of a [`Distribution`].
#[derive(Clone, Debug)]
pub struct Buckets<'a> {
    rest: &'a [u8],
    value: u64,
}

impl Buckets<'_> {
    /// The next number. Most take one byte or two.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl Iterator for Buckets<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let (further, count) = (self.number()?, self.number()?);
        self.value = self.value.checked_add(further)?;
        Some((self.value, count))
    }
}

/// Puts a [`Distribution`] together.
#[derive(Debug, Default)]
struct Packer {
    packed: Vec<u8>,
    last: u64,
    sum: u64,
}

impl Packer {
    fn push(&mut self, value: u64, count: u64) {
        self.number(value.saturating_sub(self.last));
        self.number(count);
        self.last = value.max(self.last);
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.packed.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.packed.push(number as u8);
    }

    fn finish(self, max: u64) -> Distribution {
        Distribution { packed: self.packed, max, sum: self.sum }
    }
}

/// In recordings, and wherever people may read it, a distribution is its buckets as pairs.
pub(super) mod pairs {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Buckets, Distribution};

    pub fn serialize<S: Serializer>(packed: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(Buckets { rest: packed, value: 0 })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let mut pairs = Vec::<(u64, u64)>::deserialize(from)?;
        pairs.sort_unstable();
        let Distribution { packed, .. } = Distribution::of(pairs, 0);
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(buckets: &[(u64, u64)]) -> Distribution {
        Distribution::of(buckets.iter().copied(), buckets.last().map_or(0, |b| b.0))
    }

    fn pairs(of: &Distribution) -> Vec<(u64, u64)> {
        of.buckets().collect()
    }

    #[test]
    fn differences_merges_and_quantiles() {
        let (old, new) = (of(&[(1, 2), (5, 1)]), of(&[(1, 3), (3, 4), (5, 1)]));
        let diff = new.since(&old);
        assert_eq!(pairs(&diff), [(1, 1), (3, 4)]);
        assert_eq!((diff.max, diff.sum), (3, 13));
        let mut back = old.clone();
        back.merge(&diff);
        assert_eq!(back, new);
        assert_eq!(new.quantile(0.0), Some(1));
        assert_eq!(new.quantile(0.5), Some(3));
        assert_eq!(new.quantile(1.0), Some(5));
        assert_eq!(of(&[]).quantile(0.5), None);
    }

    #[test]
    fn a_busy_distribution_takes_some_four_bytes_a_bucket() {
        // 500 buckets from 100 µs on, each 1/64 wide, with counts of hundreds.
        let widths = std::iter::successors(Some(100_000u64), |at| Some(at + at / 64));
        let busy: Vec<(u64, u64)> = widths.take(500).map(|value| (value, 300)).collect();
        let size = of(&busy).packed.len();
        assert!((2_000..2_600).contains(&size), "{size}");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(values in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..50)) {
            let buckets: Vec<(u64, u64)> = values.into_iter().collect();
            let packed = of(&buckets);
            prop_assert_eq!(pairs(&packed), buckets.as_slice());
            let json = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(serde_json::from_str::<Distribution>(&json).unwrap(), packed);
        }

        #[test]
        fn any_bytes_are_some_distribution(packed in prop::collection::vec(any::<u8>(), 0..100)) {
            let some = Distribution { packed, ..Distribution::default() };
            prop_assert!(some.buckets().count() <= 50);
            let values: Vec<u64> = some.buckets().map(|(value, _)| value).collect();
            prop_assert!(values.is_sorted());
            prop_assert_eq!(some.count(), some.count());
            let _ = (some.quantile(0.5), some.since(&some));
        }
    }
}
